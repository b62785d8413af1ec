// A mounted volume: everything that belongs to one FAT filesystem, and its life from mount to
// unmount.
//
// Source: Linux fs/fat/inode.c fat_fill_super, fat_put_super, fat_statfs, __fat_fs_error; struct
// msdos_sb_info.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cache/address_space.h"
#include "cache/device/block_device.h"
#include "cache/page_cache.h"
#include "fs/allocator.h"
#include "fs/boot_sector.h"
#include "fs/codepage.h"
#include "fs/fat_table.h"
#include "fs/inode_cache.h"
#include "fs/mount_options.h"
#include "fs/ordering.h"

namespace wbfat::fs::inline WBFAT_RT {

enum class LogLevel : std::uint8_t { kInfo, kWarning, kError };
using LogSink = std::function<void(LogLevel, const std::string&)>;

struct StatFs {
    std::uint32_t block_bytes = 0;  // cluster size
    std::uint64_t blocks = 0, blocks_free = 0;
    std::uint32_t name_max = 255;
    std::uint32_t volume_id = 0;
};

class Volume {
public:
    // Reads and checks the volume and prepares it; writes nothing (the dirty mark waits for the
    // first change). `device` and `cache` must outlive the volume. Errors: EINVAL not a FAT volume,
    // EIO, EROFS; `why` is one sentence.
    static Result<std::unique_ptr<Volume>> mount(cache::BlockDevice& device,
                                                 cache::PageCache& cache,
                                                 const MountOptions& options, LogSink log,
                                                 std::string& why);
    // Without unmount(): drops what is in memory as a crash would.
    ~Volume();
    Volume(const Volume&) = delete;
    Volume& operator=(const Volume&) = delete;

    // Everything to disk, the dirty mark off. The volume accepts nothing afterwards.
    // Errors: what could not be written; then the dirty mark stays.
    Result<> unmount();
    // ro/rw and sync/dirsync only, as vfat. Errors: EROFS when rw is impossible, EIO.
    Result<> remount(bool read_only, bool sync, bool dirsync);
    // All data, metadata, device cache. Errors: as fsync, of the whole volume. Source:
    // sync_filesystem.
    Result<> sync_fs();
    Result<StatFs> statfs();
    // FITRIM. Returns bytes trimmed. Errors: EOPNOTSUPP.
    Result<std::uint64_t> trim(std::uint64_t start_bytes, std::uint64_t length_bytes,
                               std::uint64_t minimum_bytes);

    Result<InodeRef> root() {
        return inodes_->root();
    }
    [[nodiscard]] bool is_read_only() const;

    // The volume is damaged: logs one sentence (rate limited) and does what errors= says. Source:
    // fat_fs_error.
    void fs_error(const std::string& sentence);
    // Stops all changes: EROFS from now on (device gone, bug=shutdown). unmount() still tries to
    // write what is pending, in order, and leaves the dirty mark. Context: any.
    void shutdown(const std::string& reason);
    void log(LogLevel level, const std::string& sentence);

    [[nodiscard]] const Geometry& geometry() const {
        return geometry_;
    }
    [[nodiscard]] const MountOptions& options() const {
        return options_;
    }
    cache::BlockDevice& device() {
        return device_;
    }
    cache::PageCache& cache() {
        return cache_;
    }
    // Pages of the whole device: FAT, FSINFO, directories, boot sectors. The kernel's block device
    // mapping.
    cache::AddressSpace& device_mapping() {
        return *device_mapping_;
    }
    FatTable& fat() {
        return *fat_;
    }
    Allocator& allocator() {
        return *allocator_;
    }
    Ordering& ordering() {
        return *ordering_;
    }
    InodeCache& inodes() {
        return *inodes_;
    }
    [[nodiscard]] const Codepage& codepage() const {
        return *codepage_;
    }
    // Serialises renames between directories. Order: before any i_rwsem.
    sync::Mutex rename_mutex;
    // Every change of this volume is on disk when the call returns (-o sync).
    [[nodiscard]] bool is_sync() const;
    [[nodiscard]] bool is_dirsync() const;
    [[nodiscard]] bool was_dirty_at_mount() const {
        return was_dirty_at_mount_;
    }
    // Now, for timestamps; tests set it.
    [[nodiscard]] timespec now() const;
    void set_clock(std::function<timespec()> clock);

    // An inode leaves memory: a writeback error of it that nobody has heard of keeps the dirty mark
    // at unmount.
    void note_unreported_error(const cache::ErrSeq& wb_err);

    // Writes FSINFO's page with the current counts and notes the block, if they differ; part of
    // kFree. FAT32 only.
    Result<> update_fsinfo();
    // -o discard: tells the device about what this commit has freed. Called in kFree, before the
    // clusters can be used again.
    void discard_freed();
    // Writes the dirty or clean mark (boot byte, its backup, FAT[1]) and flushes. Called by
    // Ordering and unmount.
    Result<> write_state_mark(bool dirty);

private:
    Volume(cache::BlockDevice& device, cache::PageCache& cache, const MountOptions& options,
           LogSink log);
    class DeviceOps;  // AddressSpaceOps of the device mapping: writepages = ordered commit

    Result<> prepare(std::string& why);
    Result<FsInfo> read_fsinfo();
    void find_out_whether_dirty();
    Result<> clear_state_mark();
    bool has_backup_to_update();
    // Changes bytes of the device mapping under the page lock and marks their blocks dirty.
    Result<> change_bytes(std::uint64_t offset_bytes, std::size_t length_bytes,
                          const std::function<void(std::span<std::byte>)>& change);
    Result<std::vector<std::byte>> read_bytes(std::uint64_t offset_bytes, std::size_t length_bytes);

    // Constant after mount.
    cache::BlockDevice& device_;
    cache::PageCache& cache_;
    MountOptions options_;
    LogSink log_;
    Geometry geometry_;
    bool was_dirty_at_mount_ = false;
    bool must_be_read_only_ = false;
    bool has_fsinfo_ = false;
    std::function<timespec()> clock_;

    sync::Atomic<bool> read_only_{false};
    sync::Atomic<bool> sync_{false};
    sync::Atomic<bool> dirsync_{false};
    sync::Atomic<bool> shut_down_{false};
    sync::Atomic<bool> unmounting_{false};      // writing is tried once more in spite of a shutdown
    sync::Atomic<bool> damaged_{false};         // fs_error() was called: the dirty mark stays
    sync::Atomic<bool> discard_failed_{false};  // and that was said
    sync::Atomic<bool> marked_dirty_{false};    // by us, since mount or since the last clean mark
    sync::Atomic<int> unreported_error_{0};
    // Sentences of fs_error() in the current interval.
    sync::Mutex error_log_lock_;
    sync::Nanoseconds error_log_start_ GUARDED_BY(error_log_lock_){};
    unsigned error_log_count_ GUARDED_BY(error_log_lock_) = 0;

    // In the order of construction; each may use those above it.
    std::unique_ptr<DeviceOps> device_ops_;
    std::unique_ptr<cache::AddressSpace> device_mapping_;
    std::unique_ptr<Codepage> codepage_;
    std::unique_ptr<Ordering> ordering_;
    std::unique_ptr<FatTable> fat_;
    std::unique_ptr<Allocator> allocator_;
    std::unique_ptr<InodeCache> inodes_;
};

}  // namespace wbfat::fs::inline WBFAT_RT
