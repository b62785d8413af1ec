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

#include "cache/assertions.h"
#include "cache/counters.h"
#include "cache/page_frames.h"
#include "cache/trace.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

// Source: WQ_FLAG_EXCLUSIVE, _WOKEN, _CUSTOM, _DONE.
enum WaitState : std::uint32_t {
    kExclusive = 1U << 0,
    kWoken = 1U << 1,    // the bit was clear when a waker passed
    kHandoff = 1U << 2,  // take the bit for me before you wake me
    kDone = 1U << 3,     // the bit is mine
};

// A link of a circular list. Atomic because finish_wait looks at it without the lock.
struct WaitLink {
    sync::Atomic<WaitLink*> next{this};
    sync::Atomic<WaitLink*> prev{this};
};

// On the waiter's stack. `state` belongs to the waiter until it is queued, then to the waker, and
// once kWoken is set to the waiter again.
struct WaitEntry : WaitLink {
    WaitEntry(Page& waited_page, PageFlag waited_bit, WaitBehavior wait_behavior)
        : page(&waited_page),
          bit(waited_bit),
          behavior(wait_behavior),
          task(&sync::current_task()),
          since(sync::monotonic_now()) {}
    // A bookmark: waits for nothing, and marks where a broken walk goes on.
    WaitEntry() = default;

    Page* const page = nullptr;
    const PageFlag bit{};
    const WaitBehavior behavior{};
    sync::Task* const task = nullptr;
    const sync::Nanoseconds since{0};
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

sync::Global<PageWaitTable> page_wait_table;

// Source: hash_ptr.
Bucket& bucket_for(const Page& page) {
    constexpr std::uint64_t kGoldenRatio = 0x61C8'8646'80B5'83EBULL;
    const auto address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(&page));
    return page_wait_table->buckets[(address * kGoldenRatio) >> (64 - kPageWaitTableBits)];
}

void count_wait(const Page& page, PageFlag bit) {
    PageCache::Counters* counters =
        page.frames != nullptr ? &page.frames->cache().counters() : nullptr;
    if (bit == PG_locked) {
        page_wait_table->lock_waits.fetch_add(1);
        if (counters != nullptr) {
            counters->lock_waits.add();
        }
    } else {
        page_wait_table->writeback_waits.fetch_add(1);
        if (counters != nullptr) {
            counters->writeback_waits.add();
        }
    }
}

bool test_and_set_bit(Page& page, PageFlag bit) {
    return page.flags.test_and_set(bit, std::memory_order_acquire);
}

// Source: folio_trylock_flag.
bool try_bit(Page& page, PageFlag bit, WaitBehavior behavior) {
    return behavior == WaitBehavior::kExclusive ? !test_and_set_bit(page, bit)
                                                : !page_test(page, bit);
}

WaitLink* next_of(const WaitLink& link) {
    return link.next.load(std::memory_order_relaxed);
}

void insert_before(WaitLink& place, WaitLink& link) {
    WaitLink* const last = place.prev.load(std::memory_order_relaxed);
    link.prev.store(last, std::memory_order_relaxed);
    link.next.store(&place, std::memory_order_relaxed);
    last->next.store(&link, std::memory_order_relaxed);
    place.prev.store(&link, std::memory_order_relaxed);
}

// The waker's last access to an entry: from here on its owner may leave without taking the lock,
// and the stack frame is gone (W3). Source: list_del_init_careful, list_del_init.
void unlink(WaitLink& link, Unlink how) {
    WaitLink* const next = next_of(link);
    WaitLink* const prev = link.prev.load(std::memory_order_relaxed);
    next->prev.store(prev, std::memory_order_relaxed);
    prev->next.store(next, std::memory_order_relaxed);
    // switch: unlink, 17.2 h. Plain: `next` comes home before `prev`, so one look at `next` proves
    // nothing, and the owner has to see both. The kernel's stores were not even ordered, for which
    // C++ has no word; these are, so what is lost is the single look.
    if (how == Unlink::kCareful) {
        link.prev.store(&link, std::memory_order_relaxed);
        link.next.store(&link, std::memory_order_release);  // B
    } else {
        link.next.store(&link, std::memory_order_release);
        WBFAT_POINT("unlink:half");
        link.prev.store(&link, std::memory_order_release);  // B
    }
}

