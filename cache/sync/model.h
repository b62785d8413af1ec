// Fibers under a scheduler: the back-end of sync.h for the explorer.
//
// Everything runs on one OS thread. Every operation that another task could see announces itself to
// the scheduler and is done when the scheduler gives the task its turn; what lies between two such
// operations is one indivisible step. So a schedule, the sequence of the tasks that got a turn,
// says everything about a run.
//
//   - An operation that must wait (a taken lock, a parker without a token) is not done and tried
//   again: its task has no turn until it can be done.
//   - Outside an exploration (the set-up of a scenario, the checks at its end) operations are done
//   at once, and one that must wait gives the other tasks their turns.
//   - Time stands still while anybody can run. When nobody can, it jumps to the next deadline.
//   - Relaxed<T> is not seen.
//   - Memory orders mean nothing here: the interleavings are sequentially consistent ones. Under
//   ThreadSanitizer the real operation is done with the real order, on a fiber the detector knows,
//   so a missing order shows as a data race (the build defines WBFAT_MODEL_TSAN then, also for the
//   scheduler itself, which must not be looked at).
//
// Differs from native.h: a condition variable wakes in the order of arrival and never for nothing;
// a waiting writer does not keep readers out of an RwSem (which allows more schedules, not fewer);
// lock ranks are not checked.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>

#include "cache/base/runtime.h"
#include "cache/base/thread_annotations.h"
#include "cache/sync/lock_rank.h"
#include "cache/sync/point_subject.h"
#include "cache/sync/role.h"
#include "cache/sync/task_ring.h"

