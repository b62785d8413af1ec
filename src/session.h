// The libfuse session: mounted, served by a fixed set of threads, unmounted.
//
// Every thread reads a request from /dev/fuse and serves it where it was read: handing it over
// would double its cost. A thread may sleep in a request (fsync, a throttled write), so there are
// more of them than CPUs.
//
// libfuse 3.14 does not know FUSE_SYNCFS (opcode 50); the loop answers it before libfuse sees it.
#pragma once

#include <atomic>
#include <csignal>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cache/base/result.h"
#include "src/fuse.h"

namespace wbfat::daemon {

class Session {
public:
    struct Options {
        std::string device;  // shown by mount and df
        std::string mountpoint;
        bool block_device = false;  // mount as fuseblk: umount then waits for us
        std::uint32_t block_bytes = 512;
        bool read_only = false;
        bool sync = false;  // the kernel follows each write(2) with an fsync of what it wrote
        bool debug = false;
        unsigned threads = 4;
        std::uint32_t max_read_bytes = 1U << 20;  // of one request; a power of two
        std::vector<std::string> kernel;          // further mount options
    };

    // `ops` and `user_data` go to libfuse; `sync_fs` answers FUSE_SYNCFS with an errno or 0.
    // Errors: `why` is one sentence.
    static std::unique_ptr<Session> mount(const Options& options, const fuse_lowlevel_ops& ops,
                                          void* user_data, std::function<int()> sync_fs,
                                          std::string& why);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    fuse_session& handle() {
        return *session_;
    }
    // SIGINT, SIGTERM, SIGHUP: what ends a session.
    static sigset_t ending_signals();
    // Serves until the kernel ends the session (umount) or SIGINT, SIGTERM or SIGHUP arrives, then
    // unmounts. The three signals must be blocked in the calling thread before any thread was
    // started. `ending` runs once the end is known and before the serving threads are waited for:
    // it lets go whatever holds one. Returns the signal that ended it, or 0.
    int serve(const std::function<void()>& ending);

private:
    Session(fuse_session* session, const Options& options, std::function<int()> sync_fs);
    void worker();
    bool answer_syncfs(const fuse_buf& request);
    void stop_workers(std::vector<std::thread>& workers);

    fuse_session* const session_;
    const Options options_;
    const std::function<int()> sync_fs_;
    std::atomic<unsigned> running_{0};
};

}  // namespace wbfat::daemon
