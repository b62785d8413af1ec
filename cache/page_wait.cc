// Hashed wait table for page-flag waits: the queue, the wake function, the wait loop.
//
// Letters mark the pairs of memory orders:
//   A  a waker's release store of WaitState, and the waiter's acquire load of it;
//   B  the release half of a careful unlink, and the acquire look of finish_wait.
// PG_waiters needs no letter: it shares one word with the bits that are waited for, so the
// coherence of that word alone orders "set PG_waiters, test the bit" against "clear the bit, read
// PG_waiters" (writeback-protocol.md 17.1).
#include "cache/page_wait.h"

#include <array>
#include <cstddef>
#include <cstdint>

#include "cache/base/check.h"
#include "cache/counters.h"
#include "cache/page_frames.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

// Source: WQ_FLAG_EXCLUSIVE, _WOKEN, _CUSTOM, _DONE.
enum WaitState : std::uint32_t {
    kExclusive = 1U << 0,
    kWoken = 1U << 1,    // the bit was clear when a waker passed
    kHandoff = 1U << 2,  // take the bit for me before you wake me
    kDone = 1U << 3,     // the bit is mine
};

// A link of a circular list. `next` is atomic because finish_wait looks at it without the lock.
struct WaitLink {
    sync::Atomic<WaitLink*> next{this};
    WaitLink* prev = this;
};

// On the waiter's stack. `state` belongs to the waiter until it is queued, then to the waker, and
// once kWoken is set to the waiter again.
struct WaitEntry : WaitLink {
    WaitEntry(Page& waited_page, PageFlag waited_bit)
        : page(&waited_page), bit(waited_bit), task(&sync::current_task()) {}

    Page* const page;
    const PageFlag bit;
    sync::Task* const task;
    sync::Atomic<std::uint32_t> state{0};
};

struct alignas(64) Bucket {
    sync::SpinLock lock;
    WaitLink head GUARDED_BY(lock);
};

constexpr std::size_t kPageWaitTableSize = std::size_t{1} << kPageWaitTableBits;

struct PageWaitTable {
    std::array<Bucket, kPageWaitTableSize> buckets;
    sync::Relaxed<std::uint64_t> lock_waits{0};
    sync::Relaxed<std::uint64_t> writeback_waits{0};
};

PageWaitTable page_wait_table;

// Source: hash_ptr.
Bucket& bucket_for(const Page& page) {
    constexpr std::uint64_t kGoldenRatio = 0x61C8'8646'80B5'83EBULL;
    const auto address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(&page));
    return page_wait_table.buckets[(address * kGoldenRatio) >> (64 - kPageWaitTableBits)];
}

void count_wait(const Page& page, PageFlag bit) {
    PageCache::Counters* counters =
        page.frames != nullptr ? &page.frames->cache().counters() : nullptr;
    if (bit == PG_locked) {
        page_wait_table.lock_waits.fetch_add(1);
        if (counters != nullptr) {
            counters->lock_waits.add();
        }
    } else {
        page_wait_table.writeback_waits.fetch_add(1);
        if (counters != nullptr) {
            counters->writeback_waits.add();
        }
    }
}

bool test_and_set_bit(Page& page, PageFlag bit) {
    return (page.flags.fetch_or(bit, std::memory_order_acquire) & bit) != 0;
}

// Source: folio_trylock_flag.
bool try_bit(Page& page, PageFlag bit, WaitBehavior behavior) {
    return behavior == WaitBehavior::kExclusive ? !test_and_set_bit(page, bit)
                                                : !page_test(page, bit);
}

void add_tail(WaitLink& head, WaitLink& link) {
    WaitLink* const last = head.prev;
    link.prev = last;
    link.next.store(&head, std::memory_order_relaxed);
    last->next.store(&link, std::memory_order_relaxed);
    head.prev = &link;
}

// The waker's last access to the entry: once `next` points at itself, finish_wait returns without
// taking the lock and the entry's stack frame is gone (W3). Source: list_del_init_careful. switch:
// careful unlink (c6fe44d96fc1) or a plain one; section 17.2 h.
void unlink_carefully(WaitLink& link) {
    WaitLink* const next = link.next.load(std::memory_order_relaxed);
    next->prev = link.prev;
    link.prev->next.store(next, std::memory_order_relaxed);
    link.prev = &link;
    link.next.store(&link, std::memory_order_release);  // B
}

// What the walk does after an entry. Source: the wake function's return value.
enum class WakeVerdict {
    kGoOn,  // 0: not for this entry, or a shared one was woken
    kStop,  // 1: an exclusive one was woken; -1: the bit is taken again
};

struct WakeKey {
    Page& page;
    PageFlag bit;
    bool page_match = false;  // somebody waits on this page, whatever for
};

// Requires the bucket lock. Source: wake_page_function.
// switch: shared entries test the bit again (until 5.8) or not (here); section 17.2 b.
WakeVerdict wake_page_function(WaitEntry& entry, WakeKey& key) {
    if (entry.page != &key.page) {
        return WakeVerdict::kGoOn;
    }
    key.page_match = true;
    if (entry.bit != key.bit) {
        return WakeVerdict::kGoOn;
    }
    std::uint32_t state = entry.state.load(std::memory_order_relaxed);
    const bool exclusive = (state & kExclusive) != 0;
    if (exclusive) {
        if (page_test(key.page, key.bit)) {
            return WakeVerdict::kStop;  // stolen already; the thief's unlock comes by here again
        }
        // switch: hand-off never (until 5.8), always (5.9-rc), or on demand (here); section 17.2 f.
        if ((state & kHandoff) != 0) {
            if (test_and_set_bit(key.page, key.bit)) {
                return WakeVerdict::kStop;
            }
            state |= kDone;
        }
    }
    // Flag, wake, unlink, in this order: the waiter cannot leave before the unlink, because it
    // either finds itself linked and needs the bucket lock, or finds itself unlinked. So the task
    // is alive when it is woken. switch: the order; section 17.2 g.
    sync::Task* const task = entry.task;
    entry.state.store(state | kWoken, std::memory_order_release);  // A
    WBFAT_POINT("wake:flagged");
    task->unpark();
    unlink_carefully(entry);
    return exclusive ? WakeVerdict::kStop : WakeVerdict::kGoOn;
}

