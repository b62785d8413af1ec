// The line is rewritten in place on a terminal, and written anew elsewhere.
#include "tools/explore/cli/progress_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

namespace wbfat::explore {

namespace {

constexpr std::chrono::seconds kSilence{2};
constexpr std::chrono::milliseconds kTerminalInterval{200};
constexpr std::chrono::seconds kLogInterval{5};

}  // namespace

ProgressLine::ProgressLine(std::string what, ShowProgress show)
    : what_(std::move(what)),
      is_terminal_(isatty(STDERR_FILENO) == 1),
      enabled_(show == ShowProgress::kAlways || (show == ShowProgress::kAuto && is_terminal_)),
      start_(Clock::now()),
      next_(start_ + kSilence) {}

ProgressLine::~ProgressLine() {
    if (written_ != 0 && is_terminal_) {
        fmt::print(stderr, "\r{:{}}\r", "", written_);
    }
}

std::function<bool(const Progress&)> ProgressLine::callback() {
    return [this](const Progress& progress) {
        if (is_due()) {
            write(describe(progress));
        }
        return true;
    };
}

void ProgressLine::update(const std::string& text) {
    if (is_due()) {
        write(text);
    }
}

bool ProgressLine::is_due() {
    return enabled_ && Clock::now() >= next_;
}

void ProgressLine::write(const std::string& text) {
    next_ = Clock::now() +
            (is_terminal_ ? Clock::duration(kTerminalInterval) : Clock::duration(kLogInterval));
    const std::string line = fmt::format("{}: {}", what_, text);
    if (is_terminal_) {
        fmt::print(stderr, "\r{:{}}", line, written_);
        std::fflush(stderr);
    } else {
        fmt::print(stderr, "{}\n", line);
    }
    written_ = line.size();
}

std::string describe(const Progress& progress) {
    std::string text = to_string(progress.method);
    if (progress.method == Method::kBound) {
        text += fmt::format(" {}", progress.bound);
    }
    text += fmt::format(": {} executions", progress.executions);
    if (progress.states != 0) {
        text += fmt::format(", {} states", progress.states);
    }
    if (progress.estimate > 0) {
        text += fmt::format(", about {:.0f} %", 100 * progress.estimate);
    }
    constexpr std::uint64_t kMebibyte = 1U << 20;
    return text + fmt::format(", {} MiB, {:.0f} s", progress.memory_bytes / kMebibyte,
                              std::chrono::duration<double>(progress.elapsed).count());
}

}  // namespace wbfat::explore
