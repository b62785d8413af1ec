// Mount, unmount and what lies between that concerns the whole volume.
#include "fs/volume.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>
#include <utility>

#include "cache/base/check.h"
#include "cache/filemap.h"
#include "cache/flusher.h"
#include "cache/page_lock.h"
#include "cache/writeback.h"
#include "fs/layout.h"

namespace wbfat::fs::inline WBFAT_RT {

namespace {

// Sentences about damage that are logged in one interval. Source: DEFAULT_RATELIMIT_*.
constexpr unsigned kErrorLogBurst = 10;
constexpr std::chrono::seconds kErrorLogInterval{5};
// FITRIM stops transactions for this many clusters at a time.
constexpr cluster_t kTrimStep = 32768;

timespec system_clock() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    return now;
}

Result<> first_error(const Result<>& first, const Result<>& second) {
    return first.has_value() ? second : first;
}

void add_blocks(std::vector<std::uint64_t>& blocks, std::uint64_t offset, std::uint64_t length) {
    for (std::uint64_t block = offset / cache::kBlockSize;
         block * cache::kBlockSize < offset + length; ++block) {
        blocks.push_back(block);
    }
}

}  // namespace

// The device's own pages: every byte is where it says.
class Volume::DeviceOps final : public cache::AddressSpaceOps {
public:
    explicit DeviceOps(Volume& volume) : volume_(volume) {}

    Result<cache::MappedExtent> map_blocks(cache::AddressSpace& mapping, std::uint64_t offset_bytes,
                                           std::uint64_t length_bytes) override {
        const std::uint64_t end = mapping.i_size();
        if (offset_bytes >= end) {
            return cache::MappedExtent{cache::MappedExtent::kHole, length_bytes};
        }
        return cache::MappedExtent{offset_bytes, std::min(length_bytes, end - offset_bytes)};
    }

    // Metadata reaches the disk in the phases of a commit and in no other way. The flusher must not
    // wait for transactions to end, since they may wait for it to clean pages; so it only wakes the
    // committer, and the pages stay dirty for now.
    Result<> writepages(cache::AddressSpace& /*mapping*/, cache::WritebackControl& wbc) override {
        if (wbc.sync_mode == cache::WB_SYNC_ALL) {
            return volume_.unmounting_.load() ? volume_.ordering().commit_stopped()
                                              : volume_.ordering().commit();
        }
        volume_.ordering().commit_if_large();
        return {};
    }

    Result<> write_inode(cache::AddressSpace& /*mapping*/,
                         const cache::WritebackControl& /*wbc*/) override {
        return {};
    }

    bool grab_inode(cache::AddressSpace& /*mapping*/) override {
        users_.fetch_add(1);
        return true;
    }
    void drop_inode(cache::AddressSpace& /*mapping*/) override {
        users_.fetch_sub(1);
    }
    // The flusher lets go shortly after forget() has returned.
    void wait_unused() const {
        while (users_.load() != 0) {
            sync::yield_now();
        }
    }

private:
    Volume& volume_;
    sync::Atomic<int> users_{0};
};

Volume::Volume(cache::BlockDevice& device, cache::PageCache& cache, const MountOptions& options,
               LogSink log)
    : device_(device),
      cache_(cache),
      options_(options),
      log_(std::move(log)),
      clock_(system_clock),
      sync_(options.sync),
      dirsync_(options.dirsync) {}

Volume::~Volume() {
    cache_.flusher().set_periodic({});
    if (inodes_ != nullptr) {
        inodes_->close();
    }
    if (ordering_ != nullptr) {
        // No more commits; and what it holds of inodes goes before they do.
        ordering_->drop_everything();
    }
    if (inodes_ != nullptr) {
        // Not by reset(): inodes that go reach for the cache through us.
        inodes_->drop_everything();
    }
    if (device_mapping_ != nullptr) {
        cache_.flusher().forget(*device_mapping_);
        device_ops_->wait_unused();
        cache::truncate_setsize(*device_mapping_, 0);
    }
}

// --- mount ---

