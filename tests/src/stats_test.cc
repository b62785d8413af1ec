// Goal: -o stats= writes every counter, once, as JSON that a reader takes.
// Method: counters with values of their own; the text is compared.
#include "src/stats.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace wbfat::daemon {
namespace {

cache::PageCacheStats distinct_stats() {
    cache::PageCacheStats stats;
    stats.nr_frames = 101;
    stats.nr_free = 102;
    stats.nr_cached = 103;
    stats.nr_dirty = 104;
    stats.nr_writeback = 105;
    stats.pages_dirtied = 106;
    stats.pages_written = 107;
    stats.pages_read = 108;
    stats.pages_reclaimed = 109;
    stats.bios_read = 110;
    stats.bios_written = 111;
    stats.lock_waits = 112;
    stats.writeback_waits = 113;
    stats.throttle_waits = 114;
    stats.reclaim_waits = 115;
    stats.write_errors = 116;
    stats.read_errors = UINT64_MAX;
    return stats;
}

constexpr const char* kText =
    "{\"nr_frames\":101,\"nr_free\":102,\"nr_cached\":103,\"nr_dirty\":104,"
    "\"nr_writeback\":105,\"pages_dirtied\":106,\"pages_written\":107,\"pages_read\":108,"
    "\"pages_reclaimed\":109,\"bios_read\":110,\"bios_written\":111,\"lock_waits\":112,"
    "\"writeback_waits\":113,\"throttle_waits\":114,\"reclaim_waits\":115,"
    "\"write_errors\":116,\"read_errors\":18446744073709551615,\"points\":["
    "{\"text\":\"wake:flagged=print(say \\\"x\\\")\",\"hits\":4,\"acted\":3,\"met\":0,"
    "\"given_up\":0},"
    "{\"text\":\"a:b after c:d\",\"hits\":5,\"acted\":5,\"met\":2,\"given_up\":3}]}\n";

const std::vector<sync::PointRuleStatus>& two_rules() {
    static const std::vector<sync::PointRuleStatus> kRules{
        {.text = "wake:flagged=print(say \"x\")", .hits = 4, .acted = 3},
        {.text = "a:b after c:d", .hits = 5, .acted = 5, .met = 2, .given_up = 3}};
    return kRules;
}

TEST(StatsTest, NamesEveryCounterOnce) {
    EXPECT_EQ(stats_to_json(distinct_stats(), two_rules()), kText);
    const std::string json = stats_to_json(distinct_stats(), {});
    const auto nr_keys = static_cast<std::size_t>(std::count(json.begin(), json.end(), ':'));
    EXPECT_EQ((nr_keys - 1) * sizeof(std::uint64_t), sizeof(cache::PageCacheStats))
        << "a counter is missing";
}

TEST(StatsTest, ReplacesTheFile) {
    const std::string path = testing::TempDir() + "wbfat-stats-" + std::to_string(::getpid());
    std::ofstream(path) << std::string(4096, 'x');
    EXPECT_EQ(write_stats_file(path, distinct_stats(), two_rules()).code(), 0);
    std::ifstream file(path);
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), kText);
    ::unlink(path.c_str());
}

TEST(StatsTest, SaysWhyItCannotBeWritten) {
    EXPECT_EQ(write_stats_file("/nonexistent/stats", {}, {}).code(), ENOENT);
    EXPECT_EQ(write_stats_file("/", {}, {}).code(), EISDIR);
    if (::access("/dev/full", W_OK) == 0) {
        EXPECT_EQ(write_stats_file("/dev/full", {}, {}).code(), EIO);
    }
}

}  // namespace
}  // namespace wbfat::daemon
