// Turns, fibers, and what is recorded of them.
#include "cache/sync/scheduler.h"

#include <pthread.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <semaphore>
#include <utility>

#include <boost/context/detail/fcontext.hpp>

#define XXH_INLINE_ALL
#include <xxhash.h>

#if defined(WBFAT_MODEL_TSAN)
#include <sanitizer/tsan_interface.h>
#endif
#if defined(WBFAT_MODEL_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace wbfat::sync::inline WBFAT_RT::sched {

namespace context = boost::context::detail;

constinit Turn* running = nullptr;
constinit bool points_matter = false;
constinit bool settings_matter = false;
constinit bool clears_remains = false;

namespace {

// Stack memory below a sleeping task that may hold what was left of a call.
constexpr std::size_t kDeadBytes = 2048;
constexpr std::size_t kMaxFrames = 48;

}  // namespace

struct Fiber : Turn {
    context::fcontext_t context = nullptr;
    Pending pending;
    bool is_finished = false;
    bool after_acquisition = false;
    bool timed_out = false;
    Nanoseconds deadline{0};
    LockSet held = 0;
    DeadObjects dead;

    // Constant while runs are made.
    bool daemon = false;
    std::string name, purpose;
    std::function<void()> body;
    Task* task = nullptr;  // of the world

    std::byte* stack_base = nullptr;
    std::binary_semaphore turn{0};  // BackEnd::kThreads
#if defined(WBFAT_MODEL_TSAN)
    void* tsan = nullptr;
    char left = 0;              // an address: what the task did before it left, for the next run
    bool is_first_turn = true;  // of this run
#endif

    [[nodiscard]] std::byte* stack_top() const {
        return stack_base + World::kStackBytes;
    }
};

