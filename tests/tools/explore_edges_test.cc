// Goal: the orderings read from a run are those that it keeps, and no more of them than are needed.
// Method: the mail's schedule, recorded by hand, with named points added.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/mail_run.h"
#include "tools/explore/edges.h"

namespace wbfat::explore {
namespace {

using ::testing::UnorderedElementsAre;

std::vector<std::string> words_of(const RunRecord& run) {
    std::vector<std::string> words;
    for (const OrderEdge& edge : candidate_edges(run)) {
        words.push_back(edge_text(edge));
    }
    return words;
}

TEST(EdgesTest, ADelayedTaskStoodAtItsPointAndASleepingOneHadPassedIt) {
    // CPU1 was delayed at end_writeback:cleared until CPU3 slept; the other way round would be a
    // rule that this run breaks.
    EXPECT_THAT(
        words_of(tests::mail_run()),
        UnorderedElementsAre("CPU3 passes wait:queued, then CPU1 passes end_writeback:cleared"));
}

TEST(EdgesTest, LeavesOutWhatAnotherEdgeImplies) {
    RunRecord run = tests::mail_run();
    run.steps[2].points = {"set_writeback:done"};
    run.steps[3].points = {"unlock_page:cleared"};
    run.steps[5].points = {"wait_writeback:seen"};
    // unlock_page:cleared comes after set_writeback:done, and wait:queued after
    // wait_writeback:seen.
    EXPECT_THAT(words_of(run),
                UnorderedElementsAre(
                    "CPU2 passes unlock_page:cleared, then CPU3 passes wait_writeback:seen",
                    "CPU2 passes unlock_page:cleared, then CPU1 passes end_writeback:cleared",
                    "CPU3 passes wait:queued, then CPU1 passes end_writeback:cleared"));
}

TEST(EdgesTest, CountsTheHitsOfAPointByTask) {
    RunRecord run = tests::mail_run();
    run.steps[7].points = {"wait:queued"};
    const std::vector<OrderEdge> edges = candidate_edges(run);
    ASSERT_EQ(edges.size(), 1U);
    EXPECT_EQ(edges[0].first.nth, 2U);
    EXPECT_EQ(rule_text(edges[0], run, "2ms"),
              "end_writeback:cleared@completion after wait:queued@sync[hit=2] give up 2ms");
}

}  // namespace
}  // namespace wbfat::explore
