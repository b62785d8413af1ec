// The frame arena: free list, LRU, reclaim.
#include "cache/page_frames.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>
#include <utility>

#include <sys/mman.h>

#include "cache/address_space.h"
#include "cache/assertions.h"
#include "cache/base/check.h"
#include "cache/counters.h"
#include "cache/flusher.h"
#include "cache/page_lock.h"
#include "cache/trace.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;

// Pages freed at a time: an allocator that must reclaim does it for the next ones too.
constexpr std::size_t kReclaimBatch = 64;
// Pages looked at under one hold of the lock; each may be a cache miss.
constexpr std::size_t kScanBatch = 128;
// Pages that become free without a wake-up (unlocked, or no longer referenced) are found by looking
// again this often.
constexpr sync::Nanoseconds kSleepMax = 50ms;

// Frames populated at a time.
constexpr std::uint64_t kPopulateFrames = 512;

// Memory that costs nothing until touched.
class FrameMemory {
public:
    FrameMemory() = default;
    ~FrameMemory() {
        operator delete(base_, std::align_val_t(kPageSize));
    }
    FrameMemory(const FrameMemory&) = delete;
    FrameMemory& operator=(const FrameMemory&) = delete;

    Result<> allocate(std::size_t size_bytes) {
        base_ = static_cast<std::byte*>(operator new(size_bytes, std::align_val_t(kPageSize),
                                                     std::nothrow));
        if (base_ == nullptr) {
            return Errno{ENOMEM};
        }
        // Only a hint. A huge page is zeroed as a whole at its first touch, out of memory that no
        // cache and often no host has seen lately; small ones come from what was just freed. Of the
        // daemon's processor time for a sequential write that is a third.
        static_cast<void>(madvise(base_, size_bytes, MADV_NOHUGEPAGE));
        return {};
    }
    [[nodiscard]] std::byte* base() const {
        return base_;
    }
    // Touches a part that will soon be used, in one call instead of a page fault for each page.
    // Only a hint, and Linux 5.14's.
    void populate(std::size_t offset_bytes, std::size_t length_bytes) const {
        static_cast<void>(madvise(base_ + offset_bytes, length_bytes, MADV_POPULATE_WRITE));
    }

private:
    std::byte* base_ = nullptr;
};

struct LruLinks {
    Page* head = nullptr;  // youngest
    Page* tail = nullptr;
    std::uint64_t size = 0;

    void push_head(Page& page) {
        page.lru_prev = nullptr;
        page.lru_next = head;
        (head != nullptr ? head->lru_prev : tail) = &page;
        head = &page;
        ++size;
    }
    void push_tail(Page& page) {
        page.lru_next = nullptr;
        page.lru_prev = tail;
        (tail != nullptr ? tail->lru_next : head) = &page;
        tail = &page;
        ++size;
    }
    void unlink(Page& page) {
        (page.lru_prev != nullptr ? page.lru_prev->lru_next : head) = page.lru_next;
        (page.lru_next != nullptr ? page.lru_next->lru_prev : tail) = page.lru_prev;
        page.lru_prev = nullptr;
        page.lru_next = nullptr;
        --size;
    }
};

LruList list_of(const Page& page) {
    return page.lru_list.load(std::memory_order_relaxed);
}

void clear_referenced(Page& page) {
    page.flags.clear(PG_referenced, std::memory_order_relaxed);
}

}  // namespace

struct PageFrames::Impl {
    // Constant after construction.
    std::uint64_t nr_frames = 0;
    FrameMemory page_memory;
    FrameMemory frame_memory;

    mutable sync::SpinLock lock;
    Page* free_list GUARDED_BY(lock) = nullptr;
    std::uint64_t nr_free_listed GUARDED_BY(lock) = 0;
    // Frames from here on were never handed out and have no Page yet.
    std::uint64_t first_untouched GUARDED_BY(lock) = 0;
    LruLinks inactive GUARDED_BY(lock);
    LruLinks active GUARDED_BY(lock);

