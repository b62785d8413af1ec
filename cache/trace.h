// What happened to pages: the last events of every thread, and the history of one page.
//
// Each step of the protocol leaves an event in the ring of its thread (sync/task_ring.h): a time,
// the page and its generation, the flag word. Switched off, trace_page costs one predictable
// branch; switched on, a few dozen nanoseconds and no lock (tools/bench/trace_bench.cc). It is on
// by default with short rings, because a report of a failed assertion is worth reading only with
// the history of its page.
//
// Merging the rings by time gives the history. The clock is read before the record is written and
// after the step it tells of, or before it where the step gives the page away (a wake-up, an
// unlock); so two events of different threads that follow each other closer than the delay between
// step and record may stand in the wrong order.
//
// Locking: none for events. Context of trace_page: any, completions and sections under a spin lock
// too. Invisible to the explorer, except for the first event of a task.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cache/page.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

enum class TraceKind : std::uint8_t {
    kLock,            // got PG_locked; detail: 1 if it was handed over
    kUnlock,          // gives PG_locked up
    kDirty,           // detail: dirty pages of the cache now
    kClearDirty,      // detail: the same
    kSetWriteback,    // detail: pages under writeback now
    kClearWriteback,  // detail: the same
    kWaitBegin,       // detail: the bit waited for
    kWaitEnd,         // detail: the same
    kWake,            // detail: trace_wake_detail: the bit, and the task that is woken
    kSubmit,          // handed to the device; detail: byte offset there
    kComplete,        // came back from the device; detail: the error
    kAlloc,           // the frame begins a new life
    kInsert,          // into its mapping
    kRemove,          // out of its mapping
    kFree,
    kBug,  // an assertion failed; detail: its id
};
std::string_view trace_kind_name(TraceKind kind);

constexpr std::uint64_t trace_wake_detail(PageFlag bit, std::uint32_t task_id) {
    return std::uint64_t{task_id} << 32 | static_cast<std::uint32_t>(bit);
}

enum class TraceState : std::uint8_t { kOff, kOn };
void set_trace(TraceState state);
inline bool trace_enabled();
// Events every thread keeps; rounded up to a power of two. What was recorded until now is lost.
inline constexpr std::size_t kDefaultTraceEvents = sync::kDefaultTaskRingCapacity;
inline constexpr std::size_t kMaxTraceEvents = std::size_t{1} << 20;
void set_trace_events_per_thread(std::size_t events);
void forget_trace();

// One step. Requires: the page is held (lock, reference, or PG_writeback), because its mapping and
// index are read.
inline void trace_page(TraceKind kind, const Page& page, std::uint64_t detail = 0);
// For those who only know an address: a waker or waiter whose page may be another's by now.
inline void trace_page_by_address(TraceKind kind, const Page& page, std::uint64_t detail = 0);

// --- reading

struct TraceEvent {
    sync::Nanoseconds time{0};  // of sync::monotonic_now()
    std::uint32_t task_id = 0;
    TraceKind kind{};
    const Page* page = nullptr;             // never to be followed: frames are reused
    const AddressSpace* mapping = nullptr;  // the same; null where it was not known
    pgoff_t index = 0;                      // kUnknownIndex where it was not known
    std::uint32_t generation = 0;
    std::uint64_t flags = 0;  // the flag word right after the step, or before it (kUnlock, kWake)
    std::uint64_t detail = 0;

    static constexpr pgoff_t kUnknownIndex = ~pgoff_t{0};
};

struct TraceTask {
    std::uint32_t id = 0;
    std::string name;
    sync::Role role{};
};

struct Trace {
    std::vector<TraceTask> tasks;    // by id
    std::vector<TraceEvent> events;  // by time
};

// All that is in the rings. Context: sleeps for no page; allocates.
Trace read_trace();
// The last `most` events of one page, whatever file it belonged to, and the tasks they name.
Trace read_page_history(const Page& page, std::size_t most);

// Reads on from where it stopped. An event that is recorded late, with a time before that of one
// read already, is not read any more.
class TraceReader {
public:
    // What was recorded since the last call, at first all that is in the rings; only the latest
    // `most` events. Context: as read_trace.
    Trace read_new(std::size_t most);

private:
    std::uint64_t read_to_ = 0;  // raw clock of the last event
};

// "lock", "wake 'flusher' (writeback)", "submit at 0x1f000": one event in words.
std::string describe(const TraceEvent& event, const std::vector<TraceTask>& tasks);

// --- details

extern sync::Relaxed<bool> trace_is_on;
void append_trace(TraceKind kind, const Page& page, std::uint64_t detail);
void append_trace_by_address(TraceKind kind, const Page& page, std::uint64_t detail);

inline bool trace_enabled() {
    return trace_is_on.load();
}
inline void trace_page(TraceKind kind, const Page& page, std::uint64_t detail) {
    if (trace_is_on.load()) {
        append_trace(kind, page, detail);
    }
}
inline void trace_page_by_address(TraceKind kind, const Page& page, std::uint64_t detail) {
    if (trace_is_on.load()) {
        append_trace_by_address(kind, page, detail);
    }
}

}  // namespace wbfat::cache::inline WBFAT_RT
