// Writing dirty pages: what is written, in how many transfers, what errors leave behind.
// A memory device behind a faulty one: transfers are held, failed and counted; no test waits for
// time to pass.
#include "cache/writeback.h"

#include <algorithm>
#include <cstring>

#include <gtest/gtest.h>

#include "cache/flusher.h"
#include "cache/page_io.h"
#include "cache/page_lock.h"

#include "tests/support/bugs.h"
#include "tests/support/test_mapping.h"

namespace wbfat::cache::inline WBFAT_RT {
namespace {

using Bytes = std::vector<std::byte>;

constexpr FaultRule kHoldOneWrite{.ops = kFaultWrites, .nr_hits = 1, .effect = FaultEffect::kHold};
constexpr FaultRule kFailWrites{.ops = kFaultWrites, .nr_hits = FaultRule::kSticky};

std::uint64_t writes(TestBed& bed) {
    return bed.faults().operations(kFaultWrites);
}

TEST(WritebackTest, ContiguousPagesGoInFewLargeTransfers) {
    TestBed bed({.cache = {.cache_size_bytes = 8U << 20,
                           .dirty_writeback_centisecs = 0,
                           .bio_max_bytes = 256U << 10}});
    bed.write(0, pattern(0, 1U << 20, 1));
    ASSERT_TRUE(bed.fsync().has_value());
    EXPECT_EQ(bed.on_disk(0, 1U << 20), pattern(0, 1U << 20, 1));
    EXPECT_EQ(writes(bed), 4U);
    EXPECT_EQ(bed.file().nr_maps.load(), 4U);
    const PageCacheStats stats = bed.cache().stats();
    EXPECT_EQ(stats.bios_written, 4U);
    EXPECT_EQ(stats.pages_written, 256U);
    EXPECT_EQ(stats.nr_dirty, 0U);
    EXPECT_EQ(stats.nr_writeback, 0U);
    EXPECT_FALSE(bed.mapping().i_pages.tagged(PAGECACHE_TAG_DIRTY));
    EXPECT_FALSE(bed.mapping().i_pages.tagged(PAGECACHE_TAG_TOWRITE));
}

TEST(WritebackTest, AStablePageThatChangesUnderItsWriteIsFound) {
    const Bugs bugs;
    TestBed bed({.stable = AddressSpace::StablePages::kYes});
    bed.write(0, pattern(0, kPageSize, 1));
    ASSERT_TRUE(bed.fsync().has_value());
    EXPECT_EQ(Bugs::count(Assertion::kStablePage), 0U);
    bed.write(0, pattern(0, kPageSize, 2));
    bed.faults().add_rule(kHoldOneWrite);
    ASSERT_TRUE(filemap_fdatawrite_range(bed.mapping(), 0, kLastByte).has_value());
    Page* const page = bed.mapping().i_pages.find_get(0);
    ASSERT_NE(page, nullptr);
    page->data[100] ^= std::byte{1};  // without a wait for the page, as nobody may
    put_page(*page);
    ASSERT_TRUE(bed.faults().release_transfer(0));
    filemap_fdatawait_range(bed.mapping(), 0, kLastByte);
    EXPECT_EQ(Bugs::count(Assertion::kStablePage), 1U);
}

TEST(WritebackTest, AScatteredPageEndsWithTheLastOfItsBlocks) {
    TestBed bed({.layout = {.kind = Layout::Kind::kScattered, .cluster_bytes = 512, .seed = 11}});
    bed.write(0, pattern(0, kPageSize, 1));
    bed.faults().add_rule(
        {.ops = kFaultWrites, .nr_hits = FaultRule::kSticky, .effect = FaultEffect::kHold});
    ASSERT_TRUE(filemap_fdatawrite_range(bed.mapping(), 0, kLastByte).has_value());
    const std::size_t parts = bed.faults().nr_held();
    ASSERT_GT(parts, 1U);
    bed.faults().clear_rules();
    for (std::size_t i = 1; i < parts; ++i) {
        EXPECT_TRUE(bed.page_is(0, PG_writeback));
        ASSERT_TRUE(bed.faults().release_transfer(0));
    }
    EXPECT_TRUE(bed.page_is(0, PG_writeback));
    bed.faults().release();
    filemap_fdatawait_range(bed.mapping(), 0, kLastByte);
    EXPECT_FALSE(bed.page_is(0, PG_writeback));
    EXPECT_EQ(bed.on_disk(0, kPageSize), pattern(0, kPageSize, 1));
}

TEST(WritebackTest, OnlyDirtyBlocksOfAScatteredPageAreWritten) {
    TestBed bed({.layout = {.kind = Layout::Kind::kScattered, .cluster_bytes = 512, .seed = 11}});
    bed.fill_disk(4 * kPageSize, 1);
    bed.write(kPageSize + 5 * 512, pattern(0, 512, 2));
    ASSERT_TRUE(bed.fsync().has_value());
    EXPECT_EQ(writes(bed), 1U);
    EXPECT_EQ(bed.on_disk(kPageSize + 5 * 512, 512), pattern(0, 512, 2));
}

TEST(WritebackTest, APageRedirtiedUnderWritebackIsWrittenAgain) {
    TestBed bed;
    bed.write(0, pattern(0, kPageSize, 1));
    bed.faults().add_rule(kHoldOneWrite);
    ASSERT_TRUE(filemap_fdatawrite_range(bed.mapping(), 0, kLastByte).has_value());
    bed.faults().wait_until_held(1);
    bed.write(0, pattern(0, kPageSize, 2));
    EXPECT_TRUE(bed.page_is(0, PG_writeback));
    EXPECT_TRUE(bed.page_is(0, PG_dirty));
    // Not for integrity: leaves what is in flight alone, and dirty.
    ASSERT_TRUE(filemap_flush(bed.mapping()).has_value());
    EXPECT_TRUE(bed.page_is(0, PG_dirty));
    EXPECT_EQ(writes(bed), 1U);
    // For integrity: waits, then writes again.
    TestThread syncer([&] { EXPECT_TRUE(bed.fsync().has_value()); });
    eventually([&] { return bed.cache().stats().writeback_waits > 0; },
               "fsync to wait for the write in flight");
    bed.faults().release();
    syncer.join();
    EXPECT_EQ(writes(bed), 2U);
    EXPECT_EQ(bed.on_disk(0, kPageSize), pattern(0, kPageSize, 2));
}

TEST(WritebackTest, TheIteratorStopsWhenEnoughIsWrittenAndTheNextGoesOnBehindIt) {
    TestBed bed;
    bed.write(0, pattern(0, 4 * kPageSize, 1));
    std::vector<pgoff_t> seen;
    for (int pass = 0; pass < 2; ++pass) {
        WritebackControl wbc;
        wbc.nr_to_write = 2;
        wbc.range_cyclic = true;
        WritebackIter iter(bed.mapping(), wbc);
        Result<> written;
        while (Page* const page = iter.next(written)) {
            assert_page_locked(*page);
            seen.push_back(page->index);
            EXPECT_EQ(iter.dirty(), kAllBlocks);
            EXPECT_FALSE(page_test(*page, PG_dirty));
            set_page_writeback(*page);
            unlock_page(*page);
            end_page_writeback(*page);
        }
        EXPECT_TRUE(iter.result().has_value());
        EXPECT_EQ(wbc.nr_to_write, 0);
        EXPECT_EQ(iter.next({}), nullptr);
    }
    EXPECT_EQ(seen, (std::vector<pgoff_t>{0, 1, 2, 3}));
    EXPECT_EQ(bed.mapping().writeback_index.load(), 4U);
}

TEST(WritebackTest, TheIteratorKeepsTheFirstErrorAndAnIntegrityWalkGoesOn) {
    TestBed bed;
    bed.write(0, pattern(0, 3 * kPageSize, 1));
    WritebackControl wbc;
    wbc.sync_mode = WB_SYNC_ALL;
    WritebackIter iter(bed.mapping(), wbc);
    const Result<> answers[] = {Errno{ENOSPC}, {}, Errno{EIO}};
    std::size_t nr_pages = 0;
    Result<> written;
    while (Page* const page = iter.next(written)) {
        assert_page_locked(*page);
        redirty_page_for_writepage(*page, iter.dirty());
        unlock_page(*page);
        written = answers[nr_pages++];
    }
    EXPECT_EQ(nr_pages, 3U);
    EXPECT_EQ(iter.result().code(), ENOSPC);
}

TEST(WritebackTest, FdatawriteStartsAndFdatawaitWaits) {
    TestBed bed;
    bed.write(0, pattern(0, 3 * kPageSize, 1));
    bed.faults().add_rule(kHoldOneWrite);
    ASSERT_TRUE(filemap_fdatawrite_range(bed.mapping(), kPageSize, 2 * kPageSize - 1).has_value());
    EXPECT_TRUE(bed.page_is(1, PG_writeback));
    EXPECT_TRUE(bed.page_is(0, PG_dirty));
    EXPECT_TRUE(bed.page_is(2, PG_dirty));
    filemap_fdatawait_range(bed.mapping(), 2 * kPageSize,
                            kLastByte);  // not in flight: returns at once
    bed.faults().wait_until_held(1);
    bed.faults().release();
    filemap_fdatawait_range(bed.mapping(), 0, kLastByte);
    EXPECT_FALSE(bed.page_is(1, PG_writeback));
    EXPECT_EQ(bed.on_disk(kPageSize, kPageSize), pattern(kPageSize, kPageSize, 1));
}

TEST(WritebackTest, TheTailBehindTheEndIsZeroedAndNotWrittenBeyondItsSector) {
    TestBed bed;
    bed.fill_disk(2 * kPageSize, 1);
    bed.write(kPageSize, pattern(kPageSize, 600, 2));
    bed.mapping().i_size_write(kPageSize + 600);
    Page* page = bed.mapping().i_pages.find_get(1);
    std::memset(page->data + 600, 0xEE, 100);  // as a shared store behind the end would
    put_page(*page);
    ASSERT_TRUE(bed.fsync().has_value());
    Bytes expected = pattern(kPageSize, 1024, 2);
    std::fill(expected.begin() + 600, expected.end(), std::byte{0});
    EXPECT_EQ(bed.on_disk(kPageSize, 1024), expected);
    EXPECT_EQ(bed.on_disk(kPageSize + 1024, 1024), pattern(kPageSize + 1024, 1024, 1));
}

TEST(WritebackTest, APageBehindTheEndIsDroppedAndLeavesNoMark) {
    TestBed bed;
    bed.write(0, pattern(0, 3 * kPageSize, 1));
    bed.mapping().i_size_write(kPageSize);  // the middle of truncate_setsize
    ASSERT_TRUE(bed.fsync().has_value());
    EXPECT_EQ(bed.on_disk(0, kPageSize), pattern(0, kPageSize, 1));
    EXPECT_EQ(bed.on_disk(kPageSize, 2 * kPageSize), Bytes(2 * kPageSize));
    EXPECT_FALSE(bed.mapping().i_pages.tagged(PAGECACHE_TAG_DIRTY));
    EXPECT_EQ(bed.cache().stats().nr_dirty, 0U);
}

TEST(WritebackTest, CyclicWalksGoOnWhereTheLastOneStopped) {
    TestBed bed;
    bed.write(0, pattern(0, 32 * kPageSize, 1));
    WritebackControl wbc;
    wbc.range_cyclic = true;
    wbc.nr_to_write = 20;
    ASSERT_TRUE(do_writepages(bed.mapping(), wbc).has_value());
    filemap_fdatawait_range(bed.mapping(), 0, kLastByte);
    EXPECT_EQ(bed.cache().stats().nr_dirty, 12U);
    EXPECT_FALSE(bed.page_is(19, PG_dirty));
    bed.write(0, pattern(0, kPageSize, 2));
    wbc.nr_to_write = 12;
    ASSERT_TRUE(do_writepages(bed.mapping(), wbc).has_value());
    filemap_fdatawait_range(bed.mapping(), 0, kLastByte);
    EXPECT_TRUE(bed.page_is(0, PG_dirty));
    EXPECT_EQ(bed.cache().stats().nr_dirty, 1U);
    // Nothing is left behind the place: it starts over at once.
    wbc.nr_to_write = 12;
    ASSERT_TRUE(do_writepages(bed.mapping(), wbc).has_value());
    filemap_fdatawait_range(bed.mapping(), 0, kLastByte);
    EXPECT_EQ(bed.cache().stats().nr_dirty, 0U);
}

TEST(WritebackTest, WriteCachePagesHandsOverCleanLockedPagesInOrder) {
    TestBed bed;
    bed.write(0, pattern(0, 40 * kPageSize, 1));
    WritebackControl wbc;
    wbc.sync_mode = WB_SYNC_ALL;
    wbc.range_start = 3 * kPageSize;
    wbc.range_end = 30 * kPageSize - 1;
    std::vector<pgoff_t> seen;
    // The page comes in locked and leaves unlocked, which the signature of a WritePage cannot say.
    const WritePage writer = [&](Page& page, BlockMask dirty)
                                 NO_THREAD_SAFETY_ANALYSIS -> Result<> {
        seen.push_back(page.index);
        EXPECT_TRUE(page_test(page, PG_locked));
        EXPECT_FALSE(page_test(page, PG_dirty));
        EXPECT_EQ(dirty, kAllBlocks);
        redirty_page_for_writepage(page, dirty);
        unlock_page(page);
        return page.index == 5 || page.index == 7 ? Result<>(Errno{page.index == 5 ? ENOSPC : EIO})
                                                  : Result<>();
    };
    EXPECT_EQ(write_cache_pages(bed.mapping(), wbc, writer).code(), ENOSPC);
    ASSERT_EQ(seen.size(), 27U);
    EXPECT_EQ(seen.front(), 3U);
    EXPECT_TRUE(std::ranges::is_sorted(seen));
    seen.clear();
    wbc.sync_mode = WB_SYNC_NONE;
    EXPECT_EQ(write_cache_pages(bed.mapping(), wbc, writer).code(), ENOSPC);
    EXPECT_EQ(seen.size(), 3U);
}

// --- errors

TEST(WritebackErrorTest, AFailedWriteIsReportedOnceToEveryOpenerAndStaysDirty) {
    TestBed bed;
    bed.flusher().pause();
    bed.write(0, pattern(0, 4 * kPageSize, 1));
    ErrSeq::Cursor other = bed.mapping().wb_err.sample();
    bed.faults().add_rule(kFailWrites);
    EXPECT_EQ(bed.fsync().code(), EIO);
    EXPECT_EQ(bed.cache().stats().nr_dirty, 4U);
    EXPECT_EQ(bed.cache().stats().write_errors, 4U);
    EXPECT_EQ(bed.read(0, 4 * kPageSize), pattern(0, 4 * kPageSize, 1));
    EXPECT_EQ(bed.cache().drop_caches(), 0U);
    bed.faults().clear_rules();
    EXPECT_TRUE(bed.fsync().has_value());
    EXPECT_EQ(bed.on_disk(0, 4 * kPageSize), pattern(0, 4 * kPageSize, 1));
    EXPECT_EQ(file_write_and_wait_range(bed.mapping(), 0, kLastByte, other).code(), EIO);
    EXPECT_TRUE(file_write_and_wait_range(bed.mapping(), 0, kLastByte, other).has_value());
    bed.flusher().resume();
}

TEST(WritebackErrorTest, OnePartOfAScatteredPageFailingMakesItsBlocksDirtyAgain) {
    TestBed bed({.layout = {.kind = Layout::Kind::kScattered, .cluster_bytes = 1024, .seed = 5}});
    bed.flusher().pause();
    bed.write(0, pattern(0, kPageSize, 1));
    const std::uint64_t place = bed.file().place_of(2048);
    bed.faults().add_rule(
        {.ops = kFaultWrites, .begin_bytes = place, .end_bytes = place + 512, .nr_hits = 1});
    EXPECT_EQ(bed.fsync().code(), EIO);
    Page* page = bed.mapping().i_pages.find_get(0);
    EXPECT_EQ(page->dirty_blocks & 0b11'0000, 0b11'0000);
    EXPECT_NE(page->dirty_blocks, kAllBlocks);
    put_page(*page);
    EXPECT_TRUE(bed.fsync().has_value());
    EXPECT_EQ(bed.on_disk(0, kPageSize), pattern(0, kPageSize, 1));
    bed.flusher().resume();
}

TEST(WritebackErrorTest, AFailedPageThatWasTruncatedIsForgotten) {
    TestBed bed;
    bed.flusher().pause();
    bed.write(0, pattern(0, 2 * kPageSize, 1));
    bed.faults().add_rule(kFailWrites);
    ASSERT_TRUE(filemap_fdatawrite_range(bed.mapping(), 0, kLastByte).has_value());
    truncate_setsize(bed.mapping(), 0);
    bed.cache().io().redirty_failed_pages(PageIo::Redirty::kWait);
    EXPECT_EQ(bed.cache().stats().nr_dirty, 0U);
    EXPECT_EQ(bed.cache().stats().nr_free, bed.cache().stats().nr_frames);
    bed.flusher().resume();
}

TEST(WritebackErrorTest, APageThatCannotBeMappedStaysDirty) {
    TestBed bed;
    bed.write(0, pattern(0, 4 * kPageSize, 1));
    bool broken = true;
    bed.file().on_map = [&](std::uint64_t offset, MappedExtent answer) -> Result<MappedExtent> {
        answer.length_bytes =
            std::min<std::uint64_t>(answer.length_bytes, kPageSize - offset % kPageSize);
        return broken && offset / kPageSize == 2 ? Result<MappedExtent>(Errno{EUCLEAN}) : answer;
    };
    EXPECT_EQ(bed.fsync().code(), EUCLEAN);
    EXPECT_EQ(bed.cache().stats().nr_dirty, 1U);
    EXPECT_TRUE(bed.page_is(2, PG_dirty));
    EXPECT_EQ(bed.on_disk(3 * kPageSize, kPageSize), pattern(3 * kPageSize, kPageSize, 1));
    broken = false;
    static_cast<void>(bed.fsync());
    EXPECT_EQ(bed.on_disk(2 * kPageSize, kPageSize), pattern(2 * kPageSize, kPageSize, 1));
}

TEST(WritebackErrorTest, EnomemIsTriedAgainForIntegrityOnly) {
    TestBed bed;
    bed.write(0, pattern(0, kPageSize, 1));
    int failures = 2;
    bed.file().on_writepages = [&](AddressSpace& mapping, WritebackControl& wbc) -> Result<> {
        return failures-- > 0 ? Result<>(Errno{ENOMEM}) : mpage_writepages(mapping, wbc);
    };
    WritebackControl none;
    EXPECT_EQ(do_writepages(bed.mapping(), none).code(), ENOMEM);
    EXPECT_TRUE(bed.fsync().has_value());
    EXPECT_EQ(bed.cache().stats().nr_dirty, 0U);
}

// --- sync_dirty_blocks

TEST(SyncDirtyBlocksTest, WritesTheNamedBlocksAndLeavesTheOthersDirty) {
    TestBed bed;
    bed.fill_disk(8 * kPageSize, 1);
    bed.write(0, pattern(0, 2 * kPageSize, 2));
    const std::uint64_t blocks[] = {1, 2, 6, 40};
    ASSERT_TRUE(sync_dirty_blocks(bed.mapping(), blocks).has_value());
    EXPECT_EQ(writes(bed), 2U);
    EXPECT_EQ(bed.on_disk(512, 1024), pattern(512, 1024, 2));
    EXPECT_EQ(bed.on_disk(6 * 512, 512), pattern(6 * 512, 512, 2));
    EXPECT_EQ(bed.on_disk(0, 512), pattern(0, 512, 1));
    EXPECT_EQ(bed.on_disk(1536, 1536), pattern(1536, 1536, 1));
    Page* page = bed.mapping().i_pages.find_get(0);
    EXPECT_EQ(page->dirty_blocks, 0b1011'1001);
    put_page(*page);
    EXPECT_EQ(bed.cache().stats().nr_dirty, 2U);
    EXPECT_TRUE(bed.mapping().i_pages.tagged(PAGECACHE_TAG_DIRTY));
}

TEST(SyncDirtyBlocksTest, NeighboursAcrossPagesGoInOneTransfer) {
    TestBed bed;
    bed.write(0, pattern(0, 64 * kPageSize, 2));
    std::vector<std::uint64_t> blocks;
    for (std::uint64_t block = 3; block < 64 * kBlocksPerPage - 3; ++block) {
        blocks.push_back(block);
    }
    ASSERT_TRUE(sync_dirty_blocks(bed.mapping(), blocks).has_value());
    EXPECT_EQ(writes(bed), 1U);
    EXPECT_EQ(bed.cache().stats().nr_dirty, 2U);
    EXPECT_EQ(bed.on_disk(1536, 63 * kPageSize), pattern(1536, 63 * kPageSize, 2));
}

TEST(SyncDirtyBlocksTest, FailedBlocksAreDirtyAgainWhenItReturns) {
    TestBed bed;
    bed.flusher().pause();
    bed.write(0, pattern(0, 2 * kPageSize, 2));
    bed.faults().add_rule({.ops = kFaultWrites, .nr_hits = 1, .error = ENOSPC});
    const std::uint64_t blocks[] = {2, 3};
    EXPECT_EQ(sync_dirty_blocks(bed.mapping(), blocks).code(), ENOSPC);
    Page* page = bed.mapping().i_pages.find_get(0);
    EXPECT_EQ(page->dirty_blocks, kAllBlocks);
    put_page(*page);
    EXPECT_TRUE(sync_dirty_blocks(bed.mapping(), blocks).has_value());
    EXPECT_EQ(bed.on_disk(1024, 1024), pattern(1024, 1024, 2));
    bed.flusher().resume();
}

TEST(SyncDirtyBlocksTest, SectorsAreWrittenWhole) {
    TestBed bed({.logical_block_bytes = 4096});
    bed.write(0, pattern(0, kPageSize, 2));
    const std::uint64_t blocks[] = {3};
    ASSERT_TRUE(sync_dirty_blocks(bed.mapping(), blocks).has_value());
    EXPECT_EQ(bed.on_disk(0, kPageSize), pattern(0, kPageSize, 2));
    EXPECT_EQ(bed.cache().stats().nr_dirty, 0U);
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