// The other side of unlink: whether the waker is done with the entry. Source: list_empty_careful.
bool is_left_alone(const WaitLink& link, Unlink how) {
    return link.next.load(std::memory_order_acquire) == &link &&
           (how == Unlink::kCareful || link.prev.load(std::memory_order_acquire) == &link);  // B
}

// What the walk does after an entry. Source: the wake function's return value.
enum class WakeVerdict {
    kGoOn,  // 0: not for this entry, or a shared one was woken
    kStop,  // 1: an exclusive one was woken; -1: the bit is taken again
};

struct WakeKey {
    Page& page;
    PageFlag bit{};
    Protocol protocol;
    bool page_match = false;  // somebody waits on this page, whatever for
};

// D3 to D5: flag, wake, unlink.
void release_waiter(WaitEntry& entry, std::uint32_t state, const Protocol& protocol) {
    sync::Task* const task = entry.task;
    // By address: the waker of a page without a reference may be late (writeback-protocol.md 6).
    trace_page_by_address(TraceKind::kWake, *entry.page, trace_wake_detail(entry.bit, task->id()));
    entry.state.store(state | kWoken, std::memory_order_release);  // A
    WBFAT_POINT("wake:flagged");
    // switch: order, 17.2 g. Woken first, the sleeper cannot leave before the unlink: it either
    // finds itself linked and needs the bucket lock, or finds itself unlinked. Unlinked first, it
    // may be gone, and its task with it, when unpark() touches that.
    if (protocol.order == WakeOrder::kWakeThenUnlink) {
        task->unpark();
        WBFAT_POINT("wake:woken");
        unlink(entry, protocol.unlink);
    } else {
        unlink(entry, protocol.unlink);
        WBFAT_POINT("wake:unlinked");
        task->unpark();
    }
}

// Requires the bucket lock. Source: wake_page_function.
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
    // switch: wake, 17.2 b. Blind: a shared sleeper is told that the bit was clear once, which may
    // have been before the sleeper came; whoever believes that needs a loop of its own.
    if (exclusive || key.protocol.wake == SharedWake::kTest) {
        if (page_test(key.page, key.bit)) {
            return WakeVerdict::kStop;  // taken again; the taker's release comes by here again
        }
    }
    if ((state & kHandoff) != 0) {
        if (test_and_set_bit(key.page, key.bit)) {
            return WakeVerdict::kStop;
        }
        state |= kDone;
    }
    release_waiter(entry, state, key.protocol);
    return exclusive ? WakeVerdict::kStop : WakeVerdict::kGoOn;
}

// Source: __wake_up_common; WAITQUEUE_WALK_BREAK_CNT.
void walk_queue(Bucket& bucket, WakeKey& key) REQUIRES(bucket.lock) {
    constexpr unsigned kWalkBreak = 64;
    WaitEntry bookmark;
    unsigned passed = 0;
    WaitLink* link = next_of(bucket.head);
    while (link != &bucket.head) {
        WaitLink* const next = next_of(*link);
        auto& entry = static_cast<WaitEntry&>(*link);
        if (entry.task != nullptr && wake_page_function(entry, key) == WakeVerdict::kStop) {
            return;
        }
        link = next;
        // switch: walk. Broken: the queue is others' for a moment, and one wake-up is no longer one
        // act: who queues meanwhile, for a bit that was set meanwhile, is woken too.
        if (key.protocol.walk == WakeWalk::kBroken && ++passed == kWalkBreak &&
            next != &bucket.head) {
            passed = 0;
            insert_before(*next, bookmark);
            bucket.lock.unlock();
            WBFAT_POINT("wake:broken");
            bucket.lock.lock();
            link = next_of(bookmark);
            unlink(bookmark, Unlink::kCareful);
        }
    }
}

