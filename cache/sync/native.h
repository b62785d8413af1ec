// Real threads: the back-end of sync.h for everything but the explorer.
//
// Memory orders are spelled at every call whose order matters; the defaults (load acquire, store
// release, read-modify- write acq_rel) are what a lock or a published pointer needs, never seq_cst.
// Whoever needs a total order says so.
//
// Thread-safety analysis sees Mutex, SpinLock and RwSem as capabilities and the guards as scoped
// ones. Builds without NDEBUG check at run time that ranked locks are taken in ascending rank (see
// LockRank).
#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>

#include "cache/base/runtime.h"
#include "cache/base/thread_annotations.h"
#include "cache/sync/lock_rank.h"
#include "cache/sync/point_subject.h"
#include "cache/sync/role.h"
#include "cache/sync/task_ring.h"

namespace wbfat::sync::inline WBFAT_RT {

using Nanoseconds = std::chrono::nanoseconds;

// Since an arbitrary start; does not jump.
Nanoseconds monotonic_now();
void sleep_for(Nanoseconds duration);
void yield_now();

// A clock for records: the same on all CPUs, does not jump, a few nanoseconds to read, and of no
// fixed unit. TickScale tells what a reading means.
std::uint64_t ticks();
class TickScale {
public:
    // Measured from the start of the process until now.
    static TickScale now();
    [[nodiscard]] Nanoseconds to_monotonic(std::uint64_t ticks) const;

private:
    std::uint64_t ticks_ = 0;
    Nanoseconds time_{0};
    double nanoseconds_per_tick_ = 1;
};

template <typename T>
class Atomic {
public:
    constexpr Atomic() noexcept = default;
    // NOLINTNEXTLINE(google-explicit-constructor): initialised like the plain value it stands for.
    constexpr Atomic(T value) noexcept : value_(value) {}
    ~Atomic() = default;
    Atomic(const Atomic&) = delete;
    Atomic& operator=(const Atomic&) = delete;

    [[nodiscard]] T load(std::memory_order order = std::memory_order_acquire) const noexcept {
        return value_.load(order);
    }
    void store(T value, std::memory_order order = std::memory_order_release) noexcept {
        value_.store(value, order);
    }
    // For reports and traces: orders nothing, and the explorer does not look at it.
    [[nodiscard]] T peek() const noexcept {
        return value_.load(std::memory_order_relaxed);
    }
    T exchange(T value, std::memory_order order = std::memory_order_acq_rel) noexcept {
        return value_.exchange(value, order);
    }
    // Strong. On failure `expected` becomes what was found, read with acquire.
    bool compare_exchange(T& expected, T desired,
                          std::memory_order order = std::memory_order_acq_rel) noexcept {
        return value_.compare_exchange_strong(expected, desired, order, std::memory_order_acquire);
    }
    T fetch_add(T delta, std::memory_order order = std::memory_order_acq_rel) noexcept {
        return value_.fetch_add(delta, order);
    }
    T fetch_sub(T delta, std::memory_order order = std::memory_order_acq_rel) noexcept {
        return value_.fetch_sub(delta, order);
    }
    // fetch_add for which the sum does not matter.
    void add(T delta, std::memory_order order = std::memory_order_acq_rel) noexcept {
        static_cast<void>(value_.fetch_add(delta, order));
    }
    // Of a count: -1, 0 or 1 as what is left is less than, equal to or more than none. Who holds
    // one of many learns no more, and so does not mind who else lets go.
    int sub_and_sign(T delta, std::memory_order order = std::memory_order_acq_rel) noexcept {
        const T left = static_cast<T>(value_.fetch_sub(delta, order) - delta);
        return (left > 0 ? 1 : 0) - (left < 0 ? 1 : 0);
    }
    T fetch_or(T bits, std::memory_order order = std::memory_order_acq_rel) noexcept {
        return value_.fetch_or(bits, order);
    }
    T fetch_and(T bits, std::memory_order order = std::memory_order_acq_rel) noexcept {
        return value_.fetch_and(bits, order);
    }
    T fetch_xor(T bits, std::memory_order order = std::memory_order_acq_rel) noexcept {
        return value_.fetch_xor(bits, order);
    }

protected:
    std::atomic<T> value_{};  // NOLINT(misc-non-private-member-variables-in-classes): FlagWord's
};

// A word of flags. Each operation sees and changes no bits but those that it names, so two that
// name different ones cannot disturb each other, which the explorer makes use of. What Atomic has
// for the word as a whole remains.
//
// Source: Linux include/linux/bitops.h. Differs: several bits at once.
class FlagWord : public Atomic<std::uint64_t> {
public:
    using Atomic::Atomic;

