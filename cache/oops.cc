// The report of a failed assertion: gathering, keeping, printing.
#include "cache/oops.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <map>
#include <utility>

#include "cache/address_space.h"
#include "cache/assertions.h"
#include "cache/base/backtrace.h"
#include "cache/lanes.h"
#include "cache/protocol.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

constexpr std::size_t kMaxHistory = 40;
constexpr std::size_t kMaxStack = 24;
// What is looked at to find the holder of the lock and the waiters.
constexpr std::size_t kWholeHistory = ~std::size_t{0} >> 1;

struct Reports {
    sync::Mutex mutex;
    OopsOptions options GUARDED_BY(mutex);
    std::deque<Oops> kept GUARDED_BY(mutex);
    std::uint64_t nr_made GUARDED_BY(mutex) = 0;
    sync::Nanoseconds burst_start GUARDED_BY(mutex){0};
    std::size_t burst_size GUARDED_BY(mutex) = 0;
    std::size_t nr_suppressed GUARDED_BY(mutex) = 0;
};

Reports& reports() {
    // Never destroyed: a detached thread may fail while the process exits.
    static auto* const kReports = new Reports;
    return *kReports;
}

double microseconds(sync::Nanoseconds duration) {
    return std::chrono::duration<double, std::micro>(duration).count();
}

std::string human(sync::Nanoseconds duration) {
    const double us = microseconds(duration);
    if (us < 1e3) {
        return fmt::format("{:.1f} us", us);
    }
    return us < 1e6 ? fmt::format("{:.1f} ms", us / 1e3) : fmt::format("{:.1f} s", us / 1e6);
}

std::string task_name(const Trace& trace, std::uint32_t id) {
    const auto task = std::find_if(trace.tasks.begin(), trace.tasks.end(),
                                   [id](const TraceTask& t) { return t.id == id; });
    return task != trace.tasks.end() ? task->name : fmt::format("task {}", id);
}

// Who has locked and not unlocked; a lock that was handed over counts from when its new owner saw
// it.
void find_lock_holder(const Trace& trace, sync::Nanoseconds now, OopsPage& page) {
    for (auto event = trace.events.rbegin(); event != trace.events.rend(); ++event) {
        if (event->kind == TraceKind::kUnlock) {
            return;
        }
        if (event->kind == TraceKind::kLock) {
            page.locked_by = task_name(trace, event->task_id);
            page.locked_for = now - event->time;
            return;
        }
    }
}

// Whose last wait for this page has begun and not ended.
void find_waiters(const Trace& trace, sync::Nanoseconds now, OopsPage& page) {
    std::map<std::uint32_t, const TraceEvent*> waiting;
    for (const TraceEvent& event : trace.events) {
        if (event.kind == TraceKind::kWaitBegin) {
            waiting[event.task_id] = &event;
        } else if (event.kind == TraceKind::kWaitEnd) {
            waiting.erase(event.task_id);
        }
    }
    for (const auto& [id, begin] : waiting) {
        page.waiters.push_back({task_name(trace, id),
                                page_flags_to_string(static_cast<std::uint32_t>(begin->detail)),
                                now - begin->time});
    }
    std::sort(page.waiters.begin(), page.waiters.end(),
              [](const OopsWaiter& a, const OopsWaiter& b) { return a.waited > b.waited; });
}

OopsPage describe_page(const Page& page, sync::Nanoseconds now) {
    OopsPage described;
    described.index = page.index;
    if (const AddressSpace* mapping = page.mapping.peek()) {
        described.mapping = mapping->name();
        described.address_space = mapping;
    }
    const std::uint64_t flags = page.flags.peek();
    described.flags = page_flags_to_string(flags);
    described.refcount = page.refcount.peek();
    described.generation = page.generation.peek();
    described.history = read_page_history(page, kWholeHistory);
    if ((flags & PG_locked) != 0) {
        find_lock_holder(described.history, now, described);
    }
    find_waiters(described.history, now, described);
    std::vector<TraceEvent>& events = described.history.events;
    if (events.size() > kMaxHistory) {
        events.erase(events.begin(), events.end() - static_cast<std::ptrdiff_t>(kMaxHistory));
    }
    return described;
}

