// The command line of wbfat-stress.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "tools/stress/bystanders.h"
#include "tools/stress/plan.h"

namespace wbfat::tools {

enum class Progress { kAuto, kAlways, kNever };

// wbfat-stress truncate
struct StressOptions {
    std::string directory;
    unsigned threads = 4;
    // Files of each thread; with `shared`, files on which all threads work together.
    unsigned files = 4;
    std::uint64_t seed = 0;
    // The run ends after this many operations of each thread, or else after `seconds`.
    std::uint64_t ops = 0;
    double seconds = 10;
    // No file grows beyond this, bytes; and no single write is longer.
    std::uint64_t max_size = 4U << 20;
    std::uint64_t max_write = 128U << 10;
    // Unit of the boundaries that sizes are chosen near; 0: what statvfs says.
    std::uint64_t cluster = 0;
    bool shared = false;    // all threads work on every file, each on its own ranges
    bool names = false;     // rename and unlink too
    bool four_gib = false;  // sizes around 4 GiB too
    bool no_mmap = false;
    Mix mix = Mix::kEverything;
    bool sync = false;  // O_SYNC, and fsync after every change of size: as on a sync mount
    BystanderCounts bystanders;
    bool strict_full = false;  // a refused growth (ENOSPC, EFBIG) must leave the size as it was
    bool keep = false;         // leave the files
    bool overwrite = false;    // take over files that are there already
    bool json = false;
    Progress progress = Progress::kAuto;
    std::string manifest;  // path to write, empty: none
};

// wbfat-stress verify
struct VerifyOptions {
    std::string manifest;
    std::string directory;
};

// What to do; an int is an exit code: everything was said already (help, version, usage error).
using Command = std::variant<int, StressOptions, VerifyOptions>;

Command parse_command_line(int argc, const char* const* argv);

// The command that repeats the run up to and including operation `ops - 1` of each thread.
std::string replay_command(const StressOptions& options, std::uint64_t ops);

inline constexpr int kExitPass = 0;
inline constexpr int kExitMismatch = 1;
inline constexpr int kExitEnvironment = 2;

}  // namespace wbfat::tools
