// Passings of points, pairs of them, and the pairs that say most.
#include "tools/explore/edges.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

namespace wbfat::explore {

namespace {

// A named point that a task passed in a run.
struct Passing {
    int task = 0;
    PointRef point;
    std::size_t rank = 0;  // among those of its task
    int moment = 0;        // all passings of a run in their order; ties only within a task
};

constexpr int kMomentsOfAStep = 4;

// A task that could have run on was held at the point, until just before its next step; a task that
// went to sleep had passed the point before.
int moment_of(const RunRecord& run, int step) {
    for (const PauseRecord& pause : run.pauses) {
        if (pause.from == step && pause.why == PauseRecord::Why::kDelayed &&
            pause.task == run.steps[static_cast<std::size_t>(step)].task) {
            return pause.to * kMomentsOfAStep - 1;
        }
    }
    return step * kMomentsOfAStep + 1;
}

std::vector<Passing> passings(const RunRecord& run) {
    std::map<int, std::size_t> ranks;
    std::map<std::pair<int, std::string>, unsigned> hits;
    std::vector<Passing> found;
    for (int i = 0; i < static_cast<int>(run.steps.size()); ++i) {
        const StepRecord& step = run.steps[static_cast<std::size_t>(i)];
        for (const std::string& name : step.points) {
            Passing passing;
            passing.task = step.task;
            passing.point.point = name;
            passing.point.task = run.tasks[static_cast<std::size_t>(step.task)].name;
            passing.point.nth = ++hits[{step.task, name}];
            passing.rank = ranks[step.task]++;
            passing.moment = moment_of(run, i);
            found.push_back(std::move(passing));
        }
    }
    return found;
}

std::string role_of(const std::string& task, const RunRecord& run) {
    for (const TaskRecord& record : run.tasks) {
        if (record.name == task) {
            return record.role;
        }
    }
    return "";
}

std::string site_text(const PointRef& ref, const RunRecord& run) {
    const std::string role = role_of(ref.task, run);
    std::string text = ref.point;
    if (!role.empty()) {
        text += "@" + role;
    }
    if (ref.nth > 1) {
        text += fmt::format("[hit={}]", ref.nth);
    }
    return text;
}

}  // namespace

std::vector<OrderEdge> candidate_edges(const RunRecord& run) {
    const std::vector<Passing> all = passings(run);
    using Pair = std::pair<const Passing*, const Passing*>;
    std::vector<Pair> kept;
    for (const Passing& first : all) {
        for (const Passing& held : all) {
            if (first.task != held.task && first.moment < held.moment) {
                kept.emplace_back(&first, &held);
            }
        }
    }
    // "Later of X before earlier of Y" implies "earlier of X before later of Y".
    const auto implies = [](const Pair& a, const Pair& b) {
        return a != b && a.first->task == b.first->task && a.second->task == b.second->task &&
               a.first->rank >= b.first->rank && a.second->rank <= b.second->rank;
    };
    std::vector<OrderEdge> edges;
    for (const Pair& pair : kept) {
        if (std::none_of(kept.begin(), kept.end(),
                         [&](const Pair& other) { return implies(other, pair); })) {
            edges.push_back({.first = pair.first->point, .held = pair.second->point});
        }
    }
    return edges;
}

std::string rule_text(const OrderEdge& edge, const RunRecord& run, const std::string& give_up) {
    return fmt::format("{} after {} give up {}", site_text(edge.held, run),
                       site_text(edge.first, run), give_up);
}

std::string edge_text(const OrderEdge& edge) {
    const auto place = [](const PointRef& ref) {
        return ref.nth > 1 ? fmt::format("{} passes {} ({} times)", ref.task, ref.point, ref.nth)
                           : fmt::format("{} passes {}", ref.task, ref.point);
    };
    return fmt::format("{}, then {}", place(edge.first), place(edge.held));
}

}  // namespace wbfat::explore
