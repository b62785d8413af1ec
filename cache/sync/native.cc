// Real threads: what native.h does not do inline.
#include "cache/sync/native.h"

#include <sched.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <ctime>
#include <utility>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <linux/futex.h>
#include <sys/syscall.h>

#include "cache/base/check.h"

namespace wbfat::sync::inline WBFAT_RT {

namespace {

constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;

timespec to_timespec(Nanoseconds duration) {
    timespec result{};
    result.tv_sec = duration.count() / kNanosecondsPerSecond;
    result.tv_nsec = duration.count() % kNanosecondsPerSecond;
    return result;
}

void check_pthread(int error, const char* what) {
    BUG_ON(error != 0, "S1", what);
}

#ifdef NDEBUG
constexpr bool kCheckRanks = false;
#else
constexpr bool kCheckRanks = true;
#endif

// Ranks of the locks the thread holds, in the order they were taken.
class HeldRanks {
public:
    void push(LockRank rank) {
        BUG_ON(size_ == ranks_.size(), "S2", "too many ranked locks held at once");
        ranks_[size_++] = rank;
    }
    // Locks may be released in any order: takes out the youngest of this rank.
    void remove(LockRank rank) {
        for (std::size_t i = size_; i-- > 0;) {
            if (ranks_[i] == rank) {
                for (std::size_t j = i + 1; j < size_; ++j) {
                    ranks_[j - 1] = ranks_[j];
                }
                --size_;
                return;
            }
        }
        BUG_ON(true, "S2", "a ranked lock is released by a thread that does not hold it");
    }
    [[nodiscard]] LockRank highest() const {
        LockRank rank = LockRank::kUnranked;
        for (std::size_t i = 0; i < size_; ++i) {
            rank = ranks_[i] > rank ? ranks_[i] : rank;
        }
        return rank;
    }

private:
    std::array<LockRank, 32> ranks_{};
    std::size_t size_ = 0;
};

thread_local HeldRanks held_ranks;

void before_lock(LockRank rank) {
    if constexpr (kCheckRanks) {
        if (rank != LockRank::kUnranked && held_ranks.highest() > rank) [[unlikely]] {
            const LockRankReporter reporter = lock_rank_reporter.load(std::memory_order_relaxed);
            BUG_ON(reporter == nullptr, "S2", "lock order inversion (see cache/LOCKING.md)");
            reporter();
        }
    }
}
void after_lock(LockRank rank) {
    if constexpr (kCheckRanks) {
        if (rank != LockRank::kUnranked) {
            held_ranks.push(rank);
        }
    }
}
void before_unlock(LockRank rank) {
    if constexpr (kCheckRanks) {
        if (rank != LockRank::kUnranked) {
            held_ranks.remove(rank);
        }
    }
}

void cpu_relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

}  // namespace

Nanoseconds monotonic_now() {
    return std::chrono::steady_clock::now().time_since_epoch();
}

namespace {

// Whether the time stamp counter runs at one rate, on all CPUs, asleep or awake. Asked once.
bool tsc_is_a_clock() {
#if defined(__x86_64__)
    constexpr unsigned kAdvancedPowerManagement = 0x8000'0007;
    constexpr unsigned kInvariantTsc = 1U << 8;
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    return __get_cpuid(kAdvancedPowerManagement, &a, &b, &c, &d) != 0 && (d & kInvariantTsc) != 0;
#else
    return false;
#endif
}

const bool kTicksAreTsc = tsc_is_a_clock();

struct TickOrigin {
    std::uint64_t ticks = sync::ticks();
    Nanoseconds time = monotonic_now();
};
const TickOrigin kTickOrigin;

}  // namespace

std::uint64_t ticks() {
#if defined(__x86_64__)
    if (kTicksAreTsc) [[likely]] {
        return __builtin_ia32_rdtsc();
    }
#endif
    return static_cast<std::uint64_t>(monotonic_now().count());
}

TickScale TickScale::now() {
    TickScale scale;
    scale.ticks_ = sync::ticks();
    scale.time_ = monotonic_now();
    if (scale.ticks_ > kTickOrigin.ticks) {
        scale.nanoseconds_per_tick_ =
            static_cast<double>((scale.time_ - kTickOrigin.time).count()) /
            static_cast<double>(scale.ticks_ - kTickOrigin.ticks);
    }
    return scale;
}

Nanoseconds TickScale::to_monotonic(std::uint64_t ticks) const {
    const auto distance = static_cast<double>(static_cast<std::int64_t>(ticks - ticks_));
    return time_ + Nanoseconds(static_cast<std::int64_t>(distance * nanoseconds_per_tick_));
}

void sleep_for(Nanoseconds duration) {
    std::this_thread::sleep_for(duration);
}

void yield_now() {
    std::this_thread::yield();
}

// --- SpinLock

void SpinLock::lock_slow() noexcept {
    constexpr int kSpins =
        100;  // about as long as the longest section under a spin lock, a few microseconds
    for (;;) {
        for (int i = 0; i < kSpins; ++i) {
            if (try_lock()) {
                return;
            }
            cpu_relax();
        }
        yield_now();
    }
}

// --- Mutex and CondVar

Mutex::Mutex(LockRank rank) noexcept : handle_(PTHREAD_MUTEX_INITIALIZER), rank_(rank) {}

Mutex::~Mutex() {
    check_pthread(pthread_mutex_destroy(&handle_), "a mutex is destroyed while it is held");
}

void Mutex::lock() {
    before_lock(rank_);
    check_pthread(pthread_mutex_lock(&handle_), "pthread_mutex_lock failed");
    after_lock(rank_);
}

bool Mutex::try_lock() {
    if (pthread_mutex_trylock(&handle_) != 0) {
        return false;
    }
    after_lock(rank_);
    return true;
}

void Mutex::unlock() {
    before_unlock(rank_);
    check_pthread(pthread_mutex_unlock(&handle_), "pthread_mutex_unlock failed");
}

CondVar::CondVar() : handle_() {
    // Waits must not stretch or shrink when somebody sets the clock.
    pthread_condattr_t attributes;
    check_pthread(pthread_condattr_init(&attributes), "pthread_condattr_init failed");
    check_pthread(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC),
                  "pthread_condattr_setclock failed");
    check_pthread(pthread_cond_init(&handle_, &attributes), "pthread_cond_init failed");
    pthread_condattr_destroy(&attributes);
}

