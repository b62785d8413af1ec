// Tells the kernel about names that it cached under another spelling.
//
// The kernel keeps a dentry per spelling. "foo" and "FOO" are one file here, so removing it as
// "foo" must drop the dentry "FOO" too. The notification takes the parent's lock in the kernel,
// which the request that removed the name still holds: so it is sent from a thread of its own,
// after the reply. Until it arrives the kernel may answer from the old dentry. Kernels from 6.16 on
// can be told before the reply that all their dentries are old: then there is no such moment.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
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

private:
    void run();

    struct Entry {
        fuse_ino_t parent;
        std::string name;
    };

    fuse_session* session_ = nullptr;  // constant after start()
    std::thread thread_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Entry> queue_;  // guarded by mutex_
    bool stopping_ = false;    // guarded by mutex_
};

}  // namespace wbfat::daemon
