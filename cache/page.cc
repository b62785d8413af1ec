// One page: references, its self-check, its description.
#include "cache/page.h"

#include <fmt/format.h>

#include "cache/address_space.h"
#include "cache/assertions.h"
#include "cache/page_frames.h"

namespace wbfat::cache::inline WBFAT_RT {

bool try_get_page(Page& page) {
    std::int32_t count = page.refcount.load(std::memory_order_relaxed);
    while (count > 0) {
        if (page.refcount.compare_exchange(count, count + 1, std::memory_order_acquire)) {
            return true;
        }
    }
    return false;
}

void put_page(Page& page) {
    // Release, so that what this holder did to the page comes before the frame's next use; acquire,
    // for the one who frees it.
    const int left = page.refcount.sub_and_sign(1, std::memory_order_acq_rel);
    PAGE_ASSERT(page, Assertion::kReferenceCount, left >= 0,
                "a reference is dropped that nobody held");
    if (left == 0 && page.frames != nullptr) {
        page.frames->free(page);
    }
}

void assert_page_state(const Page& page) {
    const std::uint64_t flags = page.flags.load(std::memory_order_acquire);
    PAGE_ASSERT(page, Assertion::kUnlockUnlocked, (flags & PG_locked) != 0,
                "the page lock is not held");
    PAGE_ASSERT(page, Assertion::kDirtyBlocks,
                ((flags & PG_dirty) != 0) == (page.dirty_blocks != 0),
                "PG_dirty and dirty_blocks disagree");
    // PG_writeback only falls while we look, and the mapping cannot change under us: P2 may be read
    // from one snapshot.
    PAGE_ASSERT(
        page, Assertion::kRemoveWriteback,
        (flags & PG_writeback) == 0 || page.mapping.load(std::memory_order_relaxed) != nullptr,
        "a page under writeback is in no mapping");
}

std::string to_string(const Page& page) {
    // Called on pages in any state: whoever holds neither the lock nor a reference may see a
    // mixture.
    const AddressSpace* mapping = page.mapping.load(std::memory_order_acquire);
    const std::uint64_t flags = page.flags.load(std::memory_order_acquire);
    return fmt::format("page {} index {} mapping {} {} refs {} gen {} dirty_blocks {:#04x}",
                       static_cast<const void*>(&page), page.index,
                       mapping == nullptr ? std::string("none") : "'" + mapping->name() + "'",
                       page_flags_to_string(flags), page.refcount.load(std::memory_order_relaxed),
                       page.generation.load(std::memory_order_relaxed), page.dirty_blocks);
}

}  // namespace wbfat::cache::inline WBFAT_RT
