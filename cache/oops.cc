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

}  // namespace

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
    std::vector<std::uint32_t> order;  // task ids, in the order in which they appear
    std::vector<std::string> lanes;
    std::vector<LaneRow> rows;
    std::uint32_t generation = history.events.front().generation;
    for (const TraceEvent& event : history.events) {
        auto lane = std::find(order.begin(), order.end(), event.task_id);
        if (lane == order.end()) {
            order.push_back(event.task_id);
            std::string name = task_name(history, event.task_id);
            if (std::find(lanes.begin(), lanes.end(), name) != lanes.end()) {
                name += fmt::format(" #{}", event.task_id);
            }
            lanes.push_back(std::move(name));
            lane = order.end() - 1;
        }
        std::string text = describe(event, history.tasks);
        if (event.generation != generation) {
            generation = event.generation;
            text += fmt::format(" [generation {}]", generation);
        }
        rows.push_back({static_cast<std::size_t>(lane - order.begin()), std::move(text),
                        fmt::format("{:.1f}", microseconds(event.time - oops.monotonic_time))});
    }
    LaneStyle style;
    style.indent = 4;
    return draw_lanes(lanes, rows, style);
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
