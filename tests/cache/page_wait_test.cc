// Goal: waiting for a bit of a page keeps its promises: bounded unfairness, hand-off, killable
// waits that leave nothing behind, and a wake-up of an earlier writeback that fools nobody. Method:
// real threads, driven step by step by gates at named points; each test is one interleaving.
#include "cache/page_wait.h"

#include <cerrno>
#include <memory>
#include <string>
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

using sync::PointGate;
using sync::Role;
using sync::Thread;

// Waits at one page that belongs to nobody.
class PageWaitTest : public ::testing::Test {
protected:
    PageWaitTest() {
        sync::reset_point_hits();
        page_.refcount.store(1);
    }

    bool has(PageFlag flag) const {
        return page_test(page_, flag);
    }
    // Starts a thread and returns when it sleeps in the queue.
    static Thread start_queued(const std::string& name, std::function<void()> body) {
        PointGate queued("wait:queued", only(name));
        Thread thread(name, Role::kOther, std::move(body));
        queued.wait_for_arrivals();
        return thread;
    }
    // Lets the sleeper `name` be woken by our unlock, and steals the lock before it looks. It
    // queues up again.
    void steal_from(const std::string& name)
        NO_THREAD_SAFETY_ANALYSIS {  // we hold the lock before and after
        PointGate woken("wait:woken", only(name, 1));
        PointGate queued("wait:queued", only(name, 1));
        unlock_page(page_);
        woken.wait_for_arrivals();
        ASSERT_TRUE(trylock_page(page_));
        woken.open();
        queued.wait_for_arrivals();
    }

    Page page_;
};

TEST_F(PageWaitTest, TakesAFreeLockWithoutTouchingTheQueue) {
    const std::uint64_t waits = page_wait_stats().lock_waits;
    lock_page(page_);
    EXPECT_TRUE(has(PG_locked));
    EXPECT_FALSE(has(PG_waiters));
    unlock_page(page_);
    EXPECT_FALSE(has(PG_locked));
    EXPECT_EQ(page_wait_stats().lock_waits, waits);
}

TEST_F(PageWaitTest, SleepsUntilTheHolderUnlocks) {
    lock_page(page_);
    const std::uint64_t waits = page_wait_stats().lock_waits;
    Thread waiter = start_queued("waiter", [this] {
        lock_page(page_);
        unlock_page(page_);
    });
    EXPECT_TRUE(has(PG_waiters));
    EXPECT_EQ(page_wait_stats().lock_waits, waits + 1);
    unlock_page(page_);
    waiter.join();
    EXPECT_FALSE(has(PG_locked));
    EXPECT_FALSE(has(PG_waiters));
}

TEST_F(PageWaitTest, WaiterThatFindsTheBitClearUnderTheQueueLockDoesNotSleep) {
    lock_page(page_);
    PointGate about_to_test("wait:waiters_set", only("waiter"));
    Thread waiter("waiter", Role::kOther, [this] {
        lock_page(page_);
        unlock_page(page_);
    });
    // The waiter holds the bucket: our unlock must see PG_waiters and come to the queue, where
    // nobody is to be found.
    about_to_test.wait_for_arrivals();
    PointGate cleared("unlock_page:cleared", only("holder"));
    Thread holder("holder", Role::kOther, [this]() {  // locked above
        unlock_page(page_);
    });
    cleared.wait_for_arrivals();
    EXPECT_TRUE(has(PG_waiters));
    about_to_test.open();
    waiter.join();
    cleared.open();
    holder.join();
    EXPECT_EQ(hits("wake:flagged"), 0U);
    EXPECT_FALSE(has(PG_waiters));
}

