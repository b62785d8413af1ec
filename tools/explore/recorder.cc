// Runs a schedule once more and writes it down.
#include "tools/explore/recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <optional>
#include <unordered_map>
#include <utility>

#include "cache/address_space.h"
#include "cache/page_flags.h"

#include "tools/explore/symbols.h"

namespace wbfat::explore {

namespace {

using sync::sched::Event;
using sync::sched::Pending;
using sync::sched::Scheduler;
using Op = sync::sched::OpKind;

OpKind kind_of(Op kind) {
    switch (kind) {
        case Op::kLoad:
            return OpKind::kLoad;
        case Op::kStore:
            return OpKind::kStore;
        case Op::kExchange:
        case Op::kCompareExchange:
        case Op::kFetchAdd:
        case Op::kFetchSub:
        case Op::kSubAndSign:
        case Op::kFetchOr:
        case Op::kFetchAnd:
        case Op::kFetchXor:
            return OpKind::kReadModifyWrite;
        case Op::kLock:
            return OpKind::kLock;
        case Op::kLockShared:
            return OpKind::kLockShared;
        case Op::kTryLock:
            return OpKind::kTryLock;
        case Op::kUnlock:
            return OpKind::kUnlock;
        case Op::kUnlockShared:
            return OpKind::kUnlockShared;
        case Op::kPark:
        case Op::kParkFor:
            return OpKind::kPark;
        case Op::kUnpark:
            return OpKind::kUnpark;
        case Op::kCondEnqueue:
        case Op::kCondSleep:
        case Op::kCondSleepFor:
            return OpKind::kCondWait;
        case Op::kCondNotifyOne:
        case Op::kCondNotifyAll:
            return OpKind::kCondNotify;
        case Op::kJoin:
            return OpKind::kJoin;
        case Op::kSleep:
        case Op::kYield:
            return OpKind::kSleep;
        case Op::kPoint:
            return OpKind::kPoint;
        case Op::kSpawn:
            return OpKind::kStart;
        case Op::kFinish:
            return OpKind::kFinish;
    }
    return OpKind::kLoad;
}

bool writes(Op kind) {
    return kind != Op::kLoad;
}

// "A|B" for the bits that went on and off: "set PG_dirty, clear PG_writeback".
std::string flag_change(std::uint64_t before, std::uint64_t after) {
    std::string text;
    if (const std::uint64_t on = after & ~before) {
        text += "set " + cache::page_flags_to_string(on);
    }
    if (const std::uint64_t off = before & ~after) {
        text += (text.empty() ? "clear " : ", clear ") + cache::page_flags_to_string(off);
    }
    return text.empty() ? "no change, " + cache::page_flags_to_string(after) : text;
}

class Recorder {
public:
    explicit Recorder(Session& session)
        : session_(session),
          scheduler_(session.scheduler()),
          observed_(session.scenario().pages()),
          objects_(session.scenario().objects()) {}

    RunRecord run(const std::vector<Turn>& turns) {
        scheduler_.set_merging(Scheduler::Merging::kOff);
        scheduler_.set_hashing(Scheduler::Hashing::kOff);
        session_.begin();
        describe();
        std::vector<Event> events;
        scheduler_.record(&events);
        for (const Turn& turn : turns) {
            for (unsigned i = 0; i < turn.operations; ++i) {
                const std::uint32_t able = scheduler_.enabled();
                if ((able >> turn.task & 1U) == 0) {
                    break;
                }
                step(turn.task, able, events);
            }
        }
        for (std::uint32_t able = scheduler_.enabled();
             able != 0 && scheduler_.nr_operations() < Session::kMaxOperations;
             able = scheduler_.enabled()) {
            const bool goes_on = last_ >= 0 && (able >> last_ & 1U) != 0;
            step(goes_on ? last_ : std::countr_zero(able), able, events);
        }
        scheduler_.record(nullptr);
        finish();
        return std::move(record_);
    }

private:
    void describe() {
        record_.scenario = session_.options().scenario;
        record_.parameters = session_.parameters().all();
        record_.protocol = session_.options().protocol;
        for (int i = 0; i < scheduler_.nr_tasks(); ++i) {
            record_.tasks.push_back(
                {.name = scheduler_.name(i),
                 .role = std::string(sync::role_name(scheduler_.task(i).role())),
                 .purpose = scheduler_.purpose(i),
                 .letter = session_.letter(i),
                 .of_the_cache = scheduler_.is_daemon(i)});
        }
        owners_.assign(observed_.size(), -1);
        for (std::size_t i = 0; i < observed_.size(); ++i) {
            record_.pages.push_back({.name = observed_[i].name,
                                     .index = observed_[i].page->index,
                                     .initial = state_of(i)});
        }
    }

