// One thread that completes Bios: what a device without hardware uses to stand in for interrupt
// context.
//
// Invariants
//   - T1. What was posted runs exactly once, in the order of posting, also when the object is being
//     destroyed.
//   - T2. Nothing runs after the destructor returned.
//
// Locking: lock_ is a leaf; no task runs with it held.
#pragma once

#include <deque>
#include <functional>
#include <utility>

#include "cache/base/runtime.h"
#include "cache/base/thread_annotations.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

class CompletionThread {
public:
    CompletionThread() : thread_("wbfat-io", sync::Role::kCompletion, [this] { run(); }) {}
    CompletionThread(const CompletionThread&) = delete;
    CompletionThread& operator=(const CompletionThread&) = delete;
    ~CompletionThread() {
        const sync::MutexLock lock(lock_);
        stopping_ = true;
        posted_.notify_all();
    }

    void post(std::function<void()> task) EXCLUDES(lock_) {
        const sync::MutexLock lock(lock_);
        tasks_.push_back(std::move(task));
        posted_.notify_one();
    }

private:
    void run() EXCLUDES(lock_) {
        for (;;) {
            std::function<void()> task;
            {
                sync::MutexLock lock(lock_);
                while (tasks_.empty() && !stopping_) {
                    posted_.wait(lock);
                }
                if (tasks_.empty()) {
                    return;
                }
                task = std::move(tasks_.front());
                tasks_.pop_front();
            }
            task();
        }
    }

    sync::Mutex lock_;
    sync::CondVar posted_;
    std::deque<std::function<void()>> tasks_ GUARDED_BY(lock_);
    bool stopping_ GUARDED_BY(lock_) = false;

    // Last: joined before the members above go away.
    sync::Thread thread_;
};

}  // namespace wbfat::cache::inline WBFAT_RT
