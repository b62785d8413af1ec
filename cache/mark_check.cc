// Whether the marks of a mapping say what its pages say.
#include "cache/mark_check.h"

#include <array>

#include "cache/assertions.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

struct Marks {
    std::uint64_t flags = 0;
    bool is_here = false;
    bool writeback = false;
    bool dirty = false;
};

// What page and index say at one moment.
Marks look_at(AddressSpace& mapping, const Page& page) {
    Marks marks;
    const sync::SpinLockGuard guard(mapping.i_pages.lock());
    marks.flags = page.flags.load(std::memory_order_acquire);
    marks.is_here = mapping.i_pages.find_locked(page.index) == &page;
    if (marks.is_here) {
        marks.writeback = mapping.i_pages.get_tag_locked(page.index, PAGECACHE_TAG_WRITEBACK);
        marks.dirty = mapping.i_pages.get_tag_locked(page.index, PAGECACHE_TAG_DIRTY);
    }
    return marks;
}

void check_page(AddressSpace& mapping, const Page& page) {
    const Marks marks = look_at(mapping, page);
    if (!marks.is_here || (marks.flags & PG_locked) != 0) {
        return;
    }
    PAGE_ASSERT(page, Assertion::kWritebackMark,
                marks.writeback == ((marks.flags & PG_writeback) != 0),
                marks.writeback ? "the WRITEBACK mark is set, PG_writeback is not"
                                : "PG_writeback is set, the WRITEBACK mark is not");
    PAGE_ASSERT(page, Assertion::kDirtyMark, marks.dirty || (marks.flags & PG_dirty) == 0,
                "PG_dirty is set, the DIRTY mark is not");
}

}  // namespace

void check_marks(AddressSpace& mapping, pgoff_t start, pgoff_t end) {
    if (!assertion_enabled(Assertion::kWritebackMark) &&
        !assertion_enabled(Assertion::kDirtyMark)) {
        return;
    }
    std::array<Page*, 32> pages{};
    while (const std::size_t found = mapping.i_pages.find_get_range(start, end, pages)) {
        start = pages[found - 1]->index + 1;
        for (std::size_t i = 0; i < found; ++i) {
            check_page(mapping, *pages[i]);
            put_page(*pages[i]);
        }
    }
}

}  // namespace wbfat::cache::inline WBFAT_RT