namespace wbfat::sync::inline WBFAT_RT {

using Nanoseconds = std::chrono::nanoseconds;

class Task;

// The scheduler's side; scheduler.h has the rest.
namespace sched {

enum class OpKind : std::uint8_t {
    kLoad,
    kStore,
    kExchange,
    kCompareExchange,
    kFetchAdd,
    kFetchSub,
    kSubAndSign,
    kFetchOr,
    kFetchAnd,
    kFetchXor,
    kLock,        // blocks
    kLockShared,  // blocks
    kTryLock,
    kUnlock,
    kUnlockShared,
    kPark,     // blocks
    kParkFor,  // blocks, for a time
    kUnpark,
    kCondEnqueue,
    kCondSleep,     // blocks
    kCondSleepFor,  // blocks, for a time
    kCondNotifyOne,
    kCondNotifyAll,
    kSleep,  // blocks, for a time
    kYield,
    kSpawn,
    kJoin,   // blocks
    kPoint,  // a named point that an ordering rule knows; blocks
    kFinish,
};

// Where in the source an operation stands. A pointer, where the compiler has source_location: three
// words would be left about on stacks, where they look like state. clang 14 only analyses this.
struct Where {
#if defined(__cpp_lib_source_location)
    std::source_location at;
    // As a default argument: where the call stands.
    static constexpr Where here(std::source_location at = std::source_location::current()) {
        return {at};
    }
    // As the compiler writes it, with all its scopes and arguments.
    [[nodiscard]] const char* function() const {
        return at.function_name();
    }
    [[nodiscard]] const char* file() const {
        return at.file_name();
    }
    [[nodiscard]] int line() const {
        return static_cast<int>(at.line());
    }
#else
    // NOLINTBEGIN(readability-identifier-naming): function() and its like have the names.
    const char* function_;
    const char* file_;
    int line_;
    // NOLINTEND(readability-identifier-naming)
    static constexpr Where here(const char* function = __builtin_FUNCTION(),
                                const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return {function, file, line};
    }
    [[nodiscard]] const char* function() const {
        return function_;
    }
    [[nodiscard]] const char* file() const {
        return file_;
    }
    [[nodiscard]] int line() const {
        return line_;
    }
#endif
};

// The task that has its turn; null outside an exploration.
struct Turn {
    int number = 0;
};
extern constinit Turn* running;

// What a call left behind, in the stack below its caller and in registers that nobody needs, looks
// like a part of the state of a task that stops later, and makes two of what is one. While this is
// on it is cleared around every operation.
extern constinit bool clears_remains;
// Registers that a callee saves; the caller keeps what it needs of them itself.
[[gnu::always_inline]] inline void clear_saved_registers() {
#if defined(__x86_64__)
    asm volatile(
        "xor %%ebx, %%ebx\n\txor %%r12d, %%r12d\n\txor %%r13d, %%r13d\n\t"
        "xor %%r14d, %%r14d\n\txor %%r15d, %%r15d"
        :
        :
        : "rbx", "r12", "r13", "r14", "r15", "cc");
#endif
}
// Only where a call follows or has returned: such a function keeps nothing below its stack pointer.
[[gnu::always_inline]] inline void clear_dead_stack() {
#if defined(__x86_64__)
    if (clears_remains) {
        std::uint64_t words = 128;
        void* to = nullptr;
        asm volatile("lea -1024(%%rsp), %0\n\trep stosq"
                     : "=&D"(to), "+c"(words)
                     : "a"(0)
                     : "memory", "cc");
    }
#endif
}
// What an operation sees of an atomic's old value, as bits: it decides what races with it.
inline constexpr std::uint64_t kSeesAll = ~std::uint64_t{0};
void wait_for_turn(OpKind kind, const void* object, std::uint64_t argument, unsigned size_bytes,
                   Where where, std::uint64_t seen);
// An operation about to be done. Returns when it is its turn.
[[gnu::always_inline]] inline void before(OpKind kind, const void* object, std::uint64_t argument,
                                          unsigned size_bytes, Where where,
                                          std::uint64_t seen = kSeesAll) {
    clear_dead_stack();
    clear_saved_registers();
    wait_for_turn(kind, object, argument, size_bytes, where, seen);
    clear_dead_stack();
}
// The running task holds it exclusively, or no longer.
void took_lock(const void* lock);
void let_go_of_lock(const void* lock);
// An object's life, in a task. One on a stack is gone at its end, though the stack may soon reach
// as far again.
void object_lives(const void* object);
void object_dies(const void* object);
// As a destructor says it.
constexpr void end_life(const void* object) {
    if (!std::is_constant_evaluated() && running != nullptr) {
        object_dies(object);
    }
}
// Part of no state; a word or less.
void statistic_written(const void* object);
// Fails the run if the task has ended: its Task would be gone.
void assert_task_lives(int task, Where where);
// Whether anybody wants to know of named points: rules or a record.
extern constinit bool points_matter;
void at_point(const char* name, Where where);
template <typename... About>
void at_point_about(Where where, const char* name, const About&...) {
    at_point(name, where);
}
// Whether a load of a Setting is an operation: where a scenario changes one. Elsewhere it would
// cost a step each time and show nothing.
extern constinit bool settings_matter;
// Static storage that a run may change.
void register_global(void* object, std::size_t size_bytes);

template <typename T>
std::uint64_t bits_of(T value) noexcept {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    return bits;
}

inline void announce(OpKind kind, const void* object, std::uint64_t argument, unsigned size_bytes,
                     Where where, std::uint64_t seen = kSeesAll) {
    if (running != nullptr) [[likely]] {
        before(kind, object, argument, size_bytes, where, seen);
    }
}

#if defined(WBFAT_MODEL_TSAN)
template <typename T>
using Cell = std::atomic<T>;
#else
// One OS thread: a plain value, without the cost of the bus lock.
template <typename T>
class Cell {
public:
    constexpr Cell() noexcept = default;
    // NOLINTNEXTLINE(google-explicit-constructor): as std::atomic.
    constexpr Cell(T value) noexcept : value_(value) {}
    [[nodiscard]] T load(std::memory_order) const noexcept {
        return value_;
    }
    void store(T value, std::memory_order) noexcept {
        value_ = value;
    }
    T exchange(T value, std::memory_order) noexcept {
        const T old = value_;
        value_ = value;
        return old;
    }
    bool compare_exchange_strong(T& expected, T desired, std::memory_order,
                                 std::memory_order) noexcept {
        if (value_ != expected) {
            expected = value_;
            return false;
        }
        value_ = desired;
        return true;
    }
    T fetch_add(T delta, std::memory_order) noexcept {
        return exchange(static_cast<T>(value_ + delta), std::memory_order_relaxed);
    }
    T fetch_sub(T delta, std::memory_order) noexcept {
        return exchange(static_cast<T>(value_ - delta), std::memory_order_relaxed);
    }
    T fetch_or(T bits, std::memory_order) noexcept {
        return exchange(static_cast<T>(value_ | bits), std::memory_order_relaxed);
    }
    T fetch_and(T bits, std::memory_order) noexcept {
        return exchange(static_cast<T>(value_ & bits), std::memory_order_relaxed);
    }
    T fetch_xor(T bits, std::memory_order) noexcept {
        return exchange(static_cast<T>(value_ ^ bits), std::memory_order_relaxed);
    }

private:
    T value_{};
};
#endif

// A lock of any kind. Guarded by the turn.
struct LockState {
    std::int32_t holder = 0;  // task number + 1, or kMainHolder; 0: nobody holds it exclusively
    std::int32_t readers = 0;
#if defined(WBFAT_MODEL_TSAN)
    std::atomic<std::uint32_t> writer_order{0}, reader_order{0};
#endif

