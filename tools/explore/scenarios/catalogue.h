// All scenarios, one function a file.
#pragma once

#include <memory>

#include "tools/explore/scenario.h"

namespace wbfat::explore {

ScenarioEntry mail_scenario();
ScenarioEntry two_waiters_scenario();
ScenarioEntry lock_fairness_scenario();
ScenarioEntry killable_scenario();
ScenarioEntry redirty_scenario();
ScenarioEntry fsync_fsync_scenario();
ScenarioEntry page_reuse_scenario();
ScenarioEntry truncate_scenario();
ScenarioEntry reclaim_scenario();
ScenarioEntry errseq_scenario();
ScenarioEntry live_switch_scenario();
ScenarioEntry cont_expand_scenario();

// For ScenarioEntry::make.
template <typename T>
std::unique_ptr<Scenario> make(const Parameters& parameters) {
    return std::make_unique<T>(parameters);
}

}  // namespace wbfat::explore
