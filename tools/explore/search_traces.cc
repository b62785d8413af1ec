// Source-DPOR with sleep sets: one run for every trace, that is, for every way in which operations
// that matter to each other can be ordered.
//
// It merges no states, and keeps some only to go on from; it knows operations and when two of them
// commute (footprint.h): so it is an independent witness against search_states. Each run is
// searched for races: two operations of different tasks that do not commute, not ordered by
// anything between them, that might have come the other way round. For each, a way to turn it round
// is left to be tried at the fork before the first.
//
// The end of an object's life is a part of the step in which it comes, and so is the start of
// another in its place; all that touches the object matters to it, or a use after it would not be
// found.
//
// A run that is broken off, where an assertion fails, leaves the others' operations unknown: all
// that could have gone on there are tried.
//
// What orders and what races (exploration.md 6): an unlock comes before the lock it lets in, and
// that cannot be turned round; a lock races with the lock before it. The same for waking and
// sleeping.
//
// Clocks: C[p][q] is the number, from 1, of the last operation of task q that task p knows of.
//
// A run goes on from the last state that was kept on its path, and from the start now and then, to
// see that it does again what it did.
//
// Time passes when nobody can run: then whatever comes later comes after everything before, and
// neither could be the other way round.
//
// Not with ordering rules.
//
// Source: Abdulla, Aronis, Jonsson, Sagonas, "Optimal dynamic partial order reduction", POPL 2014,
// algorithm 1.
#include <algorithm>
#include <array>
#include <bit>
#include <iterator>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tools/explore/footprint.h"
#include "tools/explore/search.h"

namespace wbfat::explore {

namespace {

using sync::sched::Failure;
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

// One step of the run that is under way.
struct Step {
    int task = 0;
    Footprint print;
    std::vector<const void*> deaths{};
    Clock before{};  // the task's
    Clock clock{};   // with the step itself
};

// A step as one of its objects has seen it.
struct Touch {
    std::uint32_t step = 0;
    bool is_death = false;
};

struct Earlier {
    std::uint32_t step = 0;
    bool lets_in = false;
};

struct Death {
    int task = 0;
    const void* object = nullptr;
};

// Where time has passed: before the step, and what the tasks knew until then.
struct Quiet {
    std::size_t step = 0;
    std::array<Clock, kMaxTasks> clocks{};
};

struct Fork {
    std::uint32_t able = 0;
    std::uint32_t todo = 0;  // the source set: must be tried
    std::uint32_t done = 0;
    std::uint32_t asleep = 0;
    int chosen = -1;
    bool is_kept = false;       // kept_ has the state
    std::vector<Death> deaths;  // in the steps of those that are done or asleep
};

class TraceSearch {
public:
    explicit TraceSearch(Search& search)
        : search_(search), session_(search.session), scheduler_(search.session.scheduler()) {
        scheduler_.set_merging(Scheduler::Merging::kOff);
        scheduler_.set_hashing(Scheduler::Hashing::kOn);  // of final states
    }

    void run() {
        do {
            if (!search_.may_go_on()) {
                return;
            }
            run_once();
        } while (search_.knows_the_world() && next_path());
        search_.result.complete = search_.result.stopped_by.empty();
    }

private:
    // Goes back to the fork that ends the path.
    void go_back() {
        const std::size_t last = path_.empty() ? 0 : path_.size() - 1;
        while (steps_.size() > last) {
            if (!quiets_.empty() && quiets_.back().step == steps_.size()) {
                end_quiet();
            }
            const Step& step = steps_.back();
            clock_of(step.task) = step.before;
            for (const void* object : step.deaths) {
                touches_[object].pop_back();
            }
            if (step.print.object != nullptr) {
                touches_[step.print.object].pop_back();
            }
            steps_.pop_back();
        }
        std::size_t depth = last / kKeepEvery * kKeepEvery;
        if (search_.repeats_from_start() || !load(depth)) {
            session_.begin();
            depth = 0;
        }
        turns_.resize(depth);
        for (; depth < last && search_.result.stopped_by.empty(); ++depth) {
            repeat(depth);
        }
    }

    bool load(std::size_t depth) {
        return depth < path_.size() && path_[depth].is_kept &&
               scheduler_.load(kept_[depth / kKeepEvery]);
    }

    void repeat(std::size_t depth) {
        const Fork& fork = path_[depth];
        if (scheduler_.enabled() != fork.able ||
            scheduler_.pending(fork.chosen).object != steps_[depth].print.object) {
            search_.nondeterministic(turns_, depth);
            return;
        }
        do_turn(fork.chosen);
    }

