// Goal: a boot sector becomes a Geometry that nothing can be read wrong with, or a sentence that
// says what is wrong. Method: a table of spoilt fields, mkfs.fat images against what fsck.fat
// reads, and random damage by the thousand.
#include "fs/boot_sector.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cache/device/faulty_device.h"
#include "cache/device/memory_device.h"
#include "fs/layout.h"

#include "tests/fs/gen.h"

namespace wbfat::fs {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kMiB = 1U << 20;

// A boot sector in the making, as either of its two forms.
struct Boot {
    std::array<std::byte, 512> bytes{};
    std::uint64_t device_bytes = 0;

    BootSector16 sector16() const {
        return load<BootSector16>(bytes);
    }
    BootSector32 sector32() const {
        return load<BootSector32>(bytes);
    }
    void put(const BootSector16& sector) {
        store(std::span<std::byte>(bytes), sector);
    }
    void put(const BootSector32& sector) {
        store(std::span<std::byte>(bytes), sector);
    }
};

// 16 MiB, 2 KiB clusters: FAT16, as mkfs.fat makes it.
Boot good_fat16() {
    BootSector16 s;
    s.bpb.jump = {0xEB, 0x3C, 0x90};
    s.bpb.oem_name = {'m', 'k', 'f', 's', '.', 'f', 'a', 't'};
    s.bpb.bytes_per_sector.set(512);
    s.bpb.sectors_per_cluster = 4;
    s.bpb.reserved_sectors.set(4);
    s.bpb.nr_fats = 2;
    s.bpb.root_entries.set(512);
    s.bpb.total_sectors_16.set(32768);
    s.bpb.media = 0xF8;
    s.bpb.fat_sectors_16.set(32);
    s.extension.signature = kExtendedBootSignature;
    s.extension.volume_id.set(0x1234ABCD);
    s.extension.label = {'W', 'B', 'F', 'A', 'T', ' ', ' ', ' ', ' ', ' ', ' '};
    s.extension.state = kStateDirty;
    s.boot_signature.set(kBootSignature);
    Boot boot;
    boot.put(s);
    boot.device_bytes = 16 * kMiB;
    return boot;
}

// 64 MiB, 512-byte clusters: FAT32.
Boot good_fat32() {
    BootSector32 s;
    s.bpb.jump = {0xEB, 0x58, 0x90};
    s.bpb.bytes_per_sector.set(512);
    s.bpb.sectors_per_cluster = 1;
    s.bpb.reserved_sectors.set(32);
    s.bpb.nr_fats = 2;
    s.bpb.total_sectors_32.set(131072);
    s.bpb.media = 0xF8;
    s.bpb32.fat_sectors_32.set(1009);
    s.bpb32.root_cluster.set(2);
    s.bpb32.fsinfo_sector.set(1);
    s.bpb32.backup_boot_sector.set(6);
    s.extension.signature = kExtendedBootSignature;
    s.boot_signature.set(kBootSignature);
    Boot boot;
    boot.put(s);
    boot.device_bytes = 64 * kMiB;
    return boot;
}

struct Answer {
    int error = 0;
    std::string why;
    BootSectorCheck check;
};

Answer parse(const Boot& boot, bool dos1xfloppy = false, std::uint32_t block_bytes = 512) {
    Answer answer;
    Result<BootSectorCheck> check =
        parse_boot_sector(boot.bytes, boot.device_bytes, block_bytes, dos1xfloppy, answer.why);
    answer.error = check.code();
    if (check.has_value()) {
        answer.check = std::move(*check);
    }
    return answer;
}

// What every accepted boot sector must promise.
void expect_invariants(const Geometry& g, std::uint64_t device_bytes) {
    ASSERT_TRUE(std::has_single_bit(g.sector_bytes) && g.sector_bytes >= 512 &&
                g.sector_bytes <= 4096);
    ASSERT_TRUE(std::has_single_bit(g.sectors_per_cluster) && g.sectors_per_cluster <= 128);
    ASSERT_EQ(g.cluster_bytes, g.sector_bytes * g.sectors_per_cluster);
    ASSERT_EQ(1U << g.cluster_shift, g.cluster_bytes);
    ASSERT_GE(g.reserved_sectors, 1U);
    ASSERT_GE(g.nr_fats, 1U);
    ASSERT_GE(g.fat_sectors, 1U);
    ASSERT_LT(g.active_fat, g.nr_fats);
    ASSERT_GE(g.nr_clusters, 1U);
    ASSERT_LE(g.nr_clusters, g.type == FatType::kFat12   ? 4084U
                             : g.type == FatType::kFat16 ? 65524U
                                                         : 0x0FFFFFF6U);
    ASSERT_EQ(g.root_dir_sector, g.reserved_sectors + std::uint64_t{g.nr_fats} * g.fat_sectors);
    ASSERT_GE(g.data_sector, g.root_dir_sector + g.root_dir_bytes() / g.sector_bytes);
    // Every cluster lies in the volume, and every FAT entry in its FAT.
    const cluster_t last = g.nr_clusters + 1;
    ASSERT_TRUE(g.is_data_cluster(last));
    ASSERT_FALSE(g.is_data_cluster(last + 1));
    ASSERT_LE(g.cluster_offset_bytes(last) + g.cluster_bytes, g.volume_bytes());
    const std::uint64_t bits = (std::uint64_t{last} + 1) * static_cast<unsigned>(g.type);
    ASSERT_LE((bits + 7) / 8, std::uint64_t{g.fat_sectors} * g.sector_bytes);
    // The FATs and the root lie on the device.
    ASSERT_LE(g.data_sector * g.sector_bytes, device_bytes);
    if (g.type == FatType::kFat32) {
        ASSERT_TRUE(g.is_data_cluster(g.root_cluster));
        ASSERT_EQ(g.root_entries, 0U);
        ASSERT_LT(g.fsinfo_sector, g.reserved_sectors);
        ASSERT_LT(g.backup_boot_sector, g.reserved_sectors);
    } else {
        ASSERT_GT(g.root_entries, 0U);
        ASSERT_TRUE(g.mirroring);
    }
}

TEST(BootSectorTest, ReadsAFat16Volume) {
    const Answer answer = parse(good_fat16());
    ASSERT_EQ(answer.error, 0) << answer.why;
    const Geometry& g = answer.check.geometry;
    EXPECT_EQ(g.type, FatType::kFat16);
    EXPECT_EQ(g.root_dir_sector, 68U);
    EXPECT_EQ(g.data_sector, 100U);
    EXPECT_EQ(g.nr_clusters, 8167U);
    EXPECT_EQ(g.volume_id, 0x1234ABCDU);
    EXPECT_EQ(std::string(g.label.data(), 5), "WBFAT");
    EXPECT_EQ(g.state, kStateDirty);
    EXPECT_TRUE(g.has_extended_boot);
    EXPECT_FALSE(answer.check.must_be_read_only);
    EXPECT_TRUE(answer.check.warnings.empty());
    EXPECT_EQ(g.fat_offset_bytes(1), 36U * 512);
    EXPECT_EQ(g.cluster_offset_bytes(3), 104U * 512);
}

TEST(BootSectorTest, ReadsAFat32Volume) {
    const Answer answer = parse(good_fat32());
    ASSERT_EQ(answer.error, 0) << answer.why;
    const Geometry& g = answer.check.geometry;
    EXPECT_EQ(g.type, FatType::kFat32);
    EXPECT_EQ(g.root_cluster, 2U);
    EXPECT_EQ(g.fsinfo_sector, 1U);
    EXPECT_EQ(g.backup_boot_sector, 6U);
    EXPECT_EQ(g.nr_clusters, 129022U);
    EXPECT_TRUE(g.mirroring);
}

TEST(BootSectorTest, RefusesWithASentenceThatNamesTheFieldAndItsValue) {
    struct Case {
        const char* name;
        std::function<void(Bpb&)> spoil;
        std::vector<std::string> words;
    };
    const Case cases[] = {
        {"no reserved sector",
         [](Bpb& b) { b.reserved_sectors.set(0); },
         {"BPB_RsvdSecCnt", "is 0", "at least 1"}},
        {"no FAT", [](Bpb& b) { b.nr_fats = 0; }, {"BPB_NumFATs", "is 0"}},
        {"a media byte that is none",
         [](Bpb& b) { b.media = 0xF1; },
         {"BPB_Media", "0xF1", "0xF8"}},
        {"media byte 0", [](Bpb& b) { b.media = 0; }, {"BPB_Media", "0x0"}},
        {"a sector size that is no power of two",
         [](Bpb& b) { b.bytes_per_sector.set(520); },
         {"BytsPerSec", "520"}},
        {"too small sectors",
         [](Bpb& b) { b.bytes_per_sector.set(256); },
         {"BytsPerSec", "256", "512"}},
        {"too large sectors", [](Bpb& b) { b.bytes_per_sector.set(8192); }, {"BytsPerSec", "8192"}},
        {"sectors of 0 bytes", [](Bpb& b) { b.bytes_per_sector.set(0); }, {"BytsPerSec", "is 0"}},
        {"clusters of 0 sectors",
         [](Bpb& b) { b.sectors_per_cluster = 0; },
         {"BPB_SecPerClus", "is 0"}},
        {"clusters of 3 sectors",
         [](Bpb& b) { b.sectors_per_cluster = 3; },
         {"BPB_SecPerClus", "is 3", "128"}},
        {"a broken root directory",
         [](Bpb& b) { b.root_entries.set(17); },
         {"BPB_RootEntCnt", "17", "multiple of 16"}},
        {"no root directory", [](Bpb& b) { b.root_entries.set(0); }, {"BPB_RootEntCnt", "is 0"}},
        {"no sectors", [](Bpb& b) { b.total_sectors_16.set(0); }, {"BPB_TotSec16", "is 0", "104"}},
        {"fewer sectors than metadata",
         [](Bpb& b) { b.total_sectors_16.set(99); },
         {"BPB_TotSec16", "99", "104"}},
        {"room for no cluster",
         [](Bpb& b) { b.total_sectors_16.set(103); },
         {"BPB_TotSec16", "103", "104"}},
        {"an exFAT volume",
         [](Bpb& b) { std::memcpy(b.oem_name.data(), "EXFAT   ", 8); },
         {"exFAT"}},
        {"an NTFS volume", [](Bpb& b) { std::memcpy(b.oem_name.data(), "NTFS    ", 8); }, {"NTFS"}},
    };
    for (const Case& c : cases) {
        SCOPED_TRACE(c.name);
        Boot boot = good_fat16();
        BootSector16 sector = boot.sector16();
        c.spoil(sector.bpb);
        boot.put(sector);
        const Answer answer = parse(boot);
        EXPECT_EQ(answer.error, EINVAL);
        for (const std::string& word : c.words) {
            EXPECT_THAT(answer.why, HasSubstr(word));
        }
    }
}

TEST(BootSectorTest, RefusesSpoiltFat32Fields) {
    struct Case {
        const char* name;
        std::function<void(BootSector32&)> spoil;
        std::vector<std::string> words;
    };
    const Case cases[] = {
        {"no FAT length at all",
         [](BootSector32& s) { s.bpb32.fat_sectors_32.set(0); },
         {"BPB_FATSz16", "BPB_FATSz32", "is 0"}},
        {"root at cluster 0",
         [](BootSector32& s) { s.bpb32.root_cluster.set(0); },
         {"BPB_RootClus", "is 0"}},
        {"root at cluster 1",
         [](BootSector32& s) { s.bpb32.root_cluster.set(1); },
         {"BPB_RootClus", "is 1"}},
        {"root one beyond the end",
         [](BootSector32& s) { s.bpb32.root_cluster.set(129024); },
         {"BPB_RootClus", "129024", "2 to 129023"}},
        {"root far beyond",
         [](BootSector32& s) { s.bpb32.root_cluster.set(0xFFFFFFFF); },
         {"4294967295"}},
        {"a FAT of 2^32 - 1 sectors: total - data start must not wrap",
         [](BootSector32& s) { s.bpb32.fat_sectors_32.set(0xFFFFFFFF); },
         {"BPB_TotSec", "131072"}},
        {"255 such FATs",
         [](BootSector32& s) {
             s.bpb.nr_fats = 255;
             s.bpb32.fat_sectors_32.set(0xFFFFFFFF);
         },
         {"BPB_TotSec"}},
        {"more clusters than FAT32 can have",
         [](BootSector32& s) {
             s.bpb.total_sectors_32.set(0xFFFFFFFF);
             s.bpb32.fat_sectors_32.set(0x00300000);
         },
         {"number of clusters", "268435446"}},
    };
    for (const Case& c : cases) {
        SCOPED_TRACE(c.name);
        Boot boot = good_fat32();
        BootSector32 sector = boot.sector32();
        c.spoil(sector);
        boot.put(sector);
        boot.device_bytes = 4096ULL << 30;
        const Answer answer = parse(boot);
        EXPECT_EQ(answer.error, EINVAL);
        for (const std::string& word : c.words) {
            EXPECT_THAT(answer.why, HasSubstr(word));
        }
    }
}

TEST(BootSectorTest, AcceptsWhatLinuxAccepts) {
    struct Case {
        const char* name;
        std::function<void(BootSector16&)> change;
        std::size_t warnings;
    };
    const Case cases[] = {
        {"no signature at the end", [](BootSector16& s) { s.boot_signature.set(0); }, 1},
        {"no jump",
         [](BootSector16& s) {
             s.bpb.jump = {0, 0, 0};
         },
         0},
        {"another type text",
         [](BootSector16& s) {
             s.extension.type_text = {'F', 'A', 'T', '3', '2'};
         },
         0},
        {"one FAT", [](BootSector16& s) { s.bpb.nr_fats = 1; }, 0},
        {"four FATs", [](BootSector16& s) { s.bpb.nr_fats = 4; }, 0},
        {"media F0", [](BootSector16& s) { s.bpb.media = 0xF0; }, 0},
        {"the total in 32 bits",
         [](BootSector16& s) {
             s.bpb.total_sectors_16.set(0);
             s.bpb.total_sectors_32.set(32768);
         },
         0},
        {"both totals: the short one counts",
         [](BootSector16& s) { s.bpb.total_sectors_32.set(7); }, 0},
        {"a FAT too short for all clusters", [](BootSector16& s) { s.bpb.fat_sectors_16.set(20); },
         1},
    };
    for (const Case& c : cases) {
        SCOPED_TRACE(c.name);
        Boot boot = good_fat16();
        BootSector16 sector = boot.sector16();
        c.change(sector);
        boot.put(sector);
        const Answer answer = parse(boot);
        ASSERT_EQ(answer.error, 0) << answer.why;
        EXPECT_EQ(answer.check.warnings.size(), c.warnings);
        EXPECT_FALSE(answer.check.must_be_read_only);
        expect_invariants(answer.check.geometry, boot.device_bytes);
    }
}

TEST(BootSectorTest, ClampsTheClustersToTheFat) {
    Boot boot = good_fat16();
    BootSector16 sector = boot.sector16();
    sector.bpb.fat_sectors_16.set(20);  // 5120 entries
    boot.put(sector);
    EXPECT_EQ(parse(boot).check.geometry.nr_clusters, 5118U);
    EXPECT_EQ(parse(boot).check.geometry.type, FatType::kFat16)
        << "the type comes from the data area, as in Linux";
}

TEST(BootSectorTest, TellsTheTypeByTheNumberOfClusters) {
    struct Case {
        std::uint32_t clusters;
        FatType type;
    };
    for (const Case& c : {Case{1, FatType::kFat12}, Case{4084, FatType::kFat12},
                          Case{4085, FatType::kFat16}, Case{65524, FatType::kFat16}}) {
        SCOPED_TRACE(c.clusters);
        Boot boot = good_fat16();
        BootSector16 sector = boot.sector16();
        sector.bpb.sectors_per_cluster = 1;
        sector.bpb.fat_sectors_16.set(256);
        sector.bpb.total_sectors_16.set(0);
        sector.bpb.total_sectors_32.set(4 + 512 + 32 + c.clusters);
        boot.put(sector);
        boot.device_bytes = 64 * kMiB;
        const Answer answer = parse(boot);
        ASSERT_EQ(answer.error, 0) << answer.why;
        EXPECT_EQ(answer.check.geometry.type, c.type);
        EXPECT_EQ(answer.check.geometry.nr_clusters, c.clusters);
    }
    Boot boot = good_fat16();
    BootSector16 sector = boot.sector16();
    sector.bpb.sectors_per_cluster = 1;
    sector.bpb.fat_sectors_16.set(257);
    sector.bpb.total_sectors_16.set(0);
    sector.bpb.total_sectors_32.set(4 + 514 + 32 + 65525);
    boot.put(sector);
    boot.device_bytes = 64 * kMiB;
    EXPECT_THAT(parse(boot).why, HasSubstr("65525; it must be at most 65524 on FAT16"));
}

TEST(BootSectorTest, AVolumeLargerThanItsDeviceIsReadOnly) {
    Boot boot = good_fat16();
    boot.device_bytes = 16 * kMiB - 1;
    const Answer answer = parse(boot);
    ASSERT_EQ(answer.error, 0);
    EXPECT_TRUE(answer.check.must_be_read_only);
    EXPECT_THAT(answer.check.warnings.back(),
                HasSubstr("16777216 bytes, but the device only 16777215"));
    boot.device_bytes = 99 * 512;
    EXPECT_THAT(parse(boot).why, HasSubstr("FATs and the root directory alone"));
}

TEST(BootSectorTest, ASectorSmallerThanTheDevicesBlockIsRefused) {
    EXPECT_THAT(parse(good_fat16(), false, 4096).why,
                HasSubstr("512; it must be at least the block size of the device, 4096"));
}

TEST(BootSectorTest, HonoursTheActiveFat) {
    const auto with_flags = [](std::uint16_t flags) {
        Boot boot = good_fat32();
        BootSector32 sector = boot.sector32();
        sector.bpb32.ext_flags.set(flags);
        boot.put(sector);
        return parse(boot).check;
    };
    EXPECT_TRUE(with_flags(0x0001).geometry.mirroring)
        << "the number counts only without mirroring";
    EXPECT_EQ(with_flags(0x0001).geometry.active_fat, 0U);
    EXPECT_FALSE(with_flags(0x0081).geometry.mirroring);
    EXPECT_EQ(with_flags(0x0081).geometry.active_fat, 1U);
    EXPECT_TRUE(with_flags(0x0082).must_be_read_only) << "there is no FAT 2";
}

TEST(BootSectorTest, ReservedSectorNumbersOutOfRangeAreNone) {
    struct Case {
        const char* name;
        std::uint16_t fsinfo;
        std::uint16_t backup;
        std::uint32_t fsinfo_used;
        std::uint32_t backup_used;
        std::size_t warnings;
    };
    constexpr Case kCases[] = {
        {"as usual", 1, 6, 1, 6, 0},
        {"FSINFO 0 means 1, as in Linux", 0, 6, 1, 6, 0},
        {"FFFF is none", 0xFFFF, 0xFFFF, 0, 0, 0},
        {"no backup", 1, 0, 1, 0, 0},
        {"outside the reserved sectors", 32, 40, 0, 0, 2},
        {"both the same", 5, 5, 5, 0, 1},
    };
    for (const Case& c : kCases) {
        SCOPED_TRACE(c.name);
        Boot boot = good_fat32();
        BootSector32 sector = boot.sector32();
        sector.bpb32.fsinfo_sector.set(c.fsinfo);
        sector.bpb32.backup_boot_sector.set(c.backup);
        boot.put(sector);
        const BootSectorCheck check = parse(boot).check;
        EXPECT_EQ(check.geometry.fsinfo_sector, c.fsinfo_used);
        EXPECT_EQ(check.geometry.backup_boot_sector, c.backup_used);
        EXPECT_EQ(check.warnings.size(), c.warnings);
        EXPECT_FALSE(check.must_be_read_only);
    }
}

TEST(BootSectorTest, KnowsFloppiesFromBeforeTheBpb) {
    struct Case {
        std::uint64_t kib;
        std::uint32_t root_entries;
        std::uint32_t cluster_bytes;
        std::uint8_t media;
    };
    for (const Case& c : {Case{160, 64, 512, 0xFE}, Case{180, 64, 512, 0xFC},
                          Case{320, 112, 1024, 0xFF}, Case{360, 112, 1024, 0xFD}}) {
        SCOPED_TRACE(c.kib);
        Boot boot;
        boot.bytes[0] = std::byte{0xEB};
        boot.bytes[2] = std::byte{0x90};
        boot.bytes[0x25] = std::byte{0x01};  // boot code, no state
        boot.device_bytes = c.kib * 1024;
        EXPECT_EQ(parse(boot, false).error, EINVAL);
        const Answer answer = parse(boot, true);
        ASSERT_EQ(answer.error, 0) << answer.why;
        EXPECT_EQ(answer.check.geometry.type, FatType::kFat12);
        EXPECT_EQ(answer.check.geometry.root_entries, c.root_entries);
        EXPECT_EQ(answer.check.geometry.cluster_bytes, c.cluster_bytes);
        EXPECT_EQ(answer.check.geometry.media, c.media);
        EXPECT_EQ(answer.check.geometry.state, 0);
        EXPECT_FALSE(answer.check.geometry.has_extended_boot);
        boot.device_bytes += 512;
        EXPECT_THAT(parse(boot, true).why, HasSubstr("160, 180, 320 or 360 KiB"));
    }
    Boot no_jump;
    no_jump.device_bytes = 160 * 1024;
    EXPECT_THAT(parse(no_jump, true).why, HasSubstr("DOS 1.x"));
}

// --- hostile boot sectors
// ------------------------------------------------------------------------------------------------

TEST(BootSectorTest, EveryFieldAtItsExtremesIsRefusedOrSafe) {
    int accepted = 0;
    for (const Boot& good : {good_fat16(), good_fat32()}) {
        for (std::size_t offset = 0; offset < 90; ++offset) {
            for (std::size_t width : {1, 2, 4}) {
                for (unsigned byte : {0x00, 0xFF, 0x7F, 0x80, 0x01}) {
                    Boot boot = good;
                    std::fill_n(boot.bytes.begin() + static_cast<std::ptrdiff_t>(offset), width,
                                static_cast<std::byte>(byte));
                    const Answer answer = parse(boot);
                    ASSERT_EQ(answer.error == 0, answer.why.empty());
                    if (answer.error == 0) {
                        ++accepted;
                        expect_invariants(answer.check.geometry, boot.device_bytes);
                    }
                }
            }
        }
    }
    EXPECT_GT(accepted, 500) << "most bytes mean little: the test would prove nothing";
}

TEST(BootSectorTest, TwentyThousandRandomMutationsAreRefusedOrSafe) {
    testing::Gen gen(6);
    SCOPED_TRACE(gen.replay());
    int accepted = 0;
    for (int i = 0; i < 20000; ++i) {
        Boot boot = gen.one_in(2) ? good_fat16() : good_fat32();
        for (std::uint64_t n = gen.between(1, 4); n != 0; --n) {
            const std::size_t at = 11 + gen.below(53);
            const bool gentle = gen.one_in(2);
            boot.bytes.at(at) =
                static_cast<std::byte>(gentle ? 1U << gen.below(8) : gen.below(256));
        }
        boot.device_bytes = gen.one_in(3) ? gen.below(1ULL << 44) : boot.device_bytes;
        const Answer answer = parse(boot, gen.one_in(4), gen.one_in(4) ? 4096 : 512);
        if (answer.error == 0) {
            ++accepted;
            expect_invariants(answer.check.geometry, boot.device_bytes);
        } else {
            ASSERT_FALSE(answer.why.empty());
        }
        if (HasFatalFailure()) {
            return;
        }
    }
    EXPECT_GT(accepted, 1000);
}

// --- devices
// -------------------------------------------------------------------------------------------------------------

class BootDeviceTest : public ::testing::Test {
protected:
    // A FAT32 volume with backup and equal FATs.
    BootDeviceTest() : disk_(64 * kMiB), device_(disk_) {
        put(0, good_fat32());
        put(6 * 512, good_fat32());
        for (std::uint64_t fat : {32U, 32U + 1009U}) {
            disk_.bytes()[fat * 512] = std::byte{0xF8};
        }
    }

