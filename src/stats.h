// The page cache's counters as JSON: for -o stats= and for tools.
#pragma once

#include <string>
#include <vector>

#include "cache/page_cache.h"
#include "cache/sync/point_rules.h"

namespace wbfat::daemon {

// One object; the keys are the field names of cache::PageCacheStats, and "points" with one object
// of the fields of sync::PointRuleStatus for each rule.
std::string stats_to_json(const cache::PageCacheStats& stats,
                          const std::vector<sync::PointRuleStatus>& points);
// Errors: what open(2) or write(2) gave.
Result<> write_stats_file(const std::string& path, const cache::PageCacheStats& stats,
                          const std::vector<sync::PointRuleStatus>& points);

}  // namespace wbfat::daemon
