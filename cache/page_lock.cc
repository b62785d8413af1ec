// The page protocol: lock, dirty, writeback, wait.
#include "cache/page_lock.h"

#include "cache/address_space.h"
#include "cache/assertions.h"
#include "cache/base/check.h"
#include "cache/counters.h"
#include "cache/flusher.h"
#include "cache/page_frames.h"
#include "cache/page_lock_order.h"
#include "cache/page_wait.h"
#include "cache/protocol.h"
#include "cache/trace.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

void assert_locked(const Page& page) {
    PAGE_ASSERT(page, Assertion::kPageNotLocked, page_test(page, PG_locked),
                "the page lock is not held");
}

// Sets PG_dirty; newly dirty pages of a mapping get the mark, the count, and a place on the
// flusher's list. Returns whether the page was clean before.
bool dirty_page(Page& page, BlockMask blocks) REQUIRES(page) {
    page.dirty_blocks |= blocks;
    // A page that is written again is of use again: reclaim must not hurry it out.
    page.flags.clear(PG_reclaim, std::memory_order_relaxed);
    if (page.flags.test_and_set(PG_dirty)) {
        return false;
    }
    WBFAT_POINT("set_dirty:flagged", page);
    // Stable: the page lock is held.
    AddressSpace* const mapping = page.mapping.load(std::memory_order_relaxed);
    if (mapping == nullptr) {
        return true;
    }
    {
        const sync::SpinLockGuard guard(mapping->i_pages.lock());
        mapping->i_pages.set_tag_locked(page.index, PAGECACHE_TAG_DIRTY);
    }
    PageCache::Counters& counters = mapping->cache().counters();
    counters.nr_dirty.add();
    trace_page(TraceKind::kDirty, page, counters.nr_dirty.value());
    mapping->cache().flusher().mark_inode_dirty(*mapping, I_DIRTY_PAGES);
    return true;
}

// Clears PG_dirty and the account of it. Returns whether it was set.
bool undirty_page(Page& page) REQUIRES(page) {
    if (!page.flags.test_and_clear(PG_dirty)) {
        return false;
    }
    if (AddressSpace* const mapping = page.mapping.load(std::memory_order_relaxed)) {
        PageCache::Counters& counters = mapping->cache().counters();
        counters.nr_dirty.sub();
        trace_page(TraceKind::kClearDirty, page, counters.nr_dirty.value());
    }
    return true;
}

// I5: the mark falls only with set_page_writeback or with the dirtiness itself.
void assert_dirty_mark(Page& page) REQUIRES(page) {
    if (AddressSpace* const mapping = page.mapping.load(std::memory_order_relaxed)) {
        const sync::SpinLockGuard guard(mapping->i_pages.lock());
        PAGE_ASSERT(page, Assertion::kDirtyMark,
                    mapping->i_pages.get_tag_locked(page.index, PAGECACHE_TAG_DIRTY),
                    "the page was dirty without its mark");
    }
}

}  // namespace

// --- the lock

bool trylock_page(Page& page) NO_THREAD_SAFETY_ANALYSIS {  // is the capability
    if (page.flags.test_and_set(PG_locked, std::memory_order_acquire)) {
        return false;
    }
    trace_page(TraceKind::kLock, page);
    note_page_locked(page);
    return true;
}

void lock_page(Page& page) NO_THREAD_SAFETY_ANALYSIS {  // is the capability
    check_page_lock_order(page);
    if (!trylock_page(page)) {
        // Uninterruptible: never fails.
        static_cast<void>(
            wait_on_page_bit_common(page, PG_locked, Interruptible::kNo, WaitBehavior::kExclusive));
        note_page_locked(page);
    }
}

Result<> lock_page_killable(Page& page) NO_THREAD_SAFETY_ANALYSIS {  // conditionally acquires
    check_page_lock_order(page);
    if (!trylock_page(page)) {
        TRY_VOID(wait_on_page_bit_common(page, PG_locked, Interruptible::kKillable,
                                         WaitBehavior::kExclusive));
        note_page_locked(page);
    }
    return {};
}

