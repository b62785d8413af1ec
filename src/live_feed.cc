// Sampling, comparing, telling.
#include "src/live_feed.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include <boost/json.hpp>

#include "cache/assertions.h"
#include "cache/flusher.h"
#include "cache/oops.h"
#include "cache/protocol.h"
#include "fs/inode_cache.h"

namespace wbfat::daemon {

namespace {

using std::chrono_literals::operator""ms;

constexpr std::size_t kMaxFiles = 12;
// The device's own mapping: the FAT, directories, boot sectors. No inode has this number.
constexpr std::uint64_t kMetadata = 0;
// At most so many cells a file, 64 to a word: beyond, a cell stands for 64 times as many pages.
constexpr std::uint64_t kMaxPageCells = 4096;    // a cell a page
constexpr std::uint64_t kMaxGroupCells = 16384;  // coarser ones
constexpr unsigned kBitsALevel = 6;

constexpr sync::Nanoseconds kFilesPeriod = 250ms;
constexpr sync::Nanoseconds kEventsPeriod = 100ms;
constexpr std::size_t kMaxEvents = 120;  // an update

std::string quoted(std::string_view text) {
    return boost::json::serialize(boost::json::string(text));
}

unsigned level_for(std::uint64_t nr_pages) {
    unsigned level = 0;
    std::uint64_t most = kMaxPageCells;
    while (nr_pages > most) {
        ++level;
        most = kMaxGroupCells << (kBitsALevel * level);
    }
    return level;
}

void append_member(std::string& json, std::string_view name, std::string_view value) {
    fmt::format_to(std::back_inserter(json), "{}\"{}\":{}", json.empty() ? "" : ",", name, value);
}

// [id, word, bits ..] without the zeros at the end.
void append_word(std::string& list, std::uint64_t id, const cache::PageIndexWord& word) {
    const std::uint64_t bits[] = {word.present, word.dirty, word.writeback, word.locked,
                                  word.waited_for};
    std::size_t nr_bits = std::size(bits);
    while (nr_bits > 0 && bits[nr_bits - 1] == 0) {
        --nr_bits;
    }
    fmt::format_to(std::back_inserter(list), "{}[{},{}", list.empty() ? "" : ",", id, word.number);
    for (std::size_t i = 0; i < nr_bits; ++i) {
        fmt::format_to(std::back_inserter(list), ",\"{:x}\"", bits[i]);
    }
    list += ']';
}

}  // namespace

std::string LiveFeed::update() {
    now_ = sync::monotonic_now();
    std::string json;
    cache::Trace trace;
    if (now_ - events_told_ >= kEventsPeriod && cache::trace_enabled()) {
        events_told_ = now_;
        trace = trace_.read_new(kMaxEvents);
    }
    // Early where something happened to a file that is not shown, so that its events can name it.
    if (files_chosen_ < sync::Nanoseconds::zero() || now_ - files_chosen_ >= kFilesPeriod ||
        !std::all_of(trace.events.begin(), trace.events.end(), [this](const auto& event) {
            return event.mapping == nullptr || find_shown(event.mapping) != nullptr;
        })) {
        files_chosen_ = now_;
        choose_files();
        tell_files(json);
        tell_settings(json);
    }
    tell_cells(json);
    tell_stats(json);
    tell_events(json, trace);
    if (json.empty()) {
        return {};
    }
    const std::chrono::duration<double> mounted = now_ - context_.started;
    return fmt::format("{{\"t\":{:.4f},{}}}", mounted.count(), json);
}

void LiveFeed::find_guilty_pages() {
    const std::uint64_t last = cache::last_oops_number();
    if (std::exchange(reports_read_, last) == last) {
        return;
    }
    guilty_.clear();
    for (const cache::Oops& oops : cache::kept_oopses()) {
        if (!oops.page || oops.page->address_space == nullptr) {
            continue;
        }
        const cache::OopsPage& page = *oops.page;
        guilty_.push_back({page.address_space, page.mapping, page.index, oops.number});
    }
}

// Takes over what was told of the mapping, if it was shown before.
void LiveFeed::consider(std::uint64_t ino, const cache::AddressSpace& mapping,
                        std::vector<Shown>& found) {
    if (mapping.i_pages.nr_pages() == 0) {
        return;
    }
    const auto before = std::find_if(shown_.begin(), shown_.end(), [&](const Shown& one) {
        return one.ino == ino && one.mapping == &mapping;
    });
    Shown shown = before != shown_.end() ? std::move(*before) : Shown{};
    shown.ino = ino;
    shown.mapping = &mapping;
    // The name tells a mapping from a later one at the same address; a file that was renamed since
    // is not recognised.
    shown.guilty.clear();
    for (const Guilty& page : guilty_) {
        if (page.mapping == &mapping && page.file == mapping.name()) {
            shown.guilty[page.index] = page.report;
        }
    }
    if (!shown.guilty.empty() || mapping.i_pages.tagged(cache::PAGECACHE_TAG_DIRTY) ||
        mapping.i_pages.tagged(cache::PAGECACHE_TAG_WRITEBACK)) {
        shown.active = now_;
    }
    found.push_back(std::move(shown));
}

// The files with cached pages that were dirty most recently or failed an assertion; the metadata
// always.
void LiveFeed::choose_files() {
    find_guilty_pages();
    std::vector<Shown> found;
    context_.volume.inodes().for_each_file(
        [&](fs::Inode& inode) { consider(inode.ino(), inode.mapping(), found); });
    std::stable_sort(found.begin(), found.end(),
                     [](const Shown& a, const Shown& b) { return a.active > b.active; });
    found.resize(std::min(found.size(), kMaxFiles - 1));
    consider(kMetadata, context_.volume.device_mapping(), found);
    shown_ = std::move(found);
    for (Shown& shown : shown_) {
        shown.id = shown.id != 0 ? shown.id : ++last_id_;
    }
    // On the page each keeps its place.
    std::sort(shown_.begin(), shown_.end(),
              [](const Shown& a, const Shown& b) { return a.id < b.id; });
}

// Calls `visit` with the mapping, if it is still there; it stays while the visit lasts.
template <typename Visit>
void LiveFeed::with_mapping(const Shown& shown, const Visit& visit) {
    if (shown.ino == kMetadata) {
        visit(context_.volume.device_mapping());
        return;
    }
    context_.volume.inodes().with_file(shown.ino, [&](fs::Inode& inode) {
        if (&inode.mapping() == shown.mapping) {
            visit(inode.mapping());
        }
    });
}

void LiveFeed::tell_files(std::string& json) {
    std::string list;
    for (Shown& shown : shown_) {
        with_mapping(shown, [&](cache::AddressSpace& mapping) {
            shown.name = shown.ino == kMetadata ? "FAT, directories" : mapping.name();
            shown.size_bytes = mapping.i_size();
        });
        const unsigned level =
            level_for(cache::page_index(shown.size_bytes + cache::kPageSize - 1));
        if (level != shown.level) {
            shown.level = level;
            shown.told.clear();
            // Under another number the page begins anew with it.
            shown.id = ++last_id_;
        }
        fmt::format_to(std::back_inserter(list), "{}[{},{},{},{}]", list.empty() ? "" : ",",
                       shown.id, quoted(shown.name), shown.size_bytes,
                       std::uint64_t{1} << (kBitsALevel * shown.level));
    }
    if (list != told_files_) {
        told_files_ = list;
        append_member(json, "files", fmt::format("[{}]", list));
    }
}

void LiveFeed::tell_cells(std::string& json) {
    std::string list;
    for (Shown& shown : shown_) {
        sampled_.clear();
        with_mapping(shown, [&](cache::AddressSpace& mapping) {
            mapping.i_pages.sample(shown.level, sampled_);
        });
        // Both are in ascending order.
        auto told = shown.told.begin();
        for (const cache::PageIndexWord& word : sampled_) {
            for (; told != shown.told.end() && told->number < word.number; ++told) {
                append_word(list, shown.id, {.number = told->number});
            }
            const bool is_told = told != shown.told.end() && told->number == word.number;
            if (!is_told || *told != word) {
                append_word(list, shown.id, word);
            }
            told += is_told ? 1 : 0;
        }
        for (; told != shown.told.end(); ++told) {
            append_word(list, shown.id, {.number = told->number});
        }
        shown.told.swap(sampled_);
    }
    if (!list.empty()) {
        append_member(json, "cells", fmt::format("[{}]", list));
    }
}

void LiveFeed::tell_stats(std::string& json) {
    const StatsFields fields = fields_of(context_.cache.stats());
    std::string members;
    for (std::size_t i = 0; i < fields.size(); ++i) {
        if (!told_stats_ || (*told_stats_)[i].value != fields[i].value) {
            append_member(members, fields[i].name, std::to_string(fields[i].value));
        }
    }
    told_stats_ = fields;
    if (!members.empty()) {
        append_member(json, "stats", fmt::format("{{{}}}", members));
    }
}

const LiveFeed::Shown* LiveFeed::find_shown(const cache::AddressSpace* mapping) const {
    const auto found = std::find_if(shown_.begin(), shown_.end(),
                                    [mapping](const Shown& one) { return one.mapping == mapping; });
    return found == shown_.end() ? nullptr : &*found;
}

void LiveFeed::tell_events(std::string& json, const cache::Trace& trace) {
    std::string list;
    for (const cache::TraceEvent& event : trace.events) {
        const Shown* const shown = event.mapping == nullptr ? nullptr : find_shown(event.mapping);
        // A page of no mapping has no index yet.
        const bool has_index =
            event.mapping != nullptr && event.index != cache::TraceEvent::kUnknownIndex;
        const std::chrono::duration<double, std::micro> time = event.time - context_.started;
        fmt::format_to(std::back_inserter(list), "{}[{:.1f},{},\"{}\",{},{},{}]",
                       list.empty() ? "" : ",", time.count(), event.task_id,
                       cache::trace_kind_name(event.kind), shown == nullptr ? 0 : shown->id,
                       has_index ? std::to_string(event.index) : "-1",
                       quoted(cache::describe(event, trace.tasks)));
    }
    std::string tasks;
    for (const cache::TraceTask& task : trace.tasks) {
        if (std::exchange(told_tasks_[task.id], task.name) != task.name) {
            append_member(tasks, std::to_string(task.id), quoted(task.name));
        }
    }
    if (!tasks.empty()) {
        append_member(json, "tasks", fmt::format("{{{}}}", tasks));
    }
    if (!list.empty()) {
        append_member(json, "events", fmt::format("[{}]", list));
    }
}

std::string LiveFeed::guilty_pages() const {
    std::string list;
    for (const Shown& shown : shown_) {
        for (const auto& [index, report] : shown.guilty) {
            fmt::format_to(std::back_inserter(list), "{}[{},{},{}]", list.empty() ? "" : ",",
                           shown.id, index, report);
        }
    }
    return fmt::format("[{}]", list);
}

void LiveFeed::tell_settings(std::string& json) {
    std::string hits;
    for (const cache::AssertionInfo& info : cache::all_assertions()) {
        if (const std::uint64_t count = cache::assertion_hits(info.id); count != 0) {
            append_member(hits, info.name, std::to_string(count));
        }
    }
    const std::pair<const char*, std::string> settings[] = {
        {"says", quoted(said_())},
        {"protocol", quoted(cache::to_string(cache::current_protocol()))},
        {"trace", cache::trace_enabled() ? "true" : "false"},
        {"read_only", context_.volume.is_read_only() ? "true" : "false"},
        {"paused", context_.cache.flusher().status().paused ? "true" : "false"},
        {"reports", std::to_string(cache::last_oops_number())},
        {"guilty", guilty_pages()},
        {"hits", fmt::format("{{{}}}", hits)},
    };
    for (const auto& [name, value] : settings) {
        if (std::exchange(told_settings_[name], value) != value) {
            append_member(json, name, value);
        }
    }
}

}  // namespace wbfat::daemon