namespace {

context::fcontext_t scheduler_context = nullptr;
bool on_threads = false;
std::binary_semaphore scheduler_turn{0};
#if defined(WBFAT_MODEL_TSAN)
void* scheduler_tsan = nullptr;
#endif
#if defined(WBFAT_MODEL_ASAN)
const void* scheduler_stack = nullptr;
std::size_t scheduler_stack_bytes = 0;
#endif

// A switch saves the status of the floating-point unit, whose flags tell of any inexact division
// that anybody ever did.
void reset_float_status() {
#if defined(__x86_64__)
    constexpr unsigned kAfterReset = 0x1F80;
    __builtin_ia32_ldmxcsr(kAfterReset);
#endif
}

enum class Leave : std::uint8_t { kForNow, kForEver };

// To the scheduler, until the next turn.
[[gnu::noinline]] void leave_fiber([[maybe_unused]] Leave leave) {
    if (on_threads) [[unlikely]] {
        auto& fiber = static_cast<Fiber&>(*running);
        scheduler_turn.release();
        fiber.turn.acquire();
        return;
    }
#if defined(WBFAT_MODEL_ASAN)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(leave == Leave::kForEver ? nullptr : &fake, scheduler_stack,
                                   scheduler_stack_bytes);
#endif
#if defined(WBFAT_MODEL_TSAN)
    __tsan_release(&static_cast<Fiber*>(running)->left);
    __tsan_switch_to_fiber(scheduler_tsan, __tsan_switch_to_fiber_no_sync);
#endif
    reset_float_status();
    scheduler_context = context::jump_fcontext(scheduler_context, nullptr).fctx;
#if defined(WBFAT_MODEL_ASAN)
    __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

void enter_fiber(Fiber& fiber) {
    if (on_threads) [[unlikely]] {
        fiber.turn.release();
        scheduler_turn.acquire();
        return;
    }
#if defined(WBFAT_MODEL_ASAN)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber.stack_base, World::kStackBytes);
#endif
#if defined(WBFAT_MODEL_TSAN)
    // A run comes after the one before; within it a switch orders nothing.
    const unsigned sync = 0;
    __tsan_switch_to_fiber(fiber.tsan, std::exchange(fiber.is_first_turn, false)
                                           ? sync
                                           : __tsan_switch_to_fiber_no_sync);
#endif
    fiber.context = context::jump_fcontext(fiber.context, &fiber).fctx;
#if defined(WBFAT_MODEL_ASAN)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

[[noreturn]] void die(const char* why) {
    std::fprintf(stderr, "model scheduler: %s\n", why);
    std::abort();
}

std::uint64_t value_at(const Pending& op) {
    std::uint64_t value = 0;
    std::memcpy(&value, op.object, std::min<std::size_t>(op.size_bytes, sizeof(value)));
    return value;
}

}  // namespace

bool is_release(OpKind kind) {
    return kind == OpKind::kUnlock || kind == OpKind::kUnlockShared || kind == OpKind::kFinish;
}
bool is_acquisition(OpKind kind) {
    return kind == OpKind::kLock || kind == OpKind::kLockShared;
}
bool can_block(OpKind kind) {
    switch (kind) {
        case OpKind::kLock:
        case OpKind::kLockShared:
        case OpKind::kPark:
        case OpKind::kParkFor:
        case OpKind::kCondSleep:
        case OpKind::kCondSleepFor:
        case OpKind::kSleep:
        case OpKind::kJoin:
        case OpKind::kPoint:
            return true;
        default:
            return false;
    }
}

Scheduler& scheduler() {
    static auto* const kScheduler = new Scheduler;
    return *kScheduler;
}

namespace {

Fiber& current_fiber() {
    return *static_cast<Fiber*>(running);
}

}  // namespace

Scheduler::Scheduler() : main_(new Fiber) {
    main_->number = kMainTask;
}
Scheduler::~Scheduler() {
    for (Fiber* fiber : fibers_) {
        delete fiber;
    }
    delete main_;
}

// --- the tasks' side

namespace {

// How much of its object an operation may change.
constexpr std::size_t bytes_written(OpKind kind, unsigned size_bytes) {
    switch (kind) {
        case OpKind::kLock:
        case OpKind::kLockShared:
        case OpKind::kTryLock:
        case OpKind::kUnlock:
        case OpKind::kUnlockShared:
            return sizeof(LockState);
        case OpKind::kCondEnqueue:
        case OpKind::kCondNotifyOne:
        case OpKind::kCondNotifyAll:
        case OpKind::kCondSleepFor:
            return sizeof(CondState);
        case OpKind::kLoad:
        case OpKind::kCondSleep:
        case OpKind::kSleep:
        case OpKind::kYield:
        case OpKind::kSpawn:
        case OpKind::kJoin:
        case OpKind::kPoint:
        case OpKind::kFinish:
            return 0;
        default:
            return size_bytes;
    }
}

}  // namespace

void wait_for_turn(OpKind kind, const void* object, std::uint64_t argument, unsigned size_bytes,
                   Where where, std::uint64_t seen) {
    Scheduler& s = scheduler();
    Fiber& fiber = current_fiber();
    fiber.pending = {.kind = kind,
                     .size_bytes = static_cast<std::uint8_t>(size_bytes),
                     .object = object,
                     .argument = argument,
                     .seen = seen,
                     .where = where};
    const Scheduler::Merge merge = s.note_use(fiber);
    const bool merged =
        (kind == OpKind::kFinish) || (s.merging_ && !can_block(kind) &&
                                      (merge != Scheduler::Merge::kNo || fiber.after_acquisition));
    if (!merged || merge != Scheduler::Merge::kMover) {
        // A mover leaves room for the one step that may follow an acquisition.
        fiber.after_acquisition = merge == Scheduler::Merge::kAcquisition;
    }
    if (!merged) {
        leave_fiber(Leave::kForNow);
    }
    if (kind == OpKind::kFinish) {
        return;
    }
    ++s.nr_operations_;
    if (s.record_ != nullptr) [[unlikely]] {
        s.record_event(fiber, merged);
    }
    if (const std::size_t written = bytes_written(kind, size_bytes)) {
        s.world_.will_write(object, written);
    }
    s.assert_object_lives(fiber);
}

// What of the announced operation need not be a step.
Scheduler::Merge Scheduler::note_use(const Fiber& fiber) {
    const Pending& op = fiber.pending;
    if (op.kind == OpKind::kFinish) {
        return Merge::kRelease;
    }
    if (op.object == nullptr || op.kind == OpKind::kPoint) {
        return Merge::kNo;
    }
    ObjectUses::Use& use = uses_.at(op.object);
    if (op.kind == OpKind::kTryLock) {
        use.is_tried = true;
        return Merge::kNo;
    }
    if (is_release(op.kind) || is_acquisition(op.kind)) {
        return use.may_be_tried      ? Merge::kNo
               : is_release(op.kind) ? Merge::kRelease
                                     : Merge::kAcquisition;
    }
    ObjectUses::note(use, fiber.number, op.kind != OpKind::kLoad, fiber.held);
    // A schedule counts operations by turns, and before the first there is none. Who does nothing
    // but movers for so long may be spinning, and others must have a turn.
    constexpr std::uint64_t kMostInAStep = 1000;
    if (!use.is_mover || is_beginning_ || op.kind == OpKind::kUnpark ||
        nr_operations_ - operations_before_step_ > kMostInAStep) {
        return Merge::kNo;
    }
    const int owner = World::stack_owner(op.object);
    return owner < 0 || owner == fiber.number ? Merge::kMover : Merge::kNo;
}

void took_lock(const void* lock) {
    if (running != nullptr) {
        current_fiber().held |= scheduler().uses_.lock_bit(lock);
    }
}
void let_go_of_lock(const void* lock) {
    if (running != nullptr) {
        current_fiber().held &= ~scheduler().uses_.lock_bit(lock);
    }
}

namespace {

Failure dead_object(const char* title, std::string object, Where where) {
    return {.kind = Failure::Kind::kBug,
            .task = -1,
            .title = title,
            .condition = "what is touched lives",
            .object = std::move(object),
            .file = where.file(),
            .line = where.line()};
}

}  // namespace

// A call that waits leaves things on its stack for others to find; a pointer to them must not
// outlive it.
void Scheduler::assert_object_lives(Fiber& fiber) {
    const void* const object = fiber.pending.object;
    const int owner = World::stack_owner(object);
    if (owner < 0) [[likely]] {
        return;
    }
    if (owner == fiber.number) {
        fiber.dead.remove(object);
        return;
    }
    const bool stands_still = !on_threads && owner < nr_tasks_;
    if (stands_still &&
        (at(owner).is_finished || object < at(owner).context || at(owner).dead.contains(object))) {
        const World::Outside outside;
        fail(dead_object("use after return: the call whose stack this was has ended",
                         "on the stack of " + at(owner).name, fiber.pending.where));
    }
}

void object_lives(const void* object) {
    Fiber& fiber = current_fiber();
    if (World::stack_owner(object) == fiber.number && fiber.dead.contains(object)) {
        // From here on nobody sees that a late touch is one.
        scheduler().note_death(object);
        fiber.dead.remove(object);
    }
}
void object_dies(const void* object) {
    Fiber& fiber = current_fiber();
    scheduler().note_death(object);
    if (World::stack_owner(object) == fiber.number) {
        fiber.dead.add(object);
    } else {
        ObjectUses::note(scheduler().uses_.at(object), fiber.number, true, fiber.held);
    }
}

void assert_task_lives(int task, Where where) {
    Scheduler& s = scheduler();
    if (running != nullptr && task < s.nr_tasks_ && s.at(task).is_finished) {
        const World::Outside outside;
        s.fail(
            dead_object("use after free: a task is woken that has ended", s.at(task).name, where));
    }
}

void Scheduler::record_event(const Fiber& fiber, bool merged) {
    const World::Outside outside;
    close_event();
    Event event;
    event.task = fiber.number;
    event.has_turn = !merged;
    event.op = fiber.pending;
    event.before = value_at(event.op);
    // The chain of frame pointers, as far as it stays on this stack.
    const auto* frame = static_cast<void* const*>(__builtin_frame_address(0));
    while (event.return_addresses.size() < kMaxFrames) {
        const auto* const at = reinterpret_cast<const std::byte*>(frame);
        if (at < fiber.stack_base || at + 2 * sizeof(void*) > fiber.stack_top() ||
            frame[1] == nullptr) {
            break;
        }
        event.return_addresses.push_back(frame[1]);
        const auto* const next = static_cast<void* const*>(frame[0]);
        if (next <= frame) {
            break;
        }
        frame = next;
    }
    record_->push_back(std::move(event));
    event_is_open_ = true;
}

void Scheduler::close_event() {
    if (event_is_open_) {
        Event& event = record_->back();
        event.after = value_at(event.op);
        event_is_open_ = false;
    }
}

void at_point(const char* name, Where where) {
    if (running == nullptr) {
        return;
    }
    Scheduler& s = scheduler();
    if (s.point_rules_ != nullptr) [[unlikely]] {
        s.point_rules_->arrived(name, running->number);
        if (s.point_rules_->holds(name, running->number)) {
            before(OpKind::kPoint, name, 0, 0, where);
        }
        s.point_rules_->passed(name, running->number);
    }
    if (s.record_ != nullptr) [[unlikely]] {
        const World::Outside outside;
        if (!s.record_->empty()) {
            s.record_->back().points.emplace_back(name);
        }
    }
}

void statistic_written(const void* object) {
    scheduler().world().will_write_statistic(object);
}

// --- the scheduler's side

bool Scheduler::can_run(const Fiber& fiber) const {
    const Pending& op = fiber.pending;
    switch (op.kind) {
        case OpKind::kLock: {
            const auto& lock = *static_cast<const LockState*>(op.object);
            return lock.holder == 0 && lock.readers == 0;
        }
        case OpKind::kLockShared:
            return static_cast<const LockState*>(op.object)->holder == 0;
        case OpKind::kPark:
        case OpKind::kParkFor: {
            std::uint32_t token = 0;
            std::memcpy(&token, op.object, sizeof(token));
            return token != 0 || fiber.timed_out;
        }
        case OpKind::kCondSleep:
        case OpKind::kCondSleepFor: {
            const auto& cond = *static_cast<const CondState*>(op.object);
            return fiber.timed_out || std::find(cond.waiters, cond.waiters + cond.count,
                                                fiber.number) == cond.waiters + cond.count;
        }
        case OpKind::kSleep:
            return fiber.timed_out;
        case OpKind::kJoin:
            return at(static_cast<int>(op.argument)).is_finished;
        case OpKind::kPoint:
            return point_rules_->is_open(static_cast<const char*>(op.object), fiber.number);
        default:
            return true;
    }
}

std::uint32_t Scheduler::enabled() {
    if (failure_.kind != Failure::Kind::kNone) {
        return 0;
    }
    std::uint32_t able = 0;
    bool unfinished = in_set_up_;
    for (int i = 0; i < nr_tasks_; ++i) {
        const Fiber& fiber = *fibers_[static_cast<std::size_t>(i)];
        if (!fiber.is_finished) {
            unfinished = unfinished || !fiber.daemon;
            able |= can_run(fiber) ? 1U << i : 0U;
        }
    }
    return able != 0 || !unfinished ? able : pass_time();
}

// Nobody can run: the clock jumps to the next deadline.
std::uint32_t Scheduler::pass_time() {
    Fiber* next = nullptr;
    for (int i = 0; i < nr_tasks_; ++i) {
        Fiber& fiber = *fibers_[static_cast<std::size_t>(i)];
        const bool timed = fiber.pending.kind == OpKind::kParkFor ||
                           fiber.pending.kind == OpKind::kCondSleepFor ||
                           fiber.pending.kind == OpKind::kSleep;
        if (!fiber.is_finished && timed && (next == nullptr || fiber.deadline < next->deadline)) {
            next = &fiber;
        }
    }
    if (next == nullptr) {
        return 0;
    }
    now_ = std::max(now_, next->deadline);
    next->timed_out = true;
    ++nr_timeouts_;
    return 1U << next->number;
}

namespace {

[[noreturn]] void run_body(Fiber& fiber) {
#if defined(WBFAT_MODEL_ASAN)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
    fiber.body();
    before(OpKind::kFinish, &fiber, 0, 0, Where::here());
    fiber.task->end();
    fiber.is_finished = true;
    leave_fiber(Leave::kForEver);
    die("a finished task got a turn");
}

}  // namespace

void Scheduler::resume(Fiber& fiber) {
    const int before = World::allocating_for();
    World::allocate_for(fiber.number);
    Turn* const outer = std::exchange(running, &fiber);
    reset_float_status();
    enter_fiber(fiber);
    running = outer;
    World::allocate_for(before);
    if (record_ != nullptr) {
        close_event();
    }
}

namespace {

[[noreturn]] void* thread_main(void* argument) {
    auto& fiber = *static_cast<Fiber*>(argument);
    fiber.turn.acquire();
    run_body(fiber);
}

void start_thread(Fiber& fiber) {
    pthread_attr_t attributes;
    pthread_t handle{};
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, fiber.stack_base, World::kStackBytes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&handle, &attributes, thread_main, &fiber) != 0) {
        die("a task's thread cannot be started");
    }
    pthread_attr_destroy(&attributes);
    pthread_setname_np(handle, fiber.name.substr(0, 15).c_str());  // what the kernel keeps
}

}  // namespace

