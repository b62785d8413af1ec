// Orderings between named points that a run keeps, and how a live mount is told of them.
//
// A task passes a point at some moment between its step and its next one. One that could have run
// on but did not is taken to have stood at the point all that time; so a run puts all passings in
// one order, and all its edges can be kept together.
#pragma once

#include <string>
#include <vector>

#include "tools/explore/explore.h"

namespace wbfat::explore {

// Every edge between two tasks that the run keeps and that no other of them implies: what a recipe
// is chosen from.
std::vector<OrderEdge> candidate_edges(const RunRecord& run);

// In the grammar of the live mount: "B@role[hit=2] after A@role give up 2ms".
std::string rule_text(const OrderEdge& edge, const RunRecord& run, const std::string& give_up);

// In words: "CPU1 passes end_writeback:cleared, then CPU3 passes wait:queued".
std::string edge_text(const OrderEdge& edge);

}  // namespace wbfat::explore