void unlock_page(Page& page) NO_THREAD_SAFETY_ANALYSIS {  // is the capability
    assert_page_state(page);
    trace_page(TraceKind::kUnlock, page);
    note_page_released(page);
    // switch: end, 17.2 d. All versions clear PG_locked and learn of waiters in one operation; only
    // with the queue lock is waking part of it too, and no thief comes before a hand-off.
    if (current_protocol().end == EndClear::kQueueLock) {
        clear_page_bit_and_wake(page, PG_locked);
        return;
    }
    const bool waiters =
        page.flags.fetch_toggle(PG_locked, PG_waiters, std::memory_order_release) != 0;
    WBFAT_POINT("unlock_page:cleared", page);
    if (waiters) {
        wake_up_page_bit(page, PG_locked);
    }
}

void assert_page_locked(const Page& page) NO_THREAD_SAFETY_ANALYSIS {  // asserts the capability
    assert_locked(page);
}

void wait_on_page_locked(Page& page) {
    if (page_test(page, PG_locked)) {
        static_cast<void>(
            wait_on_page_bit_common(page, PG_locked, Interruptible::kNo, WaitBehavior::kShared));
    }
}

Result<> wait_on_page_locked_killable(Page& page) {
    if (!page_test(page, PG_locked)) {
        return {};
    }
    return wait_on_page_bit_common(page, PG_locked, Interruptible::kKillable,
                                   WaitBehavior::kShared);
}

Result<> put_and_wait_on_page_locked(Page& page, Interruptible state) {
    return wait_on_page_bit_common(page, PG_locked, state, WaitBehavior::kDrop);
}

// --- dirty

void set_page_dirty(Page& page, BlockMask blocks) {
    assert_locked(page);
    if (blocks != 0 && dirty_page(page, blocks)) {
        if (AddressSpace* const mapping = page.mapping.load(std::memory_order_relaxed)) {
            mapping->cache().counters().pages_dirtied.add();
        }
    }
}

BlockMask clear_page_dirty_for_io(Page& page) {
    assert_locked(page);
    if (!undirty_page(page)) {
        return 0;
    }
    const BlockMask blocks = page.dirty_blocks;
    PAGE_ASSERT(page, Assertion::kDirtyBlocks, blocks != 0, "a dirty page has no dirty blocks");
    if (assertion_enabled(Assertion::kDirtyMark)) {
        assert_dirty_mark(page);
    }
    page.dirty_blocks = 0;
    WBFAT_POINT("clear_dirty:cleared", page);
    return blocks;
}

void redirty_page_for_writepage(Page& page, BlockMask blocks) {
    assert_locked(page);
    if (blocks != 0) {
        dirty_page(page, blocks);
    }
}

void cancel_dirty_page(Page& page, BlockMask blocks) {
    assert_locked(page);
    page.dirty_blocks = static_cast<BlockMask>(page.dirty_blocks & ~blocks);
    if (page.dirty_blocks != 0 || !undirty_page(page)) {
        return;
    }
    ++page.write_sequence;
    // Differs: the kernel leaves the marks to the removal that follows. Here the page may stay, and
    // a mark that nothing stands behind would keep the inode on the flusher's lists. No integrity
    // walk can miss anything: what it would have written is being thrown away.
    if (AddressSpace* const mapping = page.mapping.load(std::memory_order_relaxed)) {
        const sync::SpinLockGuard guard(mapping->i_pages.lock());
        mapping->i_pages.clear_tag_locked(page.index, PAGECACHE_TAG_DIRTY);
        mapping->i_pages.clear_tag_locked(page.index, PAGECACHE_TAG_TOWRITE);
    }
}

// --- writeback

