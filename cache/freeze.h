// Stopping a live cache: nobody inside, nothing in flight, nobody asleep. And going on.
//
// Whoever uses the cache on its own account passes the gate first and leaves it last: a request of
// the mount, a command of the control socket. Freezing closes the gate; who comes then waits in
// front of it, holding nothing. Who is inside finishes, with the flusher still at work, because a
// throttled writer inside may be waiting for just that; only then does the flusher pause, and what
// it has submitted drains.
//
// Invariants
//   - Z1. A pass is the outermost thing its thread holds: no lock, no page, no other pass. Else
//     somebody inside could wait for what is held in front of the gate, and the gate never drains.
//   - Z2. Threads that work in the background for those inside pass the background gate, which is
//     closed when nobody is inside any more; Z1 holds for it too. The flusher is paused instead,
//     and completions pass no gate.
//
// Cost: two atomic operations on one word per request, none per page.
// Source: the idea of sb_start_write and freeze_super (fs/super.c).
#pragma once

#include <chrono>
#include <cstdint>

#include "cache/base/result.h"
#include "cache/protocol.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

class PageCache;

class FreezeGate {
public:
    FreezeGate() = default;
    ~FreezeGate() = default;
    FreezeGate(const FreezeGate&) = delete;
    FreezeGate& operator=(const FreezeGate&) = delete;

    // Inside from construction to destruction. Context: sleeps; Z1.
    class Pass {
    public:
        explicit Pass(FreezeGate& gate) : gate_(gate) {
            gate_.enter();
        }
        ~Pass() {
            gate_.leave();
        }
        Pass(const Pass&) = delete;
        Pass& operator=(const Pass&) = delete;

    private:
        FreezeGate& gate_;
    };

    // Lets nobody in, and returns true when nobody is inside; false, and open again, when somebody
    // still was after `patience`. One closer at a time.
    [[nodiscard]] bool close(sync::Nanoseconds patience);
    void open();

private:
    static constexpr std::uint32_t kClosed = 1U << 31;

    void enter() {
        if ((state_.fetch_add(1) & kClosed) != 0) [[unlikely]] {
            wait_outside();
        }
    }
    void leave() {
        if (state_.fetch_sub(1) == (kClosed | 1U)) [[unlikely]] {
            tell_the_closer();
        }
    }
    void wait_outside();
    void tell_the_closer();

    sync::Atomic<std::uint32_t> state_{0};  // kClosed, and how many are inside
    sync::Mutex mutex_{sync::LockRank::kLeaf};
    sync::CondVar changed_;
};

// One of each for the process, as there is one protocol.
// Passed by whoever uses a cache on its own account.
FreezeGate& operations_gate();
// Passed by background threads of a filesystem, for each piece of work.
FreezeGate& background_gate();

// How long switch_protocol waits for the cache to come to rest.
inline constexpr sync::Nanoseconds kFreezePatience = std::chrono::seconds(30);

// Freezes the cache, drains it, changes the protocol of the process, thaws. Requests that come
// meanwhile wait and then go on; none is lost or fails. Other caches of the process, if any, must
// have nothing in flight. Context: sleeps; the caller is not inside the gate and holds nothing.
// Errors: EBUSY when the cache did not come to rest in time (page_waiters() tells who hangs); the
// protocol is unchanged then, and everything goes on.
Result<> switch_protocol(PageCache& cache, const Protocol& protocol,
                         sync::Nanoseconds patience = kFreezePatience);

}  // namespace wbfat::cache::inline WBFAT_RT
