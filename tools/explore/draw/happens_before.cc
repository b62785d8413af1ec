// Vector clocks over the steps, in one pass.
#include "tools/explore/draw/happens_before.h"

#include <algorithm>
#include <map>
#include <string>

namespace wbfat::explore {

namespace {

using Clock = std::vector<std::uint32_t>;

void join(Clock& into, const Clock& from) {
    for (std::size_t i = 0; i < from.size(); ++i) {
        into[i] = std::max(into[i], from[i]);
    }
}

bool only_reads(OpKind kind) {
    return kind == OpKind::kLoad || kind == OpKind::kLockShared || kind == OpKind::kUnlockShared;
}

}  // namespace

std::vector<std::vector<std::uint32_t>> happens_before(const RunRecord& run) {
    const std::size_t nr_tasks = run.tasks.size();
    struct Object {
        Clock writers;
        Clock readers;
    };
    std::map<std::string, Object> objects;
    std::vector<Clock> tasks(nr_tasks, Clock(nr_tasks));
    std::vector<Clock> clocks;
    for (const StepRecord& step : run.steps) {
        Clock& clock = tasks.at(static_cast<std::size_t>(step.task));
        ++clock[static_cast<std::size_t>(step.task)];
        if (!step.object.empty()) {
            Object& object =
                objects.try_emplace(step.object, Object{Clock(nr_tasks), Clock(nr_tasks)})
                    .first->second;
            join(clock, object.writers);
            if (only_reads(step.kind)) {
                join(object.readers, clock);
            } else {
                join(clock, object.readers);
                join(object.writers, clock);
            }
        }
        for (const int woken : step.woken) {
            join(tasks.at(static_cast<std::size_t>(woken)), clock);
        }
        clocks.push_back(clock);
    }
    return clocks;
}

}  // namespace wbfat::explore