    LockState() = default;
    constexpr ~LockState() {
        end_life(this);
    }
    LockState(const LockState&) = delete;
    LockState& operator=(const LockState&) = delete;

    void lock(Where where);
    bool try_lock(Where where);
    void unlock(Where where);
    void lock_shared(Where where);
    void unlock_shared(Where where);
};

// The tasks asleep on a condition variable, in the order of arrival.
struct CondState {
    static constexpr std::size_t kMaxWaiters = 15;
    std::uint8_t count = 0;
    std::uint8_t waiters[kMaxWaiters] = {};  // task numbers

    CondState() = default;
    constexpr ~CondState() {
        end_life(this);
    }
    CondState(const CondState&) = delete;
    CondState& operator=(const CondState&) = delete;

    void remove_all() {
        count = 0;
        std::memset(waiters, 0, sizeof(waiters));
    }
};

}  // namespace sched

// Since an arbitrary start; does not jump.
Nanoseconds monotonic_now();
void sleep_for(Nanoseconds duration, sched::Where where = sched::Where::here());
void yield_now(sched::Where where = sched::Where::here());

// The clock of records: here the one of everybody.
std::uint64_t ticks();
class TickScale {
public:
    static TickScale now() {
        return {};
    }
    [[nodiscard]] Nanoseconds to_monotonic(std::uint64_t ticks) const {
        return Nanoseconds(ticks);
    }
};

template <typename T>
class Atomic {
public:
    constexpr Atomic() noexcept {
        begin_life();
    }
    // NOLINTNEXTLINE(google-explicit-constructor): initialised like the plain value it stands for.
    constexpr Atomic(T value) noexcept : value_(value) {
        begin_life();
    }
    constexpr ~Atomic() {
        sched::end_life(this);
    }
    Atomic(const Atomic&) = delete;
    Atomic& operator=(const Atomic&) = delete;

