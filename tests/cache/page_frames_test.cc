// Goal: the arena hands out its budget and no more, takes back only what nobody needs, and never
// lets an allocator sleep through the frame it waits for. Method: pages in every state, then
// reclaim; allocators held at points while a page comes clean.
#include "cache/page_frames.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "cache/page_lock.h"
#include "cache/sync/points.h"

#include "tests/cache/page_fixture.h"

// Here a lock passes between threads, is stolen, or is not held on purpose: the static analysis
// cannot follow, the run-time assertions do.
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"
#endif

namespace wbfat::cache::inline WBFAT_RT {
namespace {

using std::chrono_literals::operator""ms;
using sync::PointGate;
using sync::Role;
using sync::Thread;

class PageFramesTest : public PageTest {
protected:
    bool in_mapping(pgoff_t index) {
        Page* const page = mapping_->i_pages.find_get(index);
        if (page != nullptr) {
            put_page(*page);
        }
        return page != nullptr;
    }
    // Fills every free frame with a page of the mapping.
    void fill() {
        const std::uint64_t nr_free = frames().nr_free();
        for (pgoff_t index = 0; index < nr_free; ++index) {
            add_page(index);
        }
        ASSERT_EQ(frames().nr_free(), 0U);
    }
};

TEST_F(PageFramesTest, TheCensusCountsPagesOfMappingsByState) {
    for (pgoff_t index = 0; index < 6; ++index) {
        add_page(index);
    }
    Page& dirty = add_page(10);
    lock_page(dirty);
    set_page_dirty(dirty, kAllBlocks);
    unlock_page(dirty);
    Page& written = add_page(11);
    lock_page(written);
    set_page_writeback(written);
    unlock_page(written);
    Page& locked = add_page(12);
    lock_page(locked);
    Page& of_none = *frames().alloc().value();

    const PageCensus census = frames().census();
    EXPECT_EQ(census.nr_clean, 7U);
    EXPECT_EQ(census.nr_dirty, 1U);
    EXPECT_EQ(census.nr_writeback, 1U);
    EXPECT_EQ(census.nr_redirtied, 0U);
    EXPECT_EQ(census.nr_locked, 1U);
    EXPECT_EQ(census.nr_waited_for, 0U);

    put_page(of_none);
    unlock_page(locked);
    lock_page(written);
    set_page_dirty(written, kAllBlocks);
    unlock_page(written);
    EXPECT_EQ(frames().census().nr_redirtied, 1U);
    EXPECT_EQ(frames().census().nr_writeback, 1U);
    EXPECT_EQ(frames().census().nr_dirty, 1U);
    end_page_writeback(written);
}

TEST_F(PageFramesTest, HandsOutEveryFrameOnceWithItsOwnMemory) {
    std::set<std::byte*> memory;
    std::vector<Page*> pages;
    while (frames().nr_free() > 0) {
        Page* const page = frames().alloc().value();
        EXPECT_EQ(page->refcount.load(), 1);
        EXPECT_EQ(page->flags.load(), 0U);
        EXPECT_EQ(page->mapping.load(), nullptr);
        EXPECT_EQ(&PageFrames::of(*page), &frames());
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(page->data) % kPageSize, 0U);
        std::memset(page->data, static_cast<int>(pages.size()), kPageSize);
        EXPECT_TRUE(memory.insert(page->data).second);
        pages.push_back(page);
    }
    EXPECT_EQ(pages.size(), frames().nr_frames());
    EXPECT_EQ(frames().nr_frames(), 256U);
    for (std::size_t i = 0; i < pages.size(); ++i) {
        EXPECT_EQ(std::to_integer<std::size_t>(pages[i]->data[kPageSize - 1]), i & 0xFF);
        put_page(*pages[i]);
    }
    EXPECT_EQ(frames().nr_free(), frames().nr_frames());
}

TEST_F(PageFramesTest, ReusesTheLastFreedFrameFirstWithANewGeneration) {
    Page* const first = frames().alloc().value();
    Page* const second = frames().alloc().value();
    const std::uint32_t generation = first->generation.load();
    first->flags.fetch_or(PG_waiters | PG_uptodate);
    put_page(*second);
    put_page(*first);
    Page* const again = frames().alloc().value();
    EXPECT_EQ(again, first);
    EXPECT_EQ(again->generation.load(), generation + 1);
    EXPECT_EQ(again->flags.load(), 0U);
    put_page(*again);
}

TEST_F(PageFramesTest, ReclaimTakesOnlyCleanUnlockedUnusedPages) {
    Page& clean = add_page(0);
    Page& is_dirty = add_page(1);
    Page& in_writeback = add_page(2);
    Page& is_locked = add_page(3);
    Page& in_use = add_page(4);
    dirty(is_dirty);
    start_writeback(in_writeback);
    lock_page(is_locked);
    get_page(in_use);
    const std::uint32_t generation = clean.generation.load();

    EXPECT_EQ(frames().reclaim(1000), 1U);
    EXPECT_FALSE(in_mapping(0));
    for (pgoff_t index = 1; index <= 4; ++index) {
        EXPECT_TRUE(in_mapping(index)) << index;
    }
    EXPECT_EQ(clean.generation.load(), generation);  // freed, not yet reused
    EXPECT_EQ(counters().pages_reclaimed.value(), 1U);
    EXPECT_EQ(counters().nr_cached.value(), 4U);
    EXPECT_EQ(in_use.refcount.load(), 2);
    EXPECT_TRUE(page_test(in_writeback, PG_reclaim));

    unlock_page(is_locked);
    put_page(in_use);
    end_page_writeback(in_writeback);
    EXPECT_FALSE(page_test(in_writeback, PG_reclaim));
    EXPECT_EQ(frames().reclaim(1000), 3U);
    EXPECT_TRUE(in_mapping(1));
}

TEST_F(PageFramesTest, ReclaimTakesTheOldestFirstAndNoMoreThanAsked) {
    for (pgoff_t index = 0; index < 10; ++index) {
        add_page(index);
    }
    EXPECT_EQ(frames().reclaim(3), 3U);
    for (pgoff_t index = 0; index < 10; ++index) {
        EXPECT_EQ(in_mapping(index), index >= 3) << index;
    }
}

TEST_F(PageFramesTest, PagesUsedTwiceOutliveThoseUsedOnce) {
    for (pgoff_t index = 0; index < 10; ++index) {
        add_page(index);
    }
    Page* const popular = mapping_->i_pages.find_get(0);
    frames().mark_accessed(*popular);
    frames().mark_accessed(*popular);
    put_page(*popular);
    EXPECT_EQ(frames().reclaim(9), 9U);
    EXPECT_TRUE(in_mapping(0));
    EXPECT_EQ(frames().reclaim(9), 1U);  // but not for ever
    EXPECT_FALSE(in_mapping(0));
}

TEST_F(PageFramesTest, APageWrittenForReclaimIsTakenBeforeOlderOnes) {
    for (pgoff_t index = 0; index < 4; ++index) {
        add_page(index);
    }
    Page* const page = mapping_->i_pages.find_get(3);
    put_page(*page);
    dirty(*page);
    start_writeback(*page);
    page->flags.fetch_or(PG_reclaim);
    end_page_writeback(*page);
    EXPECT_EQ(frames().reclaim(1), 1U);
    EXPECT_FALSE(in_mapping(3));
}

TEST_F(PageFramesTest, DirtyingAPageTakesItsMarkForReclaimAway) {
    Page& page = add_page(0);
    page.flags.fetch_or(PG_reclaim);
    dirty(page);
    EXPECT_FALSE(page_test(page, PG_reclaim));
}

TEST_F(PageFramesTest, ReclaimThatLostTheRaceForTheLockLeavesThePage) {
    Page& page = add_page(0);
    PointGate candidate("reclaim:candidate");
    std::uint64_t nr_freed = 1;
    Thread reclaimer("reclaimer", Role::kOther,
                     [this, &nr_freed] { nr_freed = frames().reclaim(1); });
    candidate.wait_for_arrivals();
    lock_page(page);
    candidate.open();
    reclaimer.join();
    EXPECT_EQ(nr_freed, 0U);
    EXPECT_EQ(page.refcount.load(), 1);
    EXPECT_TRUE(in_mapping(0));
    unlock_page(page);
}

TEST_F(PageFramesTest, ReclaimSeesAPageDirtiedAfterItWasChosen) {
    Page& page = add_page(0);
    PointGate candidate("reclaim:candidate");
    Thread reclaimer("reclaimer", Role::kOther, [this] { frames().reclaim(1); });
    candidate.wait_for_arrivals();
    dirty(page);
    candidate.open();
    reclaimer.join();
    EXPECT_TRUE(in_mapping(0));
    EXPECT_TRUE(page_test(page, PG_dirty));
}

TEST_F(PageFramesTest, APageTruncatedAfterItWasChosenIsFreedOnce) {
    Page& page = add_page(0);
    PointGate candidate("reclaim:candidate");
    Thread reclaimer("reclaimer", Role::kOther, [this] { frames().reclaim(1); });
    candidate.wait_for_arrivals();
    lock_page(page);
    remove_locked_page(page);
    EXPECT_EQ(page.refcount.load(), 1);  // the reclaimer's
    candidate.open();
    reclaimer.join();
    EXPECT_EQ(frames().nr_free(), frames().nr_frames());
    EXPECT_EQ(counters().nr_cached.value(), 0U);
}

TEST_F(PageFramesTest, AllocReclaimsWhenTheBudgetIsSpent) {
    fill();
    Page* const page = frames().alloc().value();
    EXPECT_GE(counters().pages_reclaimed.value(), 1U);
    EXPECT_EQ(counters().reclaim_waits.value(), 0U);
    put_page(*page);
}

TEST_F(PageFramesTest, AllocTakesEvenPopularPagesWhenThereAreNoOthers) {
    fill();
    for (pgoff_t index = 0; index < frames().nr_frames(); ++index) {
        Page* const page = mapping_->i_pages.find_get(index);
        frames().mark_accessed(*page);
        frames().mark_accessed(*page);
        frames().mark_accessed(*page);
        put_page(*page);
    }
    Page* const page = frames().alloc().value();
    EXPECT_EQ(counters().reclaim_waits.value(), 0U);
    put_page(*page);
}

TEST_F(PageFramesTest, AllocFailsWhenNothingComesCleanAndNothingIsBeingWritten) {
    fill();
    for (pgoff_t index = 0; index < frames().nr_frames(); ++index) {
        Page* const page = mapping_->i_pages.find_get(index);
        dirty(*page);
        put_page(*page);
    }
    frames().set_alloc_timeout(1ms);
    const Result<Page*> page = frames().alloc();
    ASSERT_FALSE(page.has_value());
    EXPECT_EQ(page.error().value, ENOMEM);
    EXPECT_GE(counters().reclaim_waits.value(), 1U);
}

TEST_F(PageFramesTest, AllocSleepsUntilAWritebackEnds) {
    fill();
    Page* writing = nullptr;
    for (pgoff_t index = 0; index < frames().nr_frames(); ++index) {
        Page* const page = mapping_->i_pages.find_get(index);
        dirty(*page);
        put_page(*page);
        writing = page;
    }
    start_writeback(*writing);
    frames().set_alloc_timeout(0ms);  // would fail at once, but for the writeback
    PointGate before_sleep("frames:before_sleep");
    Page* page = nullptr;
    Thread allocator("allocator", Role::kRequest,
                     [this, &page] { page = frames().alloc().value(); });
    before_sleep.wait_for_arrivals();
    end_page_writeback(*writing);
    // Between its count and its sleep: the wake-up must not be lost.
    before_sleep.open();
    allocator.join();
    ASSERT_EQ(page, writing);
    EXPECT_FALSE(sync::point_hits().contains("frames:slept_in_vain"));
    put_page(*page);
}

TEST_F(PageFramesTest, AllocatorsAndReclaimersShareASmallArena) {
    constexpr int kThreads = 3;
    constexpr int kRounds = 4000;
    std::vector<Thread> threads;
    for (unsigned number = 0; number < kThreads; ++number) {
        threads.emplace_back("worker", Role::kRequest, [this, number] {
            std::mt19937 random(number);
            for (int round = 0; round < kRounds; ++round) {
                const pgoff_t index = random() % 600;  // more than there are frames
                Page* page = mapping_->i_pages.find_get(index);
                if (page == nullptr) {
                    page = frames().alloc().value();
                    lock_page(*page);
                    get_page(*page);  // the index's
                    page->index = index;
                    page->mapping.store(mapping_.get());
                    bool out_of_memory = false;
                    bool inserted = false;
                    {
                        const sync::SpinLockGuard guard(mapping_->i_pages.lock());
                        inserted = mapping_->i_pages.insert_locked(index, *page, out_of_memory);
                    }
                    if (inserted) {
                        std::memcpy(page->data, &index, sizeof(index));
                        frames().lru_add(*page);
                    } else {
                        page->mapping.store(nullptr);
                        put_page(*page);
                    }
                    unlock_page(*page);
                    put_page(*page);
                    continue;
                }
                lock_page(*page);
                if (page->mapping.load() == mapping_.get()) {
                    pgoff_t stored = 0;
                    std::memcpy(&stored, page->data, sizeof(stored));
                    EXPECT_EQ(stored, page->index);
                    EXPECT_EQ(page->index, index);
                }
                unlock_page(*page);
                frames().mark_accessed(*page);
                put_page(*page);
            }
        });
    }
    threads.clear();
    EXPECT_EQ(frames().nr_free() + mapping_->i_pages.nr_pages(), frames().nr_frames());
    EXPECT_EQ(counters().nr_cached.value(), mapping_->i_pages.nr_pages());
    mapping_->i_pages.assert_consistent();
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