void Scheduler::set_back_end(BackEnd back_end) {
    on_threads = back_end == BackEnd::kThreads;
}

// A fresh fiber: its first turn runs it up to its first visible operation.
void Scheduler::prepare(Fiber& fiber) {
    fiber.is_finished = fiber.after_acquisition = fiber.timed_out = false;
    fiber.held = 0;
    fiber.dead = {};
    fiber.pending = {};
    fiber.stack_base = world_.stack(fiber.number);
    if (on_threads) {
        // A task of the scenario is prepared again at the start of the one run: then it is real.
        if (fiber.daemon || !in_set_up_) {
            start_thread(fiber);
        }
        return;
    }
    if (clears_remains) {
        std::memset(fiber.stack_top() - 2 * kDeadBytes, 0, 2 * kDeadBytes);
    }
#if defined(WBFAT_MODEL_ASAN)
    __asan_unpoison_memory_region(fiber.stack_base, World::kStackBytes);
#endif
#if defined(WBFAT_MODEL_TSAN)
    if (fiber.tsan != nullptr) {
        __tsan_destroy_fiber(fiber.tsan);
    }
    fiber.tsan = __tsan_create_fiber(0);
    fiber.is_first_turn = true;
    __tsan_set_fiber_name(fiber.tsan, fiber.name.c_str());
    scheduler_tsan = __tsan_get_current_fiber();
#endif
    fiber.context = context::make_fcontext(fiber.stack_top(), World::kStackBytes,
                                           [](context::transfer_t transfer) {
                                               scheduler_context = transfer.fctx;
                                               run_body(*static_cast<Fiber*>(transfer.data));
                                           });
}

