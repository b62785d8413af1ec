// PageCache::Counters: the hot counters of a cache, and who writes each.
//
// Relaxed throughout: a counter orders nothing, and a gauge read while others write is a snapshot
// of no particular moment. Whoever decides by a gauge (throttling, background writeback) must stand
// a small error.
#pragma once

#include <cstdint>

#include "cache/page_cache.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

class Counter {
public:
    void add(std::uint64_t n = 1) {
        value_.fetch_add(n);
    }
    void sub(std::uint64_t n = 1) {
        value_.fetch_sub(n);
    }
    [[nodiscard]] std::uint64_t value() const {
        return value_.load();
    }

private:
    sync::Relaxed<std::uint64_t> value_{0};
};

struct PageCache::Counters {
    // Gauges, pages. Each on its own cache line: every write of a page touches them from several
    // threads.
    alignas(64) Counter nr_dirty;      // page_lock: PG_dirty on pages of mappings
    alignas(64) Counter nr_writeback;  // page_lock: PG_writeback
    alignas(64) Counter nr_cached;     // page_frames: pages on the LRU

    // Monotonic.
    alignas(64) Counter pages_dirtied;  // page_lock: clean -> dirty, redirtying for lack of a place
                                        // to write not counted
    Counter pages_written;              // page_lock: end_page_writeback, also after an error
    Counter pages_reclaimed;            // page_frames
    alignas(64) Counter lock_waits;     // page_wait
    Counter writeback_waits;            // page_wait
    Counter reclaim_waits;              // page_frames: an allocator slept
    Counter throttle_waits;             // flusher: balance_dirty_pages slept
    alignas(64) Counter pages_read;     // filemap
    Counter bios_read;                  // filemap
    Counter read_errors;                // filemap, pages
    Counter bios_written;               // writeback
    Counter write_errors;               // writeback, pages
};

}  // namespace wbfat::cache::inline WBFAT_RT
