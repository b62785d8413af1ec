// Goal: mount, unmount, remount and what a volume says and does when something is wrong with it.
// Method: volumes of every FAT type and sector size in memory; fsck.fat judges what is left behind.
#include "fs/volume.h"

#include <cstring>
#include <string>

#include <gtest/gtest.h>

#include "fs/layout.h"
#include "fs/namei.h"

#include "tests/support/volume_fixture.h"

namespace wbfat::fs::inline WBFAT_RT {
namespace {

VolumeSpec spec_of(unsigned fat_bits, std::uint32_t sector_bytes) {
    VolumeSpec spec;
    spec.fat_bits = fat_bits;
    spec.sector_bytes = sector_bytes;
    const std::uint64_t clusters = fat_bits == 32 ? 70000 : fat_bits == 16 ? 6000 : 2000;
    spec.sectors_per_cluster = fat_bits == 32 ? 1 : 2;
    spec.size_bytes =
        ((clusters * spec.sectors_per_cluster * sector_bytes) >> 20 << 20) + (1U << 20);
    return spec;
}

class VolumeGridTest : public testing::TestWithParam<std::tuple<unsigned, std::uint32_t>> {
protected:
    TestVolume bed_{spec_of(std::get<0>(GetParam()), std::get<1>(GetParam()))};

    std::byte state_byte(std::uint64_t boot_offset = 0) {
        return bed_.memory().bytes()[boot_offset + (std::get<0>(GetParam()) == 32 ? 0x41U : 0x25U)];
    }
};

TEST_P(VolumeGridTest, AFreshVolumeStaysCleanWhenItIsOnlyLookedAt) {
    const std::vector<std::byte> before = bed_.image();
    bed_.mount();
    EXPECT_EQ(bed_.root()->getattr().st_nlink, 2U);
    bed_.unmount();
    EXPECT_TRUE(bed_.image() == before);
}

TEST_P(VolumeGridTest, IsMarkedDirtyWhileChangedAndCleanAfterUnmount) {
    bed_.mount();
    const std::uint64_t backup =
        bed_.volume().geometry().backup_boot_sector * bed_.volume().geometry().sector_bytes;
    bed_.make("a file with a long name.text", 10000);
    EXPECT_EQ(state_byte() & std::byte{1}, std::byte{1});
    if (backup != 0) {
        EXPECT_EQ(state_byte(backup), state_byte());
    }
    bed_.make_in(*bed_.make_directory(*bed_.root(), "dir"), "inside", 5000);
    bed_.unmount();
    EXPECT_EQ(state_byte() & std::byte{1}, std::byte{0});
    const FsckResult result = bed_.fsck();
    EXPECT_EQ(result.status, 0) << result.output;
    EXPECT_EQ(result.output.find("irty"), std::string::npos) << result.output;

    bed_.mount();
    EXPECT_FALSE(bed_.volume().was_dirty_at_mount());
    EXPECT_EQ(bed_.read(bed_.open(*bed_.root(), "a file with a long name.text")),
              pattern(0, 10000, 1));
    EXPECT_EQ(bed_.read(bed_.open(*bed_.open(*bed_.root(), "dir"), "inside")), pattern(0, 5000, 1));
}

TEST_P(VolumeGridTest, AfterACrashItIsDirtyForEverButForTheCheck) {
    bed_.mount();
    bed_.make("a", 10);
    bed_.commit();
    bed_.crash();
    bed_.mount();
    EXPECT_TRUE(bed_.volume().was_dirty_at_mount());
    EXPECT_NE(bed_.logged().find("not properly unmounted"), std::string::npos);
    EXPECT_EQ(bed_.read(bed_.open(*bed_.root(), "a")), pattern(0, 10, 1));
    bed_.make("b", 10);
    bed_.unmount();
    EXPECT_EQ(state_byte() & std::byte{1}, std::byte{1});
    EXPECT_NE(bed_.fsck().output.find("irty bit is set"), std::string::npos);
}

TEST_P(VolumeGridTest, CountsItsFreeClusters) {
    bed_.mount();
    const StatFs before = *bed_.volume().statfs();
    EXPECT_EQ(before.block_bytes, bed_.volume().geometry().cluster_bytes);
    EXPECT_EQ(before.blocks, bed_.volume().geometry().nr_clusters);
    EXPECT_EQ(before.name_max, 255U);
    EXPECT_EQ(before.volume_id, 0x1234ABCDU);
    bed_.make("a", 10 * before.block_bytes);
    EXPECT_EQ(bed_.volume().statfs()->blocks_free, before.blocks_free - 10);
    bed_.remount();
    EXPECT_EQ(bed_.volume().statfs()->blocks_free, before.blocks_free - 10);
}

INSTANTIATE_TEST_SUITE_P(Grid, VolumeGridTest,
                         testing::Combine(testing::Values(12U, 16U, 32U),
                                          testing::Values(512U, 1024U, 2048U, 4096U)),
                         [](const auto& test) {
                             return "Fat" + std::to_string(std::get<0>(test.param)) + "Sector" +
                                    std::to_string(std::get<1>(test.param));
                         });

class VolumeTest : public testing::Test {
protected:
    TestVolume bed_{spec_of(32, 512)};