TEST_F(PageWaitTest, HandsTheLockOverAfterUnfairnessIsSpent) {
    lock_page(page_);
    sync::Atomic<bool> owned{false};
    Thread waiter = start_queued("waiter", [this, &owned] {
        lock_page(page_);
        owned.store(true);
        WBFAT_POINT("test:owned");
        unlock_page(page_);
    });
    PointGate done("test:owned");
    for (int loss = 0; loss < kPageLockUnfairness; ++loss) {
        ASSERT_NO_FATAL_FAILURE(steal_from("waiter")) << "loss " << loss;
        EXPECT_FALSE(owned.load());
    }
    unlock_page(page_);
    // There is nothing to steal: the lock passed from our hands into the waiter's.
    const bool stolen = trylock_page(page_);
    EXPECT_FALSE(stolen);
    if (stolen) {
        unlock_page(page_);
    }
    done.wait_for_arrivals();
    EXPECT_TRUE(owned.load());
    done.open();
    waiter.join();
    EXPECT_FALSE(has(PG_locked));
}

TEST_F(PageWaitTest, SharedWaitersBeforeTheExclusiveOneAreWokenThoseBehindAreNot) {
    lock_page(page_);
    Thread first = start_queued("first", [this] { wait_on_page_locked(page_); });
    PointGate exclusive_woken("wait:woken", only("exclusive"));
    Thread exclusive = start_queued("exclusive", [this] {
        lock_page(page_);
        unlock_page(page_);
    });
    Thread second = start_queued("second", [this] { wait_on_page_locked(page_); });
    Thread third = start_queued("third", [this] { wait_on_page_locked(page_); });

    sync::reset_point_hits();
    unlock_page(page_);
    // The walk ran in our unlock: one shared waiter, one exclusive, and no further.
    EXPECT_EQ(hits("wake:flagged"), 2U);
    first.join();
    EXPECT_TRUE(has(PG_waiters));
    exclusive_woken.wait_for_arrivals();
    exclusive_woken.open();
    exclusive.join();
    second.join();
    third.join();
    EXPECT_FALSE(has(PG_waiters));
}

TEST_F(PageWaitTest, KilledWaiterLeavesNothingQueued) {
    lock_page(page_);
    sync::Task* task = nullptr;
    int error = 0;
    Thread waiter = start_queued("waiter", [this, &task, &error] {
        task = &sync::current_task();
        error = lock_page_killable(page_).code();
    });
    task->interrupt();
    waiter.join();
    EXPECT_EQ(error, EINTR);
    EXPECT_TRUE(has(PG_waiters));  // W2: a mark too many

    const PointGate arm_counters("test:none");
    sync::reset_point_hits();
    unlock_page(page_);
    EXPECT_EQ(hits("wake:before_queue_lock"), 1U);
    EXPECT_EQ(hits("wake:flagged"), 0U);
    EXPECT_FALSE(has(PG_waiters));  // and the next waker cleans it
    EXPECT_TRUE(trylock_page(page_));
    unlock_page(page_);
}

TEST_F(PageWaitTest, LockHandedToAWaiterThatIsJustBeingKilledIsNotLost) {
    lock_page(page_);
    sync::Task* task = nullptr;
    int error = EINVAL;
    Thread waiter = start_queued("waiter", [this, &task, &error] {
        task = &sync::current_task();
        error = lock_page_killable(page_).code();
    });
    for (int loss = 0; loss < kPageLockUnfairness; ++loss) {
        ASSERT_NO_FATAL_FAILURE(steal_from("waiter"));
    }
    PointGate leaving("wait:finish", only("waiter"));
    task->interrupt();
    leaving.wait_for_arrivals();  // it saw the interruption and not yet unlinked itself
    unlock_page(page_);           // and is handed the lock now
    leaving.open();
    waiter.join();
    EXPECT_EQ(error, 0);
    EXPECT_TRUE(has(PG_locked));
    assert_page_locked(page_);
    unlock_page(page_);
}

TEST_F(PageWaitTest, AThiefThatComesBeforeTheHandOffKeepsTheWaiterQueued) {
    lock_page(page_);
    Thread waiter = start_queued("waiter", [this] {
        lock_page(page_);
        unlock_page(page_);
    });
    for (int loss = 0; loss < kPageLockUnfairness; ++loss) {
        ASSERT_NO_FATAL_FAILURE(steal_from("waiter"));
    }
    PointGate cleared("unlock_page:cleared", only("holder"));
    Thread holder("holder", Role::kOther, [this]() {  // locked above
        unlock_page(page_);
    });
    cleared.wait_for_arrivals();
    ASSERT_TRUE(trylock_page(page_));  // the visible instant between the clear and the walk
    sync::reset_point_hits();
    cleared.open();
    holder.join();
    EXPECT_EQ(hits("wake:flagged"), 0U);
    EXPECT_TRUE(has(PG_waiters));
    unlock_page(page_);
    waiter.join();
}

