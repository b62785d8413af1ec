// The page cache's counters as JSON: for -o stats= and for tools.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <boost/json/fwd.hpp>

#include "cache/page_cache.h"
#include "cache/sync/point_rules.h"

namespace wbfat::daemon {

struct StatsField {
    const char* name = nullptr;
    std::uint64_t value = 0;
};
using StatsFields = std::array<StatsField, 17>;
// Every field of cache::PageCacheStats, under its name.
StatsFields fields_of(const cache::PageCacheStats& stats);

// One object for each rule; the keys are the field names of sync::PointRuleStatus.
boost::json::array points_to_json(const std::vector<sync::PointRuleStatus>& points);
// One object on one line; the keys are the field names of cache::PageCacheStats, and "points".
std::string stats_to_json(const cache::PageCacheStats& stats,
                          const std::vector<sync::PointRuleStatus>& points);
// Errors: what open(2) or write(2) gave.
Result<> write_stats_file(const std::string& path, const cache::PageCacheStats& stats,
                          const std::vector<sync::PointRuleStatus>& points);

}  // namespace wbfat::daemon
