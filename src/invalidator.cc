// The invalidation queue.
#include "src/invalidator.h"

#include <unistd.h>

#include <utility>

#include <linux/fuse.h>

namespace wbfat::daemon {

Invalidator::~Invalidator() {
    stop();
}

void Invalidator::start(fuse_session& session) {
    session_ = &session;
    thread_ = std::thread([this] { run(); });
}

void Invalidator::stop() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        queue_.clear();
    }
    wake_.notify_all();
    if (thread_.joinable()) {
        thread_.join();
    }
}

void Invalidator::invalidate_entry(fuse_ino_t parent, std::string name) {
    {
        const std::lock_guard lock(mutex_);
        if (stopping_ || session_ == nullptr) {
            return;
        }
        queue_.push_back({parent, std::move(name)});
    }
    wake_.notify_one();
}

bool Invalidator::expire_all_entries() {
    // Source: Linux fs/fuse/dev.c fuse_notify_inc_epoch (protocol 7.44); libfuse 3.14 has no
    // function for it. A notification is a reply to nothing whose error is its number.
    constexpr std::int32_t kNotifyIncEpoch = 8;
    const fuse_out_header message{sizeof(message), kNotifyIncEpoch, 0};
    return ::write(fuse_session_fd(session_), &message, sizeof(message)) == sizeof(message);
}

void Invalidator::invalidate_attributes(fuse_ino_t ino) {
    // A negative offset: attributes only. ENOENT: the kernel does not know the inode any more.
    static_cast<void>(fuse_lowlevel_notify_inval_inode(session_, ino, -1, 0));
}

void Invalidator::run() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
        if (queue_.empty()) {
            wake_.wait(lock);
            continue;
        }
        const Entry entry = std::move(queue_.front());
        queue_.pop_front();
        lock.unlock();
        // ENOENT: the kernel had no such dentry, which is the usual case.
        static_cast<void>(fuse_lowlevel_notify_inval_entry(session_, entry.parent,
                                                           entry.name.c_str(), entry.name.size()));
        lock.lock();
    }
}

}  // namespace wbfat::daemon
