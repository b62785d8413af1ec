// The searches on the real functions of the cache: what they find, and that they agree.
//
// Method: small scenarios, every search to its end; counts are exact because nothing here depends
// on time.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <ostream>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tools/explore/explore.h"

namespace wbfat::explore {
namespace {

Options scenario(const std::string& name, const std::string& protocol) {
    Options options;
    options.scenario = name;
    options.protocol = protocol;
    return options;
}

// "A10 B28 C25" -> "ABC"
std::string order_of(const std::string& schedule) {
    std::string tasks;
    for (const char c : schedule) {
        if (c >= 'A' && c <= 'Z') {
            tasks += c;
        }
    }
    return tasks;
}

TEST(ExploreMailTest, IsFoundWithOnePreemptionInTheOrderOfTheMail) {
    for (const char* protocol : {"5.9", "5.10"}) {
        Options options = scenario("mail", protocol);
        options.method = Method::kBound;
        const Result result = explore(options);
        EXPECT_EQ(result.verdict, Verdict::kAssertion) << protocol;
        ASSERT_TRUE(result.failure.has_value()) << protocol;
        EXPECT_EQ(result.minimal_preemptions, 1U);
        EXPECT_EQ(order_of(result.failure->schedule), "ABCAC") << result.failure->schedule;
        EXPECT_NE(result.failure->failure.title.find("bug_on_writeback"), std::string::npos)
            << result.failure->failure.title;
    }
}

TEST(ExploreMailTest, IsProvedAbsentFromTheNewestProtocol) {
    Options options = scenario("mail", "6.8");
    options.method = Method::kStateful;
    const Result result = explore(options);
    EXPECT_EQ(result.verdict, Verdict::kOk);
    EXPECT_TRUE(result.complete);
    EXPECT_GT(result.searches.front().states, 1000U);
}

TEST(ExploreMailTest, NeedsAnIfAndALateWake) {
    // With one atomic operation that clears and tells of waiters, nobody who comes later is woken.
    Options options = scenario("mail", "6.8,wait=if");
    options.method = Method::kStateful;
    EXPECT_EQ(explore(options).verdict, Verdict::kOk);
    // Unless somebody sleeps for the page lock: PG_waiters is one bit for both.
    options.parameters["lock_contention"] = 1;
    EXPECT_EQ(explore(options).verdict, Verdict::kAssertion);
}

TEST(ExploreMailTest, ASecondSleeperMakesAnIfEnough) {
    // writeback-protocol.md 13, the column "S + T".
    const Result result = explore(scenario("two-waiters", "6.8,wait=if"));
    EXPECT_EQ(result.verdict, Verdict::kAssertion);
    EXPECT_EQ(result.minimal_preemptions, 1U);
}

TEST(ExploreMailTest, CannotHappenWhereTheWriterTakesTheBitAsOneTakesALock) {
    Options options = scenario("mail", "wait-to-set");
    options.method = Method::kStateful;
    const Result result = explore(options);
    EXPECT_EQ(result.verdict, Verdict::kOk);
    EXPECT_TRUE(result.complete);
}

TEST(ExploreLockTest, IsPassedOnInTheSameWayWheneverAScheduleIsRepeated) {
    // Once a wake-up left over from the run before made it look nondeterministic.
    for (const char* protocol : {"5.8", "5.9-rc", "6.8"}) {
        Options options = scenario("lock-handoff", protocol);
        options.method = Method::kStateful;
        const Result result = explore(options);
        EXPECT_EQ(result.verdict, Verdict::kOk) << protocol;
        EXPECT_TRUE(result.complete) << protocol;
    }
}

constexpr const char* kWithoutReference[] = {"5.8", "5.9-rc", "5.9"};
constexpr const char* kWithReference[] = {"5.10",        "5.11",       "6.8", "recheck-on-wake",
                                          "wake-clears", "wait-to-set"};

void expect_bug(const Options& options, const std::string& assertion) {
    SCOPED_TRACE(options.scenario + " under " + options.protocol);
    const Result result = explore(options);
    EXPECT_EQ(result.verdict, Verdict::kAssertion);
    EXPECT_EQ(result.minimal_preemptions, 1U);
    ASSERT_TRUE(result.failure.has_value());
    EXPECT_NE(result.failure->failure.title.find(assertion), std::string::npos)
        << result.failure->failure.title;
}

void expect_safe(Options options) {
    SCOPED_TRACE(options.scenario + " under " + options.protocol);
    options.method = Method::kStateful;
    const Result result = explore(options);
    EXPECT_EQ(result.verdict, Verdict::kOk)
        << (result.failure.has_value() ? result.failure->schedule : "");
    EXPECT_TRUE(result.complete);
}

TEST(ExploreReuseTest, ALateWakeFindsAnotherPageUnlessItHoldsAReference) {
    for (const char* protocol : kWithoutReference) {
        expect_bug(scenario("page-reuse", protocol), "late_touch");
    }
    for (const char* protocol : kWithReference) {
        expect_safe(scenario("page-reuse", protocol));
    }
    Options written = scenario("page-reuse", "5.9");
    written.parameters["written"] = 1;
    expect_bug(written, "late_touch");
    written.protocol = "5.10";
    expect_safe(written);
    // It is the reference that makes the difference, and nothing else of 5.10.
    expect_safe(scenario("page-reuse", "5.8,ref=held"));
    expect_bug(scenario("page-reuse", "5.10,ref=none"), "late_touch");
    EXPECT_EQ(explore(scenario("page-reuse", "lock-in-end")).verdict, Verdict::kDeadlock);
}

TEST(ExploreReclaimTest, LosesNoPageAndNeedsTheReferenceToo) {
    for (const char* protocol : kWithoutReference) {
        expect_bug(scenario("reclaim", protocol), "late_touch");
    }
    for (const char* protocol : kWithReference) {
        expect_safe(scenario("reclaim", protocol));
    }
}

TEST(ExploreReclaimTest, AnAllocatorThatSleepsGetsTheFrameThatComesClean) {
    for (const char* protocol : kWithReference) {
        Options options = scenario("reclaim", protocol);
        options.parameters["pressure"] = 1;
        expect_safe(options);
    }
}

TEST(ExploreTruncateTest, AStaleWakeLetsAPageLeaveItsMappingUnderWriteback) {
    for (const char* protocol : {"5.9-rc", "5.9", "5.10"}) {
        expect_bug(scenario("truncate", protocol), "remove_writeback");
    }
    for (const char* protocol :
         {"5.8", "5.11", "6.8", "recheck-on-wake", "wake-clears", "wait-to-set"}) {
        expect_safe(scenario("truncate", protocol));
    }
    EXPECT_EQ(explore(scenario("truncate", "lock-in-end")).verdict, Verdict::kDeadlock);
}

TEST(ExploreTruncateTest, IsSafeBesideAnIntegrityWalkToo) {
    Options options = scenario("truncate", "wake-clears");
    options.parameters["race"] = 1;
    expect_safe(options);
}

TEST(ExploreErrseqTest, EveryOpenerIsToldOnceOfAFailedWrite) {
    for (const char* protocol : {"5.8", "5.10", "6.8"}) {
        expect_safe(scenario("errseq", protocol));
    }
}

TEST(ExploreErrseqTest, AnErrorRecordedAfterTheEndIsMissed) {
    Options options = scenario("errseq", "6.8");
    options.parameters["late_error"] = 1;
    const Result result = explore(options);
    EXPECT_EQ(result.verdict, Verdict::kLostData);
    EXPECT_EQ(result.minimal_preemptions, 1U);
}

Options live_switch(const std::string& from, const std::string& to, unsigned gated) {
    Options options = scenario("live-switch", from);
    options.parameters["gated"] = gated;
    for (const ScenarioInfo& info : scenarios()) {
        for (const ParameterInfo& parameter : info.parameters) {
            const auto& names = parameter.value_names;
            if (const auto at = std::find(names.begin(), names.end(), to); at != names.end()) {
                options.parameters[parameter.name] = static_cast<unsigned>(at - names.begin());
            }
        }
    }
    return options;
}

TEST(ExploreSwitchTest, BehindTheGateASafeProtocolGivesWayToAnother) {
    expect_safe(live_switch("5.8", "6.8", 1));
    expect_safe(live_switch("6.8", "5.8", 1));
    expect_safe(live_switch("wait-to-set", "recheck-on-wake", 1));
}

TEST(ExploreSwitchTest, WithoutItTwoSafeProtocolsMayMakeABug) {
    struct Pair {
        const char *from, *to, *title;
    };
    for (const Pair& it : {
             // The sleeper takes the first of the waker's two stores for the last.
             Pair{"6.8", "5.8", "use after return"},
             // A waker that does not look, and a sleeper that relies on it.
             Pair{"recheck-on-wake", "6.8", "bug_on_writeback"},
             // The bit that came with the wait is set once more.
             Pair{"wait-to-set", "6.8", "writeback"},
         }) {
        SCOPED_TRACE(std::string(it.from) + " to " + it.to);
        const Result result = explore(live_switch(it.from, it.to, 0));
        EXPECT_EQ(result.verdict, Verdict::kAssertion);
        ASSERT_TRUE(result.failure.has_value());
        EXPECT_NE(result.failure->failure.title.find(it.title), std::string::npos)
            << result.failure->failure.title;
    }
}

TEST(ExploreSwitchTest, WithoutItTwoThatLoopSuitEachOther) {
    expect_safe(live_switch("5.11", "6.8", 0));
    expect_safe(live_switch("6.8", "5.11", 0));
}

TEST(ExploreContExpandTest, BreaksAsSyzbotSawItThroughTheRealFilesystem) {
    for (const char* protocol : {"5.9", "5.10"}) {
        SCOPED_TRACE(protocol);
        Options options = scenario("cont-expand", protocol);
        options.method = Method::kBound;
        const Result result = explore(options);
        EXPECT_EQ(result.verdict, Verdict::kAssertion);
        EXPECT_EQ(result.minimal_preemptions, 2U);
        ASSERT_TRUE(result.failure.has_value());
        // The completion, the zero fill, the flusher, the second dirtying, the wake-up, the walk.
        EXPECT_EQ(order_of(result.failure->schedule), "ACBCAC") << result.failure->schedule;
        EXPECT_NE(result.failure->failure.title.find("bug_on_writeback"), std::string::npos)
            << result.failure->failure.title;
    }
}

TEST(ExploreContExpandTest, HoldsUnderTheCureAsFarAsItIsSearched) {
    for (const unsigned sync : {0U, 1U}) {
        for (const char* protocol : {"5.11", "6.8"}) {
            SCOPED_TRACE(std::string(protocol) + (sync != 0 ? ", sync" : ""));
            Options options = scenario("cont-expand", protocol);
            options.parameters["sync"] = sync;
            options.method = Method::kBound;
            options.max_bound = 1;
            const Result bounded = explore(options);
            EXPECT_EQ(bounded.verdict, Verdict::kOk);
            EXPECT_TRUE(bounded.searches.back().complete);
            options.method = Method::kPos;
            options.max_executions = 1000;
            const Result random = explore(options);
            EXPECT_EQ(random.verdict, Verdict::kOk)
                << (random.failure.has_value() ? random.failure->failure.title : "");
        }
    }
}

TEST(ExploreReplayTest, RepeatsAFailureFromItsSchedule) {
    Options options = scenario("mail", "5.9");
    options.method = Method::kBound;
    const Result result = explore(options);
    ASSERT_TRUE(result.failure.has_value());
    const RunRecord run = replay(options, result.failure->schedule);
    EXPECT_EQ(run.failure.verdict, Verdict::kAssertion);
    EXPECT_EQ(run.schedule, result.failure->schedule);
    EXPECT_EQ(run.preemptions, 1U);
    ASSERT_EQ(run.pages.size(), 1U);
    EXPECT_EQ(run.steps.back().task, run.failure.task);
}

TEST(ExploreReplayTest, FollowsAScheduleUnderAnotherProtocolAsFarAsItGoes) {
    Options options = scenario("mail", "5.9");
    options.method = Method::kBound;
    const Result result = explore(options);
    ASSERT_TRUE(result.failure.has_value());
    EXPECT_EQ(replay(scenario("mail", "6.8"), result.failure->schedule).failure.verdict,
              Verdict::kOk);
}

// What two searches must agree on.
struct Ends {
    std::set<std::string> outcomes;
    std::uint64_t final_states = 0;
};

bool operator==(const Ends& a, const Ends& b) {
    return a.outcomes == b.outcomes && a.final_states == b.final_states;
}

void PrintTo(const Ends& it, std::ostream* out) {
    *out << it.final_states << " final states";
    for (const std::string& outcome : it.outcomes) {
        *out << "; " << outcome;
    }
}

Ends all_ends(Options options, Method method) {
    options.method = method;
    options.stop_at_first = false;
    const Result result = explore(options);
    EXPECT_TRUE(result.complete) << to_string(method);
    Ends ends{.outcomes = {}, .final_states = result.searches.back().final_states};
    for (const auto& [outcome, count] : result.outcomes) {
        ends.outcomes.insert(outcome);
    }
    return ends;
}

struct Size {
    const char* scenario;
    std::map<std::string, unsigned> parameters = {};
};

// Failing cells too: then in every way in which they fail.
void expect_agreement(const std::vector<Size>& sizes, const std::vector<const char*>& protocols) {
    for (const Size& size : sizes) {
        for (const char* protocol : protocols) {
            SCOPED_TRACE(std::string(size.scenario) + " under " + protocol);
            Options options = scenario(size.scenario, protocol);
            options.parameters = size.parameters;
            EXPECT_EQ(all_ends(options, Method::kStateful), all_ends(options, Method::kDpor));
        }
    }
}

const std::vector<const char*> kAllButLockInEnd = {
    "5.8", "5.9-rc", "5.9", "5.10", "5.11", "6.8", "recheck-on-wake", "wake-clears", "wait-to-set"};

TEST(ExploreAgreementTest, EveryStateAndEveryTraceEndTheSameWays) {
    const std::vector<Size> sizes = {{"mail"},
                                     {"two-waiters", {{"second", 0}}},
                                     {"redirty", {{"flusher", 0}}},
                                     {"fsync-fsync"},
                                     {"lock-handoff"},
                                     {"killable"},
                                     {"page-reuse"},
                                     {"errseq"},
                                     {"live-switch", {{"written_back", 0}}}};
    expect_agreement(sizes, kAllButLockInEnd);
    expect_agreement(sizes, {"lock-in-end"});
    // More than a million traces under lock-in-end.
    expect_agreement({{"truncate"}, {"reclaim"}}, kAllButLockInEnd);
}

TEST(ExploreAgreementTest, ThroughTheRealFilesystemToo) {
    const Size size{"cont-expand", {{"flusher", 0}, {"first", 1}}};
    expect_agreement(
        {size}, {"5.8", "5.9-rc", "5.9", "5.10", "5.11", "6.8", "recheck-on-wake", "wait-to-set"});
    // Its compare-and-exchange looks at the whole flag word, which makes twenty times the traces.
    const Size smaller{"cont-expand", {{"flusher", 0}, {"first", 1}, {"waits", 0}}};
    expect_agreement({smaller}, {"wake-clears"});
}

// WBFAT_FULL=1: larger ones too, where the traces are millions.
TEST(ExploreAgreementTest, AtFullSizeIfThereIsTime) {
    if (std::getenv("WBFAT_FULL") != nullptr) {
        expect_agreement({{"truncate"}, {"reclaim"}}, {"lock-in-end"});
        expect_agreement({{"two-waiters"}, {"redirty"}, {"live-switch"}}, kAllButLockInEnd);
        expect_agreement({{"cont-expand", {{"flusher", 1}, {"first", 0}, {"waits", 0}}}}, {"6.8"});
    }
}

TEST(ExploreKillableTest, AKilledSleeperHandsItsWakeUpOn) {
    Options options = scenario("killable", "");
    options.method = Method::kStateful;
    const Result result = explore(options);
    EXPECT_EQ(result.verdict, Verdict::kOk)
        << (result.failure.has_value() ? result.failure->schedule : "");
    EXPECT_TRUE(result.complete);
}

TEST(ExploreUsageTest, NamesWhatWouldBeRight) {
    const auto message = [](const Options& options) -> std::string {
        try {
            explore(options);
        } catch (const UsageError& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_NE(message(scenario("nail", "")).find("mail"), std::string::npos);
    EXPECT_NE(message(scenario("mail", "7.0")), "");
    Options options = scenario("mail", "");
    options.parameters["cpus"] = 99;
    EXPECT_NE(message(options).find("must be 3 to"), std::string::npos);
    EXPECT_THROW(replay(scenario("mail", ""), "Q7"), UsageError);
    EXPECT_THROW(replay(scenario("mail", ""), "A"), UsageError);
}

}  // namespace
}  // namespace wbfat::explore