void Scheduler::step(int task) {
    operations_before_step_ = nr_operations_;
    deaths_.clear();
    resume(at(task));
}

int Scheduler::spawn(std::string name, Role role, std::function<void()> body, Daemon daemon) {
    if (nr_tasks_ == kMaxTasks) {
        die("too many tasks");
    }
    const int number = nr_tasks_++;
    Fiber*& slot = fibers_[static_cast<std::size_t>(number)];
    {
        const World::Outside outside;
        if (slot == nullptr) {
            slot = new Fiber;
        }
        slot->number = number;
        slot->name = name;
        slot->purpose.clear();
        slot->daemon = daemon == Daemon::kYes;
    }
    slot->body = std::move(body);
    slot->task = new Task(static_cast<std::uint32_t>(number) + 1, std::move(name), role);
    prepare(*slot);
    return number;
}

int Scheduler::add_task(std::string name, Role role, std::string purpose,
                        std::function<void()> body) {
    const int number = spawn(std::move(name), role, std::move(body), Daemon::kNo);
    const World::Outside outside;
    at(number).purpose = purpose;
    at(number).is_finished = true;  // no turns before begin()
    return number;
}

Task& Scheduler::current_task() {
    if (running != nullptr) {
        return *current_fiber().task;
    }
    if (main_task_ == nullptr) {
        main_task_ = new Task(kMainTask + 1);
    }
    return *main_task_;
}