Result<std::unique_ptr<Volume>> Volume::mount(cache::BlockDevice& device, cache::PageCache& cache,
                                              const MountOptions& options, LogSink log,
                                              std::string& why) {
    std::unique_ptr<Volume> volume(new Volume(device, cache, options, std::move(log)));
    TRY_VOID(volume->prepare(why));
    return volume;
}

Result<> Volume::prepare(std::string& why) {
    const BootSectorCheck check = TRY(read_boot_sector(device_, options_.dos1xfloppy, why));
    geometry_ = check.geometry;
    for (const std::string& warning : check.warnings) {
        log(LogLevel::kWarning, warning);
    }
    must_be_read_only_ = check.must_be_read_only;
    if (device_.geometry().read_only && !options_.read_only) {
        why = "the device is read-only; mount the volume read-only";
        return Errno{EROFS};
    }
    read_only_.store(options_.read_only || must_be_read_only_);

    auto codepage = Codepage::open(options_.codepage);
    if (!codepage.has_value()) {
        why = "codepage " + options_.codepage + " is not known";
        return codepage.error();
    }
    codepage_ = std::move(*codepage);

    device_ops_ = std::make_unique<DeviceOps>(*this);
    device_mapping_ = std::make_unique<cache::AddressSpace>(
        cache_, device_, *device_ops_, cache::AddressSpace::StablePages::kYes, device_.name());
    const std::uint64_t bytes = std::min(geometry_.volume_bytes(), device_.geometry().size_bytes);
    device_mapping_->i_size_write(bytes / cache::kBlockSize * cache::kBlockSize);

    ordering_ = std::make_unique<Ordering>(*this);
    fat_ = std::make_unique<FatTable>(geometry_, *device_mapping_, *ordering_);
    find_out_whether_dirty();
    const Result<FsInfo> fsinfo = read_fsinfo();
    const FsInfo hint = fsinfo.has_value() ? *fsinfo : FsInfo{};
    allocator_ =
        std::make_unique<Allocator>(geometry_, *fat_, cache_.blocks(), hint,
                                    hint.valid && (!was_dirty_at_mount_ || options_.usefree));
    inodes_ = std::make_unique<InodeCache>(*this);
    const Result<InodeRef> root = inodes_->root();
    if (!root.has_value()) {
        why = "the root directory cannot be read";
        return root.error();
    }
    if (options_.discard && !device_.geometry().can_discard) {
        log(LogLevel::kWarning,
            "mounting with \"discard\" option, but the device does not support discard");
    }
    if (options_.commit_seconds != 0) {
        cache_.flusher().set_periodic([this] { ordering_->commit_if_due(); });
    }
    return {};
}

// Either place may say so: Linux and Windows NT use the boot sector, others FAT[1].
void Volume::find_out_whether_dirty() {
    was_dirty_at_mount_ = (geometry_.state & kStateDirty) != 0;
    const Result<bool> clean = fat_->clean_bit();
    was_dirty_at_mount_ = was_dirty_at_mount_ || !clean.has_value() || !*clean;
    if (was_dirty_at_mount_) {
        // Source: fat_set_state.
        log(LogLevel::kWarning,
            "Volume was not properly unmounted. Some data may be corrupt. Please run fsck.");
    }
}

Result<FsInfo> Volume::read_fsinfo() {
    if (geometry_.type != FatType::kFat32 || geometry_.fsinfo_sector == 0) {
        return FsInfo{};
    }
    const std::vector<std::byte> sector = TRY(read_bytes(
        std::uint64_t{geometry_.fsinfo_sector} * geometry_.sector_bytes, sizeof(FsInfoSector)));
    const auto raw = load<FsInfoSector>(sector);
    has_fsinfo_ = raw.lead_signature.get() == kFsInfoLeadSignature &&
                  raw.struct_signature.get() == kFsInfoStructSignature;
    if (!has_fsinfo_) {
        log(LogLevel::kWarning, "FSINFO has no valid signature; its counts are not used");
    }
    return parse_fsinfo(sector, geometry_);
}

// --- bytes of the device mapping ---

