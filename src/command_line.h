// What was typed: wbfat DEVICE MOUNTPOINT [-o OPTIONS] [-f] [-d]. Spelled as mount(8) calls a
// helper.
#pragma once

#include <optional>
#include <string>

#include "src/mount_options.h"

namespace wbfat::daemon {

// Exit codes of mount(8).
enum ExitCode : int { kExitOk = 0, kExitUsage = 1, kExitSystem = 2, kExitMountFailed = 32 };

struct CommandLine {
    std::string device;
    std::string mountpoint;
    bool foreground = false;
    bool debug = false;  // libfuse prints every request; implies foreground
    DaemonOptions options;
};

// Parses; for -h and -V prints and leaves the exit code, for a mistake prints one sentence on
// stderr. Returns the command line, or nullopt with `exit_code` set.
std::optional<CommandLine> parse_command_line(int argc, char** argv, int& exit_code);

}  // namespace wbfat::daemon
