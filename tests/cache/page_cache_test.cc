// The cache as a whole: exact counters, a small budget for a large file, coming and going.
#include "cache/page_cache.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "cache/flusher.h"
#include "cache/page_frames.h"

#include "tests/support/test_mapping.h"

namespace wbfat::cache::inline WBFAT_RT {
namespace {

using Bytes = std::vector<std::byte>;

TEST(PageCacheTest, CountersAreExactWhenNothingRuns) {
    TestBed bed;
    bed.fill_disk(1U << 20, 1);
    bed.ra.prev_index = 1000;
    bed.read(64 * kPageSize, 64 * kPageSize);
    bed.write(0, pattern(0, 10 * kPageSize, 2));
    bed.write(0, pattern(0, 10 * kPageSize, 3));
    ASSERT_TRUE(bed.fsync().has_value());
    bed.write(0, pattern(0, 3 * kPageSize, 4));
    const PageCacheStats stats = bed.cache().stats();
    EXPECT_EQ(stats.nr_frames, 2048U);
    EXPECT_EQ(stats.nr_cached, 74U);
    EXPECT_EQ(stats.nr_free, 2048U - 74U);
    EXPECT_EQ(stats.nr_dirty, 3U);
    EXPECT_EQ(stats.nr_writeback, 0U);
    EXPECT_EQ(stats.pages_dirtied, 13U);
    EXPECT_EQ(stats.pages_written, 10U);
    EXPECT_EQ(stats.pages_read, 64U);
    EXPECT_EQ(stats.bios_read, 1U);
    EXPECT_EQ(stats.bios_written, 1U);
    EXPECT_EQ(stats.write_errors + stats.read_errors, 0U);
    EXPECT_EQ(bed.cache().drop_caches(), 71U);
    EXPECT_EQ(bed.cache().stats().nr_cached, 3U);
    EXPECT_EQ(bed.cache().stats().pages_reclaimed, 71U);
}

TEST(PageCacheTest, TheBudgetIsAtLeastAMebibyteAndInPages) {
    const Result<std::unique_ptr<PageCache>> tiny = PageCache::create({.cache_size_bytes = 5});
    EXPECT_EQ((*tiny)->stats().nr_frames, 256U);
    const Result<std::unique_ptr<PageCache>> odd =
        PageCache::create({.cache_size_bytes = (2U << 20) + 4095});
    EXPECT_EQ((*odd)->stats().nr_frames, 512U);
}

class SmallCacheTest : public ::testing::TestWithParam<Layout::Kind> {};

TEST_P(SmallCacheTest, HoldsAFileSixteenTimesItsSize) {
    constexpr std::uint64_t kSize = 16U << 20;
    constexpr std::uint64_t kChunk = 128U << 10;
    TestBed bed(
        {.cache = {.cache_size_bytes = 1U << 20, .dirty_writeback_centisecs = 0},
         .layout = {.kind = GetParam(), .size_bytes = kSize, .cluster_bytes = 8192, .seed = 3}});
    for (std::uint64_t offset = 0; offset < kSize; offset += kChunk) {
        bed.write(offset, pattern(offset, kChunk, 1));
        bed.flusher().balance_dirty_pages(bed.mapping());
    }
    for (std::uint64_t offset = 0; offset < kSize; offset += kChunk) {
        ASSERT_TRUE(bed.read(offset, kChunk) == pattern(offset, kChunk, 1)) << "at " << offset;
    }
    ASSERT_TRUE(bed.read(5000, 3U << 20) == pattern(5000, 3U << 20, 1));
    ASSERT_TRUE(bed.fsync().has_value());
    EXPECT_TRUE(bed.on_disk(0, kSize) == pattern(0, kSize, 1));
    EXPECT_LE(bed.cache().stats().nr_cached, 256U);
    EXPECT_EQ(bed.faults().operations(kFaultReads), bed.cache().stats().bios_read);
}

INSTANTIATE_TEST_SUITE_P(Layouts, SmallCacheTest,
                         ::testing::Values(Layout::Kind::kContiguous, Layout::Kind::kScattered));

TEST(PageCacheTest, WritingWithoutTheBrakeGoesAtTheSpeedOfTheDevice) {
    TestBed bed({.cache = {.cache_size_bytes = 1U << 20, .dirty_writeback_centisecs = 0},
                 .layout = {.size_bytes = 8U << 20}});
    bed.write(0, pattern(0, 8U << 20, 1));
    ASSERT_TRUE(bed.fsync().has_value());
    EXPECT_TRUE(bed.on_disk(0, 8U << 20) == pattern(0, 8U << 20, 1));
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
