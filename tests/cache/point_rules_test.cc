// Goal: rules for points mean what their grammar says, orderings hold real threads and let them go,
// and every mistake gets one sentence. Method: tables of texts; points passed by threads of known
// roles; what happened is read from counters and printed lines, never from a clock.
#include "cache/sync/point_rules.h"

#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cache/sync/point_actions.h"
#include "cache/sync/point_grammar.h"
#include "cache/sync/sync.h"

namespace wbfat::sync {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using namespace std::chrono_literals;

// What a test's point is about.
struct Subject {
    const char* file = "";
    std::uint64_t page = PointSubject::kNoPage;
    const char* what = "";
};
PointSubject point_subject(const Subject& subject) {
    return {.file = point_tag(subject.file), .page = subject.page, .what = subject.what};
}

class PointRulesTest : public ::testing::Test {
protected:
    PointRulesTest() {
        set_point_printer([this](const std::string& line) {
            const MutexLock lock(lines_mutex_);
            lines_.push_back(line);
        });
    }
    ~PointRulesTest() override {
        clear_point_rules();
        set_point_printer(nullptr);
    }

    static void set(const std::string& text) {
        EXPECT_EQ(set_point_rules(text), "") << text;
    }
    // The status of the only rule.
    static PointRuleStatus only_rule() {
        const std::vector<PointRuleStatus> rules = point_rules();
        EXPECT_THAT(rules, SizeIs(1));
        return rules.empty() ? PointRuleStatus{} : rules.front();
    }
    static void pass(int times, const char* name = "test:a") {
        for (int i = 0; i < times; ++i) {
            WBFAT_POINT(name);
        }
    }
    std::vector<std::string> lines() {
        const MutexLock lock(lines_mutex_);
        return lines_;
    }

private:
    Mutex lines_mutex_;
    std::vector<std::string> lines_;
};

// --- grammar

TEST_F(PointRulesTest, TakesEveryFormOfTheGrammar) {
    for (const char* text : {
             "wake:flagged=yield",
             "wake:flagged = 20%3*sleep(1ms..5ms) -> 50%delay(10us) -> off",
             "wake:flagged@completion=count",
             "wake:flagged@sync[hit=3;page=0..7;file=inode 5;task=a b;what=writeback]=pause",
             "wake:flagged[hit=2..]=print(here we are)",
             "wake:flagged=0.5%print",
             "end_writeback:cleared@completion after wait:queued@sync[what=writeback] give up 50ms",
             "a:b after c:d",
             "a:b@sync after c:d[page=1] since e:f@request give up 1h",
             "chaos",
             "chaos seed 7 share 10% short 1us..20us long 5ms",
             "off",
             "",
             "  # a comment\n\n wake:flagged=off \n",
         }) {
        EXPECT_EQ(check_point_rules(text), "") << text;
    }
}

TEST_F(PointRulesTest, EveryMistakeGetsOneSentence) {
    struct Case {
        const char* text;
        const char* sentence;
    };
    for (const Case& c : std::vector<Case>{
             {"wake", "it is none of: POINT=ACTION, POINT after POINT, chaos, off"},
             {"=sleep(1ms)", "point '' is not valid; give a name such as end_writeback:cleared"},
             {"Wake=yield", "point 'Wake' is not valid; give a name such as end_writeback:cleared"},
             {"w:f@cpu1=yield",
              "role 'cpu1' is not valid; give completion, flusher, request, sync or other"},
             {"w:f[page=1=yield", "it is none of: POINT=ACTION, POINT after POINT, chaos, off"},
             {"w:f[page=x]=yield",
              "selector page 'x' is not valid; give N or N..M, pages of 4096 bytes from 0"},
             {"w:f[page=5..2]=yield",
              "selector page '5..2' is not valid; give N or N..M, pages of 4096 bytes from 0"},
             {"w:f[hit=0]=yield",
              "selector hit '0' is not valid; give N, N..M or N.., counted from 1"},
             {"w:f[cpu=1]=yield",
              "selector 'cpu=1' is not valid; give hit=, page=, file=, task= "
              "or what= with a value"},
             {"w:f[what=dirty]=yield",
              "selector what 'dirty' is not valid; give locked or writeback"},
             {"w:f=explode",
              "action 'explode' is not valid; give off, count, yield, pause, print, "
              "sleep(TIME) or delay(TIME)"},
             {"w:f=",
              "action '' is not valid; give off, count, yield, pause, print, sleep(TIME) "
              "or delay(TIME)"},
             {"w:f=sleep(5)",
              "sleep '5' is not valid; give a time up to an hour such as 20us, "
              "5ms, 1s or 1ms..20ms"},
             {"w:f=sleep(0us..5ms)",
              "sleep '0us..5ms' is not valid; give a time up to an hour "
              "such as 20us, 5ms, 1s or 1ms..20ms"},
             {"w:f=sleep(2h)",
              "sleep '2h' is not valid; give a time up to an hour such as 20us, "
              "5ms, 1s or 1ms..20ms"},
             {"w:f=120%yield",
              "probability '120' is not valid; give a percentage from 0 to 100: 20%sleep(1ms)"},
             {"w:f=x*yield", "count 'x' is not valid; give a number: 3*sleep(1ms)"},
             {"w:f=yield(3)", "action 'yield' takes no argument, but got '3'"},
             {"a:b after c", "point 'c' is not valid; give a name such as end_writeback:cleared"},
             {"a:b after c:d give up soon",
              "give up 'soon' is not valid; give a time up to an hour such as 50ms or 1s"},
             {"a:b after c:d since e",
              "point 'e' is not valid; give a name such as "
              "end_writeback:cleared"},
             {"chaos seed x", "chaos seed 'x' is not valid; give a number"},
             {"chaos share 20", "chaos share '20' is not valid; give a percentage such as 20%"},
             {"chaos loud 3",
              "chaos setting 'loud' is not valid; give seed N, share P%, short "
              "TIME or long TIME"},
         }) {
        EXPECT_EQ(check_point_rules(c.text),
                  std::string("point rule '") + c.text + "': " + c.sentence);
    }
}

TEST_F(PointRulesTest, NothingIsSetWhenOneOfTheRulesIsWrong) {
    EXPECT_NE(set_point_rules("test:a=count\ntest:b=explode"), "");
    EXPECT_THAT(point_rules(), SizeIs(0));
}

TEST_F(PointRulesTest, ReadsAFileAndNamesItInMistakes) {
    const std::string path = ::testing::TempDir() + "/wbfat_point_rules";
    std::ofstream(path) << "# two rules\ntest:a=count\ntest:b=yield\n";
    std::string text;
    EXPECT_EQ(read_point_rules(path, text), "");
    set(text);
    EXPECT_THAT(point_rules(), SizeIs(2));
    std::ofstream(path) << "test:a=explode\n";
    EXPECT_THAT(read_point_rules(path, text), HasSubstr(path + ": point rule 'test:a=explode'"));
    EXPECT_THAT(read_point_rules(path + ".none", text), HasSubstr("cannot read the point rules"));
}

// --- terms

TEST_F(PointRulesTest, TheFirstTermWithHitsLeftActs) {
    set("test:a=2*print(first)->1*off->3*print(second)");
    pass(8);
    EXPECT_THAT(lines(), ElementsAre(HasSubstr("first"), HasSubstr("first"), HasSubstr("second"),
                                     HasSubstr("second"), HasSubstr("second")));
    EXPECT_EQ(only_rule().hits, 8U);
    EXPECT_EQ(only_rule().acted, 5U);
}

TEST_F(PointRulesTest, ProbabilityDecidesAndIsTheSameEveryTime) {
    std::vector<std::uint64_t> acted;
    for (int run = 0; run < 2; ++run) {
        set("test:a=25%count");
        pass(1000);
        acted.push_back(only_rule().acted);
        clear_point_rules();
    }
    EXPECT_GT(acted[0], 150U);
    EXPECT_LT(acted[0], 350U);
    EXPECT_EQ(acted[0], acted[1]);
    set("test:a=0%count->100%count");
    pass(10);
    EXPECT_EQ(only_rule().acted, 10U);
}

TEST_F(PointRulesTest, TimesAreDrawnWithinTheirRangeOnALogarithmicScale) {
    PointRandom random(1);
    int below_the_middle = 0;
    for (int i = 0; i < 1000; ++i) {
        const Nanoseconds time = random.draw({1us, 1ms});
        EXPECT_GE(time, 1us);
        EXPECT_LE(time, 1ms);
        below_the_middle += time < 32us ? 1 : 0;  // 10^1.5: half of the scale
    }
    EXPECT_GT(below_the_middle, 400);
    EXPECT_LT(below_the_middle, 600);
}

TEST_F(PointRulesTest, SelectsByRoleHitFilePageAndFlag) {
    struct Case {
        const char* selectors;
        std::uint64_t hits;  // of the passages below
    };
    for (const Case& c : std::vector<Case>{
             {"", 6},
             {"@completion", 2},
             {"[file=inode 5]", 3},
             {"[page=1]", 2},
             {"[page=0..1]", 4},
             {"[page=0..]", 5},
             {"[file=inode 5;page=1]", 1},
             {"[what=writeback]", 2},
             {"@completion[file=inode 6]", 1},
         }) {
        set(std::string("test:a") + c.selectors + "=count");
        const Subject about_one_page{.file = "inode 5", .page = 1, .what = "writeback"};
        WBFAT_POINT("test:a", about_one_page);
        WBFAT_POINT("test:a", Subject{.file = "inode 5", .page = 0, .what = "locked"});
        WBFAT_POINT("test:a", Subject{.file = "inode 5", .page = 7});
        WBFAT_POINT("test:a");
        Thread("completion", Role::kCompletion, [] {
            WBFAT_POINT("test:a", Subject{.file = "inode 6", .page = 1, .what = "writeback"});
            WBFAT_POINT("test:a", Subject{.file = "inode 7", .page = 0});
        }).join();
        EXPECT_EQ(only_rule().hits, c.hits) << c.selectors;
        clear_point_rules();
    }
}

TEST_F(PointRulesTest, TheNthHitIsCountedAmongThoseThatMatchEverythingElse) {
    set("test:a[hit=2..3;page=1]=print");
    for (int i = 0; i < 5; ++i) {
        WBFAT_POINT("test:a", Subject{.page = 0});
        WBFAT_POINT("test:a", Subject{.page = 1});
    }
    EXPECT_THAT(lines(), SizeIs(2));
    EXPECT_EQ(only_rule().hits, 5U);
}

TEST_F(PointRulesTest, PrintsWhoPassesWhere) {
    set("test:a=print(look)");
    Thread("walker", Role::kFlusher, [] { WBFAT_POINT("test:a", Subject{.page = 3}); }).join();
    EXPECT_THAT(lines(), ElementsAre("point test:a flusher 'walker' page 3: look"));
}

TEST_F(PointRulesTest, ARuleReplacesTheRuleOfItsSiteAndOffRemovesIt) {
    set("test:a=print(old)\ntest:a@flusher=print(flusher)");
    set("test:a=print(new)");
    pass(1);
    EXPECT_THAT(lines(), ElementsAre(HasSubstr("new")));
    set("test:a=off");
    pass(1);
    EXPECT_THAT(lines(), SizeIs(1));
    EXPECT_EQ(only_rule().text, "test:a@flusher=print(flusher)");
    set("off");
    EXPECT_THAT(point_rules(), SizeIs(0));
    EXPECT_FALSE(points_armed.load());
}

TEST_F(PointRulesTest, APauseEndsWhenItsRuleIsRemoved) {
    set("test:a=pause\ntest:b=count");
    Atomic<bool> passed{false};
    Thread thread("held", Role::kOther, [&passed] {
        WBFAT_POINT("test:a");
        passed.store(true);
    });
    while (point_rules().front().acted == 0) {
        yield_now();
    }
    EXPECT_FALSE(passed.load());
    set("test:a=off");
    thread.join();
    EXPECT_TRUE(passed.load());
}

TEST_F(PointRulesTest, ADeviceTakesSleepsAsLatency) {
    set("device:read=sleep(1h)");
    EXPECT_EQ(point_latency("device:read"), 1h);
    EXPECT_EQ(point_latency("device:write"), 0ns);
}

// --- orderings

TEST_F(PointRulesTest, AnOrderingHoldsUntilTheOtherSiteWasPassed) {
    set("test:b after test:a@flusher give up 1h");
    Atomic<bool> passed{false};
    Thread held("held", Role::kCompletion, [&passed] {
        WBFAT_POINT("test:b");
        passed.store(true);
    });
    while (only_rule().hits == 0) {
        yield_now();
    }
    pass(1);  // not the flusher
    EXPECT_FALSE(passed.load());
    Thread("flusher", Role::kFlusher, [] { WBFAT_POINT("test:a"); }).join();
    held.join();
    EXPECT_EQ(only_rule().met, 1U);
    EXPECT_EQ(only_rule().given_up, 0U);
}

TEST_F(PointRulesTest, APassageCountsForOneHeldThreadHoweverEarlyItCame) {
    set("test:b after test:a give up 1ms");
    pass(3, "test:a");
    pass(1, "test:b");
    EXPECT_EQ(only_rule().met, 1U);
    pass(1, "test:b");
    EXPECT_EQ(only_rule().met, 1U);
    EXPECT_EQ(only_rule().given_up, 1U);
}

TEST_F(PointRulesTest, WhatWasPassedBeforeTheSinceSiteDoesNotCount) {
    set("test:b after test:a since test:c give up 1ms");
    pass(1, "test:a");
    pass(1, "test:c");
    pass(1, "test:b");
    EXPECT_EQ(only_rule().given_up, 1U);
    pass(1, "test:c");
    pass(1, "test:a");
    pass(1, "test:b");
    EXPECT_EQ(only_rule().met, 1U);
}

TEST_F(PointRulesTest, WhereAPointAnnouncesAndHoldsItAnnouncesFirst) {
    // Armed in the order that would hold the thread before it announced.
    set("test:a after test:c give up 1h\ntest:b after test:a give up 1h");
    Thread first("first", Role::kOther, [] { WBFAT_POINT("test:a"); });
    pass(1, "test:b");
    pass(1, "test:c");
    first.join();
    for (const PointRuleStatus& rule : point_rules()) {
        EXPECT_EQ(rule.met, 1U) << rule.text;
    }
}

TEST_F(PointRulesTest, RemovingAnOrderingLetsItsThreadsGo) {
    set("test:b after test:a give up 1h");
    Thread held("held", Role::kOther, [] { WBFAT_POINT("test:b"); });
    while (only_rule().hits == 0) {
        yield_now();
    }
    clear_point_rules();
    held.join();
}

TEST_F(PointRulesTest, OrderingsForceOneInterleavingOfThreeThreadsRoundAfterRound) {
    set("test:a after test:b_ready give up 1h\n"
        "test:c after test:a_done give up 1h\n"
        "test:b after test:c_done give up 1h");
    Mutex mutex;
    std::string order;
    const auto step = [&](const char* before, char name, const char* after) {
        WBFAT_POINT(before);
        {
            const MutexLock lock(mutex);
            order += name;
        }
        WBFAT_POINT(after);
    };
    constexpr int kRounds = 100;
    for (int round = 0; round < kRounds; ++round) {
        order.clear();
        Thread a("a", Role::kOther, [&] { step("test:a", 'a', "test:a_done"); });
        Thread b("b", Role::kOther, [&] {
            WBFAT_POINT("test:b_ready");
            step("test:b", 'b', "test:b_done");
        });
        Thread c("c", Role::kOther, [&] { step("test:c", 'c', "test:c_done"); });
        a.join();
        b.join();
        c.join();
        EXPECT_EQ(order, "acb");
    }
    for (const PointRuleStatus& rule : point_rules()) {
        EXPECT_EQ(rule.met, 1U * kRounds) << rule.text;
        EXPECT_EQ(rule.given_up, 0U) << rule.text;
    }
}

// --- chaos

TEST_F(PointRulesTest, ChaosDelaysAtSomePointsAndNeverMoreThanItsShare) {
    set("chaos seed 5 share 20% short 1us..20us long 100us..500us");
    const Nanoseconds start = monotonic_now();
    Nanoseconds latency{0};
    int active_points = 0;
    for (const char* name : {"test:a", "test:b", "test:c", "test:d", "test:e", "test:f"}) {
        Nanoseconds here{0};
        for (int i = 0; i < 2000; ++i) {
            here += point_latency(name);
        }
        active_points += here > 0ns ? 1 : 0;
        latency += here;
    }
    EXPECT_LE(latency, (monotonic_now() - start) / 5);
    EXPECT_GT(active_points, 0);
    EXPECT_LT(active_points, 6);
    EXPECT_GT(only_rule().acted, 0U);
}

}  // namespace
}  // namespace wbfat::sync
