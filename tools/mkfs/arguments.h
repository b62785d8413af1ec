// The command line of mkfs.wbfat: mkfs.fat's flags, decoded.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fs/mkfs.h"

namespace wbfat::tools {

enum class MbrMode { kNo, kYes, kAuto };

struct Arguments {
    std::string device;
    fs::FormatOptions format;      // everything that decides the volume, but for time
    bool create = false;           // -C
    bool check = false;            // -c
    bool ignore_safety = false;    // -I
    bool invariant = false;        // --invariant
    bool verbose = false;          // -v
    bool volume_id_given = false;  // -i
    MbrMode mbr = MbrMode::kAuto;
    std::optional<std::string> bad_block_list;  // -l
    std::vector<std::string> warnings;
};

// Throws UsageError; CLI::CallForHelp is turned into an empty optional after the help was printed.
std::optional<Arguments> parse_arguments(int argc, const char* const* argv);

}  // namespace wbfat::tools