CondVar::~CondVar() {
    pthread_cond_destroy(&handle_);
}

void CondVar::wait(MutexLock& lock) {
    check_pthread(pthread_cond_wait(&handle_, &lock.mutex_.handle_), "pthread_cond_wait failed");
}

bool CondVar::wait_for(MutexLock& lock, Nanoseconds timeout) {
    const timespec deadline = to_timespec(monotonic_now() + timeout);
    const int error = pthread_cond_timedwait(&handle_, &lock.mutex_.handle_, &deadline);
    if (error == ETIMEDOUT) {
        return false;
    }
    check_pthread(error, "pthread_cond_timedwait failed");
    return true;
}

void CondVar::notify_one() {
    pthread_cond_signal(&handle_);
}

void CondVar::notify_all() {
    pthread_cond_broadcast(&handle_);
}

// --- RwSem

RwSem::RwSem(LockRank rank) : handle_(), rank_(rank) {
    pthread_rwlockattr_t attributes;
    check_pthread(pthread_rwlockattr_init(&attributes), "pthread_rwlockattr_init failed");
    check_pthread(
        pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP),
        "pthread_rwlockattr_setkind_np failed");
    check_pthread(pthread_rwlock_init(&handle_, &attributes), "pthread_rwlock_init failed");
    pthread_rwlockattr_destroy(&attributes);
}

RwSem::~RwSem() {
    pthread_rwlock_destroy(&handle_);
}

void RwSem::lock() {
    before_lock(rank_);
    check_pthread(pthread_rwlock_wrlock(&handle_), "pthread_rwlock_wrlock failed");
    after_lock(rank_);
}