// Walks, and takes PG_waiters away if nobody is left to need it.
void wake_locked(Bucket& bucket, WakeKey& key) REQUIRES(bucket.lock) {
    walk_queue(bucket, key);
    // With other pages' waiters in the bucket and none of ours matched, nobody waits for this page.
    // If ours matched, some may be left; a mark too many is cleaned by the next waker (W2).
    const bool queue_empty = next_of(bucket.head) == &bucket.head;
    if (queue_empty || !key.page_match) {
        key.page.flags.clear(PG_waiters);
    }
}

// Source: finish_wait.
void finish_wait(Bucket& bucket, WaitEntry& entry, const Protocol& protocol) {
    WBFAT_POINT("wait:finish");
    if (is_left_alone(entry, protocol.unlink)) {
        return;
    }
    const sync::SpinLockGuard guard(bucket.lock);
    if (next_of(entry) != &entry) {
        PAGE_ASSERT(*entry.page, Assertion::kWaitersFlag,
                    entry.behavior == WaitBehavior::kDrop || page_test(*entry.page, PG_waiters),
                    "somebody is queued and PG_waiters is clear");
        unlink(entry, Unlink::kCareful);
    }
}

// One wait of either kind.
class PageWait {
public:
    PageWait(Page& page, PageFlag bit, Interruptible state, WaitBehavior behavior)
        : protocol_(current_protocol()),
          bucket_(bucket_for(page)),
          page_(page),
          state_(state),
          behavior_(behavior),
          entry_(page, bit, behavior),
          unfairness_(protocol_.handoff) {}

    // switch: waiter, 17.2 a. Who rechecks cannot be fooled by a wake-up meant for an earlier
    // holder of the bit, and pays with its place: every lost race sends it to the tail. Who trusts
    // keeps its turn, and knows only that the bit was clear once.
    Result<> run() {
        trace_page(TraceKind::kWaitBegin, page_, entry_.bit);
        const bool interrupted =
            protocol_.waiter == Waiter::kRecheck ? sleep_and_recheck() : sleep_and_trust();
        finish_wait(bucket_, entry_, protocol_);
        PAGE_ASSERT(page_, Assertion::kWaitEntryLeft, next_of(entry_) == &entry_,
                    "a wait is over and its entry is queued");
        const Result<> result = interrupted ? outcome_of_interruption() : Result<>();
        if (behavior_ == WaitBehavior::kDrop) {
            trace_page_by_address(TraceKind::kWaitEnd, page_, entry_.bit);
        } else {
            trace_page(TraceKind::kWaitEnd, page_, entry_.bit);
        }
        if (behavior_ == WaitBehavior::kExclusive && result.has_value() &&
            entry_.bit == PG_locked) {
            trace_page(TraceKind::kLock, page_, was_handed_over() ? 1 : 0);
        }
        return result;
    }

private:
    Result<> outcome_of_interruption() {
        // Only now is the state final: a waker may have come between the interruption and the
        // unlinking, and a lock it handed over must not be lost. To one who rechecks its flag alone
        // means nothing.
        const bool flag_counts =
            behavior_ != WaitBehavior::kExclusive && protocol_.waiter == Waiter::kTrust;
        const std::uint32_t won = flag_counts ? kWoken : kDone;
        const std::uint32_t flags = entry_.state.load(std::memory_order_acquire);
        if ((flags & won) != 0) {
            return {};
        }
        // A wake-up of an exclusive sleeper is for one. Who is interrupted before he could use it
        // hands it on, or the next in turn sleeps beside a free lock. Differs: the kernel's killed
        // sleeper keeps it, until whoever comes next unlocks.
        if (behavior_ == WaitBehavior::kExclusive && (flags & kWoken) != 0) {
            wake_up_page_bit(page_, entry_.bit);
        }
        return Errno{EINTR};
    }

