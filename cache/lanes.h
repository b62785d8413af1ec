// Who did what, drawn as lanes: one column a thread, time runs down.
//
//              CPU1                    CPU2              CPU3
//              ----                    ----              ----
//
//      0.0 us  clear writeback
//
//      1.2 us                          lock
//      1.4 us                          set writeback
//
//      9.8 us                                            wait (writeback)
//
// An empty line stands where another thread goes on, so that the eye falls from lane to lane as in
// the mail this project is about. Plain text: it goes to terminals, logs and bug reports alike.
//
// Locking: none; knows nothing of pages. Source: the mail of 2021-01-04, its table of three CPUs.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "cache/base/runtime.h"

namespace wbfat::cache::inline WBFAT_RT {

struct LaneRow {
    std::size_t lane = 0;  // index of its column
    std::string text;      // longer than a lane is wide: goes on below, indented
    std::string margin;    // at the left, before all lanes: a time or a number; may be empty
};

struct LaneStyle {
    std::size_t max_lane_width = 34;  // characters; at least 8
    std::size_t gap = 2;              // between lanes
    std::size_t indent = 2;           // before everything
};

// Every line ends with a newline and has no blanks before it. Rows of a lane that does not exist
// are drawn in the last one. No lanes: "".
std::string draw_lanes(std::span<const std::string> lanes, std::span<const LaneRow> rows,
                       const LaneStyle& style = {});

}  // namespace wbfat::cache::inline WBFAT_RT