    void put(std::uint64_t offset, const Boot& boot) {
        std::copy(boot.bytes.begin(), boot.bytes.end(),
                  disk_.bytes().begin() + static_cast<std::ptrdiff_t>(offset));
    }
    Answer read() {
        Answer answer;
        Result<BootSectorCheck> check = read_boot_sector(device_, false, answer.why);
        answer.error = check.code();
        if (check.has_value()) {
            answer.check = std::move(*check);
        }
        return answer;
    }

    cache::MemoryDevice disk_;
    cache::FaultyDevice device_;
};

TEST_F(BootDeviceTest, ReadsAGoodVolumeWithoutAWord) {
    const Answer answer = read();
    ASSERT_EQ(answer.error, 0) << answer.why;
    EXPECT_TRUE(answer.check.warnings.empty());
    EXPECT_FALSE(answer.check.must_be_read_only);
}

TEST_F(BootDeviceTest, AnUnreadableBootSectorIsReplacedByItsBackupReadOnly) {
    device_.add_rule({.ops = cache::kFaultReads,
                      .begin_bytes = 0,
                      .end_bytes = 512,
                      .nr_hits = cache::FaultRule::kSticky});
    const Answer answer = read();
    ASSERT_EQ(answer.error, 0) << answer.why;
    EXPECT_TRUE(answer.check.must_be_read_only);
    EXPECT_THAT(answer.check.warnings.back(), HasSubstr("backup at sector 6"));
    EXPECT_EQ(answer.check.geometry.nr_clusters, 129022U);
}

TEST_F(BootDeviceTest, ASpoiltBootSectorIsReplacedByItsBackupReadOnly) {
    std::fill_n(disk_.bytes().begin(), 512, std::byte{0});
    const Answer answer = read();
    ASSERT_EQ(answer.error, 0) << answer.why;
    EXPECT_TRUE(answer.check.must_be_read_only);
}

TEST_F(BootDeviceTest, WithoutABackupTheFirstReasonIsTold) {
    std::fill_n(disk_.bytes().begin(), 512 * 16, std::byte{0});
    EXPECT_THAT(read().why, HasSubstr("BPB_RsvdSecCnt"));
    EXPECT_EQ(read().error, EINVAL);
    device_.add_rule({.ops = cache::kFaultReads,
                      .begin_bytes = 0,
                      .end_bytes = 512,
                      .nr_hits = cache::FaultRule::kSticky});
    EXPECT_EQ(read().error, EIO);
}

TEST_F(BootDeviceTest, AnotherFilesystemIsNotReplacedByAnOldBackup) {
    std::memcpy(disk_.bytes().data() + 3, "NTFS    ", 8);
    const Answer answer = read();
    EXPECT_EQ(answer.error, EINVAL);
    EXPECT_THAT(answer.why, HasSubstr("NTFS"));
}

TEST_F(BootDeviceTest, ABackupOfAnotherVolumeMeansReadOnly) {
    Boot other = good_fat32();
    BootSector32 sector = other.sector32();
    sector.bpb.sectors_per_cluster = 2;
    other.put(sector);
    put(6 * 512, other);
    const Answer answer = read();
    ASSERT_EQ(answer.error, 0);
    EXPECT_TRUE(answer.check.must_be_read_only);
    EXPECT_THAT(answer.check.warnings.back(), HasSubstr("BPB_BkBootSec"));
}

TEST_F(BootDeviceTest, ADirtyMarkIsNoDifferenceToTheBackup) {
    disk_.bytes()[0x41] = std::byte{kStateDirty};
    EXPECT_TRUE(read().check.warnings.empty());
    EXPECT_EQ(read().check.geometry.state, kStateDirty);
}

TEST_F(BootDeviceTest, AWrongMediaByteInTheFatIsOnlyAWarning) {
    disk_.bytes()[32 * 512] = std::byte{0xF0};
    const Answer answer = read();
    ASSERT_EQ(answer.error, 0);
    EXPECT_FALSE(answer.check.must_be_read_only);
    ASSERT_EQ(answer.check.warnings.size(), 2U);
    EXPECT_THAT(answer.check.warnings[0], HasSubstr("0xF0"));
    EXPECT_THAT(answer.check.warnings[1], HasSubstr("FATs differ"));
}

TEST_F(BootDeviceTest, TheReasonForReadOnlyStaysTheLastWarning) {
    disk_.bytes()[32 * 512] = std::byte{0xF0};
    std::fill_n(disk_.bytes().begin(), 512, std::byte{0});
    const Answer answer = read();
    ASSERT_TRUE(answer.check.must_be_read_only);
    EXPECT_THAT(answer.check.warnings.back(), HasSubstr("read-only"));
    EXPECT_EQ(answer.check.warnings.size(), 3U);
}

TEST(BootDeviceSizeTest, ATinyDeviceIsRefused) {
    for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{511}}) {
        cache::MemoryDevice tiny(size);
        std::string why;
        EXPECT_EQ(read_boot_sector(tiny, true, why).code(), EINVAL);
        EXPECT_THAT(why, HasSubstr("512"));
    }
}