// C1..C4: sets PG_waiters, tests or takes the bit, and queues the entry if that failed.
void enqueue_or_take(Bucket& bucket, WaitEntry& entry, WaitBehavior behavior) {
    const sync::SpinLockGuard guard(bucket.lock);
    entry.page->flags.fetch_or(PG_waiters, std::memory_order_acq_rel);
    WBFAT_POINT("wait:waiters_set");
    if (try_bit(*entry.page, entry.bit, behavior)) {
        entry.state.fetch_or(kWoken | kDone, std::memory_order_relaxed);
        return;
    }
    add_tail(bucket.head, entry);
}

// Source: finish_wait.
void finish_wait(Bucket& bucket, WaitEntry& entry) {
    // B: only the pointer to itself tells that the waker is done; any other value needs the lock.
    if (entry.next.load(std::memory_order_acquire) == &entry) {
        return;
    }
    const sync::SpinLockGuard guard(bucket.lock);
    if (entry.next.load(std::memory_order_relaxed) != &entry) {
        unlink_carefully(entry);
    }
}

enum class SleepOutcome { kWoken, kInterrupted, kStolen };

// C6: sleeps until a waker passed, and takes the bit then if that is what the wait is for.
SleepOutcome sleep_until_woken(WaitEntry& entry, Interruptible state, WaitBehavior behavior) {
    for (;;) {
        const std::uint32_t flags = entry.state.load(std::memory_order_acquire);  // A
        if ((flags & kWoken) == 0) {
            if (state == Interruptible::kKillable && entry.task->interrupted()) {
                return SleepOutcome::kInterrupted;
            }
            entry.task->park();
            continue;
        }
        WBFAT_POINT("wait:woken");
        // switch: a woken waiter trusts the flag (here) or looks at the bit again (until 5.8);
        // section 17.2 a.
        if (behavior != WaitBehavior::kExclusive || (flags & kDone) != 0) {
            return SleepOutcome::kWoken;
        }
        if (test_and_set_bit(*entry.page, entry.bit)) {
            return SleepOutcome::kStolen;
        }
        entry.state.fetch_or(kDone, std::memory_order_relaxed);
        return SleepOutcome::kWoken;
    }
}

}  // namespace

Result<> wait_on_page_bit_common(Page& page, PageFlag bit, Interruptible state,
                                 WaitBehavior behavior) {
    count_wait(page, bit);
    Bucket& bucket = bucket_for(page);
    WaitEntry entry(page, bit);
    int unfairness = kPageLockUnfairness;
    SleepOutcome outcome = SleepOutcome::kStolen;
    while (outcome == SleepOutcome::kStolen) {
        // A stolen round left the entry woken, so nobody writes its state any more; its unlinking
        // may still be under way, and is over once enqueue_or_take has the bucket lock.
        std::uint32_t flags = 0;
        if (behavior == WaitBehavior::kExclusive) {
            flags = --unfairness < 0 ? kExclusive | kHandoff : kExclusive;
        }
        entry.state.store(flags, std::memory_order_relaxed);
        enqueue_or_take(bucket, entry, behavior);
        if (behavior == WaitBehavior::kDrop) {
            put_page(page);  // From here the page may be anybody's: only the entry's key names it.
        }
        WBFAT_POINT("wait:queued");
        outcome = sleep_until_woken(entry, state, behavior);
    }
    WBFAT_POINT("wait:finish");
    finish_wait(bucket, entry);

    // Only now is the state final: a waker may have come between the interruption and the
    // unlinking, and a lock it handed over must not be lost.
    const std::uint32_t won = behavior == WaitBehavior::kExclusive ? kDone : kWoken;
    if ((entry.state.load(std::memory_order_acquire) & won) == 0) {
        return Errno{EINTR};
    }
    return {};
}

// switch: one walk under one hold of the lock (6.8, here), or breaks after 64 entries (until 5.19).
void wake_up_page_bit(Page& page, PageFlag bit) {
    WBFAT_POINT("wake:before_queue_lock");
    Bucket& bucket = bucket_for(page);
    WakeKey key{.page = page, .bit = bit};
    const sync::SpinLockGuard guard(bucket.lock);
    WaitLink* link = bucket.head.next.load(std::memory_order_relaxed);
    while (link != &bucket.head) {
        WaitLink* const next = link->next.load(std::memory_order_relaxed);
        if (wake_page_function(static_cast<WaitEntry&>(*link), key) == WakeVerdict::kStop) {
            break;
        }
        link = next;
    }
    // With other pages' waiters in the bucket and none of ours matched, nobody waits for this page.
    // If ours matched, some may be left; a mark too many is cleaned by the next waker (W2).
    const bool queue_empty = bucket.head.next.load(std::memory_order_relaxed) == &bucket.head;
    if (queue_empty || !key.page_match) {
        page.flags.fetch_and(~std::uint64_t{PG_waiters}, std::memory_order_acq_rel);
    }
}

PageWaitStats page_wait_stats() {
    return {.lock_waits = page_wait_table.lock_waits.load(),
            .writeback_waits = page_wait_table.writeback_waits.load()};
}

}  // namespace wbfat::cache::inline WBFAT_RT
