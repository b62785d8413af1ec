// The control socket: a unix socket that its owner's lines go into and replies come out of.
//
// It knows nothing of what is asked: a line goes to the answerer, and what that returns goes back.
// All I/O is on one thread. Each answer is made on a thread of its own, because it may sleep: a
// request that is stuck in a dead device keeps nobody from asking for the status.
//
// Invariants
//   - S1. Only root and the owner are ever listened to: the socket's mode says so, and its peer's
//     credentials are looked at before the first byte.
//   - S2. A client costs one descriptor, at most kMaxRequestBytes of input, one reply, and one
//     thread while its answer is made; there are at most `max_clients`. One more takes the place of
//     the one that has been silent longest, so idle connections lock nobody out.
//   - S3. Every wait for a peer has an end: for its request, and for its taking of the reply.
//   - S4. The socket appears under its name when it listens, and not before; so one that refuses
//     connections belongs to a dead daemon, and the next one removes it.
//
// Locking: none; clients belong to the thread that runs the loop.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <sys/types.h>

namespace wbfat::daemon {

class ControlSocket {
public:
    // From a line to a line, both without their newline. Context: any thread, several at a time.
    using Answer = std::function<std::string(const std::string& line)>;

    struct Options {
        std::string path;
        uid_t owner = 0;
        std::size_t max_clients = 32;
        std::chrono::milliseconds request_timeout{30'000};  // S3, both
        std::chrono::milliseconds reply_timeout{30'000};
    };

    // Listens, replacing what a dead daemon left at `path`, whose directory exists. Returns null
    // with `why` one sentence.
    static std::unique_ptr<ControlSocket> listen(const Options& options, Answer answer,
                                                 std::string& why);
    // Ends every connection, and waits for answers that are being made.
    ~ControlSocket();
    ControlSocket(const ControlSocket&) = delete;
    ControlSocket& operator=(const ControlSocket&) = delete;

private:
    class Impl;
    explicit ControlSocket(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

// Makes the directory for a user's sockets, clears out what dead daemons left there, and returns
// the path for this mount's. Returns "" with `why` one sentence.
std::string prepare_socket_path(uid_t owner, const std::string& name, std::string& why);

}  // namespace wbfat::daemon