// --- FSINFO
// --------------------------------------------------------------------------------------------------------------

TEST(FsInfoTest, IsAHintWithTheRightSignaturesAndInRange) {
    struct Case {
        const char* name;
        std::function<void(FsInfoSector&)> change;
        bool valid;
        std::uint32_t free;
        std::uint32_t next;
    };
    const Case cases[] = {
        {"as it should be", [](FsInfoSector&) {}, true, 100, 50},
        {"a wrong lead signature", [](FsInfoSector& s) { s.lead_signature.set(0); }, false,
         0xFFFFFFFF, 0xFFFFFFFF},
        {"a wrong inner signature", [](FsInfoSector& s) { s.struct_signature.set(1); }, false,
         0xFFFFFFFF, 0xFFFFFFFF},
        {"a wrong last signature", [](FsInfoSector& s) { s.trail_signature.set(1); }, false,
         0xFFFFFFFF, 0xFFFFFFFF},
        {"unknown", [](FsInfoSector& s) { s.free_count.set(0xFFFFFFFF); }, true, 0xFFFFFFFF, 50},
        {"all free", [](FsInfoSector& s) { s.free_count.set(129022); }, true, 129022, 50},
        {"more than all", [](FsInfoSector& s) { s.free_count.set(129023); }, true, 0xFFFFFFFF, 50},
        {"the last cluster", [](FsInfoSector& s) { s.next_free.set(129023); }, true, 100, 129023},
        {"beyond the last", [](FsInfoSector& s) { s.next_free.set(129024); }, true, 100,
         0xFFFFFFFF},
        {"cluster 1", [](FsInfoSector& s) { s.next_free.set(1); }, true, 100, 0xFFFFFFFF},
    };
    const Geometry geometry = parse(good_fat32()).check.geometry;
    for (const Case& c : cases) {
        SCOPED_TRACE(c.name);
        FsInfoSector sector;
        sector.lead_signature.set(kFsInfoLeadSignature);
        sector.struct_signature.set(kFsInfoStructSignature);
        sector.trail_signature.set(kFsInfoTrailSignature);
        sector.free_count.set(100);
        sector.next_free.set(50);
        c.change(sector);
        std::array<std::byte, 512> bytes{};
        store(std::span<std::byte>(bytes), sector);
        const FsInfo info = parse_fsinfo(bytes, geometry);
        EXPECT_EQ(info.valid, c.valid);
        EXPECT_EQ(info.free_clusters, c.free);
        EXPECT_EQ(info.next_free, c.next);
    }
    EXPECT_FALSE(parse_fsinfo({}, geometry).valid);
}

