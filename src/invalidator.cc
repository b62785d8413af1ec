// The invalidation queue.
#include "src/invalidator.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include <linux/fuse.h>

namespace wbfat::daemon {

namespace {

// Attempts to have an inode forgotten: at once, then after a pause that doubles.
constexpr std::chrono::milliseconds kFirstPause{1};
constexpr std::chrono::milliseconds kLongestPause{1024};

}  // namespace

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
        unwanted_.clear();
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

void Invalidator::forget_inode(fuse_ino_t ino, std::function<bool()> is_known) {
    {
        const std::lock_guard lock(mutex_);
        if (stopping_ || session_ == nullptr) {
            return;
        }
        // Closed once more: one entry, which begins again.
        const auto known = std::find_if(unwanted_.begin(), unwanted_.end(),
                                        [ino](const Unwanted& it) { return it.ino == ino; });
        Unwanted& entry = known != unwanted_.end() ? *known : unwanted_.emplace_back();
        entry = {ino, std::move(is_known), Clock::now(), kFirstPause};
    }
    wake_.notify_one();
}

void Invalidator::prune(fuse_ino_t ino) const {
    // Source: Linux fs/fuse/dev.c fuse_notify_prune (protocol 7.45), include/uapi/linux/fuse.h;
    // libfuse 3.14 has no function for it. It skips what is in use.
    constexpr std::int32_t kNotifyPrune = 9;
    struct {
        fuse_out_header header;
        struct {
            std::uint32_t count;
            std::uint32_t padding;
            std::uint64_t spare;
        } prune;
        std::uint64_t nodeid;
    } const message{{sizeof(message), kNotifyPrune, 0}, {1, 0, 0}, ino};
    // EINVAL: an older kernel.
    static_cast<void>(::write(fuse_session_fd(session_), &message, sizeof(message)));
}

void Invalidator::run() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
        if (!queue_.empty()) {
            const Entry entry = std::move(queue_.front());
            queue_.pop_front();
            lock.unlock();
            // ENOENT: the kernel had no such dentry, which is the usual case.
            static_cast<void>(fuse_lowlevel_notify_inval_entry(
                session_, entry.parent, entry.name.c_str(), entry.name.size()));
            lock.lock();
            continue;
        }
        const auto next =
            std::min_element(unwanted_.begin(), unwanted_.end(),
                             [](const Unwanted& a, const Unwanted& b) { return a.due < b.due; });
        if (next == unwanted_.end()) {
            wake_.wait(lock);
        } else if (next->due > Clock::now()) {
            wake_.wait_until(lock, Clock::time_point(next->due));
        } else {
            Unwanted unwanted = std::move(*next);
            unwanted_.erase(next);
            lock.unlock();
            const bool again = unwanted.is_known() && unwanted.pause <= kLongestPause;
            if (again) {
                prune(unwanted.ino);
                unwanted.due = Clock::now() + unwanted.pause;
                unwanted.pause *= 2;
            }
            lock.lock();
            if (again && !stopping_) {
                unwanted_.push_back(std::move(unwanted));
            }
        }
    }
}

}  // namespace wbfat::daemon
