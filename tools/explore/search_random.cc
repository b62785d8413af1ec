// Runs by chance, for scenarios that no search finishes.
//
//   random   every task that can run is as likely
//   pos      every operation about to be done has a priority by chance; the highest goes first, and
//   the
//            operations that matter to it get new ones (partial order sampling)
//   pct      every task has a priority by chance, and at d - 1 steps by chance the running one
//   becomes
//            the lowest; finds a bug of depth d with probability 1 / (n k^(d-1)) or more
//
// The run with number i of seed s is the same on every machine.
//
// Source: Yuan, Yang, Gu, "Partial order aware concurrency sampling", CAV 2018; Burckhardt and
// others, "A randomized scheduler with probabilistic guarantees of finding bugs", ASPLOS 2010.
#include <fmt/format.h>

#include <array>
#include <bit>
#include <cmath>
#include <random>

#include "tools/explore/search.h"

namespace wbfat::explore {

namespace {

using sync::sched::kMaxTasks;
using sync::sched::OpKind;
using sync::sched::Pending;
using sync::sched::Scheduler;

using Random = std::mt19937_64;

class Chooser {
public:
    virtual ~Chooser() = default;
    Chooser() = default;
    Chooser(const Chooser&) = delete;
    Chooser& operator=(const Chooser&) = delete;
    virtual void begin(Random& random) = 0;
    virtual int choose(std::uint32_t able, Random& random) = 0;
    virtual void end(std::uint64_t) {}
};

class Walk final : public Chooser {
public:
    void begin(Random&) override {}
    int choose(std::uint32_t able, Random& random) override {
        for (auto skip = random() % static_cast<unsigned>(std::popcount(able)); skip > 0; --skip) {
            able &= able - 1;
        }
        return std::countr_zero(able);
    }
};

class PartialOrder final : public Chooser {
public:
    explicit PartialOrder(const Scheduler& scheduler) : scheduler_(scheduler) {}
    void begin(Random& random) override {
        for (std::uint64_t& priority : priority_) {
            priority = random();
        }
    }
    int choose(std::uint32_t able, Random& random) override {
        int best = std::countr_zero(able);
        for (std::uint32_t left = able; left != 0; left &= left - 1) {
            const int task = std::countr_zero(left);
            best = priority_of(task) > priority_of(best) ? task : best;
        }
        const Pending& op = scheduler_.pending(best);
        for (int task = 0; task < scheduler_.nr_tasks(); ++task) {
            const Pending& other = scheduler_.pending(task);
            const bool races = other.object == op.object && op.object != nullptr &&
                               !(op.kind == OpKind::kLoad && other.kind == OpKind::kLoad);
            if (task == best || races) {
                priority_of(task) = random();
            }
        }
        return best;
    }

private:
    std::uint64_t& priority_of(int task) {
        return priority_[static_cast<std::size_t>(task)];
    }
    const Scheduler& scheduler_;
    std::array<std::uint64_t, kMaxTasks> priority_{};
};

class Priorities final : public Chooser {
public:
    static constexpr unsigned kMinDepth = 2;
    static constexpr unsigned kMaxDepth = 5;

    void begin(Random& random) override {
        depth_ = depth_ == kMaxDepth ? kMinDepth : depth_ + 1;
        for (std::uint64_t& priority : priority_) {
            priority = kMaxDepth + random() % (UINT64_MAX - kMaxDepth);
        }
        for (std::uint64_t& change : changes_) {
            change = random() % longest_;
        }
        step_ = 0;
    }
    int choose(std::uint32_t able, Random&) override {
        int best = highest(able);
        for (unsigned i = 0; i + 1 < depth_; ++i) {
            if (changes_[i] == step_) {
                priority_[static_cast<std::size_t>(best)] = i;
                best = highest(able);
            }
        }
        ++step_;
        return best;
    }
    void end(std::uint64_t steps) override {
        longest_ = std::max(longest_, steps);
    }
    std::string guarantee(int nr_tasks) const {
        std::string text;
        for (unsigned depth = kMinDepth; depth <= kMaxDepth; ++depth) {
            const double chance =
                1.0 / (nr_tasks * std::pow(static_cast<double>(longest_), depth - 1));
            text += fmt::format("{}d={}: {:.1e}", text.empty() ? "" : ", ", depth, chance);
        }
        return fmt::format("n={} k={}; a run finds a bug of depth d with at least {}", nr_tasks,
                           longest_, text);
    }

private:
    int highest(std::uint32_t able) const {
        int best = std::countr_zero(able);
        for (; able != 0; able &= able - 1) {
            const int task = std::countr_zero(able);
            best = priority_[static_cast<std::size_t>(task)] >
                           priority_[static_cast<std::size_t>(best)]
                       ? task
                       : best;
        }
        return best;
    }
    unsigned depth_ = kMaxDepth;
    std::uint64_t longest_ = 1;
    std::uint64_t step_ = 0;
    std::array<std::uint64_t, kMaxTasks> priority_{};
    std::array<std::uint64_t, kMaxDepth> changes_{};
};

void run_by(Search& search, Chooser& chooser) {
    Session& session = search.session;
    Scheduler& scheduler = session.scheduler();
    scheduler.set_merging(Scheduler::Merging::kOn);
    scheduler.set_hashing(Scheduler::Hashing::kOff);
    std::vector<Turn> turns;
    while (search.may_go_on()) {
        Random random(session.options().seed + search.result.executions);
        session.begin();
        turns.clear();
        chooser.begin(random);
        unsigned preemptions = 0;
        while (scheduler.nr_operations() <= Session::kMaxOperations) {
            const std::uint32_t able = scheduler.enabled();
            if (able == 0) {
                break;
            }
            const int task = chooser.choose(able, random);
            preemptions +=
                is_preemption(able, turns.empty() ? -1 : turns.back().task, task) ? 1U : 0U;
            const std::uint64_t before = scheduler.nr_operations();
            scheduler.step(task);
            turns.push_back({static_cast<std::uint8_t>(task),
                             static_cast<std::uint16_t>(scheduler.nr_operations() - before)});
        }
        search.result.steps += turns.size();
        chooser.end(turns.size());
        const bool had_one = search.found.has_value();
        search.ended(turns, true);
        if (!had_one && search.found.has_value()) {
            search.found->preemptions = preemptions;
        }
    }
}

}  // namespace

void search_randomly(Search& search, Method method) {
    if (method == Method::kPct) {
        Priorities chooser;
        run_by(search, chooser);
        search.result.guarantee = chooser.guarantee(search.session.scheduler().nr_tasks());
    } else if (method == Method::kRandom) {
        Walk chooser;
        run_by(search, chooser);
    } else {
        PartialOrder chooser(search.session.scheduler());
        run_by(search, chooser);
    }
}

}  // namespace wbfat::explore