TEST_F(PageWaitTest, DropGivesTheReferenceAwayBeforeItSleeps) {
    get_page(page_);
    lock_page(page_);
    Thread waiter = start_queued(
        "waiter", [this] { EXPECT_TRUE(put_and_wait_on_page_locked(page_).has_value()); });
    EXPECT_EQ(page_.refcount.load(), 1);
    unlock_page(page_);
    waiter.join();
    EXPECT_EQ(page_.refcount.load(), 1);
}

TEST_F(PageWaitTest, WakeForOneBitLeavesWaitersForTheOther) {
    page_.flags.fetch_or(PG_writeback);
    lock_page(page_);
    Thread locker = start_queued("locker", [this] {
        lock_page(page_);
        page_.flags.fetch_and(~std::uint64_t{PG_writeback});
        wake_up_page_bit(page_, PG_writeback);
        page_.flags.fetch_and(~std::uint64_t{PG_locked});
        wake_up_page_bit(page_, PG_locked);
    });
    Thread reader = start_queued("reader", [this] { wait_on_page_writeback(page_); });
    sync::reset_point_hits();
    page_.flags.fetch_and(~std::uint64_t{PG_locked});
    wake_up_page_bit(page_, PG_locked);
    locker.join();
    reader.join();
    EXPECT_FALSE(has(PG_waiters));
}

TEST_F(PageWaitTest, ManyThreadsExcludeEachOtherAndAllGetTheLock) {
    int counter = 0;  // guarded by the page lock
    constexpr int kThreads = 4;
    constexpr int kRounds = 2000;
    {
        std::vector<Thread> threads;
        for (int i = 0; i < kThreads; ++i) {
            threads.emplace_back("worker", Role::kOther, [this, &counter] {
                for (int round = 0; round < kRounds; ++round) {
                    lock_page(page_);
                    ++counter;
                    unlock_page(page_);
                }
            });
        }
    }
    EXPECT_EQ(counter, kThreads * kRounds);
    EXPECT_FALSE(has(PG_locked));
}

TEST_F(PageWaitTest, KilledAndPatientWaitersMixWithoutLoss) {
    constexpr int kRounds = 300;
    int counter = 0;  // guarded by the page lock
    int failures = 0;
    sync::Task* victim = nullptr;
    sync::Atomic<bool> done{false};
    PointGate known("test:victim_known");
    PointGate leaving("test:victim_done");  // its Task must outlive our interruptions
    Thread killed("victim", Role::kOther, [&] {
        victim = &sync::current_task();
        WBFAT_POINT("test:victim_known");
        for (int i = 0; i < kRounds; ++i) {
            if (lock_page_killable(page_).has_value()) {
                assert_page_locked(page_);
                ++counter;
                unlock_page(page_);
            } else {
                ++failures;
                victim->clear_interrupt();
            }
        }
        done.store(true);
        WBFAT_POINT("test:victim_done");
    });
    known.wait_for_arrivals();
    known.open();
    int ours = 0;
    while (!done.load()) {
        lock_page(page_);
        ++counter;
        ++ours;
        victim->interrupt();
        sync::yield_now();
        unlock_page(page_);
    }
    leaving.open();
    killed.join();
    EXPECT_EQ(counter, ours + kRounds - failures);
    EXPECT_FALSE(has(PG_locked));
}

// --- with a mapping: the interleavings of sections 6 and 9

class PageWritebackWaitTest : public PageTest {
protected:
};

