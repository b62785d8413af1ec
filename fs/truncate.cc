// Growing and shrinking a file.
#include "fs/truncate.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>
#include <vector>

#include "cache/base/check.h"
#include "cache/filemap.h"
#include "cache/flusher.h"
#include "cache/page_lock.h"
#include "fs/file.h"
#include "fs/layout.h"
#include "fs/volume.h"

namespace wbfat::fs::inline WBFAT_RT {

namespace {

// Zero filling goes on in steps of this many bytes, so that a commit and the dirty limit get their
// turn between them.
constexpr std::uint64_t kZeroStepBytes = 1U << 20;

std::uint32_t clusters_for(const Geometry& geometry, std::uint64_t bytes) {
    return static_cast<std::uint32_t>((bytes + geometry.cluster_bytes - 1) >>
                                      geometry.cluster_shift);
}

// Writes the chain of the new clusters, not yet reachable from anywhere. On error the clusters not
// written yet are free again; those already chained stay lost until fsck, as after a power cut.
Result<> write_new_chain(Volume& volume, const std::vector<ClusterRun>& runs) {
    for (std::size_t i = 0; i < runs.size(); ++i) {
        const bool is_last = i + 1 == runs.size();
        const FatValue end = is_last ? FatValue::end_of_chain() : FatValue::link(runs[i + 1].first);
        if (const Result<> written = volume.fat().set_chain(runs[i], end); !written.has_value()) {
            for (std::size_t k = i; k < runs.size(); ++k) {
                volume.allocator().cancel(runs[k]);
            }
            return written;
        }
    }
    return {};
}

// True if one sector write carries the link and everything behind it.
bool fits_tail_sector(const FatTable& fat, cluster_t tail, const std::vector<ClusterRun>& runs) {
    return std::all_of(runs.begin(), runs.end(), [&](const ClusterRun& run) {
        return fat.same_sector(tail, run.first) && fat.same_sector(tail, run.first + run.count - 1);
    });
}

// Links `tail` to the new chain in the earliest phase in which the disk may see it (ordering.h).
Result<> link_tail(Inode& inode, cluster_t tail, const std::vector<ClusterRun>& runs) {
    Volume& volume = inode.volume();
    FatTable& fat = volume.fat();
    const FatValue link = FatValue::link(runs.front().first);
    const std::uint64_t sequence = volume.ordering().current_sequence();
    if (fat.is_held_back(tail)) {
        // The tail waits for its end mark since a shrink: re-link it there instead. Until then the
        // entry may not promise more than the clusters that were kept (low_water_size).
        inode.unreachable_tail_sequence = sequence;
        return fat.set_later(tail, link, Phase::kCut);
    }
    if (inode.unreachable_tail_sequence == sequence) {
        return fat.set(tail, link);
    }
    // The content of a directory's new cluster must be durable before anything links to it, and so
    // must be the chains of the files named in there, kLink included; a file's is hidden by its
    // size.
    if (!inode.is_directory() && fits_tail_sector(fat, tail, runs)) {
        return fat.set(tail, link);
    }
    inode.unreachable_tail_sequence = sequence;
    return fat.set_later(tail, link, inode.is_directory() ? Phase::kEntry : Phase::kLink);
}

// The last cluster of a chain takes an end mark or a link only while the table calls it used:
// another file that shares it may have freed it. Source: fat_free, "invalid cluster chain". Errors:
// EIO.
Result<> check_tail(Inode& inode, cluster_t tail) {
    if (TRY(inode.volume().fat().get(tail)) == FatValue::free()) {
        inode.volume().fs_error(
            fmt::format("cluster {} of {} is free", tail, inode.mapping().name()));
        return Errno{EIO};
    }
    return {};
}

// Allocates `count` clusters behind the end of the chain and links them. Inside a Transaction.
// On error nothing is kept but, after a device error, clusters lost until fsck.
Result<std::vector<ClusterRun>> extend_chain(Inode& inode, std::uint32_t count,
                                             bool& pending_would_do) {
    Volume& volume = inode.volume();
    const cluster_t tail = TRY(inode.clusters.last(volume.fat()));
    if (tail != 0) {
        TRY_VOID(check_tail(inode, tail));
    }
    const cluster_t goal = tail == 0 ? 0 : tail + 1;
    std::vector<ClusterRun> runs = TRY(volume.allocator().allocate(count, goal, pending_would_do));
    TRY_VOID(write_new_chain(volume, runs));
    if (tail == 0) {
        inode.i_start = runs.front().first;
        inode.clusters.reset(inode.i_start);
        inode.unreachable_tail_sequence = volume.ordering().current_sequence();
    } else {
        TRY_VOID(link_tail(inode, tail, runs));
        inode.clusters.append(runs);
    }
    return runs;
}

// Appends `run`; of a shared one only what the table does not call free already, since a cluster
// that the other file has freed may be handed out before this freeing is applied. A part that
// cannot be read stays lost.
void append_freed(FatTable& fat, const ClusterRun& run, bool is_shared,
                  std::vector<ClusterRun>& to_free) {
    if (!is_shared) {
        to_free.push_back(run);
        return;
    }
    for (cluster_t cluster = run.first; cluster < run.first + run.count; ++cluster) {
        const Result<FatValue> value = fat.get(cluster);
        if (value.has_value() && *value != FatValue::free()) {
            to_free.push_back({cluster, 1});
        }
    }
}

// Zeroes a cluster in the device mapping's pages and fills its first bytes with `head`. Inside a
// Transaction.
Result<> fill_directory_cluster(Volume& volume, cluster_t cluster,
                                std::span<const std::byte> head) {
    cache::AddressSpace& mapping = volume.device_mapping();
    const std::uint64_t start = volume.geometry().cluster_offset_bytes(cluster);
    const std::uint64_t end = start + volume.geometry().cluster_bytes;
    for (std::uint64_t at = start; at < end;) {
        const std::size_t in_page = cache::offset_in_page(at);
        const std::size_t length = std::min<std::uint64_t>(cache::kPageSize - in_page, end - at);
        cache::Page& page = *TRY(cache::read_mapping_page(mapping, cache::page_index(at)));
        cache::lock_page(page);
        cache::wait_for_stable_page(page);
        const std::span<std::byte> bytes(page.data + in_page, length);
        std::fill(bytes.begin(), bytes.end(), std::byte{0});
        if (at == start) {
            std::copy(head.begin(), head.end(), bytes.begin());
        }
        cache::set_page_dirty(page, cache::blocks_covering(in_page, length));
        cache::unlock_page(page);
        cache::put_page(page);
        at += length;
    }
    volume.ordering().note_new_directory_cluster(cluster);
    volume.ordering().note_blocks(Phase::kAllocate, start, end - start);
    return {};
}

// The zero fill of [from, to), i_size growing with it. Locks: i_rwsem exclusively, no Transaction.
Result<> zero_fill(Inode& inode, std::uint64_t from, std::uint64_t to) {
    Volume& volume = inode.volume();
    for (std::uint64_t at = from; at < to;) {
        const std::uint64_t step_end = std::min((at / kZeroStepBytes + 1) * kZeroStepBytes, to);
        {
            const Transaction transaction(volume);
            TRY_VOID(transaction.status());
            TRY_VOID(cache::zero_range(inode.mapping(), at, step_end));
            inode.note_size_change();
        }
        WBFAT_POINT("cont_expand:zeroed", inode.mapping());
        volume.cache().flusher().balance_dirty_pages(inode.mapping());
        at = step_end;
    }
    return {};
}

// The kernel's terminating zero-length write cycle at the new size: the block that holds it is
// dirtied once more.
Result<> finish_at_size(Inode& inode, std::uint64_t size) {
    if (size % cache::kBlockSize == 0) {
        return {};
    }
    const Transaction transaction(inode.volume());
    TRY_VOID(transaction.status());
    cache::Page& page = *TRY(cache::write_begin(inode.mapping(), size, 0));
    cache::write_end(inode.mapping(), page, size, 0);
    return {};
}

// E5 of writeback-protocol.md 11.3: on a sync mount the data and the inode are on disk when
// ftruncate returns. The first error wins. write_cache_pages runs twice, as in the kernel: in (a)
// and in (c).
Result<> sync_expansion(Inode& inode, std::uint64_t start, std::uint64_t size) {
    Volume& volume = inode.volume();
    cache::AddressSpace& mapping = inode.mapping();
    cache::ErrSeq::Cursor since = mapping.wb_err.sample();
    // (a)
    int error = cache::filemap_fdatawrite_range(mapping, start, size - 1).code();
    WBFAT_POINT("sync_expansion:written", mapping);
    // (b), (c): the inode's pages, its entry and the FAT blocks it depends on.
    const int pages_error =
        volume.cache().flusher().write_inode_now(mapping, cache::WB_SYNC_ALL).code();
    error = error != 0 ? error : pages_error;
    const int commit_error = volume.ordering().commit().code();
    error = error != 0 ? error : commit_error;
    if (error != 0) {
        return Errno{error};
    }
    // (d)
    cache::filemap_fdatawait_range(mapping, start, size - 1);
    if (const int writeback_error = mapping.wb_err.check_and_advance(since); writeback_error != 0) {
        return Errno{writeback_error};
    }
    return {};
}

// Drops what an expansion that failed half way has added.
void undo_expansion(Inode& inode, std::uint64_t old_size) {
    {
        const Transaction transaction(inode.volume());
        if (!transaction.status().has_value()) {
            return;
        }
        cache::truncate_setsize(inode.mapping(), old_size);
        inode.note_size_change();
    }
    // The caller reports the first error; clusters that stay behind now are found by fsck.
    static_cast<void>(fat_truncate_blocks(inode, old_size).has_value());
}

}  // namespace

Result<> fat_add_clusters(Inode& inode, std::uint64_t end_bytes) {
    Volume& volume = inode.volume();
    if (end_bytes > kMaxFileBytes) {
        return Errno{EFBIG};
    }
    const std::uint32_t needed = clusters_for(volume.geometry(), end_bytes);
    if (end_bytes <= inode.physical_size) {
        return {};
    }
    for (bool committed = false;; committed = true) {
        bool pending_would_do = false;
        {
            const Transaction transaction(volume);
            TRY_VOID(transaction.status());
            const std::uint32_t have = TRY(inode.clusters.length(volume.fat()));
            if (needed <= have) {
                inode.physical_size = std::uint64_t{have} << volume.geometry().cluster_shift;
                return {};
            }
            const Result<std::vector<ClusterRun>> added =
                extend_chain(inode, needed - have, pending_would_do);
            if (added.has_value()) {
                inode.physical_size = std::uint64_t{needed} << volume.geometry().cluster_shift;
                inode.note_size_change();
                return {};
            }
            if (added.error() != Errno{ENOSPC} || !pending_would_do || committed) {
                return added.error();
            }
        }
        TRY_VOID(volume.ordering().commit());
    }
}

Result<> fat_cont_expand(Inode& inode, std::uint64_t size_bytes) {
    const std::uint64_t start = inode.i_size();
    TRY_VOID(fat_add_clusters(inode, size_bytes));
    Result<> grown = zero_fill(inode, start, size_bytes);
    if (grown.has_value()) {
        grown = finish_at_size(inode, size_bytes);
    }
    if (!grown.has_value()) {
        undo_expansion(inode, start);
        return grown;
    }
    {
        const Transaction transaction(inode.volume());
        TRY_VOID(transaction.status());
        inode.touch_mtime();
    }
    return inode.volume().is_sync() ? sync_expansion(inode, start, size_bytes) : Result<>{};
}

Result<> fat_truncate_blocks(Inode& inode, std::uint64_t offset_bytes) {
    Volume& volume = inode.volume();
    FatTable& fat = volume.fat();
    const Transaction transaction(volume);
    TRY_VOID(transaction.status());
    if (inode.i_start == 0) {
        return {};
    }
    const std::uint32_t keep = clusters_for(volume.geometry(), offset_bytes);
    std::vector<ClusterRun> freed = TRY(inode.clusters.runs_from(fat, keep));
    if (freed.empty()) {
        return {};
    }
    if (keep == 0) {
        inode.i_start = 0;
        inode.clusters.reset(0);
        // The entry loses or changes its start in one write: no size on disk can be too large for
        // the chain any more.
        inode.low_water_size = ~std::uint64_t{0};
    } else {
        const auto tail = TRY(inode.clusters.find(fat, keep - 1));
        BUG_ON(!tail.has_value());
        TRY_VOID(check_tail(inode, tail->disk_cluster));
        TRY_VOID(fat.set_later(tail->disk_cluster, FatValue::end_of_chain(), Phase::kCut));
        inode.clusters.truncate(keep);
        inode.low_water_size =
            std::min(inode.low_water_size, std::uint64_t{keep} << volume.geometry().cluster_shift);
    }
    inode.unreachable_tail_sequence = 0;
    inode.physical_size = std::uint64_t{keep} << volume.geometry().cluster_shift;
    std::vector<ClusterRun> to_free;
    for (const ClusterRun& run : freed) {
        const bool is_shared = !volume.allocator().free_later(run);
        if (is_shared) {
            volume.fs_error(fmt::format("clusters {}..{} belong to two files", run.first,
                                        run.first + run.count - 1));
        }
        append_freed(fat, run, is_shared, to_free);
    }
    TRY_VOID(fat.free_runs_later(std::move(to_free)));
    inode.note_size_change();
    return {};
}

Result<cluster_t> fat_add_directory_cluster(Inode& dir, bool& pending_would_do) {
    const std::vector<ClusterRun> runs = TRY(extend_chain(dir, 1, pending_would_do));
    const cluster_t cluster = runs.front().first;
    TRY_VOID(fill_directory_cluster(dir.volume(), cluster, {}));
    return cluster;
}

Result<cluster_t> fat_alloc_new_dir(Inode& parent, const timespec& now, bool& pending_would_do) {
    Volume& volume = parent.volume();
    const FatType type = volume.geometry().type;
    const std::vector<ClusterRun> runs = TRY(volume.allocator().allocate(1, 0, pending_would_do));
    const cluster_t cluster = runs.front().first;
    TRY_VOID(volume.fat().set(cluster, FatValue::end_of_chain()));

    const FatTimestamp stamp = to_fat_time(now, volume.options());
    ShortEntry dot;
    dot.name.fill(' ');
    dot.name[0] = '.';
    dot.attr = kAttrDirectory;
    dot.set_created(stamp);
    dot.set_written(stamp);
    dot.set_accessed(stamp);
    ShortEntry dotdot = dot;
    dotdot.name[1] = '.';
    dot.set_first_cluster(type, cluster);
    // ".." of a directory in the root holds 0, on FAT32 too.
    dotdot.set_first_cluster(type, parent.is_root() ? 0 : parent.i_start);

    std::array<std::byte, 2 * kDirEntryBytes> head{};
    store(std::span(head), dot, 0);
    store(std::span(head), dotdot, kDirEntryBytes);
    TRY_VOID(fill_directory_cluster(volume, cluster, head));
    return cluster;
}

void fat_evict_inode(Inode& inode) {
    Volume& volume = inode.volume();
    if (volume.is_read_only()) {
        return;
    }
    if (inode.nlink == 0) {
        if (!inode.is_directory()) {
            cache::truncate_setsize(inode.mapping(), 0);
        }
        const Result<> freed = fat_truncate_blocks(inode, 0);
        if (!freed.has_value()) {
            volume.log(LogLevel::kWarning,
                       "clusters of a deleted file could not be freed; fsck will find them");
        }
        return;
    }
    if (inode.preallocated) {
        inode.preallocated = false;
        static_cast<void>(fat_truncate_blocks(inode, inode.i_size()).has_value());
    }
}

}  // namespace wbfat::fs::inline WBFAT_RT
