// Named points: places in the protocol where a thread can be delayed, held or counted, by name, at
// run time.
//
// WBFAT_POINT("end_writeback:cleared", page) costs one relaxed load while nothing is armed. Once a
// rule is armed every point counts its hits, and a matching rule delays the thread or calls a hook.
// PointGate is the hook that tests are made of: it holds the threads that arrive until somebody
// opens it. People write rules as text (point_rules.h).
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

// A thread that passes a point, as an action sees it.
struct PointHit {
    const char* name = nullptr;
    PointSubject subject;
    // Where a device wants to know how long to take, and not to be put to sleep: sleeps and delays
    // are added up here. Null elsewhere.
    Nanoseconds* latency = nullptr;
};

// What to do at a point, and to whom.
struct PointRule {
    // Which rules of a point act first.
    enum class Turn : std::uint8_t {
        kAnnounces,  // tells others that the thread is here: before anything holds it here
        kActs,
    };

    // Selection: all given must match. Hits are counted among those that match everything else.
    std::optional<Role> role;
    std::string task;        // name of the task; empty: any
    std::uint32_t file = 0;  // point_tag of the mapping's name; 0: any
    std::uint64_t first_page = 0;
    std::uint64_t last_page = UINT64_MAX;  // below UINT64_MAX only points about a page match
    std::string what;                      // PointSubject::what; empty: any
    std::uint64_t skip = 0;
    std::uint64_t count = UINT64_MAX;
    Turn turn = Turn::kActs;

    // Action: first the delay, then the hook, then the action.
    Nanoseconds delay{0};
    std::function<void()> hook;
    std::function<void(const PointHit&)> action;
};

// A rule is identified by what arm_point returned. The empty name stands for every point.
using PointRuleId = std::uint64_t;
PointRuleId arm_point(std::string_view name, PointRule rule);
// After it returned no thread is in the rule's hook or will enter it. Must not be called from a
// hook.
void disarm_point(PointRuleId id);

// Hits of a rule so far, those outside [skip, skip + count) included. 0 for a rule that is gone.
std::uint64_t rule_hits(PointRuleId id);

// Passes the point `name` without sleeping: what the rules would have slept is returned, for a
// device that completes its transfers that much later.
Nanoseconds point_latency(const char* name);

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
    [[nodiscard]] std::uint64_t arrivals() const;
    // Lets the waiting threads and all later ones pass.
    void open();

private:
    struct State;
    std::shared_ptr<State> state_;
    PointRuleId rule_;
};

}  // namespace wbfat::sync::inline WBFAT_RT
