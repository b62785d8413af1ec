// The two sources of bad blocks: a list in a file (-l), and reading everything (-c).
//
// Units: a block is 1024 bytes, counted from the start of the volume.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <istream>
#include <span>
#include <string>
#include <vector>

#include "tools/mkfs/progress.h"

namespace wbfat::tools {

inline constexpr std::uint64_t kBadBlockBytes = 1024;

// One decimal number a line; blank lines are skipped. Throws UsageError, naming the line.
std::vector<std::uint64_t> read_bad_block_list(std::istream& list, const std::string& name);

// Reads exactly `into` from the volume; false when the device cannot.
using ReadAt = std::function<bool(std::uint64_t offset_bytes, std::span<std::byte> into)>;

// Reads the volume in large pieces, and a piece that fails again block by block.
std::vector<std::uint64_t> find_bad_blocks(const ReadAt& read, std::uint64_t volume_bytes,
                                           Progress& progress);

}  // namespace wbfat::tools
