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

TEST(EdgesTest, ADelayedTaskStandsAtItsPointAndASleepingOneHasPassedIt) {
    // CPU1 came to end_writeback:cleared, and was delayed there until CPU3 slept.
    EXPECT_THAT(
        words_of(tests::mail_run()),
        UnorderedElementsAre("CPU1 comes to end_writeback:cleared, then CPU3 passes wait:queued",
                             "CPU3 comes to wait:queued, then CPU1 passes end_writeback:cleared"));
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
                    "CPU1 comes to end_writeback:cleared, then CPU2 passes set_writeback:done",
                    "CPU1 comes to end_writeback:cleared, then CPU3 passes wait_writeback:seen",
                    "CPU2 comes to unlock_page:cleared, then CPU3 passes wait_writeback:seen",
                    "CPU2 comes to unlock_page:cleared, then CPU1 passes end_writeback:cleared",
                    "CPU3 comes to wait:queued, then CPU1 passes end_writeback:cleared"));
}

TEST(EdgesTest, CountsTheHitsOfAPointByTask) {
    RunRecord run = tests::mail_run();
    run.steps[7].points = {"wait:queued"};
    std::vector<std::string> rules;
    for (const OrderEdge& edge : candidate_edges(run)) {
        rules.push_back(rule_text(edge, run, "2ms"));
    }
    EXPECT_THAT(rules,
                UnorderedElementsAre(
                    "end_writeback:cleared@completion after wait:queued@sync[hit=2] give up 2ms",
                    "wait:queued@sync after end_writeback:cleared@completion give up 2ms"));
}

TEST(EdgesTest, KeepsOutOfTheWayWhoDidNothingBeforeTheFailure) {
    const RunRecord run = tests::mail_run();
    RunRecord other = run;
    TaskRecord idle;
    idle.name = "IO";
    idle.role = "completion";
    other.tasks.push_back(idle);
    for (const int task : {run.failure.task, static_cast<int>(other.tasks.size()) - 1}) {
        StepRecord step;
        step.task = task;
        step.points = {task == run.failure.task ? "write_cache_pages:prepared"
                                                : "end_writeback:begin"};
        other.steps.push_back(step);
    }
    const std::vector<OrderEdge> edges = edges_of_the_idle(run, other);
    ASSERT_EQ(edges.size(), 1U);
    EXPECT_EQ(edge_text(edges[0]),
              "CPU3 comes to write_cache_pages:prepared, then IO passes end_writeback:begin");
}

}  // namespace
}  // namespace wbfat::explore