    // Whether any of them is set.
    [[nodiscard]] bool test(std::uint64_t bits,
                            std::memory_order order = std::memory_order_acquire) const noexcept {
        return (value_.load(order) & bits) != 0;
    }
    void set(std::uint64_t bits, std::memory_order order = std::memory_order_acq_rel) noexcept {
        value_.fetch_or(bits, order);
    }
    void clear(std::uint64_t bits, std::memory_order order = std::memory_order_acq_rel) noexcept {
        value_.fetch_and(~bits, order);
    }
    // Whether any of them was set before.
    [[nodiscard]] bool test_and_set(std::uint64_t bits,
                                    std::memory_order order = std::memory_order_acq_rel) noexcept {
        return fetch_set(bits, bits, order) != 0;
    }
    [[nodiscard]] bool test_and_clear(
        std::uint64_t bits, std::memory_order order = std::memory_order_acq_rel) noexcept {
        return fetch_clear(bits, bits, order) != 0;
    }
    // What was set before of `seen`.
    std::uint64_t fetch_set(std::uint64_t bits, std::uint64_t seen,
                            std::memory_order order = std::memory_order_acq_rel) noexcept {
        return value_.fetch_or(bits, order) & seen;
    }
    std::uint64_t fetch_clear(std::uint64_t bits, std::uint64_t seen,
                              std::memory_order order = std::memory_order_acq_rel) noexcept {
        return value_.fetch_and(~bits, order) & seen;
    }
    std::uint64_t fetch_toggle(std::uint64_t bits, std::uint64_t seen,
                               std::memory_order order = std::memory_order_acq_rel) noexcept {
        return value_.fetch_xor(bits, order) & seen;
    }
};

// A value that may be read and written by anybody at any time and that nothing is decided by where
// a lock or a protocol is at stake: statistics.
// Relaxed throughout; the explorer does not look at it, so it costs no interleavings.
template <typename T>
class Relaxed {
public:
    constexpr Relaxed() noexcept = default;
    // NOLINTNEXTLINE(google-explicit-constructor): initialised like the plain value it stands for.
    constexpr Relaxed(T value) noexcept : value_(value) {}
    ~Relaxed() = default;
    Relaxed(const Relaxed&) = delete;
    Relaxed& operator=(const Relaxed&) = delete;

    [[nodiscard]] T load() const noexcept {
        return value_.load(std::memory_order_relaxed);
    }
    void store(T value) noexcept {
        value_.store(value, std::memory_order_relaxed);
    }
    T fetch_add(T delta) noexcept {
        return value_.fetch_add(delta, std::memory_order_relaxed);
    }
    T fetch_sub(T delta) noexcept {
        return value_.fetch_sub(delta, std::memory_order_relaxed);
    }

private:
    std::atomic<T> value_{};
};

// A value that every operation looks at and that is changed while none is under way. Relaxed, for
// that promise orders everything; the explorer has scenarios that break it.
template <typename T>
using Setting = Relaxed<T>;

// Static storage that runs change, and that is never destroyed: a detached thread may use it while
// the process exits. Here it is only a variable; the explorer must know of it.
template <typename T>
class Global {
public:
    constexpr Global() : value_{} {}
    // NOLINTNEXTLINE(modernize-use-equals-default): a union with a destructor has no default one.
    constexpr ~Global() {}
    Global(const Global&) = delete;
    Global& operator=(const Global&) = delete;
    T& operator*() noexcept {
        return value_;
    }
    T* operator->() noexcept {
        return &value_;
    }

private:
    union {
        // NOLINTNEXTLINE(readability-identifier-naming): private, though in a union.
        T value_;
    };
};

// Short sections; nothing sleeps inside. Spins briefly, then yields: the holder may have lost its
// CPU.
class CAPABILITY("spinlock") SpinLock {
public:
    constexpr SpinLock() noexcept = default;
    ~SpinLock() = default;
    SpinLock(const SpinLock&) = delete;
    SpinLock& operator=(const SpinLock&) = delete;

