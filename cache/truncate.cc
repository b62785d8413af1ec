// Removing pages: truncation and invalidation.
#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "cache/assertions.h"
#include "cache/filemap.h"
#include "cache/page_cache.h"
#include "cache/page_frames.h"
#include "cache/page_lock.h"
#include "cache/trace.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

constexpr std::size_t kBatch = 32;
constexpr pgoff_t kLastIndex = ~pgoff_t{0} >> 1;

// Takes locked pages of one mapping out of it, under one hold of the index lock, and unlocks them.
// The caller's references go too. Source: delete_from_page_cache_batch.
void delete_locked_pages(AddressSpace& mapping, std::span<Page* const> pages)
    NO_THREAD_SAFETY_ANALYSIS {  // the locks come as a batch
    for (Page* page : pages) {
        cancel_dirty_page(*page);
    }
    {
        const sync::SpinLockGuard lock(mapping.i_pages.lock());
        for (Page* page : pages) {
            mapping.i_pages.erase_locked(page->index);
            page->mapping.store(nullptr);
        }
    }
    for (Page* page : pages) {
        trace_page(TraceKind::kRemove, *page);
        mapping.cache().frames().lru_remove(*page);
        unlock_page(*page);
        put_page(*page);  // the slot's
        put_page(*page);
    }
}

// Pass 1: everything that can be had without sleeping. Source: the first loop of
// truncate_inode_pages_range.
void delete_idle_pages(AddressSpace& mapping,
                       pgoff_t start) NO_THREAD_SAFETY_ANALYSIS {  // collects locked pages
    std::array<Page*, kBatch> pages{};
    while (const std::size_t found = mapping.i_pages.find_get_range(start, kLastIndex, pages)) {
        start = pages[found - 1]->index + 1;
        std::size_t nr_locked = 0;
        for (std::size_t i = 0; i < found; ++i) {
            Page& page = *pages[i];
            if (!trylock_page(page)) {
                put_page(page);
            } else if (page_test(page, PG_writeback) || page.mapping.load() != &mapping) {
                unlock_page(page);
                put_page(page);
            } else {
                pages[nr_locked++] = &page;
            }
        }
        delete_locked_pages(mapping, {pages.data(), nr_locked});
    }
}

// Pass 2: the rest, one by one, until there is none.
void delete_all_pages(AddressSpace& mapping, pgoff_t start)
    NO_THREAD_SAFETY_ANALYSIS {  // hands the lock to delete_locked_pages
    for (;;) {
        Page* page = nullptr;
        if (mapping.i_pages.find_get_range(start, kLastIndex, {&page, 1}) == 0) {
            return;
        }
        lock_page(*page);
        if (page->mapping.load() != &mapping) {
            unlock_page(*page);
            put_page(*page);
            continue;
        }
        // Under the page lock: once seen clear it stays clear until the page is out.
        wait_on_page_writeback(*page);
        PAGE_ASSERT_ELSE(*page, Assertion::kRemoveWriteback, !page_test(*page, PG_writeback),
                         "a page under writeback is about to leave its mapping",
                         wait_in_earnest(*page));
        WBFAT_POINT("truncate:before_delete", *page);
        delete_locked_pages(mapping, {&page, 1});
    }
}

// The page that holds the new end stays; what it holds beyond is zeroed and no longer owed to the
// disk.
void zero_partial_page(AddressSpace& mapping, std::uint64_t new_size) {
    Page* page = mapping.i_pages.find_get(page_index(new_size));
    if (page == nullptr) {
        return;
    }
    lock_page(*page);
    if (page->mapping.load() == &mapping) {
        wait_on_page_writeback(*page);
        const std::size_t offset = offset_in_page(new_size);
        std::memset(page->data + offset, 0, kPageSize - offset);
        const std::size_t first_block = (offset + kBlockSize - 1) / kBlockSize * kBlockSize;
        if (first_block < kPageSize) {
            cancel_dirty_page(*page, blocks_covering(first_block, kPageSize - first_block));
        }
    }
    unlock_page(*page);
    put_page(*page);
}

// Source: mapping_evict_folio.
bool drop_if_unused(AddressSpace& mapping, Page& page)
    NO_THREAD_SAFETY_ANALYSIS {  // tries the lock, releases on every path
    if (!trylock_page(page)) {
        return false;
    }
    bool dropped = false;
    if (page.mapping.load() == &mapping && !page_test(page, PG_dirty) &&
        !page_test(page, PG_writeback)) {
        const sync::SpinLockGuard lock(mapping.i_pages.lock());
        // The slot's and ours. Lookups take theirs under this lock, so nobody else can come.
        if (page.refcount.load() == 2) {
            mapping.i_pages.erase_locked(page.index);
            page.mapping.store(nullptr);
            dropped = true;
        }
    }
    if (dropped) {
        trace_page(TraceKind::kRemove, page);
        mapping.cache().frames().lru_remove(page);
    }
    unlock_page(page);
    if (dropped) {
        put_page(page);  // the slot's
    }
    return dropped;
}

}  // namespace

Result<> block_truncate_page(AddressSpace& mapping, std::uint64_t offset_bytes) {
    const std::size_t offset = offset_in_page(offset_bytes);
    if (offset == 0 || offset_bytes >= mapping.i_size()) {
        return {};
    }
    // A write cycle of no bytes brings the page in, locked, uptodate and stable.
    Page& page = *TRY(write_begin(mapping, offset_bytes, 0));
    assert_page_locked(page);
    std::memset(page.data + offset, 0, kPageSize - offset);
    set_page_dirty(page, blocks_covering(offset, kPageSize - offset));
    unlock_page(page);
    put_page(page);
    return {};
}

void truncate_pagecache(AddressSpace& mapping, std::uint64_t new_size_bytes) {
    const pgoff_t start = pages_for(new_size_bytes);
    delete_idle_pages(mapping, start);
    if (offset_in_page(new_size_bytes) != 0) {
        zero_partial_page(mapping, new_size_bytes);
    }
    delete_all_pages(mapping, start);
}

void truncate_setsize(AddressSpace& mapping, std::uint64_t new_size_bytes) {
    mapping.i_size_write(new_size_bytes);
    WBFAT_POINT("truncate:size_written", mapping);
    truncate_pagecache(mapping, new_size_bytes);
}

std::uint64_t invalidate_mapping_pages(AddressSpace& mapping, pgoff_t start, pgoff_t end) {
    std::array<Page*, kBatch> pages{};
    std::uint64_t dropped = 0;
    while (start <= end) {
        const std::size_t found = mapping.i_pages.find_get_range(start, end, pages);
        if (found == 0) {
            break;
        }
        start = pages[found - 1]->index + 1;
        for (std::size_t i = 0; i < found; ++i) {
            dropped += drop_if_unused(mapping, *pages[i]) ? 1 : 0;
            put_page(*pages[i]);
        }
    }
    return dropped;
}

}  // namespace wbfat::cache::inline WBFAT_RT
