// A device that misbehaves by rule: errors, short and torn transfers, delays, removal.
//
// It stands before another device and looks at every operation. Rules are tried in the order they
// were added; each rule counts the operations it matches, and the first one whose window
// [first_hit, first_hit + nr_hits) contains its count acts. An operation no rule acts on passes
// through untouched. "Fail the n-th operation, for every n" is a loop over first_hit until
// operations() shows that a run did not reach it.
//
// Invariants
//   - R1. B1 holds for every Bio, held ones too: what is still held at destruction or removal
//     completes with EIO.
//   - R2. After removal nothing reaches the inner device until insert_device().
//   - R3. A torn or short write changes a prefix of its range, in whole 512-byte sectors, and
//     nothing else.
//
// Locking: lock_ is a leaf; neither the inner device nor end_io is called with it held.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "cache/base/thread_annotations.h"
#include "cache/device/block_device.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

class CompletionThread;

// A set of kinds of operations.
enum FaultOps : std::uint8_t {
    kFaultReads = 1,
    kFaultWrites = 2,
    kFaultFlushes = 4,
    kFaultDiscards = 8,
    kFaultAnyOp = 15,
};

enum class FaultEffect : std::uint8_t {
    kError,         // nothing is transferred; `error`
    kShort,         // the first keep_bytes are transferred; then `error`
    kTornThenGone,  // as kShort, but reported as success, and the device is gone: a power cut in a
                    // write
    kHold,          // waits for release(), then goes its normal way
    kRemove,        // the device is gone, this operation the first to notice
};

struct FaultRule {
    static constexpr std::uint64_t kSticky = UINT64_MAX;

    std::uint8_t ops = kFaultAnyOp;
    // Reads, writes and discards that overlap [begin_bytes, end_bytes). A flush has no range and
    // always matches.
    std::uint64_t begin_bytes = 0;
    std::uint64_t end_bytes = UINT64_MAX;
    std::uint64_t first_hit = 1;  // counted from 1
    std::uint64_t nr_hits = 1;    // kSticky: for ever
    FaultEffect effect = FaultEffect::kError;
    int error = EIO;
    std::uint64_t keep_bytes = 0;  // rounded down to sectors
};

class FaultyDevice final : public BlockDevice {
public:
    using RuleId = std::uint64_t;

    // `inner` outlives this. `completion` is where failures complete; what reaches `inner`
    // completes where inner does.
    explicit FaultyDevice(BlockDevice& inner,
                          CompletionContext completion = CompletionContext::kOnThread);
    ~FaultyDevice() override;
    FaultyDevice(const FaultyDevice&) = delete;
    FaultyDevice& operator=(const FaultyDevice&) = delete;

    RuleId add_rule(const FaultRule& rule) EXCLUDES(lock_);
    void remove_rule(RuleId id) EXCLUDES(lock_);
    void clear_rules() EXCLUDES(lock_);
    // How often a rule matched, and how often it acted. 0 for a rule that was removed.
    std::uint64_t matches(RuleId id) const EXCLUDES(lock_);
    std::uint64_t acts(RuleId id) const EXCLUDES(lock_);
    // Operations of these kinds since construction, whatever became of them.
    std::uint64_t operations(std::uint8_t ops) const EXCLUDES(lock_);

    // Held operations, flushes included. wait_until_held sleeps until at least `nr` are.
    std::size_t nr_held() const EXCLUDES(lock_);
    void wait_until_held(std::size_t nr) EXCLUDES(lock_);
    // Lets all of them go, transfers in the order they came.
    void release() EXCLUDES(lock_);
    // Lets the `index`-th held transfer go before the others: how tests reorder completions.
    // Returns false when there are not so many.
    bool release_transfer(std::size_t index) EXCLUDES(lock_);

    // From now on every operation fails with EIO, held ones too (R1, R2).
    void remove_device() EXCLUDES(lock_);
    void insert_device() EXCLUDES(lock_);
    bool removed() const EXCLUDES(lock_);

    const DeviceGeometry& geometry() const override;
    const std::string& name() const override;
    void submit(Bio& bio) override EXCLUDES(lock_);
    Result<> flush() override EXCLUDES(lock_);
    Result<> discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) override
        EXCLUDES(lock_);

private:
    struct ActiveRule {
        RuleId id = 0;
        FaultRule rule;
        std::uint64_t matches = 0;
        std::uint64_t acts = 0;
    };
    enum class Verdict : std::uint8_t { kPass, kFail, kPartial, kHold };
    struct Decision {
        Verdict verdict = Verdict::kPass;
        int error = 0;
        std::uint64_t keep_bytes = 0;
    };
    struct Operation {
        FaultOps kind = kFaultReads;
        std::uint64_t offset_bytes = 0;
        std::uint64_t length_bytes = 0;
    };

    Decision decide_locked(const Operation& operation) REQUIRES(lock_);
    Decision act_locked(const FaultRule& rule) REQUIRES(lock_);
    const ActiveRule* find_locked(RuleId id) const REQUIRES(lock_);
    void transfer_prefix(Bio& bio, const Decision& decision);
    void complete(Bio& bio, int error);

    // Constant after construction.
    BlockDevice& inner_;
    const std::unique_ptr<CompletionThread> thread_;  // null for kInSubmit

    mutable sync::Mutex lock_;
    sync::CondVar held_changed_;
    std::vector<ActiveRule> rules_ GUARDED_BY(lock_);
    RuleId last_id_ GUARDED_BY(lock_) = 0;
    std::uint64_t nr_reads_ GUARDED_BY(lock_) = 0;
    std::uint64_t nr_writes_ GUARDED_BY(lock_) = 0;
    std::uint64_t nr_flushes_ GUARDED_BY(lock_) = 0;
    std::uint64_t nr_discards_ GUARDED_BY(lock_) = 0;
    bool removed_ GUARDED_BY(lock_) = false;
    std::deque<Bio*> held_ GUARDED_BY(lock_);
    // A held flush or discard sleeps in its caller until release_round_ moves on.
    std::size_t nr_sleepers_ GUARDED_BY(lock_) = 0;
    std::uint64_t release_round_ GUARDED_BY(lock_) = 0;

    Decision decide_sleeping(const Operation& operation) EXCLUDES(lock_);
};

}  // namespace wbfat::cache::inline WBFAT_RT
