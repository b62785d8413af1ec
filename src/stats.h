// The page cache's counters as JSON: for -o stats= and for tools.
#pragma once

#include <string>

#include "cache/page_cache.h"

namespace wbfat::daemon {

// One object; the keys are the field names of cache::PageCacheStats.
std::string stats_to_json(const cache::PageCacheStats& stats);
// Errors: what open(2) or write(2) gave.
Result<> write_stats_file(const std::string& path, const cache::PageCacheStats& stats);

}  // namespace wbfat::daemon