    [[nodiscard]] T load(std::memory_order order = std::memory_order_acquire,
                         sched::Where where = sched::Where::here()) const noexcept {
        sched::announce(sched::OpKind::kLoad, this, 0, sizeof(T), where);
        return value_.load(order);
    }
    void store(T value, std::memory_order order = std::memory_order_release,
               sched::Where where = sched::Where::here()) noexcept {
        sched::announce(sched::OpKind::kStore, this, sched::bits_of(value), sizeof(T), where);
        value_.store(value, order);
    }
    // For reports and traces: the scheduler does not see it.
    [[nodiscard]] T peek() const noexcept {
        return value_.load(std::memory_order_relaxed);
    }
    T exchange(T value, std::memory_order order = std::memory_order_acq_rel,
               sched::Where where = sched::Where::here()) noexcept {
        sched::announce(sched::OpKind::kExchange, this, sched::bits_of(value), sizeof(T), where);
        return value_.exchange(value, order);
    }
    // Strong. On failure `expected` becomes what was found, read with acquire.
    bool compare_exchange(T& expected, T desired,
                          std::memory_order order = std::memory_order_acq_rel,
                          sched::Where where = sched::Where::here()) noexcept {
        sched::announce(sched::OpKind::kCompareExchange, this, sched::bits_of(desired), sizeof(T),
                        where);
        return value_.compare_exchange_strong(expected, desired, order, std::memory_order_acquire);
    }
    T fetch_add(T delta, std::memory_order order = std::memory_order_acq_rel,
                sched::Where where = sched::Where::here()) noexcept {
        sched::announce(sched::OpKind::kFetchAdd, this, sched::bits_of(delta), sizeof(T), where);
        return value_.fetch_add(delta, order);
    }
    T fetch_sub(T delta, std::memory_order order = std::memory_order_acq_rel,
                sched::Where where = sched::Where::here()) noexcept {
        sched::announce(sched::OpKind::kFetchSub, this, sched::bits_of(delta), sizeof(T), where);
        return value_.fetch_sub(delta, order);
    }
    void add(T delta, std::memory_order order = std::memory_order_acq_rel,
             sched::Where where = sched::Where::here()) noexcept {
        sched::announce(sched::OpKind::kFetchAdd, this, sched::bits_of(delta), sizeof(T), where, 0);
        static_cast<void>(value_.fetch_add(delta, order));
    }
    int sub_and_sign(T delta, std::memory_order order = std::memory_order_acq_rel,
                     sched::Where where = sched::Where::here()) noexcept {
        sched::announce(sched::OpKind::kSubAndSign, this, sched::bits_of(delta), sizeof(T), where,
                        0);
        const T left = static_cast<T>(value_.fetch_sub(delta, order) - delta);
        return (left > 0 ? 1 : 0) - (left < 0 ? 1 : 0);
    }
    T fetch_or(T bits, std::memory_order order = std::memory_order_acq_rel,
               sched::Where where = sched::Where::here()) noexcept {
        sched::announce(sched::OpKind::kFetchOr, this, sched::bits_of(bits), sizeof(T), where);
        return value_.fetch_or(bits, order);
    }
    T fetch_and(T bits, std::memory_order order = std::memory_order_acq_rel,
                sched::Where where = sched::Where::here()) noexcept {
        sched::announce(sched::OpKind::kFetchAnd, this, sched::bits_of(bits), sizeof(T), where);
        return value_.fetch_and(bits, order);
    }
    T fetch_xor(T bits, std::memory_order order = std::memory_order_acq_rel,
                sched::Where where = sched::Where::here()) noexcept {
        sched::announce(sched::OpKind::kFetchXor, this, sched::bits_of(bits), sizeof(T), where);
        return value_.fetch_xor(bits, order);
    }

protected:
    sched::Cell<T> value_{};  // NOLINT(misc-non-private-member-variables-in-classes): FlagWord's

private:
    constexpr void begin_life() const noexcept {
        if (!std::is_constant_evaluated() && sched::running != nullptr) {
            sched::object_lives(this);
        }
    }
};

// See native.h.
class FlagWord : public Atomic<std::uint64_t> {
public:
    using Atomic::Atomic;

