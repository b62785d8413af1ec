// Requests that were under way when an assertion failed.
#include "src/spoiled_requests.h"

#include <atomic>

namespace wbfat::daemon {

namespace {

std::atomic<std::uint64_t> nr_failures{0};

// Of the running thread's request.
struct UnderWay {
    bool active = false;
    bool failed_here = false;
    Effect effect = Effect::kReads;
    std::uint64_t failures_before = 0;
};
thread_local UnderWay under_way;

}  // namespace

RequestScope::RequestScope(Effect effect) {
    under_way = {.active = true,
                 .failed_here = false,
                 .effect = effect,
                 .failures_before = nr_failures.load(std::memory_order_acquire)};
}

RequestScope::~RequestScope() {
    under_way = {};
}

void note_failed_assertion() {
    under_way.failed_here = true;
    nr_failures.fetch_add(1, std::memory_order_acq_rel);
}

bool request_is_spoiled() {
    if (!under_way.active) {
        return false;
    }
    return under_way.failed_here ||
           (under_way.effect == Effect::kChanges &&
            nr_failures.load(std::memory_order_acquire) != under_way.failures_before);
}

}  // namespace wbfat::daemon
