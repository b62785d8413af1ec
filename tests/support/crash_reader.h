// A second reader of FAT volumes, for the power-cut test: small, read-only, and sharing no line
// with fs/, so that a mistake there is not made here once more.
//
// It knows FAT16 and FAT32, long names in ASCII, and no more. Damage is described, never fatal.
//
// Source: Microsoft FAT32 File System Specification 1.03.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cache/sync/sync.h"

namespace wbfat::fs::inline WBFAT_RT {

struct CrashNode {
    std::string name;  // long, or short in lower case
    bool is_directory = false;
    std::uint32_t size = 0;
    std::uint32_t start = 0;
    std::vector<std::uint32_t> clusters;  // up to what is wrong with the chain, if anything
    std::vector<std::byte> content;       // of files: what the chain holds, cut at the size
    std::vector<CrashNode> children;
};

struct CrashTree {
    CrashNode root;
    // What no cut may leave: "DIR/NAME: the chain ends after 3 of 5 clusters".
    std::vector<std::string> damage;
    // Two places that lead into one cluster: their paths.
    std::vector<std::pair<std::string, std::string>> shared;
    // What costs space and nothing else.
    std::size_t nr_lost_clusters = 0;
    std::size_t nr_long_chains = 0;  // files with more clusters than their size needs
};

CrashTree read_crash_image(std::span<const std::byte> image);

}  // namespace wbfat::fs::inline WBFAT_RT
