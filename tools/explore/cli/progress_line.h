// One line on standard error that says how far a search is, once it has taken two seconds.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "tools/explore/cli/arguments.h"
#include "tools/explore/explore.h"

namespace wbfat::explore {

class ProgressLine {
public:
    // `what` is named at the beginning of the line: "mail under 5.10".
    ProgressLine(std::string what, ShowProgress show);
    ~ProgressLine();
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;

    // For Options::progress; always goes on.
    std::function<bool(const Progress&)> callback();
    // For work of another kind: `text` replaces the line, if it is time to.
    void update(const std::string& text);

private:
    using Clock = std::chrono::steady_clock;

    bool is_due();
    void write(const std::string& text);

    const std::string what_;
    const bool is_terminal_;
    const bool enabled_;
    const Clock::time_point start_;
    Clock::time_point next_;
    std::size_t written_ = 0;  // characters of the line that stands there
};

// "bound 2: 12345 executions, 678 states, about 34 %, 5 MiB, 3 s"
std::string describe(const Progress& progress);

}  // namespace wbfat::explore
