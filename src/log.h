// Where the daemon's sentences go: stderr while somebody looks at it, syslog once in the
// background.
#pragma once

#include <string>

#include "fs/volume.h"

namespace wbfat::daemon {

class Log {
public:
    // Messages are prefixed with the device's name.
    explicit Log(std::string device);

    void write(fs::LogLevel level, const std::string& sentence) const;
    // A text of many lines, to stderr and to syslog both: whoever looks at one of them sees it.
    void write_report(const std::string& text) const;
    // From now on to syslog only; stderr is about to go away.
    void to_syslog();

private:
    std::string device_;
    bool syslog_ = false;
};

// One sentence on stderr, with the program's name: for failures before there is a Log.
void complain(const std::string& sentence);

}  // namespace wbfat::daemon
