// Growing and shrinking a file: the kernel's functions by their names.
//
// Locking: the inode's i_rwsem exclusively; no Transaction and no page lock (each opens its own
// transactions). Source: Linux fs/fat/file.c fat_cont_expand, fat_truncate_blocks, fat_free,
// fat_fallocate; fs/fat/inode.c fat_evict_inode.
#pragma once

#include <cstdint>

#include "cache/base/result.h"
#include "fs/inode.h"

namespace wbfat::fs::inline WBFAT_RT {

// Makes every byte below `end` mapped: allocates clusters, links them, raises physical_size. Size
// unchanged. Commits and retries when only pending clusters are left. Errors: EFBIG, ENOSPC
// (nothing is kept then), EIO.
Result<> fat_add_clusters(Inode& inode, std::uint64_t end_bytes);
// Grows the file to `size` with zeros written through the cache from the initialised size on; on a
// sync mount then the flush sequence E5 of writeback-protocol.md 11.3, step by step. A failure
// leaves the old size.
Result<> fat_cont_expand(Inode& inode, std::uint64_t size_bytes);
// Frees the clusters beyond `offset` (i_size is already reduced and the pages are gone).
Result<> fat_truncate_blocks(Inode& inode, std::uint64_t offset_bytes);
// Adds one zeroed cluster to a directory; returns it. The link is kLink; the cluster is noted as
// new (ordering.h O2). Inside a Transaction. Errors: ENOSPC with `pending_would_do`, EIO.
Result<cluster_t> fat_add_directory_cluster(Inode& dir, bool& pending_would_do);
// A cluster for a directory being made, zeroed but for "." and ".."; not linked to anything. Inside
// a Transaction.
Result<cluster_t> fat_alloc_new_dir(Inode& parent, const timespec& now, bool& pending_would_do);
// The last reference to an inode is gone: unlinked -> free its clusters; else give back
// preallocation.
void fat_evict_inode(Inode& inode);

}  // namespace wbfat::fs::inline WBFAT_RT
