// Goal: the page protocol moves flags, marks, counters and references together, and refuses what
// its invariants forbid. Method: a page is taken through its states by hand and compared after
// every step; death tests for every refusal.
#include "cache/page_lock.h"

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "cache/sync/points.h"

#include "tests/cache/page_fixture.h"

// Here a lock passes between threads, is stolen, or is not held on purpose: the static analysis
// cannot follow, the run-time assertions do.
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"
#endif

namespace wbfat::cache::inline WBFAT_RT {
namespace {

using sync::PointGate;
using sync::Role;
using sync::Thread;

class PageLockTest : public PageTest {
protected:
    // Flags without PG_referenced and PG_waiters, and the marks: "uptodate|dirty [D-T]".
    std::string state(const Page& page) {
        const std::uint64_t flags = page.flags.load() & ~std::uint64_t{PG_referenced | PG_waiters};
        std::string marks = "[";
        marks += tagged(page, PAGECACHE_TAG_DIRTY) ? 'D' : '-';
        marks += tagged(page, PAGECACHE_TAG_WRITEBACK) ? 'W' : '-';
        marks += tagged(page, PAGECACHE_TAG_TOWRITE) ? 'T' : '-';
        return page_flags_to_string(flags) + " " + marks + "]";
    }
};

TEST_F(PageLockTest, TakesAPageThroughItsWholeLife) {
    Page& page = add_page(7);
    EXPECT_EQ(state(page), "uptodate [---]");

    lock_page(page);
    set_page_dirty(page, 0x0F);
    EXPECT_EQ(state(page), "locked|uptodate|dirty [D--]");
    EXPECT_EQ(counters().nr_dirty.value(), 1U);
    EXPECT_EQ(counters().pages_dirtied.value(), 1U);
    EXPECT_EQ(mapping_->i_state & I_DIRTY_PAGES, std::uint32_t{I_DIRTY_PAGES});
    unlock_page(page);

    mapping_->i_pages.tag_pages_for_writeback(0, ~pgoff_t{0});
    EXPECT_EQ(state(page), "uptodate|dirty [D-T]");

    lock_page(page);
    EXPECT_EQ(clear_page_dirty_for_io(page), 0x0F);
    EXPECT_EQ(state(page), "locked|uptodate [D-T]");  // the marks stay for other walkers
    EXPECT_EQ(counters().nr_dirty.value(), 0U);
    set_page_writeback(page);
    EXPECT_EQ(state(page), "locked|writeback|uptodate [-W-]");
    EXPECT_EQ(counters().nr_writeback.value(), 1U);
    unlock_page(page);

    end_page_writeback(page);
    EXPECT_EQ(state(page), "uptodate [---]");
    EXPECT_EQ(counters().nr_writeback.value(), 0U);
    EXPECT_EQ(counters().pages_written.value(), 1U);
    EXPECT_EQ(page.refcount.load(), 1);
    EXPECT_FALSE(mapping_->i_pages.tagged(PAGECACHE_TAG_DIRTY));
    EXPECT_FALSE(mapping_->i_pages.tagged(PAGECACHE_TAG_WRITEBACK));
}

TEST_F(PageLockTest, RedirtyingUnderWritebackKeepsBothMarks) {
    Page& page = add_page(0);
    dirty(page);
    start_writeback(page);
    dirty(page, 0x01);
    EXPECT_EQ(state(page), "writeback|uptodate|dirty [DW-]");
    end_page_writeback(page);
    EXPECT_EQ(state(page), "uptodate|dirty [D--]");
    EXPECT_EQ(page.dirty_blocks, 0x01);
    EXPECT_EQ(counters().nr_dirty.value(), 1U);
    EXPECT_EQ(counters().pages_dirtied.value(), 2U);
}

TEST_F(PageLockTest, WritingSomeBlocksLeavesTheRestDirty) {
    Page& page = add_page(0);
    dirty(page, 0xF0);
    lock_page(page);
    EXPECT_EQ(clear_page_dirty_for_io(page), 0xF0);
    redirty_page_for_writepage(page, 0xC0);
    set_page_writeback(page);
    EXPECT_EQ(state(page), "locked|writeback|uptodate|dirty [DW-]");
    EXPECT_EQ(page.dirty_blocks, 0xC0);
    unlock_page(page);
    EXPECT_EQ(counters().pages_dirtied.value(), 1U);  // redirtying is not dirtying
    EXPECT_EQ(counters().nr_dirty.value(), 1U);
    end_page_writeback(page);
}

TEST_F(PageLockTest, DirtyingADirtyPageCountsOnce) {
    Page& page = add_page(0);
    dirty(page, 0x01);
    dirty(page, 0x02);
    EXPECT_EQ(page.dirty_blocks, 0x03);
    EXPECT_EQ(counters().nr_dirty.value(), 1U);
    EXPECT_EQ(counters().pages_dirtied.value(), 1U);
}

TEST_F(PageLockTest, DirtyingNoBlocksChangesNothing) {
    Page& page = add_page(0);
    dirty(page, 0);
    EXPECT_EQ(state(page), "uptodate [---]");
    EXPECT_EQ(mapping_->i_state, 0U);
}

TEST_F(PageLockTest, ClearingACleanPageForIoOwesNothing) {
    Page& page = add_page(0);
    lock_page(page);
    EXPECT_EQ(clear_page_dirty_for_io(page), 0);
    unlock_page(page);
    EXPECT_EQ(counters().nr_dirty.value(), 0U);
}

TEST_F(PageLockTest, CancellingSomeBlocksKeepsThePageDirtyCancellingAllCleansItAndItsMarks) {
    Page& page = add_page(0);
    dirty(page, 0x0F);
    mapping_->i_pages.tag_pages_for_writeback(0, 0);
    lock_page(page);
    cancel_dirty_page(page, 0x03);
    EXPECT_EQ(state(page), "locked|uptodate|dirty [D-T]");
    EXPECT_EQ(page.dirty_blocks, 0x0C);
    cancel_dirty_page(page);
    EXPECT_EQ(state(page), "locked|uptodate [---]");
    EXPECT_EQ(counters().nr_dirty.value(), 0U);
    unlock_page(page);
}

TEST_F(PageLockTest, TrylockFailsWhileLocked) {
    Page& page = add_page(0);
    ASSERT_TRUE(trylock_page(page));
    bool taken = true;
    Thread("other", Role::kOther, [&page, &taken]() { taken = trylock_page(page); }).join();
    EXPECT_FALSE(taken);
    unlock_page(page);
}

TEST_F(PageLockTest, WaitForStablePageWaitsWhereTheMappingDemandsIt) {
    Page& page = add_page(0);
    start_writeback(page);
    PointGate queued("wait:queued");
    Thread writer("writer", Role::kRequest, [&page] {
        lock_page(page);
        wait_for_stable_page(page);
        set_page_dirty(page);
        unlock_page(page);
    });
    queued.wait_for_arrivals();
    queued.open();
    EXPECT_FALSE(page_test(page, PG_dirty));
    end_page_writeback(page);
    writer.join();
    EXPECT_TRUE(page_test(page, PG_dirty));
}

TEST_F(PageLockTest, WaitForStablePageReturnsAtOnceWhereNobodyDemandsIt) {
    AddressSpace loose(*cache_, device_, ops_, AddressSpace::StablePages::kNo, "loose");
    Page page;
    page.refcount.store(1);
    page.mapping.store(&loose);
    page.flags.store(PG_writeback);
    lock_page(page);
    wait_for_stable_page(page);
    unlock_page(page);
}

// Section 6: the reference across the end. The completion stalls after its clear; truncation takes
// the page out.
TEST_F(PageLockTest, APageTruncatedUnderALateCompletionIsNotReusedBeforeItEnds) {
    Page& page = add_page(0);
    start_writeback(page);
    page.flags.fetch_or(PG_waiters);
    PointGate cleared("end_writeback:cleared");
    Thread completion("completion", Role::kCompletion, [&page] { end_page_writeback(page); });
    cleared.wait_for_arrivals();

    const std::uint32_t generation = page.generation.load();
    const std::uint64_t nr_free = frames().nr_free();
    lock_page(page);
    remove_locked_page(page);
    EXPECT_EQ(frames().nr_free(), nr_free);
    Page& other = *frames().alloc().value();
    EXPECT_NE(&other, &page);
    EXPECT_EQ(page.generation.load(), generation);
    put_page(other);

    cleared.open();
    completion.join();
    EXPECT_EQ(frames().nr_free(), nr_free + 1);
    // Now it is free, and the next to be used: last in, first out.
    Page& reused = *frames().alloc().value();
    EXPECT_EQ(&reused, &page);
    EXPECT_EQ(reused.generation.load(), generation + 1);
    EXPECT_EQ(reused.flags.load(), 0U);
    put_page(reused);
}

TEST_F(PageLockTest, TheMappingMayDieAsSoonAsItsLastWritebackWasSeenToEnd) {
    auto brief = std::make_unique<AddressSpace>(*cache_, device_, ops_,
                                                AddressSpace::StablePages::kNo, "brief");
    brief.swap(mapping_);
    Page& page = add_page(0);
    start_writeback(page);
    PointGate cleared("end_writeback:cleared");
    Thread completion("completion", Role::kCompletion, [&page] { end_page_writeback(page); });
    cleared.wait_for_arrivals();
    lock_page(page);
    wait_on_page_writeback(page);
    remove_locked_page(page);
    brief.swap(mapping_);
    cache_->flusher().forget(*brief);
    brief.reset();
    cleared.open();
    completion.join();
}

TEST_F(PageLockTest, DirtyAndCleanCyclesFromManyThreadsKeepTheAccounts) {
    Page& page = add_page(0);
    constexpr int kRounds = 500;
    sync::Atomic<bool> done{false};
    {
        Thread dirtier("dirtier", Role::kRequest, [this, &page, &done] {
            for (int i = 0; i < kRounds; ++i) {
                dirty(page);
            }
            done.store(true);
        });
        Thread writer("writer", Role::kFlusher, [&page, &done] {
            bool last_round = false;
            while (!last_round) {
                last_round = done.load();
                lock_page(page);
                wait_on_page_writeback(page);
                const bool owes = clear_page_dirty_for_io(page) != 0;
                if (owes) {
                    set_page_writeback(page);
                }
                unlock_page(page);
                if (owes) {
                    Thread("completion", Role::kCompletion, [&page] { end_page_writeback(page); });
                }
            }
        });
        Thread looker("looker", Role::kSyncWriter, [&page, &done] {
            while (!done.load()) {
                wait_on_page_writeback(page);
                sync::yield_now();
            }
        });
    }
    EXPECT_EQ(state(page), "uptodate [---]");
    EXPECT_EQ(counters().nr_dirty.value(), 0U);
    EXPECT_EQ(counters().nr_writeback.value(), 0U);
    EXPECT_EQ(page.refcount.load(), 1);
}

// --- what is refused

class PageLockDeathTest : public PageLockTest {
protected:
    PageLockDeathTest() {
        GTEST_FLAG_SET(death_test_style, "threadsafe");
    }
};

TEST_F(PageLockDeathTest, UnlockOfAnUnlockedPage) {
    Page& page = add_page(0);
    const auto unlock = [&page]() { unlock_page(page); };
    EXPECT_DEATH(unlock(), "P1: the page lock is not held");
}

TEST_F(PageLockDeathTest, DirtyingAnUnlockedPage) {
    Page& page = add_page(0);
    const auto set = [&page]() { set_page_dirty(page); };
    EXPECT_DEATH(set(), "P1: the page lock is not held");
}

TEST_F(PageLockDeathTest, ClearingDirtyOfAnUnlockedPage) {
    Page& page = add_page(0);
    const auto clear = [&page]() { clear_page_dirty_for_io(page); };
    EXPECT_DEATH(clear(), "P1: the page lock is not held");
}

TEST_F(PageLockDeathTest, WritebackOfAnUnlockedPage) {
    Page& page = add_page(0);
    const auto set = [&page]() { set_page_writeback(page); };
    EXPECT_DEATH(set(), "P1: the page lock is not held");
}

TEST_F(PageLockDeathTest, WritebackOfAPageUnderWriteback) {
    Page& page = add_page(0);
    start_writeback(page);
    lock_page(page);
    EXPECT_DEATH(set_page_writeback(page), "P1: PageWriteback already set");
    unlock_page(page);
}

TEST_F(PageLockDeathTest, WritebackOfATruncatedPage) {
    Page& page = *frames().alloc().value();
    lock_page(page);
    EXPECT_DEATH(set_page_writeback(page), "P2: writeback of a page that is in no mapping");
    unlock_page(page);
    put_page(page);
}

TEST_F(PageLockDeathTest, EndOfAWritebackThatNeverBegan) {
    Page& page = add_page(0);
    EXPECT_DEATH(end_page_writeback(page), "P2: PageWriteback not set");
}

TEST_F(PageLockDeathTest, EndOfAWritebackThatHasEnded) {
    Page& page = add_page(0);
    start_writeback(page);
    end_page_writeback(page);
    EXPECT_DEATH(end_page_writeback(page), "BUG at cache/page_lock.cc:.*P2: PageWriteback not set");
}

TEST_F(PageLockDeathTest, EndOfAWritebackWhosePageWasRemoved) {
    Page& page = add_page(0);
    start_writeback(page);
    AddressSpace* const mapping = page.mapping.exchange(nullptr);
    EXPECT_DEATH(end_page_writeback(page), "P2: a page under writeback has left its mapping");
    page.mapping.store(mapping);
}

TEST_F(PageLockDeathTest, PuttingAReferenceThatNobodyHolds) {
    Page page;
    EXPECT_DEATH(put_page(page), "P3");
}

TEST_F(PageLockDeathTest, FreeingALockedPage) {
    Page& page = *frames().alloc().value();
    lock_page(page);
    EXPECT_DEATH(put_page(page), "P4: a page is freed in a bad state");
    unlock_page(page);
    put_page(page);
}

TEST_F(PageLockDeathTest, FreeingAPageThatIsInAMapping) {
    Page& page = add_page(0);
    EXPECT_DEATH(put_page(page), "P4: a page is freed in a bad state");
}

TEST_F(PageLockDeathTest, UnlockingAPageWhoseBlocksAndFlagDisagree) {
    Page& page = add_page(0);
    lock_page(page);
    page.dirty_blocks = 0x01;
    EXPECT_DEATH(unlock_page(page), "P5: PG_dirty and dirty_blocks disagree");
    page.dirty_blocks = 0;
    unlock_page(page);
}

TEST_F(PageLockDeathTest, DestroyingAMappingThatHasPages) {
    add_page(0);
    EXPECT_DEATH(mapping_.reset(), "A1: a mapping is destroyed with pages in it");
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
