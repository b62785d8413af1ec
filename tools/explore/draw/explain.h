// Why a run failed, in a few numbered sentences.
//
// The failing step looked at a flag. What it saw was written by a step; if its task had slept
// before, another step woke it; and the waker had ended something of its own before. These steps,
// in their order, are the story of every failure of this protocol that has one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/explore/run_record.h"

namespace wbfat::explore {

struct Chapter {
    int step = 0;
    std::string sentence;
};

struct Explanation {
    std::string title;
    std::vector<Chapter> chapters;  // ascending by step
    std::uint64_t accused = 0;      // bit of the flag word that the failing step looked at; 0: none
    int page = -1;                  // whose
    int seen_write = -1;            // the step that gave the flag the value that was seen
};

Explanation explain(const RunRecord& run);

// "PG_writeback" for the bit.
std::string flag_name(std::uint64_t bit);

// A page's state before the first step is `step` 0.
const PageState& page_state_before(const RunRecord& run, int step, int page);
const PageState& page_state_after(const RunRecord& run, int step, int page);

}  // namespace wbfat::explore
