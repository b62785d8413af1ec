// How wide a line of text is when drawn, so that a picture can be laid out without a display.
//
// The advance widths are those of DejaVu Sans, one of the widest common faces: what has room in it
// has room in the reader's own sans-serif face too.
#pragma once

#include <string_view>

namespace wbfat::explore {

enum class Weight { kRegular, kBold };

// Units: pixels, of a face `size` pixels high. Characters outside ASCII count as the widest letter.
double text_width(std::string_view text, double size, Weight weight);

}  // namespace wbfat::explore
