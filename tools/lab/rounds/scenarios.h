// The scenarios of wbfat-lab-rounds: what happens in one round, and the orderings that force it.
//
// Each is a handful of calls of the real page cache by threads with roles. Its points "lab:.." mark
// the beginnings and ends of its parts, so that a recipe can order them.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "tools/lab/rounds/scene.h"

namespace wbfat::tools {

// One scenario, ready to play.
class Scenario {
public:
    Scenario() = default;
    Scenario(const Scenario&) = delete;
    Scenario& operator=(const Scenario&) = delete;
    virtual ~Scenario() = default;

    // One round, from a clean cache to a clean cache.
    virtual void play() = 0;
};

struct ScenarioInfo {
    const char* name;
    const char* question;
    const char* recipe;  // rules, one a line: what forces the interleaving
    std::unique_ptr<Scenario> (*make)(Scene& scene);
};
std::span<const ScenarioInfo> all_scenarios();
const ScenarioInfo* find_scenario(std::string_view name);

}  // namespace wbfat::tools