Result<> Volume::change_bytes(std::uint64_t offset_bytes, std::size_t length_bytes,
                              const std::function<void(std::span<std::byte>)>& change) {
    const std::size_t in_page = cache::offset_in_page(offset_bytes);
    BUG_ON(in_page + length_bytes > cache::kPageSize, "a change across pages");
    cache::Page& page =
        *TRY(cache::read_mapping_page(*device_mapping_, cache::page_index(offset_bytes)));
    cache::lock_page(page);
    cache::wait_for_stable_page(page);
    change({page.data + in_page, length_bytes});
    cache::set_page_dirty(page, cache::blocks_covering(in_page, length_bytes));
    cache::unlock_page(page);
    cache::put_page(page);
    return {};
}

Result<std::vector<std::byte>> Volume::read_bytes(std::uint64_t offset_bytes,
                                                  std::size_t length_bytes) {
    const std::size_t in_page = cache::offset_in_page(offset_bytes);
    BUG_ON(in_page + length_bytes > cache::kPageSize, "a read across pages");
    cache::Page& page =
        *TRY(cache::read_mapping_page(*device_mapping_, cache::page_index(offset_bytes)));
    cache::lock_page(page);
    std::vector<std::byte> bytes(page.data + in_page, page.data + in_page + length_bytes);
    cache::unlock_page(page);
    cache::put_page(page);
    return bytes;
}

// --- the state mark ---

// The copy of the boot sector equals it in all but the state: only then it is ours to change.
bool Volume::has_backup_to_update() {
    if (geometry_.type != FatType::kFat32 || geometry_.backup_boot_sector == 0) {
        return false;
    }
    const std::uint64_t offset =
        std::uint64_t{geometry_.backup_boot_sector} * geometry_.sector_bytes;
    auto boot = read_bytes(0, kBootSectorBytes);
    auto copy = read_bytes(offset, kBootSectorBytes);
    if (!boot.has_value() || !copy.has_value()) {
        return false;
    }
    const std::size_t state = geometry_.state_offset_bytes();
    (*copy)[state] = (*boot)[state];
    return *boot == *copy;
}

// Source: fat_set_state. Differs: FAT[1] and the backup too, so that every system and fsck.fat see
// the same state; the backup's byte is made equal, since fsck.fat compares them.
Result<> Volume::write_state_mark(bool dirty) {
    const std::uint32_t state = geometry_.state_offset_bytes();
    const auto mark = [dirty](std::span<std::byte> byte) {
        const std::byte others = byte[0] & ~std::byte{kStateDirty};
        byte[0] = dirty ? others | std::byte{kStateDirty} : others;
    };
    std::vector<std::uint64_t> blocks;
    const bool with_backup = has_backup_to_update();
    TRY_VOID(change_bytes(state, 1, mark));
    add_blocks(blocks, state, 1);
    if (with_backup) {
        const std::uint64_t backup =
            std::uint64_t{geometry_.backup_boot_sector} * geometry_.sector_bytes;
        TRY_VOID(change_bytes(backup + state, 1, mark));
        add_blocks(blocks, backup + state, 1);
    }
    if (geometry_.type != FatType::kFat12) {
        TRY_VOID(fat_->set_clean_bit(!dirty));
        for (std::uint32_t fat = 0; fat < geometry_.nr_fats; ++fat) {
            add_blocks(blocks, geometry_.fat_offset_bytes(fat), geometry_.sector_bytes);
        }
    }
    std::sort(blocks.begin(), blocks.end());
    blocks.erase(std::unique(blocks.begin(), blocks.end()), blocks.end());
    TRY_VOID(cache::sync_dirty_blocks(*device_mapping_, blocks));
    TRY_VOID(device_.flush());
    marked_dirty_.store(dirty);
    return {};
}

// Nothing is pending. Leaves the mark where the volume may be damaged, or where somebody lost data
// and was never told.
Result<> Volume::clear_state_mark() {
    if (!marked_dirty_.load() || was_dirty_at_mount_ || damaged_.load() || shut_down_.load()) {
        return {};
    }
    if (const int error = unreported_error_.load(); error != 0) {
        return Errno{error};
    }
    return ordering_->with_transactions_stopped([this]() -> Result<> {
        TRY_VOID(ordering_->flush_freed());
        if (ordering_->anything_pending()) {
            return Errno{EBUSY};
        }
        TRY_VOID(write_state_mark(false));
        ordering_->state_is_clean();
        return {};
    });
}

