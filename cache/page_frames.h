// The frame arena: a fixed budget of page frames and their Page structs.
//
// Frames are reused at once, most recently freed first, and carry a generation number: the
// page-reuse race of writeback-protocol.md section 6 is real here, and detectable.
//
// The LRU is two lists (inactive, active) as the kernel's; reclaim takes clean pages from the tail
// of inactive, and when there are none, kicks the flusher and waits for a frame.
//
// Invariants
//   - F1. Every frame is on the free list (refcount 0) or on exactly one LRU list or in the hands
//     of its allocator.
//   - F2. Metadata pages a commit still needs stay dirty and are therefore never reclaimed;
//     dirty_ratio keeps enough clean ones for progress.
//
// Locking: one spin lock guards the free list and the LRU; it is a leaf. Reclaim gathers candidates
// under it, drops it, and then takes page locks (trylock only) and i_pages locks. Allocators that
// found nothing sleep on a mutex of their own. Source: Linux mm/vmscan.c, mm/swap.c, much reduced.
// Differs: no swap, no zones; the LRU covers pages in mappings only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "cache/base/result.h"
#include "cache/page.h"

namespace wbfat::cache::inline WBFAT_RT {

class PageCache;

// How many pages of mappings are in which state. A page may be in several; the sum of the first
// three is all of them.
struct PageCensus {
    std::uint64_t nr_clean = 0;      // neither dirty nor under writeback
    std::uint64_t nr_dirty = 0;      // and not under writeback
    std::uint64_t nr_writeback = 0;  // dirty again or not
    std::uint64_t nr_redirtied = 0;  // of these, dirty again
    std::uint64_t nr_locked = 0;
    std::uint64_t nr_waited_for = 0;  // somebody sleeps on the page, or did lately (W2)
    std::uint64_t nr_error = 0;       // the last read failed
};

class PageFrames {
public:
    static Result<std::unique_ptr<PageFrames>> create(PageCache& cache, std::uint64_t nr_frames);
    ~PageFrames();
    PageFrames(const PageFrames&) = delete;
    PageFrames& operator=(const PageFrames&) = delete;

    // A page with refcount 1, no flags, no mapping, a new generation and undefined bytes. Reclaims,
    // and sleeps for a clean page if it must. Context: sleeps; page locks of lower index may be
    // held (reclaim only trylocks). Errors: ENOMEM when nothing could be freed for 30 s with
    // writeback idle.
    Result<Page*> alloc();
    // The page enters or leaves the LRU with its mapping; a used page moves towards active.
    void lru_add(Page& page);
    void lru_remove(Page& page);
    void mark_accessed(Page& page);
    // Called by put_page when the count falls to 0.
    void free(Page& page);
    // Frees up to `nr` clean pages; returns how many.
    std::uint64_t reclaim(std::uint64_t nr);

    // A page whose writeback ended can be reclaimed: wakes allocators that sleep. One load when
    // none does. Context: completion.
    void page_came_clean() {
        // seq_cst, with the clearing of PG_writeback before it and the sleeper's count and second
        // look: either the sleeper sees the clean page or we see the sleeper.
        if (nr_sleepers_.load(std::memory_order_seq_cst) != 0) [[unlikely]] {
            wake_sleepers();
        }
    }
    // Reclaim met the page under writeback and wants it next. Context: completion.
    // Source: folio_rotate_reclaimable.
    void rotate_reclaimable(Page& page);

    // How long alloc() waits while no writeback runs, before it gives up. Default 30 s. For tests.
    void set_alloc_timeout(sync::Nanoseconds timeout);

    [[nodiscard]] PageCache& cache() const {
        return cache_;
    }
    [[nodiscard]] std::uint64_t nr_frames() const;
    [[nodiscard]] std::uint64_t nr_free() const;
    // Looks at the flags of every page once, without a lock: pages change meanwhile. Costs a cache
    // miss a page.
    [[nodiscard]] PageCensus census() const;
    // The arena a page came from (put_page needs no cache argument).
    static PageFrames& of(Page& page);

private:
    struct Impl;
    PageFrames(PageCache& cache, std::unique_ptr<Impl> impl);

    Result<> wait_for_frame(sync::Nanoseconds& idle_since);
    std::uint64_t shrink_inactive(std::uint64_t nr);
    std::uint64_t free_clean(std::span<Page* const> candidates);
    void free_batch(std::span<Page* const> pages);
    void wake_sleepers();

    PageCache& cache_;
    std::unique_ptr<Impl> impl_;
    sync::Atomic<std::uint32_t> nr_sleepers_{0};
};

}  // namespace wbfat::cache::inline WBFAT_RT
