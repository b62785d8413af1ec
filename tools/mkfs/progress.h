// A line on the terminal for work that takes more than two seconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace wbfat::tools {

class Progress {
public:
    // Shows nothing unless stderr is a terminal.
    explicit Progress(std::string what);
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress();

    void update(std::uint64_t done, std::uint64_t total);

private:
    using Clock = std::chrono::steady_clock;

    const std::string what_;
    const bool on_terminal_;
    const Clock::time_point started_;
    Clock::time_point next_;
    bool shown_ = false;
};

}  // namespace wbfat::tools
