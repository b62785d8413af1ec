// stderr or syslog.
#include "src/log.h"

#include <fmt/core.h>
#include <syslog.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace wbfat::daemon {

namespace {

int priority_of(fs::LogLevel level) {
    switch (level) {
        case fs::LogLevel::kInfo:
            return LOG_INFO;
        case fs::LogLevel::kWarning:
            return LOG_WARNING;
        case fs::LogLevel::kError:
            return LOG_ERR;
    }
    return LOG_ERR;
}

}  // namespace

Log::Log(std::string device) : device_(std::move(device)) {
    ::openlog("wbfat", LOG_PID, LOG_DAEMON);
}

void Log::write(fs::LogLevel level, const std::string& sentence) const {
    if (syslog_) {
        ::syslog(priority_of(level), "%s: %s", device_.c_str(), sentence.c_str());
    } else {
        fmt::print(stderr, "wbfat: {}: {}\n", device_, sentence);
    }
}

void Log::write_report(const std::string& text) const {
    if (!syslog_) {
        // One write, so that nothing comes in between.
        fmt::print(stderr, "wbfat: {}: {}", device_, text);
        std::fflush(stderr);
    }
    // Records are lines.
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        ::syslog(LOG_CRIT, "%s: %s", device_.c_str(), text.substr(at, end - at).c_str());
        at = end + 1;
    }
}

void Log::to_syslog() {
    syslog_ = true;
}

void complain(const std::string& sentence) {
    fmt::print(stderr, "wbfat: {}\n", sentence);
}

}  // namespace wbfat::daemon