bool RwSem::try_lock() {
    if (pthread_rwlock_trywrlock(&handle_) != 0) {
        return false;
    }
    after_lock(rank_);
    return true;
}

void RwSem::unlock() {
    before_unlock(rank_);
    check_pthread(pthread_rwlock_unlock(&handle_), "pthread_rwlock_unlock failed");
}

void RwSem::lock_shared() {
    before_lock(rank_);
    check_pthread(pthread_rwlock_rdlock(&handle_), "pthread_rwlock_rdlock failed");
    after_lock(rank_);
}

void RwSem::unlock_shared() {
    before_unlock(rank_);
    check_pthread(pthread_rwlock_unlock(&handle_), "pthread_rwlock_unlock failed");
}

// --- Parker: one futex word
//
//   kEmpty  --park-->  kParked  --unpark-->  kToken  --park-->  kEmpty

namespace {
constexpr std::uint32_t kEmpty = 0;
constexpr std::uint32_t kToken = 1;
constexpr std::uint32_t kParked = 2;
}  // namespace

// Returns true if a token was there (and is taken); else the word says kParked.
bool Parker::take_token_or_announce() {
    std::uint32_t seen = kEmpty;
    if (word_.compare_exchange_strong(seen, kParked, std::memory_order_acquire)) {
        return false;
    }
    // Only the owner leaves kEmpty for kParked, so what was seen is a token. Taken by exchange and
    // not by a store: an unpark() in between would be overwritten without what came before it
    // becoming visible here.
    word_.exchange(kEmpty, std::memory_order_acquire);
    return true;
}

// Returns false when the time was up.
bool Parker::sleep_on_word(const Nanoseconds* timeout) {
    timespec relative{};
    if (timeout != nullptr) {
        relative = to_timespec(*timeout);
    }
    const long error = syscall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, kParked,
                               timeout != nullptr ? &relative : nullptr, nullptr, 0);
    return error == 0 || errno != ETIMEDOUT;
}

void Parker::park() {
    if (take_token_or_announce()) {
        return;
    }
    while (word_.load(std::memory_order_acquire) != kToken) {
        sleep_on_word(nullptr);
    }
    word_.exchange(kEmpty, std::memory_order_acquire);
}

bool Parker::park_for(Nanoseconds timeout) {
    if (take_token_or_announce()) {
        return true;
    }
    const Nanoseconds deadline = monotonic_now() + timeout;
    for (;;) {
        if (word_.load(std::memory_order_acquire) == kToken) {
            break;
        }
        const Nanoseconds left = deadline - monotonic_now();
        if (left <= Nanoseconds::zero() || !sleep_on_word(&left)) {
            break;
        }
    }
    return word_.exchange(kEmpty, std::memory_order_acquire) == kToken;
}

void Parker::unpark() {
    if (word_.exchange(kToken, std::memory_order_release) == kParked) {
        syscall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
    }
}

// --- Task and Thread

Task::Task()
    : id_([] {
          static std::atomic<std::uint32_t> last{0};
          return last.fetch_add(1, std::memory_order_relaxed) + 1;
      }()) {}

Task& current_task() {
    thread_local Task task;
    return task;
}

void adopt_current_task(std::string name, Role role) {
    constexpr std::size_t kThreadNameMax = 15;  // what the kernel keeps
    pthread_setname_np(pthread_self(), name.substr(0, kThreadNameMax).c_str());
    Task& task = current_task();
    task.ring_.rename(name, role);
    task.name_ = std::move(name);
    task.role_ = role;
}

Thread::Thread(std::string name, Role role, std::function<void()> body)
    : handle_([name = std::move(name), role, body = std::move(body)]() mutable {
          adopt_current_task(std::move(name), role);
          body();
      }) {}

Thread& Thread::operator=(Thread&& other) noexcept {
    if (this != &other) {
        join();
        handle_ = std::move(other.handle_);
    }
    return *this;
}

void Thread::join() {
    if (handle_.joinable()) {
        handle_.join();
    }
}

}  // namespace wbfat::sync::inline WBFAT_RT
