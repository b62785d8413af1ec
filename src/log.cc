// stderr or syslog.
#include "src/log.h"

#include <fmt/core.h>
#include <syslog.h>

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

Log::Log(std::string device) : device_(std::move(device)) {}

void Log::write(fs::LogLevel level, const std::string& sentence) const {
    if (syslog_) {
        ::syslog(priority_of(level), "%s: %s", device_.c_str(), sentence.c_str());
    } else {
        fmt::print(stderr, "wbfat: {}: {}\n", device_, sentence);
    }
}

void Log::to_syslog() {
    ::openlog("wbfat", LOG_PID, LOG_DAEMON);
    syslog_ = true;
}

void complain(const std::string& sentence) {
    fmt::print(stderr, "wbfat: {}\n", sentence);
}

}  // namespace wbfat::daemon
