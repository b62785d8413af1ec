// The assertion integrity_sync.
#include "cache/integrity_check.h"

#include <array>

#include "cache/assertions.h"
#include "cache/page_lock.h"

namespace wbfat::cache::inline WBFAT_RT {

IntegrityCheck::IntegrityCheck(AddressSpace& mapping, std::uint64_t first_bytes,
                               std::uint64_t last_bytes)
    : mapping_(mapping) {
    if (assertion_enabled(Assertion::kIntegritySync)) {
        remember(PAGECACHE_TAG_DIRTY, page_index(first_bytes), page_index(last_bytes));
        remember(PAGECACHE_TAG_WRITEBACK, page_index(first_bytes), page_index(last_bytes));
    }
}

void IntegrityCheck::remember(PageTag tag, pgoff_t start, pgoff_t end) {
    std::array<Page*, 32> pages{};
    while (start <= end) {
        const std::size_t found = mapping_.i_pages.find_get_range_tag(start, end, tag, pages);
        if (found == 0) {
            return;
        }
        start = pages[found - 1]->index + 1;
        for (std::size_t i = 0; i < found; ++i) {
            Page& page = *pages[i];
            lock_page(page);
            const bool dirty = page_test(page, PG_dirty);
            const bool owes =
                tag == PAGECACHE_TAG_DIRTY ? dirty : !dirty && page_test(page, PG_writeback);
            if (owes && page.mapping.load() == &mapping_) {
                debts_.push_back({page.index, page.generation.load(), page.write_sequence, dirty});
            }
            unlock_page(page);
            put_page(page);
        }
    }
}

void IntegrityCheck::finish() {
    for (const Debt& debt : debts_) {
        Page* const found = mapping_.i_pages.find_get(debt.index);
        if (found == nullptr) {
            continue;  // truncated, or written and reclaimed
        }
        Page& page = *found;
        lock_page(page);
        if (page.mapping.load() == &mapping_ && page.generation.load() == debt.generation) {
            const std::uint32_t taken_up = page.write_sequence - debt.write_sequence;
            const std::uint32_t owed = debt.dirty ? 1 : 0;
            PAGE_ASSERT(page, Assertion::kIntegritySync, taken_up >= owed,
                        "a sync is over and has not written a page that was dirty");
            PAGE_ASSERT(page, Assertion::kIntegritySync,
                        taken_up > owed || !page_test(page, PG_writeback),
                        "a sync is over and has not waited for a page's write");
        }
        unlock_page(page);
        put_page(page);
    }
}

}  // namespace wbfat::cache::inline WBFAT_RT
