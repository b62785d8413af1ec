// All inodes in memory, found by where their entry lies or by their first cluster.
//
// Unreferenced inodes stay on an LRU (with their pages) until there are more than kKeepInodes, or
// something unlinked them. An inode leaves the cache only when nothing of it is owed to the disk.
//
// Invariants
//   - I1. A reference count falls to 0, and rises from 0, only under the lock.
//   - I2. An inode is on the LRU exactly when its count is 0 and it is not being evicted.
//   - I3. An inode that can be found has everything the disk says, or knows better; one built from
//     the disk is built only when none can be found. So an inode is unhashed after its last page
//     was written and its entry committed.
//   - I4. No reference outlives the volume.
//
// Locking: one Mutex, inside; below i_rwsem, above nothing that sleeps. Eviction runs with it
// dropped. Source: Linux fs/fat/inode.c fat_iget, fat_build_inode, inode hash; fs/inode.c iput,
// evict.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "cache/base/result.h"
#include "fs/dir.h"
#include "fs/inode.h"

namespace wbfat::fs::inline WBFAT_RT {

inline constexpr std::size_t kKeepInodes = 8192;

class InodeCache {
public:
    explicit InodeCache(Volume& volume);
    // As drop_everything().
    ~InodeCache();
    InodeCache(const InodeCache&) = delete;
    InodeCache& operator=(const InodeCache&) = delete;

    // The inode of a directory record: from memory, or built from its short entry.
    // `parent`: the directory the record is in. Errors: EIO (entry unreadable, start cluster out of
    // range, directory chain broken).
    Result<InodeRef> iget(Inode& parent, const DirRecord& record);
    // Errors: EIO when the root's start is out of range. A root whose chain breaks later is shown
    // as far as it goes.
    Result<InodeRef> root();
    // The entry moved (rename): the inode is now found at `i_pos`; kNoEntry: unlinked. Requires its
    // i_rwsem exclusively.
    void rehash(Inode& inode, std::uint64_t i_pos);
    void rehash_start(Inode& directory);
    // In-memory inode at this position, or an empty ref.
    InodeRef find(std::uint64_t i_pos);
    // The number an inode at this position has or would get: for readdir.
    std::uint64_t ino_at(std::uint64_t i_pos, cluster_t directory_start);

    // Evicts unreferenced inodes that owe the disk nothing, oldest first, until `keep` are left on
    // the LRU. Context: sleeps; not inside a transaction.
    void shrink(std::size_t keep);
    [[nodiscard]] std::size_t nr_inodes() const;
    // Inodes that somebody holds, the root's own reference not counted.
    [[nodiscard]] std::size_t nr_in_use() const;

    // Every file in memory, in no order, with the lock held: the visit takes no lock but a spin
    // lock.
    void for_each_file(const std::function<void(Inode&)>& visit);
    // The file of this number, if it is in memory; it stays while the visit lasts, as for the
    // flusher.
    void with_file(std::uint64_t ino, const std::function<void(Inode&)>& visit);

    // The flusher's uses of a file (AddressSpaceOps::grab_inode). pin() is false when the inode is
    // going away.
    bool pin(Inode& inode);
    void unpin(Inode& inode);
    // Unlinked inodes whose last reference was dropped inside a transaction. Called when one ends.
    void evict_deferred();
    // From here on nothing is evicted: the volume is being destroyed.
    void close();
    // Frees every inode, dirty or not, as a crash would. Requires: no InodeRef is left outside.
    void drop_everything();

private:
    friend class Inode;
    void last_reference_dropped(Inode& inode);
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace wbfat::fs::inline WBFAT_RT