    FsInfoSector fsinfo() {
        return load<FsInfoSector>(bed_.memory().bytes(),
                                  bed_.volume().geometry().fsinfo_sector * 512ULL);
    }
};

TEST_F(VolumeTest, FsInfoFollowsTheCommits) {
    bed_.mount();
    const std::uint64_t before = bed_.volume().statfs()->blocks_free;
    bed_.make("a", 10 * 512);
    bed_.commit();
    EXPECT_EQ(fsinfo().free_count.get(), before - 10);
    ASSERT_EQ(unlink(*bed_.root(), "a").code(), 0);
    bed_.commit();
    EXPECT_EQ(fsinfo().free_count.get(), before);
}

TEST_F(VolumeTest, ADirtyVolumesFreeCountIsNotTrusted) {
    bed_.mount();
    const std::uint64_t right = bed_.volume().statfs()->blocks_free;
    const std::uint64_t offset = bed_.volume().geometry().fsinfo_sector * 512ULL;
    bed_.make("a", 512);
    bed_.commit();
    bed_.crash();
    auto sector = load<FsInfoSector>(bed_.memory().bytes(), offset);
    sector.free_count.set(7);
    store(bed_.memory().bytes(), sector, offset);
    bed_.mount();
    EXPECT_EQ(bed_.volume().statfs()->blocks_free, right - 1);
    bed_.crash();
    bed_.options().usefree = true;
    bed_.mount();
    EXPECT_EQ(bed_.volume().statfs()->blocks_free, 7U);
}

TEST_F(VolumeTest, TheOtherPlaceOfTheMarkIsBelievedToo) {
    // FAT[1] of both tables, as a Windows 9x that was switched off leaves it.
    bed_.mount();
    const Geometry geometry = bed_.volume().geometry();
    bed_.unmount();
    for (std::uint32_t fat = 0; fat < geometry.nr_fats; ++fat) {
        bed_.memory().bytes()[geometry.fat_offset_bytes(fat) + 7] &= std::byte{0xF7};
    }
    bed_.mount();
    EXPECT_TRUE(bed_.volume().was_dirty_at_mount());
}

TEST_F(VolumeTest, ABackupThatIsNoCopyIsLeftAlone) {
    bed_.mount();
    const std::uint64_t backup = bed_.volume().geometry().backup_boot_sector * 512ULL;
    bed_.unmount();
    bed_.memory().bytes()[backup + 3] = std::byte{'?'};
    const std::vector<std::byte> before(
        bed_.memory().bytes().begin() + static_cast<long>(backup),
        bed_.memory().bytes().begin() + static_cast<long>(backup + 512));
    bed_.mount();
    bed_.make("a", 10);
    bed_.crash();
    EXPECT_EQ(std::memcmp(before.data(), bed_.memory().bytes().data() + backup, 512), 0);
}

TEST_F(VolumeTest, RefusesWhatIsNoFat) {
    std::memset(bed_.memory().bytes().data(), 0, 512 * 32);
    EXPECT_EQ(bed_.try_mount().code(), EINVAL);
    EXPECT_FALSE(bed_.why().empty());
}

TEST_F(VolumeTest, RefusesAnUnknownCodepage) {
    bed_.options().codepage = "99999";
    EXPECT_EQ(bed_.try_mount().code(), EINVAL);
    EXPECT_NE(bed_.why().find("99999"), std::string::npos);
}

TEST(VolumeDeviceTest, AReadOnlyDeviceIsMountedReadOnlyOrNotAtAll) {
    VolumeSpec spec = spec_of(16, 512);
    spec.can_be_written = false;
    TestVolume bed(spec);
    EXPECT_EQ(bed.try_mount().code(), EROFS);
    bed.options().read_only = true;
    bed.mount();
    EXPECT_TRUE(bed.volume().is_read_only());
    EXPECT_EQ(create(*bed.root(), "a").code(), EROFS);
    EXPECT_EQ(bed.volume().remount(false, false, false).code(), EROFS);
    bed.unmount();
}

TEST_F(VolumeTest, RemountsReadOnlyCleanAndBack) {
    bed_.mount();
    bed_.make("a", 1000);
    ASSERT_EQ(bed_.volume().remount(true, false, false).code(), 0);
    EXPECT_EQ(bed_.fsck().status, 0) << bed_.fsck().output;
    EXPECT_EQ(create(*bed_.root(), "b").code(), EROFS);
    ASSERT_EQ(bed_.volume().remount(false, true, false).code(), 0);
    EXPECT_TRUE(bed_.volume().is_sync());
    EXPECT_TRUE(bed_.volume().is_dirsync());
    bed_.make("b", 1000);
    EXPECT_NE(bed_.fsck().output.find("irty bit is set"), std::string::npos);
    bed_.unmount();
    EXPECT_EQ(bed_.fsck().status, 0);
}

TEST_F(VolumeTest, SyncFsLosesNothing) {
    bed_.mount();
    bed_.make("a", 100000);
    ASSERT_EQ(bed_.volume().sync_fs().code(), 0);
    EXPECT_FALSE(bed_.volume().ordering().anything_pending());
    bed_.crash();
    bed_.mount();
    EXPECT_EQ(bed_.read(bed_.open(*bed_.root(), "a")), pattern(0, 100000, 1));
}

TEST_F(VolumeTest, UnmountWithFilesInUseSaysSoAndStaysDirty) {
    bed_.mount();
    {
        const InodeRef file = bed_.make("a", 100);
        EXPECT_EQ(bed_.volume().unmount().code(), EBUSY);
    }
    bed_.crash();
    EXPECT_NE(bed_.fsck().output.find("irty bit is set"), std::string::npos);
}

TEST_F(VolumeTest, AFailedUnmountReportsItAndStaysDirty) {
    bed_.mount();
    bed_.make("a", 100);
    bed_.faults().add_rule({.ops = cache::kFaultWrites, .nr_hits = cache::FaultRule::kSticky});
    EXPECT_EQ(bed_.volume().unmount().code(), EIO);
    bed_.faults().clear_rules();
    bed_.crash();
    EXPECT_NE(bed_.fsck().output.find("irty bit is set"), std::string::npos);
}

TEST_F(VolumeTest, AWriteErrorNobodyHeardOfKeepsTheMark) {
    bed_.mount();
    {
        const InodeRef file = bed_.make("a", 100);
        bed_.commit();
        cache::mapping_set_error(file->mapping(), EIO);
    }
    EXPECT_EQ(bed_.volume().unmount().code(), EIO);
    bed_.crash();
    EXPECT_NE(bed_.fsck().output.find("irty bit is set"), std::string::npos);
}

TEST_F(VolumeTest, AnUnmountAfterAStopTriesOnceMore) {
    bed_.mount();
    bed_.make("a", 100);
    bed_.volume().shutdown("test");
    EXPECT_EQ(bed_.volume().unmount().code(), 0);
    bed_.crash();
    bed_.mount();
    EXPECT_TRUE(bed_.volume().was_dirty_at_mount());
    EXPECT_EQ(bed_.read(bed_.open(*bed_.root(), "a")), pattern(0, 100, 1));
}

TEST_F(VolumeTest, DamageStopsChangesButKeepsWhatIsPending) {
    bed_.mount();
    bed_.make("a", 100);
    bed_.volume().fs_error("something is odd");
    EXPECT_NE(bed_.logged().find("error, something is odd"), std::string::npos);
    EXPECT_NE(bed_.logged().find("set read-only"), std::string::npos);
    EXPECT_EQ(create(*bed_.root(), "b").code(), EROFS);
    bed_.unmount();
    bed_.mount();
    EXPECT_TRUE(bed_.volume().was_dirty_at_mount());
    EXPECT_EQ(bed_.read(bed_.open(*bed_.root(), "a")), pattern(0, 100, 1));
}

TEST_F(VolumeTest, WithErrorsContinueChangesGoOn) {
    bed_.options().errors = ErrorPolicy::kContinue;
    bed_.mount();
    bed_.volume().fs_error("something is odd");
    bed_.make("a", 100);
    EXPECT_FALSE(bed_.volume().is_read_only());
}

TEST_F(VolumeTest, AFloodOfDamageIsLoggedInPart) {
    bed_.options().errors = ErrorPolicy::kContinue;
    bed_.mount();
    for (int i = 0; i < 1000; ++i) {
        bed_.volume().fs_error("again");
    }
    const std::string log = bed_.logged();
    EXPECT_LT(std::count(log.begin(), log.end(), '\n'), 100);
}

using VolumeDeathTest = VolumeTest;

TEST_F(VolumeDeathTest, WithErrorsPanicItIsTheEnd) {
    bed_.options().errors = ErrorPolicy::kPanic;
    bed_.mount();
    EXPECT_DEATH(bed_.volume().fs_error("something is odd"), "something is odd|errors=panic");
}

TEST_F(VolumeTest, TrimDiscardsExactlyTheFreeClusters) {
    bed_.mount();
    bed_.make("a", 100 * 512);
    const std::uint64_t free = bed_.volume().statfs()->blocks_free * 512;
    bed_.recorder().take_log();
    const auto trimmed = bed_.volume().trim(0, UINT64_MAX, 0);
    ASSERT_EQ(trimmed.code(), 0);
    EXPECT_EQ(*trimmed, free);
    std::uint64_t discarded = 0;
    for (const cache::LogEntry& entry : bed_.recorder().take_log()) {
        discarded += entry.kind == cache::LogEntry::Kind::kDiscard ? entry.length_bytes : 0;
    }
    EXPECT_EQ(discarded, free);
    bed_.remount();
    EXPECT_EQ(bed_.read(bed_.open(*bed_.root(), "a")), pattern(0, 100 * 512, 1));
    EXPECT_EQ(bed_.volume().trim(1ULL << 60, 1 << 20, 0).code(), EINVAL);
}

}  // namespace
}  // namespace wbfat::fs::inline WBFAT_RT
