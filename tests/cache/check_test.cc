// Goal: a failed check says where, what and to whom it happened, and goes to the handler.
// Method: a recording handler, and death tests for the default one.
#include "cache/base/check.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cache/page.h"

namespace wbfat::cache::inline WBFAT_RT {
namespace {

std::vector<BugReport>& reports() {
    static std::vector<BugReport> list;
    return list;
}

class CheckTest : public ::testing::Test {
protected:
    CheckTest() : previous_(set_bug_handler([](const BugReport& r) { reports().push_back(r); })) {
        reports().clear();
    }
    ~CheckTest() override {
        set_bug_handler(previous_);
    }

private:
    BugHandler previous_;
};

TEST_F(CheckTest, SaysNothingWhileTheConditionIsFalse) {
    BUG_ON(false, "P1", "never");
    EXPECT_TRUE(reports().empty());
}

TEST_F(CheckTest, TitleNamesFileLineFunctionInvariantAndMessage) {
    const int line = __LINE__ + 1;
    BUG_ON(reports().empty(), "P1", "the page lock is not held");
    ASSERT_EQ(reports().size(), 1U);
    EXPECT_EQ(reports()[0].title(), "BUG at tests/cache/check_test.cc:" + std::to_string(line) +
                                        " TestBody(): P1: the page lock is not held");
}

TEST_F(CheckTest, TitleFallsBackToTheConditionText) {
    const int zero = 0;
    BUG_ON(zero == 0);
    ASSERT_EQ(reports().size(), 1U);
    EXPECT_TRUE(reports()[0].title().ends_with("TestBody(): zero == 0")) << reports()[0].title();
}

TEST_F(CheckTest, MessageAloneNeedsNoInvariant) {
    BUG_ON(true, "list is torn");
    ASSERT_EQ(reports().size(), 1U);
    EXPECT_TRUE(reports()[0].title().ends_with("(): list is torn")) << reports()[0].title();
    EXPECT_STREQ(reports()[0].invariant, "");
}

TEST_F(CheckTest, PageReportShowsThePage) {
    Page page;
    page.flags.store(PG_locked | PG_dirty | PG_waiters);
    page.index = 17;
    page.refcount.store(2);
    PAGE_BUG_ON(page, true, "P2", "PageWriteback not set");
    ASSERT_EQ(reports().size(), 1U);
    const std::string& text = reports()[0].object;
    EXPECT_NE(text.find("index 17 mapping none locked|dirty|waiters refs 2"), std::string::npos)
        << text;
}

TEST(CheckDeathTest, DefaultHandlerPrintsTheTitleAndAborts) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_EXIT(BUG_ON(true, "P1", "why"), ::testing::KilledBySignal(SIGABRT),
                "BUG at tests/cache/check_test.cc:.*P1: why");
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
