// A Story in the trace event format, for Perfetto and chrome://tracing: lanes, arrows, flag levels.
//
// Time is the number of the box: one box lasts a microsecond.
#pragma once

#include <string>

#include "tools/explore/draw/story.h"

namespace wbfat::explore {

std::string perfetto_of(const Story& story);

}  // namespace wbfat::explore
