// Traces of the explorer under ThreadSanitizer, with the memory orders that the sources name.
//
// The interleavings are sequentially consistent; the operations in them are the real ones, with the
// real orders, and every task is a fiber that the detector knows as a thread. What happens before
// what is the same in all interleavings of a trace, so one run of each is enough to see every race
// that the traces have. Without the detector the runs only have to end well.
//
// Method: all traces of two small scenarios, and the first few hundred of bigger ones: which they
// are does not depend on time. Not `redirty`: its device reads what somebody writes, as devices do.
#include <map>
#include <ostream>
#include <string>

#include <gtest/gtest.h>

#include "tools/explore/explore.h"

namespace wbfat::explore {
namespace {

struct Traces {
    const char* name;
    const char* scenario;
    const char* protocol;
    std::map<std::string, unsigned> parameters;
    std::uint64_t most;  // traces
    bool is_all;
};

std::ostream& operator<<(std::ostream& out, const Traces& it) {
    return out << it.name;
}

class ExploreRacesTest : public ::testing::TestWithParam<Traces> {};

TEST_P(ExploreRacesTest, NoTraceHasOne) {
    Options options;
    options.scenario = GetParam().scenario;
    options.protocol = GetParam().protocol;
    options.parameters = GetParam().parameters;
    options.method = Method::kDpor;
    options.max_executions = GetParam().most;
    const Result result = explore(options);
    EXPECT_FALSE(result.failure.has_value())
        << result.failure->failure.title << " " << result.failure->schedule;
#if defined(__SANITIZE_THREAD__)  // elsewhere there are fewer traces
    EXPECT_EQ(result.complete, GetParam().is_all);
#endif
    EXPECT_GT(result.searches.front().states, 0U);
    RecordProperty("traces", std::to_string(result.searches.front().states));
}

INSTANTIATE_TEST_SUITE_P(
    Scenarios, ExploreRacesTest,
    ::testing::Values(Traces{"waits", "mail", "6.8", {{"writer", 0}}, 5000, true},
                      Traces{"mail", "mail", "6.8", {}, 200, false},
                      Traces{"contended", "mail", "6.8", {{"lock_contention", 1}}, 200, false},
                      Traces{"handoff", "lock-handoff", "6.8", {{"cpus", 2}}, 200, true},
                      Traces{"always", "lock-handoff", "6.8,handoff=always", {}, 200, false},
                      Traces{"fsync", "fsync-fsync", "6.8", {}, 200, false},
                      Traces{"recheck", "lock-handoff", "5.8", {}, 200, false}),
    [](const auto& it) { return std::string(it.param.name); });

}  // namespace
}  // namespace wbfat::explore
