// The list of scenarios, in the order of the matrix.
#include "tools/explore/scenarios/catalogue.h"

namespace wbfat::explore {

const std::vector<ScenarioEntry>& scenario_entries() {
    static const std::vector<ScenarioEntry> kEntries = {
        mail_scenario(),        two_waiters_scenario(),   redirty_scenario(),
        fsync_fsync_scenario(), lock_fairness_scenario(), killable_scenario(),
        page_reuse_scenario(),  truncate_scenario(),      reclaim_scenario(),
        errseq_scenario(),      live_switch_scenario(),   cont_expand_scenario(),
    };
    return kEntries;
}

const std::vector<ScenarioInfo>& scenarios() {
    static const std::vector<ScenarioInfo> kInfos = [] {
        std::vector<ScenarioInfo> all;
        for (const ScenarioEntry& entry : scenario_entries()) {
            all.push_back(entry.info);
        }
        return all;
    }();
    return kInfos;
}

}  // namespace wbfat::explore
