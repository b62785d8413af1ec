// Open files: read, write, truncate, fallocate, sync; and setattr.
//
// Locking: writers take the inode's i_rwsem exclusively, then per chunk a Transaction for the
// allocation; throttling (balance_dirty_pages) happens with nothing held. Readers of data take no
// lock. Source: Linux fs/fat/file.c.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "cache/base/result.h"
#include "cache/filemap.h"
#include "fs/inode.h"

namespace wbfat::fs::inline WBFAT_RT {

inline constexpr std::uint64_t kMaxFileBytes = 0xFFFFFFFF;  // 4 GiB - 1

// One open(2). Used by several threads at once.
class File {
public:
    enum class Access : std::uint8_t { kReadOnly, kReadWrite };
    struct Flags {
        Access access = Access::kReadWrite;
        bool dsync = false;   // O_DSYNC
        bool sync = false;    // O_SYNC
        bool append = false;  // O_APPEND
    };

    File(InodeRef inode, Flags flags);
    // Last close: writes what no flush() has seen, as stores to a mapping that outlives close(2).
    ~File();
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    Inode& inode() const {
        return *inode_;
    }

    // Pages holding [offset, offset + length) cut at the end of the file. Errors: EIO, EISDIR.
    // Requires: length at most cache::max_pinned_read_bytes, all reads running at once together.
    Result<> read(std::uint64_t offset_bytes, std::size_t length_bytes, cache::PageVec& out);
    // Whether a write on a synchronous volume, or through a synchronous open, is durable when it
    // returns. kLater: these are pages that a cache above has gathered, and whoever wants them
    // durable lets an fsync follow. Source: the kernel has generic_write_sync follow the copy into
    // pages, not their writeback.
    enum class Durable : std::uint8_t { kAsOpened, kLater };
    // Copies in through `copy` (see generic_perform_write). Returns bytes written, short only at
    // ENOSPC or EFBIG. Errors: EFBIG past 4 GiB - 1, ENOSPC, EROFS, EIO.
    Result<std::size_t> write(std::uint64_t offset_bytes, std::size_t length_bytes,
                              const cache::CopyIn& copy, Durable durable = Durable::kAsOpened);
    // Data, then whatever metadata is needed to find it again, then the device's cache.
    // Errors: a writeback error this open has not heard of yet; errors of the commit or the flush.
    Result<> fsync(bool datasync);
    // close(2) of one descriptor. With -o flush or on a removable device what was written through
    // this open is durable afterwards. Errors: a writeback error this open has not heard of yet;
    // errors of the commit.
    Result<> flush();
    // mode 0 and FALLOC_FL_KEEP_SIZE; else EOPNOTSUPP. Errors: EFBIG, ENOSPC.
    Result<> fallocate(int mode, std::uint64_t offset_bytes, std::uint64_t length_bytes);
    // SEEK_DATA / SEEK_HOLE: the whole file is data. Errors: ENXIO.
    Result<std::uint64_t> lseek(std::uint64_t offset_bytes, int whence);

private:
    // Does what close(2) owes, once for what was written so far.
    Result<> write_on_close();
    // The errno this open has not heard of yet, or 0; it has now.
    int advance_wb_err();

    // Constant after construction.
    const InodeRef inode_;
    const Flags flags_;

    // Two readers at once each go on from a copy; the last one's guess stays. Kernel: f_lock.
    sync::SpinLock lock_;
    cache::ReadaheadState readahead_ GUARDED_BY(lock_);
    cache::ErrSeq::Cursor wb_err_ GUARDED_BY(lock_) = 0;
    sync::Atomic<bool> wrote_{false};
};

// A setattr request: only what is set changes. `ctime_only` requests do nothing on FAT.
struct AttrChange {
    std::optional<mode_t> mode;
    std::optional<uid_t> uid;
    std::optional<gid_t> gid;
    std::optional<std::uint64_t> size;
    std::optional<timespec> atime;
    std::optional<timespec> mtime;
};
// In the kernel's order: size, then ownership and mode rules, then times. ftruncate touches mtime
// even if the size stays; truncate(2) with an unchanged size too. Errors: EPERM (chown to others,
// mode bits vfat cannot keep, unless quiet), EFBIG, ENOSPC, EISDIR, EROFS. Source: fat_setattr; on
// a sync mount the expansion is fat_cont_expand's flush sequence (writeback-protocol.md 11.3).
Result<> setattr(Inode& inode, const AttrChange& change);

// FAT_IOCTL_GET/SET_ATTRIBUTES. Errors: EINVAL on the root, EPERM for ATTR_SYSTEM with
// sys_immutable.
std::uint32_t get_fat_attributes(Inode& inode);
Result<> set_fat_attributes(Inode& inode, std::uint32_t attributes, bool may_change_immutable);

}  // namespace wbfat::fs::inline WBFAT_RT