    // Counts wake-ups of allocators that sleep.
    sync::Mutex sleep_mutex{sync::LockRank::kLeaf};
    sync::CondVar frame_freed;
    std::uint64_t nr_wakeups GUARDED_BY(sleep_mutex) = 0;

    sync::Atomic<std::int64_t> alloc_timeout_ns{sync::Nanoseconds(30s).count()};

    Page* take_free(PageFrames& frames);
    Page* construct_page_locked(PageFrames& frames) REQUIRES(lock);
    void populate_after(const Page& page) const;
    bool lru_unlink_locked(Page& page) REQUIRES(lock);
    void lru_move_locked(Page& page, LruList list) REQUIRES(lock);
    bool free_locked(Page& page) REQUIRES(lock);
    void balance_locked() REQUIRES(lock);
    std::size_t gather_candidates(std::span<Page*> out, std::uint64_t& scan_budget);
    void deactivate_all();

    LruLinks& links_locked(LruList list) REQUIRES(lock) {
        return list == LruList::kActive ? active : inactive;
    }
};

PageFrames::PageFrames(PageCache& cache, std::unique_ptr<Impl> impl)
    : cache_(cache), impl_(std::move(impl)) {}

Result<std::unique_ptr<PageFrames>> PageFrames::create(PageCache& cache, std::uint64_t nr_frames) {
    auto impl = std::make_unique<Impl>();
    impl->nr_frames = nr_frames;
    TRY_VOID(impl->page_memory.allocate(nr_frames * sizeof(Page)));
    TRY_VOID(impl->frame_memory.allocate(nr_frames * kPageSize));
    return std::unique_ptr<PageFrames>(new PageFrames(cache, std::move(impl)));
}

PageFrames::~PageFrames() {
    CACHE_ASSERT(Assertion::kReferenceLeak, nr_free() == impl_->nr_frames,
                 "the arena is destroyed while pages are in use: a reference or a mapping leaked");
}

PageFrames& PageFrames::of(Page& page) {
    return *page.frames;
}

std::uint64_t PageFrames::nr_frames() const {
    return impl_->nr_frames;
}

std::uint64_t PageFrames::nr_free() const {
    const sync::SpinLockGuard guard(impl_->lock);
    return impl_->nr_free_listed + (impl_->nr_frames - impl_->first_untouched);
}

PageCensus PageFrames::census() const {
    std::uint64_t nr_made = 0;
    {
        const sync::SpinLockGuard guard(impl_->lock);
        nr_made = impl_->first_untouched;
    }
    PageCensus census;
    const auto* const pages =
        std::launder(reinterpret_cast<const Page*>(impl_->page_memory.base()));
    for (const Page& page : std::span(pages, nr_made)) {
        if (page.mapping.load(std::memory_order_relaxed) == nullptr) {
            continue;
        }
        const std::uint64_t flags = page.flags.load(std::memory_order_relaxed);
        const auto one_if = [flags](std::uint64_t bits) {
            return (flags & bits) == bits ? 1U : 0U;
        };
        census.nr_writeback += one_if(PG_writeback);
        census.nr_redirtied += one_if(PG_writeback | PG_dirty);
        census.nr_dirty += one_if(PG_dirty) - one_if(PG_writeback | PG_dirty);
        census.nr_clean += (flags & (PG_writeback | PG_dirty)) == 0 ? 1 : 0;
        census.nr_locked += one_if(PG_locked);
        census.nr_waited_for += one_if(PG_waiters);
        census.nr_error += one_if(PG_error);
    }
    return census;
}

void PageFrames::set_alloc_timeout(sync::Nanoseconds timeout) {
    impl_->alloc_timeout_ns.store(timeout.count(), std::memory_order_relaxed);
}

// --- allocation

Page* PageFrames::Impl::construct_page_locked(PageFrames& frames) {
    const std::uint64_t number = first_untouched++;
    std::byte* const place = page_memory.base() + number * sizeof(Page);
    // Never destroyed: a Page is trivially destructible and lives as long as the arena.
    auto* const page = new (place) Page;
    page->data = frame_memory.base() + number * kPageSize;
    page->frames = &frames;
    return page;
}

