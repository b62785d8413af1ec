// Open files and setattr.
#include "fs/file.h"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include <linux/falloc.h>

#include "cache/flusher.h"
#include "fs/layout.h"
#include "fs/truncate.h"
#include "fs/volume.h"

namespace wbfat::fs::inline WBFAT_RT {

namespace {

// Bytes copied into the cache in one Transaction.
constexpr std::size_t kWriteStepBytes = 1U << 20;

constexpr mode_t kWriteBits = 0222;
constexpr mode_t kReadExecuteBits = 0555;
// FAT_VALID_MODE of the kernel: what chmod may ask for at all.
constexpr mode_t kValidMode = S_IFREG | S_IFDIR | 0777;
// Attribute bits a user may change by ioctl.
constexpr std::uint32_t kSettableAttributes =
    kAttrReadOnly | kAttrHidden | kAttrSystem | kAttrArchive;

// Everything that reaches the disk before a call on a synchronous volume returns.
Result<> sync_if(bool wanted, Inode& inode) {
    if (!wanted) {
        return {};
    }
    if (!inode.is_directory()) {
        cache::ErrSeq::Cursor since = inode.mapping().wb_err.sample();
        TRY_VOID(cache::file_write_and_wait_range(inode.mapping(), 0, cache::kLastByte, since));
    }
    return inode.volume().ordering().commit();
}

// The bytes that can be mapped when [.., end) cannot: up to where the free clusters would reach.
Result<std::uint64_t> reachable_end(Inode& inode, std::uint64_t end) {
    Volume& volume = inode.volume();
    const std::uint64_t free_bytes = std::uint64_t{TRY(volume.allocator().free_count())}
                                     << volume.geometry().cluster_shift;
    return std::min(end, inode.physical_size + free_bytes);
}

// Maps [.., end), or as much as the free space allows but at least one byte past `offset`.
// Returns the end that is mapped now. Errors: ENOSPC only when nothing from `offset` on is mapped:
// what the file has already can always be written.
Result<std::uint64_t> map_for_write(Inode& inode, std::uint64_t offset, std::uint64_t end) {
    Result<> added = fat_add_clusters(inode, end);
    // Others may take what was counted before it is taken here: counted again, while it shrinks.
    std::uint64_t tried = std::numeric_limits<std::uint64_t>::max();
    while (!added.has_value() && added.error() == Errno{ENOSPC}) {
        const std::uint64_t reachable = TRY(reachable_end(inode, end));
        if (reachable <= offset || reachable >= tried) {
            break;
        }
        WBFAT_POINT("map_for_write:counted", inode.mapping());
        added = fat_add_clusters(inode, reachable);
        tried = reachable;
    }
    const std::uint64_t mapped = std::min(end, inode.physical_size);
    const bool is_enough = added.has_value() || (added.error() == Errno{ENOSPC} && mapped > offset);
    return is_enough ? Result<std::uint64_t>(mapped) : Result<std::uint64_t>(added.error());
}

// Copies one step in. Locks: i_rwsem exclusively.
Result<std::size_t> write_step(Inode& inode, std::uint64_t offset, std::size_t length,
                               const cache::CopyIn& copy) {
    const Transaction transaction(inode.volume());
    TRY_VOID(transaction.status());
    const std::uint64_t old_size = inode.i_size();
    const std::size_t copied =
        TRY(cache::generic_perform_write(inode.mapping(), offset, length, copy));
    if (inode.i_size() != old_size) {
        inode.note_size_change();
    }
    inode.touch_mtime();
    return copied;
}

bool changes_ownership(const Volume& volume, const AttrChange& change) {
    const MountOptions& options = volume.options();
    return (change.uid && *change.uid != options.uid) || (change.gid && *change.gid != options.gid);
}

// The rule of vfat: of r and x all must stay, of w all the mask leaves or none. Source:
// fat_sanitize_mode.
bool mode_can_be_kept(const Inode& inode, mode_t mode) {
    const MountOptions& options = inode.volume().options();
    const mode_t mask = inode.is_directory() ? options.dmask : options.fmask;
    const mode_t wanted = mode & 0777 & ~mask;
    const mode_t all_write = kWriteBits & ~mask;
    if ((wanted & kReadExecuteBits) != (inode.mode() & kReadExecuteBits)) {
        return false;
    }
    const bool can_hold_read_only = !inode.is_directory() || options.rodir;
    const mode_t write = wanted & kWriteBits;
    return write == all_write || (write == 0 && can_hold_read_only);
}

// Returns whether it was another time. A kernel that gathers writes tells the time of the last one
// before every fsync, and most often it is known already: then no commit is due.
bool set_time(timespec& field, const timespec& time) {
    const bool changes = field.tv_sec != time.tv_sec || field.tv_nsec != time.tv_nsec;
    field = time;
    return changes;
}

// Applies mode and times under the Transaction. Locks: i_rwsem exclusively.
void apply_attributes(Inode& inode, const AttrChange& change) {
    const MountOptions& options = inode.volume().options();
    InodeAttributes& attributes = inode.attributes;
    bool changed = false;
    if (change.mode && mode_can_be_kept(inode, *change.mode)) {
        const mode_t mask = inode.is_directory() ? options.dmask : options.fmask;
        const bool read_only = (*change.mode & kWriteBits & ~mask) == 0;
        const std::uint8_t attr = read_only
                                      ? static_cast<std::uint8_t>(attributes.attr | kAttrReadOnly)
                                      : static_cast<std::uint8_t>(attributes.attr & ~kAttrReadOnly);
        changed |= attr != attributes.attr;
        attributes.attr = attr;
    }
    if (change.mtime) {
        changed |= set_time(attributes.mtime, truncate_mtime(*change.mtime, options));
    }
    if (change.atime) {
        changed |= set_time(attributes.atime, truncate_atime(*change.atime, options));
    }
    if (changed) {
        inode.mark_dirty();
    }
}

// Shrinks, or keeps the size: block_truncate_page, truncate_setsize, fat_truncate_blocks, in the
// kernel's order.
Result<> shrink(Inode& inode, std::uint64_t size) {
    if (size < inode.i_size()) {
        TRY_VOID(cache::block_truncate_page(inode.mapping(), size));
    }
    {
        const Transaction transaction(inode.volume());
        TRY_VOID(transaction.status());
        if (size < inode.i_size()) {
            cache::truncate_setsize(inode.mapping(), size);
            inode.note_size_change();
        }
        inode.touch_mtime();
    }
    return fat_truncate_blocks(inode, size);
}

// Locks: i_rwsem exclusively.
Result<> set_size(Inode& inode, std::uint64_t size) {
    if (inode.is_directory()) {
        return Errno{EISDIR};
    }
    if (size > kMaxFileBytes) {
        return Errno{EFBIG};
    }
    return size > inode.i_size() ? fat_cont_expand(inode, size) : shrink(inode, size);
}

}  // namespace

File::File(InodeRef inode, Flags flags) : inode_(std::move(inode)), flags_(flags) {
    if (!inode_->is_directory()) {
        wb_err_ = inode_->mapping().wb_err.sample();
    }
}

File::~File() {
    // Nobody is left to hear of an error here; the mapping's errseq keeps it for the next opener.
    static_cast<void>(write_on_close().has_value());
}

// Source: fat_file_release. Differs: waits, and commits.
Result<> File::write_on_close() {
    Volume& volume = inode_->volume();
    const bool is_wanted = volume.options().flush || volume.device().geometry().removable;
    if (!is_wanted || inode_->nlink == 0 || !wrote_.exchange(false)) {
        return {};
    }
    return sync_if(true, *inode_);
}

Result<> File::read(std::uint64_t offset_bytes, std::size_t length_bytes, cache::PageVec& out) {
    if (inode_->is_directory()) {
        return Errno{EISDIR};
    }
    cache::ReadaheadState readahead;
    {
        const sync::SpinLockGuard guard(lock_);
        readahead = readahead_;
    }
    const Result<> read =
        cache::filemap_read_pages(inode_->mapping(), readahead, offset_bytes, length_bytes, out);
    const sync::SpinLockGuard guard(lock_);
    readahead_ = readahead;
    return read;
}

Result<std::size_t> File::write(std::uint64_t offset_bytes, std::size_t length_bytes,
                                const cache::CopyIn& copy, Durable durable) {
    Inode& inode = *inode_;
    if (inode.is_directory()) {
        return Errno{EISDIR};
    }
    if (length_bytes == 0) {
        return std::size_t{0};
    }
    std::size_t done = 0;
    Result<> status;
    {
        const sync::WriteGuard guard(inode.i_rwsem);
        const std::uint64_t start = flags_.append ? inode.i_size() : offset_bytes;
        if (start >= kMaxFileBytes) {
            return Errno{EFBIG};
        }
        const std::uint64_t wanted_end = std::min(start + length_bytes, kMaxFileBytes);
        const std::uint64_t end = TRY(map_for_write(inode, start, wanted_end));
        if (start > inode.i_size()) {
            TRY_VOID(fat_cont_expand(inode, start));
        }
        wrote_.store(true, std::memory_order_relaxed);
        while (start + done < end && status.has_value()) {
            const std::size_t step = std::min<std::uint64_t>(kWriteStepBytes, end - start - done);
            const Result<std::size_t> copied = write_step(inode, start + done, step, copy);
            if (copied.has_value()) {
                done += *copied;
            }
            status = copied.has_value() ? Result<>{} : Result<>{copied.error()};
            if (copied.has_value() && *copied < step) {
                break;
            }
        }
    }
    if (done == 0 && !status.has_value()) {
        return status.error();
    }
    inode.volume().cache().flusher().balance_dirty_pages(inode.mapping());
    const bool is_synchronous = flags_.dsync || flags_.sync || inode.volume().is_sync();
    if (durable == Durable::kAsOpened && is_synchronous) {
        TRY_VOID(fsync(!flags_.sync));
    }
    return done;
}

Result<> File::fsync(bool datasync) {
    Inode& inode = *inode_;
    Volume& volume = inode.volume();
    if (inode.is_directory()) {
        return volume.ordering().commit();
    }
    cache::ErrSeq::Cursor since = inode.mapping().wb_err.sample();
    const Result<> written =
        cache::file_write_and_wait_range(inode.mapping(), 0, cache::kLastByte, since);
    if (const int error = advance_wb_err(); error != 0) {
        return Errno{error};
    }
    TRY_VOID(written);
    const sync::Atomic<std::uint64_t>& sequence =
        datasync ? inode.size_sequence : inode.dirty_sequence;
    if (!volume.ordering().is_durable(sequence.load(std::memory_order_acquire))) {
        return volume.ordering().commit();
    }
    return volume.options().nobarrier ? Result<>{} : volume.device().flush();
}

int File::advance_wb_err() {
    const sync::SpinLockGuard guard(lock_);
    return inode_->mapping().wb_err.check_and_advance(wb_err_);
}

Result<> File::flush() {
    if (inode_->is_directory()) {
        return {};
    }
    const Result<> written = write_on_close();
    const int error = advance_wb_err();
    return error == 0 ? written : Result<>{Errno{error}};
}

Result<> File::fallocate(int mode, std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    Inode& inode = *inode_;
    if ((mode & ~FALLOC_FL_KEEP_SIZE) != 0 || inode.is_directory()) {
        return Errno{EOPNOTSUPP};
    }
    if (length_bytes == 0) {
        return Errno{EINVAL};
    }
    if (offset_bytes > kMaxFileBytes || length_bytes > kMaxFileBytes - offset_bytes) {
        return Errno{EFBIG};
    }
    const std::uint64_t end = offset_bytes + length_bytes;
    {
        const sync::WriteGuard guard(inode.i_rwsem);
        if ((mode & FALLOC_FL_KEEP_SIZE) != 0) {
            const std::uint64_t mapped = inode.physical_size;
            TRY_VOID(fat_add_clusters(inode, end));
            inode.preallocated |= inode.physical_size > mapped;
        } else if (end > inode.i_size()) {
            TRY_VOID(fat_cont_expand(inode, end));
        }
    }
    wrote_.store(true, std::memory_order_relaxed);
    return sync_if(inode.volume().is_sync(), inode);
}

Result<std::uint64_t> File::lseek(std::uint64_t offset_bytes, int whence) {
    const std::uint64_t size = inode_->i_size();
    if (whence != SEEK_DATA && whence != SEEK_HOLE) {
        return Errno{EINVAL};
    }
    if (offset_bytes >= size) {
        return Errno{ENXIO};
    }
    return whence == SEEK_DATA ? offset_bytes : size;
}

Result<> setattr(Inode& inode, const AttrChange& change) {
    Volume& volume = inode.volume();
    if (volume.is_read_only()) {
        return Errno{EROFS};
    }
    {
        const sync::WriteGuard guard(inode.i_rwsem);
        if (change.size) {
            TRY_VOID(set_size(inode, *change.size));
        }
        const bool forbidden =
            changes_ownership(volume, change) || (change.mode && (*change.mode & ~kValidMode) != 0);
        if (forbidden) {
            return volume.options().quiet ? Result<>{} : Result<>{Errno{EPERM}};
        }
        if (!inode.is_root()) {
            const Transaction transaction(volume);
            TRY_VOID(transaction.status());
            apply_attributes(inode, change);
        }
    }
    if (change.size) {
        volume.cache().flusher().balance_dirty_pages(inode.mapping());
    }
    return sync_if(volume.is_sync(), inode);
}

std::uint32_t get_fat_attributes(Inode& inode) {
    const sync::ReadGuard guard(inode.i_rwsem);
    return inode.is_directory() ? inode.attributes.attr | kAttrDirectory : inode.attributes.attr;
}

Result<> set_fat_attributes(Inode& inode, std::uint32_t attributes, bool may_change_immutable) {
    Volume& volume = inode.volume();
    if (volume.is_read_only()) {
        return Errno{EROFS};
    }
    if (inode.is_root()) {
        return attributes == kAttrDirectory ? Result<>{} : Result<>{Errno{EINVAL}};
    }
    {
        const sync::WriteGuard guard(inode.i_rwsem);
        const std::uint32_t old = inode.attributes.attr;
        const std::uint32_t wanted =
            (old & ~kSettableAttributes) | (attributes & kSettableAttributes);
        const bool system_changes = ((old ^ wanted) & kAttrSystem) != 0;
        if (volume.options().sys_immutable && system_changes && !may_change_immutable) {
            return Errno{EPERM};
        }
        const Transaction transaction(volume);
        TRY_VOID(transaction.status());
        inode.attributes.attr = static_cast<std::uint8_t>(wanted);
        inode.mark_dirty();
    }
    return sync_if(volume.is_sync(), inode);
}

}  // namespace wbfat::fs::inline WBFAT_RT