bool Scheduler::block(const Pending& op, const Nanoseconds* timeout) {
    if (running != nullptr) {
        Fiber& fiber = current_fiber();
        fiber.deadline = now_ + (timeout != nullptr ? *timeout : Nanoseconds(0));
        before(op.kind, op.object, op.argument, op.size_bytes, op.where);
        return !std::exchange(fiber.timed_out, false);
    }
    main_->pending = op;
    while (!can_run(*main_)) {
        const std::uint32_t able = enabled();
        if (able != 0) {
            step(std::countr_zero(able));
        } else if (timeout != nullptr) {
            now_ += *timeout;
            return false;
        } else {
            die("the set-up or the check of a scenario sleeps for ever");
        }
    }
    return true;
}

void Scheduler::set_up(const std::function<void()>& build) {
    in_set_up_ = true;
    nr_tasks_ = nr_set_up_ = 0;
    failure_ = {};
    now_ = std::chrono::seconds(1);
    directly(build);
    for (std::uint32_t able = enabled(); able != 0; able = enabled()) {
        step(std::countr_zero(able));
    }
    in_set_up_ = false;
    nr_set_up_ = nr_tasks_;
    save_daemons();
    world_.snapshot();
}

// The daemons sleep somewhere: from there each run starts.
void Scheduler::save_daemons() {
    set_up_state_.clear();
    set_up_now_ = now_;
    for (int i = 0; i < nr_tasks_; ++i) {
        const Fiber& it = at(i);
        if (it.daemon && !it.is_finished && !on_threads) {
            world_.add_stack_part(static_cast<std::byte*>(it.context), it.stack_top());
        }
        set_up_state_.push_back(state_of(it));
    }
}

