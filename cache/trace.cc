// What happened to pages: recording, merging, describing.
#include "cache/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "cache/assertions.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

using Record = sync::TaskRing::Record;

// A record: ticks, page, mapping, index, generation|flags|kind, detail.
constexpr unsigned kGenerationShift = 32;
constexpr unsigned kFlagsShift = 8;
constexpr std::uint64_t kFlagsMask = 0xFF'FFFF;
constexpr std::uint64_t kKindMask = 0xFF;

std::uint64_t pack_state(TraceKind kind, const Page& page) {
    return std::uint64_t{page.generation.peek()} << kGenerationShift |
           (page.flags.peek() & kFlagsMask) << kFlagsShift | static_cast<std::uint64_t>(kind);
}

std::uint64_t address_of(const void* object) {
    return reinterpret_cast<std::uintptr_t>(object);
}

TraceEvent unpack(const Record& record, std::uint32_t task_id, const sync::TickScale& scale) {
    TraceEvent event;
    event.time = scale.to_monotonic(record[0]);
    event.task_id = task_id;
    // Written by pack_state and address_of of this process.
    // NOLINTBEGIN(performance-no-int-to-ptr): a record is words.
    event.page = reinterpret_cast<const Page*>(record[1]);
    event.mapping = reinterpret_cast<const AddressSpace*>(record[2]);
    // NOLINTEND(performance-no-int-to-ptr)
    event.index = record[3];
    event.generation = static_cast<std::uint32_t>(record[4] >> kGenerationShift);
    event.flags = (record[4] >> kFlagsShift) & kFlagsMask;
    event.kind = static_cast<TraceKind>(record[4] & kKindMask);
    event.detail = record[5];
    return event;
}

const TraceTask* find_task(const std::vector<TraceTask>& tasks, std::uint32_t id) {
    const auto found = std::lower_bound(
        tasks.begin(), tasks.end(), id,
        [](const TraceTask& task, std::uint32_t wanted) { return task.id < wanted; });
    return found != tasks.end() && found->id == id ? &*found : nullptr;
}

std::string task_label(const std::vector<TraceTask>& tasks, std::uint32_t id) {
    const TraceTask* const task = find_task(tasks, id);
    return task != nullptr ? fmt::format("'{}'", task->name) : fmt::format("task {}", id);
}

// Events of the pages that `wanted` accepts.
template <typename Wanted>
Trace read_rings(const Wanted& wanted, std::size_t most_of_a_ring = sync::kWholeTaskRing) {
    Trace trace;
    const std::vector<sync::TaskRecords> rings = sync::copy_task_rings(most_of_a_ring);
    const sync::TickScale scale = sync::TickScale::now();
    for (const sync::TaskRecords& ring : rings) {
        trace.tasks.push_back({ring.task_id, ring.task_name, ring.task_role});
        for (const Record& record : ring.records) {
            if (wanted(record)) {
                trace.events.push_back(unpack(record, ring.task_id, scale));
            }
        }
    }
    // Stable: the order within a thread is known for certain.
    std::stable_sort(trace.events.begin(), trace.events.end(),
                     [](const TraceEvent& a, const TraceEvent& b) { return a.time < b.time; });
    return trace;
}

void keep_latest(Trace& trace, std::size_t most) {
    if (trace.events.size() > most) {
        trace.events.erase(trace.events.begin(),
                           trace.events.end() - static_cast<std::ptrdiff_t>(most));
    }
}

}  // namespace

sync::Relaxed<bool> trace_is_on{true};

std::string_view trace_kind_name(TraceKind kind) {
    switch (kind) {
        case TraceKind::kLock:
            return "lock";
        case TraceKind::kUnlock:
            return "unlock";
        case TraceKind::kDirty:
            return "dirty";
        case TraceKind::kClearDirty:
            return "clear dirty";
        case TraceKind::kSetWriteback:
            return "set writeback";
        case TraceKind::kClearWriteback:
            return "clear writeback";
        case TraceKind::kWaitBegin:
            return "wait";
        case TraceKind::kWaitEnd:
            return "woken";
        case TraceKind::kWake:
            return "wake";
        case TraceKind::kSubmit:
            return "submit";
        case TraceKind::kComplete:
            return "complete";
        case TraceKind::kAlloc:
            return "alloc";
        case TraceKind::kInsert:
            return "insert";
        case TraceKind::kRemove:
            return "remove";
        case TraceKind::kFree:
            return "free";
        case TraceKind::kBug:
            return "BUG";
    }
    return "?";
}

void set_trace(TraceState state) {
    trace_is_on.store(state == TraceState::kOn);
}

void set_trace_events_per_thread(std::size_t events) {
    sync::set_task_ring_capacity(std::clamp<std::size_t>(events, 1, kMaxTraceEvents));
}

void forget_trace() {
    sync::forget_task_rings();
}

void append_trace(TraceKind kind, const Page& page, std::uint64_t detail) {
    const std::uint64_t now = sync::ticks();
    sync::current_task_ring().append({now, address_of(&page), address_of(page.mapping.peek()),
                                      page.index, pack_state(kind, page), detail});
}

void append_trace_by_address(TraceKind kind, const Page& page, std::uint64_t detail) {
    const std::uint64_t now = sync::ticks();
    sync::current_task_ring().append(
        {now, address_of(&page), 0, TraceEvent::kUnknownIndex, pack_state(kind, page), detail});
}

Trace read_trace() {
    return read_rings([](const Record&) { return true; });
}

Trace TraceReader::read_new(std::size_t most) {
    std::uint64_t latest = read_to_;
    Trace trace = read_rings(
        [&](const Record& record) {
            latest = std::max(latest, record[0]);
            return record[0] > read_to_;
        },
        most);
    read_to_ = latest;
    keep_latest(trace, most);
    return trace;
}

Trace read_page_history(const Page& page, std::size_t most) {
    const std::uint64_t address = address_of(&page);
    Trace trace = read_rings([address](const Record& record) { return record[1] == address; });
    keep_latest(trace, most);
    return trace;
}

std::string describe(const TraceEvent& event, const std::vector<TraceTask>& tasks) {
    const std::string_view name = trace_kind_name(event.kind);
    const auto low = static_cast<std::uint32_t>(event.detail);
    switch (event.kind) {
        case TraceKind::kLock:
            return event.detail != 0 ? "lock (handed over)" : "lock";
        case TraceKind::kWaitBegin:
        case TraceKind::kWaitEnd:
            return fmt::format("{} ({})", name, page_flags_to_string(low));
        case TraceKind::kWake:
            return fmt::format("{} {} ({})", name,
                               task_label(tasks, static_cast<std::uint32_t>(event.detail >> 32)),
                               page_flags_to_string(low));
        case TraceKind::kSubmit:
            return fmt::format("{} at {:#x}", name, event.detail);
        case TraceKind::kComplete:
            return event.detail != 0 ? fmt::format("{}: error {}", name, event.detail)
                                     : std::string(name);
        case TraceKind::kBug:
            return fmt::format("{}: {}", name,
                               event.detail < kNrAssertions
                                   ? assertion_info(static_cast<Assertion>(event.detail)).name
                                   : "?");
        default:
            return std::string(name);
    }
}

}  // namespace wbfat::cache::inline WBFAT_RT
