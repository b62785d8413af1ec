// A device that takes its time, by rule: the points device:read, device:write and device:flush
// (sync/point_rules.h) say how long.
//
// It stands before another device. While nothing is armed a transfer passes straight through. Once
// any rule is armed, transfers complete on the threads of this device, each when its own time is
// up: a thread that is held in the completion of one transfer holds up no other, as interrupts on
// several CPUs do not.
//
// Invariants
//   - D1. B1 and B2 hold for every Bio; a transfer that was submitted while a rule was armed keeps
//     its completion here when the rule is removed.
//   - D2. Nothing completes earlier than the inner device completed it.
//   - D3. Its threads start with the first transfer it keeps (F3).
//
// Locking: lock_ is a leaf; neither the inner device nor end_io is called with it held.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cache/base/thread_annotations.h"
#include "cache/device/block_device.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

class LatencyDevice final : public BlockDevice {
public:
    static constexpr std::size_t kThreads = 4;

    // `inner` outlives this.
    explicit LatencyDevice(BlockDevice& inner);
    // Waits for what is in flight.
    ~LatencyDevice() override;
    LatencyDevice(const LatencyDevice&) = delete;
    LatencyDevice& operator=(const LatencyDevice&) = delete;

    [[nodiscard]] const DeviceGeometry& geometry() const override;
    [[nodiscard]] const std::string& name() const override;
    void submit(Bio& bio) override EXCLUDES(lock_);
    Result<> flush() override;
    Result<> discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;
    Result<> transfer(BioOp op, std::uint64_t offset_bytes, std::span<std::byte> memory) override;

private:
    // What a Bio was before it was sent on with our end_io.
    struct Kept {
        LatencyDevice* device = nullptr;
        Bio::EndIo end_io = nullptr;
        void* context = nullptr;
        sync::Nanoseconds due{0};
    };

    static void inner_done(Bio& bio);
    void keep(Bio& bio, Kept& kept) EXCLUDES(lock_);
    void complete_when_due() EXCLUDES(lock_);
    static void give_back(Bio& bio);

    BlockDevice& inner_;

    sync::Mutex lock_;
    sync::CondVar changed_;
    std::multimap<sync::Nanoseconds, Bio*> waiting_ GUARDED_BY(lock_);  // done, by due time
    std::size_t nr_kept_ GUARDED_BY(lock_) = 0;                         // submitted and not ended
    bool stopping_ GUARDED_BY(lock_) = false;
    std::vector<sync::Thread> threads_ GUARDED_BY(lock_);
};

}  // namespace wbfat::cache::inline WBFAT_RT