void Volume::note_unreported_error(const cache::ErrSeq& wb_err) {
    // sample() is 0 as long as nobody has looked.
    if (wb_err.sample() == 0) {
        if (const int error = wb_err.check(0); error != 0) {
            unreported_error_.store(error);
        }
    }
}

// --- unmount, remount, sync ---

Result<> Volume::sync_fs() {
    const Result<> data = cache_.flusher().sync_inodes();
    if (read_only_.load() && !ordering_->anything_pending()) {
        return data;
    }
    return first_error(data, ordering_->commit());
}

Result<> Volume::unmount() {
    cache_.flusher().set_periodic({});
    unmounting_.store(true);
    // Data first, so that files which wait only for that can go; going, they give clusters back.
    Result<> result = cache_.flusher().sync_inodes();
    inodes_->shrink(0);
    // A volume that was only read is not even flushed.
    if (marked_dirty_.load() || ordering_->anything_pending()) {
        result = first_error(result, ordering_->commit_stopped());
    }
    inodes_->shrink(0);
    read_only_.store(true);
    if (ordering_->anything_pending()) {
        result = first_error(result, ordering_->commit_stopped());
    }
    if (result.has_value() && inodes_->nr_in_use() != 0) {
        result = Errno{EBUSY};
    }
    if (result.has_value()) {
        result = clear_state_mark();
    }
    return result;
}

Result<> Volume::remount(bool read_only, bool sync, bool dirsync) {
    if (read_only && !read_only_.load()) {
        TRY_VOID(sync_fs());
        read_only_.store(true);
        // What slipped in before the store.
        const Result<> last = first_error(cache_.flusher().sync_inodes(), ordering_->commit());
        if (!last.has_value()) {
            read_only_.store(shut_down_.load());
            return last;
        }
        TRY_VOID(clear_state_mark());
    } else if (!read_only && read_only_.load()) {
        if (must_be_read_only_ || shut_down_.load() || device_.geometry().read_only) {
            return Errno{EROFS};
        }
        read_only_.store(false);
    }
    sync_.store(sync);
    dirsync_.store(dirsync);
    return {};
}

Result<StatFs> Volume::statfs() {
    StatFs answer;
    answer.block_bytes = geometry_.cluster_bytes;
    answer.blocks = geometry_.nr_clusters;
    answer.blocks_free = TRY(allocator_->free_count());
    answer.volume_id = geometry_.volume_id;
    return answer;
}

// Source: fat_trim_fs. Offsets count from cluster 0, as there; what lies before cluster 2 is never
// trimmed.
Result<std::uint64_t> Volume::trim(std::uint64_t start_bytes, std::uint64_t length_bytes,
                                   std::uint64_t minimum_bytes) {
    if (!device_.geometry().can_discard) {
        return Errno{EOPNOTSUPP};
    }
    if (read_only_.load()) {
        return Errno{EROFS};
    }
    const std::uint64_t end_cluster = std::uint64_t{geometry_.nr_clusters} + kFirstCluster;
    if ((start_bytes >> geometry_.cluster_shift) >= end_cluster ||
        length_bytes < geometry_.cluster_bytes) {
        return Errno{EINVAL};
    }
    const std::uint64_t first =
        std::max<std::uint64_t>(start_bytes >> geometry_.cluster_shift, kFirstCluster);
    const std::uint64_t last =
        std::min(first + (length_bytes >> geometry_.cluster_shift), end_cluster) - 1;
    const auto minimum = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(minimum_bytes >> geometry_.cluster_shift, UINT32_MAX));
    std::uint64_t trimmed = 0;
    // Freed clusters are free in the pages once their commit is through.
    TRY_VOID(ordering_->commit());
    const auto discard = [&](const ClusterRun& run) -> Result<> {
        const std::uint64_t bytes = std::uint64_t{run.count} << geometry_.cluster_shift;
        const Result<> discarded =
            device_.discard(geometry_.cluster_offset_bytes(run.first), bytes);
        trimmed += discarded.has_value() ? bytes : 0;
        return discarded;
    };
    for (std::uint64_t from = first; from <= last; from += kTrimStep) {
        const std::uint64_t to = std::min<std::uint64_t>(from + kTrimStep - 1, last);
        TRY_VOID(ordering_->with_transactions_stopped([&] {
            return allocator_->for_each_free_run(static_cast<cluster_t>(from),
                                                 static_cast<cluster_t>(to), minimum, discard);
        }));
    }
    return trimmed;
}

