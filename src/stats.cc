// PageCacheStats -> JSON.
#include "src/stats.h"

#include <fmt/core.h>

#include <cerrno>
#include <cstdio>
#include <utility>

namespace wbfat::daemon {

namespace {

// A rule's text is one line; blanks stay blanks, and only two characters mean something in JSON.
std::string quoted(const std::string& text) {
    std::string result = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            result += '\\';
        }
        result += c < ' ' ? ' ' : c;
    }
    return result + "\"";
}

std::string points_to_json(const std::vector<sync::PointRuleStatus>& points) {
    std::string json = "[";
    for (const sync::PointRuleStatus& rule : points) {
        json += fmt::format(
            "{}{{\"text\": {}, \"hits\": {}, \"acted\": {}, \"met\": {}, \"given_up\": {}}}",
            json.size() == 1 ? "" : ", ", quoted(rule.text), rule.hits, rule.acted, rule.met,
            rule.given_up);
    }
    return json + "]";
}

}  // namespace

StatsFields fields_of(const cache::PageCacheStats& stats) {
    return {{
        {"nr_frames", stats.nr_frames},
        {"nr_free", stats.nr_free},
        {"nr_cached", stats.nr_cached},
        {"nr_dirty", stats.nr_dirty},
        {"nr_writeback", stats.nr_writeback},
        {"pages_dirtied", stats.pages_dirtied},
        {"pages_written", stats.pages_written},
        {"pages_read", stats.pages_read},
        {"pages_reclaimed", stats.pages_reclaimed},
        {"bios_read", stats.bios_read},
        {"bios_written", stats.bios_written},
        {"lock_waits", stats.lock_waits},
        {"writeback_waits", stats.writeback_waits},
        {"throttle_waits", stats.throttle_waits},
        {"reclaim_waits", stats.reclaim_waits},
        {"write_errors", stats.write_errors},
        {"read_errors", stats.read_errors},
    }};
}

std::string stats_to_json(const cache::PageCacheStats& stats,
                          const std::vector<sync::PointRuleStatus>& points) {
    std::string json = "{";
    for (const auto& [name, value] : fields_of(stats)) {
        json += fmt::format("{}\"{}\": {}", json.size() == 1 ? "" : ", ", name, value);
    }
    return json + fmt::format(", \"points\": {}}}\n", points_to_json(points));
}

Result<> write_stats_file(const std::string& path, const cache::PageCacheStats& stats,
                          const std::vector<sync::PointRuleStatus>& points) {
    std::FILE* file = std::fopen(path.c_str(), "we");
    if (file == nullptr) {
        return Errno{errno};
    }
    const std::string json = stats_to_json(stats, points);
    const bool written = std::fwrite(json.data(), 1, json.size(), file) == json.size();
    const bool closed = std::fclose(file) == 0;
    return written && closed ? Result<>{} : Result<>{Errno{EIO}};
}

}  // namespace wbfat::daemon