    void run_once() {
        go_back();
        while (search_.result.stopped_by.empty()) {
            const std::uint64_t before = scheduler_.nr_timeouts();
            const std::uint32_t able = scheduler_.enabled();
            if (scheduler_.nr_timeouts() != before) {
                begin_quiet();
            }
            if (able == 0 || scheduler_.nr_operations() > Session::kMaxOperations) {
                races_of_the_unfinished();
                const bool is_broken_off =
                    scheduler_.failure().kind != Failure::Kind::kNone || able != 0;
                if (is_broken_off && !path_.empty()) {
                    path_.back().todo |= path_.back().able;
                }
                search_.ended(turns_, false);
                ++search_.result.states;
                return;
            }
            const std::size_t depth = steps_.size();
            if (depth == path_.size()) {
                if (!add_fork(able)) {
                    races_of_the_unfinished();
                    return;  // every way on was taken elsewhere
                }
            } else if (path_[depth].able != able) {
                search_.nondeterministic(turns_, depth);
                return;
            }
            take(path_[depth].chosen);
        }
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
            for (; asleep != 0; asleep &= asleep - 1) {
                const int task = std::countr_zero(asleep);
                if (!matters_to(last, task)) {
                    fork.asleep |= 1U << task;
                }
            }
            std::copy_if(last.deaths.begin(), last.deaths.end(), std::back_inserter(fork.deaths),
                         [&](const Death& it) { return (fork.asleep >> it.task & 1U) != 0; });
        }
        const std::uint32_t ways = able & ~fork.asleep;
        if (ways == 0) {
            return false;
        }
        const int before = path_.empty() ? -1 : path_.back().chosen;
        fork.chosen = before >= 0 && (ways >> before & 1U) != 0 ? before : std::countr_zero(ways);
        fork.todo = 1U << fork.chosen;
        if (const std::size_t depth = path_.size(); depth % kKeepEvery == 0) {
            kept_.resize(std::max(kept_.size(), depth / kKeepEvery + 1));
            fork.is_kept = scheduler_.save(kept_[depth / kKeepEvery]);
        }
        path_.push_back(std::move(fork));
        return true;
    }

    void begin_quiet() {
        if (!quiets_.empty() && quiets_.back().step == steps_.size()) {
            return;
        }
        races_of_the_unfinished();
        quiets_.push_back({steps_.size(), clocks_});
        Clock all{};
        for (const Clock& it : clocks_) {
            join(all, it);
        }
        clocks_.fill(all);
    }
    void end_quiet() {
        clocks_ = quiets_.back().clocks;
        quiets_.pop_back();
    }

    // Whether the last step would have been another one, or the task's next, had they come the
    // other way round.
    bool matters_to(const Fork& last, int task) const {
        const Step& step = steps_.back();
        const Pending& next = scheduler_.pending(task);
        return !commute(footprint(next), step.print) ||
               std::find(step.deaths.begin(), step.deaths.end(), next.object) !=
                   step.deaths.end() ||
               std::any_of(last.deaths.begin(), last.deaths.end(), [&](const Death& it) {
                   return it.task == task && it.object == step.print.object;
               });
    }

    void take(int task) {
        const Pending op = scheduler_.pending(task);
        Step step{.task = task, .print = footprint(op), .before = clock_of(task)};
        do_turn(task);
        step.deaths = scheduler_.deaths();
        step.clock = clock_after_races(step, op);
        const auto number = static_cast<std::uint32_t>(steps_.size());
        step.clock[static_cast<std::size_t>(task)] = number + 1;
        clock_of(task) = step.clock;
        if (op.object != nullptr) {
            touches_[op.object].push_back({number, false});
        }
        for (const void* object : step.deaths) {
            touches_[object].push_back({number, true});
        }
        steps_.push_back(std::move(step));
    }

