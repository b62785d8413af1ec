// The assertion freed_blocks.
#include "cache/block_use.h"

#include <fmt/format.h>

#include "cache/assertions.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

const Page& first_page_of(const Bio& bio) {
    return *static_cast<const Page*>(bio.segments.front().owner);
}

}  // namespace

bool BlockUse::is_in_use() {
    if (assertion_enabled(Assertion::kFreedBlocks)) {
        return true;
    }
    if (knows_something_.load()) {
        const sync::SpinLockGuard guard(lock_);
        freed_.clear();
        writes_.clear();
        knows_something_.store(false);
    }
    return false;
}

void BlockUse::note_freed(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    if (!is_in_use()) {
        return;
    }
    const Interval freed(offset_bytes, offset_bytes + length_bytes);
    bool hit = false;
    {
        const sync::SpinLockGuard guard(lock_);
        freed_.insert(freed);
        knows_something_.store(true);
        for (const auto& [bio, range] : writes_) {
            hit = hit || boost::icl::intersects(range, freed);
        }
    }
    CACHE_ASSERT(Assertion::kFreedBlocks, !hit,
                 fmt::format("the {} bytes at {} are freed while they are being written",
                             length_bytes, offset_bytes));
}

void BlockUse::note_allocated(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    if (is_in_use()) {
        const sync::SpinLockGuard guard(lock_);
        freed_.erase(Interval(offset_bytes, offset_bytes + length_bytes));
    }
}

void BlockUse::note_write_begins(const Bio& bio) {
    if (!is_in_use()) {
        return;
    }
    const Interval range(bio.offset_bytes, bio.offset_bytes + bio.size_bytes());
    bool hit = false;
    {
        const sync::SpinLockGuard guard(lock_);
        hit = boost::icl::intersects(freed_, range);
        writes_.insert_or_assign(&bio, range);
        knows_something_.store(true);
    }
    PAGE_ASSERT(first_page_of(bio), Assertion::kFreedBlocks, !hit,
                fmt::format("a write of {} bytes begins at {}, which is free", bio.size_bytes(),
                            bio.offset_bytes));
}

void BlockUse::note_write_ends(const Bio& bio) {
    if (is_in_use()) {
        const sync::SpinLockGuard guard(lock_);
        writes_.erase(&bio);
    }
}

}  // namespace wbfat::cache::inline WBFAT_RT
