// Whether the explorer notices: the cache with one known mistake in it, and every switch set wrong.
//
// Method: sources of the cache in which mistakes can be switched on (mutants/mutate.py), linked in
// place of the real ones; each is looked for where it should show, and must end as it should. With
// no mistake on, the same explorations find nothing.
#include <map>
#include <ostream>
#include <string>

#include <gtest/gtest.h>

#include "tests/tools/mutants/mutant.h"
#include "tools/explore/explore.h"

namespace wbfat {

constinit const char* active_mutant = nullptr;

namespace explore {
namespace {

struct Case {
    const char* name = "";
    const char* mutant = nullptr;  // null: the protocol itself is wrong
    const char* scenario = "";
    const char* wrong = "";  // protocol
    const char* right = "";  // the same without the mistake
    Verdict verdict = Verdict::kOk;
    const char* says = "";  // part of what is reported
    std::map<std::string, unsigned> parameters = {};
};

// Few preemptions find every one of them, and few traces.
Result run(const Case& it, const char* protocol, const char* mutant, Method method) {
    Options options;
    options.scenario = it.scenario;
    options.protocol = protocol;
    options.parameters = it.parameters;
    options.method = method;
    options.max_bound = 2;
    options.max_executions = 50'000;
    active_mutant = mutant;
    Result result = explore(options);
    active_mutant = nullptr;
    return result;
}

std::string report(const Result& result) {
    if (!result.failure.has_value()) {
        return "no failure";
    }
    const auto& failure = result.failure->failure;
    return std::string(to_string(result.verdict)) + ": " + failure.title + " | " +
           failure.condition + " | " + failure.object + " | " + result.failure->schedule;
}

std::ostream& operator<<(std::ostream& out, const Case& it) {
    return out << it.name;
}

class MutantTest : public ::testing::TestWithParam<Case> {};

void expect_caught(const Case& it, Method method) {
    const Result result = run(it, it.wrong, it.mutant, method);
    EXPECT_EQ(result.verdict, it.verdict) << report(result);
    EXPECT_NE(report(result).find(it.says), std::string::npos) << report(result);
}

TEST_P(MutantTest, IsCaughtByTheVerdictItShouldBe) {
    expect_caught(GetParam(), Method::kBound);
}

TEST_P(MutantTest, IsCaughtByTheSearchOfTracesToo) {
    expect_caught(GetParam(), Method::kDpor);
}

// Or the scenario fails for a reason of its own.
TEST_P(MutantTest, IsTheOnlyThingThatIsWrong) {
    // A mutant may be there to make a wrong switch matter: it stays.
    const bool switch_is_wrong = GetParam().wrong != std::string(GetParam().right);
    const Result result = run(GetParam(), GetParam().right,
                              switch_is_wrong ? GetParam().mutant : nullptr, Method::kBound);
    EXPECT_FALSE(result.failure.has_value()) << report(result);
}

const Case kMutants[] = {
    {"RecheckRemoved", "recheck-removed", "mail", "6.8", "6.8", Verdict::kDeadlock},
    {"WaitersSetTooLate", "waiters-set-too-late", "mail", "6.8", "6.8", Verdict::kDeadlock},
    {"WakeBeforeClear", "wake-before-clear", "mail", "6.8", "6.8", Verdict::kDeadlock},
    {"WakeOnlyTheFirst", "wake-only-the-first", "two-waiters", "6.8", "6.8", Verdict::kDeadlock},
    {"GiftNotAnnounced", "gift-not-announced", "lock-handoff", "6.8,handoff=always",
     "6.8,handoff=always", Verdict::kDeadlock},
    {"DirtyClearedAfterSubmission",
     "dirty-cleared-after-submission",
     "redirty",
     "6.8",
     "6.8",
     Verdict::kLostData,
     "not on the disk",
     {{"flusher", 0}}},
    {"MarkNotCleared", "writeback-mark-not-cleared", "redirty", "6.8", "6.8", Verdict::kAssertion,
     "writeback_mark"},
    {"ReferenceDroppedEarly", "reference-dropped-early", "page-reuse", "6.8", "6.8",
     Verdict::kAssertion, "late_touch"},
    {"GateWaitsForNobody", "gate-waits-for-nobody", "live-switch", "wait-to-set", "wait-to-set",
     Verdict::kAssertion, "writeback"},
};

const char* const kStillSet = "bug_on_writeback";
const std::map<std::string, unsigned> kContended = {{"lock_contention", 1}};

// Each switch as it must not be set beside the others.
const Case kSwitches[] = {
    {"WaiterTrusts", nullptr, "mail", "5.8,wake=blind,waiter=trust", "5.8,wake=blind",
     Verdict::kAssertion, kStillSet},
    {"WakerIsBlind", nullptr, "mail", "recheck-on-wake,wake=blind", "recheck-on-wake",
     Verdict::kAssertion, kStillSet},
    {"WaitsOnce", nullptr, "mail", "6.8,wait=if", "6.8", Verdict::kAssertion, kStillSet,
     kContended},
    {"EndIsSplit", nullptr, "mail", "wake-clears,end=split", "wake-clears", Verdict::kAssertion,
     kStillSet},
    {"EndIsAnXor", nullptr, "mail", "wake-clears,end=xor", "wake-clears", Verdict::kAssertion,
     kStillSet, kContended},
    {"EndHoldsNothing", nullptr, "page-reuse", "6.8,ref=none", "6.8", Verdict::kAssertion,
     "late_touch"},
    {"WakesAfterUnlinking", nullptr, "two-waiters", "6.8,order=unlink-wake", "6.8",
     Verdict::kAssertion, "a task is woken that has ended"},
    {"UnlinksInTwoSteps", "one-look-at-a-plain-unlink", "two-waiters", "6.8,unlink=plain", "6.8",
     Verdict::kAssertion, "use after return"},
    {"WalkIsBroken", "walk-not-resumed", "two-waiters", "6.8,walk=broken", "6.8",
     Verdict::kDeadlock},
    {"SetsAfterTheWait", nullptr, "mail", "wait-to-set,wait=if,set=after-wait",
     "wait-to-set,wait=if", Verdict::kAssertion, kStillSet},
    {"EndTakesTheLock", nullptr, "mail", "5.11,end-lock=yes", "5.11", Verdict::kDeadlock},
};

std::string name(const ::testing::TestParamInfo<Case>& it) {
    return it.param.name;
}

INSTANTIATE_TEST_SUITE_P(Mistakes, MutantTest, ::testing::ValuesIn(kMutants), name);
INSTANTIATE_TEST_SUITE_P(Switches, MutantTest, ::testing::ValuesIn(kSwitches), name);

}  // namespace
}  // namespace explore
}  // namespace wbfat