void prepare_page_writeback(Page& page) {
    assert_locked(page);
    // switch: set, 9.3 (5). After-wait: between the wait and set_page_writeback the bit is
    // nobody's, and that it stays clear rests on the page lock and on an honest wait. With-wait:
    // the bit goes from hand to hand as a lock does; a writer that finds nothing to write has to
    // give it back.
    if (current_protocol().set == SetWriteback::kAfterWait) {
        wait_on_page_writeback(page);
        PAGE_ASSERT(page, Assertion::kWaitStale, !page_test(page, PG_writeback),
                    "the wait under the page lock came back with the bit set");
        return;
    }
    if (!try_prepare_page_writeback(page)) {
        WBFAT_POINT("wait_writeback:seen", page);
        static_cast<void>(wait_on_page_bit_common(page, PG_writeback, Interruptible::kNo,
                                                  WaitBehavior::kExclusive));
        WBFAT_POINT("wait_writeback:woken", page);
    }
}

bool try_prepare_page_writeback(Page& page) {
    assert_locked(page);
    if (current_protocol().set == SetWriteback::kAfterWait) {
        return !page_test(page, PG_writeback);
    }
    return !page.flags.test_and_set(PG_writeback, std::memory_order_acquire);
}

namespace {

enum class Towrite { kClear, kKeep };

// I4.
void assert_writeback_mark(AddressSpace& mapping, Page& page) REQUIRES(mapping.i_pages.lock()) {
    PAGE_ASSERT(page, Assertion::kWritebackMark,
                mapping.i_pages.get_tag_locked(page.index, PAGECACHE_TAG_WRITEBACK) ==
                    page_test(page, PG_writeback),
                "PG_writeback and the WRITEBACK mark disagree");
}

// Bit and marks in one i_pages section: at any moment a page that still owes its data to the disk
// is DIRTY or WRITEBACK, or locked. Returns whether the writeback is a new one.
bool set_bit_and_marks(AddressSpace* mapping, Page& page, bool is_ours, Towrite towrite) {
    if (mapping == nullptr) {
        return !page.flags.test_and_set(PG_writeback) || is_ours;
    }
    const sync::SpinLockGuard guard(mapping->i_pages.lock());
    if (!is_ours && assertion_enabled(Assertion::kWritebackMark)) {
        assert_writeback_mark(*mapping, page);
    }
    const std::uint64_t old = page.flags.fetch_set(PG_writeback, PG_writeback | PG_dirty);
    // Set already, and not by us: an earlier write is in flight, whose end will clear the mark and
    // the count for both (writeback-protocol.md 9.2).
    const bool newly = is_ours || (old & PG_writeback) == 0;
    if (newly) {
        mapping->i_pages.set_tag_locked(page.index, PAGECACHE_TAG_WRITEBACK);
    }
    if ((old & PG_dirty) == 0) {
        mapping->i_pages.clear_tag_locked(page.index, PAGECACHE_TAG_DIRTY);
    }
    if (towrite == Towrite::kClear) {
        mapping->i_pages.clear_tag_locked(page.index, PAGECACHE_TAG_TOWRITE);
    }
    return newly;
}

void start_writeback(Page& page, Towrite towrite) REQUIRES(page) {
    // In 6.19 two assertions of __folio_start_writeback; older kernels ask less.
    PAGE_ASSERT(page, Assertion::kSetWritebackUnlocked, page_test(page, PG_locked),
                "the page lock is not held");
    const bool is_ours = current_protocol().set == SetWriteback::kWithWait;
    PAGE_ASSERT(page, Assertion::kSetWritebackTwice, page_test(page, PG_writeback) == is_ours,
                "PageWriteback already set");
    AddressSpace* const mapping = page.mapping.load(std::memory_order_relaxed);
    PAGE_BUG_ON(page, mapping == nullptr, "P2", "writeback of a page that is in no mapping");
    ++page.write_sequence;
    PageCache::Counters& counters = page.frames->cache().counters();
    const bool newly = set_bit_and_marks(mapping, page, is_ours, towrite);
    PAGE_ASSERT(page, Assertion::kTwoWrites, newly, "an earlier write of the page is in flight");
    if (newly) {
        counters.nr_writeback.add();
    }
    trace_page(TraceKind::kSetWriteback, page, counters.nr_writeback.value());
    WBFAT_POINT("set_writeback:done", page);
}

// Returns PG_writeback and PG_waiters as they were before; with the queue lock the sleepers are
// awake by then.
std::uint64_t clear_bit(Page& page, EndClear how) {
    // seq_cst: pairs with the allocator's count of sleepers in PageFrames::page_came_clean.
    constexpr auto kOrder = std::memory_order_seq_cst;
    constexpr std::uint64_t kSeen = PG_writeback | PG_waiters;
    // switch: end, 17.2 d. Split: who comes to wait between the clear and the look at PG_waiters is
    // woken by an end that was not its own. Xor: only who was there before the clear, or whoever
    // shares PG_waiters with one who was. Queue-lock: nobody; the price is the bucket lock inside
    // the i_pages lock.
    switch (how) {
        case EndClear::kSplit:
            return page.flags.fetch_clear(PG_writeback, kSeen, kOrder);
        case EndClear::kXor:
            return page.flags.fetch_toggle(PG_writeback, kSeen, kOrder);
        default:
            return clear_page_bit_and_wake(page, PG_writeback);
    }
}

// The bit and its mark in one section. Source: test_clear_page_writeback, __folio_end_writeback.
std::uint64_t clear_writeback(AddressSpace* mapping, Page& page, EndClear how) {
    if (mapping == nullptr) {
        return clear_bit(page, how);
    }
    const pgoff_t index = page.index;
    const sync::SpinLockGuard guard(mapping->i_pages.lock());
    if (assertion_enabled(Assertion::kWritebackMark)) {
        assert_writeback_mark(*mapping, page);
    }
    const std::uint64_t old = clear_bit(page, how);
    if ((old & PG_writeback) != 0) {
        mapping->i_pages.clear_tag_locked(index, PAGECACHE_TAG_WRITEBACK);
    }
    return old;
}

// What end_page_writeback holds on to while it looks at a page that may be anybody's by now.
// switch: ref, 17.2 e. PG_writeback has kept the page in its mapping, which holds a reference. The
// moment it is clear, truncation may free the page under our feet; without a reference of our own
// it may be somebody else's page that we look at next, and whose sleepers we wake.
class EndHold {
public:
    EndHold(Page& page, EndReference reference) : page_(page), reference_(reference) {
        if (reference_ == EndReference::kHeld) {
            get_page(page_);
        } else {
            generation_ = page_.generation.load(std::memory_order_relaxed);
        }
    }
    ~EndHold() {
        if (reference_ == EndReference::kHeld) {
            put_page(page_);
        }
    }
    EndHold(const EndHold&) = delete;
    EndHold& operator=(const EndHold&) = delete;

