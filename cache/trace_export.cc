// The trace as a picture: events of Chrome's format.
#include "cache/trace_export.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

namespace wbfat::cache::inline WBFAT_RT {

namespace {

// One process; its number means nothing.
constexpr int kPid = 1;
// Longest slice of an event that takes no time, microseconds: to be seen, and to hold arrows.
constexpr double kEventSlice = 1.0;

std::string escape(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
            out += c;
        }
    }
    return out;
}

double microseconds(sync::Nanoseconds time) {
    return std::chrono::duration<double, std::micro>(time).count();
}

class ChromeWriter {
public:
    explicit ChromeWriter(const Trace& trace) : trace_(trace) {
        find_followers();
    }

    std::string write() {
        out_ = "{\"traceEvents\":[";
        name_tracks();
        for (std::size_t i = 0; i < trace_.events.size(); ++i) {
            write_event(i);
        }
        return out_ + "\n]}\n";
    }

private:
    static constexpr std::size_t kNone = ~std::size_t{0};

    // For each event the next one of its thread; for each wake-up the end of the wait it ended.
    void find_followers() {
        const std::size_t nr_events = trace_.events.size();
        next_.assign(nr_events, kNone);
        woken_.assign(nr_events, kNone);
        std::map<std::uint32_t, std::size_t> following;  // task -> its event after this one
        std::map<std::pair<std::uint32_t, const Page*>, std::size_t> wait_end;
        for (std::size_t i = nr_events; i-- > 0;) {
            const TraceEvent& event = trace_.events[i];
            if (const auto next = following.find(event.task_id); next != following.end()) {
                next_[i] = next->second;
            }
            following[event.task_id] = i;
            if (event.kind == TraceKind::kWaitEnd) {
                wait_end[{event.task_id, event.page}] = i;
            } else if (event.kind == TraceKind::kWake) {
                const auto target = static_cast<std::uint32_t>(event.detail >> 32);
                if (const auto end = wait_end.find({target, event.page}); end != wait_end.end()) {
                    woken_[i] = end->second;
                }
            }
        }
    }

    void add(const std::string& fields) {
        out_ += out_.back() == '[' ? "\n{" : ",\n{";
        out_ += fields;
        out_ += '}';
    }

    void name_tracks() {
        add(fmt::format(R"("ph":"M","pid":{},"name":"process_name","args":{{"name":"wbfat"}})",
                        kPid));
        for (const TraceTask& task : trace_.tasks) {
            add(fmt::format(
                R"("ph":"M","pid":{},"tid":{},"name":"thread_name","args":{{"name":"{}"}})", kPid,
                task.id, escape(task.name)));
        }
    }

    // A wait lasts until the thread's next event, everything else a moment.
    [[nodiscard]] double duration_of(std::size_t i) const {
        if (next_[i] == kNone) {
            return kEventSlice;
        }
        const double gap = microseconds(trace_.events[next_[i]].time - trace_.events[i].time);
        return trace_.events[i].kind == TraceKind::kWaitBegin ? gap : std::min(gap, kEventSlice);
    }

    void write_event(std::size_t i) {
        const TraceEvent& event = trace_.events[i];
        const double time = microseconds(event.time);
        const std::string index = event.index == TraceEvent::kUnknownIndex
                                      ? std::string("null")
                                      : std::to_string(event.index);
        add(fmt::format(
            R"("ph":"X","pid":{},"tid":{},"ts":{:.3f},"dur":{:.3f},"cat":"page","name":"{}",)"
            R"("args":{{"page":"{}","index":{},"generation":{},"flags":"{}"}})",
            kPid, event.task_id, time, duration_of(i), escape(describe(event, trace_.tasks)),
            static_cast<const void*>(event.page), index, event.generation,
            page_flags_to_string(event.flags)));
        write_arrow(i);
        write_writeback(event, time);
        write_counter(event, time);
        if (event.kind == TraceKind::kBug) {
            add(fmt::format(R"("ph":"i","s":"g","pid":{},"tid":{},"ts":{:.3f},"name":"{}")", kPid,
                            event.task_id, time, escape(describe(event, trace_.tasks))));
        }
    }

    // Both ends lie inside the slices they belong to.
    void write_arrow(std::size_t i) {
        if (woken_[i] == kNone) {
            return;
        }
        const TraceEvent& from = trace_.events[i];
        const TraceEvent& to = trace_.events[woken_[i]];
        add(fmt::format(
            R"("ph":"s","pid":{},"tid":{},"ts":{:.3f},"cat":"wake","name":"wake","id":{})", kPid,
            from.task_id, microseconds(from.time), i));
        add(fmt::format(R"("ph":"f","bp":"e","pid":{},"tid":{},"ts":{:.3f},"cat":"wake",)"
                        R"("name":"wake","id":{})",
                        kPid, to.task_id, microseconds(to.time), i));
    }

    void write_writeback(const TraceEvent& event, double time) {
        const bool begins = event.kind == TraceKind::kSetWriteback;
        if (begins || event.kind == TraceKind::kClearWriteback) {
            add(fmt::format(R"("ph":"{}","pid":{},"tid":{},"ts":{:.3f},"cat":"writeback",)"
                            R"("name":"writeback of page {}","id":"{}")",
                            begins ? 'b' : 'e', kPid, event.task_id, time, event.index,
                            static_cast<const void*>(event.page)));
        }
    }

    void write_counter(const TraceEvent& event, double time) {
        const char* name = nullptr;
        switch (event.kind) {
            case TraceKind::kDirty:
            case TraceKind::kClearDirty:
                name = "dirty pages";
                break;
            case TraceKind::kSetWriteback:
            case TraceKind::kClearWriteback:
                name = "pages under writeback";
                break;
            default:
                return;
        }
        add(fmt::format(R"("ph":"C","pid":{},"ts":{:.3f},"name":"{}","args":{{"pages":{}}})", kPid,
                        time, name, event.detail));
    }

    const Trace& trace_;
    std::vector<std::size_t> next_;
    std::vector<std::size_t> woken_;
    std::string out_;
};

}  // namespace

std::string to_chrome_json(const Trace& trace) {
    return ChromeWriter(trace).write();
}

}  // namespace wbfat::cache::inline WBFAT_RT