    [[nodiscard]] bool was_handed_over() const {
        constexpr std::uint32_t kGift = kHandoff | kDone;
        return (entry_.state.load(std::memory_order_relaxed) & kGift) == kGift;
    }

    // The state of a new round.
    void start_round() {
        std::uint32_t flags = 0;
        if (behavior_ == WaitBehavior::kExclusive) {
            flags = kExclusive;
            // switch: handoff, 17.2 f. Never: who runs takes the lock from under those who were
            // woken for it, for ever if need be. Always: the lock stands idle until the next in
            // turn has its CPU. After some stolen rounds: a bit of both.
            if (protocol_.handoff != kHandoffNever && --unfairness_ < 0) {
                flags |= kHandoff;
            }
        }
        entry_.state.store(flags, std::memory_order_relaxed);
    }

    // What the points are about. A kDrop sleeper's page may be anybody's.
    [[nodiscard]] sync::PointSubject subject() const {
        return behavior_ == WaitBehavior::kDrop ? sync::PointSubject{.what = "locked"}
                                                : point_subject(page_, entry_.bit);
    }

    [[nodiscard]] bool must_leave() const {
        return state_ == Interruptible::kKillable && entry_.task->interrupted();
    }

    // Sleeps until a waker has flagged the entry. Returns false when interrupted.
    bool sleep_until_flagged() {
        while ((entry_.state.load(std::memory_order_acquire) & kWoken) == 0) {  // A
            if (must_leave()) {
                return false;
            }
            WBFAT_POINT("wait:before_sleep", subject());
            entry_.task->park();
        }
        return true;
    }

    // --- until 5.8: writeback-protocol.md 3.1. Both return whether the wait was interrupted.

    bool sleep_and_recheck() {
        for (;;) {
            enqueue_again();  // A1 to A4
            WBFAT_POINT("wait:queued", subject());
            const bool is_set = page_test(page_, entry_.bit);  // A5
            if (behavior_ == WaitBehavior::kDrop) {
                put_page(page_);  // A6: from here the page may be anybody's
            }
            if (is_set) {
                static_cast<void>(sleep_until_flagged());  // A7
            }
            WBFAT_POINT("wait:woken", subject());
            if (behavior_ != WaitBehavior::kDrop && try_to_finish()) {  // A8
                return false;
            }
            if (must_leave()) {  // A9
                return true;
            }
            if (behavior_ == WaitBehavior::kDrop) {  // A10
                return false;
            }
        }  // A11
    }

    // Still queued after a wake-up that was not for it keeps its place; unqueued goes to the tail.
    void enqueue_again() {
        const sync::SpinLockGuard guard(bucket_.lock);
        if (next_of(entry_) == &entry_) {
            start_round();
            insert_before(bucket_.head, entry_);
            entry_.page->flags.set(PG_waiters);
            WBFAT_POINT("wait:waiters_set");
        }
    }

    bool try_to_finish() {
        if ((entry_.state.load(std::memory_order_acquire) & kDone) != 0) {
            return true;  // handed over
        }
        return try_bit(page_, entry_.bit, behavior_);
    }

    // --- since 5.9: writeback-protocol.md 5.1

    bool sleep_and_trust() {
        for (;;) {
            // C0. A stolen round left the entry woken, so nobody writes its state any more; its
            // unlinking may still be under way, and is over once we have the bucket lock.
            start_round();
            enqueue_or_take();  // C1 to C4
            if (behavior_ == WaitBehavior::kDrop) {
                put_page(page_);  // C5: from here the page may be anybody's
            }
            WBFAT_POINT("wait:queued", subject());
            if (!sleep_until_flagged()) {
                return true;
            }
            WBFAT_POINT("wait:woken", subject());
            const std::uint32_t flags = entry_.state.load(std::memory_order_relaxed);
            if (behavior_ != WaitBehavior::kExclusive || (flags & kDone) != 0) {
                return false;  // C6 d, e
            }
            if (!test_and_set_bit(page_, entry_.bit)) {
                return false;  // C6 f
            }
        }
    }

