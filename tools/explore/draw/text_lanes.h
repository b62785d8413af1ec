// A Story as a table of text, one column for each thread, in the manner of the mail of January
// 2021.
#pragma once

#include <string>

#include "tools/explore/draw/story.h"

namespace wbfat::explore {

std::string text_lanes_of(const Story& story);

}  // namespace wbfat::explore
