// One file or directory in memory.
//
// An Inode is identified by where its directory entry lies (i_pos) and, for directories, also by
// its first cluster, so that a directory that contains itself is met as the same Inode and the
// caller sees the cycle.
//
// Life: iget / create makes it, InodeRef keeps it, the InodeCache keeps unreferenced ones for a
// while (with their pages), the commit keeps those with changes pending. The last reference to an
// unlinked inode frees its clusters (evict). An inode with something pending is always found in
// memory, so the disk is never asked for stale fields.
//
// Invariants
//   - N1. physical_size >= i_size for files whose chain is intact: every byte below i_size is
//     mapped. Kernel: mmu_private.
//   - N2. Bytes in [i_size, end of its page) are zero in the page cache.
//   - N3. i_size, i_start, attr, times, i_pos change only inside a Transaction and with i_rwsem
//     held exclusively.
//   - N4. i_size == 0 and no preallocation -> i_start == 0.
//
// Locking: i_rwsem: shared for lookup and readdir, exclusive for whatever changes the file's size,
// chain, attributes or the directory's entries. Reads of data take no inode lock. Two directories:
// by address; see namei.h. Source: Linux fs/fat/fat.h msdos_inode_info, fs/fat/inode.c.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <sys/stat.h>

#include "cache/address_space.h"
#include "cache/base/result.h"
#include "cache/sync/sync.h"
#include "fs/cluster_map.h"
#include "fs/fat_time.h"
#include "fs/geometry.h"
#include "fs/layout.h"

namespace wbfat::fs::inline WBFAT_RT {

class Directory;
class Inode;
class Volume;

// A counted reference.
// NOLINTNEXTLINE(cppcoreguidelines-special-member-functions): one assignment, by value, is both.
class InodeRef {
public:
    InodeRef() = default;
    explicit InodeRef(Inode& inode);       // takes a new reference
    static InodeRef adopt(Inode& inode) {  // takes over one
        InodeRef ref;
        ref.inode_ = &inode;
        return ref;
    }
    InodeRef(const InodeRef& other);
    InodeRef(InodeRef&& other) noexcept : inode_(std::exchange(other.inode_, nullptr)) {}
    InodeRef& operator=(InodeRef other) noexcept {
        std::swap(inode_, other.inode_);
        return *this;
    }
    ~InodeRef();

    Inode& operator*() const {
        return *inode_;
    }
    Inode* operator->() const {
        return inode_;
    }
    explicit operator bool() const {
        return inode_ != nullptr;
    }
    // Gives the reference to the caller (a FUSE lookup count); pair with adopt().
    Inode* release() {
        return std::exchange(inode_, nullptr);
    }

private:
    Inode* inode_ = nullptr;
};

// Fields of the 32-byte entry that belong to the inode. Guarded by i_rwsem (N3).
struct InodeAttributes {
    std::uint8_t attr = 0;     // ATTR_*; ATTR_DIRECTORY for directories
    std::uint8_t nt_case = 0;  // DIR_NTRes, all bits, preserved
    timespec mtime{};
    timespec atime{};
    timespec btime{};
};

class Inode {
public:
    enum class Type : std::uint8_t { kFile, kDirectory };

    // Only InodeCache and Volume make inodes; see inode_cache.h.
    Inode(Volume& volume, Type type, std::uint64_t ino);
    ~Inode();
    Inode(const Inode&) = delete;
    Inode& operator=(const Inode&) = delete;

    Volume& volume() const {
        return volume_;
    }
    bool is_directory() const {
        return type_ == Type::kDirectory;
    }
    bool is_root() const {
        return is_root_;
    }
    // st_ino: stable while in memory; the same after a remount unless the entry moved.
    std::uint64_t ino() const {
        return ino_;
    }

    // What stat answers. Takes i_rwsem shared. `mode`, uid, gid follow the mount options.
    struct stat getattr();
    // The mode a file shows: 0777 & ~fmask, write bits off if ATTR_READ_ONLY, showexec, rodir.
    mode_t mode() const;

    // The cached pages of a file. Directories have none of their own: their sectors are pages of
    // the device mapping.
    cache::AddressSpace& mapping();
    std::uint64_t i_size() const;

    // The entries of a directory; loaded on first use. Requires is_directory().
    Directory& directory();

    sync::RwSem i_rwsem;

    // --- guarded by i_rwsem ---
    // Device offset in bytes of the short entry; kNoEntry for the root and for unlinked inodes.
    static constexpr std::uint64_t kNoEntry = ~std::uint64_t{0};
    std::uint64_t i_pos = kNoEntry;
    cluster_t i_start = 0;
    std::uint64_t physical_size = 0;  // bytes allocated and initialised; kernel: mmu_private
    std::uint32_t nlink = 1;          // directories: 2 + subdirectories
    InodeAttributes attributes;
    ClusterMap clusters;
    InodeRef parent;  // directories only, for ".."; empty for the root

    // --- guarded by the transaction lock (ordering.h) ---
    // The smallest size since the last commit while the chain was re-grown after a shrink: what the
    // entry may say before the re-link is durable. ~0: no such constraint.
    std::uint64_t low_water_size = ~std::uint64_t{0};
    sync::Atomic<std::uint64_t> dirty_sequence{
        0};  // commit that will hold the last metadata change
    sync::Atomic<std::uint64_t> size_sequence{
        0};  // the same for the last change of size or chain only (fdatasync)
    // The commit (ordering.h current_sequence) before which nothing on disk reaches the end of the
    // chain: links added there need no phase of their own.
    std::uint64_t unreachable_tail_sequence = 0;
    // Clusters beyond the size were asked for by fallocate(KEEP_SIZE); given back at eviction.
    bool preallocated = false;

    // Puts start, size, times and attributes into the entry's page and notes the block. Called by
    // the commit. `size` overrides i_size (low_water_size). Errors: EIO when the directory sector
    // cannot be read.
    Result<> commit_entry(std::uint64_t size_bytes);
    // Marks the entry out of date in this transaction.
    void mark_dirty();
    // mark_dirty() for a change of size or chain: fdatasync must wait for it too.
    void note_size_change();
    // Sets mtime to now and the archive attribute; marks dirty only if the entry will differ.
    void touch_mtime();

    // The extent tail from `file_cluster` on; nullopt past the end of the chain. A damaged chain is
    // fs_error()ed. Errors: EIO.
    Result<std::optional<ClusterMap::Extent>> find_cluster(std::uint32_t file_cluster);

    void get_ref();
    // Context: sleeps; an unlinked inode is evicted here, or, inside a transaction, when that ends.
    void put_ref();

private:
    friend class InodeCache;
    class Ops;  // AddressSpaceOps of a file's mapping

    Volume& volume_;
    const Type type_;
    std::uint64_t ino_;  // constant once the inode is in the cache
    bool is_root_ = false;
    bool is_program_ =
        true;  // showexec: .EXE, .COM or .BAT; constant once the inode is in the cache
    // Falls to 0 and rises from 0 only under the InodeCache's lock.
    sync::Atomic<std::int64_t> refcount_{1};
    // Guarded by the InodeCache's lock: uses by the flusher, apart from refcount_ so that an
    // unlinked file need not be written before it can go; and the word that no more are given out.
    unsigned pins_ = 0;
    bool going_away_ = false;
    std::unique_ptr<Ops> ops_;
    std::unique_ptr<cache::AddressSpace> mapping_;
    std::unique_ptr<Directory> directory_;
};

}  // namespace wbfat::fs::inline WBFAT_RT
