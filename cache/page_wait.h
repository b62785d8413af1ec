// Hashed wait table for page-flag waits.
//
// A Page has no condition variable of its own. Sleepers queue in one of 256 buckets chosen by
// hashing the Page's address; a bucket holds waiters for many pages and bits, so every wake-up
// filters (wake_page_function).
//
// Invariants
//   - W1. A thread that sleeps on (page, bit) is on exactly one bucket queue, and PG_waiters was
//     set on that page under the bucket lock before the bit was tested. So a waker that sees
//     PG_waiters clear may skip the queue.
//   - W2. PG_waiters may be set with nobody queued (a killed waiter leaves it); the next waker
//     clears it. Never the reverse.
//   - W3. A WaitEntry lives on its owner's stack; after unlinking it the waker does not touch it.
//
// Locking: Bucket::lock is a leaf spin lock, taken in any context including completions.
// Source: Linux v6.19 mm/filemap.c, folio_wait_table .. folio_wait_bit_common.
// Differs: 5.9's WQ_FLAG_* are WaitState; signals are Task::interrupt().
#pragma once

#include "cache/base/result.h"
#include "cache/page.h"
#include "cache/protocol.h"

namespace wbfat::cache::inline WBFAT_RT {

enum class WaitBehavior {
    kExclusive,  // take the bit: lock_page
    kShared,     // just look: wait_on_page_writeback; keeps the caller's reference
    kDrop,       // look after giving the reference away: put_and_wait_on_page_locked
};
enum class Interruptible { kNo, kKillable };

inline constexpr unsigned kPageWaitTableBits = 8;

// Sleeps until `bit` (PG_locked or PG_writeback) is seen clear, or for kExclusive, is taken.
// Errors: EINTR only with kKillable; decided after the entry was unlinked, so a lock handed over is
// never lost.
Result<> wait_on_page_bit_common(Page& page, PageFlag bit, Interruptible state,
                                 WaitBehavior behavior);

// Wakes the sleepers of (page, bit): all shared ones up to and including the first exclusive one.
// Context: any. Source: folio_wake_bit (6.8: one walk under one lock hold).
void wake_up_page_bit(Page& page, PageFlag bit);

// Counters for status: how often anybody slept, by bit.
struct PageWaitStats {
    std::uint64_t lock_waits = 0;
    std::uint64_t writeback_waits = 0;
};
PageWaitStats page_wait_stats();

}  // namespace wbfat::cache::inline WBFAT_RT
