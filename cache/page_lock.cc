// The page protocol: lock, dirty, writeback, wait.
#include "cache/page_lock.h"

#include "cache/address_space.h"
#include "cache/base/check.h"
#include "cache/counters.h"
#include "cache/flusher.h"
#include "cache/page_frames.h"
#include "cache/page_wait.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

void assert_locked(const Page& page) {
    PAGE_BUG_ON(page, !page_test(page, PG_locked), "P1", "the page lock is not held");
}

// Sets PG_dirty; newly dirty pages of a mapping get the mark, the count, and a place on the
// flusher's list. Returns whether the page was clean before.
bool dirty_page(Page& page, BlockMask blocks) REQUIRES(page) {
    page.dirty_blocks |= blocks;
    // A page that is written again is of use again: reclaim must not hurry it out.
    page.flags.fetch_and(~std::uint64_t{PG_reclaim}, std::memory_order_relaxed);
    const std::uint64_t old = page.flags.fetch_or(PG_dirty, std::memory_order_acq_rel);
    if ((old & PG_dirty) != 0) {
        return false;
    }
    WBFAT_POINT("set_dirty:flagged");
    // Stable: the page lock is held.
    AddressSpace* const mapping = page.mapping.load(std::memory_order_relaxed);
    if (mapping == nullptr) {
        return true;
    }
    {
        const sync::SpinLockGuard guard(mapping->i_pages.lock());
        mapping->i_pages.set_tag_locked(page.index, PAGECACHE_TAG_DIRTY);
    }
    mapping->cache().counters().nr_dirty.add();
    mapping->cache().flusher().mark_inode_dirty(*mapping, I_DIRTY_PAGES);
    return true;
}

// Clears PG_dirty and the account of it. Returns whether it was set.
bool undirty_page(Page& page) REQUIRES(page) {
    const std::uint64_t old =
        page.flags.fetch_and(~std::uint64_t{PG_dirty}, std::memory_order_acq_rel);
    if ((old & PG_dirty) == 0) {
        return false;
    }
    if (AddressSpace* const mapping = page.mapping.load(std::memory_order_relaxed)) {
        mapping->cache().counters().nr_dirty.sub();
    }
    return true;
}

}  // namespace

// --- the lock

bool trylock_page(Page& page) NO_THREAD_SAFETY_ANALYSIS {  // is the capability
    return (page.flags.fetch_or(PG_locked, std::memory_order_acquire) & PG_locked) == 0;
}

void lock_page(Page& page) NO_THREAD_SAFETY_ANALYSIS {  // is the capability
    if (!trylock_page(page)) {
        // Uninterruptible: never fails.
        static_cast<void>(
            wait_on_page_bit_common(page, PG_locked, Interruptible::kNo, WaitBehavior::kExclusive));
    }
}

Result<> lock_page_killable(Page& page) NO_THREAD_SAFETY_ANALYSIS {  // conditionally acquires
    if (trylock_page(page)) {
        return {};
    }
    return wait_on_page_bit_common(page, PG_locked, Interruptible::kKillable,
                                   WaitBehavior::kExclusive);
}