// Those who use the arena for the first time go through it in order: the first of each stretch has
// the rest of it made ready, outside the lock. A small arena is left alone.
void PageFrames::Impl::populate_after(const Page& page) const {
    const auto number = static_cast<std::uint64_t>(page.data - frame_memory.base()) / kPageSize;
    if (number % kPopulateFrames == 0 && number + kPopulateFrames <= nr_frames &&
        page.generation.load(std::memory_order_relaxed) == 0) {
        frame_memory.populate(number * kPageSize, kPopulateFrames * kPageSize);
    }
}

Page* PageFrames::Impl::take_free(PageFrames& frames) {
    const sync::SpinLockGuard guard(lock);
    Page* const page = free_list;
    if (page != nullptr) {
        free_list = page->lru_next;
        page->lru_next = nullptr;
        --nr_free_listed;
        return page;
    }
    return first_untouched < nr_frames ? construct_page_locked(frames) : nullptr;
}

// NOLINTNEXTLINE(readability-function-size): the fifth level is that of TRY_VOID.
Result<Page*> PageFrames::alloc() {
    sync::Nanoseconds idle_since{0};
    Page* page = impl_->take_free(*this);
    while (page == nullptr) {
        if (shrink_inactive(kReclaimBatch) == 0) {
            impl_->deactivate_all();
            if (shrink_inactive(kReclaimBatch) == 0) {
                TRY_VOID(wait_for_frame(idle_since));
            }
        }
        page = impl_->take_free(*this);
    }
    PAGE_ASSERT(*page, Assertion::kFreeState, page->refcount.load(std::memory_order_relaxed) == 0,
                "a page on the free list is referenced");
    impl_->populate_after(*page);
    page->index = 0;
    page->dirty_blocks = 0;
    page->blocks_in_flight.store(0, std::memory_order_relaxed);
    // A PG_waiters that a killed waiter left goes with the rest (W2).
    page->flags.store(0, std::memory_order_relaxed);
    page->generation.fetch_add(1, std::memory_order_relaxed);
    page->refcount.store(1, std::memory_order_release);
    trace_page(TraceKind::kAlloc, *page);
    return page;
}

// Sleeps until a page was freed or came clean, or for kSleepMax.
Result<> PageFrames::wait_for_frame(sync::Nanoseconds& idle_since) {
    const sync::Nanoseconds now = sync::monotonic_now();
    const sync::Nanoseconds timeout(impl_->alloc_timeout_ns.load(std::memory_order_relaxed));
    if (idle_since == sync::Nanoseconds::zero() || cache_.counters().nr_writeback.value() != 0) {
        idle_since = now;
    } else if (now - idle_since >= timeout) {
        return Errno{ENOMEM};
    }
    cache_.counters().reclaim_waits.add();

    std::uint64_t seen = 0;
    {
        const sync::MutexLock lock(impl_->sleep_mutex);
        seen = impl_->nr_wakeups;
    }
    nr_sleepers_.fetch_add(1, std::memory_order_seq_cst);  // pairs with page_came_clean
    // The second look, for what came clean before the count was seen.
    if (nr_free() == 0 && shrink_inactive(kReclaimBatch) == 0) {
        WBFAT_POINT("frames:before_sleep");
        cache_.flusher().kick();
        sync::MutexLock lock(impl_->sleep_mutex);
        if (impl_->nr_wakeups == seen && !impl_->frame_freed.wait_for(lock, kSleepMax)) {
            WBFAT_POINT("frames:slept_in_vain");
        }
    }
    nr_sleepers_.fetch_sub(1, std::memory_order_relaxed);
    return {};
}

void PageFrames::wake_sleepers() {
    const sync::MutexLock lock(impl_->sleep_mutex);
    ++impl_->nr_wakeups;
    impl_->frame_freed.notify_all();
}

// Returns whether the page was on the LRU.
bool PageFrames::Impl::free_locked(Page& page) {
    const bool was_on_list = lru_unlink_locked(page);
    page.lru_next = free_list;
    free_list = &page;
    ++nr_free_listed;
    return was_on_list;
}