    // Sets PG_waiters, tests or takes the bit, and queues the entry if that failed.
    void enqueue_or_take() {
        const sync::SpinLockGuard guard(bucket_.lock);
        entry_.page->flags.set(PG_waiters);
        WBFAT_POINT("wait:waiters_set");
        if (try_bit(page_, entry_.bit, behavior_)) {
            entry_.state.fetch_or(kWoken | kDone, std::memory_order_relaxed);
            return;
        }
        insert_before(bucket_.head, entry_);
    }

    const Protocol protocol_;
    Bucket& bucket_;
    Page& page_;
    const Interruptible state_;
    const WaitBehavior behavior_;
    WaitEntry entry_;
    int unfairness_;
};

}  // namespace

Result<> wait_on_page_bit_common(Page& page, PageFlag bit, Interruptible state,
                                 WaitBehavior behavior) {
    count_wait(page, bit);
    return PageWait(page, bit, state, behavior).run();
}

void wake_up_page_bit(Page& page, PageFlag bit) {
    WBFAT_POINT("wake:before_queue_lock", page, bit);
    Bucket& bucket = bucket_for(page);
    WakeKey key{.page = page, .bit = bit, .protocol = current_protocol()};
    const sync::SpinLockGuard guard(bucket.lock);
    wake_locked(bucket, key);
}

std::uint64_t clear_page_bit_and_wake(Page& page, PageFlag bit) {
    // seq_cst: as the other ways to end a writeback (page_lock.cc).
    constexpr auto kOrder = std::memory_order_seq_cst;
    std::uint64_t old = page.flags.load(std::memory_order_relaxed);
    while ((old & PG_waiters) == 0) {
        if (page.flags.compare_exchange(old, old & ~std::uint64_t{bit}, kOrder)) {
            return old & bit;
        }
    }
    WBFAT_POINT("wake:before_queue_lock", page, bit);
    Bucket& bucket = bucket_for(page);
    WakeKey key{.page = page, .bit = bit, .protocol = current_protocol()};
    const sync::SpinLockGuard guard(bucket.lock);
    old = page.flags.fetch_clear(bit, bit | PG_waiters, kOrder);
    wake_locked(bucket, key);
    return old;
}

std::vector<PageWaiter> page_waiters(const Page* page) {
    std::vector<PageWaiter> waiters;
    for (Bucket& bucket : page_wait_table->buckets) {
        const sync::SpinLockGuard guard(bucket.lock);
        for (WaitLink* link = next_of(bucket.head); link != &bucket.head; link = next_of(*link)) {
            const auto& entry = static_cast<const WaitEntry&>(*link);
            if (entry.task == nullptr || (page != nullptr && entry.page != page)) {
                continue;
            }
            waiters.push_back({.page = entry.page,
                               .bit = entry.bit,
                               .behavior = entry.behavior,
                               .task = entry.task->name(),
                               .since = entry.since,
                               .bit_is_clear = !page_test(*entry.page, entry.bit)});
        }
    }
    return waiters;
}

std::vector<PageWaiter> hung_page_waiters(sync::Nanoseconds limit) {
    std::vector<PageWaiter> waiters = page_waiters();
    const sync::Nanoseconds now = sync::monotonic_now();
    std::erase_if(waiters, [=](const PageWaiter& waiter) { return now - waiter.since <= limit; });
    return waiters;
}

PageWaitStats page_wait_stats() {
    return {.lock_waits = page_wait_table->lock_waits.load(),
            .writeback_waits = page_wait_table->writeback_waits.load()};
}

}  // namespace wbfat::cache::inline WBFAT_RT
