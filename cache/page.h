// One page of the cache: 4 KiB of a mapping.
//
//             find_or_create            set_page_dirty
//   [free] ------------------> [clean] ------------------> [dirty] <--------------+
//     ^                        |    ^                         |                   |
//     |   reclaim, truncate    |    | end_page_writeback      | clear_page_dirty_ | end_page_
//     +------------------------+    |                         | for_io, set_page_ | writeback
//                                   |                         v writeback         |
//                                   +------------------- [writeback]              |
//                                                             | set_page_dirty    |
//                                                             v                   |
//                                                    [writeback + dirty] ---------+
//
// Invariants
//   - P1. Only the holder of PG_locked sets PG_writeback, clears PG_dirty for I/O, or changes
//     mapping and index.
//   - P2. PG_writeback is cleared by the completion only; while it is set the page stays in its
//     mapping.
//   - P3. The page index holds one reference; every lookup, walker and sleeper holds one; writeback
//     holds none of its own (writeback-protocol.md 12.2): end_page_writeback takes one around its
//     wake-up.
//   - P4. A free page (refcount 0) is not locked, not dirty, not under writeback and in no mapping.
//   - P5. dirty_blocks is 0 exactly when PG_dirty is clear, as seen by the holder of PG_locked.
//
// Locking: `flags` and `refcount` are atomic; mapping, index, dirty_blocks and
// write_sequence are guarded by PG_locked (mapping may be read without it and must then be
// re-checked after locking). Page is a
// capability: lock_page(page) acquires it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "cache/base/thread_annotations.h"
#include "cache/base/units.h"
#include "cache/page_flags.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

class AddressSpace;
class PageFrames;

// Which LRU list a page is on, if any.
enum class LruList : std::uint8_t { kNone, kInactive, kActive };

struct CAPABILITY("page") Page {
    sync::FlagWord flags{0};
    sync::Atomic<std::int32_t> refcount{0};
    // Counts the uses of this frame: bumped each time the frame is handed out. A late touch of a
    // reused page shows as a changed generation.
    sync::Atomic<std::uint32_t> generation{0};
    // Block writes still in flight when the page is written block by block; the last one ends the
    // writeback.
    sync::Atomic<std::int32_t> blocks_in_flight{0};
    BlockMask dirty_blocks = 0;
    // How often what the page owed was taken up, by a write or by being thrown away.
    std::uint32_t write_sequence = 0;
    // Written under PageFrames' lock with the links below; read without it as a hint.
    sync::Atomic<LruList> lru_list{LruList::kNone};
    sync::Atomic<AddressSpace*> mapping{nullptr};  // null: not in any mapping (truncated or free)
    pgoff_t index = 0;
    // The mapping's name_tag when the page came into it, for points that stand where the mapping
    // may be gone already.
    sync::Relaxed<std::uint32_t> name_tag{0};
    std::byte* data = nullptr;  // the frame; constant after construction

    // LRU and free-list links, guarded by PageFrames' lock.
    Page* lru_prev = nullptr;
    Page* lru_next = nullptr;
    // The arena; constant after construction. Null only for a page a test made by hand, which can
    // be locked and waited for but is in no mapping, and which nothing frees.
    PageFrames* frames = nullptr;
};

// Lockless looks at the flag word (acquire).
inline bool page_test(const Page& page, PageFlag flag) {
    return page.flags.test(flag);
}

// Requires that a reference exists and stays while this runs: the caller's own, the index's (under
// the i_pages lock), or PG_writeback, which keeps the page in its mapping.
inline void get_page(Page& page) {
    page.refcount.add(1, std::memory_order_relaxed);
}
// What a point at `page` is about. Reads nothing that may be gone: good in any context.
inline sync::PointSubject point_subject(const Page& page) {
    return {.file = page.name_tag.load(), .page = page.index};
}
inline sync::PointSubject point_subject(const Page& page, PageFlag waited_for) {
    return {.file = page.name_tag.load(),
            .page = page.index,
            .what = waited_for == PG_locked ? "locked" : "writeback"};
}

// For whoever found the page where nothing keeps it, as reclaim on the LRU: fails when the last
// reference is gone. Source: folio_try_get.
bool try_get_page(Page& page);
// Drops a reference; the last one returns the frame to the arena. Context: any, never sleeps.
void put_page(Page& page);

// Asserts what P1..P5 promise about a page whose lock the caller holds. Costs a few loads.
void assert_page_state(const Page& page);
// "page 0x.. index 17 mapping 'FAT' locked|dirty refs 2 gen 5": for reports.
std::string to_string(const Page& page);

}  // namespace wbfat::cache::inline WBFAT_RT
