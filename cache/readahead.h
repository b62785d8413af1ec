// Filling pages from the device: one locked run at a time, and guessing what comes next.
//
//   |<----- size --------------->|
//   +----------------------------+
//   start        ^ the page with PG_readahead: touching it starts the next window
//                |<- async_size->|
//
// The first window of a sequential reader is two to four times what it asked for; each next one
// doubles (quadruples while small) up to readahead_max_bytes. A read that fits no pattern reads
// just what it needs.
//
// Locking: pages are inserted locked and their locks are handed to the read's completion. No lock
// is held on return. Source: Linux v6.19 mm/readahead.c. Differs: pages after the ones asked for
// are given up rather than waited for when no frame is free; a window is at most an eighth of the
// cache.
#pragma once

#include <span>

#include "cache/filemap.h"

namespace wbfat::cache::inline WBFAT_RT {

// Puts a new page into the mapping at `index` and returns it locked, with one reference for the
// caller; null when somebody else was faster. Errors: ENOMEM.
Result<Page*> add_new_page(AddressSpace& mapping, pgoff_t index);

// Reads pages of consecutive index, all locked, each with a reference to give away; the completion
// unlocks them. A page that fails is unlocked with PG_error. What lies beyond i_size, and holes,
// become zeros. Errors: the first of map_blocks; device errors only show as PG_error.
Result<> read_locked_pages(AddressSpace& mapping, std::span<Page* const> pages);

// The page at `index` is missing, and `nr_wanted` pages from there are wanted. When it returns with
// success the page at `index` was in the mapping for a moment; its read may have failed. Errors:
// ENOMEM, those of map_blocks. Source: page_cache_sync_ra.
Result<> page_cache_sync_ra(AddressSpace& mapping, ReadaheadState& ra, pgoff_t index,
                            std::uint64_t nr_wanted);
// A page with PG_readahead was touched. Source: page_cache_async_ra.
void page_cache_async_ra(AddressSpace& mapping, ReadaheadState& ra, Page& page,
                         std::uint64_t nr_wanted);

}  // namespace wbfat::cache::inline WBFAT_RT
