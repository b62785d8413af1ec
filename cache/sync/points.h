// Named points: places in the protocol where a thread can be delayed, held or counted, by name, at
// run time.
//
// WBFAT_POINT("end_writeback:cleared") costs one relaxed load while nothing is armed. Once a rule
// is armed every point counts its hits, and a matching rule delays the thread or calls a hook.
// PointGate is the hook that tests and ordering rules are made of: it holds the threads that arrive
// until somebody opens it.
//
// Points may stand inside spin-locked sections (wait:waiters_set does, to lie between the two
// halves of a queue operation): a hook must not take a lock of the cache.
//
// Locking: the registry has its own mutex, held while rules are looked up, never while one acts.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "cache/base/runtime.h"
#include "cache/sync/native.h"

namespace wbfat::sync::inline WBFAT_RT {

// What to do at a point, and to whom.
struct PointRule {
    // Selection: all given must match. Hits are counted among those that match role and task.
    std::optional<Role> role;
    std::string task;  // name of the task; empty: any
    std::uint64_t skip = 0;
    std::uint64_t count = UINT64_MAX;

    // Action: first the delay, then the hook.
    Nanoseconds delay{0};
    std::function<void()> hook;
};

// A rule is identified by what arm_point returned.
using PointRuleId = std::uint64_t;
PointRuleId arm_point(std::string_view name, PointRule rule);
// After it returned no thread is in the rule's hook or will enter it. Must not be called from a
// hook.
void disarm_point(PointRuleId id);

// Hits of every point since it was first passed while anything was armed.
std::map<std::string, std::uint64_t> point_hits();
void reset_point_hits();

// Holds the threads that reach a point until it is opened; the destructor opens and disarms it.
class PointGate {
public:
    explicit PointGate(std::string_view name, PointRule selection = {});
    ~PointGate();
    PointGate(const PointGate&) = delete;
    PointGate& operator=(const PointGate&) = delete;

    // Sleeps until `nr_threads` threads have arrived (since the gate was made).
    void wait_for_arrivals(std::uint64_t nr_threads = 1);
    std::uint64_t arrivals() const;
    // Lets the waiting threads and all later ones pass.
    void open();

private:
    struct State;
    std::shared_ptr<State> state_;
    PointRuleId rule_;
};

}  // namespace wbfat::sync::inline WBFAT_RT