    void lock() noexcept ACQUIRE() {
        if (locked_.exchange(true, std::memory_order_acquire)) [[unlikely]] {
            lock_slow();
        }
    }
    bool try_lock() noexcept TRY_ACQUIRE(true) {
        return !locked_.load(std::memory_order_relaxed) &&
               !locked_.exchange(true, std::memory_order_acquire);
    }
    // The store is the last access: whoever takes the lock next may destroy it.
    void unlock() noexcept RELEASE() {
        locked_.store(false, std::memory_order_release);
    }

private:
    void lock_slow() noexcept NO_THREAD_SAFETY_ANALYSIS;  // the slow half of lock()

    std::atomic<bool> locked_{false};
};

class SCOPED_CAPABILITY SpinLockGuard {
public:
    explicit SpinLockGuard(SpinLock& lock) ACQUIRE(lock) : lock_(lock) {
        lock_.lock();
    }
    ~SpinLockGuard() RELEASE() {
        lock_.unlock();
    }
    SpinLockGuard(const SpinLockGuard&) = delete;
    SpinLockGuard& operator=(const SpinLockGuard&) = delete;

private:
    SpinLock& lock_;
};

class CAPABILITY("mutex") Mutex {
public:
    explicit Mutex(LockRank rank = LockRank::kUnranked) noexcept;
    ~Mutex();
    Mutex(const Mutex&) = delete;
    Mutex& operator=(const Mutex&) = delete;

    void lock() ACQUIRE();
    bool try_lock() TRY_ACQUIRE(true);
    void unlock() RELEASE();
    // Tells the analysis, and nobody else, that the caller holds the mutex.
    void assert_held() const ASSERT_CAPABILITY(this) {}

private:
    friend class CondVar;
    pthread_mutex_t handle_;
    const LockRank rank_;
};

class SCOPED_CAPABILITY MutexLock {
public:
    explicit MutexLock(Mutex& mutex) ACQUIRE(mutex) : mutex_(mutex) {
        mutex_.lock();
    }
    ~MutexLock() RELEASE() {
        if (held_) {
            mutex_.unlock();
        }
    }
    MutexLock(const MutexLock&) = delete;
    MutexLock& operator=(const MutexLock&) = delete;

    void unlock() RELEASE() {
        held_ = false;
        mutex_.unlock();
    }
    void lock() ACQUIRE() {
        mutex_.lock();
        held_ = true;
    }

private:
    friend class CondVar;
    Mutex& mutex_;
    bool held_ = true;
};

// Both waits may return for no reason: callers loop over their condition.
class CondVar {
public:
    CondVar();
    ~CondVar();
    CondVar(const CondVar&) = delete;
    CondVar& operator=(const CondVar&) = delete;

    void wait(MutexLock& lock);
    // Returns false when the time was up.
    bool wait_for(MutexLock& lock, Nanoseconds timeout);
    void notify_one();
    void notify_all();

private:
    pthread_cond_t handle_;
};

// Shared / exclusive; a waiting writer keeps new readers out. Not recursive, not even for readers.
class CAPABILITY("rwsem") RwSem {
public:
    explicit RwSem(LockRank rank = LockRank::kUnranked);
    ~RwSem();
    RwSem(const RwSem&) = delete;
    RwSem& operator=(const RwSem&) = delete;

    void lock() ACQUIRE();
    bool try_lock() TRY_ACQUIRE(true);
    void unlock() RELEASE();
    void lock_shared() ACQUIRE_SHARED();
    void unlock_shared() RELEASE_SHARED();
    void assert_held() const ASSERT_CAPABILITY(this) {}

private:
    pthread_rwlock_t handle_;
    const LockRank rank_;
};

class SCOPED_CAPABILITY ReadGuard {
public:
    explicit ReadGuard(RwSem& sem) ACQUIRE_SHARED(sem) : sem_(sem) {
        sem_.lock_shared();
    }
    ~ReadGuard() RELEASE_GENERIC() {
        sem_.unlock_shared();
    }
    ReadGuard(const ReadGuard&) = delete;
    ReadGuard& operator=(const ReadGuard&) = delete;

private:
    RwSem& sem_;
};

class SCOPED_CAPABILITY WriteGuard {
public:
    explicit WriteGuard(RwSem& sem) ACQUIRE(sem) : sem_(sem) {
        sem_.lock();
    }
    ~WriteGuard() RELEASE() {
        sem_.unlock();
    }
    WriteGuard(const WriteGuard&) = delete;
    WriteGuard& operator=(const WriteGuard&) = delete;

private:
    RwSem& sem_;
};

// One binary token. park() takes it, sleeping until there is one; unpark() puts it there. Tokens do
// not add up, and one may be left over from an earlier use: callers loop over their condition.
// Everything before unpark() is visible after the park() that took its token.
class Parker {
public:
    Parker() = default;
    ~Parker() = default;
    Parker(const Parker&) = delete;
    Parker& operator=(const Parker&) = delete;

