// The bytes, the queue, and the thread that completes.
#include "tools/explore/scenarios/world_device.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "cache/base/check.h"

namespace wbfat::explore {

WorldDevice::WorldDevice(std::size_t size_bytes)
    : geometry_{.size_bytes = size_bytes},
      bytes_(size_bytes),
      thread_("IO", sync::Role::kCompletion, [this] { run(); }) {}

WorldDevice::~WorldDevice() {
    {
        const sync::SpinLockGuard guard(lock_);
        is_closing_ = true;
    }
    more_.unpark();
    thread_.join();
}

wbfat::Result<> WorldDevice::discard(std::uint64_t, std::uint64_t) {
    return Errno{EOPNOTSUPP};
}

void WorldDevice::hold() {
    const sync::SpinLockGuard guard(lock_);
    completion_ = Completion::kHeld;
}

void WorldDevice::release() {
    bool has_one = false;
    {
        const sync::SpinLockGuard guard(lock_);
        completion_ = Completion::kOnThread;
        has_one = nr_queued_ > 0;
    }
    if (has_one) {
        more_.unpark();
    }
}

void WorldDevice::complete_first() {
    cache::Bio* const first = next();
    release();
    copy(*first);
}

void WorldDevice::submit(cache::Bio& bio) {
    Completion completion{};
    {
        const sync::SpinLockGuard guard(lock_);
        completion = completion_;
        if (completion != Completion::kInSubmit) {
            BUG_ON(nr_queued_ == kMaxQueued, "more Bios in flight than a scenario should have");
            queue_[nr_queued_++] = &bio;
        }
    }
    if (completion == Completion::kInSubmit) {
        copy(bio);
    } else if (completion == Completion::kOnThread) {
        more_.unpark();
    }
}

void WorldDevice::copy(cache::Bio& bio) {
    const int error = cache::check_bio(geometry_, bio);
    if (error == 0) {
        std::byte* place = bytes_.data() + bio.offset_bytes;
        for (const cache::BioSegment& segment : bio.segments) {
            const bool reading = bio.op == cache::BioOp::kRead;
            std::memcpy(reading ? segment.data : place, reading ? place : segment.data,
                        segment.length_bytes);
            place += segment.length_bytes;
        }
    }
    bio.complete(error);
}

cache::Bio* WorldDevice::next() {
    const sync::SpinLockGuard guard(lock_);
    if (nr_queued_ == 0) {
        return nullptr;
    }
    cache::Bio* const first = queue_[0];
    std::copy(queue_.begin() + 1, queue_.begin() + nr_queued_, queue_.begin());
    queue_[--nr_queued_] = nullptr;
    return first;
}

void WorldDevice::run() {
    for (;;) {
        more_.park();
        while (cache::Bio* const bio = next()) {
            copy(*bio);
        }
        const sync::SpinLockGuard guard(lock_);
        if (is_closing_) {
            return;
        }
    }
}

}  // namespace wbfat::explore
