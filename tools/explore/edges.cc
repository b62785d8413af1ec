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
    // Moments of a run: when the task came to the point, and when it went on.
    int arrival = 0, leaving = 0;
};

constexpr int kMomentsOfAStep = 4;

// A task that could have run on was held at the point, until just before its next step; a task that
// went to sleep had passed the point before.
int leaving_of(const RunRecord& run, int step) {
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
            passing.arrival = i * kMomentsOfAStep + 1;
            passing.leaving = leaving_of(run, i);
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
    std::string role = role_of(ref.task, run);
    role = role.substr(0, role.find(' '));  // "sync writer" is "sync" there
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
            if (first.task != held.task && first.arrival < held.leaving) {
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

std::vector<OrderEdge> edges_of_the_idle(const RunRecord& run, const RunRecord& other) {
    const std::vector<Passing> here = passings(run);
    const std::vector<Passing> there = passings(other);
    const auto never_came = [&](const Passing& it) {
        return it.task == run.failure.task &&
               std::none_of(here.begin(), here.end(), [&](const Passing& passing) {
                   return passing.task == it.task && passing.point.point == it.point.point;
               });
    };
    const auto beyond = std::find_if(there.begin(), there.end(), never_came);
    std::vector<OrderEdge> edges;
    if (beyond == there.end()) {
        return edges;
    }
    for (const Passing& passing : there) {
        const bool is_idle =
            std::none_of(run.steps.begin(), run.steps.end(),
                         [&](const StepRecord& step) { return step.task == passing.task; });
        if (is_idle && passing.rank == 0) {
            edges.push_back({.first = beyond->point, .held = passing.point});
        }
    }
    return edges;
}

std::string rule_text(const OrderEdge& edge, const RunRecord& run, const std::string& give_up) {
    return fmt::format("{} after {} give up {}", site_text(edge.held, run),
                       site_text(edge.first, run), give_up);
}

std::string edge_text(const OrderEdge& edge) {
    const auto times = [](const PointRef& ref) {
        return ref.nth > 1 ? fmt::format(" for the {}th time", ref.nth) : std::string();
    };
    return fmt::format("{} comes to {}{}, then {} passes {}{}", edge.first.task, edge.first.point,
                       times(edge.first), edge.held.task, edge.held.point, times(edge.held));
}

}  // namespace wbfat::explore