// Source: fat_free_clusters, which does not look at the result either: the clusters are free all
// the same.
void Volume::discard_freed() {
    if (!options_.discard || !device_.geometry().can_discard) {
        return;
    }
    for (const ClusterRun& run : allocator_->pending_runs()) {
        const Result<> discarded =
            device_.discard(geometry_.cluster_offset_bytes(run.first),
                            std::uint64_t{run.count} << geometry_.cluster_shift);
        if (!discarded.has_value() && !discard_failed_.exchange(true)) {
            log(LogLevel::kWarning, "the device does not discard what was freed, error " +
                                        std::to_string(discarded.code()));
        }
    }
}

// --- errors, log, clock ---

bool Volume::is_read_only() const {
    return read_only_.load();
}

bool Volume::is_sync() const {
    return sync_.load(std::memory_order_relaxed);
}

bool Volume::is_dirsync() const {
    return dirsync_.load(std::memory_order_relaxed) || is_sync();
}

void Volume::log(LogLevel level, const std::string& sentence) {
    if (log_) {
        log_(level, sentence);
    }
}

void Volume::fs_error(const std::string& sentence) {
    damaged_.store(true);
    bool show = false;
    {
        const sync::MutexLock lock(error_log_lock_);
        const sync::Nanoseconds now = sync::monotonic_now();
        if (error_log_count_ == 0 || now - error_log_start_ > kErrorLogInterval) {
            error_log_start_ = now;
            error_log_count_ = 0;
        }
        show = ++error_log_count_ <= kErrorLogBurst;
    }
    if (show) {
        log(LogLevel::kError, "error, " + sentence);
    }
    switch (options_.errors) {
        case ErrorPolicy::kContinue:
            break;
        case ErrorPolicy::kPanic:
            BUG_ON(true, "errors=panic: the volume is damaged");
            break;
        case ErrorPolicy::kRemountRo:
            // What is pending is sound and still goes to the disk; new changes are refused.
            if (!read_only_.exchange(true)) {
                log(LogLevel::kError, "Filesystem has been set read-only");
            }
            break;
    }
}

void Volume::shutdown(const std::string& reason) {
    read_only_.store(true);
    ordering_->stop();
    if (!shut_down_.exchange(true)) {
        log(LogLevel::kError, "all changes stopped: " + reason);
    }
}

timespec Volume::now() const {
    return clock_();
}

void Volume::set_clock(std::function<timespec()> clock) {
    clock_ = std::move(clock);
}

// Source: fat_clusters_flush.
Result<> Volume::update_fsinfo() {
    // Counts that are merely not trusted are no reason to write to a volume that was only read.
    if (!has_fsinfo_ || !marked_dirty_.load()) {
        return {};
    }
    const std::uint64_t offset = std::uint64_t{geometry_.fsinfo_sector} * geometry_.sector_bytes;
    auto sector = load<FsInfoSector>(TRY(read_bytes(offset, sizeof(FsInfoSector))));
    const FsInfoSector old = sector;
    sector.free_count.set(allocator_->free_count_if_known());
    sector.next_free.set(allocator_->next_free_hint());
    if (std::memcmp(&old, &sector, sizeof(sector)) == 0) {
        return {};
    }
    TRY_VOID(change_bytes(offset, sizeof(sector),
                          [&](std::span<std::byte> bytes) { store(bytes, sector); }));
    ordering_->note_applied(offset, sizeof(sector));
    return {};
}

}  // namespace wbfat::fs::inline WBFAT_RT