// --- against dosfstools
// ----------------------------------------------------------------------------------------------------

std::string output_of(const std::string& command) {
    std::string output;
    FILE* const pipe =
        popen(command.c_str(), "r");  // NOLINT(cert-env33-c): fixed commands of this test
    if (pipe == nullptr) {
        return output;
    }
    std::array<char, 4096> buffer{};
    for (std::size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) != 0;) {
        output.append(buffer.data(), n);
    }
    pclose(pipe);
    return output;
}

// The number before `words` on its line of fsck.fat -v.
std::uint64_t number_before(const std::string& output, const std::string& words) {
    const std::size_t at = output.find(words);
    if (at == std::string::npos) {
        return ~0ULL;
    }
    const std::size_t line = output.rfind('\n', at) + 1;
    return std::strtoull(output.c_str() + line, nullptr, 10);
}

std::uint64_t number_after(const std::string& output, const std::string& words) {
    const std::size_t at = output.find(words);
    return at == std::string::npos ? ~0ULL
                                   : std::strtoull(output.c_str() + at + words.size(), nullptr, 10);
}

struct MkfsCase {
    const char* options;
    std::uint64_t kib;
};
constexpr MkfsCase kMkfsCases[] = {
    {"-F 12", 160},
    {"-F 12", 360},
    {"-F 12", 1440},
    {"-F 12 -s 8", 8192},
    {"-F 12 -f 1", 720},
    {"-F 12 -S 1024", 2880},
    {"-F 16 -s 1", 4300},
    {"-F 16", 32768},
    {"-F 16 -s 64", 500000},
    {"-F 16 -S 4096", 131072},
    {"-F 16 -r 1024", 65536},
    {"-F 16 -R 9", 65536},
    {"-F 32", 34000},
    {"-F 32", 262144},
    {"-F 32 -s 128", 5000000},
    {"-F 32 -S 2048", 600000},
    {"-F 32 -S 4096 -s 128", 40000000},
    {"-F 32 -b 0", 262144},
    {"-F 32 -R 64 -b 12", 262144},
    {"-F 32 -f 1", 262144},
    {"-F 32 -s 1", 2000000},
    {"", 1000},
    {"", 16384},
    {"", 600000},
    {"-a -F 32", 300001},
    {"-a -F 16", 50001},
    {"-F 32 -s 64", 67108864},
};

