// The scheduler of the explorer: steps, blocking, the world put back, time.
//
// Method: two or three tasks over bare sync:: objects, and all their schedules by a search of a few
// lines.
#include <bit>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cache/sync/scheduler.h"
#include "cache/sync/sync.h"

namespace wbfat::sync::inline WBFAT_RT {
namespace {

using sched::Scheduler;

// Sets up once, runs every schedule, and counts how the runs end.
class ModelTest : public ::testing::Test {
protected:
    void set_up(const std::function<void()>& build) {
        scheduler_.set_merging(Scheduler::Merging::kOff);
        scheduler_.set_up(build);
        is_set_up_ = true;
    }
    ~ModelTest() override {
        if (is_set_up_) {
            scheduler_.tear_down([] {});
        }
    }

    static int task(const std::string& name, std::function<void()> body) {
        return sched::scheduler().add_task(name, Role::kOther, "", std::move(body));
    }

    // One run, in which that task has every turn that it can take.
    void run_preferring(int first) {
        scheduler_.begin();
        for (std::uint32_t able = scheduler_.enabled(); able != 0; able = scheduler_.enabled()) {
            scheduler_.step((able >> first & 1U) != 0 ? first : std::countr_zero(able));
        }
    }

    // `ending` is asked after each run; "stuck" is counted where tasks are left.
    std::map<std::string, int> all_schedules(const std::function<std::string()>& ending) {
        struct Fork {
            std::uint32_t left;
            int chosen;
        };
        std::map<std::string, int> endings;
        std::vector<Fork> path;
        do {
            scheduler_.begin();
            std::size_t depth = 0;
            for (std::uint32_t able = scheduler_.enabled(); able != 0;
                 able = scheduler_.enabled()) {
                if (depth == path.size()) {
                    path.push_back({able & (able - 1), std::countr_zero(able)});
                }
                scheduler_.step(path[depth++].chosen);
                scheduler_.world().learn();
            }
            bool stuck = false;
            for (int i = 0; i < scheduler_.nr_tasks(); ++i) {
                stuck = stuck || (!scheduler_.finished(i) && !scheduler_.is_daemon(i));
            }
            ++endings[stuck ? "stuck" : ending()];
            while (!path.empty() && path.back().left == 0) {
                path.pop_back();
            }
            if (!path.empty()) {
                Fork& fork = path.back();
                fork.chosen = std::countr_zero(fork.left);
                fork.left &= fork.left - 1;
            }
        } while (!path.empty());
        return endings;
    }

