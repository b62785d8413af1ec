// One line, redrawn on a terminal; a line every few seconds elsewhere when asked for.
#include "tools/stress/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace wbfat::tools {
namespace {

constexpr double kMiB = 1 << 20;
constexpr double kPlainInterval = 5;

}  // namespace

ProgressLine::ProgressLine(const StressOptions& options) : is_tty_(::isatty(STDERR_FILENO) == 1) {
    enabled_ =
        options.progress == Progress::kAlways || (options.progress == Progress::kAuto && is_tty_);
}

void ProgressLine::update(const Totals& totals, double elapsed_seconds) {
    const double since = elapsed_seconds - last_seconds_;
    if (!enabled_ || (!is_tty_ && since < kPlainInterval) || since <= 0) {
        return;
    }
    ops_per_second_ = static_cast<double>(totals.nr_ops - last_ops_) / since;
    last_seconds_ = elapsed_seconds;
    last_ops_ = totals.nr_ops;
    std::string line = fmt::format(
        "{:7.1f} s  {:>10} ops  {:>8.0f} ops/s  {:>8.1f} MiB written  {:>9.1f} MiB checked",
        elapsed_seconds, totals.nr_ops, ops_per_second_,
        static_cast<double>(totals.bytes_written) / kMiB,
        static_cast<double>(totals.bytes_checked) / kMiB);
    if (totals.refused_full > 0) {
        line += fmt::format("  {} full", totals.refused_full);
    }
    fmt::print(stderr, "{}{}{}", is_tty_ ? "\r\x1b[K" : "", line, is_tty_ ? "" : "\n");
    static_cast<void>(std::fflush(stderr));
    shown_ = is_tty_;
}

void ProgressLine::finish() {
    if (shown_) {
        fmt::print(stderr, "\n");
    }
}

}  // namespace wbfat::tools
