// Gives the tasks of a scenario their turns: fibers, what each is about to do, who can.
//
//   Scheduler& s = scheduler();
//   s.set_up([&] { ... objects, add_task ... });      // once
//   for (each run) {
//       s.begin();                                     // everything as after set_up
//       while (std::uint32_t able = s.enabled()) s.step(choose(able));
//       s.end();                                       // why it ended is in failure()
//   }
//   s.tear_down();
//
// A task stands before its next visible operation, which is announced in pending(); step() does it
// and runs on to the next. A search is a loop around these calls; it lives in tools/explore.
//
// An operation on what lay on the stack of a call that has returned, or that wakes a task which has
// ended, fails the run: with real threads it would be a use of freed memory.
//
// Merging (Lipton): what follows an acquisition and what a release does cannot be told apart, by
// anybody who waits for the lock, from happening at once with it. With merging on, a release and
// the first operation after an acquisition are no steps of their own; nor are operations on objects
// that one task alone touches, or that nobody writes, or that have one lock (object_use.h).
//
// Locking: none. One OS thread at a time runs (also with Threads::kYes, where each task is an OS
// thread that waits for its turn on a semaphore).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cache/sync/model.h"
#include "cache/sync/object_use.h"
#include "cache/sync/world.h"

namespace wbfat::sync::inline WBFAT_RT::sched {

struct Fiber;

struct Pending {
    OpKind kind = OpKind::kYield;
    std::uint8_t size_bytes = 0;
    const void* object = nullptr;
    std::uint64_t argument = 0;
    std::uint64_t seen = kSeesAll;
    Where where{};
};

bool is_release(OpKind kind);
bool is_acquisition(OpKind kind);
bool can_block(OpKind kind);

// Why a run ended before its tasks did.
struct Failure {
    enum class Kind : std::uint8_t { kNone, kBug, kNondeterminism };
    Kind kind = Kind::kNone;
    int task = -1;
    std::string title, condition, object, file;
    int line = 0;
};

// An operation as it happened; merged ones follow the one that had the turn.
struct Event {
    int task = 0;
    bool has_turn = false;
    Pending op;
    std::uint64_t before = 0, after = 0;
    std::vector<std::string> points;            // passed after it
    std::vector<const void*> return_addresses;  // innermost first
};

// Makes some passages of named points wait.
class PointRules {
public:
    PointRules() = default;
    virtual ~PointRules() = default;
    PointRules(const PointRules&) = delete;
    PointRules& operator=(const PointRules&) = delete;

    // Comes first, as on a live mount: who is held at a point is there all the same.
    virtual void arrived(const char* point, int task) = 0;
    // Whether this arrival is one that waits; then the passage is an operation of its own.
    virtual bool holds(const char* point, int task) = 0;
    virtual bool is_open(const char* point, int task) = 0;
    virtual void passed(const char* point, int task) = 0;
    // What was passed, as far as it decides about what comes: a part of the state.
    [[nodiscard]] virtual std::uint64_t state() const = 0;
};

// The last objects that died on a task's stack, but for those whose place it uses again. No part of
// a state: whoever still has a pointer to one got it while that lived, and his own stack says so.
class DeadObjects {
public:
    void add(const void* object) {
        if (!contains(object)) {
            places_[next_++ % places_.size()] = object;
        }
    }
    void remove(const void* object) {
        std::replace(places_.begin(), places_.end(), object, static_cast<const void*>(nullptr));
    }
    [[nodiscard]] bool contains(const void* object) const {
        return std::find(places_.begin(), places_.end(), object) != places_.end();
    }

private:
    std::array<const void*, 16> places_{};
    unsigned next_ = 0;
};

// Where a task stands.
struct FiberState {
    void* context = nullptr;
    Pending pending;
    Nanoseconds deadline{0};
    LockSet held = 0;
    DeadObjects dead;
    bool is_finished = false;
    bool after_acquisition = false;
    bool timed_out = false;
};

// While one lives, to load a Setting is an operation: for a scenario in which a task stores to it.
class SettingsMatter {
public:
    SettingsMatter() {
        settings_matter = true;
    }
    ~SettingsMatter() {
        settings_matter = false;
    }
    SettingsMatter(const SettingsMatter&) = delete;
    SettingsMatter& operator=(const SettingsMatter&) = delete;
};

class Scheduler {
public:
    enum class Daemon : std::uint8_t { kNo, kYes };
    enum class Merging : std::uint8_t { kOff, kOn };
    enum class Hashing : std::uint8_t { kOff, kOn };
    // kThreads: every task is an OS thread on the same stack, which sleeps while it is not its
    // turn. For a debugger; slow, and its threads cannot be used for another run.
    enum class BackEnd : std::uint8_t { kFibers, kThreads };

    Scheduler();
    ~Scheduler();
    Scheduler(const Scheduler&) = delete;
    Scheduler& operator=(const Scheduler&) = delete;

    // --- a scenario

    // Runs `build` with the world's memory, lets the threads it started run until they sleep, and
    // takes the snapshot.
    void set_up(const std::function<void()>& build);
    // Within `build`: a task of the scenario. Returns its number.
    int add_task(std::string name, Role role, std::string purpose, std::function<void()> body);
    // Puts everything back, destroys and forgets it.
    void tear_down(const std::function<void()>& destroy);