void unlock_page(Page& page) NO_THREAD_SAFETY_ANALYSIS {  // is the capability
    assert_page_state(page);
    // switch: one xor that tells of waiters (6.8, here), or a clear and a read; section 17.2 d.
    const std::uint64_t old = page.flags.fetch_xor(PG_locked, std::memory_order_release);
    WBFAT_POINT("unlock_page:cleared");
    if ((old & PG_waiters) != 0) {
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

void put_and_wait_on_page_locked(Page& page) {
    static_cast<void>(
        wait_on_page_bit_common(page, PG_locked, Interruptible::kNo, WaitBehavior::kDrop));
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
    PAGE_BUG_ON(page, blocks == 0, "P5", "a dirty page has no dirty blocks");
    page.dirty_blocks = 0;
    WBFAT_POINT("clear_dirty:cleared");
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

void set_page_writeback(Page& page) {
    assert_locked(page);
    // In 6.19 two assertions of __folio_start_writeback; older kernels ask less.
    PAGE_BUG_ON(page, page_test(page, PG_writeback), "P1", "PageWriteback already set");
    AddressSpace* const mapping = page.mapping.load(std::memory_order_relaxed);
    PAGE_BUG_ON(page, mapping == nullptr, "P2", "writeback of a page that is in no mapping");
    {
        // One section: at any moment a page that still owes its data to the disk is DIRTY or
        // WRITEBACK, or locked.
        const sync::SpinLockGuard guard(mapping->i_pages.lock());
        const std::uint64_t old = page.flags.fetch_or(PG_writeback, std::memory_order_acq_rel);
        mapping->i_pages.set_tag_locked(page.index, PAGECACHE_TAG_WRITEBACK);
        if ((old & PG_dirty) == 0) {
            mapping->i_pages.clear_tag_locked(page.index, PAGECACHE_TAG_DIRTY);
        }
        mapping->i_pages.clear_tag_locked(page.index, PAGECACHE_TAG_TOWRITE);
    }
    mapping->cache().counters().nr_writeback.add();
    WBFAT_POINT("set_writeback:done");
}

void end_page_writeback(Page& page) {
    // The xor below would set a clear bit and the page would stay under writeback for ever.
    PAGE_BUG_ON(page, !page_test(page, PG_writeback), "P2", "PageWriteback not set");
    if (page_test(page, PG_reclaim)) {
        page.flags.fetch_and(~std::uint64_t{PG_reclaim}, std::memory_order_relaxed);
        page.frames->rotate_reclaimable(page);
    }
    // PG_writeback has kept the page in its mapping, which holds a reference. The moment it is
    // clear, truncation may free the page under our feet. switch: a reference across the end
    // (073861ed77b6), or none; section 17.2 e.
    get_page(page);
    PageFrames& frames = *page.frames;
    // Read without the page lock: P2 keeps it until the bit is clear, and the i_pages lock until we
    // have left.
    AddressSpace* const mapping = page.mapping.load(std::memory_order_relaxed);
    PAGE_BUG_ON(page, mapping == nullptr, "P2", "a page under writeback has left its mapping");
    std::uint64_t old = 0;
    {
        const sync::SpinLockGuard guard(mapping->i_pages.lock());
        // switch: one xor that tells of waiters (6.8, here); a clear, then a read (until 5.19); or
        // a clear under the bucket lock (the mail of November 2020); section 17.2 d. seq_cst: pairs
        // with the allocator's count of sleepers in PageFrames::page_came_clean.
        old = page.flags.fetch_xor(PG_writeback, std::memory_order_seq_cst);
        mapping->i_pages.clear_tag_locked(page.index, PAGECACHE_TAG_WRITEBACK);
    }
    // From here the mapping may be gone; the cache is not.
    PageCache::Counters& counters = frames.cache().counters();
    counters.nr_writeback.sub();
    counters.pages_written.add();
    WBFAT_POINT("end_writeback:cleared");
    if ((old & PG_waiters) != 0) {
        wake_up_page_bit(page, PG_writeback);
    }
    frames.page_came_clean();
    put_page(page);
}

void wait_on_page_writeback(Page& page) {
    // A wake-up may belong to an earlier writeback of this page than the one that runs now, so one
    // wait is not enough. switch: `while` (c2407cf7d22d) or `if`; section 17.2 c.
    while (page_test(page, PG_writeback)) {
        WBFAT_POINT("wait_writeback:seen");
        static_cast<void>(
            wait_on_page_bit_common(page, PG_writeback, Interruptible::kNo, WaitBehavior::kShared));
        WBFAT_POINT("wait_writeback:woken");
    }
}

Result<> wait_on_page_writeback_killable(Page& page) {
    while (page_test(page, PG_writeback)) {
        TRY_VOID(wait_on_page_bit_common(page, PG_writeback, Interruptible::kKillable,
                                         WaitBehavior::kShared));
    }
    return {};
}

void wait_for_stable_page(Page& page) {
    const AddressSpace* const mapping = page.mapping.load(std::memory_order_relaxed);
    if (mapping != nullptr && mapping->stable_pages()) {
        wait_on_page_writeback(page);
    }
}

}  // namespace wbfat::cache::inline WBFAT_RT
