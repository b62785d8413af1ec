// Goal: a failed assertion does what its state says, and settings are parsed or refused in one
// sentence. Method: a recording reporter and handler; the default switches are restored after each
// test.
#include "cache/assertions.h"

#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cache/page.h"

namespace wbfat::cache::inline WBFAT_RT {
namespace {

std::vector<BugReport>& reports() {
    static std::vector<BugReport> list;
    return list;
}
int nr_handled = 0;

class AssertionsTest : public ::testing::Test {
protected:
    AssertionsTest()
        : reporter_(set_bug_reporter([](const BugReport& r) { reports().push_back(r); })),
          handler_(set_bug_handler([](const BugReport&) { ++nr_handled; })) {
        reports().clear();
        nr_handled = 0;
        reset_assertions();
    }
    ~AssertionsTest() override {
        reset_assertions();
        set_bug_reporter(reporter_);
        set_bug_handler(handler_);
    }

    Page page_;

private:
    BugReporter reporter_;
    BugHandler handler_;
};

TEST_F(AssertionsTest, SaysNothingWhileTheConditionHolds) {
    PAGE_ASSERT(page_, Assertion::kTwoWrites, true, "never");
    EXPECT_TRUE(reports().empty());
    EXPECT_EQ(assertion_hits(Assertion::kTwoWrites), 0U);
}

TEST_F(AssertionsTest, EveryAssertionReportsItsNameAndCallsTheHandlerInStateBug) {
    for (const AssertionInfo& info : all_assertions()) {
        set_assertion(info.id, AssertionState::kBug);
        PAGE_ASSERT(page_, info.id, false, "broken on purpose");
        ASSERT_EQ(reports().size(), 1U) << info.name;
        EXPECT_STREQ(reports()[0].assertion, info.name);
        EXPECT_EQ(reports()[0].page, &page_);
        EXPECT_THAT(reports()[0].title(),
                    ::testing::MatchesRegex("BUG at tests/cache/assertions_test.cc:[0-9]+ "
                                            "TestBody.*: " +
                                            std::string(info.name) + ".*: broken on purpose"));
        EXPECT_EQ(assertion_hits(info.id), 1U);
        EXPECT_EQ(nr_handled, 1);
        reports().clear();
        nr_handled = 0;
    }
}

TEST_F(AssertionsTest, ALockThatIsTakenOutOfTurnFailsLockRank) {
    sync::Mutex inner(sync::LockRank::kFrames);
    sync::RwSem outer(sync::LockRank::kInode);
    const sync::MutexLock lock(inner);
    { const sync::ReadGuard guard(outer); }
    ASSERT_EQ(reports().size(), 1U);
    EXPECT_STREQ(reports()[0].assertion, "lock_rank");
    EXPECT_EQ(nr_handled, 1);
    set_assertion(Assertion::kLockRank, AssertionState::kOff);
    { const sync::ReadGuard guard(outer); }
    EXPECT_EQ(reports().size(), 1U);
}

TEST_F(AssertionsTest, WarnReportsAndCallsNoHandler) {
    set_assertion(Assertion::kTwoWrites, AssertionState::kWarn);
    PAGE_ASSERT(page_, Assertion::kTwoWrites, false, "two");
    ASSERT_EQ(reports().size(), 1U);
    EXPECT_TRUE(reports()[0].title().starts_with("WARNING at ")) << reports()[0].title();
    EXPECT_EQ(nr_handled, 0);
    EXPECT_EQ(assertion_hits(Assertion::kTwoWrites), 1U);
}

TEST_F(AssertionsTest, OffReportsNothingAndCountsNothing) {
    set_assertion(Assertion::kTwoWrites, AssertionState::kOff);
    PAGE_ASSERT(page_, Assertion::kTwoWrites, false, "two");
    EXPECT_FALSE(assertion_enabled(Assertion::kTwoWrites));
    EXPECT_TRUE(reports().empty());
    EXPECT_EQ(assertion_hits(Assertion::kTwoWrites), 0U);
}

TEST_F(AssertionsTest, AnOperationIsGivenUpOnlyAfterABugAndIfSoDecided) {
    const auto gives_up = [this](bool holds) {
        PAGE_ASSERT_ELSE(page_, Assertion::kTwoWrites, holds, "two", return true);
        return false;
    };
    EXPECT_FALSE(gives_up(false));
    set_after_bug(AfterBug::kGiveUp);
    EXPECT_FALSE(gives_up(true));
    EXPECT_TRUE(gives_up(false));
    set_assertion(Assertion::kTwoWrites, AssertionState::kWarn);
    EXPECT_FALSE(gives_up(false));
    set_assertion(Assertion::kTwoWrites, AssertionState::kOff);
    EXPECT_FALSE(gives_up(false));
    set_after_bug(AfterBug::kGoOn);
}

TEST_F(AssertionsTest, AboutNoPageShowsNone) {
    CACHE_ASSERT(Assertion::kReferenceLeak, false, std::string("3 frames"));
    ASSERT_EQ(reports().size(), 1U);
    EXPECT_EQ(reports()[0].page, nullptr);
    EXPECT_EQ(reports()[0].object, "");
}

TEST_F(AssertionsTest, NamesAreUniqueAndFoundAgain) {
    std::set<std::string> names;
    for (const AssertionInfo& info : all_assertions()) {
        EXPECT_TRUE(names.insert(info.name).second) << info.name;
        EXPECT_EQ(find_assertion(info.name), info.id);
        EXPECT_LT(std::string(info.help).size(), 100U) << info.name;
    }
    EXPECT_EQ(find_assertion("bug_on"), std::nullopt);
}

TEST_F(AssertionsTest, CostlyOnesAreOffUnlessAskedFor) {
    for (const AssertionInfo& info : all_assertions()) {
        if (info.cost == AssertionCost::kCostly) {
            EXPECT_EQ(info.default_state, AssertionState::kOff) << info.name;
        }
    }
    EXPECT_EQ(set_assertions("costly:bug"), "");
    EXPECT_EQ(assertion_state(Assertion::kStablePage), AssertionState::kBug);
    EXPECT_EQ(assertion_state(Assertion::kHungWait), AssertionState::kWarn);
}

TEST_F(AssertionsTest, SettingsAreTakenInOrder) {
    EXPECT_EQ(set_assertions("all:off,stable_page:warn,two_writes:bug"), "");
    EXPECT_EQ(assertion_state(Assertion::kBugOnWriteback), AssertionState::kOff);
    EXPECT_EQ(assertion_state(Assertion::kStablePage), AssertionState::kWarn);
    EXPECT_EQ(assertion_state(Assertion::kTwoWrites), AssertionState::kBug);
}

TEST_F(AssertionsTest, RefusesInOneSentenceAndSetsNothing) {
    const struct {
        const char* text;
        const char* expected;
    } cases[] = {
        {"", "assertion '' has no state; give"},
        {"two_writes", "assertion 'two_writes' has no state; give two_writes:off"},
        {"two_writes:on", "assertion 'two_writes' knows no state 'on'; give off, warn or bug"},
        {"two_writes:off,", "has no state"},
        {"three_writes:off", "there is no assertion 'three_writes'; there are bug_on_writeback, "},
    };
    for (const auto& c : cases) {
        EXPECT_THAT(set_assertions(c.text), ::testing::HasSubstr(c.expected)) << c.text;
        EXPECT_EQ(set_assertions(c.text), check_assertions(c.text));
        EXPECT_EQ(assertion_state(Assertion::kTwoWrites), AssertionState::kBug) << c.text;
    }
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
