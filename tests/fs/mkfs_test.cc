// Goal: a plan is right before anything is written, and what is written is the plan, in an order
// that a crash survives. Method: plans of tabled devices against known geometries; writing onto a
// target in memory that logs and can fail.
#include "fs/mkfs.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace wbfat::fs::inline WBFAT_RT {
namespace {

constexpr std::uint64_t kKib = 1024;

// RAM that logs, and dies before the n-th write.
class LoggingTarget final : public FormatTarget {
public:
    enum class What { kWrite, kZero, kFlush };
    struct Event {
        What what;
        std::uint64_t offset_bytes;
    };

    explicit LoggingTarget(std::uint64_t size_bytes) : bytes(size_bytes, std::byte{0xE5}) {}

    Result<> write(std::uint64_t offset_bytes, std::span<const std::byte> from) override {
        if (log.size() == dies_at) {
            return Errno{EIO};
        }
        log.push_back({What::kWrite, offset_bytes});
        std::ranges::copy(from, std::span(bytes).subspan(offset_bytes, from.size()).begin());
        return {};
    }
    Result<> zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) override {
        if (log.size() == dies_at) {
            return Errno{EIO};
        }
        log.push_back({What::kZero, offset_bytes});
        std::ranges::fill(std::span(bytes).subspan(offset_bytes, length_bytes), std::byte{0});
        return {};
    }
    Result<> flush() override {
        if (log.size() == dies_at) {
            return Errno{EIO};
        }
        log.push_back({What::kFlush, 0});
        return {};
    }

    std::vector<std::byte> bytes;
    std::vector<Event> log;
    std::size_t dies_at = ~std::size_t{0};
};

FormatPlan plan(const FormatOptions& options, std::uint64_t size_kib) {
    std::string why;
    auto result = plan_mkfs(options, {.size_bytes = size_kib * kKib}, why);
    EXPECT_TRUE(result.has_value()) << why;
    return result ? *result : FormatPlan{};
}

std::string refusal(const FormatOptions& options, const FormatDevice& device) {
    std::string why;
    const auto result = plan_mkfs(options, device, why);
    EXPECT_EQ(result.code(), EINVAL);
    return why;
}

FormatOptions with_fat(unsigned bits) {
    FormatOptions options;
    options.fat_bits = bits;
    return options;
}

struct Expected {
    const char* name;
    std::uint64_t size_kib;
    unsigned fat_bits;
    std::uint32_t sectors_per_cluster;
    std::uint32_t reserved_sectors;
    std::uint32_t fat_sectors;
    std::uint64_t total_sectors;
};

// What mkfs.fat 4.2 makes of these sizes; tests/tools/mkfs_grid_test.py compares thousands with the
// program itself.
constexpr Expected kDefaults[] = {
    {"smallest round size", 64, 12, 4, 1, 1, 128},
    {"360 KiB floppy", 360, 12, 2, 1, 2, 720},
    {"720 KiB floppy", 720, 12, 2, 1, 3, 1440},
    {"1.44 MB floppy", 1440, 12, 1, 1, 9, 2880},
    {"largest volume without alignment", 4096, 12, 4, 1, 6, 8192},
    {"first sizes with alignment", 5000, 12, 4, 4, 8, 9984},
    {"FAT16", 20000, 16, 4, 4, 40, 40000},
    {"FAT16 that needs 32-bit totals", 32768, 16, 4, 4, 64, 65536},
    {"just below 512 MiB", 524287, 16, 16, 16, 256, 1048572},
    {"512 MiB is FAT32", 524288, 32, 8, 32, 1024, 1048572},
    {"8 GiB", 8388608, 32, 8, 32, 16360, 16777215},
    {"just above 8 GiB", 8388672, 32, 16, 32, 8192, 16777341},
    {"2 TiB", 2147483648, 32, 64, 64, 524224, 4294967292},
    {"3 TiB leave a tail unused", 3221225472, 32, 64, 64, 524224, 4294967292},
};

