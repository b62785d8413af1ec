// Which steps of a run could not have happened without which others.
#pragma once

#include <cstdint>
#include <vector>

#include "tools/explore/run_record.h"

namespace wbfat::explore {

// For each step, how many steps of each task happened before it or are it: step i happened before
// step j, another task's, if and only if clock[j][task of i] reaches the number that i has among
// the steps of its task.
//
// Two steps are ordered by their task, by the object that both touch unless both only read it, and
// by a wake-up.
std::vector<std::vector<std::uint32_t>> happens_before(const RunRecord& run);

}  // namespace wbfat::explore
