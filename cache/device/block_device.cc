// What all devices share: sizes, range checks, and the synchronous transfer.
#include "cache/device/block_device.h"

#include <algorithm>

#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

// A segment's length is 32 bits wide; larger memory is described by several segments.
constexpr std::uint64_t kSegmentBytesMax = std::uint64_t{1} << 30;

// Lives on the waiting thread's stack.
struct Waiter {
    sync::Mutex lock;
    sync::CondVar finished;
    bool done GUARDED_BY(lock) = false;
};

// Notifies with the lock held: the waiter returns, and destroys all of this, only after it was let
// go.
void wake_waiter(Bio& bio) {
    Waiter& waiter = *static_cast<Waiter*>(bio.context);
    const sync::MutexLock lock(waiter.lock);
    waiter.done = true;
    waiter.finished.notify_one();
}

bool leaves_device(const DeviceGeometry& geometry, std::uint64_t offset, std::uint64_t length) {
    return offset > geometry.size_bytes || length > geometry.size_bytes - offset;
}

}  // namespace

std::uint64_t Bio::size_bytes() const {
    std::uint64_t size = 0;
    for (const BioSegment& segment : segments) {
        size += segment.length_bytes;
    }
    return size;
}

int check_bio(const DeviceGeometry& geometry, const Bio& bio) {
    if (leaves_device(geometry, bio.offset_bytes, bio.size_bytes())) {
        return EINVAL;
    }
    return bio.op == BioOp::kWrite && geometry.read_only ? EROFS : 0;
}

int check_discard(const DeviceGeometry& geometry, std::uint64_t offset_bytes,
                  std::uint64_t length_bytes) {
    if (!geometry.can_discard) {
        return EOPNOTSUPP;
    }
    if (geometry.read_only) {
        return EROFS;
    }
    return leaves_device(geometry, offset_bytes, length_bytes) ? EINVAL : 0;
}

Result<> BlockDevice::transfer(BioOp op, std::uint64_t offset_bytes, std::span<std::byte> memory) {
    Waiter waiter;
    Bio bio{.op = op, .offset_bytes = offset_bytes, .end_io = wake_waiter, .context = &waiter};
    while (!memory.empty()) {
        const std::size_t length = std::min<std::uint64_t>(memory.size(), kSegmentBytesMax);
        bio.segments.push_back({memory.data(), static_cast<std::uint32_t>(length)});
        memory = memory.subspan(length);
    }
    submit(bio);
    sync::MutexLock lock(waiter.lock);
    while (!waiter.done) {
        waiter.finished.wait(lock);
    }
    if (bio.error != 0) {
        return Errno{bio.error};
    }
    return {};
}

Result<> read_device(BlockDevice& device, std::uint64_t offset_bytes, std::span<std::byte> into) {
    return device.transfer(BioOp::kRead, offset_bytes, into);
}

Result<> write_device(BlockDevice& device, std::uint64_t offset_bytes,
                      std::span<const std::byte> from) {
    // A write only reads the memory; a BioSegment is not const because reads share it.
    return device.transfer(BioOp::kWrite, offset_bytes,
                           {const_cast<std::byte*>(from.data()), from.size()});
}

}  // namespace wbfat::cache::inline WBFAT_RT
