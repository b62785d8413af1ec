// Progress on stderr.
#include "tools/mkfs/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

namespace wbfat::tools {

namespace {

constexpr std::chrono::milliseconds kPatience(2000);
constexpr std::chrono::milliseconds kInterval(200);

}  // namespace

Progress::Progress(std::string what)
    : what_(std::move(what)),
      on_terminal_(isatty(STDERR_FILENO) == 1),
      started_(Clock::now()),
      next_(started_ + kPatience) {}

Progress::~Progress() {
    if (shown_) {
        fmt::print(stderr, "\r\033[K");
    }
}

void Progress::update(std::uint64_t done, std::uint64_t total) {
    const Clock::time_point now = Clock::now();
    if (!on_terminal_ || now < next_ || total == 0) {
        return;
    }
    next_ = now + kInterval;
    shown_ = true;
    constexpr std::uint64_t kMib = 1024 * 1024;
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now - started_).count();
    fmt::print(stderr, "\r\033[K{}: {} of {} MiB, {} %, {} s", what_, done / kMib, total / kMib,
               done * 100 / total, seconds);
    static_cast<void>(std::fflush(stderr));
}

}  // namespace wbfat::tools
