// The bug of the mail as syzbot met it: ftruncate grows a file on a sync mount.
//
//   A FAT12 volume, mounted by the real fs/ on a device of the world. The file's one page is under
//   writeback when the run starts, and CPU1 ends that, or lets the device end it. CPU3 grows the
//   file within the page: fat_cont_expand dirties it with zeros, and once more where the new size
//   lies within a block; then it writes the page, and waits under the page lock for the writeback
//   before. CPU2 is the flusher's pass over the inode: between the two it starts the next one. IO
//   ends all others.
//
// With sync=1 CPU3 is the whole setattr of a sync mount: the walk twice, the directory entry, the
// commit. With 0 the mount is not a sync one, and CPU3 does fat_cont_expand and its first walk by
// hand: what comes later cannot undo the bug, and multiplies the states. The other parameters take
// more away, down to what the search by traces finishes.
//
// Source: writeback-protocol.md 9.5 and 11.3; Linux fs/fat/file.c fat_cont_expand.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cache/base/check.h"
#include "cache/filemap.h"
#include "cache/flusher.h"
#include "cache/page_cache.h"
#include "cache/page_io.h"
#include "cache/sync/scheduler.h"
#include "fs/file.h"
#include "fs/mkfs.h"
#include "fs/namei.h"
#include "fs/truncate.h"
#include "fs/volume.h"

#include "tools/explore/scenarios/catalogue.h"
#include "tools/explore/scenarios/world_device.h"

namespace wbfat::explore {

namespace {

constexpr std::size_t kVolumeBytes = 64 << 10;
constexpr std::uint64_t kOldSize = 100;
// Two blocks on, and within the third.
constexpr std::uint64_t kNewSize = 1100;
constexpr std::byte kContent{'x'};

class ContExpand final : public Scenario {
public:
    explicit ContExpand(const Parameters& parameters)
        : sync_(parameters["sync"] != 0),
          flusher_(Flusher{parameters["flusher"]}),
          first_(First{parameters["first"]}),
          waits_(parameters["waits"] != 0) {}
    ~ContExpand() override {
        disk_.release();
        cache_->io().wait_until_idle();
        file_ = {};
        static_cast<void>(volume_->unmount());
        volume_.reset();
        cache_.reset();
    }

    void set_up() override {
        make_volume();
        make_file();
        disk_.hold();
        write_old_content();
        if (first_ != First::kNone) {
            static_cast<void>(cache::filemap_fdatawrite_range(mapping(), 0, cache::kLastByte));
        }
        if (sync_) {
            BUG_ON(!volume_->remount(false, true, true).has_value());
        }
        if (first_ == First::kNone) {
            disk_.release();
        } else {
            const bool is_cpu = first_ == First::kCpu;
            task("CPU1", sync::Role::kCompletion,
                 is_cpu ? "ends the first writeback" : "lets the device go on",
                 [this, is_cpu] { is_cpu ? disk_.complete_first() : disk_.release(); });
        }
        if (flusher_ != Flusher::kNone) {
            task("CPU2", sync::Role::kFlusher, "writes the inode back", [this] { write_back(); });
        }
        task("CPU3", sync::Role::kSyncWriter, "grows the file by ftruncate", [this] {
            grown_ = grow().has_value();
            was_on_disk_ = waits_ && is_on_disk();
        });
    }

    std::string check() override {
        if (!grown_ || file_->i_size() != kNewSize) {
            return "the file did not grow";
        }
        return was_on_disk_ == waits_ && is_on_disk()
                   ? ""
                   : "ftruncate has returned, and a byte of the file is not on the disk";
    }
    std::string outcome() override {
        return fmt::format("[{:#x}]", page_->flags.load() & ~std::uint64_t{cache::PG_waiters});
    }
    std::vector<ObservedPage> pages() override {
        return {{"P", page_}};
    }
    std::vector<NamedObject> objects() override {
        return {{&page_->flags, sizeof(page_->flags), "P.flags"},
                {&page_->refcount, sizeof(page_->refcount), "P.refcount"},
                {&page_->mapping, sizeof(page_->mapping), "P.mapping"},
                {&mapping().i_pages.lock(), sizeof(sync::SpinLock), "i_pages lock"},
                {&file_->i_rwsem, sizeof(file_->i_rwsem), "i_rwsem"}};
    }

private:
    static int task(std::string name, sync::Role role, std::string purpose,
                    std::function<void()> body) {
        return sync::sched::scheduler().add_task(std::move(name), role, std::move(purpose),
                                                 std::move(body));
    }
    cache::AddressSpace& mapping() {
        return file_->mapping();
    }

