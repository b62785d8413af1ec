// Directory sectors as bytes in the pages of the device mapping: read them first, then change them
// without failing.
//
// Whoever changes several slots pins all their pages before the first change, so that an unreadable
// sector never leaves half a name behind. The commit is kept out by the caller's Transaction (or is
// the caller), so changes made one page after the other still reach the disk in one write per
// sector.
//
// Locking: page locks, one at a time. Source: Linux fs/fat/dir.c fat_add_entries,
// fat_remove_entries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "cache/base/result.h"
#include "cache/page.h"

namespace wbfat::fs::inline WBFAT_RT {

class Volume;

class PinnedBytes {
public:
    // Who hears of the changed sectors: the commit that will write them, or the one that is
    // running.
    enum class Due : std::uint8_t { kEntry, kRunningCommit };

    explicit PinnedBytes(Volume& volume) : volume_(volume) {}
    ~PinnedBytes();
    PinnedBytes(const PinnedBytes&) = delete;
    PinnedBytes& operator=(const PinnedBytes&) = delete;

    // Reads and holds the pages under [offset, offset + length) of the device. Errors: EIO.
    Result<> pin(std::uint64_t device_offset_bytes, std::uint32_t length_bytes);

    // Each changes everything pinned, in the order of the pin() calls.
    void write(std::span<const std::byte> bytes);
    void mark_deleted(Due due);  // 0xE5 into the first byte of each slot
    void change(Due due,
                const std::function<void(std::span<std::byte> piece, std::size_t done)>& how);

private:
    struct Piece {
        cache::Page* page;
        std::uint64_t device_offset_bytes;
        std::uint32_t length_bytes;
    };

    Volume& volume_;
    std::vector<Piece> pieces_;
};

}  // namespace wbfat::fs::inline WBFAT_RT