    [[nodiscard]] bool test(std::uint64_t bits, std::memory_order order = std::memory_order_acquire,
                            sched::Where where = sched::Where::here()) const noexcept {
        sched::announce(sched::OpKind::kLoad, this, 0, sizeof(bits), where, bits);
        return (value_.load(order) & bits) != 0;
    }
    void set(std::uint64_t bits, std::memory_order order = std::memory_order_acq_rel,
             sched::Where where = sched::Where::here()) noexcept {
        static_cast<void>(fetch_set(bits, 0, order, where));
    }
    void clear(std::uint64_t bits, std::memory_order order = std::memory_order_acq_rel,
               sched::Where where = sched::Where::here()) noexcept {
        static_cast<void>(fetch_clear(bits, 0, order, where));
    }
    [[nodiscard]] bool test_and_set(std::uint64_t bits,
                                    std::memory_order order = std::memory_order_acq_rel,
                                    sched::Where where = sched::Where::here()) noexcept {
        return fetch_set(bits, bits, order, where) != 0;
    }
    [[nodiscard]] bool test_and_clear(std::uint64_t bits,
                                      std::memory_order order = std::memory_order_acq_rel,
                                      sched::Where where = sched::Where::here()) noexcept {
        return fetch_clear(bits, bits, order, where) != 0;
    }
    std::uint64_t fetch_set(std::uint64_t bits, std::uint64_t seen,
                            std::memory_order order = std::memory_order_acq_rel,
                            sched::Where where = sched::Where::here()) noexcept {
        sched::announce(sched::OpKind::kFetchOr, this, bits, sizeof(bits), where, seen);
        return value_.fetch_or(bits, order) & seen;
    }
    std::uint64_t fetch_clear(std::uint64_t bits, std::uint64_t seen,
                              std::memory_order order = std::memory_order_acq_rel,
                              sched::Where where = sched::Where::here()) noexcept {
        sched::announce(sched::OpKind::kFetchAnd, this, ~bits, sizeof(bits), where, seen);
        return value_.fetch_and(~bits, order) & seen;
    }
    std::uint64_t fetch_toggle(std::uint64_t bits, std::uint64_t seen,
                               std::memory_order order = std::memory_order_acq_rel,
                               sched::Where where = sched::Where::here()) noexcept {
        sched::announce(sched::OpKind::kFetchXor, this, bits, sizeof(bits), where, seen);
        return value_.fetch_xor(bits, order) & seen;
    }
};

// Statistics and switches; see native.h. No interleaving hangs on it, so the scheduler does not see
// it, and two states that differ in nothing else are one.
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
        sched::statistic_written(this);
        value_.store(value, std::memory_order_relaxed);
    }
    T fetch_add(T delta) noexcept {
        sched::statistic_written(this);
        return value_.fetch_add(delta, std::memory_order_relaxed);
    }
    T fetch_sub(T delta) noexcept {
        sched::statistic_written(this);
        return value_.fetch_sub(delta, std::memory_order_relaxed);
    }

private:
    sched::Cell<T> value_{};
};

// What every operation looks at; see native.h. Seen by the scheduler where settings_matter.
template <typename T>
class Setting {
public:
    constexpr Setting() noexcept = default;
    // NOLINTNEXTLINE(google-explicit-constructor): initialised like the plain value it stands for.
    constexpr Setting(T value) noexcept : value_(value) {}
    ~Setting() = default;
    Setting(const Setting&) = delete;
    Setting& operator=(const Setting&) = delete;

    [[nodiscard]] T load(sched::Where where = sched::Where::here()) const noexcept {
        if (sched::settings_matter) [[unlikely]] {
            sched::announce(sched::OpKind::kLoad, this, 0, sizeof(T), where);
        }
        return value_.load(std::memory_order_relaxed);
    }
    void store(T value, sched::Where where = sched::Where::here()) noexcept {
        sched::announce(sched::OpKind::kStore, this, sched::bits_of(value), sizeof(T), where);
        value_.store(value, std::memory_order_relaxed);
    }

private:
    sched::Cell<T> value_{};
};

// Static storage that runs change, never destroyed: the scheduler puts it back between them.
template <typename T>
class Global {
public:
    Global() : value_{} {
        sched::register_global(&value_, sizeof(T));
    }
    // NOLINTNEXTLINE(modernize-use-equals-default): a union with a destructor has no default one.
    ~Global() {}
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

class CAPABILITY("spinlock") SpinLock {
public:
    constexpr SpinLock() noexcept = default;
    ~SpinLock() = default;
    SpinLock(const SpinLock&) = delete;
    SpinLock& operator=(const SpinLock&) = delete;

    void lock(sched::Where where = sched::Where::here()) noexcept ACQUIRE() {
        state_.lock(where);
    }
    bool try_lock(sched::Where where = sched::Where::here()) noexcept TRY_ACQUIRE(true) {
        return state_.try_lock(where);
    }
    void unlock(sched::Where where = sched::Where::here()) noexcept RELEASE() {
        state_.unlock(where);
    }

private:
    sched::LockState state_;
};

class SCOPED_CAPABILITY SpinLockGuard {
public:
    explicit SpinLockGuard(SpinLock& lock, sched::Where where = sched::Where::here()) ACQUIRE(lock)
        : lock_(lock), where_(where) {
        lock_.lock(where_);
    }
    ~SpinLockGuard() RELEASE() {
        lock_.unlock(where_);
    }
    SpinLockGuard(const SpinLockGuard&) = delete;
    SpinLockGuard& operator=(const SpinLockGuard&) = delete;

private:
    SpinLock& lock_;
    const sched::Where where_;
};

class CAPABILITY("mutex") Mutex {
public:
    explicit Mutex(LockRank = LockRank::kUnranked) noexcept {}
    ~Mutex() = default;
    Mutex(const Mutex&) = delete;
    Mutex& operator=(const Mutex&) = delete;

