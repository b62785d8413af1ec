// The flag word of a page.
//
// PG_locked protects the page's membership in its mapping and every change of its state: it is
// taken before the page is read, modified or submitted, and dropped when a write is submitted or a
// read has completed. PG_writeback covers the write I/O itself: set under PG_locked, cleared by the
// completion thread that holds no lock at all. Between the two lies the race this project is about.
//
// PG_waiters sits in the same word as both, so that one read-modify-write can clear a bit and learn
// whether anybody sleeps (writeback-protocol.md 1.1 and 17.1).
//
// Source: Linux v6.19 include/linux/page-flags.h. Differs: one 64-bit word; no memory-model or NUMA
// bits.
#pragma once

#include <cstdint>
#include <string>

#include "cache/base/runtime.h"

namespace wbfat::cache::inline WBFAT_RT {

enum PageFlag : std::uint64_t {
    PG_locked = 1U << 0,
    PG_writeback = 1U << 1,
    PG_referenced = 1U << 2,  // read or written since reclaim last looked
    PG_uptodate = 1U << 3,    // every byte of the frame is valid
    PG_dirty = 1U << 4,
    PG_error = 1U << 5,      // the last read failed
    PG_reclaim = 1U << 6,    // wanted back by reclaim as soon as its writeback ends
    PG_waiters = 1U << 7,    // somebody may sleep on a bit of this word
    PG_readahead = 1U << 8,  // reading this page starts the next readahead window
};

// "locked|dirty|uptodate", or "-" for an empty word: for reports.
std::string page_flags_to_string(std::uint64_t flags);

}  // namespace wbfat::cache::inline WBFAT_RT