void Scheduler::restore_daemons() {
    failure_ = {};
    now_ = set_up_now_;
    nr_tasks_ = nr_set_up_;
    nr_operations_ = 0;
    for (int i = 0; i < nr_tasks_; ++i) {
        put_back(at(i), set_up_state_[static_cast<std::size_t>(i)]);
    }
}

FiberState Scheduler::state_of(const Fiber& fiber) {
    return {.context = fiber.context,
            .pending = fiber.pending,
            .deadline = fiber.deadline,
            .held = fiber.held,
            .dead = fiber.dead,
            .is_finished = fiber.is_finished,
            .after_acquisition = fiber.after_acquisition,
            .timed_out = fiber.timed_out};
}

void Scheduler::put_back(Fiber& fiber, const FiberState& state) {
    fiber.context = state.context;
    fiber.pending = state.pending;
    fiber.deadline = state.deadline;
    fiber.held = state.held;
    fiber.dead = state.dead;
    fiber.is_finished = state.is_finished;
    fiber.after_acquisition = state.after_acquisition;
    fiber.timed_out = state.timed_out;
}

bool Scheduler::save(Checkpoint& into) {
#if defined(WBFAT_MODEL_TSAN) || defined(WBFAT_MODEL_ASAN)
    // A detector remembers what ran, and would not forget it.
    static_cast<void>(into);
    return false;
#else
    const bool sees_more = point_rules_ != nullptr || record_ != nullptr || on_threads;
    if (sees_more || nr_tasks_ != nr_set_up_ || failure_.kind != Failure::Kind::kNone) {
        return false;
    }
    world_.save(into.world);
    into.now = now_;
    into.nr_operations = nr_operations_;
    into.fibers.clear();
    into.stacks.clear();
    for (int i = 0; i < nr_tasks_; ++i) {
        const Fiber& it = at(i);
        into.fibers.push_back(state_of(it));
        if (!it.is_finished) {
            into.stacks.insert(into.stacks.end(), static_cast<std::byte*>(it.context),
                               it.stack_top());
        }
    }
    return true;
#endif
}

