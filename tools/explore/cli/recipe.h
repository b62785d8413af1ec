// The fewest orderings between named points that force a failure, and the proof that they do.
//
// A failing schedule fixes the order of everything; nearly all of it does not matter. A recipe is
// what is left: "B is not passed before A was", a few times. It forces the failure if every
// schedule that keeps it fails, which the explorer finds out by trying them all. Named points exist
// in the production build too, so the same few rules steer a live mount into the failure.
//
// Invariants
//   R1. The failing schedule itself keeps every edge.
//   R2. Without any one of the edges some schedule that keeps the others does not fail.
#pragma once

#include <string>
#include <vector>

#include <boost/json.hpp>

#include "tools/explore/cli/arguments.h"
#include "tools/explore/explore.h"

namespace wbfat::explore {

struct Recipe {
    RunRecord run;  // the failure
    std::vector<OrderEdge> edges;
    bool forces = false;  // every schedule that keeps `edges` fails
    bool proved = false;  // and all of them were tried
    // That keep `edges`, one for each state before the last step.
    std::uint64_t schedules = 0;
    std::uint64_t failures = 0;  // of these
    std::uint64_t unforced = 0;  // schedules of the scenario without any rule; 0: not counted
    std::uint64_t unforced_failures = 0;
};

// Errors: UsageError if `schedule` does not fail.
Recipe make_recipe(const Options& options, const RunRecord& failure);

std::string text_of(const Recipe& recipe, const std::string& give_up);
boost::json::object json_of(const Recipe& recipe, const std::string& give_up);

}  // namespace wbfat::explore
