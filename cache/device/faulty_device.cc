// The misbehaving device: which rule acts, and what the effect does to the operation.
#include "cache/device/faulty_device.h"

#include <algorithm>
#include <utility>

#include "cache/base/units.h"
#include "cache/device/completion_thread.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

bool overlaps(const FaultRule& rule, std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    return offset_bytes < rule.end_bytes && offset_bytes + length_bytes > rule.begin_bytes;
}

// A transfer of which the inner device sees only the beginning.
struct Prefix {
    Bio inner;
    Bio* outer = nullptr;
    int error = 0;
};

void prefix_done(Bio& inner) {
    const std::unique_ptr<Prefix> prefix(static_cast<Prefix*>(inner.context));
    Bio& outer = *prefix->outer;
    outer.complete(inner.error != 0 ? inner.error : prefix->error);
}

std::vector<BioSegment> first_bytes(const std::vector<BioSegment>& segments, std::uint64_t length) {
    std::vector<BioSegment> result;
    for (const BioSegment& segment : segments) {
        if (length == 0) {
            break;
        }
        BioSegment part = segment;
        part.length_bytes =
            static_cast<std::uint32_t>(std::min<std::uint64_t>(segment.length_bytes, length));
        length -= part.length_bytes;
        result.push_back(part);
    }
    return result;
}

}  // namespace

FaultyDevice::FaultyDevice(BlockDevice& inner, CompletionContext completion)
    : inner_(inner),
      thread_(completion == CompletionContext::kOnThread ? std::make_unique<CompletionThread>()
                                                         : nullptr) {}

FaultyDevice::~FaultyDevice() {
    remove_device();
}

FaultyDevice::RuleId FaultyDevice::add_rule(const FaultRule& rule) {
    const sync::MutexLock lock(lock_);
    rules_.push_back({.id = ++last_id_, .rule = rule});
    return last_id_;
}

void FaultyDevice::remove_rule(RuleId id) {
    const sync::MutexLock lock(lock_);
    std::erase_if(rules_, [id](const ActiveRule& active) { return active.id == id; });
}

void FaultyDevice::clear_rules() {
    const sync::MutexLock lock(lock_);
    rules_.clear();
}

const FaultyDevice::ActiveRule* FaultyDevice::find_locked(RuleId id) const {
    const auto found = std::ranges::find(rules_, id, &ActiveRule::id);
    return found == rules_.end() ? nullptr : &*found;
}

std::uint64_t FaultyDevice::matches(RuleId id) const {
    const sync::MutexLock lock(lock_);
    const ActiveRule* active = find_locked(id);
    return active == nullptr ? 0 : active->matches;
}

std::uint64_t FaultyDevice::acts(RuleId id) const {
    const sync::MutexLock lock(lock_);
    const ActiveRule* active = find_locked(id);
    return active == nullptr ? 0 : active->acts;
}

std::uint64_t FaultyDevice::operations(std::uint8_t ops) const {
    const sync::MutexLock lock(lock_);
    return ((ops & kFaultReads) != 0 ? nr_reads_ : 0) +
           ((ops & kFaultWrites) != 0 ? nr_writes_ : 0) +
           ((ops & kFaultFlushes) != 0 ? nr_flushes_ : 0) +
           ((ops & kFaultDiscards) != 0 ? nr_discards_ : 0);
}

std::size_t FaultyDevice::nr_held() const {
    const sync::MutexLock lock(lock_);
    return held_.size() + nr_sleepers_;
}

void FaultyDevice::wait_until_held(std::size_t nr) {
    sync::MutexLock lock(lock_);
    while (held_.size() + nr_sleepers_ < nr) {
        held_changed_.wait(lock);
    }
}

void FaultyDevice::release() {
    std::deque<Bio*> going;
    {
        const sync::MutexLock lock(lock_);
        going.swap(held_);
        release_round_++;
        held_changed_.notify_all();
    }
    for (Bio* bio : going) {
        inner_.submit(*bio);
    }
}

bool FaultyDevice::release_transfer(std::size_t index) {
    Bio* bio = nullptr;
    {
        const sync::MutexLock lock(lock_);
        if (index >= held_.size()) {
            return false;
        }
        bio = held_[index];
        held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(index));
    }
    inner_.submit(*bio);
    return true;
}

void FaultyDevice::remove_device() {
    std::deque<Bio*> lost;
    {
        const sync::MutexLock lock(lock_);
        removed_ = true;
        lost.swap(held_);
        release_round_++;
        held_changed_.notify_all();
    }
    for (Bio* bio : lost) {
        complete(*bio, EIO);
    }
}

void FaultyDevice::insert_device() {
    const sync::MutexLock lock(lock_);
    removed_ = false;
}

bool FaultyDevice::removed() const {
    const sync::MutexLock lock(lock_);
    return removed_;
}

const DeviceGeometry& FaultyDevice::geometry() const {
    return inner_.geometry();
}

const std::string& FaultyDevice::name() const {
    return inner_.name();
}

