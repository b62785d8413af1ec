// Reading, writing and truncating a mapping through its pages; writing out and waiting for a range.
//
// Locking: none of these takes an inode lock. Writers and truncaters of one mapping are serialised
// by their caller (the inode's i_rwsem); readers and writeback run beside them, held apart by page
// locks alone. Source: Linux v6.19 mm/filemap.c, mm/truncate.c, mm/readahead.c.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "cache/address_space.h"
#include "cache/base/result.h"

namespace wbfat::cache::inline WBFAT_RT {

// Where a sequential reader is; one per open handle. Guarded by its owner; racing readers only
// mis-predict.
struct ReadaheadState {
    pgoff_t start = 0;             // current window
    std::uint32_t size = 0;        // pages in it
    std::uint32_t async_size = 0;  // reading into the last async_size pages starts the next window
    pgoff_t prev_index = ~pgoff_t{0};
};

// Referenced, uptodate pages that together hold one read; releases the references when destroyed.
class PageVec {
public:
    struct Piece {
        Page* page;
        std::uint32_t offset_bytes;  // in the page
        std::uint32_t length_bytes;
    };

    PageVec() = default;
    ~PageVec() {
        release();
    }
    PageVec(const PageVec&) = delete;
    PageVec& operator=(const PageVec&) = delete;

    void add(Page& page, std::uint32_t offset_bytes,
             std::uint32_t length_bytes);  // takes over one reference
    void release();
    [[nodiscard]] std::span<const Piece> pieces() const {
        return pieces_;
    }
    [[nodiscard]] std::uint64_t size_bytes() const {
        return size_bytes_;
    }

private:
    std::vector<Piece> pieces_;
    std::uint64_t size_bytes_ = 0;
};

// The page at `index`, referenced and uptodate, read from the device if needed; not locked.
// Errors: EIO and what the device says; EINTR never; ENOMEM when no frame can be had. Source:
// read_cache_page.
Result<Page*> read_mapping_page(AddressSpace& mapping, pgoff_t index);

// Pages holding [offset, offset + length) cut at i_size, with readahead. A short answer means end
// of file. The frames may be modified while the caller uses them, as a kernel reader's pages may.
// Errors: as read_mapping_page, and EINTR, only if nothing at all could be read.
// Source: filemap_get_pages / filemap_read.
// Requires: length at most max_pinned_read_bytes, or the pages of one answer may leave no frame for
// the rest of it.
Result<> filemap_read_pages(AddressSpace& mapping, ReadaheadState& ra, std::uint64_t offset_bytes,
                            std::uint64_t length_bytes, PageVec& out);
// A quarter of the cache: pages in a PageVec cannot be reclaimed.
std::uint64_t max_pinned_read_bytes(PageCache& cache);
// The same, copied; any length. Returns bytes read, 0 at end of file.
Result<std::size_t> filemap_read(AddressSpace& mapping, ReadaheadState& ra,
                                 std::uint64_t offset_bytes, std::span<std::byte> into);

// Finds or makes the page for [offset, offset + length) of one page, locked and referenced, reading
// it first unless the write covers it wholly or it lies beyond the initialised bytes; waits for it
// to be stable. The blocks must be mapped. Errors: as read_mapping_page, and EINTR; nothing is held
// then.
// Source: block_write_begin.
Result<Page*> write_begin(AddressSpace& mapping, std::uint64_t offset_bytes,
                          std::size_t length_bytes);
// Marks the copied bytes dirty, moves i_size up to the end of them under the page lock, unlocks and
// drops the page. copied_bytes may be 0: then the block holding `offset` is dirtied all the same
// unless offset is block aligned, as a zero-length write cycle of the kernel does
// (writeback-protocol.md 11.3). Source: generic_write_end.
void write_end(AddressSpace& mapping, Page& page, std::uint64_t offset_bytes,
               std::size_t copied_bytes)
    NO_THREAD_SAFETY_ANALYSIS;  // releases a page acquired in write_begin

// Copies `from` into the mapping at `offset`, page by page. Blocks must be mapped; i_size grows as
// it goes. `copy(dst)` is called with each piece of a frame in order and fills it completely (an
// error ends the write). Returns bytes written; an error only if nothing was. Source:
// generic_perform_write. Differs: no balance_dirty_pages here; the caller throttles after dropping
// its locks.
using CopyIn = std::function<Result<>(std::span<std::byte> frame_piece)>;
Result<std::size_t> generic_perform_write(AddressSpace& mapping, std::uint64_t offset_bytes,
                                          std::size_t length_bytes, const CopyIn& copy);
// Zeros [from, to) through write cycles, page by page. Source: cont_expand_zero.
Result<> zero_range(AddressSpace& mapping, std::uint64_t from_bytes, std::uint64_t to_bytes);

// Zeros from `offset` to the end of its page and dirties what was zeroed: shrinking inside a block.
// Source: block_truncate_page. Differs: the whole rest of the page, not of the block.
Result<> block_truncate_page(AddressSpace& mapping, std::uint64_t offset_bytes);
// Removes every page wholly beyond new_size, in the kernel's two passes, waiting for writeback
// under the page lock, and zeros the tail of the last one. i_size must already be new_size. Source:
// truncate_pagecache.
void truncate_pagecache(AddressSpace& mapping, std::uint64_t new_size_bytes);
// i_size_write, then truncate_pagecache. Source: truncate_setsize.
void truncate_setsize(AddressSpace& mapping, std::uint64_t new_size_bytes);
// Drops clean, unlocked, unused pages of [start, end]. Returns how many. Source:
// invalidate_mapping_pages.
std::uint64_t invalidate_mapping_pages(AddressSpace& mapping, pgoff_t start, pgoff_t end);

// Byte ranges are inclusive of `last_bytes`; kLastByte means the whole file.
inline constexpr std::uint64_t kLastByte = ~std::uint64_t{0} >> 1;
// Starts writeback of all dirty pages of the range (WB_SYNC_ALL). Source: filemap_fdatawrite_range.
Result<> filemap_fdatawrite_range(AddressSpace& mapping, std::uint64_t first_bytes,
                                  std::uint64_t last_bytes);
// WB_SYNC_NONE, whole file. Source: filemap_flush.
Result<> filemap_flush(AddressSpace& mapping);
// Waits, without page locks, until no page of the range is under writeback. Errors are in wb_err,
// not returned. Source: __filemap_fdatawait_range.
void filemap_fdatawait_range(AddressSpace& mapping, std::uint64_t first_bytes,
                             std::uint64_t last_bytes);
// Both, and what went wrong since `since` (advanced). Source: file_write_and_wait_range.
Result<> file_write_and_wait_range(AddressSpace& mapping, std::uint64_t first_bytes,
                                   std::uint64_t last_bytes, ErrSeq::Cursor& since);

}  // namespace wbfat::cache::inline WBFAT_RT