std::string changed_assertions() {
    std::string text;
    for (const AssertionInfo& info : all_assertions()) {
        if (const AssertionState state = assertion_state(info.id); state != info.default_state) {
            text += fmt::format("{}{}:{}", text.empty() ? "" : ",", info.name, state_name(state));
        }
    }
    return text;
}

void print(const Oops& oops) {
    const std::string text = to_string(oops);
    // A report that cannot be printed must not keep the handler from running.
    static_cast<void>(std::fwrite(text.data(), 1, text.size(), stderr));
    static_cast<void>(std::fflush(stderr));
}

// Whether one more may be made now.
bool within_burst(Reports& all, sync::Nanoseconds now) REQUIRES(all.mutex) {
    if (all.burst_size == 0 || now - all.burst_start > kOopsInterval) {
        all.burst_start = now;
        all.burst_size = 0;
    }
    return ++all.burst_size <= all.options.max_burst;
}

void report_oops(const BugReport& report) {
    Reports& all = reports();
    const sync::MutexLock lock(all.mutex);
    if (!within_burst(all, sync::monotonic_now())) {
        ++all.nr_suppressed;
        return;
    }
    Oops oops = make_oops(report);
    oops.number = ++all.nr_made;
    if (all.options.volume_state) {
        oops.volume = all.options.volume_state();
    }
    if (all.nr_suppressed != 0) {
        oops.title += fmt::format(" ({} before it were not reported)", all.nr_suppressed);
        all.nr_suppressed = 0;
    }
    if (all.options.sink) {
        all.options.sink(oops);
    } else {
        print(oops);
    }
    all.kept.push_back(std::move(oops));
    if (all.kept.size() > kMaxOopses) {
        all.kept.pop_front();
    }
}

void append_field(std::string& text, const char* name, const std::string& value) {
    if (!value.empty()) {
        text += fmt::format("  {:<11}{}\n", name, value);
    }
}

std::string describe_page_line(const OopsPage& page) {
    return fmt::format("index {} of {}, {}, refs {}, generation {}", page.index,
                       page.mapping.empty() ? "no mapping" : fmt::format("'{}'", page.mapping),
                       page.flags, page.refcount, page.generation);
}

// What a thread is called in the whole report: its name, with its number where another has it too.
struct Lanes {
    std::vector<std::uint32_t> tasks;  // in the order in which they appear
    std::vector<std::string> names;

    [[nodiscard]] std::size_t of(std::uint32_t task) const {
        return static_cast<std::size_t>(std::find(tasks.begin(), tasks.end(), task) -
                                        tasks.begin());
    }
};

Lanes lanes_of(const Trace& history) {
    Lanes lanes;
    for (const TraceEvent& event : history.events) {
        if (lanes.of(event.task_id) < lanes.tasks.size()) {
            continue;
        }
        std::string name = task_name(history, event.task_id);
        if (std::find(lanes.names.begin(), lanes.names.end(), name) != lanes.names.end()) {
            name += fmt::format(" #{}", event.task_id);
        }
        lanes.tasks.push_back(event.task_id);
        lanes.names.push_back(std::move(name));
    }
    return lanes;
}

// Walks back from the failed check of PG_writeback through the history of its page.
class WritebackStory {
public:
    explicit WritebackStory(const Trace& history)
        : events_(history.events), lanes_(lanes_of(history)) {}