    void do_turn(int task) {
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

    // The steps before that the new one must not be swapped with, the last first.
    void find_earlier(const Step& step) {
        earlier_.clear();
        if (const std::vector<Touch>* const all = touches_of(step.print.object)) {
            for (std::size_t i = all->size(); i-- > 0;) {
                const auto [number, is_death] = (*all)[i];
                const Step& other = steps_[number];
                if (!is_death && commute(other.print, step.print)) {
                    continue;
                }
                const bool lets_in = !is_death && other.task != step.task &&
                                     (enables(other.print.kind, step.print.kind) ||
                                      brought_the_token(*all, i, step.print.kind));
                earlier_.push_back({number, lets_in});
                if (!lets_in && (is_death || orders_all(other.print))) {
                    break;  // all that comes before comes before this one, too
                }
            }
        }
        for (const void* object : step.deaths) {
            if (const std::vector<Touch>* const all = touches_of(object)) {
                for (const Touch& it : *all) {
                    earlier_.push_back({it.step, false});
                }
            }
        }
        if (!step.deaths.empty()) {
            std::sort(earlier_.begin(), earlier_.end(), [](const Earlier& a, const Earlier& b) {
                return a.step > b.step || (a.step == b.step && !a.lets_in && b.lets_in);
            });
        }
    }

    const std::vector<Touch>* touches_of(const void* object) const {
        const auto found = object != nullptr ? touches_.find(object) : touches_.end();
        return found != touches_.end() ? &found->second : nullptr;
    }

    // Turns round the steps that this one might have come before. Returns what the task knows when
    // it is done.
    Clock clock_after_races(const Step& step, const Pending& op) {
        Clock between = step.before;  // of what is ordered before, but for what let this one run
        if (op.kind == OpKind::kJoin) {
            join(between, clock_of(static_cast<int>(op.argument)));
        }
        Clock clock = between;
        find_earlier(step);
        for (const Earlier& it : earlier_) {
            if (it.lets_in) {
                // No race, and does not hide the operation it undid.
                join(clock, steps_[it.step].clock);
            } else if (!knows(between, it.step)) {
                turn_round(it.step, step.task);
                join(between, steps_[it.step].clock);
            }
        }
        join(clock, between);
        return clock;
    }

    // Whether a park would sleep without this unpark, the last on its parker.
    bool brought_the_token(const std::vector<Touch>& all, std::size_t at, OpKind kind) const {
        const Footprint& print = steps_[all[at].step].print;
        return kind == OpKind::kPark && at + 1 == all.size() && print.kind == OpKind::kUnpark &&
               print.changed != 0;
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
        Fork& fork = path_[first];
        // The steps after it that do not come after it by order, then the operation: who can begin?
        std::uint32_t initials = 0;
        std::uint32_t begun = 0;
        later_.clear();
        const auto add = [&](int who, const Clock& clock) {
            if ((begun >> who & 1U) == 0) {
                begun |= 1U << who;
                const bool first_of_all =
                    std::none_of(later_.begin(), later_.end(),
                                 [&](std::uint32_t step) { return knows(clock, step); });
                initials |= first_of_all ? 1U << who : 0U;
            }
        };
        for (std::uint32_t i = first + 1; i < steps_.size(); ++i) {
            if (!knows(steps_[i].clock, first)) {
                add(steps_[i].task, steps_[i].clock);
                later_.push_back(i);
            }
        }
        add(task, clock_of(task));  // without the race it is in
        if ((initials & (fork.todo | fork.done)) == 0) {
            const std::uint32_t ways = initials & fork.able;
            if (ways == 0) {
                // Who waits for what comes before `first` by no order: no way is needed, and all of
                // them cost only time.
                fork.todo |= fork.able;
            } else {
                fork.todo |= (ways >> task & 1U) != 0 ? 1U << task : ways & (~ways + 1);
            }
        }
    }

    void races_of_the_unfinished() {
        for (int task = 0; task < scheduler_.nr_tasks(); ++task) {
            if (!scheduler_.finished(task) && task != scheduler_.failure().task) {
                const Pending& op = scheduler_.pending(task);
                static_cast<void>(clock_after_races(
                    {.task = task, .print = footprint(op), .before = clock_of(task)}, op));
            }
        }
    }

    bool next_path() {
        while (!path_.empty()) {
            Fork& fork = path_.back();
            fork.done |= 1U << fork.chosen;
            if (const std::size_t depth = path_.size() - 1; depth < steps_.size()) {
                for (const void* object : steps_[depth].deaths) {
                    fork.deaths.push_back({fork.chosen, object});
                }
            }
            const std::uint32_t ways = fork.todo & ~fork.done & ~fork.asleep;
            if (ways != 0) {
                fork.chosen = std::countr_zero(ways);
                return true;
            }
            path_.pop_back();
        }
        return false;
    }

    // Steps between two states that are kept: to keep one costs as much as several steps.
    static constexpr std::size_t kKeepEvery = 16;

    Search& search_;
    Session& session_;
    Scheduler& scheduler_;
    std::vector<Fork> path_;
    std::vector<Scheduler::Checkpoint> kept_;  // every kKeepEvery forks
    std::vector<Step> steps_;
    std::vector<Quiet> quiets_;
    std::vector<Turn> turns_;
    std::array<Clock, kMaxTasks> clocks_{};
    std::unordered_map<const void*, std::vector<Touch>> touches_;  // by object
    std::vector<Earlier> earlier_;
    std::vector<std::uint32_t> later_;
};

}  // namespace

void search_traces(Search& search) {
    TraceSearch(search).run();
}

}  // namespace wbfat::explore