void PageFrames::free(Page& page) {
    Page* const one = &page;
    free_batch({&one, 1});
}

void PageFrames::free_batch(std::span<Page* const> pages) {
    if (pages.empty()) {
        return;
    }
    for (const Page* page : pages) {
        const std::uint64_t flags = page->flags.load(std::memory_order_relaxed);
        PAGE_ASSERT(*page, Assertion::kFreeState,
                    (flags & (PG_locked | PG_dirty | PG_writeback)) == 0 &&
                        page->mapping.load(std::memory_order_relaxed) == nullptr &&
                        page->refcount.load(std::memory_order_relaxed) == 0,
                    "a page is freed in a bad state");
        trace_page(TraceKind::kFree, *page);
    }
    std::uint64_t nr_were_cached = 0;
    {
        // Until here a reclaimer may still move the page from one LRU list to the other.
        const sync::SpinLockGuard guard(impl_->lock);
        for (Page* page : pages) {
            nr_were_cached += impl_->free_locked(*page) ? 1 : 0;
        }
    }
    cache_.counters().nr_cached.sub(nr_were_cached);
    page_came_clean();
}

// --- the LRU

bool PageFrames::Impl::lru_unlink_locked(Page& page) {
    const LruList list = list_of(page);
    if (list == LruList::kNone) {
        return false;
    }
    links_locked(list).unlink(page);
    page.lru_list.store(LruList::kNone, std::memory_order_relaxed);
    return true;
}

void PageFrames::Impl::lru_move_locked(Page& page, LruList list) {
    lru_unlink_locked(page);
    links_locked(list).push_head(page);
    page.lru_list.store(list, std::memory_order_relaxed);
}

void PageFrames::lru_add(Page& page) {
    {
        const sync::SpinLockGuard guard(impl_->lock);
        PAGE_BUG_ON(page, list_of(page) != LruList::kNone, "F1", "the page is on the LRU already");
        impl_->lru_move_locked(page, LruList::kInactive);
    }
    cache_.counters().nr_cached.add();
}

void PageFrames::lru_remove(Page& page) {
    bool was_on_list = false;
    {
        const sync::SpinLockGuard guard(impl_->lock);
        was_on_list = impl_->lru_unlink_locked(page);
    }
    if (was_on_list) {
        cache_.counters().nr_cached.sub();
    }
}

// Source: folio_mark_accessed: unreferenced -> referenced -> active.
void PageFrames::mark_accessed(Page& page) {
    if (!page_test(page, PG_referenced)) {
        page.flags.set(PG_referenced, std::memory_order_relaxed);
        return;
    }
    if (list_of(page) != LruList::kInactive) {
        return;
    }
    const sync::SpinLockGuard guard(impl_->lock);
    if (list_of(page) == LruList::kInactive) {
        impl_->lru_move_locked(page, LruList::kActive);
        clear_referenced(page);
    }
}

void PageFrames::rotate_reclaimable(Page& page) {
    const sync::SpinLockGuard guard(impl_->lock);
    if (list_of(page) == LruList::kInactive) {
        impl_->inactive.unlink(page);
        impl_->inactive.push_tail(page);
    }
}

// --- reclaim

// Keeps the inactive list at least as long as the active one. Source: inactive_is_low,
// shrink_active_list.
void PageFrames::Impl::balance_locked() {
    for (std::size_t i = 0; i < kScanBatch && active.size > inactive.size; ++i) {
        Page& page = *active.tail;
        clear_referenced(page);
        lru_move_locked(page, LruList::kInactive);
    }
}

void PageFrames::Impl::deactivate_all() {
    bool more = true;
    while (more) {
        const sync::SpinLockGuard guard(lock);
        for (std::size_t i = 0; i < kScanBatch && active.size > 0; ++i) {
            Page& page = *active.tail;
            clear_referenced(page);
            lru_move_locked(page, LruList::kInactive);
        }
        more = active.size > 0;
    }
}

