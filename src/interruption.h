// FUSE_INTERRUPT while a request is served: ends the killable waits of its thread.
//
// The kernel sends it when a signal reaches the caller. What the request has done until then
// counts: only one that has nothing to show yet ends with EINTR.
//
// Locking: libfuse calls the callback under the request's own lock, and takes that lock to change
// it; so after the destructor nobody interrupts this thread on behalf of this request any more.
#pragma once

#include "cache/sync/sync.h"
#include "src/fuse.h"

namespace wbfat::daemon {

class Interruption {
public:
    // Requires: destroyed before the reply, which frees the request.
    explicit Interruption(fuse_req_t request) : request_(request) {
        fuse_req_interrupt_func(request_, &interrupt, &sync::current_task());
    }
    ~Interruption() {
        fuse_req_interrupt_func(request_, nullptr, nullptr);
        sync::current_task().clear_interrupt();
    }
    Interruption(const Interruption&) = delete;
    Interruption& operator=(const Interruption&) = delete;

    [[nodiscard]] bool happened() const {
        return sync::current_task().interrupted();
    }

private:
    static void interrupt(fuse_req_t /*request*/, void* task) {
        static_cast<sync::Task*>(task)->interrupt();
    }

    fuse_req_t request_;
};

}  // namespace wbfat::daemon
