// A device whose bytes lie in the world, so that every run begins with the same ones.
//
// A page is transferred in one step: its bytes are copied when the transfer completes. While a
// scenario is set up that is within submit(). From hold() on Bios queue up for a thread "IO", which
// begins with the first of them when a task calls release(): so a run can start with a transfer
// under way.
//
// Differs from a disk: no write cache, so flush() has nothing to do.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cache/device/block_device.h"
#include "cache/sync/sync.h"

namespace wbfat::explore {

class WorldDevice final : public cache::BlockDevice {
public:
    explicit WorldDevice(std::size_t size_bytes);
    ~WorldDevice() override;

    const cache::DeviceGeometry& geometry() const override {
        return geometry_;
    }
    const std::string& name() const override {
        return name_;
    }
    void submit(cache::Bio& bio) override;
    wbfat::Result<> flush() override {
        return {};
    }
    wbfat::Result<> discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;

    // Within a set-up.
    void hold();
    // Once, by anybody.
    void release();
    // The same, but the first Bio completes in the calling task, beside the thread that completes
    // the others. Requires: there is one.
    void complete_first();

    // What has been transferred by now. Races with transfers.
    std::span<const std::byte> bytes() const {
        static_cast<void>(nr_written_.load(std::memory_order_relaxed));
        return bytes_;
    }

private:
    enum class Completion : std::uint8_t { kInSubmit, kHeld, kOnThread };

    void copy(cache::Bio& bio);
    cache::Bio* take_first() REQUIRES(lock_);
    // True for one caller each time the thread has gone idle: he must unpark it.
    bool claim_wake_up() REQUIRES(lock_);
    void run();

    const cache::DeviceGeometry geometry_;
    const std::string name_ = "disk";
    std::vector<std::byte> bytes_;
    sync::Atomic<std::uint32_t> nr_written_{0};  // transfers to bytes_, which nobody else announces

    static constexpr std::size_t kMaxQueued = 8;
    sync::SpinLock lock_;
    Completion completion_ GUARDED_BY(lock_) = Completion::kInSubmit;
    std::array<cache::Bio*, kMaxQueued> queue_ GUARDED_BY(lock_){};
    std::size_t nr_queued_ GUARDED_BY(lock_) = 0;
    bool is_idle_ GUARDED_BY(lock_) = false;
    bool is_closing_ GUARDED_BY(lock_) = false;
    sync::Parker work_;
    sync::Thread thread_;  // last: joined before the rest goes
};

}  // namespace wbfat::explore
