// The assertion page_lock_order: a thread that holds pages of a mapping locks only higher ones.
#include "cache/page_lock_order.h"

#include <fmt/format.h>

#include <string>
#include <unordered_map>

#include "cache/assertions.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

struct HeldPages {
    sync::SpinLock lock;
    std::unordered_map<const Page*, std::uint32_t> owner GUARDED_BY(lock);  // to task ids
    sync::Relaxed<std::size_t> size{0};                                     // of owner
};

sync::Global<HeldPages> held_pages;

// A page of the same mapping, not lower than `page`, that the running task has locked.
const Page* find_held_above(const Page& page) {
    const AddressSpace* const mapping = page.mapping.load(std::memory_order_relaxed);
    if (mapping == nullptr) {
        return nullptr;
    }
    const std::uint32_t self = sync::current_task().id();
    HeldPages& held = *held_pages;
    const sync::SpinLockGuard guard(held.lock);
    for (const auto& [other, owner] : held.owner) {
        if (owner == self && other->index >= page.index && page_test(*other, PG_locked) &&
            other->mapping.load(std::memory_order_relaxed) == mapping) {
            return other;
        }
    }
    return nullptr;
}

}  // namespace

void check_page_lock_order(const Page& page) {
    if (!assertion_enabled(Assertion::kPageLockOrder)) {
        return;
    }
    const Page* const other = find_held_above(page);
    PAGE_ASSERT(page, Assertion::kPageLockOrder, other == nullptr,
                fmt::format("page {} is locked by who holds page {} of the same mapping",
                            page.index, other->index));
}

void note_page_locked(const Page& page) {
    if (!assertion_enabled(Assertion::kPageLockOrder)) {
        return;
    }
    const std::uint32_t self = sync::current_task().id();
    HeldPages& held = *held_pages;
    const sync::SpinLockGuard guard(held.lock);
    held.owner[&page] = self;
    held.size.store(held.owner.size());
}

void note_page_released(const Page& page) {
    HeldPages& held = *held_pages;
    if (held.size.load() == 0) {
        return;
    }
    const sync::SpinLockGuard guard(held.lock);
    held.owner.erase(&page);
    held.size.store(held.owner.size());
}

}  // namespace wbfat::cache::inline WBFAT_RT
