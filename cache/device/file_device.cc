// The file device: free places, engine, and the calls that need neither.
#include "cache/device/file_device.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include <linux/fs.h>
#include <sys/ioctl.h>

#include "cache/device/device_node.h"
#include "cache/device/io_engine.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

constexpr std::uint64_t kSegmentBytesMax = std::uint64_t{1} << 30;

}  // namespace

class FileDevice::Impl final : public TransferSink {
public:
    Impl(std::string name, const Options& options, DeviceNode node);
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;
    virtual ~Impl();

    void submit(Bio& bio) EXCLUDES(places_lock_);
    void finished(Transfer& transfer) override EXCLUDES(places_lock_);
    Result<> release_claim();
    std::string engine_name() const EXCLUDES(places_lock_);

    int fd() const {
        return node_.fd.get();
    }
    const DeviceNode& node() const {
        return node_;
    }
    const std::string& name() const {
        return name_;
    }
    const Options& options() const {
        return options_;
    }

private:
    struct Place {
        Transfer* transfer = nullptr;
        IoEngine* engine = nullptr;
    };

    Place take_place() EXCLUDES(places_lock_);
    std::unique_ptr<IoEngine> make_engine();

    // Constant after construction, but for release_claim().
    const std::string name_;
    const Options options_;
    DeviceNode node_;
    std::vector<Transfer> transfers_;

    // A transfer is in free_, or in flight, and never both. free_ is a stack: the warmest memory is
    // used next.
    mutable sync::Mutex places_lock_;
    sync::CondVar place_freed_;
    std::vector<Transfer*> free_ GUARDED_BY(places_lock_);
    // Set at the first submit (F3), destroyed first.
    std::unique_ptr<IoEngine> engine_ GUARDED_BY(places_lock_);
};

FileDevice::Impl::Impl(std::string name, const Options& options, DeviceNode node)
    : name_(std::move(name)),
      options_(options),
      node_(std::move(node)),
      transfers_(std::max(options.queue_depth, 1U)) {
    for (Transfer& transfer : transfers_) {
        free_.push_back(&transfer);
    }
}

FileDevice::Impl::~Impl() {
    sync::MutexLock lock(places_lock_);
    while (free_.size() < transfers_.size()) {
        place_freed_.wait(lock);
    }
}

void FileDevice::Impl::submit(Bio& bio) {
    const Place place = take_place();
    place.transfer->begin(bio, options_.offset_bytes, node_.alignment);
    if (const int error = check_bio(node_.geometry, bio); error != 0) {
        place.transfer->fail(error);
    }
    place.engine->start(*place.transfer);
}

FileDevice::Impl::Place FileDevice::Impl::take_place() {
    sync::MutexLock lock(places_lock_);
    if (engine_ == nullptr) {
        engine_ = make_engine();
    }
    while (free_.empty()) {
        place_freed_.wait(lock);
    }
    Transfer* transfer = free_.back();
    free_.pop_back();
    return {transfer, engine_.get()};
}

std::unique_ptr<IoEngine> FileDevice::Impl::make_engine() {
    std::unique_ptr<IoEngine> engine;
    if (options_.engine != Options::Engine::kPool) {
        engine = make_uring_engine(*this, fd(), static_cast<unsigned>(transfers_.size()));
    }
    if (engine == nullptr) {
        engine = make_pool_engine(*this, fd(), std::max(options_.nr_threads, 1U));
    }
    return engine;
}

void FileDevice::Impl::finished(Transfer& transfer) {
    WBFAT_POINT("file_device:before_end_io");
    transfer.bio().complete(transfer.error());
    // Notified with the lock held: the destructor may be the waiter.
    const sync::MutexLock lock(places_lock_);
    free_.push_back(&transfer);
    place_freed_.notify_all();
}

Result<> FileDevice::Impl::release_claim() {
    return reopen_without_claim(node_, options_);
}

std::string FileDevice::Impl::engine_name() const {
    const sync::MutexLock lock(places_lock_);
    return engine_ == nullptr ? "none" : engine_->name();
}

FileDevice::OpenResult FileDevice::open(const std::string& path, const Options& options) {
    auto node = open_device_node(path, options);
    if (node.has_error()) {
        return node.error();
    }
    auto impl = std::make_unique<Impl>(path, options, *std::move(node));
    return std::unique_ptr<FileDevice>(new FileDevice(std::move(impl)));
}

FileDevice::FileDevice(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

FileDevice::~FileDevice() = default;

const DeviceGeometry& FileDevice::geometry() const {
    return impl_->node().geometry;
}

const std::string& FileDevice::name() const {
    return impl_->name();
}

void FileDevice::submit(Bio& bio) {
    impl_->submit(bio);
}

// In the calling thread, which sleeps anyway; a ring's fsync would add two wake-ups to it. It
// covers what completed before: those bytes are with the device or in the host's page cache. A
// failed fdatasync is not repeated: the kernel has marked its pages clean, and the second call
// would lie (reliability.md section 0, finding 5).
Result<> FileDevice::flush() {
    if (geometry().read_only) {
        return {};
    }
    while (::fdatasync(impl_->fd()) != 0) {
        if (errno != EINTR) {
            return Errno{errno};
        }
    }
    return {};
}

Result<> FileDevice::discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    if (const int error = check_discard(geometry(), offset_bytes, length_bytes); error != 0) {
        return Errno{error};
    }
    if (length_bytes == 0) {
        return {};
    }
    const std::uint64_t start = impl_->options().offset_bytes + offset_bytes;
    int result = 0;
    if (is_block_device()) {
        std::array<std::uint64_t, 2> range{start, length_bytes};
        result = ::ioctl(impl_->fd(), BLKDISCARD, range.data());
    } else {
        result = ::fallocate(impl_->fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             static_cast<off_t>(start), static_cast<off_t>(length_bytes));
    }
    if (result != 0) {
        return Errno{errno};
    }
    return {};
}

Result<> FileDevice::transfer(BioOp op, std::uint64_t offset_bytes, std::span<std::byte> memory) {
    Bio bio{.op = op, .offset_bytes = offset_bytes};
    while (!memory.empty()) {
        const std::size_t length = std::min<std::uint64_t>(memory.size(), kSegmentBytesMax);
        bio.segments.push_back({memory.data(), static_cast<std::uint32_t>(length)});
        memory = memory.subspan(length);
    }
    Transfer transfer;
    transfer.begin(bio, impl_->options().offset_bytes, impl_->node().alignment);
    if (const int error = check_bio(geometry(), bio); error != 0) {
        transfer.fail(error);
    }
    run_blocking(impl_->fd(), transfer);
    if (transfer.error() != 0) {
        return Errno{transfer.error()};
    }
    return {};
}

Result<> FileDevice::release_claim() {
    return impl_->release_claim();
}

bool FileDevice::is_block_device() const {
    return impl_->node().is_block_device;
}

std::string FileDevice::engine_name() const {
    return impl_->engine_name();
}

}  // namespace wbfat::cache::inline WBFAT_RT