    PageState state_of(std::size_t i) const NO_THREAD_SAFETY_ANALYSIS {  // nobody else runs
        const cache::Page& page = *observed_[i].page;
        PageState state;
        state.flags = page.flags.peek();
        state.refcount = page.refcount.peek();
        state.generation = page.generation.peek();
        state.lock_owner = owners_[i];
        if (const cache::AddressSpace* const mapping = page.mapping.peek()) {
            state.in_mapping = true;
            state.tag_dirty =
                mapping->i_pages.get_tag_locked(page.index, cache::PAGECACHE_TAG_DIRTY);
            state.tag_writeback =
                mapping->i_pages.get_tag_locked(page.index, cache::PAGECACHE_TAG_WRITEBACK);
            state.tag_towrite =
                mapping->i_pages.get_tag_locked(page.index, cache::PAGECACHE_TAG_TOWRITE);
        }
        return state;
    }

    void step(int task, std::uint32_t able, std::vector<Event>& events) {
        const std::size_t first = events.size();
        scheduler_.step(task);
        if (events.size() == first) {
            return;  // a task's last stretch without an operation
        }
        const Event& event = events[first];
        const std::uint32_t able_now = scheduler_.enabled();
        StepRecord step;
        step.task = task;
        step.kind = kind_of(event.op.kind);
        step.before = event.before;
        step.after = event.after;
        step.line = event.op.where.line();
        step.file = event.op.where.file();
        if (const auto tree = step.file.find("cache/"); tree != std::string::npos) {
            step.file.erase(0, tree);
        }
        name_object(event, step);
        name_functions(event, step);
        step.points = event.points;
        for (int i = 0; i < scheduler_.nr_tasks(); ++i) {
            if ((able >> i & 1U) != 0) {
                step.enabled.push_back(i);
            }
            if ((able_now & ~able) >> i & 1U && i != task) {
                step.woken.push_back(i);
            }
        }
        step.is_preemption = is_preemption(able, last_, task);
        record_.preemptions += step.is_preemption ? 1U : 0U;
        const auto written = writers_.find(event.op.object);
        step.reads_from = written != writers_.end() ? written->second : -1;
        if (writes(event.op.kind)) {
            writers_[event.op.object] = static_cast<int>(record_.steps.size());
        }
        follow_lock(event, step);
        for (std::size_t i = 0; i < observed_.size(); ++i) {
            step.pages.push_back(state_of(i));
        }
        turns_.push_back({static_cast<std::uint8_t>(task), 1});
        able_.push_back(able);
        last_ = task;
        record_.steps.push_back(std::move(step));
    }

    // Who holds PG_locked: whoever set it, or whom the waker set it for.
    void follow_lock(const Event& event, const StepRecord& step) {
        if (step.page < 0 ||
            event.op.object != &observed_[static_cast<std::size_t>(step.page)].page->flags) {
            return;
        }
        int& owner = owners_[static_cast<std::size_t>(step.page)];
        const bool was = (event.before & cache::PG_locked) != 0;
        const bool is = (event.after & cache::PG_locked) != 0;
        if (was && !is) {
            owner = -1;
        } else if (!was && is) {
            owner = step.task;
        }
    }

    void name_object(const Event& event, StepRecord& step) {
        const auto* const at = static_cast<const std::byte*>(event.op.object);
        for (std::size_t i = 0; i < observed_.size(); ++i) {
            const auto* const page = reinterpret_cast<const std::byte*>(observed_[i].page);
            if (at >= page && at < page + sizeof(cache::Page)) {
                step.page = static_cast<int>(i);
            }
        }
        step.object = object_name(event.op);
        const bool is_flags =
            step.page >= 0 &&
            event.op.object == &observed_[static_cast<std::size_t>(step.page)].page->flags;
        if (!is_flags) {
            step.operation = to_string(step.kind);
            if (event.op.size_bytes != 0 && event.op.kind == Op::kLoad) {
                step.operation += fmt::format(" {:#x}", event.before);
            } else if (event.op.size_bytes != 0 && step.kind != OpKind::kPark &&
                       step.kind != OpKind::kUnpark) {
                step.operation += fmt::format(" {:#x} -> {:#x}", event.before, event.after);
            }
        } else if (event.op.kind == Op::kLoad) {
            step.operation = "read " + cache::page_flags_to_string(event.before);
        } else {
            step.operation = flag_change(event.before, event.after);
        }
    }

