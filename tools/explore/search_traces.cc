// Source-DPOR with sleep sets: one run for every trace, that is, for every way in which operations
// that matter to each other can be ordered.
//
// It knows neither states nor merging, only operations: so it is an independent witness against
// search_states. Each run is searched for races: two operations of different tasks on one object,
// not ordered by anything between them, that might have come the other way round. For each, a way
// to turn it round is left to be tried at the fork before the first.
//
// What orders and what races (exploration.md 6): an unlock comes before the lock it lets in, and
// that cannot be turned round; a lock races with the lock before it. The same for waking and
// sleeping.
//
// Clocks: C[p][q] is the number, from 1, of the last operation of task q that task p knows of.
//
// Not for runs in which time passes (who comes first then depends on all tasks at once), nor with
// ordering rules.
//
// Source: Abdulla, Aronis, Jonsson, Sagonas, "Optimal dynamic partial order reduction", POPL 2014,
// algorithm 1.
#include <algorithm>
#include <array>
#include <bit>
#include <unordered_map>

#include "tools/explore/search.h"

namespace wbfat::explore {

namespace {

using sync::sched::kMaxTasks;
using sync::sched::OpKind;
using sync::sched::Pending;
using sync::sched::Scheduler;

using Clock = std::array<std::uint32_t, kMaxTasks>;

void join(Clock& into, const Clock& from) {
    for (std::size_t i = 0; i < into.size(); ++i) {
        into[i] = std::max(into[i], from[i]);
    }
}

bool commute(OpKind a, OpKind b) {
    const auto is_shared = [](OpKind kind) {
        return kind == OpKind::kLockShared || kind == OpKind::kUnlockShared;
    };
    return (a == OpKind::kLoad && b == OpKind::kLoad) ||
           (a == OpKind::kUnpark && b == OpKind::kUnpark) || (is_shared(a) && is_shared(b));
}

bool independent(const Pending& a, const Pending& b) {
    return a.object != b.object || a.object == nullptr || commute(a.kind, b.kind);
}

// One step of the run that is under way.
struct Step {
    int task = 0;
    Pending op;
    Clock clock{};  // with the step itself
};

// What must be known of an object to find what races with the next operation on it.
struct ObjectState {
    std::vector<std::uint32_t> recent;  // steps since the last one that orders all before it
    Clock known{};                      // of all operations that were no loads
    Clock loaded{};                     // of loads
};

struct Fork {
    std::uint32_t able = 0;
    std::uint32_t todo = 0;  // the source set: must be tried
    std::uint32_t done = 0;
    std::uint32_t asleep = 0;
    int chosen = -1;
};

class TraceSearch {
public:
    explicit TraceSearch(Search& search)
        : search_(search), session_(search.session), scheduler_(search.session.scheduler()) {
        scheduler_.set_merging(Scheduler::Merging::kOff);
        scheduler_.set_hashing(Scheduler::Hashing::kOff);
    }

    void run() {
        do {
            if (!search_.may_go_on()) {
                return;
            }
            run_once();
        } while (search_.result.stopped_by.empty() && next_path());
        search_.result.complete = search_.result.stopped_by.empty();
    }

private:
    void run_once() {
        session_.begin();
        turns_.clear();
        steps_.clear();
        objects_.clear();
        clocks_ = {};
        for (std::size_t depth = 0;; ++depth) {
            const std::uint32_t able = scheduler_.enabled();
            if (able == 0 || scheduler_.nr_operations() > Session::kMaxOperations) {
                break;
            }
            if (depth < path_.size()) {
                if (path_[depth].able != able) {
                    search_.nondeterministic(turns_, depth);
                    return;
                }
            } else if (!add_fork(able)) {
                races_of_the_unfinished();
                return;  // every way on was taken elsewhere
            }
            take(path_[depth].chosen, depth + 1 >= path_.size() ? Races::kLookFor : Races::kKnown);
        }
        races_of_the_unfinished();
        search_.ended(turns_, false);
        ++search_.result.states;
    }

    // False: all that can run is asleep.
    bool add_fork(std::uint32_t able) {
        Fork fork;
        fork.able = able;
        if (!path_.empty()) {
            // Who was asleep, or was tried before, stays asleep until something happens that
            // matters to it.
            const Fork& last = path_.back();
            std::uint32_t asleep = (last.asleep | last.done) & ~(1U << last.chosen);
            const Pending& op = steps_.back().op;
            for (; asleep != 0; asleep &= asleep - 1) {
                const int task = std::countr_zero(asleep);
                if (independent(scheduler_.pending(task), op)) {
                    fork.asleep |= 1U << task;
                }
            }
        }
        const std::uint32_t ways = able & ~fork.asleep;
        if (ways == 0) {
            return false;
        }
        const int before = path_.empty() ? -1 : path_.back().chosen;
        fork.chosen = before >= 0 && (ways >> before & 1U) != 0 ? before : std::countr_zero(ways);
        fork.todo = 1U << fork.chosen;
        path_.push_back(fork);
        return true;
    }

    enum class Races : std::uint8_t { kKnown, kLookFor };

    void take(int task, Races races) {
        const Pending op = scheduler_.pending(task);
        if (races == Races::kLookFor) {
            find_races(task, op);
        }
        advance_clocks(task, op);
        scheduler_.step(task);
        ++search_.result.steps;
        turns_.push_back({static_cast<std::uint8_t>(task), 1});
    }

    Clock& clock_of(int task) {
        return clocks_[static_cast<std::size_t>(task)];
    }
    bool knows(const Clock& clock, std::uint32_t step) const {
        return clock[static_cast<std::size_t>(steps_[step].task)] > step;
    }