    std::vector<StorySentence> told() {
        const int failed = last(size(), [](const TraceEvent& event) {
            return event.kind == TraceKind::kBug &&
                   event.detail == static_cast<std::uint64_t>(Assertion::kBugOnWriteback);
        });
        if (failed < 0 || (at(failed).flags & PG_writeback) == 0) {
            return {};
        }
        generation_ = at(failed).generation;
        const int set =
            last(failed, [this](const TraceEvent& event) { return changes_writeback(event); });
        if (set < 0 || at(set).kind != TraceKind::kSetWriteback) {
            return {};
        }
        story_.flag = "PG_writeback";
        story_.is_writeback = true;
        story_.what = "BUG_ON(PageWriteback(page))";
        story_.failed = step(failed);
        story_.set = step(set);
        find_late_wake(failed, set);
        return tell(story_);
    }

private:
    [[nodiscard]] int size() const {
        return static_cast<int>(events_.size());
    }
    [[nodiscard]] const TraceEvent& at(int place) const {
        return events_[static_cast<std::size_t>(place)];
    }
    [[nodiscard]] StoryStep step(int place) const {
        return {place, lanes_.names[lanes_.of(at(place).task_id)]};
    }
    // The last event before `end` that fits; -1: none.
    template <typename Fits>
    [[nodiscard]] int last(int end, const Fits& fits) const {
        while (--end >= 0 && !fits(at(end))) {
        }
        return end;
    }
    [[nodiscard]] int last_of(std::uint32_t task, int end) const {
        return last(end, [task](const TraceEvent& event) { return event.task_id == task; });
    }
    // In this life of the frame.
    [[nodiscard]] bool changes_writeback(const TraceEvent& event) const {
        return event.generation == generation_ &&
               (event.kind == TraceKind::kSetWriteback || event.kind == TraceKind::kClearWriteback);
    }

    // Whether the failing task, just before, slept for the writeback that was `set` and was woken
    // by the end of an earlier one. Anything else is another story.
    void find_late_wake(int failed, int set) {
        const std::uint32_t task = at(failed).task_id;
        const int awake = last_of(task, failed);
        const int slept = awake < 0 ? -1 : last_of(task, awake);
        if (slept < set || at(awake).kind != TraceKind::kWaitEnd ||
            at(awake).detail != PG_writeback || at(slept).kind != TraceKind::kWaitBegin ||
            at(slept).detail != PG_writeback) {
            return;
        }
        const int woke = last(awake, [task](const TraceEvent& event) {
            return event.kind == TraceKind::kWake &&
                   event.detail == trace_wake_detail(PG_writeback, task);
        });
        if (woke < slept) {
            return;
        }
        const std::uint32_t waker = at(woke).task_id;
        const int ended = last(set, [&](const TraceEvent& event) {
            return event.task_id == waker && changes_writeback(event);
        });
        if (ended < 0 || at(ended).kind != TraceKind::kClearWriteback) {
            return;
        }
        const int woke_before = last(woke, [waker](const TraceEvent& event) {
            return event.task_id == waker && event.kind == TraceKind::kWake;
        });
        story_.ended = step(ended);
        story_.is_late = woke_before < ended;
        story_.slept = step(slept);
        story_.slept_on_flag = true;
        story_.woke = step(woke);
    }

    const std::vector<TraceEvent>& events_;
    const Lanes lanes_;
    std::uint32_t generation_ = 0;
    FailureStory story_;
};

// In lines that a terminal has room for, all but the first indented.
std::string wrapped(const std::string& text, std::size_t indent) {
    constexpr std::size_t kMostColumns = 100;
    std::string lines;
    std::size_t column = indent;
    std::size_t begin = 0;
    while (begin < text.size()) {
        const std::size_t end = std::min(text.find(' ', begin), text.size());
        if (column > indent && column + 1 + (end - begin) > kMostColumns) {
            lines += "\n" + std::string(indent, ' ');
            column = indent;
        } else if (column > indent) {
            lines += ' ';
            ++column;
        }
        lines.append(text, begin, end - begin);
        column += end - begin;
        begin = end + 1;
    }
    return lines;
}

std::string plain_words(const Oops& oops) {
    std::string text;
    int number = 0;
    for (const StorySentence& sentence : explain(oops)) {
        const TraceEvent& event =
            oops.page->history.events[static_cast<std::size_t>(sentence.place)];
        const std::string head = fmt::format("    ({}) {:>9.1f}  ", ++number,
                                             microseconds(event.time - oops.monotonic_time));
        text += head + wrapped(sentence.text, head.size()) + "\n";
    }
    return text;
}

}  // namespace

std::vector<StorySentence> explain(const Oops& oops) {
    return oops.page && oops.assertion == assertion_info(Assertion::kBugOnWriteback).name
               ? WritebackStory(oops.page->history).told()
               : std::vector<StorySentence>{};
}

