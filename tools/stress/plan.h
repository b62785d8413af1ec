// What to do next: one operation, chosen by the operation's own random stream and the state of the
// model.
#pragma once

#include <cstdint>
#include <string>

#include "tools/stress/random.h"

namespace wbfat::tools {

enum class OpKind {
    kTruncate,  // to `offset` bytes, up or down
    kWrite,     // pwrite
    kStore,     // through a shared mapping
    kRead,      // pread and compare
    kLoad,      // through a shared mapping, and compare
    kSpy,       // pread what others write: every word must be something that belongs there
    kFsync,
    kFdatasync,
    kEvict,  // fdatasync, ask the kernel to forget its copy, compare everything
    kReopen,
    kRename,
    kReplace,  // unlink while open, compare, create again
    kNrKinds,
};

inline constexpr unsigned kNrOpKinds = static_cast<unsigned>(OpKind::kNrKinds);

const char* name_of(OpKind kind);

// Units: bytes.
struct Op {
    OpKind kind = OpKind::kRead;
    std::uint64_t offset = 0;  // kTruncate: the new size
    std::uint64_t length = 0;
    bool sync_mapping = false;  // kStore: msync afterwards
    bool drop_mapping = false;  // kStore, kLoad: unmap afterwards

    [[nodiscard]] std::string to_string() const;
};

// Which operations, and how sizes move.
enum class Mix {
    kEverything,
    // writeback-protocol.md 17.8: files grow by odd steps inside a page and across its edges, so
    // that the block with the end is dirtied twice, and are written, stored and synced meanwhile.
    kGrow,
};

// The bounds of one file's life.
struct PlanLimits {
    std::uint64_t floor = 0;  // the file is never cut below this
    std::uint64_t max_size = 0;
    std::uint64_t max_write = 0;
    std::uint64_t cluster = 4096;
    bool names = false;
    bool four_gib = false;
    bool mmap = true;
    Mix mix = Mix::kEverything;
};

// An operation on a file that one thread owns from `limits.floor` on; `size` is its size now.
Op plan_owned(Random& random, const PlanLimits& limits, std::uint64_t size);

// An operation on the range [begin, begin + length) of a file, inside its stable part; in whole
// 8-byte words when both are.
Op plan_in_range(Random& random, const PlanLimits& limits, std::uint64_t begin,
                 std::uint64_t length);

// A size in [low, high] that is likely to hurt: near `near`, or next to a page, block or cluster
// boundary.
std::uint64_t pick_odd_size(Random& random, const PlanLimits& limits, std::uint64_t low,
                            std::uint64_t high, std::uint64_t near);

}  // namespace wbfat::tools
