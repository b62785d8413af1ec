// The trace as a picture: the JSON that Perfetto and chrome://tracing open.
//
// One track a thread with a slice for each event and for each wait; an arrow from the waker's slice
// to the slice with which the waiter goes on; one span a writeback, on a track of its page; and
// counters of dirty pages and pages under writeback.
//
// Slices of one track must nest, and a thread holds several page locks in no particular order:
// events are short slices one behind the other, not spans from lock to unlock.
//
// Source: exploration.md section 5 (the Trace Event Format of Chromium, which Perfetto reads).
#pragma once

#include <string>

#include "cache/trace.h"

namespace wbfat::cache::inline WBFAT_RT {

std::string to_chrome_json(const Trace& trace);

}  // namespace wbfat::cache::inline WBFAT_RT
