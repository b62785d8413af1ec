// Goal: the primitives of sync.h keep their contracts, and named points count, select, delay and
// hold. Method: real threads, ordered by gates and tokens, never by sleeping.
#include "cache/sync/sync.h"

#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "cache/sync/points.h"

namespace wbfat::sync::inline WBFAT_RT {
namespace {

using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""h;

constexpr int kThreads = 3;
constexpr int kRounds = 5000;

template <typename Body>
void run_threads(const Body& body) {
    std::vector<Thread> threads;
    for (int i = 0; i < kThreads; ++i) {
        threads.emplace_back("worker", Role::kOther, body);
    }
}

TEST(SpinLockTest, ExcludesOthers) {
    SpinLock lock;
    int counter = 0;
    run_threads([&lock, &counter] {
        for (int i = 0; i < kRounds; ++i) {
            const SpinLockGuard guard(lock);
            ++counter;
        }
    });
    EXPECT_EQ(counter, kThreads * kRounds);
}

TEST(SpinLockTest, TryFailsWhileHeldAndSucceedsAfter) {
    SpinLock lock;
    lock.lock();
    bool taken = true;
    Thread("other", Role::kOther, [&lock, &taken]() NO_THREAD_SAFETY_ANALYSIS {
        taken = lock.try_lock();
    }).join();
    EXPECT_FALSE(taken);
    lock.unlock();
    const bool taken_after = lock.try_lock();
    if (taken_after) {
        lock.unlock();
    }
    EXPECT_TRUE(taken_after);
}

TEST(MutexTest, ExcludesOthers) {
    Mutex mutex;
    int counter = 0;
    run_threads([&mutex, &counter] {
        for (int i = 0; i < kRounds; ++i) {
            const MutexLock lock(mutex);
            ++counter;
        }
    });
    EXPECT_EQ(counter, kThreads * kRounds);
}

TEST(CondVarTest, WakesTheWaiterThatFindsItsConditionTrue) {
    Mutex mutex;
    CondVar changed;
    bool ready = false;
    Thread waiter("waiter", Role::kOther, [&] {
        MutexLock lock(mutex);
        while (!ready) {
            changed.wait(lock);
        }
    });
    {
        const MutexLock lock(mutex);
        ready = true;
        changed.notify_all();
    }
    waiter.join();
}

TEST(CondVarTest, WaitForReportsThatTheTimeIsUp) {
    Mutex mutex;
    CondVar never;
    MutexLock lock(mutex);
    const Nanoseconds start = monotonic_now();
    while (never.wait_for(lock, 2ms)) {
    }
    EXPECT_GE(monotonic_now() - start, 2ms);
}

TEST(RwSemTest, AdmitsReadersTogetherAndWritersAlone) {
    RwSem sem;
    const ReadGuard reader(sem);
    bool writer_entered = true;
    Thread("other", Role::kOther, [&sem, &writer_entered]() NO_THREAD_SAFETY_ANALYSIS {
        sem.lock_shared();
        sem.unlock_shared();
        writer_entered = sem.try_lock();
    }).join();
    EXPECT_FALSE(writer_entered);
}

TEST(RwSemTest, WritersExcludeEachOther) {
    RwSem sem;
    int counter = 0;
    run_threads([&sem, &counter] {
        for (int i = 0; i < kRounds; ++i) {
            const WriteGuard guard(sem);
            ++counter;
        }
    });
    EXPECT_EQ(counter, kThreads * kRounds);
}

TEST(ParkerTest, ATokenLeftBeforeParkingIsTaken) {
    Parker parker;
    parker.unpark();
    parker.park();
    EXPECT_FALSE(parker.park_for(0ms));
}

TEST(ParkerTest, TokensDoNotAddUp) {
    Parker parker;
    parker.unpark();
    parker.unpark();
    EXPECT_TRUE(parker.park_for(0ms));
    EXPECT_FALSE(parker.park_for(1ms));
}

TEST(ParkerTest, HandsDataOverWithTheToken) {
    Parker to_worker;
    Parker to_main;
    int value = 0;  // plain: the tokens alone order the accesses
    Thread worker("worker", Role::kOther, [&] {
        for (int i = 0; i < kRounds; ++i) {
            to_worker.park();
            ++value;
            to_main.unpark();
        }
    });
    for (int i = 0; i < kRounds; ++i) {
        ++value;
        to_worker.unpark();
        ASSERT_TRUE(to_main.park_for(1h));
    }
    worker.join();
    EXPECT_EQ(value, 2 * kRounds);
}

TEST(TaskTest, InterruptWakesAParkedTaskAndStaysUntilCleared) {
    Task* task = nullptr;
    Parker started;
    bool was_interrupted = false;
    Thread sleeper("sleeper", Role::kSyncWriter, [&] {
        task = &current_task();
        started.unpark();
        while (!task->interrupted()) {
            task->park();
        }
        was_interrupted = task->interrupted();
        task->clear_interrupt();
        was_interrupted = was_interrupted && !task->interrupted();
    });
    started.park();
    task->interrupt();
    sleeper.join();
    EXPECT_TRUE(was_interrupted);
}

TEST(ThreadTest, CarriesItsNameAndRole) {
    std::string name;
    Role role = Role::kOther;
    Thread("a rather long flusher name", Role::kFlusher, [&] {
        name = current_task().name();
        role = current_task().role();
    }).join();
    EXPECT_EQ(name, "a rather long flusher name");
    EXPECT_EQ(role, Role::kFlusher);
}

TEST(ThreadTest, MovingInAnotherThreadJoinsTheFirst) {
    bool first_ran = false;
    Thread thread("first", Role::kOther, [&first_ran] { first_ran = true; });
    thread = Thread();
    EXPECT_TRUE(first_ran);
}

// --- points

class PointsTest : public ::testing::Test {
protected:
    PointsTest() {
        reset_point_hits();
    }
};

TEST_F(PointsTest, CountsHitsOnlyWhileSomethingIsArmed) {
    WBFAT_POINT("test:a");
    EXPECT_TRUE(point_hits().empty());
    const PointRuleId id = arm_point("test:b", {});
    WBFAT_POINT("test:a");
    WBFAT_POINT("test:a");
    WBFAT_POINT("test:b");
    disarm_point(id);
    WBFAT_POINT("test:a");
    EXPECT_EQ(point_hits(), (std::map<std::string, std::uint64_t>{{"test:a", 2}, {"test:b", 1}}));
}

TEST_F(PointsTest, SkipsAndCountsHits) {
    int acted = 0;
    PointRule rule;
    rule.skip = 2;
    rule.count = 3;
    rule.hook = [&acted] { ++acted; };
    const PointRuleId id = arm_point("test:a", std::move(rule));
    std::vector<int> history;
    for (int i = 0; i < 7; ++i) {
        WBFAT_POINT("test:a");
        history.push_back(acted);
    }
    disarm_point(id);
    EXPECT_EQ(history, (std::vector<int>{0, 0, 1, 2, 3, 3, 3}));
}

TEST_F(PointsTest, SelectsByRoleAndByTask) {
    Atomic<int> by_role{0};
    Atomic<int> by_task{0};
    PointRule role_rule;
    role_rule.role = Role::kCompletion;
    role_rule.hook = [&by_role] { by_role.fetch_add(1); };
    PointRule task_rule;
    task_rule.task = "B";
    task_rule.hook = [&by_task] { by_task.fetch_add(1); };
    const PointRuleId first = arm_point("test:a", std::move(role_rule));
    const PointRuleId second = arm_point("test:a", std::move(task_rule));
    Thread("A", Role::kCompletion, [] { WBFAT_POINT("test:a"); }).join();
    Thread("B", Role::kRequest, [] { WBFAT_POINT("test:a"); }).join();
    Thread("C", Role::kRequest, [] { WBFAT_POINT("test:a"); }).join();
    disarm_point(first);
    disarm_point(second);
    EXPECT_EQ(by_role.load(), 1);
    EXPECT_EQ(by_task.load(), 1);
}

TEST_F(PointsTest, DelaysTheThread) {
    PointRule rule;
    rule.delay = 3ms;
    const PointRuleId id = arm_point("test:a", std::move(rule));
    const Nanoseconds start = monotonic_now();
    WBFAT_POINT("test:a");
    disarm_point(id);
    EXPECT_GE(monotonic_now() - start, 3ms);
}

TEST_F(PointsTest, AGateHoldsUntilOpened) {
    Atomic<bool> passed{false};
    PointGate gate("test:a");
    Thread thread("held", Role::kOther, [&passed] {
        WBFAT_POINT("test:a");
        passed.store(true);
    });
    gate.wait_for_arrivals();
    EXPECT_FALSE(passed.load());
    gate.open();
    thread.join();
    EXPECT_TRUE(passed.load());
    EXPECT_EQ(gate.arrivals(), 1U);
}

TEST_F(PointsTest, DestroyingAGateLetsEverybodyGo) {
    std::optional<PointGate> gate(std::in_place, "test:a");
    std::vector<Thread> threads;
    for (int i = 0; i < kThreads; ++i) {
        threads.emplace_back("held", Role::kOther, [] { WBFAT_POINT("test:a"); });
    }
    gate->wait_for_arrivals(kThreads);
    gate.reset();
    threads.clear();
    WBFAT_POINT("test:a");
}

#ifndef NDEBUG
TEST(LockRankTest, AscendingAndEqualRanksNest) {
    Mutex outer(LockRank::kFat);
    Mutex first(LockRank::kFlusherList);
    Mutex second(LockRank::kFlusherList);
    const MutexLock a(outer);
    const MutexLock b(first);
    const MutexLock c(second);
}

TEST(LockRankTest, ReleasedRanksNoLongerCount) {
    Mutex inner(LockRank::kFrames);
    RwSem outer(LockRank::kInode);
    { const MutexLock lock(inner); }
    const WriteGuard guard(outer);
    const MutexLock lock(inner);
}

TEST(LockRankDeathTest, CatchesAnInversion) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    Mutex inner(LockRank::kFrames);
    RwSem outer(LockRank::kInode);
    const MutexLock lock(inner);
    EXPECT_DEATH(const ReadGuard guard(outer),
                 "S2: (lock order inversion|a lock is taken under one of a higher rank)");
}
#endif

}  // namespace
}  // namespace wbfat::sync::inline WBFAT_RT
