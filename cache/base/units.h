// Units of the page cache, and every conversion between them.
//
// A page is 4 KiB. A block is the 512 bytes in which dirtiness is tracked inside a page (the
// kernel's buffer head): always 512, whatever the sector size of the volume, so that one byte of
// bits describes a page.
#pragma once

#include <cstddef>
#include <cstdint>

namespace wbfat::cache {

// Index of a page within a mapping: byte offset >> kPageShift.
using pgoff_t = std::uint64_t;

inline constexpr unsigned kPageShift = 12;
inline constexpr std::size_t kPageSize = std::size_t{1} << kPageShift;
inline constexpr unsigned kBlockShift = 9;
inline constexpr std::size_t kBlockSize = std::size_t{1} << kBlockShift;
inline constexpr unsigned kBlocksPerPage = kPageSize / kBlockSize;

// One bit a block of a page; bit 0 is the first 512 bytes.
using BlockMask = std::uint8_t;
inline constexpr BlockMask kAllBlocks = 0xFF;

constexpr pgoff_t page_index(std::uint64_t offset_bytes) {
    return offset_bytes >> kPageShift;
}
constexpr std::size_t offset_in_page(std::uint64_t offset_bytes) {
    return offset_bytes & (kPageSize - 1);
}
constexpr std::uint64_t page_offset(pgoff_t index) {
    return index << kPageShift;
}
constexpr std::uint64_t pages_for(std::uint64_t size_bytes) {
    return (size_bytes + kPageSize - 1) >> kPageShift;
}

// The blocks touched by [offset, offset + length) of a page. Requires offset + length <= kPageSize,
// length > 0.
constexpr BlockMask blocks_covering(std::size_t offset, std::size_t length) {
    const unsigned first = static_cast<unsigned>(offset >> kBlockShift);
    const unsigned last = static_cast<unsigned>((offset + length - 1) >> kBlockShift);
    const unsigned mask = ((2U << last) - 1U) & ~((1U << first) - 1U);
    return static_cast<BlockMask>(mask);
}

}  // namespace wbfat::cache