constexpr const char* kPath = "PATH=$PATH:/sbin:/usr/sbin ";

// The summary of fsck.fat -v about a fresh volume. It comes first; what follows on a large table is
// cut off.
std::string make_and_check(const MkfsCase& c, const std::filesystem::path& image) {
    std::ofstream(image).close();
    std::filesystem::resize_file(image, c.kib * 1024);
    output_of(std::string(kPath) + "mkfs.fat " + c.options + " " + image.string() + " 2>&1");
    return output_of(std::string(kPath) + "timeout 20 fsck.fat -nv " + image.string() +
                     " 2>&1 | head -40");
}

Boot boot_of(const std::filesystem::path& image) {
    Boot boot;
    std::ifstream file(image, std::ios::binary);
    std::array<char, 512> raw{};
    file.read(raw.data(), raw.size());
    std::memcpy(boot.bytes.data(), raw.data(), raw.size());
    boot.device_bytes = std::filesystem::file_size(image);
    return boot;
}

void expect_same(const std::string& seen, const Geometry& g) {
    EXPECT_EQ(number_before(seen, " bytes per logical sector"), g.sector_bytes);
    EXPECT_EQ(number_before(seen, " bytes per cluster"), g.cluster_bytes);
    EXPECT_EQ(number_before(seen, " reserved sector"), g.reserved_sectors);
    EXPECT_EQ(number_after(seen, "First FAT starts at byte "), g.fat_offset_bytes(0));
    EXPECT_EQ(number_before(seen, " FATs, "), g.nr_fats);
    EXPECT_EQ(number_after(seen, " FATs, "), static_cast<unsigned>(g.type));
    EXPECT_EQ(number_before(seen, " bytes per FAT"), std::uint64_t{g.fat_sectors} * g.sector_bytes);
    EXPECT_EQ(number_after(seen, "Data area starts at byte "), g.cluster_offset_bytes(2));
    EXPECT_EQ(number_before(seen, " data clusters"), g.nr_clusters);
    EXPECT_EQ(number_before(seen, " sectors total"), g.total_sectors);
    if (g.type == FatType::kFat32) {
        EXPECT_EQ(number_after(seen, "Root directory start at cluster "), g.root_cluster);
    } else {
        EXPECT_EQ(number_after(seen, "Root directory starts at byte "), g.root_dir_offset_bytes());
        EXPECT_EQ(number_before(seen, " root directory entries"), g.root_entries);
    }
}

TEST(BootSectorMkfsTest, GeometryEqualsWhatFsckFatReads) {
    if (output_of(std::string(kPath) + "mkfs.fat --help 2>&1").find("Usage") == std::string::npos) {
        GTEST_SKIP() << "mkfs.fat is not installed";
    }
    const std::filesystem::path image = std::filesystem::temp_directory_path() /
                                        ("wbfat-boot-" + std::to_string(getpid()) + ".img");
    for (const MkfsCase& c : kMkfsCases) {
        SCOPED_TRACE(std::string("mkfs.fat ") + c.options + " on " + std::to_string(c.kib) +
                     " KiB");
        const std::string seen = make_and_check(c, image);
        EXPECT_NE(seen.find("data clusters"), std::string::npos) << seen;
        const Boot boot = boot_of(image);
        const Answer answer = parse(boot);
        EXPECT_EQ(answer.error, 0) << answer.why;
        if (answer.error == 0) {
            EXPECT_TRUE(answer.check.warnings.empty()) << answer.check.warnings[0];
            expect_same(seen, answer.check.geometry);
            expect_invariants(answer.check.geometry, boot.device_bytes);
        }
    }
    std::filesystem::remove(image);
}

}  // namespace
}  // namespace wbfat::fs
