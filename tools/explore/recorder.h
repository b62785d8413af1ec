// Runs a schedule once more, slowly, and writes down what a person wants to know of it.
#pragma once

#include <vector>

#include "tools/explore/run_record.h"
#include "tools/explore/search.h"

namespace wbfat::explore {

// The rest of a schedule that stops early is run without preemption, and a turn that its task
// cannot take is left out: so a schedule of one protocol can be followed under another as far as
// that goes.
RunRecord record_schedule(Session& session, const std::vector<Turn>& turns);
RunRecord record_counterexample(Session& session, const Counterexample& found);

}  // namespace wbfat::explore