    Scheduler& scheduler_ = sched::scheduler();
    bool is_set_up_ = false;
};

using Endings = std::map<std::string, int>;

struct Counter {
    Atomic<int> value{0};
    Mutex mutex;
    void add_in_two_steps() {
        const int seen = value.load();
        value.store(seen + 1);
    }
};

TEST_F(ModelTest, SeesEveryInterleavingOfALostUpdate) {
    Counter* counter = nullptr;
    set_up([&] {
        counter = new Counter;
        task("a", [=] { counter->add_in_two_steps(); });
        task("b", [=] { counter->add_in_two_steps(); });
    });
    // Two operations each: 6 interleavings, and only the two serial ones keep both updates.
    EXPECT_EQ(all_schedules([&] { return std::to_string(counter->value.peek()); }),
              (Endings{{"1", 4}, {"2", 2}}));
}

TEST_F(ModelTest, KeepsTasksOutOfATakenMutex) {
    Counter* counter = nullptr;
    set_up([&] {
        counter = new Counter;
        for (const char* name : {"a", "b"}) {
            task(name, [=] {
                const MutexLock lock(counter->mutex);
                counter->add_in_two_steps();
            });
        }
    });
    const Endings endings = all_schedules([&] { return std::to_string(counter->value.peek()); });
    EXPECT_EQ(endings.size(), 1U);
    EXPECT_EQ(endings.begin()->first, "2");
}

TEST_F(ModelTest, TellsADeadlockFromAnEnd) {
    struct TwoLocks {
        Mutex first, second;
    };
    set_up([&] {
        auto* const locks = new TwoLocks;
        task("a", [=] {
            const MutexLock one(locks->first);
            const MutexLock two(locks->second);
        });
        task("b", [=] {
            const MutexLock two(locks->second);
            const MutexLock one(locks->first);
        });
    });
    const Endings endings = all_schedules([] { return std::string("done"); });
    EXPECT_GT(endings.at("stuck"), 0);
    EXPECT_GT(endings.at("done"), 0);
}

TEST_F(ModelTest, WakesWhoWasNotifiedAfterItWaited) {
    struct Shared {
        Mutex mutex;
        CondVar changed;
        bool ready = false;
    };
    set_up([&] {
        auto* const shared = new Shared;
        task("waiter", [=] {
            MutexLock lock(shared->mutex);
            while (!shared->ready) {
                shared->changed.wait(lock);
            }
        });
        task("notifier", [=] {
            const MutexLock lock(shared->mutex);
            shared->ready = true;
            shared->changed.notify_one();
        });
    });
    const Endings endings = all_schedules([] { return std::string("done"); });
    EXPECT_EQ(endings.count("stuck"), 0U);
}

TEST_F(ModelTest, LosesAWakeUpThatComesBeforeTheWait) {
    struct Shared {
        Mutex mutex;
        CondVar changed;
    };
    set_up([&] {
        auto* const shared = new Shared;
        task("waiter", [=] {
            MutexLock lock(shared->mutex);
            shared->changed.wait(lock);
        });
        task("notifier", [=] { shared->changed.notify_one(); });
    });
    const Endings endings = all_schedules([] { return std::string("done"); });
    EXPECT_GT(endings.at("stuck"), 0);
    EXPECT_GT(endings.at("done"), 0);
}

TEST_F(ModelTest, KeepsAnUnparkForTheNextPark) {
    struct Shared {
        Parker parker;
    };
    set_up([&] {
        auto* const shared = new Shared;
        task("sleeper", [=] { shared->parker.park(); });
        task("waker", [=] { shared->parker.unpark(); });
    });
    EXPECT_EQ(all_schedules([] { return std::string("done"); }).count("stuck"), 0U);
}

TEST_F(ModelTest, LetsTimePassOnlyWhenNobodyCanRun) {
    struct Shared {
        Parker parker;
        Atomic<int> steps{0};
        bool in_time = true;
    };
    Shared* shared = nullptr;
    set_up([&] {
        shared = new Shared;
        task("sleeper",
             [=] { shared->in_time = shared->parker.park_for(std::chrono::seconds(5)); });
        task("worker", [=] {
            shared->steps.store(1);
            shared->steps.store(2);
        });
    });
    EXPECT_EQ(all_schedules([&] {
                  return std::string(shared->in_time ? "woken" : "timed out") +
                         std::to_string(shared->steps.peek());
              }),
              (Endings{{"timed out2", 1}}));
}

TEST_F(ModelTest, PutsTheHeapBackBetweenRuns) {
    struct Shared {
        Atomic<int> turns{0};
        std::vector<int> order;
    };
    Shared* shared = nullptr;
    set_up([&] {
        shared = new Shared;
        for (const int number : {1, 2}) {
            task(std::to_string(number), [=] {
                shared->turns.fetch_add(1);
                shared->order.push_back(number);
            });
        }
    });
    EXPECT_EQ(all_schedules([&] {
                  std::string text;
                  for (const int number : shared->order) {
                      text += std::to_string(number);
                  }
                  return text;
              }),
              (Endings{{"12", 1}, {"21", 1}}));
}

TEST_F(ModelTest, MergesAReleaseAndWhatFollowsAnAcquisition) {
    Counter* counter = nullptr;
    set_up([&] {
        counter = new Counter;
        for (const char* name : {"a", "b"}) {
            task(name, [=] {
                const MutexLock lock(counter->mutex);
                counter->value.fetch_add(1);
            });
        }
    });
    scheduler_.set_merging(Scheduler::Merging::kOn);
    // Each task is one step now.
    EXPECT_EQ(all_schedules([&] { return std::to_string(counter->value.peek()); }),
              (Endings{{"2", 2}}));
    scheduler_.set_merging(Scheduler::Merging::kOff);
}

TEST_F(ModelTest, GivesEqualStatesEqualHashes) {
    Counter* counter = nullptr;
    set_up([&] {
        counter = new Counter;
        for (const char* name : {"a", "b"}) {
            task(name, [=] { counter->value.fetch_add(1); });
        }
    });
    all_schedules([] { return std::string(); });  // learns
    scheduler_.set_hashing(Scheduler::Hashing::kOn);
    std::vector<std::uint64_t> ends;
    for (const int first : {0, 1}) {
        scheduler_.begin();
        const std::uint64_t start = scheduler_.state_hash();
        scheduler_.step(first);
        EXPECT_NE(scheduler_.state_hash(), start);
        scheduler_.step(1 - first);
        ends.push_back(scheduler_.state_hash());
    }
    scheduler_.set_hashing(Scheduler::Hashing::kOff);
    EXPECT_EQ(ends[0], ends[1]);
}

TEST_F(ModelTest, GoesOnFromAKeptStateAsItWouldHaveFromTheStart) {
    struct Shared {
        Atomic<int> turns{0};
        std::vector<int> order;
    };
    Shared* shared = nullptr;
    set_up([&] {
        shared = new Shared;
        for (const int number : {1, 2, 3}) {
            task(std::to_string(number), [=] {
                shared->turns.fetch_add(1);
                shared->order.push_back(number);
                shared->turns.fetch_add(1);
            });
        }
    });
    all_schedules([] { return std::string(); });  // learns
    const auto go_on = [&](std::initializer_list<int> tasks) {
        for (const int it : tasks) {
            scheduler_.step(it);
        }
        return shared->order;
    };
    scheduler_.begin();
    go_on({1, 0});
    Scheduler::Checkpoint kept;
    if (!scheduler_.save(kept)) {
        GTEST_SKIP() << "not under a sanitizer";
    }
    EXPECT_EQ(go_on({2, 2, 1, 0}), (std::vector{2, 1, 3}));
    EXPECT_EQ(scheduler_.enabled(), 0U);
    ASSERT_TRUE(scheduler_.load(kept));
    EXPECT_EQ(shared->order, (std::vector{2, 1}));
    EXPECT_EQ(scheduler_.nr_operations(), 2U);
    EXPECT_EQ(go_on({0, 1, 2, 2}), (std::vector{2, 1, 3}));
    EXPECT_EQ(shared->turns.peek(), 6);
    EXPECT_EQ(scheduler_.enabled(), 0U);
}

// --- movers

TEST_F(ModelTest, OperationsOnObjectsOfOneLockAreNoStepsOfTheirOwn) {
    struct Shared {
        SpinLock lock;
        Atomic<int> a{0}, b{0}, free{0};
    };
    Shared* shared = nullptr;
    set_up([&] {
        shared = new Shared;
        for (const char* name : {"A", "B"}) {
            task(name, [=] {
                const SpinLockGuard guard(shared->lock);
                const int a = shared->a.load();
                shared->b.store(shared->b.load() + 1);
                shared->a.store(a + 1);
            });
        }
        task("C", [=] {
            shared->free.fetch_add(1);
            shared->free.fetch_add(1);
        });
    });
    scheduler_.set_merging(Scheduler::Merging::kOn);
    const auto ending = [&] {
        return std::to_string(shared->a.peek()) + std::to_string(shared->b.peek());
    };
    const Endings before = all_schedules(ending);
    scheduler_.uses().decide();
    // Whoever has the lock is through with everything when he lets go; C has one turn.
    EXPECT_EQ(all_schedules(ending), (Endings{{"22", 6}}));
    EXPECT_TRUE(scheduler_.uses().is_sound());
    EXPECT_GT(before.at("22"), 2);
    EXPECT_EQ(before.size(), 1U);
}

TEST_F(ModelTest, ARuleAboutMoversThatBreaksIsNoticed) {
    struct Shared {
        SpinLock lock;
        Atomic<int> counter{0}, gate{0};
    };
    Shared* shared = nullptr;
    set_up([&] {
        shared = new Shared;
        task("locker", [=] {
            {
                const SpinLockGuard guard(shared->lock);
                shared->counter.store(shared->counter.load() + 1);
            }
            shared->gate.store(1);
        });
        task("intruder", [=] {
            if (shared->gate.load() == 1) {
                shared->counter.store(0);  // no lock
            }
        });
    });
    scheduler_.set_merging(Scheduler::Merging::kOn);
    run_preferring(1);  // the gate is shut
    scheduler_.uses().decide();
    run_preferring(1);
    EXPECT_TRUE(scheduler_.uses().is_sound());
    run_preferring(0);
    EXPECT_FALSE(scheduler_.uses().is_sound());
    scheduler_.uses().decide();
    run_preferring(0);
    EXPECT_TRUE(scheduler_.uses().is_sound());
}

TEST_F(ModelTest, WhatNobodyWritesIsReadInOneStepAndASpinOnItEnds) {
    struct Shared {
        Atomic<int> constant{7};
        int sum = 0;
    };
    Shared* shared = nullptr;
    set_up([&] {
        shared = new Shared;
        task("short", [=] { shared->sum += shared->constant.load() + shared->constant.load(); });
        task("spinner", [=] {
            while (shared->constant.load() == 7) {
            }
        });
    });
    scheduler_.set_merging(Scheduler::Merging::kOn);
    scheduler_.begin();
    for (const int it : {0, 0, 1, 1}) {
        scheduler_.step(it);
    }
    EXPECT_TRUE(scheduler_.finished(0));
    EXPECT_EQ(shared->sum, 14);
    scheduler_.world().learn();
    scheduler_.uses().decide();
    scheduler_.begin();
    scheduler_.step(0);
    EXPECT_TRUE(scheduler_.finished(0));  // both in one turn
    EXPECT_EQ(shared->sum, 14);
    const std::uint64_t operations = scheduler_.nr_operations();
    scheduler_.step(1);
    EXPECT_GT(scheduler_.nr_operations(), operations);
    EXPECT_FALSE(scheduler_.finished(1));
}

// What merging assumes of a lock is not so for one who looks at it and goes away.
TEST_F(ModelTest, ALockThatIsTriedIsSeenTakenAfterTheLastStepUnderIt) {
    struct Shared {
        SpinLock lock;
        Atomic<int> value{0};
        bool saw_value_and_lock = false;
    };
    Shared* shared = nullptr;
    set_up([&] {
        shared = new Shared;
        task("holder", [=] {
            const SpinLockGuard guard(shared->lock);
            shared->value.store(1);
        });
        task("trier", [=] {
            if (shared->value.load() == 1) {
                const bool taken = shared->lock.try_lock();
                if (taken) {
                    shared->lock.unlock();
                }
                shared->saw_value_and_lock = !taken;
            }
        });
    });
    scheduler_.set_merging(Scheduler::Merging::kOn);
    const auto ending = [&] { return shared->saw_value_and_lock ? "saw both" : "did not"; };
    scheduler_.uses().decide();
    EXPECT_EQ(all_schedules(ending).count("saw both"), 0U);
    EXPECT_FALSE(scheduler_.uses().is_sound());
    scheduler_.uses().decide();
    EXPECT_EQ(all_schedules(ending).count("saw both"), 1U);
    EXPECT_TRUE(scheduler_.uses().is_sound());
}

TEST_F(ModelTest, WhoDestroysAnObjectUsesIt) {
    struct Shared {
        std::unique_ptr<Atomic<int>> object = std::make_unique<Atomic<int>>(0);
        Atomic<int> gate{0};
    };
    Shared* shared = nullptr;
    set_up([&] {
        shared = new Shared;
        task("user", [=] {
            shared->object->fetch_add(1);
            shared->gate.store(1);
        });
        task("owner", [=] {
            if (shared->gate.load() == 1) {
                shared->object.reset();
            }
        });
    });
    run_preferring(1);
    scheduler_.uses().decide();
    run_preferring(0);
    EXPECT_FALSE(scheduler_.uses().is_sound());
}

TEST_F(ModelTest, AnObjectOnAnothersStackIsNoMoverAsItsFrameMayGo) {
    struct Shared {
        SpinLock lock;
        Atomic<Atomic<int>*> place{nullptr};
    };
    set_up([&] {
        auto* const shared = new Shared;
        task("owner", [=] {
            Atomic<int> on_the_stack{0};
            const SpinLockGuard guard(shared->lock);
            shared->place.store(&on_the_stack);
        });
        task("user", [=] {
            Atomic<int>* place = nullptr;
            {
                const SpinLockGuard guard(shared->lock);
                place = shared->place.load();
            }
            if (place != nullptr) {
                place->store(1);
            }
        });
    });
    scheduler_.set_merging(Scheduler::Merging::kOn);
    const auto ending = [] { return "fine"; };
    const Endings before = all_schedules(ending);
    scheduler_.uses().decide();
    const Endings after = all_schedules(ending);
    EXPECT_EQ(before.count("stuck"), 1U);  // the failed run leaves its tasks
    EXPECT_EQ(after.count("stuck"), 1U);
}

TEST_F(ModelTest, FailsARunThatTouchesTheStackOfACallThatHasReturned) {
    struct Shared {
        Atomic<Atomic<int>*> place{nullptr};
    };
    set_up([&] {
        auto* const shared = new Shared;
        task("owner", [=] {
            Atomic<int> on_the_stack{0};
            shared->place.store(&on_the_stack);
        });
        task("user", [=] {
            if (Atomic<int>* const place = shared->place.load()) {
                place->store(1);
            }
        });
    });
    scheduler_.begin();
    for (const int it : {0, 1, 1}) {
        scheduler_.step(it);
    }
    EXPECT_EQ(scheduler_.failure().kind, sched::Failure::Kind::kBug);
    EXPECT_NE(scheduler_.failure().title.find("use after return"), std::string::npos);
    scheduler_.begin();
    EXPECT_EQ(scheduler_.failure().kind, sched::Failure::Kind::kNone);
}

// The stack grows over the place again before anybody looks.
TEST_F(ModelTest, FailsARunThatTouchesADeadObjectUnderALivingCall) {
    struct Shared {
        Atomic<Atomic<int>*> place{nullptr};
        Atomic<int> other{0};

        [[gnu::noinline]] void leave_address() {
            Atomic<int> on_the_stack{0};
            place.store(&on_the_stack);
        }
        [[gnu::noinline]] int go_deeper(int depth) {
            volatile std::byte room[64] = {};
            return depth == 0 ? other.load() : go_deeper(depth - 1) + static_cast<int>(room[0]);
        }
    };
    set_up([&] {
        auto* const shared = new Shared;
        task("owner", [=] {
            shared->leave_address();
            shared->go_deeper(20);
        });
        task("user", [=] {
            if (Atomic<int>* const place = shared->place.load()) {
                place->store(1);
            }
        });
    });
    scheduler_.begin();
    for (const int it : {0, 1, 1}) {
        scheduler_.step(it);
    }
    EXPECT_FALSE(scheduler_.finished(0));
    EXPECT_EQ(scheduler_.failure().kind, sched::Failure::Kind::kBug);
    EXPECT_NE(scheduler_.failure().title.find("use after return"), std::string::npos);
}

TEST_F(ModelTest, AnObjectInThePlaceOfADeadOneLives) {
    struct Shared {
        Atomic<Atomic<int>*> place{nullptr};

        [[gnu::noinline]] void show_one() {
            Atomic<int> on_the_stack{0};
            place.store(&on_the_stack);
            static_cast<void>(place.load());
        }
    };
    set_up([&] {
        auto* const shared = new Shared;
        task("owner", [=] {
            shared->show_one();
            shared->show_one();
        });
        task("user", [=] {
            if (Atomic<int>* const place = shared->place.load()) {
                place->store(1);
            }
        });
    });
    scheduler_.begin();
    for (const int it : {0, 0, 0, 1, 1}) {
        scheduler_.step(it);
    }
    EXPECT_EQ(scheduler_.failure().kind, sched::Failure::Kind::kNone);
}

TEST_F(ModelTest, FailsARunThatWakesATaskThatHasEnded) {
    struct Shared {
        Atomic<Task*> sleeper{nullptr};
    };
    set_up([&] {
        auto* const shared = new Shared;
        task("sleeper", [=] { shared->sleeper.store(&current_task()); });
        task("waker", [=] {
            if (Task* const sleeper = shared->sleeper.load()) {
                sleeper->unpark();
            }
        });
    });
    scheduler_.begin();
    for (const int it : {0, 1, 1}) {
        scheduler_.step(it);
    }
    EXPECT_EQ(scheduler_.failure().kind, sched::Failure::Kind::kBug);
    EXPECT_EQ(scheduler_.failure().object, "sleeper");
}

}  // namespace
}  // namespace wbfat::sync::inline WBFAT_RT