TEST(PlanMkfsTest, ChoosesWhatMkfsFatChooses) {
    for (const Expected& expected : kDefaults) {
        SCOPED_TRACE(expected.name);
        const Geometry g = plan({}, expected.size_kib).geometry;
        EXPECT_EQ(static_cast<unsigned>(g.type), expected.fat_bits);
        EXPECT_EQ(g.sectors_per_cluster, expected.sectors_per_cluster);
        EXPECT_EQ(g.reserved_sectors, expected.reserved_sectors);
        EXPECT_EQ(g.fat_sectors, expected.fat_sectors);
        EXPECT_EQ(g.total_sectors, expected.total_sectors);
    }
}

TEST(PlanMkfsTest, NeverPlansAnAmbiguousNumberOfClusters) {
    for (std::uint64_t size_kib = 8100; size_kib < 8300; ++size_kib) {
        const Geometry g = plan({}, size_kib).geometry;
        if (g.type == FatType::kFat12) {
            EXPECT_LE(g.nr_clusters, 4084U) << size_kib;
        } else {
            EXPECT_GE(g.nr_clusters, 4087U) << size_kib;
        }
    }
}

TEST(PlanMkfsTest, EveryFatHasRoomForItsClusters) {
    for (const unsigned bits : {12U, 16U, 32U}) {
        for (std::uint64_t size_kib = 64; size_kib < 400000; size_kib = size_kib * 9 / 8 + 1) {
            std::string why;
            const auto result = plan_mkfs(with_fat(bits), {.size_bytes = size_kib * kKib}, why);
            if (!result) {
                EXPECT_FALSE(why.empty());
                continue;
            }
            const Geometry& g = result->geometry;
            EXPECT_LE((std::uint64_t{g.nr_clusters} + 2) * bits,
                      std::uint64_t{g.fat_sectors} * g.sector_bytes * 8);
            EXPECT_LE(g.data_sector + std::uint64_t{g.nr_clusters} * g.sectors_per_cluster,
                      g.total_sectors);
        }
    }
}

TEST(PlanMkfsTest, RefusalsNameTheOptionAndTheRemedy) {
    FormatOptions options;
    options.sectors_per_cluster = 3;
    EXPECT_EQ(refusal(options, {.size_bytes = 1440 * kKib}),
              "-s 3: a cluster has 1, 2, 4, .. or 128 sectors.");
    EXPECT_NE(refusal(with_fat(16), {.size_bytes = 1440 * kKib}).find("-F 16"), std::string::npos);
    EXPECT_NE(refusal({}, {.size_bytes = 0}).find("too few"), std::string::npos);
    options = with_fat(32);
    options.reserved_sectors = 1;
    EXPECT_NE(refusal(options, {.size_bytes = 64 * kKib * kKib}).find("at least 2"),
              std::string::npos);
    options.reserved_sectors.reset();
    options.backup_boot_sector = 1;
    EXPECT_NE(refusal(options, {.size_bytes = 64 * kKib * kKib}).find("FSINFO"), std::string::npos);
}

TEST(PlanMkfsTest, RaisesTheSectorToTheDevicesBlock) {
    FormatOptions options;
    options.sector_bytes = 512;
    std::string why;
    const auto result =
        plan_mkfs(options, {.size_bytes = 20000 * kKib, .logical_block_bytes = 4096}, why);
    ASSERT_TRUE(result.has_value()) << why;
    EXPECT_EQ(result->geometry.sector_bytes, 4096U);
    ASSERT_EQ(result->warnings.size(), 1U);
    EXPECT_NE(result->warnings[0].find("raised to 4096"), std::string::npos);
}

TEST(PlanMkfsTest, TakesHiddenSectorsFromThePartitionInItsOwnSectors) {
    FormatOptions options;
    options.sector_bytes = 4096;
    std::string why;
    const auto result =
        plan_mkfs(options, {.size_bytes = 20000 * kKib, .partition_start_sectors = 2048}, why);
    ASSERT_TRUE(result.has_value()) << why;
    EXPECT_EQ(result->hidden_sectors, 256U);
}

TEST(MarkBadBlocksTest, MarksEveryClusterABlockTouches) {
    FormatPlan p = plan({}, 1440);  // clusters of 512 bytes, data from sector 33
    std::string why;
    const std::vector<std::uint64_t> blocks = {100, 17, 100};
    ASSERT_TRUE(mark_bad_blocks(p, blocks, why).has_value()) << why;
    EXPECT_EQ(p.bad_clusters, (std::vector<cluster_t>{3, 4, 169, 170}));
}

