// A mapping: the cached pages of one file, or of the device itself, and the door up to whoever owns
// the bytes.
//
// The cache never names a filesystem. It calls up through AddressSpaceOps, as mm/ calls a
// filesystem through address_space_operations: where does this range lie on the device, write this
// inode back.
//
// Locking: i_pages has its own lock; i_size changes under the owner's inode lock and, when it
// grows, also under the lock of the page that holds the new end (so that writeback cannot zero
// fresh bytes). Source: Linux v6.19 include/linux/fs.h struct address_space; lib/errseq.c.
#pragma once

#include <cstdint>
#include <string>

#include "cache/base/result.h"
#include "cache/page_index.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

class BlockDevice;
class PageCache;
struct WritebackControl;

// A sequence of writeback errors: every observer hears of each once.
// Low 12 bits errno, bit 12 "seen", the rest a counter. Source: lib/errseq.c;
// writeback-protocol.md 10.12.
class ErrSeq {
public:
    using Cursor = std::uint32_t;

    void set(int error);
    // For a new opener: an error nobody has seen yet is reported to it.
    [[nodiscard]] Cursor sample() const;
    // Returns the errno if something new happened since `since`, and moves `since` on; else 0.
    int check_and_advance(Cursor& since);
    [[nodiscard]] int check(Cursor since) const;

private:
    sync::Atomic<std::uint32_t> value_{0};
};

// A run of the file on the device.
struct MappedExtent {
    // Byte offset on the device; kHole reads as zeros and cannot be written.
    std::uint64_t device_offset_bytes = kHole;
    std::uint64_t length_bytes = 0;  // > 0, from the offset asked for; multiple of kBlockSize

    static constexpr std::uint64_t kHole = ~std::uint64_t{0};
    [[nodiscard]] bool is_hole() const {
        return device_offset_bytes == kHole;
    }
};

class AddressSpaceOps {
public:
    AddressSpaceOps() = default;
    AddressSpaceOps(const AddressSpaceOps&) = delete;
    AddressSpaceOps& operator=(const AddressSpaceOps&) = delete;
    virtual ~AddressSpaceOps() = default;

    // Where [offset, offset + up to length) of the mapping lies. Never allocates: blocks exist
    // before a page is dirtied. Called under a page lock; may read metadata through the cache of
    // another mapping. Errors: EIO (chain ends early, device), EUCLEAN. Source: get_block.
    virtual Result<MappedExtent> map_blocks(AddressSpace& mapping, std::uint64_t offset_bytes,
                                            std::uint64_t length_bytes) = 0;

    // Writes dirty pages of the mapping. The default is mpage_writepages; the device mapping
    // overrides it with the ordered commit, because metadata may only reach the disk in phases.
    virtual Result<> writepages(AddressSpace& mapping, WritebackControl& wbc);

    // Writes the inode itself (size, times, start). Called by the flusher after the pages.
    // Source: super_operations.write_inode.
    virtual Result<> write_inode(AddressSpace& mapping, const WritebackControl& wbc) = 0;

    // A reference that keeps the owner alive while it sits on a flusher list; false when it is
    // already going away.
    virtual bool grab_inode(AddressSpace& mapping) = 0;
    virtual void drop_inode(AddressSpace& mapping) = 0;
};

// Inode states the flusher cares about (AddressSpace::i_state). Source: include/linux/fs.h I_*.
// NOLINTBEGIN(readability-identifier-naming): the kernel's names.
enum InodeState : std::uint32_t {
    I_DIRTY_INODE = 1U << 0,
    I_DIRTY_PAGES = 1U << 1,
    I_SYNC = 1U << 2,  // writeback_single_inode is running
    I_FREEING = 1U << 3,
};
// NOLINTEND(readability-identifier-naming)

class AddressSpace {
public:
    // `stable_pages`: modifiers wait for writeback of a page to end before they touch it
    // (metadata).
    enum class StablePages { kNo, kYes };

    // Every mapping belongs to one PageCache and one device. `name` appears in reports.
    AddressSpace(PageCache& cache, BlockDevice& device, AddressSpaceOps& ops,
                 StablePages stable_pages, std::string name);
    // Requires: no pages left (truncate_inode_pages was called) and not on a flusher list.
    ~AddressSpace();
    AddressSpace(const AddressSpace&) = delete;
    AddressSpace& operator=(const AddressSpace&) = delete;

    PageCache& cache() const {
        return cache_;
    }
    BlockDevice& device() const {
        return device_;
    }
    AddressSpaceOps& ops() const {
        return ops_;
    }
    bool stable_pages() const {
        return stable_pages_ == StablePages::kYes;
    }
    std::string name() const;
    void rename(std::string name);
    // The name as points compare it.
    std::uint32_t name_tag() const {
        return name_tag_.load();
    }

    std::uint64_t i_size() const {
        return i_size_.load(std::memory_order_acquire);
    }
    void i_size_write(std::uint64_t size_bytes) {
        i_size_.store(size_bytes, std::memory_order_release);
    }

    PageIndex i_pages;
    ErrSeq wb_err;
    // Where range_cyclic writeback goes on; racy by design (writeback-protocol.md 10.6 W6).
    sync::Atomic<pgoff_t> writeback_index{0};

    // Guarded by the flusher's list_lock.
    std::uint32_t i_state = 0;
    std::uint64_t dirtied_when_ns = 0;
    AddressSpace* wb_prev = nullptr;
    AddressSpace* wb_next = nullptr;
    int wb_list = 0;  // 0: none; see flusher.h

private:
    // Constant after construction.
    PageCache& cache_;
    BlockDevice& device_;
    AddressSpaceOps& ops_;
    StablePages stable_pages_;

    // For reports, which may run in any context.
    mutable sync::SpinLock name_lock_;
    std::string name_ GUARDED_BY(name_lock_);
    sync::Relaxed<std::uint32_t> name_tag_;

    sync::Atomic<std::uint64_t> i_size_{0};
};

inline sync::PointSubject point_subject(const AddressSpace& mapping) {
    return {.file = mapping.name_tag()};
}

// Records a writeback error for every opener of the mapping and for the whole cache (syncfs).
// Context: any, completions too. Source: mapping_set_error.
void mapping_set_error(AddressSpace& mapping, int error);

}  // namespace wbfat::cache::inline WBFAT_RT
