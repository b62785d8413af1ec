// One function a command: JSON -> lines.
#include "tools/ctl/text.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

#include <boost/json.hpp>

namespace wbfat::tools {

namespace {

namespace json = boost::json;

constexpr std::uint64_t kPageBytes = 4096;

std::uint64_t number(const json::value& object, std::string_view key) {
    return object.at(key).to_number<std::uint64_t>();
}
bool is_set(const json::value& object, std::string_view key) {
    return object.at(key).as_bool();
}
std::string text(const json::value& object, std::string_view key) {
    return std::string(object.at(key).as_string());
}

// "1.5 GiB", three digits at most.
std::string size(std::uint64_t bytes) {
    constexpr std::array kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
    auto value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 1000 && unit + 1 < kUnits.size()) {
        value /= 1024;
        ++unit;
    }
    return fmt::format("{:.{}f} {}", value, unit == 0 || value >= 100 ? 0 : 1, kUnits.at(unit));
}
std::string pages(std::uint64_t count) {
    return size(count * kPageBytes);
}

std::string duration(double seconds) {
    const auto whole = static_cast<std::uint64_t>(seconds);
    return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string seconds_of_centisecs(std::uint64_t centisecs) {
    return fmt::format("{:g} s", static_cast<double>(centisecs) / 100);
}

std::string line(std::string_view name, const std::string& what) {
    return fmt::format("{:<11}{}\n", name, what);
}

std::string flusher_line(const json::value& flusher) {
    const std::uint64_t period = number(flusher, "dirty_writeback_centisecs");
    std::string said = is_set(flusher, "paused") ? "paused"
                       : is_set(flusher, "busy") ? "writing"
                                                 : "idle";
    said += period == 0 ? ", no period" : ", every " + seconds_of_centisecs(period);
    said += fmt::format(", {} dirty files", number(flusher, "nr_dirty_inodes"));
    if (const std::uint64_t backoff = number(flusher, "backoff_ms"); backoff != 0) {
        said += fmt::format(", writes fail: next try after {} ms", backoff);
    }
    return line("flusher", said);
}

std::string volume_lines(const json::value& volume) {
    const std::uint64_t cluster_bytes = number(volume, "cluster_bytes");
    std::string lines =
        line("volume", fmt::format("{} on {}", text(volume, "device"), text(volume, "mountpoint")));
    lines += line(
        "", fmt::format(
                "FAT{} {}{}, clusters of {}", number(volume, "fat"), text(volume, "volume_id"),
                text(volume, "label").empty() ? "" : fmt::format(" \"{}\"", text(volume, "label")),
                size(cluster_bytes)));
    const std::string total = size(number(volume, "nr_clusters") * cluster_bytes);
    const json::value& free = volume.at("nr_free_clusters");
    std::string state =
        free.is_null() ? total + ", free clusters not counted yet"
                       : fmt::format("{} free of {}",
                                     size(free.to_number<std::uint64_t>() * cluster_bytes), total);
    state += is_set(volume, "read_only") ? ", read-only" : ", read-write";
    state += is_set(volume, "sync") ? ", sync" : "";
    state += is_set(volume, "was_dirty_at_mount") ? ", was not unmounted cleanly before" : "";
    return lines + line("", state);
}

// Who sleeps for a page now.
std::string waiting_lines(const json::value& waiting) {
    constexpr std::size_t kMost = 4;
    std::string lines;
    std::size_t nr_told = 0;
    for (const json::value& one : waiting.as_array()) {
        if (nr_told++ < kMost) {
            lines += line(
                "", fmt::format("'{}' for {}, since {:.1f} ms", text(one, "task"), text(one, "for"),
                                one.at("seconds").to_number<double>() * 1000));
        }
    }
    return lines;
}

std::string cache_lines(const json::value& status) {
    const json::value& counters = status.at("counters");
    const json::value& census = status.at("pages");
    const json::value& flusher = status.at("flusher");
    std::string lines =
        line("cache", fmt::format("{} of {} in use", pages(number(counters, "nr_cached")),
                                  pages(number(counters, "nr_frames"))));
    lines += line("pages", fmt::format("{} clean, {} dirty, {} under writeback ({} dirty again)",
                                       number(census, "clean"), number(census, "dirty"),
                                       number(census, "writeback"), number(census, "redirtied")));
    lines += line("", fmt::format("{} locked, {} waited for", number(census, "locked"),
                                  number(census, "waited_for")));
    const std::uint64_t dirty = number(counters, "nr_dirty") + number(counters, "nr_writeback");
    lines += line("dirty", fmt::format("{}; the flusher starts at {}, writers wait at {}",
                                       pages(dirty), pages(number(flusher, "background_pages")),
                                       pages(number(flusher, "limit_pages"))));
    lines += line(
        "traffic",
        fmt::format("{} read in {} transfers, {} written in {}",
                    pages(number(counters, "pages_read")), number(counters, "bios_read"),
                    pages(number(counters, "pages_written")), number(counters, "bios_written")));
    const std::uint64_t errors = number(counters, "read_errors") + number(counters, "write_errors");
    if (errors != 0) {
        lines += line("errors", fmt::format("{} pages could not be read, {} not written",
                                            number(counters, "read_errors"),
                                            number(counters, "write_errors")));
    }
    lines +=
        line("waits",
             fmt::format("{} for page locks, {} for writeback, {} throttled, {} for "
                         "frames",
                         number(counters, "lock_waits"), number(counters, "writeback_waits"),
                         number(counters, "throttle_waits"), number(counters, "reclaim_waits")));
    return lines + waiting_lines(status.at("waiting"));
}

std::string laboratory_lines(const json::value& status) {
    const json::value& assertions = status.at("assertions");
    std::string hits;
    for (const auto& [name, count] : assertions.at("hits").as_object()) {
        hits += fmt::format(", {} failed {} times", std::string_view(name),
                            count.to_number<std::uint64_t>());
    }
    const std::uint64_t last_report = number(status, "last_report");
    if (last_report != 0) {
        hits += fmt::format("; the last report is oops {}", last_report);
    }
    return line("protocol", text(status, "protocol")) +
           line("assertions",
                fmt::format("{} on, {} off{}", number(assertions, "on"), number(assertions, "off"),
                            hits.empty() ? ", none has failed" : hits)) +
           line("trace", is_set(status, "trace") ? "on" : "off") +
           line("points", number(status, "point_rules") == 0
                              ? "no rules"
                              : fmt::format("{} rules", number(status, "point_rules")));
}

std::string status_text(const json::value& status) {
    return line("wbfat", fmt::format("{}, process {}, mounted for {}", text(status, "version"),
                                     number(status, "pid"),
                                     duration(status.at("seconds_mounted").to_number<double>()))) +
           volume_lines(status.at("volume")) + cache_lines(status) +
           flusher_line(status.at("flusher")) + laboratory_lines(status);
}

std::string protocol_text(const json::value& result) {
    if (const json::value* const presets = result.as_object().if_contains("presets")) {
        std::string lines;
        for (const json::value& preset : presets->as_array()) {
            lines += fmt::format("{:<17}{}\n", text(preset, "name"), text(preset, "help"));
        }
        return lines;
    }
    std::string lines = line("protocol", text(result, "protocol"));
    for (const auto& [name, value] : result.at("switches").as_object()) {
        lines += line(
            "", fmt::format("{}={}", std::string_view(name), std::string_view(value.as_string())));
    }
    return lines;
}

std::string oops_text(const json::value& result) {
    const json::value* const list = result.as_object().if_contains("reports");
    if (list == nullptr) {
        return text(result, "text");
    }
    std::string lines;
    for (const json::value& one : list->as_array()) {
        lines += fmt::format("{:>3}  {}\n", number(one, "number"), text(one, "title"));
    }
    return lines.empty() ? "no assertion has failed\n" : lines;
}

std::string assertions_text(const json::value& result) {
    std::string lines =
        fmt::format("{:<5}{:>6}  {:<24}{}\n", "state", "hits", "name", "what holds");
    for (const json::value& one : result.at("assertions").as_array()) {
        lines += fmt::format("{:<5}{:>6}  {:<24}{}\n", text(one, "state"), number(one, "hits"),
                             text(one, "name"), text(one, "help"));
    }
    return lines;
}

std::string points_text(const json::value& result) {
    const json::array& points = result.at("points").as_array();
    if (points.empty()) {
        return "there are no rules for points\n";
    }
    std::string lines =
        fmt::format("{:>8}{:>8}{:>8}{:>10}  {}\n", "hits", "acted", "met", "given up", "rule");
    for (const json::value& rule : points) {
        lines +=
            fmt::format("{:>8}{:>8}{:>8}{:>10}  {}\n", number(rule, "hits"), number(rule, "acted"),
                        number(rule, "met"), number(rule, "given_up"), text(rule, "text"));
    }
    return lines;
}

std::string drop_caches_text(const json::value& result) {
    const std::uint64_t dropped = number(result, "pages_dropped");
    return fmt::format("{} pages dropped ({})\n", dropped, pages(dropped));
}

}  // namespace

std::string to_text(const std::string& command, const boost::json::value& result) {
    if (command == "status") {
        return status_text(result);
    }
    if (command == "drop-caches") {
        return drop_caches_text(result);
    }
    if (command == "flusher") {
        return flusher_line(result);
    }
    if (command == "protocol") {
        return protocol_text(result);
    }
    if (command == "assert") {
        return assertions_text(result);
    }
    if (command == "oops") {
        return oops_text(result);
    }
    if (command == "web") {
        const json::value* const url = result.as_object().if_contains("url");
        return url == nullptr || url->is_null() ? "" : text(result, "url") + "\n";
    }
    if (command == "point") {
        return points_text(result);
    }
    if (command == "trace") {
        return line("trace", is_set(result, "on") ? "on" : "off");
    }
    return {};
}

}  // namespace wbfat::tools