TEST(MarkBadBlocksTest, RefusesBlocksThatNoVolumeCanLive) {
    std::string why;
    FormatPlan p = plan(with_fat(32), 34000);
    const std::uint64_t root = p.geometry.data_sector * 512 / kKib + 1;
    for (const std::uint64_t block : {std::uint64_t{0}, root - 2, std::uint64_t{34000}}) {
        EXPECT_EQ(mark_bad_blocks(p, std::vector{block}, why).code(), EINVAL) << block;
        EXPECT_NE(why.find(std::to_string(block)), std::string::npos) << why;
    }
}

TEST(WriteVolumeTest, WritesTheBootSectorLastAndWipesItFirst) {
    const FormatPlan p = plan(with_fat(32), 34000);
    LoggingTarget target(34000 * kKib);
    ASSERT_TRUE(write_volume(target, p).has_value());
    const std::vector<LoggingTarget::Event> whole = target.log;
    ASSERT_GE(whole.size(), 4U);
    EXPECT_EQ(whole.front().what, LoggingTarget::What::kZero);
    EXPECT_EQ(whole.front().offset_bytes, 0U);
    EXPECT_EQ(whole.back().what, LoggingTarget::What::kFlush);
    EXPECT_EQ(whole.at(whole.size() - 2).offset_bytes, 0U);
    EXPECT_EQ(whole.at(whole.size() - 2).what, LoggingTarget::What::kWrite);
}

TEST(WriteVolumeTest, LeavesNoVolumeWhenTheDeviceDies) {
    const FormatPlan p = plan({}, 1440);
    LoggingTarget counting(1440 * kKib);
    ASSERT_TRUE(write_volume(counting, p).has_value());
    // All but the last event, the flush after the boot sector.
    for (std::size_t n = 0; n + 1 < counting.log.size(); ++n) {
        LoggingTarget target(1440 * kKib);
        std::memcpy(target.bytes.data(), counting.bytes.data(),
                    kBootSectorBytes);  // an older volume
        target.dies_at = n;
        EXPECT_EQ(write_volume(target, p).code(), EIO) << n;
        const bool has_boot_sector = target.bytes[510] == std::byte{0x55};
        EXPECT_EQ(has_boot_sector, n == 0) << n;
    }
}

TEST(WriteVolumeTest, WritesEveryCopyOfTheFatAndNothingBehindTheMetadata) {
    FormatOptions options;
    options.nr_fats = 3;
    options.label = {'L', 'A', 'B', 'E', 'L', ' ', ' ', ' ', ' ', ' ', ' '};
    const FormatPlan p = plan(options, 20000);
    const Geometry& g = p.geometry;
    LoggingTarget target(20000 * kKib);
    ASSERT_TRUE(write_volume(target, p).has_value());
    const std::span<const std::byte> bytes(target.bytes);
    const std::uint64_t fat_bytes = std::uint64_t{g.fat_sectors} * g.sector_bytes;
    const std::vector<std::byte> start = {std::byte{0xF8}, std::byte{0xFF}, std::byte{0xFF},
                                          std::byte{0xFF}};
    for (std::uint32_t copy = 0; copy < 3; ++copy) {
        const auto fat = bytes.subspan(g.fat_offset_bytes(copy), fat_bytes);
        EXPECT_TRUE(std::ranges::equal(fat.first(4), start)) << copy;
        EXPECT_TRUE(std::ranges::all_of(fat.subspan(4), [](std::byte b) {
            return b == std::byte{0};
        })) << copy;
    }
    const auto entry = load<ShortEntry>(bytes, g.root_dir_offset_bytes());
    EXPECT_TRUE(entry.is_volume_label());
    const auto data = bytes.subspan(g.data_sector * g.sector_bytes);
    EXPECT_TRUE(std::ranges::all_of(data, [](std::byte b) { return b == std::byte{0xE5}; }));
}

}  // namespace
}  // namespace wbfat::fs::inline WBFAT_RT