    // Before set_up().
    static void set_back_end(BackEnd back_end);
    void set_merging(Merging merging) {
        merging_ = merging == Merging::kOn;
    }
    // Clears dead stack memory around each operation, so that equal states have equal stacks.
    void set_hashing(Hashing hashing) {
        clears_remains = hashing == Hashing::kOn;
    }
    // Null: points are no operations.
    void set_point_rules(PointRules* rules) {
        point_rules_ = rules;
        points_matter = point_rules_ != nullptr || record_ != nullptr;
    }

    // --- one run

    void begin();
    // The tasks that can have the next turn, as bits. 0: the run is over.
    [[nodiscard]] std::uint32_t enabled();
    void step(int task);
    // A run as it is now, to go on from here another time instead of repeating it.
    struct Checkpoint {
        World::Checkpoint world;
        Nanoseconds now{0};
        std::uint64_t nr_operations = 0;
        std::vector<FiberState> fibers;
        std::vector<std::byte> stacks;
    };
    // False: not possible here.
    bool save(Checkpoint& into);
    // False, and nothing done, when the checkpoint is too old: begin() and repeat.
    bool load(const Checkpoint& from);
    // Runs a check as the set-up ran, after the last step.
    void directly(const std::function<void()>& check);

    [[nodiscard]] int nr_tasks() const {
        return nr_tasks_;
    }
    // Visible operations done since begin(), merged ones too.
    [[nodiscard]] std::uint64_t nr_operations() const {
        return nr_operations_;
    }
    [[nodiscard]] const Pending& pending(int task) const;
    [[nodiscard]] bool finished(int task) const;
    [[nodiscard]] bool is_daemon(int task) const;
    [[nodiscard]] const std::string& name(int task) const;
    [[nodiscard]] const Task& task(int task) const;
    [[nodiscard]] const std::string& purpose(int task) const;
    [[nodiscard]] Role role(int task) const;
    [[nodiscard]] const Failure& failure() const {
        return failure_;
    }
    // What came to its end in the last step: objects, and the parker of a task that has ended.
    [[nodiscard]] const std::vector<const void*>& deaths() const {
        return deaths_;
    }
    // Ends the run; does not return to a task.
    void fail(const Failure& failure);

    // Of the world and of where every task stands. Equal hashes: equal futures.
    [[nodiscard]] std::uint64_t state_hash() const;
    World& world() {
        return world_;
    }
    ObjectUses& uses() {
        return uses_;
    }
    // Null: off.
    void record(std::vector<Event>* into) {
        record_ = into;
        points_matter = point_rules_ != nullptr || record_ != nullptr;
        event_is_open_ = false;
    }

    // --- for the operations of model.h

    // The running task, or main, waits until the operation can be done. False: the time was up.
    bool block(const Pending& op, const Nanoseconds* timeout);
    [[nodiscard]] Nanoseconds now() const {
        return now_;
    }
    // How often somebody's time was up because nobody could run.
    [[nodiscard]] std::uint64_t nr_timeouts() const {
        return nr_timeouts_;
    }
    int spawn(std::string name, Role role, std::function<void()> body, Daemon daemon);
    Task& current_task();

private:
    friend void wait_for_turn(OpKind, const void*, std::uint64_t, unsigned, Where, std::uint64_t);
    friend void at_point(const char*, Where);
    friend void assert_task_lives(int, Where);
    friend void object_lives(const void*);
    friend void object_dies(const void*);
    friend void took_lock(const void*);
    friend void let_go_of_lock(const void*);

    [[nodiscard]] Fiber& at(int task) const {
        return *fibers_[static_cast<std::size_t>(task)];
    }
    [[nodiscard]] bool can_run(const Fiber& fiber) const;
    std::uint32_t pass_time();
    void assert_object_lives(Fiber& fiber);
    void note_death(const void* object) {
        const World::Outside outside;
        deaths_.push_back(object);
    }
    enum class Merge : std::uint8_t { kNo, kMover, kRelease, kAcquisition };
    Merge note_use(const Fiber& fiber);
    void prepare(Fiber& fiber);
    void resume(Fiber& fiber);
    void order_after_all();
    static FiberState state_of(const Fiber& fiber);
    static void put_back(Fiber& fiber, const FiberState& state);
    void save_daemons();
    void restore_daemons();
    void record_event(const Fiber& fiber, bool merged);
    void close_event();

    World world_;
    ObjectUses uses_;
    std::array<Fiber*, kMaxTasks> fibers_{};
    Fiber* main_;
    Task* main_task_ = nullptr;  // of the world
    int nr_tasks_ = 0;
    int nr_set_up_ = 0;
    std::vector<FiberState> set_up_state_;  // of daemons: where they sleep at the snapshot
    Nanoseconds set_up_now_{0};
    Nanoseconds now_{0};
    std::uint64_t nr_operations_ = 0;
    std::uint64_t nr_timeouts_ = 0;  // of all runs
    std::uint64_t operations_before_step_ = 0;
    bool is_beginning_ = false;
    bool in_set_up_ = false;
    bool merging_ = false;
    Failure failure_;
    std::vector<const void*> deaths_;
    PointRules* point_rules_ = nullptr;
    std::vector<Event>* record_ = nullptr;
    bool event_is_open_ = false;
};

Scheduler& scheduler();

}  // namespace wbfat::sync::inline WBFAT_RT::sched
