// Free clusters: a lazily loaded bitmap and a policy that keeps files contiguous.
//
// The bitmap is cut into groups of 32768 clusters; a group is read from the FAT the first time an
// allocation or the free count needs it, so mounting a 2 TiB volume reads nothing. A cluster is
// free, used, or pending: freed by an operation whose commit is not through yet (ordering.h O4).
// Pending clusters count as free for statfs, not for allocation.
//
// Invariants
//   - A1. A cluster's bit is set exactly when it may be allocated: free in the table, not pending,
//     not handed out.
//   - A2. Whoever frees or cancels hands back what he got: cancelling a free cluster is a bug.
//     Freeing one twice also happens on damaged volumes (two chains share it), so free_later()
//     leaves it alone and says so.
//   - A3. A group's bits come from the table once; from then on the bitmap is what counts.
//
// Policy: right after `goal`; else next-fit for a run long enough, with bounded effort; else the
// pieces there are. A file whose goal is taken starts its next piece some way ahead of the others,
// so that two files growing in turns do not interleave cluster by cluster.
//
// Locking: one Mutex, inside; order: transaction -> allocator -> fat_lock. Held while a group is
// read. Source: replaces fat_alloc_clusters / fat_free_clusters / fat_count_free_clusters.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "cache/base/result.h"
#include "cache/sync/sync.h"
#include "fs/boot_sector.h"
#include "fs/fat_table.h"
#include "fs/geometry.h"

namespace wbfat::cache::inline WBFAT_RT {
class BlockUse;
}

namespace wbfat::fs::inline WBFAT_RT {

class Allocator {
public:
    // `hint`: FSINFO; its free count is used only if `trust_free_count`. `blocks` is told of every
    // allocation and every freeing. What is referred to outlives the allocator.
    Allocator(const Geometry& geometry, FatTable& fat, cache::BlockUse& blocks, const FsInfo& hint,
              bool trust_free_count);
    ~Allocator();
    Allocator(const Allocator&) = delete;
    Allocator& operator=(const Allocator&) = delete;

    // Takes `count` clusters, as few runs as possible, starting right after `goal` where that is
    // free (0: no goal, then next-fit from the last allocation). All or nothing. Only marks them
    // used in memory: the caller writes the chain (FatTable::set_chain). Inside a Transaction.
    // Errors: ENOSPC; `pending_would_do` then tells that a commit and a retry can succeed. EIO from
    // the FAT.
    Result<std::vector<ClusterRun>> allocate(std::uint32_t count, cluster_t goal,
                                             bool& pending_would_do);
    // Gives back clusters that were never linked to anything: free at once.
    void cancel(const ClusterRun& run);
    // The run is freed by this transaction: pending until release_pending(). Returns false if part
    // of it was free or pending already, which only a damaged volume (cross-linked chains) can
    // bring about: the caller owes fs_error().
    bool free_later(const ClusterRun& run);
    // What release_pending() will release.
    [[nodiscard]] std::vector<ClusterRun> pending_runs() const;
    // The kFree phase is written: every pending run becomes allocatable. Called by the commit only,
    // while it still keeps transactions out.
    void release_pending();

    // Free clusters (pending ones included). Scans the table the first time unless FSINFO's count
    // is trusted.
    Result<std::uint32_t> free_count();
    // For FSINFO: what is known without reading. 0xFFFFFFFF when it is not.
    [[nodiscard]] std::uint32_t free_count_if_known() const;
    [[nodiscard]] cluster_t next_free_hint() const;

    // Runs of free clusters not smaller than `minimum` in [first, last], for FITRIM. Nothing is
    // allocated meanwhile: `visit` runs under the allocator's lock and must not call it.
    Result<> for_each_free_run(cluster_t first, cluster_t last, std::uint32_t minimum,
                               const std::function<Result<>(const ClusterRun&)>& visit);

private:
    struct Group;
    class Impl;
    [[nodiscard]] std::uint64_t bytes_of(const ClusterRun& run) const;

    std::unique_ptr<Impl> impl_;
    const Geometry& geometry_;
    cache::BlockUse& blocks_;
};

}  // namespace wbfat::fs::inline WBFAT_RT
