// One inode: what stat answers, where its bytes lie, how it gets into its directory entry.
#include "fs/inode.h"

#include <algorithm>
#include <string>

#include "cache/base/check.h"
#include "cache/flusher.h"
#include "cache/page_cache.h"
#include "fs/dir.h"
#include "fs/volume.h"

namespace wbfat::fs::inline WBFAT_RT {

namespace {

constexpr mode_t kAllPermissions = 0777;
constexpr mode_t kReadPermissions = 0444;
constexpr mode_t kWritePermissions = 0222;
constexpr blksize_t kStatBlockBytes = 512;

bool same_time(const timespec& a, const timespec& b) {
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

}  // namespace

InodeRef::InodeRef(Inode& inode) : inode_(&inode) {
    inode.get_ref();
}

InodeRef::InodeRef(const InodeRef& other) : inode_(other.inode_) {
    if (inode_ != nullptr) {
        inode_->get_ref();
    }
}

InodeRef::~InodeRef() {
    if (inode_ != nullptr) {
        inode_->put_ref();
    }
}

// What the page cache asks of a file. The metadata of the inode itself never goes this way: it
// waits for the group commit.
class Inode::Ops final : public cache::AddressSpaceOps {
public:
    explicit Ops(Inode& inode) : inode_(inode) {}

    // Locks: called under a page lock, without i_rwsem: the cluster map guards itself, and i_size
    // is only compared to tell damage from the end of the file.
    Result<cache::MappedExtent> map_blocks(cache::AddressSpace& mapping, std::uint64_t offset_bytes,
                                           std::uint64_t length_bytes) override {
        const Geometry& geometry = inode_.volume_.geometry();
        const std::uint64_t file_cluster = offset_bytes >> geometry.cluster_shift;
        const std::uint64_t in_cluster = offset_bytes & (geometry.cluster_bytes - 1);
        const auto extent = TRY(inode_.find_cluster(static_cast<std::uint32_t>(file_cluster)));
        if (extent) {
            const std::uint64_t run =
                (std::uint64_t{extent->count} << geometry.cluster_shift) - in_cluster;
            return cache::MappedExtent{
                geometry.cluster_offset_bytes(extent->disk_cluster) + in_cluster,
                std::min(length_bytes, run)};
        }
        if (offset_bytes < mapping.i_size()) {
            inode_.volume_.fs_error("the chain of " + mapping.name() + " ends at cluster " +
                                    std::to_string(file_cluster) + ", before its size");
            return Errno{EIO};
        }
        return cache::MappedExtent{cache::MappedExtent::kHole, length_bytes};
    }

    // Kupdate and sync leave the entry to the group commit, which follows them. Only who asked for
    // this very inode, integrity and all, waits here; nothing is locked then but what the caller of
    // write_inode_now holds, and a commit takes no inode lock.
    // Source: fat_write_inode.
    Result<> write_inode(cache::AddressSpace& /*mapping*/,
                         const cache::WritebackControl& wbc) override {
        if (wbc.sync_mode != cache::WB_SYNC_ALL || wbc.for_sync) {
            return {};
        }
        Ordering& ordering = inode_.volume_.ordering();
        return ordering.is_durable(inode_.dirty_sequence.load()) ? Result<>{} : ordering.commit();
    }

