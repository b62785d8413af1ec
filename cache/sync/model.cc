// What the operations of model.h do when it is their turn.
#include "cache/sync/model.h"

#include <algorithm>
#include <utility>

#if defined(WBFAT_MODEL_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

#include "cache/sync/scheduler.h"

namespace wbfat::sync::inline WBFAT_RT {

namespace sched {

void LockState::lock(Where where) {
    if (running != nullptr) {
        before(OpKind::kLock, this, 0, 0, where);
        holder = running->number + 1;
        took_lock(this);
    } else {
        scheduler().block({.kind = OpKind::kLock, .object = this, .where = where}, nullptr);
        holder = kMainTask + 1;
    }
#if defined(WBFAT_MODEL_TSAN)
    __tsan_acquire(&writer_order);
    __tsan_acquire(&reader_order);
#endif
}

bool LockState::try_lock(Where where) {
    announce(OpKind::kTryLock, this, 0, 0, where);
    const bool free = holder == 0 && readers == 0;
    if (free) {
        holder = running != nullptr ? running->number + 1 : kMainTask + 1;
        took_lock(this);
#if defined(WBFAT_MODEL_TSAN)
        __tsan_acquire(&writer_order);
        __tsan_acquire(&reader_order);
#endif
    }
    return free;
}

void LockState::unlock(Where where) {
    announce(OpKind::kUnlock, this, 0, 0, where);
#if defined(WBFAT_MODEL_TSAN)
    __tsan_release(&writer_order);
#endif
    holder = 0;
    let_go_of_lock(this);
}

void LockState::lock_shared(Where where) {
    if (running != nullptr) {
        before(OpKind::kLockShared, this, 0, 0, where);
    } else {
        scheduler().block({.kind = OpKind::kLockShared, .object = this, .where = where}, nullptr);
    }
    ++readers;
#if defined(WBFAT_MODEL_TSAN)
    __tsan_acquire(&writer_order);
#endif
}

void LockState::unlock_shared(Where where) {
    announce(OpKind::kUnlockShared, this, 0, 0, where);
#if defined(WBFAT_MODEL_TSAN)
    __tsan_release(&reader_order);
#endif
    --readers;
}

}  // namespace sched

using sched::announce;
using sched::OpKind;
using sched::scheduler;
using sched::Where;

Nanoseconds monotonic_now() {
    return scheduler().now();
}

std::uint64_t ticks() {
    return static_cast<std::uint64_t>(scheduler().now().count());
}

void sleep_for(Nanoseconds duration, Where where) {
    scheduler().block({.kind = OpKind::kSleep, .where = where}, &duration);
}

void yield_now(Where where) {
    announce(OpKind::kYield, nullptr, 0, 0, where);
}

// --- CondVar

namespace {

std::uint8_t my_number() {
    return static_cast<std::uint8_t>(sched::running != nullptr ? sched::running->number
                                                               : sched::kMainTask);
}

void remove_waiter(sched::CondState& state, std::size_t at) {
    std::copy(state.waiters + at + 1, state.waiters + state.count, state.waiters + at);
    state.waiters[--state.count] = 0;
}

}  // namespace

// The mutex is the one that `lock` holds, which the analysis cannot see.
void CondVar::wait(MutexLock& lock, Where where) NO_THREAD_SAFETY_ANALYSIS {
    announce(OpKind::kCondEnqueue, &state_, 0, 0, where);
    state_.waiters[state_.count++] = my_number();
    lock.mutex_.unlock(where);
    scheduler().block({.kind = OpKind::kCondSleep, .object = &state_, .where = where}, nullptr);
    lock.mutex_.lock(where);
}

// As wait().
bool CondVar::wait_for(MutexLock& lock, Nanoseconds timeout,
                       Where where) NO_THREAD_SAFETY_ANALYSIS {
    announce(OpKind::kCondEnqueue, &state_, 0, 0, where);
    state_.waiters[state_.count++] = my_number();
    lock.mutex_.unlock(where);
    const bool in_time = scheduler().block(
        {.kind = OpKind::kCondSleepFor, .object = &state_, .where = where}, &timeout);
    if (!in_time) {
        const auto* const end = state_.waiters + state_.count;
        const auto* const found =
            std::find(state_.waiters, state_.waiters + state_.count, my_number());
        if (found != end) {
            remove_waiter(state_, static_cast<std::size_t>(found - state_.waiters));
        }
    }
    lock.mutex_.lock(where);
    return in_time;
}

void CondVar::notify_one(Where where) {
    announce(OpKind::kCondNotifyOne, &state_, 0, 0, where);
    if (state_.count > 0) {
        remove_waiter(state_, 0);
    }
}

void CondVar::notify_all(Where where) {
    announce(OpKind::kCondNotifyAll, &state_, 0, 0, where);
    state_.remove_all();
}

// --- Parker

namespace {

// This file is not instrumented; the detector is told what the exchanges order.
void order_after_unpark([[maybe_unused]] void* token) {
#if defined(WBFAT_MODEL_TSAN)
    __tsan_acquire(token);
#endif
}
void order_before_park([[maybe_unused]] void* token) {
#if defined(WBFAT_MODEL_TSAN)
    __tsan_release(token);
#endif
}

}  // namespace

void Parker::park(Where where) {
    scheduler().block(
        {.kind = OpKind::kPark, .size_bytes = sizeof(token_), .object = &token_, .where = where},
        nullptr);
    token_.exchange(0, std::memory_order_acquire);
    order_after_unpark(&token_);
}

bool Parker::park_for(Nanoseconds timeout, Where where) {
    scheduler().block(
        {.kind = OpKind::kParkFor, .size_bytes = sizeof(token_), .object = &token_, .where = where},
        &timeout);
    const bool in_time = token_.exchange(0, std::memory_order_acquire) != 0;
    order_after_unpark(&token_);
    return in_time;
}

void Parker::unpark(Where where) {
    announce(OpKind::kUnpark, &token_, 1, sizeof(token_), where);
    order_before_park(&token_);
    token_.exchange(1, std::memory_order_release);
}

// --- Task and Thread

Task& current_task() {
    return scheduler().current_task();
}

void adopt_current_task(std::string name, Role role) {
    Task& task = current_task();
    task.name_ = std::move(name);
    task.role_ = role;
}

Thread::Thread(std::string name, Role role, std::function<void()> body, Where where) {
    announce(OpKind::kSpawn, this, 0, 0, where);
    number_ =
        scheduler().spawn(std::move(name), role, std::move(body), sched::Scheduler::Daemon::kYes);
}

Thread& Thread::operator=(Thread&& other) noexcept {
    if (this != &other) {
        join();
        number_ = std::exchange(other.number_, -1);
    }
    return *this;
}

void Thread::join(Where where) {
    if (number_ >= 0) {
        scheduler().block({.kind = OpKind::kJoin,
                           .argument = static_cast<std::uint64_t>(number_),
                           .where = where},
                          nullptr);
        number_ = -1;
    }
}

}  // namespace wbfat::sync::inline WBFAT_RT
