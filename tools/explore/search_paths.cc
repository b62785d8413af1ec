// Depth first over schedules: all of them, those with few preemptions, or until every state was
// seen.
//
// Where a way is left, the state is kept, so that the next run goes on from there; now and then a
// run is repeated from its start, to see that it does again what it did.
//
// A run goes down the path that is to be repeated and then takes the first way at every fork; then
// the deepest fork with a way not taken is the end of the next path. With a bound, going on with
// the running task is the first way and every other one costs a preemption. With states, a run ends
// where it meets a state that was met before: all its futures are known.
#include <bit>

#include "tools/explore/search.h"
#include "tools/explore/state_set.h"

namespace wbfat::explore {

namespace {

using sync::sched::Pending;
using sync::sched::Scheduler;

struct Fork {
    std::uint32_t able = 0;
    std::uint32_t left = 0;  // ways not taken yet
    std::int8_t chosen = -1;
    std::int8_t before = -1;       // the task that ran before
    std::uint8_t preemptions = 0;  // before this turn
    bool is_kept = false;          // kept_ has the state
    sync::sched::OpKind kind{};
    const void* object = nullptr;
};

class PathSearch {
public:
    PathSearch(Search& search, std::optional<unsigned> bound, Reduction reduction, StateSet* states)
        : search_(search),
          session_(search.session),
          scheduler_(search.session.scheduler()),
          bound_(bound),
          states_(states),
          merged_(reduction == Reduction::kMerging) {
        scheduler_.set_merging(merged_ ? Scheduler::Merging::kOn : Scheduler::Merging::kOff);
        scheduler_.set_hashing(states != nullptr ? Scheduler::Hashing::kOn
                                                 : Scheduler::Hashing::kOff);
    }

    void run() {
        do {
            if (!search_.may_go_on() || !run_once()) {
                return;
            }
            estimate();
        } while (next_path());
        search_.result.complete = true;
    }

private:
    // Begins a run, as far along the path as it can. Returns the depth.
    std::size_t start() {
        const std::size_t last = path_.empty() ? 0 : path_.size() - 1;
        if (last < kept_.size() && path_[last].is_kept && !search_.repeats_from_start() &&
            scheduler_.load(kept_[last])) {
            turns_.resize(last);
            return last;
        }
        session_.begin();
        turns_.clear();
        return 0;
    }

    // False: the search is over.
    bool run_once() {
        for (std::size_t depth = start();; ++depth) {
            const bool repeats = depth < path_.size();
            if (repeats && !same_as_before(path_[depth])) {
                search_.nondeterministic(turns_, depth);
                return false;
            }
            if (!repeats) {
                const std::uint32_t able = scheduler_.enabled();
                if (able == 0 || scheduler_.nr_operations() > Session::kMaxOperations) {
                    finish();
                    return true;
                }
                if (states_ != nullptr && !new_state()) {
                    ++search_.result.executions;
                    return search_.knows_the_world();
                }
                add_fork(able);
            }
            take(path_[depth]);
        }
    }

    bool same_as_before(const Fork& fork) {
        // Not only a check: the clock passes in it.
        const std::uint32_t able = scheduler_.enabled();
        const Pending& op = scheduler_.pending(fork.chosen);
        return able == fork.able &&
               (fork.object == nullptr || (op.kind == fork.kind && op.object == fork.object));
    }

    bool new_state() {
        const bool is_new = states_->insert(scheduler_.state_hash());
        search_.result.states = states_->size();
        search_.note_memory(states_->memory_bytes());
        return is_new;
    }

    void add_fork(std::uint32_t able) {
        Fork fork;
        fork.able = able;
        if (!path_.empty()) {
            const Fork& last = path_.back();
            fork.before = last.chosen;
            fork.preemptions = static_cast<std::uint8_t>(
                last.preemptions + (is_preemption(last.able, last.before, last.chosen) ? 1 : 0));
        }
        fork.left = able;
        const bool goes_on = fork.before >= 0 && (able >> fork.before & 1U) != 0;
        if (bound_.has_value() && goes_on && fork.preemptions >= *bound_) {
            fork.left = 1U << fork.before;
        }
        choose(fork, goes_on ? fork.before : std::countr_zero(able));
        if (fork.left != 0) {
            const std::size_t depth = path_.size();
            if (kept_.size() <= depth) {
                kept_.resize(depth + 1);
            }
            fork.is_kept = scheduler_.save(kept_[depth]);
        }
        path_.push_back(fork);
    }

    void choose(Fork& fork, int task) {
        fork.chosen = static_cast<std::int8_t>(task);
        fork.left &= ~(1U << task);
        fork.object = nullptr;
    }

    void take(Fork& fork) {
        const Pending& op = scheduler_.pending(fork.chosen);
        fork.kind = op.kind;
        fork.object = op.object;
        const std::uint64_t before = scheduler_.nr_operations();
        scheduler_.step(fork.chosen);
        ++search_.result.steps;
        turns_.push_back({static_cast<std::uint8_t>(fork.chosen),
                          static_cast<std::uint16_t>(scheduler_.nr_operations() - before)});
    }

    void finish() {
        const bool had_one = search_.found.has_value();
        search_.ended(turns_, merged_);
        if (!had_one && search_.found.has_value() && !path_.empty()) {
            const Fork& last = path_.back();
            search_.found->preemptions =
                last.preemptions + (is_preemption(last.able, last.before, last.chosen) ? 1U : 0U);
        }
    }

    bool next_path() {
        while (!path_.empty()) {
            Fork& fork = path_.back();
            if (fork.left != 0) {
                choose(fork, std::countr_zero(fork.left));
                return true;
            }
            path_.pop_back();
        }
        return false;
    }

    // The share of the tree to the left of the path.
    void estimate() {
        if (search_.result.executions % 1024 != 0) {
            return;
        }
        double share = 1;
        double done = 0;
        for (const Fork& fork : path_) {
            const int ways = std::popcount(fork.able);
            const int left = std::popcount(fork.left);
            done += share * (ways - left - 1) / ways;
            share /= ways;
        }
        search_.estimate = done;
    }

    Search& search_;
    Session& session_;
    Scheduler& scheduler_;
    const std::optional<unsigned> bound_;
    StateSet* const states_;
    const bool merged_;
    std::vector<Fork> path_;
    std::vector<Scheduler::Checkpoint> kept_;  // by depth
    std::vector<Turn> turns_;
};

}  // namespace

void search_paths(Search& search, std::optional<unsigned> bound, Reduction reduction) {
    PathSearch(search, bound, reduction, nullptr).run();
}

void search_states(Search& search) {
    StateSet states;
    PathSearch(search, std::nullopt, Reduction::kMerging, &states).run();
}

}  // namespace wbfat::explore
