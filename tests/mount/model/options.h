// The command line of wbfat-model.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "tests/mount/model/session.h"

namespace wbfat::model {

enum ExitCode : int { kExitPass = 0, kExitFail = 1, kExitEnvironment = 2 };

struct Options {
    std::string directory;
    std::string reference;
    std::uint64_t seed = 1;
    std::uint64_t round = 0;
    std::uint64_t ops = 10'000;
    bool resume = false;  // --continue
    bool json = false;
    bool progress = false;
    bool no_shrink = false;
    std::string replay;  // a trace to run instead of random operations
    std::string trace;   // where the shortest failing list goes
    Limits limits;
};

// The options, or an exit code after --help or a mistake.
std::variant<Options, int> parse_command_line(int argc, const char* const* argv);
std::string replay_command(const Options& options, std::uint64_t ops);

}  // namespace wbfat::model