    bool grab_inode(cache::AddressSpace& /*mapping*/) override {
        return inode_.volume_.inodes().pin(inode_);
    }
    void drop_inode(cache::AddressSpace& /*mapping*/) override {
        inode_.volume_.inodes().unpin(inode_);
    }

private:
    Inode& inode_;
};

Inode::Inode(Volume& volume, Type type, std::uint64_t ino)
    : i_rwsem(sync::LockRank::kInode), volume_(volume), type_(type), ino_(ino) {
    if (type == Type::kFile) {
        ops_ = std::make_unique<Ops>(*this);
        mapping_ = std::make_unique<cache::AddressSpace>(volume.cache(), volume.device(), *ops_,
                                                         cache::AddressSpace::StablePages::kNo,
                                                         "inode " + std::to_string(ino));
    } else {
        nlink = 2;
        directory_ = std::make_unique<Directory>(volume, *this);
    }
}

Inode::~Inode() = default;

cache::AddressSpace& Inode::mapping() {
    BUG_ON(mapping_ == nullptr, "a directory has no pages of its own");
    return *mapping_;
}

Directory& Inode::directory() {
    BUG_ON(directory_ == nullptr, "not a directory");
    return *directory_;
}

std::uint64_t Inode::i_size() const {
    if (mapping_ != nullptr) {
        return mapping_->i_size();
    }
    const Geometry& geometry = volume_.geometry();
    if (is_root_ && geometry.type != FatType::kFat32) {
        return geometry.root_dir_bytes();
    }
    return std::uint64_t{clusters.known_length()} << geometry.cluster_shift;
}

Result<std::optional<ClusterMap::Extent>> Inode::find_cluster(std::uint32_t file_cluster) {
    auto found = clusters.find(volume_.fat(), file_cluster);
    if (found.has_value()) {
        return found;
    }
    if (const auto where = clusters.damaged()) {
        volume_.fs_error("the chain of inode " + std::to_string(ino_) + " is broken at cluster " +
                         std::to_string(*where));
    }
    return found;
}

// Source: fat_make_mode.
mode_t Inode::mode() const {
    const MountOptions& options = volume_.options();
    if (is_root_) {
        return (kAllPermissions & ~options.dmask) | S_IFDIR;
    }
    mode_t mode = options.showexec && !is_directory() && !is_program_
                      ? kReadPermissions | kWritePermissions
                      : kAllPermissions;
    const bool read_only_counts = !is_directory() || options.rodir;
    if ((attributes.attr & kAttrReadOnly) != 0 && read_only_counts) {
        mode &= ~kWritePermissions;
    }
    return is_directory() ? (mode & ~options.dmask) | S_IFDIR : (mode & ~options.fmask) | S_IFREG;
}

// Source: fat_getattr; fat.md 3.3.
struct stat Inode::getattr() {
    const sync::ReadGuard guard(i_rwsem);
    const Geometry& geometry = volume_.geometry();
    struct stat answer {};
    answer.st_ino = ino_;
    answer.st_mode = mode();
    answer.st_nlink = nlink;
    if (is_directory() && nlink != 0) {
        answer.st_nlink = 2 + directory().nr_subdirectories();
    }
    answer.st_uid = volume_.options().uid;
    answer.st_gid = volume_.options().gid;
    const std::uint64_t size = i_size();
    answer.st_size = static_cast<off_t>(size);
    answer.st_blksize = static_cast<blksize_t>(geometry.cluster_bytes);
    // A chain longer than the size (preallocated) counts once it is known; walking it for every
    // stat would cost more than it tells.
    const std::uint64_t for_size = (size + geometry.cluster_bytes - 1) >> geometry.cluster_shift;
    const std::uint64_t held = std::max<std::uint64_t>(for_size, clusters.known_length());
    answer.st_blocks = static_cast<blkcnt_t>((held << geometry.cluster_shift) / kStatBlockBytes);
    answer.st_atim = attributes.atime;
    answer.st_mtim = attributes.mtime;
    // FAT keeps no change time. Source: fat_truncate_time.
    answer.st_ctim = attributes.mtime;
    return answer;
}

Result<> Inode::commit_entry(std::uint64_t size_bytes) {
    if (i_pos == kNoEntry) {
        return {};
    }
    const MountOptions& options = volume_.options();
    bool vanished = false;
    TRY_VOID(write_short_entry(volume_, i_pos, [&](ShortEntry& entry) {
        if (entry.is_free() || entry.is_long_slot()) {
            vanished = true;
            return;
        }
        entry.attr = attributes.attr;
        entry.nt_reserved = attributes.nt_case;
        entry.set_first_cluster(volume_.geometry().type, i_start);
        entry.size.set(is_directory() ? 0U : static_cast<std::uint32_t>(size_bytes));
        // A stamp that still says the same stays as it is: other systems leave zeros there, and the
        // same instant has two spellings when clocks go back.
        if (!same_time(from_fat_time(entry.written(), options), attributes.mtime)) {
            entry.set_written(to_fat_time(attributes.mtime, options));
        }
        if (!same_time(from_fat_time(entry.accessed(), options), attributes.atime)) {
            entry.set_accessed(to_fat_time(attributes.atime, options));
        }
        if (!same_time(from_fat_time(entry.created(), options), attributes.btime)) {
            entry.set_created(to_fat_time(attributes.btime, options));
        }
    }));
    if (vanished) {
        volume_.fs_error("the directory entry of inode " + std::to_string(ino_) + " is gone");
    }
    return {};
}

void Inode::mark_dirty() {
    volume_.ordering().note_inode(*this);
    if (mapping_ != nullptr && i_pos != kNoEntry) {
        volume_.cache().flusher().mark_inode_dirty(*mapping_, cache::I_DIRTY_INODE);
    }
}

void Inode::note_size_change() {
    mark_dirty();
    size_sequence.store(dirty_sequence.load());
}

// Source: fat_update_time; the archive bit as fat_write_end sets it.
void Inode::touch_mtime() {
    const timespec now = truncate_mtime(volume_.now(), volume_.options());
    const auto attr =
        static_cast<std::uint8_t>(attributes.attr | (is_directory() ? 0U : unsigned{kAttrArchive}));
    if (is_root_ || (same_time(now, attributes.mtime) && attr == attributes.attr)) {
        return;
    }
    attributes.mtime = now;
    attributes.attr = attr;
    mark_dirty();
}

void Inode::get_ref() {
    refcount_.fetch_add(1, std::memory_order_relaxed);
}

void Inode::put_ref() {
    std::int64_t count = refcount_.load();
    while (count > 1) {
        if (refcount_.compare_exchange(count, count - 1)) {
            return;
        }
    }
    volume_.inodes().last_reference_dropped(*this);
}

}  // namespace wbfat::fs::inline WBFAT_RT
