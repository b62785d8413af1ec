// Requests that were under way when an assertion failed: they are answered EIO.
//
// With bug=shutdown a failed assertion returns, so that nothing stays locked and the volume can be
// unmounted; but what its request comes to is worth nothing, and the caller must not believe it.
// Often the thread that failed serves no request at all: it completes a write that some fsync(2)
// waits for. Which one, nobody can tell. So every request that changes or syncs something and was
// under way is answered EIO, whatever it wanted to say, and a request that only reads is if its own
// thread failed. Requests that come later find a read-only volume.
//
// Locking: none. Context of note_failed_assertion: any.
#pragma once

#include <cstdint>

namespace wbfat::daemon {

enum class Effect : std::uint8_t { kReads, kChanges };

// Around the serving of one request, by the thread that serves it.
class RequestScope {
public:
    explicit RequestScope(Effect effect);
    ~RequestScope();
    RequestScope(const RequestScope&) = delete;
    RequestScope& operator=(const RequestScope&) = delete;
};

// By the thread that failed.
void note_failed_assertion();
// Whether the request of this thread must be answered EIO. False outside a RequestScope.
bool request_is_spoiled();

}  // namespace wbfat::daemon
