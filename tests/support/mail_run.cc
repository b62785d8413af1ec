// The record, step by step, with the page's state carried along.
#include "tests/support/mail_run.h"

#include <utility>

#include "cache/page_flags.h"

namespace wbfat::tests {

namespace {

using explore::OpKind;
using explore::PauseRecord;
using explore::RunRecord;
using explore::StepRecord;

using cache::PG_dirty;
using cache::PG_locked;
using cache::PG_uptodate;
using cache::PG_waiters;
using cache::PG_writeback;

class Writer {
public:
    Writer() {
        run.pages.resize(1);
        run.pages[0].name = "P";
        run.pages[0].initial.flags = PG_writeback | PG_dirty | PG_uptodate;
        state_ = run.pages[0].initial;
    }

    StepRecord& step(int task, OpKind kind, const char* operation, const char* object,
                     const char* function) {
        StepRecord step;
        step.task = task;
        step.kind = kind;
        step.operation = operation;
        step.object = object;
        step.functions = {function};
        step.before = step.after = state_.flags;
        step.page = step.object == "P.flags" ? 0 : -1;
        step.pages = {state_};
        run.steps.push_back(step);
        return run.steps.back();
    }

    StepRecord& change(int task, const char* operation, const char* function, std::uint64_t bits) {
        const std::uint64_t before = state_.flags;
        state_.flags ^= bits;
        if ((bits & PG_locked) != 0) {
            state_.lock_owner = (state_.flags & PG_locked) != 0 ? task : -1;
        }
        StepRecord& made = step(task, OpKind::kReadModifyWrite, operation, "P.flags", function);
        made.before = before;
        return made;
    }

    RunRecord run;

private:
    explore::PageState state_;
};

constexpr int kCpu1 = 0;
constexpr int kCpu2 = 1;
constexpr int kCpu3 = 2;

void add_mail_steps(Writer& w) {
    w.change(kCpu1, "clear PG_writeback", "end_page_writeback", PG_writeback).points = {
        "end_writeback:cleared"};
    w.change(kCpu2, "set PG_locked", "lock_page", PG_locked);
    w.change(kCpu2, "set PG_writeback", "set_page_writeback", PG_writeback);
    w.change(kCpu2, "clear PG_locked", "unlock_page", PG_locked);
    w.change(kCpu3, "set PG_locked", "lock_page", PG_locked);
    constexpr const char* kWait = "wait_on_page_writeback";
    w.step(kCpu3, OpKind::kLoad, "test PG_writeback = 1", "P.flags", kWait);
    w.step(kCpu3, OpKind::kLock, "lock", "lock of wait queue", kWait);
    w.change(kCpu3, "set PG_waiters", kWait, PG_waiters);
    w.step(kCpu3, OpKind::kUnlock, "unlock", "lock of wait queue", kWait).points = {"wait:queued"};
    w.step(kCpu1, OpKind::kLock, "lock", "lock of wait queue", "end_page_writeback");
    w.step(kCpu1, OpKind::kUnpark, "wake CPU3", "CPU3", "end_page_writeback").woken = {kCpu3};
    w.change(kCpu1, "clear PG_waiters", "end_page_writeback", PG_waiters);
    w.step(kCpu3, OpKind::kPark, "woken", "CPU3", kWait);
    w.step(kCpu3, OpKind::kLoad, "test PG_writeback = 1", "P.flags", "write_cache_pages");
}

explore::TaskRecord task(char letter, const char* role, const char* purpose) {
    explore::TaskRecord made;
    made.name = std::string("CPU") + static_cast<char>(letter - 'A' + '1');
    made.role = role;
    made.purpose = purpose;
    made.letter = letter;
    return made;
}

PauseRecord delayed(int task, int from, int to, const char* after_point) {
    PauseRecord made;
    made.task = task;
    made.from = from;
    made.to = to;
    made.after_point = after_point;
    return made;
}

PauseRecord asleep(int task, int from, int to, const char* on) {
    PauseRecord made = delayed(task, from, to, "");
    made.why = PauseRecord::Why::kAsleep;
    made.on = on;
    return made;
}

}  // namespace

RunRecord mail_run() {
    Writer w;
    w.run.scenario = "mail";
    w.run.protocol = "5.10";
    w.run.tasks = {task('A', "completion", "ends a writeback"),
                   task('B', "writer", "starts the next"), task('C', "sync", "write_cache_pages")};
    add_mail_steps(w);
    w.run.pauses = {delayed(kCpu1, 0, 9, "end_writeback:cleared"),
                    asleep(kCpu3, 8, 12, "PG_writeback of P")};
    w.run.failure.verdict = explore::Verdict::kAssertion;
    w.run.failure.task = kCpu3;
    w.run.failure.step = 13;
    w.run.failure.title = "BUG at cache/writeback.cc: PageWriteback after the wait";
    w.run.failure.condition = "page_test(page, PG_writeback)";
    w.run.schedule = "A1 B3 C5 A3 C2";
    w.run.preemptions = 1;
    w.run.execution = 8;
    w.run.inevitability = {.034, .066, .21, .29, .40, .57, .80, 1, 1, 1, 1, 1, 1, 1, 1};
    return std::move(w.run);
}

RunRecord lost_wake_run() {
    Writer w;
    w.run.scenario = "two";
    w.run.protocol = "6.8";
    w.run.tasks = {task('A', "completion", ""), task('B', "sync", "")};
    w.step(kCpu2, OpKind::kLoad, "test PG_writeback = 1", "P.flags", "wait_on_page_writeback");
    w.change(kCpu1, "clear PG_writeback", "end_page_writeback", PG_writeback);
    w.change(kCpu2, "set PG_waiters", "wait_on_page_writeback", PG_waiters);
    w.run.pauses = {asleep(kCpu2, 2, 3, "PG_writeback of P")};
    w.run.failure.verdict = explore::Verdict::kDeadlock;
    w.run.failure.title = "deadlock";
    w.run.failure.sleepers.push_back({kCpu2, "PG_writeback of P", "CPU1 found no waiter"});
    w.run.schedule = "B1 A1 B1";
    return std::move(w.run);
}

}  // namespace wbfat::tests