    void make_volume() {
        fs::FormatOptions format;
        format.fat_bits = 12;
        format.sectors_per_cluster = cache::kPageSize / cache::kBlockSize;
        format.nr_fats = 1;
        std::string why;
        const auto plan = fs::plan_mkfs(format, {.size_bytes = kVolumeBytes}, why);
        BUG_ON(!plan.has_value(), why.c_str());
        fs::DeviceFormatTarget target(disk_);
        BUG_ON(!fs::write_volume(target, *plan).has_value());

        cache::PageCacheOptions cache_options;
        cache_options.cache_size_bytes = 1U << 20;
        cache_options.dirty_writeback_centisecs = 0;
        cache_ = cache::PageCache::create(cache_options).value();
        fs::MountOptions options;
        options.time_offset_set = true;
        options.commit_seconds = 0;
        volume_ = fs::Volume::mount(disk_, *cache_, options, {}, why).value();
        volume_->set_clock([] { return timespec{.tv_sec = 1'600'000'000, .tv_nsec = 0}; });
    }

    // On the disk, with nothing pending.
    void make_file() {
        file_ = fs::create(*volume_->root().value(), "file").value();
        write_old_content();
        BUG_ON(!volume_->sync_fs().has_value());
        place_ = file_->mapping()
                     .ops()
                     .map_blocks(mapping(), 0, cache::kPageSize)
                     .value()
                     .device_offset_bytes;
        page_ = mapping().i_pages.find_get(0);
        cache::put_page(*page_);
    }
    void write_old_content() {
        fs::File open(file_, {});
        const auto copy = [](std::span<std::byte> piece) {
            std::fill(piece.begin(), piece.end(), kContent);
            return wbfat::Result<>();
        };
        BUG_ON(!open.write(0, kOldSize, copy).has_value());
    }

    bool is_on_disk() {
        const auto bytes = disk_.bytes().subspan(place_);
        return std::all_of(bytes.begin(), bytes.begin() + kOldSize,
                           [](std::byte it) { return it == kContent; }) &&
               std::all_of(bytes.begin() + kOldSize, bytes.begin() + kNewSize,
                           [](std::byte it) { return it == std::byte{0}; });
    }

    void write_back() {
        static_cast<void>(flusher_ == Flusher::kPass
                              ? cache_->flusher().write_inode_now(mapping(), cache::WB_SYNC_NONE)
                              : cache::filemap_flush(mapping()));
    }

    wbfat::Result<> grow() {
        fs::Inode& inode = *file_;
        if (sync_) {
            fs::AttrChange change;
            change.size = kNewSize;
            return fs::setattr(inode, change);
        }
        {
            const sync::WriteGuard guard(inode.i_rwsem);
            TRY_VOID(fs::fat_cont_expand(inode, kNewSize));
        }
        TRY_VOID(cache::filemap_fdatawrite_range(mapping(), kOldSize, kNewSize - 1));
        if (waits_) {
            cache::filemap_fdatawait_range(mapping(), kOldSize, kNewSize - 1);
        }
        return {};
    }

    enum class Flusher : unsigned { kNone, kWalk, kPass };
    enum class First : unsigned { kNone, kDevice, kCpu };

    const bool sync_;
    const Flusher flusher_;
    const First first_;
    const bool waits_;
    bool grown_ = false, was_on_disk_ = false;
    std::uint64_t place_ = 0;  // of the file's bytes on the device
    WorldDevice disk_{kVolumeBytes};
    std::unique_ptr<cache::PageCache> cache_;
    std::unique_ptr<fs::Volume> volume_;
    fs::InodeRef file_;
    cache::Page* page_ = nullptr;
};

}  // namespace

ScenarioEntry cont_expand_scenario() {
    return {
        .info = {.name = "cont-expand",
                 .summary = "ftruncate grows a file of a sync mount beside the flusher",
                 .parameters = {{"sync", "whether it is all of a sync mount's setattr", 0, 0, 1},
                                {"flusher", "what CPU2 does", 2, 0, 2, {"nothing", "walk", "pass"}},
                                {"first",
                                 "who ends the write that is under way",
                                 2,
                                 0,
                                 2,
                                 {"nobody", "device", "CPU"}},
                                {"waits", "whether CPU3 waits for what it wrote", 1, 0, 1}},
                 .is_big = false,
                 .weight = 10},
        .make = &make<ContExpand>};
}

}  // namespace wbfat::explore
