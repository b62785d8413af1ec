// A mapping and its error sequence.
#include "cache/address_space.h"

#include <utility>

#include "cache/base/check.h"
#include "cache/page_cache.h"
#include "cache/writeback.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

constexpr std::uint32_t kErrnoMask = (1U << 12) - 1;
constexpr std::uint32_t kSeen = 1U << 12;
constexpr std::uint32_t kCounterIncrement = 1U << 13;

}  // namespace

void ErrSeq::set(int error) {
    BUG_ON(error <= 0 || static_cast<std::uint32_t>(error) > kErrnoMask, "E1",
           "not a positive errno");
    std::uint32_t old = value_.load(std::memory_order_acquire);
    for (;;) {
        std::uint32_t next = (old & ~(kErrnoMask | kSeen)) | static_cast<std::uint32_t>(error);
        // The counter moves only when somebody has looked: a cursor taken before then differs
        // anyhow, and so the counter does not wrap under a storm of errors that nobody reads.
        if ((old & kSeen) != 0) {
            next += kCounterIncrement;
        }
        if (next == old || value_.compare_exchange(old, next)) {
            return;
        }
    }
}

ErrSeq::Cursor ErrSeq::sample() const {
    const std::uint32_t now = value_.load(std::memory_order_acquire);
    return (now & kSeen) != 0 ? now : 0;
}

int ErrSeq::check_and_advance(Cursor& since) {
    std::uint32_t now = value_.load(std::memory_order_acquire);
    if (now == since) {
        return 0;
    }
    // Losing the exchange is fine: somebody else marked it, or a newer error came, which the next
    // call will report.
    std::uint32_t seen = now | kSeen;
    if (seen != now) {
        static_cast<void>(value_.compare_exchange(now, seen));
    }
    since = seen;
    return static_cast<int>(seen & kErrnoMask);
}

int ErrSeq::check(Cursor since) const {
    const std::uint32_t now = value_.load(std::memory_order_acquire);
    return now == since ? 0 : static_cast<int>(now & kErrnoMask);
}

Result<> AddressSpaceOps::writepages(AddressSpace& mapping, WritebackControl& wbc) {
    return mpage_writepages(mapping, wbc);
}

AddressSpace::AddressSpace(PageCache& cache, BlockDevice& device, AddressSpaceOps& ops,
                           StablePages stable_pages, std::string name)
    : cache_(cache),
      device_(device),
      ops_(ops),
      stable_pages_(stable_pages),
      name_(std::move(name)),
      name_tag_(sync::point_tag(name_)) {}

AddressSpace::~AddressSpace() {
    // Whoever took the last page out (reclaim, a completion ending its writeback) may still be
    // inside the lock. Source: truncate_inode_pages_final.
    { const sync::SpinLockGuard guard(i_pages.lock()); }
    BUG_ON(i_pages.nr_pages() != 0, "A1", "a mapping is destroyed with pages in it");
    BUG_ON(wb_list != 0, "A2", "a mapping is destroyed on a flusher list");
}

std::string AddressSpace::name() const {
    const sync::SpinLockGuard guard(name_lock_);
    return name_;
}

void AddressSpace::rename(std::string name) {
    const sync::SpinLockGuard guard(name_lock_);
    name_tag_.store(sync::point_tag(name));
    name_.swap(name);
}

void mapping_set_error(AddressSpace& mapping, int error) {
    mapping.wb_err.set(error);
    mapping.cache().s_wb_err.set(error);
}

}  // namespace wbfat::cache::inline WBFAT_RT
