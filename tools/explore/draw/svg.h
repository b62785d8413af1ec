// A Picture as SVG: one file, no scripts, no fonts, nothing fetched.
#pragma once

#include <string>

#include "tools/explore/draw/picture.h"

namespace wbfat::explore {

// & < > " as entities; control characters, which XML forbids, as spaces.
std::string xml_escaped(std::string_view text);

std::string svg_of(const Picture& picture);

}  // namespace wbfat::explore