    // Before each touch.
    void assert_not_reused() const {
        if (reference_ == EndReference::kNone) {
            const bool reused = page_.generation.load(std::memory_order_relaxed) != generation_ ||
                                page_.refcount.load(std::memory_order_relaxed) == 0;
            PAGE_ASSERT(page_, Assertion::kLateTouch, !reused,
                        "late touch: the frame is free, or another page's");
        }
    }

private:
    Page& page_;
    const EndReference reference_;
    std::uint32_t generation_ = 0;
};

// What is left of an end once the bit is clear: finding the sleepers.
void wake_writeback_waiters(Page& page, const EndHold& hold, std::uint64_t old, EndClear how) {
    if (how == EndClear::kQueueLock) {
        return;
    }
    bool waiters = (old & PG_waiters) != 0;
    if (how == EndClear::kSplit) {
        hold.assert_not_reused();
        waiters = page_test(page, PG_waiters);
        WBFAT_POINT("end_writeback:waiters_read", page);
    }
    if (waiters) {
        hold.assert_not_reused();
        wake_up_page_bit(page, PG_writeback);
    }
}

}  // namespace

void set_page_writeback(Page& page) {
    start_writeback(page, Towrite::kClear);
}

void set_page_writeback_keepwrite(Page& page) {
    start_writeback(page, Towrite::kKeep);
}

namespace {

void give_up_end(Page& page, EndLock end_lock) NO_THREAD_SAFETY_ANALYSIS {  // as it was taken
    if (end_lock == EndLock::kYes) {
        unlock_page(page);
    }
}

}  // namespace

