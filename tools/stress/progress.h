// The live line on standard error.
#pragma once

#include <cstdint>

#include "tools/stress/options.h"
#include "tools/stress/runner.h"

namespace wbfat::tools {

class ProgressLine {
public:
    explicit ProgressLine(const StressOptions& options);
    // Shows the state of the run; cheap enough to call several times a second.
    void update(const Totals& totals, double elapsed_seconds);
    // Ends the line, if any was shown.
    void finish();

private:
    bool enabled_ = false;
    bool is_tty_ = false;
    bool shown_ = false;
    double last_seconds_ = 0;
    std::uint64_t last_ops_ = 0;
    double ops_per_second_ = 0;
};

}  // namespace wbfat::tools