// The drawing of commit c2407cf7d22d, with the one thing the newest kernels still need for it: a
// PG_waiters that was set before the first completion's clear (here a killed waiter's, W2).
TEST_F(PageWritebackWaitTest, StaleWakeOfAnEarlierWritebackDoesNotReleaseTheSyncWriter) {
    Page& page = add_page(0);
    start_writeback(page);
    page.flags.fetch_or(PG_waiters);

    PointGate cleared("end_writeback:cleared", only("CPU1"));
    Thread cpu1("CPU1", Role::kCompletion, [&page] { end_page_writeback(page); });
    cleared.wait_for_arrivals();  // 1, 2: cleared, and delayed before the wake
    EXPECT_FALSE(page_test(page, PG_writeback));
    dirty(page);
    start_writeback(page);  // 3: writeback #2
    dirty(page);            // 4: somebody redirties

    PointGate queued("wait:queued", only("CPU3"));
    PointGate woken("wait_writeback:woken", only("CPU3", 1));
    bool still_under_writeback = true;
    Thread cpu3("CPU3", Role::kSyncWriter, [&page, &still_under_writeback] {
        lock_page(page);
        wait_on_page_writeback(page);  // 5
        still_under_writeback = page_test(page, PG_writeback);
        clear_page_dirty_for_io(page);
        set_page_writeback(page);  // BUG here if the wait had been fooled
        unlock_page(page);
    });
    queued.wait_for_arrivals();
    queued.open();
    cleared.open();  // 6: the late wake
    cpu1.join();
    woken.wait_for_arrivals();  // 7: the sync writer was woken though #2 is in flight
    EXPECT_TRUE(page_test(page, PG_writeback));
    woken.open();
    queued.wait_for_arrivals(2);  // and goes back to sleep
    EXPECT_TRUE(page_test(page, PG_locked));

    end_page_writeback(page);  // #2 completes
    cpu3.join();
    EXPECT_FALSE(still_under_writeback);
    EXPECT_TRUE(page_test(page, PG_writeback));  // #3, the sync writer's own
    end_page_writeback(page);
}

TEST_F(PageWritebackWaitTest, WithoutAnOldWaitersMarkTheLateCompletionWakesNobody) {
    Page& page = add_page(0);
    start_writeback(page);
    PointGate cleared("end_writeback:cleared", only("CPU1"));
    Thread cpu1("CPU1", Role::kCompletion, [&page] { end_page_writeback(page); });
    cleared.wait_for_arrivals();
    start_writeback(page);

    PointGate queued("wait:queued", only("CPU3"));
    Thread cpu3("CPU3", Role::kSyncWriter, [&page] { wait_on_page_writeback(page); });
    queued.wait_for_arrivals();
    queued.open();
    EXPECT_TRUE(page_test(page, PG_waiters));
    sync::reset_point_hits();
    cleared.open();
    cpu1.join();
    EXPECT_EQ(hits("wake:before_queue_lock"), 0U);  // xor sampled PG_waiters before the waiter came
    end_page_writeback(page);
    cpu3.join();
}

TEST_F(PageWritebackWaitTest, AllWaitersForOneWritebackAreWokenByItsEnd) {
    Page& page = add_page(3);
    start_writeback(page);
    PointGate queued("wait:queued");
    std::vector<Thread> waiters;
    for (int i = 0; i < 3; ++i) {
        waiters.emplace_back("waiter", Role::kRequest, [&page] { wait_on_page_writeback(page); });
    }
    queued.wait_for_arrivals(3);
    queued.open();
    sync::reset_point_hits();
    end_page_writeback(page);
    EXPECT_EQ(hits("wake:flagged"), 3U);
    waiters.clear();
    EXPECT_FALSE(page_test(page, PG_waiters));
    EXPECT_EQ(counters().writeback_waits.value(), 3U);
}

TEST_F(PageWritebackWaitTest, KillableWaitForWritebackEndsEarlyAndLeavesTheWriteback) {
    Page& page = add_page(0);
    start_writeback(page);
    sync::Task* task = nullptr;
    int error = 0;
    PointGate queued("wait:queued");
    Thread waiter("waiter", Role::kRequest, [&] {
        task = &sync::current_task();
        error = wait_on_page_writeback_killable(page).code();
    });
    queued.wait_for_arrivals();
    queued.open();
    task->interrupt();
    waiter.join();
    EXPECT_EQ(error, EINTR);
    EXPECT_TRUE(page_test(page, PG_writeback));
    end_page_writeback(page);
    EXPECT_FALSE(page_test(page, PG_waiters));
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