void end_page_writeback(Page& page) NO_THREAD_SAFETY_ANALYSIS {  // locks under one protocol only
    const Protocol protocol = current_protocol();
    WBFAT_POINT("end_writeback:begin", page);
    // switch: end-lock, 9.3 (4). With the lock, set and clear are serialised as the mail wishes;
    // and a completion waits for whoever waits, lock in hand, for this very completion.
    if (protocol.end_lock == EndLock::kYes) {
        WBFAT_POINT("end_writeback:before_lock", page);
        lock_page(page);
    }
    // The xor sets a clear bit, and the page stays under writeback for ever; the other two only
    // find nothing to do. A volume that is shut down must come to rest: nothing is ended twice.
    PAGE_ASSERT_ELSE(page, Assertion::kEndWritebackClear, page_test(page, PG_writeback),
                     "PageWriteback not set", return give_up_end(page, protocol.end_lock));
    if (page_test(page, PG_reclaim)) {
        page.flags.clear(PG_reclaim, std::memory_order_relaxed);
        page.frames->rotate_reclaimable(page);
    }
    const EndHold hold(page, protocol.ref);
    PageFrames& frames = *page.frames;
    // Read without the page lock: P2 keeps it until the bit is clear, and the i_pages lock until we
    // have left.
    AddressSpace* const mapping = page.mapping.load(std::memory_order_relaxed);
    PAGE_ASSERT(page, Assertion::kEndWritebackTruncated, mapping != nullptr,
                "a page under writeback has left its mapping");
    PageCache::Counters& counters = frames.cache().counters();
    // Before the step: after it the page may be another's.
    trace_page(TraceKind::kClearWriteback, page, counters.nr_writeback.value());
    const std::uint64_t old = clear_writeback(mapping, page, protocol.end);
    // From here the mapping may be gone; the cache is not.
    if ((old & PG_writeback) != 0) {
        counters.nr_writeback.sub();
        counters.pages_written.add();
    }
    WBFAT_POINT("end_writeback:cleared", page);
    wake_writeback_waiters(page, hold, old, protocol.end);
    frames.page_came_clean();
    if (protocol.end_lock == EndLock::kYes) {
        unlock_page(page);
    }
}

void wait_on_page_writeback(Page& page) {
    // switch: wait, 17.2 c. A wake-up may belong to an earlier writeback of this page than the one
    // that runs now; whoever asks once (`if`) takes it for its own. Whoever loops can, without the
    // page lock, be kept waiting by one writeback after the other.
    const OuterWait again = current_protocol().wait;
    while (page_test(page, PG_writeback)) {
        WBFAT_POINT("wait_writeback:seen", page);
        static_cast<void>(
            wait_on_page_bit_common(page, PG_writeback, Interruptible::kNo, WaitBehavior::kShared));
        WBFAT_POINT("wait_writeback:woken", page);
        if (again == OuterWait::kIf) {
            return;
        }
    }
}

void wait_in_earnest(Page& page) {
    while (page_test(page, PG_writeback)) {
        wait_on_page_writeback(page);
    }
}

Result<> wait_on_page_writeback_killable(Page& page) {
    const OuterWait again = current_protocol().wait;  // as above
    while (page_test(page, PG_writeback)) {
        TRY_VOID(wait_on_page_bit_common(page, PG_writeback, Interruptible::kKillable,
                                         WaitBehavior::kShared));
        if (again == OuterWait::kIf) {
            break;
        }
    }
    return {};
}

void wait_for_stable_page(Page& page) {
    const AddressSpace* const mapping = page.mapping.load(std::memory_order_relaxed);
    if (mapping != nullptr && mapping->stable_pages()) {
        wait_on_page_writeback(page);
        PAGE_ASSERT(page, Assertion::kWaitStale, !page_test(page, PG_writeback),
                    "the wait under the page lock came back with the bit set");
    }
}

}  // namespace wbfat::cache::inline WBFAT_RT
