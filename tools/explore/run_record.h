// One execution of a scenario, written down for people and for pictures.
//
// Plain data: nothing here knows the scheduler or the cache, so that whatever draws, prints or
// stores a run compiles without either. Tasks, pages and steps are named by their index in the
// vectors below; -1 means none.
//
// A step is one visible operation of one task, with everything invisible that follows it: the
// schedule is the sequence of the steps' tasks.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace wbfat::explore {

enum class Verdict : std::uint8_t {
    kOk,              // every task came to its end and the checks at the end hold
    kAssertion,       // a BUG_ON of the cache
    kDeadlock,        // tasks sleep and nobody is left to wake them
    kLostData,        // a check at the end of the scenario failed
    kLivelock,        // the step limit was reached
    kNondeterminism,  // a repetition did not do what it did before
    kDataRace,        // ThreadSanitizer reported one
};
// "ok", "assertion", "deadlock", "lost data", "livelock", "nondeterminism", "data race".
const char* to_string(Verdict verdict);

enum class OpKind : std::uint8_t {
    kStart,  // of the task
    kLoad,
    kStore,
    kReadModifyWrite,
    kLock,  // spin lock, mutex, rwsem; the object says which
    kTryLock,
    kUnlock,
    kLockShared,
    kUnlockShared,
    kPark,
    kUnpark,
    kCondWait,
    kCondNotify,
    kJoin,
    kSleep,  // of a given time; yields to everybody
    kPoint,  // a named point that an ordering rule holds
    kFinish,
};
const char* to_string(OpKind kind);

struct TaskRecord {
    std::string name;     // "CPU1"
    std::string role;     // sync::role_name: "completion"
    std::string purpose;  // "end of the first writeback"
    // In schedules: 'A' for the first. Tasks of the cache itself (the flusher) have lower-case
    // letters and do not count as stuck when they sleep at the end.
    char letter = 'A';
    bool of_the_cache = false;
};

// What is seen of a page between two steps.
struct PageState {
    std::uint64_t flags = 0;  // the bits of cache/page_flags.h
    int lock_owner = -1;      // the task that holds PG_locked; -1: nobody, or nobody known
    std::int32_t refcount = 0;
    std::uint32_t generation = 0;
    bool tag_dirty = false, tag_writeback = false, tag_towrite = false;
    bool in_mapping = false;
};

struct PageRecord {
    std::string name;  // "P", or "P0", "P1" when there are several
    std::uint64_t index = 0;
    PageState initial;
};

struct StepRecord {
    int task = 0;
    OpKind kind = OpKind::kLoad;
    std::string operation;  // "clear PG_writeback", "test PG_writeback = 1", "lock"
    std::string object;     // "P.flags", "i_pages lock", "wait queue lock", "CPU3's wait entry"
    int page = -1;          // the page whose flags or count it touches
    // Who called whom, outermost first, the one that contains the operation last.
    std::vector<std::string> functions;
    std::string file;  // of the operation, from the root of the tree
    int line = 0;
    // The value of an atomic before and after, as its bits.
    std::uint64_t before = 0, after = 0;

    std::vector<std::string> points;  // named points the task passed between this step and its next
    std::vector<PageState> pages;     // after the step, one for each of RunRecord::pages
    std::vector<int> enabled;         // tasks that could have run instead, this one included
    std::vector<int> woken;           // tasks that this step made able to run
    int reads_from = -1;              // the step whose write this one saw; -1: the initial value
    bool is_preemption = false;       // the task before could have gone on
};

// A stretch of time in which a task did nothing: from after step `from` (-1: the start) until
// before step `to` (steps.size(): the end).
struct PauseRecord {
    enum class Why : std::uint8_t { kDelayed, kAsleep };  // could have run; could not
    int task = 0;
    int from = -1;
    int to = 0;
    Why why = Why::kDelayed;
    std::string on;  // kAsleep: "PG_writeback of P", "lock of wait queue"
    // The last named point the task had passed; "" if none.
    std::string after_point;
};

struct SleeperRecord {
    int task = 0;
    std::string on;           // what it waits for
    std::string missed_wake;  // the wake-up that went past it, "" if there was none
};

struct FailureRecord {
    Verdict verdict = Verdict::kOk;
    int task = -1;
    int step = -1;          // the step that failed: the last
    std::string title;      // "BUG at cache/writeback.cc:212 prepare(): P1: PageWriteback after .."
    std::string condition;  // source text of the assertion, or what the check at the end wants
    std::string object;     // to_string(page)
    std::string file;
    int line = 0;
    std::vector<SleeperRecord> sleepers;  // kDeadlock
};

struct RunRecord {
    std::string scenario;
    std::map<std::string, unsigned> parameters;
    std::string protocol;  // as the user wrote it: "5.10", "6.8,wait=if"

    std::vector<TaskRecord> tasks;
    std::vector<PageRecord> pages;
    std::vector<StepRecord> steps;
    std::vector<PauseRecord> pauses;
    FailureRecord failure;

    std::string schedule;  // run-length: "A1 B3 C5 A3 C2"
    unsigned preemptions = 0;
    std::uint64_t execution = 0;  // the how-manieth of the search, from 1; 0: not from a search
    // The share of continuations that fail, before the first step and after each; empty when not
    // computed.
    std::vector<double> inevitability;
};

}  // namespace wbfat::explore
