// The gate, and switching the protocol behind it.
#include "cache/freeze.h"

#include <algorithm>

#include "cache/flusher.h"
#include "cache/page_cache.h"
#include "cache/page_io.h"
#include "cache/page_wait.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

// Between two looks whether the last transfer has come back.
constexpr std::chrono::milliseconds kDrainPoll{1};

sync::Global<FreezeGate> operations, background;
sync::Global<sync::Mutex> switching;

// With nobody inside and the flusher paused: waits for what is in flight, and for the last sleeper
// to leave its queue. Returns false when the time was up.
bool drain(PageCache& cache, sync::Nanoseconds deadline) {
    for (;;) {
        // Pages whose write failed belong to a Bio that is parked until they are dirty again.
        cache.io().redirty_failed_pages(PageIo::Redirty::kTry);
        if (cache.io().is_idle() && page_waiters().empty()) {
            return true;
        }
        if (sync::monotonic_now() >= deadline) {
            return false;
        }
        sync::sleep_for(kDrainPoll);
    }
}

}  // namespace

FreezeGate& operations_gate() {
    return *operations;
}

FreezeGate& background_gate() {
    return *background;
}

bool FreezeGate::close(sync::Nanoseconds patience) {
    const sync::Nanoseconds deadline = sync::monotonic_now() + patience;
    state_.fetch_or(kClosed);
    sync::MutexLock lock(mutex_);
    while (state_.load() != kClosed) {
        const sync::Nanoseconds left = deadline - sync::monotonic_now();
        if (left <= sync::Nanoseconds::zero()) {
            lock.unlock();
            open();
            return false;
        }
        changed_.wait_for(lock, left);
    }
    return true;
}

void FreezeGate::open() {
    const sync::MutexLock lock(mutex_);
    state_.fetch_and(~kClosed);
    changed_.notify_all();
}

void FreezeGate::wait_outside() {
    WBFAT_POINT("freeze:outside");
    do {
        leave();
        sync::MutexLock lock(mutex_);
        while ((state_.load() & kClosed) != 0) {
            changed_.wait(lock);
        }
    } while ((state_.fetch_add(1) & kClosed) != 0);
}

void FreezeGate::tell_the_closer() {
    const sync::MutexLock lock(mutex_);
    changed_.notify_all();
}

// NOLINTNEXTLINE(readability-function-size): the fifth level is that of WBFAT_POINT.
Result<> switch_protocol(PageCache& cache, const Protocol& protocol, sync::Nanoseconds patience) {
    const sync::MutexLock one_at_a_time(*switching);
    const sync::Nanoseconds deadline = sync::monotonic_now() + patience;
    const auto left = [deadline] {
        return std::max(deadline - sync::monotonic_now(), sync::Nanoseconds(kDrainPoll));
    };
    if (!operations_gate().close(left())) {
        return Errno{EBUSY};
    }
    WBFAT_POINT("freeze:closed");
    // One after the other, each with the next still at work: it may be what the one waits for.
    bool at_rest = false;
    if (background_gate().close(left())) {
        if (cache.flusher().pause_within(left())) {
            at_rest = drain(cache, deadline);
            if (at_rest) {
                WBFAT_POINT("freeze:at_rest");
                set_protocol_while_idle(protocol);
            }
            cache.flusher().resume();
        }
        background_gate().open();
    }
    operations_gate().open();
    return at_rest ? Result<>() : Result<>(Errno{EBUSY});
}

}  // namespace wbfat::cache::inline WBFAT_RT
