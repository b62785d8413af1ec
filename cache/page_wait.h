// Hashed wait table for page-flag waits.
//
// A Page has no condition variable of its own. Sleepers queue in one of 256 buckets chosen by
// hashing the Page's address; a bucket holds waiters for many pages and bits, so every wake-up
// filters (wake_page_function).
//
// Who decides whether the wait is over is a matter of the protocol's version (protocol.h): until
// 5.8 the sleeper, who looks at the bit after every wake-up; since then the waker, whose flag in
// the entry the sleeper believes.
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
// Source: Linux mm/filemap.c, v5.8 to v6.19, page_wait_table .. folio_wait_bit_common;
// writeback-protocol.md 3 to 5. Differs: 5.9's WQ_FLAG_* are WaitState; signals are
// Task::interrupt(); a sleeper of 5.8 that was flagged does not sleep, where the kernel's would be
// made runnable.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

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

#if defined(WBFAT_MODEL)
// Few pages, and each bucket is a step of whoever looks at all of them.
inline constexpr unsigned kPageWaitTableBits = 4;
#else
inline constexpr unsigned kPageWaitTableBits = 8;
#endif

// Sleeps until `bit` (PG_locked or PG_writeback) is seen clear, or for kExclusive, is taken.
// Errors: EINTR only with kKillable; decided after the entry was unlinked, so a lock handed over is
// never lost.
Result<> wait_on_page_bit_common(Page& page, PageFlag bit, Interruptible state,
                                 WaitBehavior behavior);

// Wakes the sleepers of (page, bit): all shared ones up to and including the first exclusive one.
// Context: any. Source: wake_up_page_bit / folio_wake_bit.
void wake_up_page_bit(Page& page, PageFlag bit);
// Clears the bit and wakes its sleepers in one act: nobody can queue or be woken between the two.
// Without sleepers the bit is cleared without the bucket lock, but only while PG_waiters stays
// clear. Returns the bit and PG_waiters as they were. Context: any. Source: Torvalds, mail of 25
// November 2020 (writeback-protocol.md 9.3 (3)).
std::uint64_t clear_page_bit_and_wake(Page& page, PageFlag bit);

// One sleeper, as it was when its bucket was looked at.
struct PageWaiter {
    const Page* page = nullptr;
    PageFlag bit{};
    WaitBehavior behavior{};
    std::string task;
    sync::Nanoseconds since{0};  // of sync::monotonic_now()
    bool bit_is_clear = false;   // asleep all the same: a waker must be on its way
};
// Everybody who is queued for `page`, or for any page when it is null, first come first. Context:
// any; allocates.
std::vector<PageWaiter> page_waiters(const Page* page = nullptr);
// Those who have been asleep for longer than `limit`: with the bit clear a wake-up was lost, with
// the bit set its holder hangs.
std::vector<PageWaiter> hung_page_waiters(sync::Nanoseconds limit);

// Counters for status: how often anybody slept, by bit.
struct PageWaitStats {
    std::uint64_t lock_waits = 0;
    std::uint64_t writeback_waits = 0;
};
PageWaitStats page_wait_stats();

}  // namespace wbfat::cache::inline WBFAT_RT