    void advance_clocks(int task, const Pending& op) {
        Clock& clock = clock_of(task);
        const auto number = static_cast<std::uint32_t>(steps_.size());
        if (op.kind == OpKind::kJoin) {
            join(clock, clock_of(static_cast<int>(op.argument)));
        }
        if (op.object != nullptr) {
            ObjectState& object = objects_[op.object];
            join(clock, object.known);
            if (op.kind != OpKind::kLoad) {
                join(clock, object.loaded);
            }
            clock[static_cast<std::size_t>(task)] = number + 1;
            if (op.kind == OpKind::kLoad) {
                join(object.loaded, clock);
            } else if (op.kind == OpKind::kUnpark || op.kind == OpKind::kLockShared) {
                // These commute among themselves; what they make known is joined, not replaced.
                join(object.known, clock);
            } else {
                object.known = clock;
            }
            remember(object, op.kind, number);
        }
        clock[static_cast<std::size_t>(task)] = number + 1;
        steps_.push_back({.task = task, .op = op, .clock = clock});
    }

    void remember(ObjectState& object, OpKind kind, std::uint32_t number) const {
        const bool orders_all = kind == OpKind::kStore || kind == OpKind::kExchange ||
                                kind == OpKind::kCompareExchange || kind == OpKind::kFetchAdd ||
                                kind == OpKind::kFetchSub || kind == OpKind::kFetchOr ||
                                kind == OpKind::kFetchAnd || kind == OpKind::kFetchXor;
        if (orders_all) {
            object.recent.clear();
        }
        object.recent.push_back(number);
    }

    // The earlier operations that this one might have come before.
    void find_races(int task, const Pending& op) {
        if (op.object == nullptr) {
            return;
        }
        const auto found = objects_.find(op.object);
        if (found == objects_.end()) {
            return;
        }
        const Clock& mine = clock_of(task);
        const std::vector<std::uint32_t> recent = found->second.recent;
        Clock between = mine;  // what is known of anything later that is ordered before this one
        for (std::size_t i = recent.size(); i-- > 0;) {
            const std::uint32_t number = recent[i];
            const Step& earlier = steps_[number];
            if (earlier.task == task || commute(earlier.op.kind, op.kind)) {
                continue;
            }
            if (!enables(earlier.op.kind, op.kind) && !knows(between, number)) {
                turn_round(number, task);
                join(between, earlier.clock);
            } else if (!enables(earlier.op.kind, op.kind)) {
                continue;
            }
            // What lets this one run is no race, and does not hide the operation it undid.
        }
    }

    // The first must have come before the second could run at all.
    static bool enables(OpKind first, OpKind second) {
        switch (second) {
            case OpKind::kLock:
                return first == OpKind::kUnlock || first == OpKind::kUnlockShared;
            case OpKind::kLockShared:
                return first == OpKind::kUnlock;
            case OpKind::kUnlock:
            case OpKind::kUnlockShared:
                return first == OpKind::kLock || first == OpKind::kLockShared;
            case OpKind::kCondSleep:
                return first == OpKind::kCondNotifyOne || first == OpKind::kCondNotifyAll;
            default:
                return false;
        }
    }

    // Leaves a way to be tried at the fork before `first` that brings `task`'s next operation
    // there.
    void turn_round(std::uint32_t first, int task) {
        const Step& earlier = steps_[first];
        // The steps after it that do not come after it by order, then the operation: who can begin?
        std::uint32_t initials = 0;
        std::uint32_t begun = 0;
        std::vector<std::uint32_t> later;
        const auto add = [&](int who, const Clock& clock) {
            if ((begun >> who & 1U) == 0) {
                begun |= 1U << who;
                const bool first_of_all =
                    std::none_of(later.begin(), later.end(),
                                 [&](std::uint32_t step) { return knows(clock, step); });
                initials |= first_of_all ? 1U << who : 0U;
            }
        };
        for (std::uint32_t i = first + 1; i < steps_.size(); ++i) {
            if (!knows(steps_[i].clock, first)) {
                add(steps_[i].task, steps_[i].clock);
                later.push_back(i);
            }
        }
        static_cast<void>(earlier);
        add(task, pending_clock(task));
        Fork& fork = path_[first];
        if ((initials & (fork.todo | fork.done)) == 0) {
            const std::uint32_t ways = initials & fork.able;
            if (ways == 0) {
                fork.todo |= fork.able;  // never needed in theory; costs only time
            } else {
                fork.todo |= (ways >> task & 1U) != 0 ? 1U << task : ways & (~ways + 1);
            }
        }
    }

    // What the task's next operation would know, without the race it is in.
    Clock pending_clock(int task) {
        return clock_of(task);
    }

    void races_of_the_unfinished() {
        for (int task = 0; task < scheduler_.nr_tasks(); ++task) {
            if (!scheduler_.finished(task) && task != scheduler_.failure().task) {
                find_races(task, scheduler_.pending(task));
            }
        }
    }

    bool next_path() {
        while (!path_.empty()) {
            Fork& fork = path_.back();
            fork.done |= 1U << fork.chosen;
            const std::uint32_t ways = fork.todo & ~fork.done & ~fork.asleep;
            if (ways != 0) {
                fork.chosen = std::countr_zero(ways);
                return true;
            }
            path_.pop_back();
        }
        return false;
    }

    Search& search_;
    Session& session_;
    Scheduler& scheduler_;
    std::vector<Fork> path_;
    std::vector<Step> steps_;
    std::vector<Turn> turns_;
    std::array<Clock, kMaxTasks> clocks_{};
    std::unordered_map<const void*, ObjectState> objects_;
};

}  // namespace

void search_traces(Search& search) {
    TraceSearch(search).run();
}

}  // namespace wbfat::explore
