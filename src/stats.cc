// PageCacheStats -> JSON.
#include "src/stats.h"

#include <cerrno>
#include <cstdio>

#include <boost/json.hpp>

namespace wbfat::daemon {

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

boost::json::array points_to_json(const std::vector<sync::PointRuleStatus>& points) {
    boost::json::array list;
    for (const sync::PointRuleStatus& rule : points) {
        list.push_back({{"text", rule.text},
                        {"hits", rule.hits},
                        {"acted", rule.acted},
                        {"met", rule.met},
                        {"given_up", rule.given_up}});
    }
    return list;
}

std::string stats_to_json(const cache::PageCacheStats& stats,
                          const std::vector<sync::PointRuleStatus>& points) {
    boost::json::object json;
    for (const auto& [name, value] : fields_of(stats)) {
        json[name] = value;
    }
    json["points"] = points_to_json(points);
    return boost::json::serialize(json) + "\n";
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
