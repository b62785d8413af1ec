// File cluster -> disk cluster, as extents.
//
// The chain of a file is read once, run by run, into a sorted vector of extents; a lookup is a
// binary search, so random access in a fragmented 4 GiB file is O(log n). The map is loaded lazily
// up to the cluster asked for.
//
// Invariants
//   - C1. Extents are sorted by file cluster, gapless from 0, and maximal (neighbours on disk are
//     merged).
//   - C2. The walk is bounded by the clusters of the volume: a loop or a link out of the volume
//     ends it with EIO. A loop is noticed after at most three times its length, so that memory is
//     bounded by what the disk really holds.
//
// Locking: one Mutex inside, below page locks (map_blocks) and above fat_lock. Changes need the
// inode's i_rwsem too. Source: replaces fs/fat/cache.c. The loop detection is Brent's.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cache/base/result.h"
#include "cache/sync/sync.h"
#include "fs/allocator.h"
#include "fs/geometry.h"

namespace wbfat::fs::inline WBFAT_RT {

class FatTable;

class ClusterMap {
public:
    struct Extent {
        std::uint32_t file_cluster = 0;
        cluster_t disk_cluster = 0;
        std::uint32_t count = 0;

        friend bool operator==(const Extent&, const Extent&) = default;
    };

    // Forgets everything; the chain starts at `start` (0: empty), a cluster of the volume.
    void reset(cluster_t start);
    // The extent tail from `file_cluster` on; nullopt past the end of the chain.
    // Errors: EIO for a damaged chain (`damaged()` tells where) or an unreadable FAT.
    Result<std::optional<Extent>> find(FatTable& fat, std::uint32_t file_cluster);
    // Number of clusters in the chain; walks it to the end. Errors: as find.
    Result<std::uint32_t> length(FatTable& fat);
    // The last cluster, 0 when empty. Errors: as find.
    Result<cluster_t> last(FatTable& fat);

    // Adds clusters just linked behind the end (the map must be complete). / Keeps the first
    // `count` clusters.
    void append(std::span<const ClusterRun> runs);
    void truncate(std::uint32_t count);
    // The runs from file cluster `first` to the end of the chain. Errors: as find.
    Result<std::vector<ClusterRun>> runs_from(FatTable& fat, std::uint32_t first);
    // Runs found so far, for tests and status.
    std::size_t nr_extents() const;

    // Clusters found so far; all of them once length() or last() has succeeded.
    std::uint32_t known_length() const;
    // Where the chain breaks: the cluster that cannot belong to it, or whose entry is no link.
    // nullopt while no damage was met.
    std::optional<cluster_t> damaged() const;

private:
    Result<> load_to_locked(FatTable& fat, std::uint32_t file_cluster) REQUIRES(lock_);
    void read_on_locked(FatTable& fat, std::uint32_t file_cluster) REQUIRES(lock_);
    Result<> load_one_locked(FatTable& fat) REQUIRES(lock_);
    void add_locked(const ClusterRun& run) REQUIRES(lock_);
    std::uint32_t length_locked() const REQUIRES(lock_);

    mutable sync::Mutex lock_;
    std::vector<Extent> extents_ GUARDED_BY(lock_);
    cluster_t next_unread_ GUARDED_BY(lock_) = 0;  // 0: the whole chain is known
    std::optional<cluster_t> damaged_ GUARDED_BY(lock_);
    // Brent: the walk is in a loop when it meets the hare's resting place again.
    cluster_t resting_ GUARDED_BY(lock_) = 0;
    std::uint32_t steps_left_ GUARDED_BY(lock_) = 1;
    std::uint32_t next_rest_ GUARDED_BY(lock_) = 1;
};

}  // namespace wbfat::fs::inline WBFAT_RT
