// Walking a chain into extents, and looking clusters up in them.
#include "fs/cluster_map.h"

#include <algorithm>
#include <limits>

#include "cache/base/check.h"
#include "fs/fat_table.h"

namespace wbfat::fs::inline WBFAT_RT {

namespace {

constexpr std::uint32_t kWholeChain = std::numeric_limits<std::uint32_t>::max();
// How far find() reads on while the run does not end: a request of that many clusters is one
// extent.
constexpr std::uint32_t kReadOnClusters = 4096;

}  // namespace

void ClusterMap::reset(cluster_t start) {
    const sync::MutexLock lock(lock_);
    extents_.clear();
    next_unread_ = start;
    damaged_.reset();
    resting_ = 0;
    steps_left_ = 1;
    next_rest_ = 1;
}

std::uint32_t ClusterMap::length_locked() const {
    return extents_.empty() ? 0 : extents_.back().file_cluster + extents_.back().count;
}

void ClusterMap::add_locked(const ClusterRun& run) {
    if (!extents_.empty()) {
        Extent& last = extents_.back();
        if (last.disk_cluster + last.count == run.first) {
            last.count += run.count;
            return;
        }
    }
    extents_.push_back({length_locked(), run.first, run.count});
}

// Takes next_unread_ into the map and moves on to its successor.
Result<> ClusterMap::load_one_locked(FatTable& fat) {
    const cluster_t cluster = next_unread_;
    if (cluster == resting_) {
        damaged_ = cluster;
        return Errno{EIO};
    }
    const FatValue value = TRY(fat.get(cluster));
    if (value.kind != FatValue::Kind::kNext && value.kind != FatValue::Kind::kEndOfChain) {
        damaged_ = cluster;
        return Errno{EIO};
    }
    if (--steps_left_ == 0) {
        resting_ = cluster;
        next_rest_ = next_rest_ > kWholeChain / 2 ? kWholeChain : next_rest_ * 2;
        steps_left_ = next_rest_;
    }
    add_locked({cluster, 1});
    next_unread_ = value.kind == FatValue::Kind::kNext ? value.next : 0;
    return {};
}

Result<> ClusterMap::load_to_locked(FatTable& fat, std::uint32_t file_cluster) {
    while (next_unread_ != 0 && length_locked() <= file_cluster) {
        if (damaged_) {
            return Errno{EIO};
        }
        TRY_VOID(load_one_locked(fat));
    }
    return {};
}

// To the end of the run that holds the last cluster asked for. What goes wrong here is met again by
// whoever needs it.
void ClusterMap::read_on_locked(FatTable& fat, std::uint32_t file_cluster) {
    while (next_unread_ != 0 && !damaged_ && !extents_.empty() &&
           length_locked() - file_cluster < kReadOnClusters) {
        const Extent& last = extents_.back();
        if (next_unread_ != last.disk_cluster + last.count || !load_one_locked(fat).has_value()) {
            return;
        }
    }
}

Result<std::optional<ClusterMap::Extent>> ClusterMap::find(FatTable& fat,
                                                           std::uint32_t file_cluster) {
    const sync::MutexLock lock(lock_);
    TRY_VOID(load_to_locked(fat, file_cluster));
    read_on_locked(fat, file_cluster);
    if (file_cluster >= length_locked()) {
        return std::optional<Extent>{};
    }
    const auto behind = std::upper_bound(
        extents_.begin(), extents_.end(), file_cluster,
        [](std::uint32_t wanted, const Extent& extent) { return wanted < extent.file_cluster; });
    const Extent& extent = *std::prev(behind);
    const std::uint32_t skip = file_cluster - extent.file_cluster;
    return std::optional<Extent>{{file_cluster, extent.disk_cluster + skip, extent.count - skip}};
}

Result<std::uint32_t> ClusterMap::length(FatTable& fat) {
    const sync::MutexLock lock(lock_);
    TRY_VOID(load_to_locked(fat, kWholeChain));
    return length_locked();
}

Result<cluster_t> ClusterMap::last(FatTable& fat) {
    const sync::MutexLock lock(lock_);
    TRY_VOID(load_to_locked(fat, kWholeChain));
    if (extents_.empty()) {
        return cluster_t{0};
    }
    return extents_.back().disk_cluster + extents_.back().count - 1;
}

void ClusterMap::append(std::span<const ClusterRun> runs) {
    const sync::MutexLock lock(lock_);
    BUG_ON(next_unread_ != 0, "C1", "appended to a chain whose end is not known");
    for (const ClusterRun& run : runs) {
        add_locked(run);
    }
}

void ClusterMap::truncate(std::uint32_t count) {
    const sync::MutexLock lock(lock_);
    BUG_ON(next_unread_ != 0 && count > length_locked(), "C1", "truncated past what is known");
    while (!extents_.empty() && extents_.back().file_cluster >= count) {
        extents_.pop_back();
    }
    if (!extents_.empty()) {
        Extent& last = extents_.back();
        last.count = std::min(last.count, count - last.file_cluster);
    }
    next_unread_ = 0;
    damaged_.reset();
}

Result<std::vector<ClusterRun>> ClusterMap::runs_from(FatTable& fat, std::uint32_t first) {
    const sync::MutexLock lock(lock_);
    TRY_VOID(load_to_locked(fat, kWholeChain));
    std::vector<ClusterRun> runs;
    for (const Extent& extent : extents_) {
        const std::uint32_t end = extent.file_cluster + extent.count;
        if (end <= first) {
            continue;
        }
        const std::uint32_t skip = first > extent.file_cluster ? first - extent.file_cluster : 0;
        runs.push_back({extent.disk_cluster + skip, extent.count - skip});
    }
    return runs;
}

std::size_t ClusterMap::nr_extents() const {
    const sync::MutexLock lock(lock_);
    return extents_.size();
}

std::uint32_t ClusterMap::known_length() const {
    const sync::MutexLock lock(lock_);
    return length_locked();
}

std::optional<cluster_t> ClusterMap::damaged() const {
    const sync::MutexLock lock(lock_);
    return damaged_;
}

}  // namespace wbfat::fs::inline WBFAT_RT
