// pgoff -> Page of one mapping, with three marks: the kernel's i_pages (an XArray with marks).
//
// A radix tree of 64-way nodes; each node keeps one 64-bit word per mark, a bit meaning "this slot,
// or something below it, is marked". So `tagged()` is one look at the root and a walk over marked
// pages skips clean regions.
//
// Invariants
//   - X1. A mark of an inner slot is set exactly when a mark below it is.
//   - X2. WRITEBACK is set on a page's slot exactly when PG_writeback is, at every release of the
//     lock.
//   - X3. A page with PG_dirty has DIRTY (or its lock is held).
//
// Locking: every method takes the index's own spin lock (the kernel's xa_lock), except those named
// *_locked. It is taken in any context, completions too; below it come only the wait buckets.
// Source: Linux lib/xarray.c semantics; writeback-protocol.md 10.1. Differs: lookups take the lock
// too, where the kernel's run under RCU and take references speculatively. So a reference is taken
// while the slot's own is certain, nodes need no deferred freeing, and a walker never sees a mark
// that is being cleared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cache/page.h"

namespace wbfat::cache::inline WBFAT_RT {

enum PageTag : unsigned {
    PAGECACHE_TAG_DIRTY = 0,
    PAGECACHE_TAG_WRITEBACK = 1,
    PAGECACHE_TAG_TOWRITE = 2
};
inline constexpr unsigned kNrPageTags = 3;

// 64 neighbouring cells of a mapping seen from afar: bit n tells of the n-th. A cell is a page, or
// a group of 64, 64 * 64, .. pages, of which it tells whether any is so.
struct PageIndexWord {
    std::uint64_t number = 0;  // cells 64 * number on
    std::uint64_t present = 0;
    std::uint64_t dirty = 0;
    std::uint64_t writeback = 0;
    // Only where a cell is a page, and only of pages that are dirty or under writeback.
    std::uint64_t locked = 0;
    std::uint64_t waited_for = 0;  // PG_waiters: now, or lately

    friend bool operator==(const PageIndexWord&, const PageIndexWord&) = default;
};

class PageIndex {
public:
    PageIndex();
    ~PageIndex();
    PageIndex(const PageIndex&) = delete;
    PageIndex& operator=(const PageIndex&) = delete;

    // Returns the page with a new reference, or null.
    Page* find_get(pgoff_t index);
    // Fills `out` with referenced pages of [start, end] in ascending order; returns how many. A
    // `tag` limits it to marked pages.
    std::size_t find_get_range(pgoff_t start, pgoff_t end, std::span<Page*> out);
    std::size_t find_get_range_tag(pgoff_t start, pgoff_t end, PageTag tag, std::span<Page*> out);

    // Lockless: true if any page of the mapping has the mark (one look at the root, may be stale).
    bool tagged(PageTag tag) const;
    std::uint64_t nr_pages() const;

    // DIRTY -> also TOWRITE for [start, end]; drops the lock every 4096 slots. Source:
    // tag_pages_for_writeback.
    void tag_pages_for_writeback(pgoff_t start, pgoff_t end);

    // Appends the words that have a page, in ascending order. A cell is 64^level pages; level <= 8.
    // Costs a few loads a word under the lock, whatever a word stands for: no page is touched but
    // those of `locked` and `waited_for`.
    void sample(unsigned level, std::vector<PageIndexWord>& out) const;

    sync::SpinLock& lock() const RETURN_CAPABILITY(lock_) {
        return lock_;
    }
    // Takes over one reference for the slot. Returns false (and changes nothing) when the slot is
    // taken. May allocate memory, never throws (a failed allocation returns false with
    // `out_of_memory` set).
    bool insert_locked(pgoff_t index, Page& page, bool& out_of_memory) REQUIRES(lock_);
    // Removes the page and all its marks; the slot's reference passes to the caller.
    void erase_locked(pgoff_t index) REQUIRES(lock_);
    Page* find_locked(pgoff_t index) const REQUIRES(lock_);
    void set_tag_locked(pgoff_t index, PageTag tag) REQUIRES(lock_);
    void clear_tag_locked(pgoff_t index, PageTag tag) REQUIRES(lock_);
    bool get_tag_locked(pgoff_t index, PageTag tag) const REQUIRES(lock_);

    // Checks X1 and the tree's own counts over the whole tree. For tests; O(pages).
    void assert_consistent() const;

private:
    struct Node;
    struct Walk;

    Node* leaf_locked(pgoff_t index) const REQUIRES(lock_);
    Node* make_leaf_locked(pgoff_t index) REQUIRES(lock_);
    bool grow_locked(pgoff_t index) REQUIRES(lock_);
    void shrink_locked() REQUIRES(lock_);
    void clear_tag_up_locked(Node* node, unsigned slot, PageTag tag) REQUIRES(lock_);
    void publish_root_tags_locked() REQUIRES(lock_);
    static bool gather(const Node& node, pgoff_t base, Walk& walk);
    static bool copy_dirty_to_towrite(Node& node, pgoff_t base, Walk& walk);
    static void sample_subtree(const Node& node, pgoff_t base, unsigned level,
                               std::vector<PageIndexWord>& out);
    static void free_tree(Node* node);
    static std::uint64_t check_subtree(const Node& node);
    std::size_t find_get_range_word(unsigned word, pgoff_t start, pgoff_t end,
                                    std::span<Page*> out);

    mutable sync::SpinLock lock_;
    // Null: empty. Nodes are owned by their parent's slot, pages are not owned but for one
    // reference.
    Node* root_ GUARDED_BY(lock_) = nullptr;
    // Read without the lock.
    sync::Atomic<std::uint64_t> nr_pages_{0};
    sync::FlagWord root_tags_{0};  // bit per mark: any page marked
};

}  // namespace wbfat::cache::inline WBFAT_RT
