// A run: files, threads, progress, and the outcome.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/stress/failure.h"
#include "tools/stress/options.h"
#include "tools/stress/plan.h"

namespace wbfat::tools {

// Sums over all threads.
struct Totals {
    std::array<std::uint64_t, kNrOpKinds> ops{};
    std::uint64_t nr_ops = 0;
    std::uint64_t bytes_written = 0;
    std::uint64_t bytes_checked = 0;
    std::uint64_t refused_full = 0;
    std::uint64_t refused_too_big = 0;
    std::uint64_t skipped = 0;
};

struct FileSummary {
    std::string name;
    std::uint64_t size = 0;
    std::uint64_t xxh3 =
        0;  // of what the file must contain, computed from the model, not read back
};

struct Outcome {
    std::optional<Failure> failure;
    bool interrupted = false;
    bool cannot_map = false;
    double seconds = 0;
    // Operations that the busiest thread finished: replaying needs no more.
    std::uint64_t ops_per_thread = 0;
    Totals totals;
    std::vector<FileSummary> files;
};

// Runs the whole stress. Throws std::system_error when the environment is at fault (no directory,
// file exists ..).
Outcome run_truncate_stress(const StressOptions& options);

// SIGINT and SIGTERM end the run early, but orderly.
void install_interrupt_handler();

}  // namespace wbfat::tools