Oops make_oops(const BugReport& report) {
    Oops oops;
    oops.time = std::chrono::system_clock::now();
    oops.monotonic_time = sync::monotonic_now();
    oops.severity = report.severity;
    oops.title = report.title();
    oops.assertion = report.assertion;
    oops.condition = report.condition;
    oops.file = report.file;
    oops.function = report.function;
    oops.line = report.line;
    const sync::Task& task = sync::current_task();
    oops.task = task.name();
    oops.role = sync::role_name(task.role());
    if (report.page != nullptr) {
        oops.page = describe_page(*report.page, oops.monotonic_time);
    } else {
        oops.object = report.object;
    }
    oops.stack = describe_stack(0, kMaxStack);
    oops.protocol = to_string(current_protocol());
    oops.assertions = changed_assertions();
    return oops;
}

std::string draw_history(const Oops& oops) {
    if (!oops.page || oops.page->history.events.empty()) {
        return {};
    }
    const Trace& history = oops.page->history;
    const Lanes lanes = lanes_of(history);
    std::vector<LaneRow> rows;
    std::uint32_t generation = history.events.front().generation;
    for (const TraceEvent& event : history.events) {
        std::string text = describe(event, history.tasks);
        if (event.generation != generation) {
            generation = event.generation;
            text += fmt::format(" [generation {}]", generation);
        }
        rows.push_back({lanes.of(event.task_id), std::move(text),
                        fmt::format("{:.1f}", microseconds(event.time - oops.monotonic_time))});
    }
    LaneStyle style;
    style.indent = 4;
    return draw_lanes(lanes.names, rows, style);
}

std::string to_string(const Oops& oops) {
    std::string text = "------------[ cut here ]------------\n";
    text += oops.title + "\n";
    append_field(text, "when",
                 fmt::format("{:%Y-%m-%d %H:%M:%S}", fmt::gmtime(oops.time)) + " UTC");
    append_field(text, "task", fmt::format("'{}' ({})", oops.task, oops.role));
    append_field(text, "condition", oops.condition);
    append_field(text, "object", oops.object);
    if (oops.page) {
        append_field(text, "page", describe_page_line(*oops.page));
        if (!oops.page->locked_by.empty()) {
            append_field(
                text, "locked by",
                fmt::format("'{}', for {}", oops.page->locked_by, human(oops.page->locked_for)));
        }
        for (const OopsWaiter& waiter : oops.page->waiters) {
            append_field(text, "waiting",
                         fmt::format("'{}' for {}, since {}", waiter.task, waiter.bit,
                                     human(waiter.waited)));
        }
    }
    append_field(text, "protocol", oops.protocol);
    append_field(text, "assertions", oops.assertions.empty() ? "as by default" : oops.assertions);
    append_field(text, "volume", oops.volume);
    if (const std::string words = plain_words(oops); !words.empty()) {
        text += "  in plain words, each with its time in microseconds before the failure:\n\n";
        text += words + "\n";
    }
    if (const std::string history = draw_history(oops); !history.empty()) {
        text += "  what happened to this page, in microseconds before the failure:\n\n";
        text += history + "\n";
    } else if (oops.page) {
        text += trace_enabled() ? "  nothing of this page is left in the trace\n"
                                : "  the trace is off: what happened to this page is not known\n";
    }
    text += "  stack:\n";
    for (const std::string& frame : oops.stack) {
        text += fmt::format("    {}\n", frame);
    }
    return text + "---[ end of report ]---\n";
}

void install_oops_reports(OopsOptions options) {
    load_unwinder();
    Reports& all = reports();
    {
        const sync::MutexLock lock(all.mutex);
        all.options = std::move(options);
    }
    set_bug_reporter(report_oops);
}

void remove_oops_reports() {
    set_bug_reporter(nullptr);
    Reports& all = reports();
    const sync::MutexLock lock(all.mutex);
    all.options = {};
}

std::uint64_t last_oops_number() {
    Reports& all = reports();
    const sync::MutexLock lock(all.mutex);
    return all.nr_made;
}

std::vector<Oops> kept_oopses() {
    Reports& all = reports();
    const sync::MutexLock lock(all.mutex);
    return {all.kept.begin(), all.kept.end()};
}

void forget_oopses() {
    Reports& all = reports();
    const sync::MutexLock lock(all.mutex);
    all.kept.clear();
    all.burst_size = 0;
    all.nr_suppressed = 0;
}

}  // namespace wbfat::cache::inline WBFAT_RT
