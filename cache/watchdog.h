// Looks for sleepers that nobody is going to wake.
//
// A sleeper whose bit is clear at two looks in a row, and who has been asleep longer than
// `lost_wakeup`, was forgotten by a waker (assertion lost_wakeup); one who has been asleep longer
// than `hung_wait`, whatever its bit, waits for something that hangs (hung_wait). One look is not
// enough for the first: between a waker's clear and its wake-up every sleeper looks forgotten. Each
// sleep is reported once.
//
// Locking: a look takes the bucket locks of the wait table one after the other; reports are made
// with none held. Source: Linux kernel/hung_task.c, which knows only the second kind.
#pragma once

#include <chrono>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "cache/page_wait.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

struct WatchdogLimits {
    sync::Nanoseconds lost_wakeup = std::chrono::seconds(5);
    sync::Nanoseconds hung_wait = std::chrono::seconds(120);
    sync::Nanoseconds interval = std::chrono::seconds(1);
};

// What a look finds out, apart from the thread that looks.
class WaitInspector {
public:
    explicit WaitInspector(const WatchdogLimits& limits) : limits_(limits) {}

    // Everybody who is asleep at `now`; reports what is to be reported.
    void look(const std::vector<PageWaiter>& waiters, sync::Nanoseconds now);

private:
    // A sleep: who, since when.
    using Sleep = std::tuple<std::string, sync::Nanoseconds, const Page*>;

    const WatchdogLimits limits_;
    std::set<Sleep> clear_last_time_;
    std::set<Sleep> reported_;
};

// Looks every `interval` from a thread of its own until it is destroyed.
class Watchdog {
public:
    explicit Watchdog(const WatchdogLimits& limits = {});
    ~Watchdog();
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;

private:
    void run();

    const WatchdogLimits limits_;
    sync::Mutex mutex_;
    sync::CondVar stopped_;
    bool stop_ GUARDED_BY(mutex_) = false;
    sync::Thread thread_;
};

}  // namespace wbfat::cache::inline WBFAT_RT
