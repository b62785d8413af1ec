// Tells the kernel that what it has cached is no longer so: names under another spelling, and
// inodes of which it lost a write.
//
// The kernel keeps a dentry per spelling. "foo" and "FOO" are one file here, so removing it as
// "foo" must drop the dentry "FOO" too. The notification takes the parent's lock in the kernel,
// which the request that removed the name still holds: so it is sent from a thread of its own,
// after the reply. Until it arrives the kernel may answer from the old dentry. Kernels from 6.16 on
// can be told before the reply that all their dentries are old: then there is no such moment.
//
// A kernel that gathers writes trusts no size but its own. When a write that lets a file grow comes
// to nothing on a full volume, it goes on showing the size and the bytes that the file would have,
// until the inode leaves its memory. So once the file is closed it is asked to let go of it.
// Source: Linux fs/fuse/inode.c fuse_get_cache_mask.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "src/fuse.h"

namespace wbfat::daemon {

class Invalidator {
public:
    Invalidator() = default;
    ~Invalidator();
    Invalidator(const Invalidator&) = delete;
    Invalidator& operator=(const Invalidator&) = delete;

    void start(fuse_session& session);
    // Ends the thread; what is queued is dropped (the session is ending).
    void stop();
    // Every dentry is looked up again before its next use. Takes no lock in the kernel: to be sent
    // before the reply. False: this kernel cannot; invalidate_entry() after the reply.
    bool expire_all_entries();
    // The entry `name` of directory `parent` is gone or something else now.
    void invalidate_entry(fuse_ino_t parent, std::string name);
    // What stat showed of `ino` is no longer so. Takes no lock in the kernel: may be sent before
    // the reply.
    void invalidate_attributes(fuse_ino_t ino);
    // The last open file of `ino` is closed, as far as we have heard: the kernel is to forget the
    // inode, unless it is in use. It still is for the moment in which close(2) tells us, so this is
    // repeated while `is_known()`, after 1, 2, 4 .. 512 ms more. Differs: before Linux 6.18 nothing
    // happens.
    void forget_inode(fuse_ino_t ino, std::function<bool()> is_known);

private:
    using Clock = std::chrono::steady_clock;

    void run();
    void prune(fuse_ino_t ino) const;

    struct Entry {
        fuse_ino_t parent;
        std::string name;
    };
    struct Unwanted {
        fuse_ino_t ino;
        std::function<bool()> is_known;
        Clock::time_point due;
        std::chrono::milliseconds pause;  // until the next attempt
    };

    fuse_session* session_ = nullptr;  // constant after start()
    std::thread thread_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Entry> queue_;        // guarded by mutex_
    std::deque<Unwanted> unwanted_;  // guarded by mutex_
    bool stopping_ = false;          // guarded by mutex_
};

}  // namespace wbfat::daemon