    std::string object_name(const Pending& op) const {
        const auto* const at = static_cast<const std::byte*>(op.object);
        for (const NamedObject& object : objects_) {
            const auto* const start = static_cast<const std::byte*>(object.start);
            if (at >= start && at < start + object.size_bytes) {
                return object.name;
            }
        }
        for (int i = 0; i < scheduler_.nr_tasks(); ++i) {
            const auto* const stack = scheduler_.world().stack(i);
            if (at >= stack && at < stack + sync::sched::World::kStackBytes) {
                return scheduler_.name(i) + "'s wait entry";
            }
            const auto* const task = reinterpret_cast<const std::byte*>(&scheduler_.task(i));
            if (at >= task && at < task + sizeof(sync::Task)) {
                return scheduler_.name(i);
            }
        }
        for (std::size_t i = 0; i < observed_.size(); ++i) {
            const auto* const page = reinterpret_cast<const std::byte*>(observed_[i].page);
            if (at >= page && at < page + sizeof(cache::Page)) {
                return observed_[i].name;
            }
        }
        if (sync::sched::World::is_global(op.object)) {
            return "wait queue";
        }
        return op.kind == Op::kPoint ? std::string(static_cast<const char*>(op.object)) : "";
    }

    void name_functions(const Event& event, StepRecord& step) const {
        static const Symbols kSymbols;
        for (auto it = event.return_addresses.rbegin(); it != event.return_addresses.rend(); ++it) {
            const std::string name = kSymbols.function_at(*it);
            if (!name.empty() && (step.functions.empty() || step.functions.back() != name)) {
                step.functions.push_back(name);
            }
        }
        const std::string innermost = plain_name(event.op.where.function());
        if (step.functions.empty() || !step.functions.back().ends_with(innermost)) {
            step.functions.push_back(innermost);
        }
    }

    // What a task that cannot run waits for.
    std::string waits_for(int task) const {
        const Pending& op = scheduler_.pending(task);
        if (op.kind == Op::kPark || op.kind == Op::kParkFor) {
            return parked_on(task, record_.steps.size());
        }
        return fmt::format("{} {}", to_string(kind_of(op.kind)), object_name(op));
    }
    // The same of a task that slept for a while from step `from` on: what it did when it was awake
    // again says it.
    std::string waited_for(int task, int from) const {
        for (auto i = static_cast<std::size_t>(std::max(from, 0)); i < record_.steps.size(); ++i) {
            const StepRecord& step = record_.steps[i];
            if (step.task == task) {
                return step.kind == OpKind::kPark
                           ? parked_on(task, i + 1)
                           : fmt::format("{} {}", to_string(step.kind), step.object);
            }
        }
        return waits_for(task);
    }
    // The page it touched last is the page it waits for, unless it waits for something else.
    std::string parked_on(int task, std::size_t end) const {
        std::string page = "a page";
        std::string flag;
        for (std::size_t i = end; i-- > 0 && (flag.empty() || page == "a page");) {
            const StepRecord& step = record_.steps[i];
            if (step.task != task) {
                continue;
            }
            if (flag.empty()) {
                flag = "a wake-up";
                for (const std::string& function : step.functions) {
                    flag = function == "wait_on_page_writeback" ? "PG_writeback"
                           : function.starts_with("lock_page")  ? "PG_locked"
                                                                : flag;
                }
                if (flag == "a wake-up") {
                    return flag;
                }
            }
            if (step.page >= 0) {
                page = record_.pages[static_cast<std::size_t>(step.page)].name;
            }
        }
        return flag.empty() ? "a wake-up" : flag + " of " + page;
    }

    // The last time somebody cleared the bit that the task sleeps on, without waking it.
    std::string missed_wake(const std::string& on) const {
        for (std::size_t i = record_.steps.size(); i-- > 0;) {
            const StepRecord& step = record_.steps[i];
            const std::uint64_t bit =
                on.starts_with("PG_locked") ? cache::PG_locked : cache::PG_writeback;
            if (step.page < 0 || !step.object.ends_with(".flags") ||
                ((step.before ^ step.after) & bit) == 0) {
                continue;
            }
            if ((step.after & bit) != 0) {
                return {};  // set since: the wake-up has not been due yet
            }
            return fmt::format("{} cleared the bit at step {} and woke nobody who sleeps now",
                               record_.tasks[static_cast<std::size_t>(step.task)].name, i + 1);
        }
        return {};
    }