FaultyDevice::Decision FaultyDevice::decide_locked(const Operation& operation) {
    nr_reads_ += operation.kind == kFaultReads ? 1 : 0;
    nr_writes_ += operation.kind == kFaultWrites ? 1 : 0;
    nr_flushes_ += operation.kind == kFaultFlushes ? 1 : 0;
    nr_discards_ += operation.kind == kFaultDiscards ? 1 : 0;
    if (removed_) {
        return {.verdict = Verdict::kFail, .error = EIO};
    }
    ActiveRule* acting = nullptr;
    for (ActiveRule& active : rules_) {
        const FaultRule& rule = active.rule;
        if ((rule.ops & operation.kind) == 0 ||
            (operation.kind != kFaultFlushes &&
             !overlaps(rule, operation.offset_bytes, operation.length_bytes))) {
            continue;
        }
        active.matches++;
        const bool in_window =
            active.matches >= rule.first_hit && active.matches - rule.first_hit < rule.nr_hits;
        if (in_window && acting == nullptr) {
            acting = &active;
        }
    }
    if (acting == nullptr) {
        return {};
    }
    acting->acts++;
    return act_locked(acting->rule);
}

FaultyDevice::Decision FaultyDevice::act_locked(const FaultRule& rule) {
    const std::uint64_t keep = rule.keep_bytes >> kBlockShift << kBlockShift;
    switch (rule.effect) {
        case FaultEffect::kError:
            return {.verdict = Verdict::kFail, .error = rule.error};
        case FaultEffect::kShort:
            return {.verdict = Verdict::kPartial, .error = rule.error, .keep_bytes = keep};
        case FaultEffect::kTornThenGone:
            removed_ = true;
            return {.verdict = Verdict::kPartial, .error = 0, .keep_bytes = keep};
        case FaultEffect::kHold:
            return {.verdict = Verdict::kHold};
        case FaultEffect::kRemove:
            removed_ = true;
            return {.verdict = Verdict::kFail, .error = EIO};
    }
    return {};
}

void FaultyDevice::submit(Bio& bio) {
    const FaultOps kind = bio.op == BioOp::kRead ? kFaultReads : kFaultWrites;
    Decision decision;
    {
        const sync::MutexLock lock(lock_);
        decision = decide_locked({kind, bio.offset_bytes, bio.size_bytes()});
        if (decision.verdict == Verdict::kHold) {
            held_.push_back(&bio);
            held_changed_.notify_all();
        }
    }
    switch (decision.verdict) {
        case Verdict::kPass:
            inner_.submit(bio);
            return;
        case Verdict::kFail:
            complete(bio, decision.error);
            return;
        case Verdict::kPartial:
            transfer_prefix(bio, decision);
            return;
        case Verdict::kHold:
            return;
    }
}

void FaultyDevice::transfer_prefix(Bio& bio, const Decision& decision) {
    if (decision.keep_bytes == 0) {
        complete(bio, decision.error);
        return;
    }
    auto prefix = std::make_unique<Prefix>();
    prefix->outer = &bio;
    prefix->error = decision.error;
    prefix->inner.op = bio.op;
    prefix->inner.offset_bytes = bio.offset_bytes;
    prefix->inner.segments = first_bytes(bio.segments, decision.keep_bytes);
    prefix->inner.end_io = prefix_done;
    prefix->inner.context = prefix.get();
    inner_.submit(prefix.release()->inner);
}

void FaultyDevice::complete(Bio& bio, int error) {
    if (thread_ == nullptr) {
        bio.complete(error);
        return;
    }
    thread_->post([&bio, error] { bio.complete(error); });
}

// For operations that sleep in their caller: a hold is waited for here. A partial flush is a failed
// one.
FaultyDevice::Decision FaultyDevice::decide_sleeping(const Operation& operation) {
    sync::MutexLock lock(lock_);
    Decision decision = decide_locked(operation);
    if (decision.verdict != Verdict::kHold) {
        return decision;
    }
    nr_sleepers_++;
    held_changed_.notify_all();
    const std::uint64_t round = release_round_;
    while (release_round_ == round) {
        held_changed_.wait(lock);
    }
    nr_sleepers_--;
    if (removed_) {
        return {.verdict = Verdict::kFail, .error = EIO};
    }
    return {};
}

Result<> FaultyDevice::flush() {
    const Decision decision = decide_sleeping({.kind = kFaultFlushes});
    if (decision.verdict == Verdict::kPass) {
        return inner_.flush();
    }
    if (decision.error != 0) {
        return Errno{decision.error};
    }
    return {};
}

Result<> FaultyDevice::discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    const Decision decision = decide_sleeping({kFaultDiscards, offset_bytes, length_bytes});
    if (decision.verdict == Verdict::kPass) {
        return inner_.discard(offset_bytes, length_bytes);
    }
    if (decision.error != 0) {
        return Errno{decision.error};
    }
    return {};
}

}  // namespace wbfat::cache::inline WBFAT_RT
