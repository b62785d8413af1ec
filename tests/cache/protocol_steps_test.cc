// Goal: each function takes, under each version of the protocol, exactly the steps of
// writeback-protocol.md sections 3 to 9. Method: tables of version and expected steps; real
// threads, held and recorded at named points.
#include <cerrno>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/cache/protocol_fixture.h"

// Here a lock passes between threads or is stolen: the static analysis cannot follow.
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"
#endif

namespace wbfat::cache::inline WBFAT_RT {
namespace {

using sync::PointGate;
using sync::Role;
using sync::Thread;
using Steps = std::vector<std::string>;

constexpr const char* kAllKernels[] = {"5.8", "5.9-rc", "5.9", "5.10", "5.11", "6.8"};
constexpr const char* kAllPresets[] = {
    "5.8", "5.9-rc", "5.9", "5.10", "5.11", "6.8", "recheck-on-wake", "wake-clears", "wait-to-set"};

class ProtocolStepsTest : public ProtocolFixture {
protected:
    // Lets the sleeper be woken by our unlock, and steals the lock before it looks. It queues up
    // again.
    static void steal_from(const std::string& name, Page& page) {
        PointGate woken("wait:woken", only(name, 1));
        PointGate asleep("wait:before_sleep", only(name, 1));
        unlock_page(page);
        woken.wait_for_arrivals();
        ASSERT_TRUE(trylock_page(page));
        woken.open();
        asleep.wait_for_arrivals();
    }
};

// --- the waker: 3.2, 3.3, 5.2, 5.3, 8.2, 9.3 (3)

TEST_F(ProtocolStepsTest, EndOfWritebackWakesItsSleeperStepByStep) {
    const Steps split = {"end_writeback:cleared", "end_writeback:waiters_read",
                         "wake:before_queue_lock", "wake:flagged", "wake:woken"};
    const Steps xored = {"end_writeback:cleared", "wake:before_queue_lock", "wake:flagged",
                         "wake:woken"};
    Steps split_plain = split;
    split_plain.emplace_back("unlink:half");
    const Steps in_the_wake = {"wake:before_queue_lock", "wake:flagged", "wake:woken",
                               "end_writeback:cleared"};
    const struct {
        const char* protocol;
        Steps steps;
    } table[] = {
        {"5.8", split_plain},
        {"5.9-rc", split_plain},
        {"5.9", split},
        {"5.10", split},
        {"5.11", split},
        {"6.8", xored},
        {"recheck-on-wake", split},
        {"wait-to-set", split},
        {"wake-clears", in_the_wake},
        {"5.9,end=xor", xored},
        {"6.8,order=unlink-wake",
         {"end_writeback:cleared", "wake:before_queue_lock", "wake:flagged", "wake:unlinked"}},
    };
    pgoff_t index = 0;
    for (const auto& row : table) {
        SCOPED_TRACE(row.protocol);
        use(row.protocol);
        Page& page = add_page(index++);
        write(page);
        Thread sleeper = start_queued("sleeper", [&page] { wait_on_page_writeback(page); });
        const StepRecorder record("main");
        end_page_writeback(page);
        sleeper.join();
        EXPECT_EQ(record.steps(), row.steps);
        EXPECT_FALSE(page_test(page, PG_waiters));
        EXPECT_TRUE(page_waiters(&page).empty());
    }
}

TEST_F(ProtocolStepsTest, EndOfWritebackWithoutSleepersGoesToNoQueue) {
    pgoff_t index = 0;
    for (const char* protocol : kAllPresets) {
        SCOPED_TRACE(protocol);
        use(protocol);
        Page& page = add_page(index++);
        write(page);
        const StepRecorder record("main");
        end_page_writeback(page);
        EXPECT_TRUE(record.steps("wake").empty());
        EXPECT_EQ(counters().nr_writeback.value(), 0U);
    }
}

TEST_F(ProtocolStepsTest, OnlyTheSplitEndSeesWhoComesAfterTheClear) {
    const struct {
        const char* protocol;
        bool woken;
    } table[] = {{"5.8", false},  // seen, but the bit is set again: refused
                 {"5.9-rc", true},      {"5.9", true},  {"5.10", true},
                 {"5.11", true},        {"6.8", false}, {"recheck-on-wake", false},
                 {"wake-clears", false}};
    pgoff_t index = 0;
    for (const auto& row : table) {
        SCOPED_TRACE(row.protocol);
        use(row.protocol);
        Page& page = add_page(index++);
        write(page);
        PointGate cleared("end_writeback:cleared", only("completion"));
        Thread completion("completion", Role::kCompletion, [&page] { end_page_writeback(page); });
        cleared.wait_for_arrivals();
        write(page);  // the bit is set again when the sleeper comes
        Thread sleeper = start_queued("sleeper", [&page] { wait_on_page_writeback(page); });
        sync::reset_point_hits();
        cleared.open();
        completion.join();
        EXPECT_EQ(hits("wake:flagged"), row.woken ? 1U : 0U);
        end_page_writeback(page);
        sleeper.join();
    }
}

TEST_F(ProtocolStepsTest, UnlockClearsInsideTheWakeOnlyWithTheQueueLock) {
    pgoff_t index = 0;
    for (const char* protocol : kAllPresets) {
        SCOPED_TRACE(protocol);
        use(protocol);
        Page& page = add_page(index++);
        lock_page(page);
        Thread sleeper = start_queued("sleeper", [&page] { wait_on_page_locked(page); });
        const StepRecorder record("main");
        unlock_page(page);
        sleeper.join();
        Steps expected = {"unlock_page:cleared", "wake:before_queue_lock"};
        if (current_protocol().end == EndClear::kQueueLock) {
            expected.erase(expected.begin());
        }
        Steps steps = record.steps();
        steps.resize(expected.size());
        EXPECT_EQ(steps, expected);
    }
}

TEST_F(ProtocolStepsTest, TheReferenceIsHeldAcrossTheEndFrom510On) {
    pgoff_t index = 0;
    for (const char* protocol : kAllKernels) {
        SCOPED_TRACE(protocol);
        use(protocol);
        Page& page = add_page(index++);
        write(page);
        PointGate cleared("end_writeback:cleared", only("completion"));
        Thread completion("completion", Role::kCompletion, [&page] { end_page_writeback(page); });
        cleared.wait_for_arrivals();
        const bool held = current_protocol().ref == EndReference::kHeld;
        EXPECT_EQ(page.refcount.load(), held ? 2 : 1);
        cleared.open();
        completion.join();
        EXPECT_EQ(page.refcount.load(), 1);
    }
}

TEST_F(ProtocolStepsTest, ALongWalkLetsGoOfTheQueueUntil519) {
    const struct {
        const char* protocol;
        std::uint64_t breaks;
    } table[] = {{"5.11", 1}, {"6.8", 0}};
    constexpr int kSleepers = 70;
    pgoff_t index = 0;
    for (const auto& row : table) {
        SCOPED_TRACE(row.protocol);
        use(row.protocol);
        Page& page = add_page(index++);
        write(page);
        std::vector<Thread> sleepers;
        {
            PointGate queued("wait:queued");
            for (int i = 0; i < kSleepers; ++i) {
                sleepers.emplace_back("sleeper", Role::kOther,
                                      [&page] { wait_on_page_writeback(page); });
            }
            queued.wait_for_arrivals(kSleepers);
            sync::reset_point_hits();
            end_page_writeback(page);
            EXPECT_EQ(hits("wake:broken"), row.breaks);
            EXPECT_EQ(hits("wake:flagged"), std::uint64_t{kSleepers});
        }
        sleepers.clear();
        EXPECT_TRUE(page_waiters().empty());
    }
}

// --- the sleeper: 3.1, 4, 5.1, 7

TEST_F(ProtocolStepsTest, AWakeUpWhileTheBitIsSet) {
    const Steps asleep_still = {"wait_writeback:seen", "wait:waiters_set", "wait:queued"};
    const Steps returned = {"wait_writeback:seen", "wait:waiters_set", "wait:queued",
                            "wait:woken",          "wait:finish",      "wait_writeback:woken"};
    Steps asked_again = returned;
    asked_again.insert(asked_again.end(), asleep_still.begin(), asleep_still.end());
    const struct {
        const char* protocol;
        const char* what;
        Steps steps;
    } table[] = {
        {"5.8", "the waker refuses", asleep_still},
        {"5.8,wake=blind",
         "the sleeper looks, and queues again inside one wait",
         {"wait_writeback:seen", "wait:waiters_set", "wait:queued", "wait:woken",
          "wait:waiters_set", "wait:queued"}},
        {"5.9-rc", "fooled", returned},
        {"5.9", "fooled", returned},
        {"5.10", "fooled", returned},
        {"5.11", "the loop asks again", asked_again},
        {"6.8", "the loop asks again", asked_again},
        {"6.8,wait=if", "fooled", returned},
        {"recheck-on-wake", "the waker refuses", asleep_still},
    };
    pgoff_t index = 0;
    for (const auto& row : table) {
        SCOPED_TRACE(std::string(row.protocol) + ": " + row.what);
        use(row.protocol);
        Page& page = add_page(index++);
        write(page);
        StepRecorder record("sleeper");
        PointGate back_to_sleep("wait:queued", [] {
            sync::PointRule rule = only("sleeper");
            rule.skip = 1;
            return rule;
        }());
        Thread sleeper = start_queued("sleeper", [&page] { wait_on_page_writeback(page); });
        wake_up_page_bit(page, PG_writeback);  // somebody else's
        if (row.steps == returned) {
            sleeper.join();
        } else if (row.steps != asleep_still) {
            back_to_sleep.wait_for_arrivals();
        }
        EXPECT_EQ(record.steps(), row.steps);
        EXPECT_TRUE(page_test(page, PG_writeback));
        back_to_sleep.open();
        end_page_writeback(page);
        sleeper.join();
    }
}

TEST_F(ProtocolStepsTest, TheLockIsHandedOverAfterSoManyStolenRounds) {
    const struct {
        const char* protocol;
        int stolen;  // rounds that a thief wins; -1: all
    } table[] = {
        {"5.8", -1}, {"5.9-rc", 0},        {"5.9", 5},           {"5.10", 5},
        {"6.8", 5},  {"6.8,handoff=2", 2}, {"5.8,handoff=3", 3}, {"6.8,handoff=never", -1}};
    constexpr int kMany = 9;
    pgoff_t index = 0;
    for (const auto& row : table) {
        SCOPED_TRACE(row.protocol);
        use(row.protocol);
        Page& page = add_page(index++);
        lock_page(page);
        bool got_it = false;
        PointGate got("test:got_the_lock");
        Thread sleeper = start_queued("sleeper", [&page, &got_it] {
            lock_page(page);
            got_it = true;
            WBFAT_POINT("test:got_the_lock");
            unlock_page(page);
        });
        for (int i = 0; i < (row.stolen < 0 ? kMany : row.stolen); ++i) {
            ASSERT_NO_FATAL_FAILURE(steal_from("sleeper", page));
        }
        if (row.stolen >= 0) {
            unlock_page(page);
            EXPECT_FALSE(trylock_page(page)) << "the lock is the sleeper's before it runs";
        } else {
            ASSERT_NO_FATAL_FAILURE(steal_from("sleeper", page));
            unlock_page(page);
        }
        got.wait_for_arrivals();
        EXPECT_TRUE(got_it);
        got.open();
        sleeper.join();
        EXPECT_FALSE(page_test(page, PG_locked));
    }
}

TEST_F(ProtocolStepsTest, ALostRaceCostsTheTurn) {
    // Two sleepers; the first is woken and robbed. 5.8 and 5.9 send it to the tail, so the second
    // is next; 5.9-rc does not let it be robbed.
    for (const char* protocol : {"5.8", "5.9", "6.8"}) {
        SCOPED_TRACE(protocol);
        use(protocol);
        Page page;
        page.refcount.store(1);
        lock_page(page);
        std::string order;
        const auto take = [&page, &order](char name) {
            lock_page(page);
            order += name;
            unlock_page(page);
        };
        Thread first = start_queued("first", [&take] { take('1'); });
        Thread second = start_queued("second", [&take] { take('2'); });
        ASSERT_NO_FATAL_FAILURE(steal_from("first", page));
        const std::vector<PageWaiter> queue = page_waiters(&page);
        ASSERT_EQ(queue.size(), 2U);
        EXPECT_EQ(queue[0].task, "second");
        EXPECT_EQ(queue[1].task, "first");
        unlock_page(page);
        first.join();
        second.join();
        EXPECT_EQ(order, "21");
    }
}

TEST_F(ProtocolStepsTest, HandOffKeepsTheTurn) {
    use("5.9-rc");
    Page page;
    page.refcount.store(1);
    lock_page(page);
    std::string order;
    const auto take = [&page, &order](char name) {
        lock_page(page);
        order += name;
        unlock_page(page);
    };
    Thread first = start_queued("first", [&take] { take('1'); });
    Thread second = start_queued("second", [&take] { take('2'); });
    unlock_page(page);
    first.join();
    second.join();
    EXPECT_EQ(order, "12");
}

TEST_F(ProtocolStepsTest, SleepersInFrontOfAnExclusiveOneAreWokenAndNoneBehindIt) {
    // 1.3: first in, first out, and one exclusive sleeper a wake-up. Not for 5.8, whose shared
    // sleeper may find the lock taken again.
    for (const char* protocol : kAllPresets) {
        if (protocol_named(protocol).waiter == Waiter::kRecheck) {
            continue;
        }
        SCOPED_TRACE(protocol);
        use(protocol);
        Page page;
        page.refcount.store(1);
        lock_page(page);
        Thread shared = start_queued("shared", [&page] { wait_on_page_locked(page); });
        PointGate got("test:got_the_lock");
        Thread exclusive = start_queued("exclusive", [&page] {
            lock_page(page);
            WBFAT_POINT("test:got_the_lock");
            unlock_page(page);
        });
        Thread behind = start_queued("behind", [&page] { wait_on_page_locked(page); });
        unlock_page(page);
        shared.join();
        got.wait_for_arrivals();
        const std::vector<PageWaiter> queue = page_waiters(&page);
        ASSERT_EQ(queue.size(), 1U);
        EXPECT_EQ(queue[0].task, "behind");
        got.open();
        behind.join();
        exclusive.join();
    }
}

TEST_F(ProtocolStepsTest, ASharedSleeperWhoRechecksMayFindTheLockTakenAgain) {
    use("5.8");
    Page page;
    page.refcount.store(1);
    lock_page(page);
    Thread shared = start_queued("shared", [&page] { wait_on_page_locked(page); });
    ASSERT_NO_FATAL_FAILURE(steal_from("shared", page));
    EXPECT_EQ(page_waiters(&page).size(), 1U);
    unlock_page(page);
    shared.join();
}

TEST_F(ProtocolStepsTest, AnInterruptedSleeperLeavesNothingQueued) {
    pgoff_t index = 0;
    for (const char* protocol : kAllPresets) {
        SCOPED_TRACE(protocol);
        use(protocol);
        Page& page = add_page(index++);
        write(page);
        lock_page(page);
        int errors[2] = {};
        sync::Task* tasks[2] = {};
        Thread locker = start_queued("locker", [&] {
            tasks[0] = &sync::current_task();
            errors[0] = lock_page_killable(page).code();
        });
        Thread waiter = start_queued("waiter", [&] {
            tasks[1] = &sync::current_task();
            errors[1] = wait_on_page_writeback_killable(page).code();
        });
        EXPECT_EQ(page_waiters(&page).size(), 2U);
        tasks[0]->interrupt();
        tasks[1]->interrupt();
        locker.join();
        waiter.join();
        EXPECT_EQ(errors[0], EINTR);
        EXPECT_EQ(errors[1], EINTR);
        EXPECT_TRUE(page_waiters(&page).empty());
        EXPECT_TRUE(page_test(page, PG_waiters));  // W2: left for the next waker
        unlock_page(page);
        end_page_writeback(page);
        EXPECT_FALSE(page_test(page, PG_waiters));
    }
}

TEST_F(ProtocolStepsTest, ALockHandedToAnInterruptedSleeperIsItsOwn) {
    for (const char* protocol : {"5.9-rc", "5.8,handoff=always", "6.8,handoff=always"}) {
        SCOPED_TRACE(protocol);
        use(protocol);
        Page page;
        page.refcount.store(1);
        lock_page(page);
        int error = EIO;
        sync::Task* task = nullptr;
        PointGate leaving("wait:finish", only("sleeper"));
        Thread sleeper = start_queued("sleeper", [&] {
            task = &sync::current_task();
            error = lock_page_killable(page).code();
        });
        task->interrupt();
        leaving.wait_for_arrivals();  // it saw the interruption and has not yet left the queue
        unlock_page(page);
        leaving.open();
        sleeper.join();
        EXPECT_EQ(error, 0);
        EXPECT_TRUE(page_test(page, PG_locked));
        unlock_page(page);
    }
}

TEST_F(ProtocolStepsTest, AnInterruptedSleeperHandsOnTheWakeUpThatItCannotUse) {
    for (const char* protocol : kAllPresets) {
        SCOPED_TRACE(protocol);
        use(protocol);
        Page page;
        page.refcount.store(1);
        lock_page(page);
        int error = 0;
        sync::Task* task = nullptr;
        PointGate leaving("wait:finish", only("interrupted"));
        Thread interrupted = start_queued("interrupted", [&] {
            task = &sync::current_task();
            error = lock_page_killable(page).code();
            if (error == 0) {  // handed over: the lock was its own
                unlock_page(page);
            }
        });
        Thread patient = start_queued("patient", [&page] {
            lock_page(page);
            unlock_page(page);
        });
        task->interrupt();
        leaving.wait_for_arrivals();  // it will give up, and is still the first in the queue
        unlock_page(page);            // wakes the first alone
        leaving.open();
        interrupted.join();
        patient.join();  // for ever, if the wake-up went down with the interrupted one
        EXPECT_EQ(error, current_protocol().handoff == kHandoffAlways ? 0 : EINTR);
        EXPECT_FALSE(page_test(page, PG_locked));
    }
}

TEST_F(ProtocolStepsTest, AnInterruptedSharedSleeperWhoRechecksDoesNotTakeAFlagForAnAnswer) {
    use("5.8,wake=blind");
    Page& page = add_page(0);
    write(page);
    int error = 0;
    sync::Task* task = nullptr;
    PointGate woken("wait:woken", only("sleeper"));
    Thread sleeper = start_queued("sleeper", [&] {
        task = &sync::current_task();
        error = wait_on_page_writeback_killable(page).code();
    });
    wake_up_page_bit(page, PG_writeback);  // stale
    woken.wait_for_arrivals();
    task->interrupt();
    woken.open();
    sleeper.join();
    EXPECT_EQ(error, EINTR);
    end_page_writeback(page);
}

TEST_F(ProtocolStepsTest, DropGivesTheReferenceAwayBeforeItSleeps) {
    for (const char* protocol : kAllKernels) {
        SCOPED_TRACE(protocol);
        use(protocol);
        Page page;
        page.refcount.store(2);
        lock_page(page);
        Thread sleeper = start_queued(
            "sleeper", [&page] { EXPECT_TRUE(put_and_wait_on_page_locked(page).has_value()); });
        EXPECT_EQ(page.refcount.load(), 1);
        unlock_page(page);
        sleeper.join();
        EXPECT_EQ(page.refcount.load(), 1);
    }
}

TEST_F(ProtocolStepsTest, TheCarefulUnlinkIsOneStore) {
    const struct {
        const char* protocol;
        std::uint64_t halves;
    } table[] = {{"5.8", 1}, {"5.9-rc", 1}, {"5.9", 0}, {"6.8", 0}, {"6.8,unlink=plain", 1}};
    for (const auto& row : table) {
        SCOPED_TRACE(row.protocol);
        use(row.protocol);
        Page page;
        page.refcount.store(1);
        lock_page(page);
        Thread sleeper = start_queued("sleeper", [&page] { wait_on_page_locked(page); });
        const StepRecorder record("main");
        unlock_page(page);
        sleeper.join();
        EXPECT_EQ(record.steps("unlink:half").size(), row.halves);
    }
}

TEST_F(ProtocolStepsTest, AHalfUnlinkedSleeperStaysUntilTheWakerIsDone) {
    use("6.8,unlink=plain");
    Page page;
    page.refcount.store(1);
    lock_page(page);
    sync::Atomic<bool> waker_is_done{false};
    bool left_early = false;
    PointGate half("unlink:half", only("waker"));
    PointGate finish("wait:finish", only("sleeper"));
    Thread sleeper = start_queued("sleeper", [&] {
        wait_on_page_locked(page);
        left_early = !waker_is_done.load();
    });
    Thread waker("waker", Role::kOther, [&page] { unlock_page(page); });
    half.wait_for_arrivals();    // `next` is home, `prev` is not
    finish.wait_for_arrivals();  // and the sleeper is about to look
    finish.open();
    sync::yield_now();
    waker_is_done.store(true);
    half.open();
    waker.join();
    sleeper.join();
    EXPECT_FALSE(left_early);
}

// --- setting the bit: 9.3 (4), (5), 10.3

TEST_F(ProtocolStepsTest, WaitAndSetAreOneActOnlyWithWaitToSet) {
    const struct {
        const char* protocol;
        bool taken;
    } table[] = {{"5.10", false}, {"6.8", false}, {"wait-to-set", true}};
    pgoff_t index = 0;
    for (const auto& row : table) {
        SCOPED_TRACE(row.protocol);
        use(row.protocol);
        Page& page = add_page(index++);
        dirty(page);
        lock_page(page);
        EXPECT_TRUE(try_prepare_page_writeback(page));
        EXPECT_EQ(page_test(page, PG_writeback), row.taken);
        EXPECT_EQ(try_prepare_page_writeback(page), !row.taken);
        clear_page_dirty_for_io(page);
        set_page_writeback(page);
        EXPECT_TRUE(tagged(page, PAGECACHE_TAG_WRITEBACK));
        EXPECT_EQ(counters().nr_writeback.value(), 1U);
        unlock_page(page);
        end_page_writeback(page);
        EXPECT_FALSE(tagged(page, PAGECACHE_TAG_WRITEBACK));
    }
}

TEST_F(ProtocolStepsTest, WaitToSetTakesTheBitFromTheEndingWriteback) {
    use("wait-to-set");
    Page& page = add_page(0);
    write(page);
    dirty(page);
    Thread writer = start_queued("writer", [this, &page] { write(page); });
    EXPECT_EQ(page_waiters(&page).front().behavior, WaitBehavior::kExclusive);
    end_page_writeback(page);
    writer.join();
    EXPECT_TRUE(page_test(page, PG_writeback));
    EXPECT_FALSE(page_test(page, PG_dirty));
    end_page_writeback(page);
}

TEST_F(ProtocolStepsTest, KeepwriteLeavesTheMarkOfTheIntegrityWalk) {
    Page& page = add_page(0);
    for (const bool keep : {false, true}) {
        dirty(page, 0x3);
        mapping_->i_pages.tag_pages_for_writeback(0, 0);
        lock_page(page);
        clear_page_dirty_for_io(page);
        redirty_page_for_writepage(page, 0x2);
        if (keep) {
            set_page_writeback_keepwrite(page);
        } else {
            set_page_writeback(page);
        }
        unlock_page(page);
        EXPECT_EQ(tagged(page, PAGECACHE_TAG_TOWRITE), keep);
        EXPECT_TRUE(tagged(page, PAGECACHE_TAG_DIRTY));
        end_page_writeback(page);
    }
}

TEST_F(ProtocolStepsTest, LockInEndWaitsForThePageLock) {
    for (const char* protocol : {"5.10", "lock-in-end"}) {
        SCOPED_TRACE(protocol);
        use(protocol);
        Page& page = add_page(current_protocol().end_lock == EndLock::kYes ? 1 : 0);
        write(page);
        lock_page(page);
        if (current_protocol().end_lock == EndLock::kNo) {
            end_page_writeback(page);
            unlock_page(page);
        } else {
            Thread completion = start_queued("completion", [&page] { end_page_writeback(page); });
            EXPECT_TRUE(page_test(page, PG_writeback));
            unlock_page(page);
            completion.join();
        }
        EXPECT_FALSE(page_test(page, PG_writeback));
        EXPECT_FALSE(page_test(page, PG_locked));
    }
}

TEST_F(ProtocolStepsTest, LockInEndDeadlocksWithAWaitUnderTheLockAndTheTableNamesBoth) {
    use("lock-in-end");
    Page& page = add_page(0);
    write(page);
    sync::Task* task = nullptr;
    Thread writer = start_queued("writer", [&] {
        task = &sync::current_task();
        lock_page(page);
        static_cast<void>(wait_on_page_writeback_killable(page));
        unlock_page(page);
    });
    Thread completion = start_queued("completion", [&page] { end_page_writeback(page); });
    // Each holds what the other waits for.
    const std::vector<PageWaiter> hung = hung_page_waiters(sync::Nanoseconds{0});
    ASSERT_EQ(hung.size(), 2U);
    EXPECT_EQ(hung[0].task, "writer");
    EXPECT_EQ(hung[0].bit, PG_writeback);
    EXPECT_FALSE(hung[0].bit_is_clear);
    EXPECT_EQ(hung[1].task, "completion");
    EXPECT_EQ(hung[1].bit, PG_locked);
    EXPECT_FALSE(hung[1].bit_is_clear);
    task->interrupt();  // the one way out
    writer.join();
    completion.join();
}

TEST_F(ProtocolStepsTest, ALostWakeUpShowsAsASleeperWithAClearBit) {
    Page& page = add_page(0);
    write(page);
    Thread sleeper = start_queued("sleeper", [&page] { wait_on_page_writeback(page); });
    PointGate late("wake:before_queue_lock", only("completion"));
    Thread completion("completion", Role::kCompletion, [&page] { end_page_writeback(page); });
    late.wait_for_arrivals();
    const std::vector<PageWaiter> hung = hung_page_waiters(sync::Nanoseconds{0});
    ASSERT_EQ(hung.size(), 1U);
    EXPECT_EQ(hung[0].page, &page);
    EXPECT_TRUE(hung[0].bit_is_clear);
    EXPECT_TRUE(hung_page_waiters(std::chrono::hours(1)).empty());
    late.open();
    completion.join();
    sleeper.join();
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