// Takes references on pages from the tail of the inactive list that look reclaimable. Every page
// looked at goes to the head, so that the next look sees others.
std::size_t PageFrames::Impl::gather_candidates(std::span<Page*> out, std::uint64_t& scan_budget) {
    const sync::SpinLockGuard guard(lock);
    balance_locked();
    std::size_t nr = 0;
    for (std::size_t i = 0; i < kScanBatch && nr < out.size(); ++i) {
        if (scan_budget == 0 || inactive.size == 0) {
            scan_budget = 0;
            break;
        }
        --scan_budget;
        Page& page = *inactive.tail;
        const std::uint64_t flags = page.flags.load(std::memory_order_seq_cst);
        if ((flags & PG_referenced) != 0 && (flags & (PG_dirty | PG_writeback)) == 0) {
            clear_referenced(page);
            lru_move_locked(page, LruList::kActive);
            continue;
        }
        lru_move_locked(page, LruList::kInactive);
        if ((flags & PG_writeback) != 0) {
            page.flags.set(PG_reclaim, std::memory_order_relaxed);
        } else if ((flags & (PG_locked | PG_dirty)) == 0 && try_get_page(page)) {
            out[nr++] = &page;
        }
    }
    return nr;
}

namespace {

// Takes a clean page that nobody else uses out of its mapping; the index's reference passes to the
// caller. Source: __remove_mapping.
bool remove_from_mapping(Page& page) REQUIRES(page) {
    AddressSpace* const mapping = page.mapping.load(std::memory_order_relaxed);
    if (mapping == nullptr) {
        return false;
    }
    const sync::SpinLockGuard guard(mapping->i_pages.lock());
    // One reference is the index's, one ours. Nobody can take another now: lookups need the i_pages
    // lock, and other reclaimers, who may, only want what we want.
    constexpr std::int32_t kUnused = 2;
    if (page.refcount.load(std::memory_order_acquire) != kUnused ||
        page.flags.test(PG_dirty | PG_writeback, std::memory_order_seq_cst)) {
        return false;
    }
    mapping->i_pages.erase_locked(page.index);
    page.mapping.store(nullptr, std::memory_order_release);
    return true;
}

}  // namespace

// Consumes the references of the candidates. Returns how many were freed.
std::uint64_t PageFrames::free_clean(std::span<Page* const> candidates) {
    std::array<Page*, kReclaimBatch> freed{};
    std::size_t nr_freed = 0;
    for (Page* page : candidates) {
        bool removed = false;
        WBFAT_POINT("reclaim:candidate");
        if (trylock_page(*page)) {
            removed = remove_from_mapping(*page);
            unlock_page(*page);
        }
        if (!removed) {
            put_page(*page);
            continue;
        }
        // It leaves the LRU when it is freed. Both references at once, ours and that of the index;
        // another reclaimer may still hold one for a moment, and then frees the page.
        if (page->refcount.sub_and_sign(2, std::memory_order_acq_rel) == 0) {
            freed[nr_freed++] = page;
        }
    }
    free_batch({freed.data(), nr_freed});
    cache_.counters().pages_reclaimed.add(nr_freed);
    return nr_freed;
}

std::uint64_t PageFrames::shrink_inactive(std::uint64_t nr) {
    std::uint64_t scan_budget = 0;
    {
        const sync::SpinLockGuard guard(impl_->lock);
        scan_budget = impl_->inactive.size + impl_->active.size;
    }
    std::uint64_t nr_freed = 0;
    while (nr_freed < nr && scan_budget > 0) {
        std::array<Page*, kReclaimBatch> candidates{};
        const std::size_t want = std::min<std::uint64_t>(nr - nr_freed, kReclaimBatch);
        const std::size_t nr_candidates =
            impl_->gather_candidates({candidates.data(), want}, scan_budget);
        nr_freed += free_clean({candidates.data(), nr_candidates});
    }
    return nr_freed;
}

std::uint64_t PageFrames::reclaim(std::uint64_t nr) {
    std::uint64_t nr_freed = shrink_inactive(nr);
    if (nr_freed < nr) {
        impl_->deactivate_all();
        nr_freed += shrink_inactive(nr - nr_freed);
    }
    return nr_freed;
}

}  // namespace wbfat::cache::inline WBFAT_RT
