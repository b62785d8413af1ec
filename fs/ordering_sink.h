// The narrow door from whoever changes metadata pages to the ordered commit.
//
// FatTable and its tests see only this much of Ordering: which blocks are due in which phase, and
// changes that may only reach the pages in a later phase. Ordering implements it; the meaning of
// each call is told in ordering.h.
#pragma once

#include <cstdint>
#include <functional>

#include "cache/base/result.h"
#include "cache/base/runtime.h"

namespace wbfat::fs::inline WBFAT_RT {

// The phases of a commit, in their order on the disk (ordering.h).
enum class Phase : std::uint8_t { kAllocate, kLink, kEntry, kUnlink, kCut, kFree };

class MetadataSink {
public:
    MetadataSink() = default;
    MetadataSink(const MetadataSink&) = delete;
    MetadataSink& operator=(const MetadataSink&) = delete;
    virtual ~MetadataSink() = default;

    // Bytes [offset, offset + length) of the device mapping were changed and are due in `phase`
    // (kAllocate or kEntry).
    virtual void note_blocks(Phase phase, std::uint64_t device_offset_bytes,
                             std::uint64_t length_bytes) = 0;
    // Runs `apply` in the named later phase, with no transaction running; it changes pages of the
    // device mapping and calls note_applied for the blocks. An apply that failed is run again by
    // the next commit, so it must be repeatable.
    virtual void hold_back(Phase phase, std::function<Result<>()> apply) = 0;
    // As note_blocks, from inside an `apply`.
    virtual void note_applied(std::uint64_t device_offset_bytes, std::uint64_t length_bytes) = 0;
};

}  // namespace wbfat::fs::inline WBFAT_RT
