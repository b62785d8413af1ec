// Transfers that complete when their time is up.
#include "cache/device/latency_device.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "cache/sync/points.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

const char* point_of(BioOp op) {
    return op == BioOp::kRead ? "device:read" : "device:write";
}

bool any_rule_armed() {
    return sync::points_armed.load(std::memory_order_relaxed);
}

}  // namespace

LatencyDevice::LatencyDevice(BlockDevice& inner) : inner_(inner) {}

LatencyDevice::~LatencyDevice() {
    std::vector<sync::Thread> threads;
    {
        sync::MutexLock lock(lock_);
        while (nr_kept_ > 0) {
            changed_.wait(lock);
        }
        stopping_ = true;
        changed_.notify_all();
        threads.swap(threads_);
    }
}

const DeviceGeometry& LatencyDevice::geometry() const {
    return inner_.geometry();
}

const std::string& LatencyDevice::name() const {
    return inner_.name();
}

void LatencyDevice::submit(Bio& bio) {
    if (!any_rule_armed()) {
        inner_.submit(bio);
        return;
    }
    auto kept = std::make_unique<Kept>();
    kept->device = this;
    kept->end_io = std::exchange(bio.end_io, &inner_done);
    kept->due = sync::monotonic_now() + sync::point_latency(point_of(bio.op));
    kept->context = std::exchange(bio.context, kept.get());
    {
        const sync::MutexLock lock(lock_);
        ++nr_kept_;
        while (threads_.size() < kThreads) {
            threads_.emplace_back("wbfat-io", sync::Role::kCompletion,
                                  [this] { complete_when_due(); });
        }
    }
    static_cast<void>(kept.release());  // the Bio's context until give_back
    inner_.submit(bio);
}

void LatencyDevice::inner_done(Bio& bio) {
    auto& kept = *static_cast<Kept*>(bio.context);
    kept.device->keep(bio, kept);
}

void LatencyDevice::keep(Bio& bio, Kept& kept) {
    const sync::MutexLock lock(lock_);
    waiting_.emplace(kept.due, &bio);
    changed_.notify_all();
}

// Each thread takes the transfer that is due first. One that is held in end_io leaves the rest to
// the others.
void LatencyDevice::complete_when_due() {
    sync::MutexLock lock(lock_);
    while (!stopping_) {
        if (waiting_.empty()) {
            changed_.wait(lock);
            continue;
        }
        const auto first = waiting_.begin();
        const sync::Nanoseconds left = first->first - sync::monotonic_now();
        if (left > sync::Nanoseconds::zero()) {
            changed_.wait_for(lock, left);
            continue;
        }
        Bio& bio = *first->second;
        waiting_.erase(first);
        lock.unlock();
        give_back(bio);
        lock.lock();
        --nr_kept_;
        changed_.notify_all();
    }
}

void LatencyDevice::give_back(Bio& bio) {
    const std::unique_ptr<Kept> kept(static_cast<Kept*>(bio.context));
    bio.end_io = kept->end_io;
    bio.context = kept->context;
    WBFAT_POINT("device:before_end_io");
    bio.complete(bio.error);
}

Result<> LatencyDevice::flush() {
    if (any_rule_armed()) {
        sync::sleep_for(sync::point_latency("device:flush"));
    }
    return inner_.flush();
}

Result<> LatencyDevice::discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    return inner_.discard(offset_bytes, length_bytes);
}

Result<> LatencyDevice::transfer(BioOp op, std::uint64_t offset_bytes,
                                 std::span<std::byte> memory) {
    if (any_rule_armed()) {
        sync::sleep_for(sync::point_latency(point_of(op)));
    }
    return inner_.transfer(op, offset_bytes, memory);
}

}  // namespace wbfat::cache::inline WBFAT_RT