    void lock(sched::Where where = sched::Where::here()) ACQUIRE() {
        state_.lock(where);
    }
    bool try_lock(sched::Where where = sched::Where::here()) TRY_ACQUIRE(true) {
        return state_.try_lock(where);
    }
    void unlock(sched::Where where = sched::Where::here()) RELEASE() {
        state_.unlock(where);
    }
    // Tells the analysis, and nobody else, that the caller holds the mutex.
    void assert_held() const ASSERT_CAPABILITY(this) {}

private:
    sched::LockState state_;
};

class SCOPED_CAPABILITY MutexLock {
public:
    explicit MutexLock(Mutex& mutex, sched::Where where = sched::Where::here()) ACQUIRE(mutex)
        : mutex_(mutex), where_(where) {
        mutex_.lock(where_);
    }
    ~MutexLock() RELEASE() {
        if (held_) {
            mutex_.unlock(where_);
        }
    }
    MutexLock(const MutexLock&) = delete;
    MutexLock& operator=(const MutexLock&) = delete;

    void unlock() RELEASE() {
        held_ = false;
        mutex_.unlock(where_);
    }
    void lock() ACQUIRE() {
        mutex_.lock(where_);
        held_ = true;
    }

private:
    friend class CondVar;
    Mutex& mutex_;
    const sched::Where where_;
    bool held_ = true;
};

class CondVar {
public:
    CondVar() = default;
    ~CondVar() = default;
    CondVar(const CondVar&) = delete;
    CondVar& operator=(const CondVar&) = delete;

    void wait(MutexLock& lock, sched::Where where = sched::Where::here());
    // Returns false when the time was up.
    bool wait_for(MutexLock& lock, Nanoseconds timeout, sched::Where where = sched::Where::here());
    void notify_one(sched::Where where = sched::Where::here());
    void notify_all(sched::Where where = sched::Where::here());

private:
    sched::CondState state_;
};

// Shared / exclusive. Not recursive, not even for readers.
class CAPABILITY("rwsem") RwSem {
public:
    explicit RwSem(LockRank = LockRank::kUnranked) {}
    ~RwSem() = default;
    RwSem(const RwSem&) = delete;
    RwSem& operator=(const RwSem&) = delete;

    void lock(sched::Where where = sched::Where::here()) ACQUIRE() {
        state_.lock(where);
    }
    bool try_lock(sched::Where where = sched::Where::here()) TRY_ACQUIRE(true) {
        return state_.try_lock(where);
    }
    void unlock(sched::Where where = sched::Where::here()) RELEASE() {
        state_.unlock(where);
    }
    void lock_shared(sched::Where where = sched::Where::here()) ACQUIRE_SHARED() {
        state_.lock_shared(where);
    }
    void unlock_shared(sched::Where where = sched::Where::here()) RELEASE_SHARED() {
        state_.unlock_shared(where);
    }
    void assert_held() const ASSERT_CAPABILITY(this) {}

private:
    sched::LockState state_;
};

class SCOPED_CAPABILITY ReadGuard {
public:
    explicit ReadGuard(RwSem& sem, sched::Where where = sched::Where::here()) ACQUIRE_SHARED(sem)
        : sem_(sem), where_(where) {
        sem_.lock_shared(where_);
    }
    ~ReadGuard() RELEASE_GENERIC() {
        sem_.unlock_shared(where_);
    }
    ReadGuard(const ReadGuard&) = delete;
    ReadGuard& operator=(const ReadGuard&) = delete;

private:
    RwSem& sem_;
    const sched::Where where_;
};

class SCOPED_CAPABILITY WriteGuard {
public:
    explicit WriteGuard(RwSem& sem, sched::Where where = sched::Where::here()) ACQUIRE(sem)
        : sem_(sem), where_(where) {
        sem_.lock(where_);
    }
    ~WriteGuard() RELEASE() {
        sem_.unlock(where_);
    }
    WriteGuard(const WriteGuard&) = delete;
    WriteGuard& operator=(const WriteGuard&) = delete;

private:
    RwSem& sem_;
    const sched::Where where_;
};

// One binary token; see native.h.
class Parker {
public:
    Parker() = default;
    ~Parker() {
        end();
    }
    Parker(const Parker&) = delete;
    Parker& operator=(const Parker&) = delete;

