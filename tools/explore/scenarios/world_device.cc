// The bytes, the queue, and the thread that completes.
#include "tools/explore/scenarios/world_device.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "cache/base/check.h"

#include "tools/explore/scenario.h"

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
    work_.unpark();
    thread_.join();
}

wbfat::Result<> WorldDevice::discard(std::uint64_t, std::uint64_t) {
    return Errno{EOPNOTSUPP};
}

void WorldDevice::hold() {
    const sync::SpinLockGuard guard(lock_);
    completion_ = Completion::kHeld;
}

bool WorldDevice::claim_wake_up() {
    return completion_ == Completion::kOnThread && nr_queued_ > 0 && std::exchange(is_idle_, false);
}

void WorldDevice::release() {
    bool wakes = false;
    {
        const sync::SpinLockGuard guard(lock_);
        completion_ = Completion::kOnThread;
        wakes = claim_wake_up();
    }
    if (wakes) {
        work_.unpark();
    }
}

void WorldDevice::complete_first() {
    cache::Bio* first = nullptr;
    bool wakes = false;
    {
        const sync::SpinLockGuard guard(lock_);
        first = take_first();
        completion_ = Completion::kOnThread;
        wakes = claim_wake_up();
    }
    if (wakes) {
        work_.unpark();
    }
    copy(*first);
}

void WorldDevice::submit(cache::Bio& bio) {
    Completion completion{};
    bool wakes = false;
    {
        const sync::SpinLockGuard guard(lock_);
        completion = completion_;
        if (completion != Completion::kInSubmit) {
            BUG_ON(nr_queued_ == kMaxQueued, "more Bios in flight than a scenario should have");
            queue_[nr_queued_++] = &bio;
            wakes = claim_wake_up();
        }
    }
    if (completion == Completion::kInSubmit) {
        copy(bio);
    } else if (wakes) {
        work_.unpark();
    }
}

void WorldDevice::copy(cache::Bio& bio) {
    const int error = cache::check_bio(geometry_, bio);
    if (error == 0) {
        if (bio.op != cache::BioOp::kRead) {
            nr_written_.add(1, std::memory_order_relaxed);
        }
        std::byte* place = bytes_.data() + bio.offset_bytes;
        for (const cache::BioSegment& segment : bio.segments) {
            const bool reading = bio.op == cache::BioOp::kRead;
            if (!reading && segment.owner != nullptr) {
                device_reads(*static_cast<const cache::Page*>(segment.owner));
            }
            std::memcpy(reading ? segment.data : place, reading ? place : segment.data,
                        segment.length_bytes);
            place += segment.length_bytes;
        }
    }
    bio.complete(error);
}

cache::Bio* WorldDevice::take_first() {
    cache::Bio* const first = queue_[0];
    std::copy(queue_.begin() + 1, queue_.begin() + nr_queued_, queue_.begin());
    queue_[--nr_queued_] = nullptr;
    return first;
}

void WorldDevice::run() {
    for (;;) {
        cache::Bio* bio = nullptr;
        {
            const sync::SpinLockGuard guard(lock_);
            if (nr_queued_ > 0 && completion_ == Completion::kOnThread) {
                bio = take_first();
            } else if (is_closing_) {
                return;
            }
            is_idle_ = bio == nullptr;
        }
        if (bio != nullptr) {
            copy(*bio);
        } else {
            work_.park();
        }
    }
}

}  // namespace wbfat::explore