    // Only by the owner.
    void park();
    // Returns false when the time was up and no token came.
    bool park_for(Nanoseconds timeout);
    // By anybody. The Parker must outlive the call, not only the owner's return from park().
    void unpark();

private:
    bool take_token_or_announce();
    bool sleep_on_word(const Nanoseconds* timeout);

    std::atomic<std::uint32_t> word_{0};
};

// The running thread, as others see it. Lives as long as the thread.
class Task {
public:
    Task();
    ~Task() = default;
    Task(const Task&) = delete;
    Task& operator=(const Task&) = delete;

    // From 1; of no other task, dead or alive.
    [[nodiscard]] std::uint32_t id() const {
        return id_;
    }
    [[nodiscard]] const std::string& name() const {
        return name_;
    }
    [[nodiscard]] Role role() const {
        return role_;
    }

    void park() {
        parker_.park();
    }
    bool park_for(Nanoseconds timeout) {
        return parker_.park_for(timeout);
    }
    void unpark() {
        parker_.unpark();
    }

    // Asks the task to give up the killable wait it is in, or the next one. Stays until cleared.
    // Any thread.
    void interrupt() {
        interrupted_.store(true, std::memory_order_release);
        parker_.unpark();
    }
    [[nodiscard]] bool interrupted() const {
        return interrupted_.load(std::memory_order_acquire);
    }
    void clear_interrupt() {
        interrupted_.store(false, std::memory_order_release);
    }

    // For current_task_ring.
    TaskRingHandle& ring_handle() {
        return ring_;
    }

private:
    friend void adopt_current_task(std::string name, Role role);
    friend class RoleGuard;
    const std::uint32_t id_;
    std::string name_ = "main";
    Role role_ = Role::kOther;
    Parker parker_;
    std::atomic<bool> interrupted_{false};
    TaskRingHandle ring_;
};

Task& current_task();
// Names a thread that was not started by Thread: FUSE workers, device completion threads.
void adopt_current_task(std::string name, Role role);

// For a while the running thread does something else: a request that has to write and wait is a
// sync writer.
class RoleGuard {
public:
    explicit RoleGuard(Role role) : task_(current_task()), before_(task_.role_) {
        task_.role_ = role;
    }
    ~RoleGuard() {
        task_.role_ = before_;
    }
    RoleGuard(const RoleGuard&) = delete;
    RoleGuard& operator=(const RoleGuard&) = delete;

private:
    Task& task_;
    const Role before_;
};

// Joined in the destructor, and before another thread is moved in.
class Thread {
public:
    Thread() = default;
    Thread(std::string name, Role role, std::function<void()> body);
    ~Thread() {
        join();
    }
    Thread(Thread&&) noexcept = default;
    Thread& operator=(Thread&& other) noexcept;
    Thread(const Thread&) = delete;
    Thread& operator=(const Thread&) = delete;

    // A second call, or a call on no thread, does nothing.
    void join();

private:
    std::thread handle_;
};

// The points of points.h. What follows the name is turned into a subject by the point_subject() of
// its class.
extern std::atomic<bool> points_armed;
[[gnu::cold]] void hit_point(const char* name, const PointSubject& subject = {});
template <typename... About>
[[gnu::cold]] void hit_point_about(const char* name, const About&... about) {
    if constexpr (sizeof...(About) == 0) {
        hit_point(name);
    } else {
        hit_point(name, point_subject(about...));
    }
}

}  // namespace wbfat::sync::inline WBFAT_RT

// WBFAT_POINT("name") or WBFAT_POINT("name", page).
#define WBFAT_POINT(...)                                                              \
    do {                                                                              \
        if (::wbfat::sync::points_armed.load(std::memory_order_relaxed)) [[unlikely]] \
            ::wbfat::sync::hit_point_about(__VA_ARGS__);                              \
    } while (false)
