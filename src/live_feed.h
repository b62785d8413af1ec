// What one viewer of the live page has not heard yet.
//
// A feed remembers what it has told and tells what is different. It never walks pages: a file's
// pages are read off the words of its page index (PageIndex::sample), 64 pages or more at a time,
// so a file of 4 GiB costs 256 nodes; only the pages of small files that are dirty or under
// writeback are looked at one by one, for their lock and their waiters.
//
// An update is one JSON object; every member may be missing:
//   t          seconds since the mount; always there
//   stats      counters that have changed
//   files      [[id, name, bytes, pages a cell], ..]: the files shown, when that has changed
//   cells      [[id, word, present, dirty, writeback, locked, waited for], ..]: 64 cells each,
//              bits as hexadecimal numbers, zeros at the end left out
//   tasks      {"7": "wbfat-flusher", ..}: threads not named before
//   events     [[microseconds, task, kind, file or 0, page index or -1, text], ..]: the latest
//   guilty     [[file, page index, report], ..]: pages that failed an assertion, each with the
//              number of its last report
//   says       a sentence of whoever drives the load
//   protocol, trace, read_only, paused, reports (the last one's number), hits
//              when they have changed
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cache/page_index.h"
#include "cache/trace.h"
#include "src/control_commands.h"
#include "src/stats.h"

namespace wbfat::daemon {

class LiveFeed {
public:
    // `said`: the sentence of the moment, "" for none. Called by update(), with no lock held.
    LiveFeed(ControlContext& context, std::function<std::string()> said)
        : context_(context), said_(std::move(said)) {}

    // Everything at first. "" if nothing has changed. Context: does no I/O.
    std::string update();

private:
    // A mapping on the page.
    struct Shown {
        std::uint64_t id = 0;   // on the page; never used twice
        std::uint64_t ino = 0;  // of the file; 0: the metadata
        std::string name;
        std::uint64_t size_bytes = 0;
        unsigned level = 0;
        const cache::AddressSpace* mapping = nullptr;  // to compare with, not to follow
        sync::Nanoseconds active{0};                   // last seen with dirty pages or writeback
        std::vector<cache::PageIndexWord> told;
        std::map<cache::pgoff_t, std::uint64_t> guilty;  // page -> its last report
    };

    // A page that failed an assertion.
    struct Guilty {
        const cache::AddressSpace* mapping = nullptr;  // to compare with, not to follow
        std::string file;
        cache::pgoff_t index = 0;
        std::uint64_t report = 0;
    };

    // If there are new reports.
    void find_guilty_pages();
    void consider(std::uint64_t ino, const cache::AddressSpace& mapping, std::vector<Shown>& found);
    void choose_files();
    // Null: not shown.
    const Shown* find_shown(const cache::AddressSpace* mapping) const;
    template <typename Visit>
    void with_mapping(const Shown& shown, const Visit& visit);
    void tell_files(std::string& json);
    void tell_cells(std::string& json);
    void tell_stats(std::string& json);
    // The last ones since the last time.
    void tell_events(std::string& json, const cache::Trace& trace);
    std::string guilty_pages() const;
    void tell_settings(std::string& json);

    ControlContext& context_;
    const std::function<std::string()> said_;
    std::vector<Shown> shown_;
    std::string told_files_;
    std::uint64_t last_id_ = 0;
    std::vector<Guilty> guilty_;
    std::uint64_t reports_read_ = 0;
    std::optional<StatsFields> told_stats_;
    std::map<std::uint32_t, std::string> told_tasks_;
    std::map<std::string, std::string> told_settings_;
    std::vector<cache::PageIndexWord> sampled_;
    sync::Nanoseconds now_{0};
    sync::Nanoseconds files_chosen_{-1};
    sync::Nanoseconds events_told_{0};
    cache::TraceReader trace_;
};

}  // namespace wbfat::daemon