bool Scheduler::load(const Checkpoint& from) {
    if (!world_.load(from.world)) {
        return false;
    }
    failure_ = {};
    now_ = from.now;
    nr_operations_ = from.nr_operations;
    nr_tasks_ = nr_set_up_;
    const std::byte* saved = from.stacks.data();
    for (int i = 0; i < nr_tasks_; ++i) {
        Fiber& it = at(i);
        put_back(it, from.fibers[static_cast<std::size_t>(i)]);
        if (it.is_finished) {
            continue;
        }
        auto* const sp = static_cast<std::byte*>(it.context);
        const auto size = static_cast<std::size_t>(it.stack_top() - sp);
        std::memcpy(sp, saved, size);
        saved += size;
    }
    return true;
}

// What comes now comes after all that the tasks did.
void Scheduler::order_after_all() {
#if defined(WBFAT_MODEL_TSAN)
    for (int i = 0; i < nr_tasks_; ++i) {
        __tsan_acquire(&at(i).left);
        at(i).is_first_turn = true;
    }
#endif
}

void Scheduler::begin() {
    is_beginning_ = true;
    order_after_all();
    world_.restore();
    restore_daemons();
    for (int i = 0; i < nr_tasks_; ++i) {
        Fiber& it = at(i);
        if (!it.daemon) {
            prepare(it);
            resume(it);
        }
    }
    is_beginning_ = false;
}

void Scheduler::directly(const std::function<void()>& check) {
    order_after_all();
    World::allocate_for(kMainTask);
    check();
    World::allocate_for(-1);
}

void Scheduler::tear_down(const std::function<void()>& destroy) {
    world_.learn();
    world_.restore();
    restore_daemons();
    in_set_up_ = true;
    directly([&] {
        destroy();
        for (int i = 0; i < nr_tasks_; ++i) {
            at(i).body = nullptr;
            delete std::exchange(at(i).task, nullptr);
        }
        delete std::exchange(main_task_, nullptr);
    });
    in_set_up_ = false;
    order_after_all();
    nr_tasks_ = nr_set_up_ = 0;
    world_.clear();
    uses_.clear();
}

const Pending& Scheduler::pending(int task) const {
    return at(task).pending;
}
bool Scheduler::finished(int task) const {
    return at(task).is_finished;
}
bool Scheduler::is_daemon(int task) const {
    return at(task).daemon;
}
const std::string& Scheduler::name(int task) const {
    return at(task).name;
}
const Task& Scheduler::task(int task) const {
    return *at(task).task;
}
const std::string& Scheduler::purpose(int task) const {
    return at(task).purpose;
}
Role Scheduler::role(int task) const {
    return at(task).task->role();
}

void Scheduler::fail(const Failure& failure) {
    if (failure_.kind == Failure::Kind::kNone) {
        const World::Outside outside;
        failure_ = failure;
        failure_.task = running != nullptr ? running->number : -1;
    }
    if (running != nullptr) {
        leave_fiber(Leave::kForEver);
        die("a failed task got a turn");
    }
}

std::uint64_t Scheduler::state_hash() const {
    std::uint64_t hash = world_.hash() ^ static_cast<std::uint64_t>(now_.count());
    if (point_rules_ != nullptr) [[unlikely]] {
        const std::uint64_t rules = point_rules_->state();
        hash = XXH3_64bits_withSeed(&rules, sizeof(rules), hash);
    }
    for (int i = 0; i < nr_tasks_; ++i) {
        const Fiber& fiber = *fibers_[static_cast<std::size_t>(i)];
        if (fiber.is_finished) {
            hash = mix(hash, static_cast<std::uint64_t>(i) + 1);
            continue;
        }
        const std::uint64_t doing[] = {static_cast<std::uint64_t>(fiber.pending.kind),
                                       reinterpret_cast<std::uintptr_t>(fiber.pending.object),
                                       fiber.pending.argument};
        hash = mix(hash, XXH3_64bits(doing, sizeof(doing)));
        if (i < nr_set_up_ && fiber.daemon &&
            fiber.context == set_up_state_[static_cast<std::size_t>(i)].context) {
            continue;  // sleeps where it slept: what others may change there is the world's
        }
        const auto* const sp = static_cast<const std::byte*>(fiber.context);
        hash = mix(hash, XXH3_64bits(sp, static_cast<std::size_t>(fiber.stack_top() - sp)));
    }
    return hash;
}

}  // namespace wbfat::sync::inline WBFAT_RT::sched
