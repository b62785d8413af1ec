// What the threads of a run have done so far: written by each thread, read by the progress line.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "tools/stress/plan.h"

namespace wbfat::tools {

// One thread's counters, on a cache line of their own. Relaxed: they are sums for the eye, nothing
// depends on them.
struct alignas(64) Counters {
    std::array<std::atomic<std::uint64_t>, kNrOpKinds> ops{};
    std::atomic<std::uint64_t> bytes_written{0};
    std::atomic<std::uint64_t> bytes_checked{0};
    std::atomic<std::uint64_t> refused_full{0};     // ENOSPC, EDQUOT
    std::atomic<std::uint64_t> refused_too_big{0};  // EFBIG
    std::atomic<std::uint64_t> skipped{0};  // mapped accesses on a filesystem that cannot map
};

inline void add(std::atomic<std::uint64_t>& counter, std::uint64_t n) {
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

}  // namespace wbfat::tools