    // Only by the owner.
    void park(sched::Where where = sched::Where::here());
    // Returns false when the time was up and no token came.
    bool park_for(Nanoseconds timeout, sched::Where where = sched::Where::here());
    // By anybody. The Parker must outlive the call, not only the owner's return from park().
    void unpark(sched::Where where = sched::Where::here());
    // Its owner has ended.
    void end() {
        sched::end_life(&token_);
    }

private:
    sched::Cell<std::uint32_t> token_{0};
};

// The running thread, as others see it. Lives as long as the thread.
class Task {
public:
    explicit Task(std::uint32_t id, std::string name = "main", Role role = Role::kOther)
        : id_(id), name_(std::move(name)), role_(role) {}
    ~Task() = default;
    Task(const Task&) = delete;
    Task& operator=(const Task&) = delete;

    [[nodiscard]] std::uint32_t id() const {
        return id_;
    }
    [[nodiscard]] const std::string& name() const {
        return name_;
    }
    [[nodiscard]] Role role() const {
        return role_;
    }

    void park(sched::Where where = sched::Where::here()) {
        parker_.park(where);
    }
    bool park_for(Nanoseconds timeout, sched::Where where = sched::Where::here()) {
        return parker_.park_for(timeout, where);
    }
    // Requires: the task has not ended. Here that is asserted.
    void unpark(sched::Where where = sched::Where::here()) {
        parker_.unpark(where);
        sched::assert_task_lives(static_cast<int>(id_) - 1, where);
    }

    // Asks the task to give up the killable wait it is in, or the next one. Stays until cleared.
    // Any thread.
    void interrupt(sched::Where where = sched::Where::here()) {
        interrupted_.store(true, std::memory_order_release, where);
        parker_.unpark(where);
    }
    [[nodiscard]] bool interrupted(sched::Where where = sched::Where::here()) const {
        return interrupted_.load(std::memory_order_acquire, where);
    }
    void clear_interrupt(sched::Where where = sched::Where::here()) {
        interrupted_.store(false, std::memory_order_release, where);
    }

    // By itself, last of all.
    void end() {
        parker_.end();
    }

    // For current_task_ring.
    TaskRingHandle& ring_handle() {
        return ring_;
    }

private:
    friend void adopt_current_task(std::string name, Role role);
    friend class RoleGuard;
    const std::uint32_t id_;
    std::string name_;
    Role role_;
    Parker parker_;
    Atomic<bool> interrupted_{false};
    TaskRingHandle ring_;
};

Task& current_task();
// Names a thread that was not started by Thread.
void adopt_current_task(std::string name, Role role);

// Another role for a while.
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
    Thread(std::string name, Role role, std::function<void()> body,
           sched::Where where = sched::Where::here());
    ~Thread() {
        join();
    }
    Thread(Thread&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
    Thread& operator=(Thread&& other) noexcept;
    Thread(const Thread&) = delete;
    Thread& operator=(const Thread&) = delete;

    // A second call, or a call on no thread, does nothing.
    void join(sched::Where where = sched::Where::here());

private:
    int number_ = -1;
};

}  // namespace wbfat::sync::inline WBFAT_RT

// WBFAT_POINT("name") or WBFAT_POINT("name", page); rules select by task and turn here.
#define WBFAT_POINT(...)                                                              \
    do {                                                                              \
        if (::wbfat::sync::sched::points_matter) [[unlikely]]                         \
            ::wbfat::sync::sched::at_point_about(::wbfat::sync::sched::Where::here(), \
                                                 __VA_ARGS__);                        \
    } while (false)
