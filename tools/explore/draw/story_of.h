// A Story of a run record: which steps are worth a box, what stands in it, what the strips show.
#pragma once

#include "tools/explore/draw/story.h"
#include "tools/explore/run_record.h"

namespace wbfat::explore {

enum class Folding {
    kFold,     // steps of one thread in a row that change nothing that is drawn share a box
    kOneEach,  // every step has its own box
};

// `subtitle` is what the caller knows of the search: one line each.
Story story_of(const RunRecord& run, std::vector<std::string> subtitle,
               Folding folding = Folding::kFold);

// "A1 B3 C5" from the steps themselves.
std::string schedule_of(const RunRecord& run);

}  // namespace wbfat::explore
