// A page that shows a picture and lets its reader go through it step by step.
//
// One file: the SVG, the text of each step, and a script. Right and left go one box on and back,
// Home and End to the ends; what has not happened yet is faint. Under the mouse a box shows what
// happened before it in blue, what could only happen after it in orange, the rest in grey.
#pragma once

#include <span>
#include <string>

#include "tools/explore/draw/story.h"

namespace wbfat::explore {

std::string html_of(std::span<const Story> stories);

// The beginning of a page: everything up to the body's content.
std::string html_head(const std::string& title, std::string_view style);

}  // namespace wbfat::explore
