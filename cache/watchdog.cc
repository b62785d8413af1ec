// Looks for sleepers that nobody is going to wake.
#include "cache/watchdog.h"

#include <fmt/format.h>

#include <utility>

#include "cache/assertions.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

void report(Assertion id, const PageWaiter& waiter, sync::Nanoseconds asleep) {
    const std::string message =
        fmt::format("'{}' has been waiting for {} to clear for {:.1f} s{}", waiter.task,
                    page_flags_to_string(waiter.bit), std::chrono::duration<double>(asleep).count(),
                    waiter.bit_is_clear ? "; it is clear" : "");
    assertion_failed(WBFAT_CHECK_SITE("a sleeper is woken in time"), id, waiter.page, message);
}

}  // namespace

void WaitInspector::look(const std::vector<PageWaiter>& waiters, sync::Nanoseconds now) {
    std::set<Sleep> clear_now;
    std::set<Sleep> still_reported;
    for (const PageWaiter& waiter : waiters) {
        const Sleep sleep{waiter.task, waiter.since, waiter.page};
        const sync::Nanoseconds asleep = now - waiter.since;
        if (reported_.contains(sleep)) {
            still_reported.insert(sleep);
            continue;
        }
        if (waiter.bit_is_clear && asleep >= limits_.lost_wakeup) {
            if (clear_last_time_.contains(sleep)) {
                report(Assertion::kLostWakeup, waiter, asleep);
                still_reported.insert(sleep);
                continue;
            }
            clear_now.insert(sleep);
        }
        if (asleep >= limits_.hung_wait) {
            report(Assertion::kHungWait, waiter, asleep);
            still_reported.insert(sleep);
        }
    }
    clear_last_time_ = std::move(clear_now);
    reported_ = std::move(still_reported);
}

Watchdog::Watchdog(const WatchdogLimits& limits)
    : limits_(limits), thread_("watchdog", sync::Role::kOther, [this] { run(); }) {}

Watchdog::~Watchdog() {
    {
        const sync::MutexLock lock(mutex_);
        stop_ = true;
    }
    stopped_.notify_all();
    thread_.join();
}

void Watchdog::run() {
    WaitInspector inspector(limits_);
    sync::MutexLock lock(mutex_);
    while (!stop_) {
        static_cast<void>(stopped_.wait_for(lock, limits_.interval));
        lock.unlock();
        inspector.look(page_waiters(), sync::monotonic_now());
        lock.lock();
    }
}

}  // namespace wbfat::cache::inline WBFAT_RT