    void finish() {
        FailureRecord& failure = record_.failure;
        failure.verdict = session_.verdict();
        failure.step = static_cast<int>(record_.steps.size()) - 1;
        const sync::sched::Failure& why = scheduler_.failure();
        failure.task = why.task;
        failure.title = session_.outcome(failure.verdict);
        if (failure.verdict == Verdict::kAssertion) {
            failure.title = why.title;
            failure.condition = why.condition;
            failure.object = why.object;
            failure.file = why.file;
            failure.line = why.line;
        } else if (failure.verdict == Verdict::kLostData) {
            failure.condition = session_.lost();
        } else if (failure.verdict == Verdict::kDeadlock) {
            for (int i = 0; i < scheduler_.nr_tasks(); ++i) {
                if (!scheduler_.finished(i) && !scheduler_.is_daemon(i)) {
                    const std::string on = waits_for(i);
                    failure.sleepers.push_back(
                        {.task = i, .on = on, .missed_wake = missed_wake(on)});
                }
            }
        }
        record_.schedule = session_.schedule_text(turns_);
        add_pauses();
    }

    void add_pauses() {
        const int end = static_cast<int>(record_.steps.size());
        for (int task = 0; task < static_cast<int>(record_.tasks.size()); ++task) {
            const bool finished = scheduler_.finished(task);
            int last_own = -1;
            for (int i = 0; i < end; ++i) {
                last_own = record_.steps[static_cast<std::size_t>(i)].task == task ? i : last_own;
            }
            std::optional<PauseRecord> open;
            std::string point;
            const int until = finished ? last_own : end;
            for (int i = 0; i < until; ++i) {
                const StepRecord& step = record_.steps[static_cast<std::size_t>(i)];
                if (step.task == task) {
                    close(open, i);
                    point = step.points.empty() ? point : step.points.back();
                    continue;
                }
                const auto why = (able_[static_cast<std::size_t>(i)] >> task & 1U) != 0
                                     ? PauseRecord::Why::kDelayed
                                     : PauseRecord::Why::kAsleep;
                if (open.has_value() && open->why != why) {
                    close(open, i);
                }
                if (!open.has_value()) {
                    open = PauseRecord{.task = task,
                                       .from = i - 1,
                                       .to = i,
                                       .why = why,
                                       .on = {},
                                       .after_point = point};
                }
            }
            // Who went to sleep with the last step of all.
            if (!finished && last_own == end - 1 && record_.failure.verdict == Verdict::kDeadlock) {
                open = PauseRecord{.task = task,
                                   .from = last_own,
                                   .to = end,
                                   .why = PauseRecord::Why::kAsleep,
                                   .on = {},
                                   .after_point = point};
            }
            if (!finished || open.has_value()) {
                close(open, until);
            }
        }
    }
    void close(std::optional<PauseRecord>& open, int to) {
        if (open.has_value()) {
            open->to = to;
            if (open->why == PauseRecord::Why::kAsleep) {
                open->on = waited_for(open->task, to);
            }
            record_.pauses.push_back(*open);
            open.reset();
        }
    }

    Session& session_;
    Scheduler& scheduler_;
    const std::vector<ObservedPage> observed_;
    const std::vector<NamedObject> objects_;
    std::vector<int> owners_;
    std::unordered_map<const void*, int> writers_;
    std::vector<Turn> turns_;
    std::vector<std::uint32_t> able_;
    int last_ = -1;
    RunRecord record_;
};

}  // namespace

RunRecord record_schedule(Session& session, const std::vector<Turn>& turns) {
    return Recorder(session).run(turns);
}

RunRecord record_counterexample(Session& session, const Counterexample& found) {
    RunRecord record = record_schedule(session, found.turns);
    record.execution = found.execution;
    if (found.verdict == Verdict::kNondeterminism) {
        record.failure = {};
        record.failure.verdict = Verdict::kNondeterminism;
        record.failure.step = static_cast<int>(found.turns.size());
        record.failure.title =
            fmt::format("the scenario is not deterministic at step {}", found.turns.size() + 1);
    }
    return record;
}

}  // namespace wbfat::explore
