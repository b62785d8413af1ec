// Orderings between named points that a run keeps, and how a live mount is told of them.
//
// A task comes to a point with its step and goes on from it at some moment before its next one. One
// that could have run on but did not is taken to have stood at the point all that time; so a run
// puts all comings and goings in one order, and all its edges can be kept together.
#pragma once

#include <string>
#include <vector>

#include "tools/explore/explore.h"

namespace wbfat::explore {

// Every edge between two tasks that the run keeps and that no other of them implies: what a recipe
// is chosen from.
std::vector<OrderEdge> candidate_edges(const RunRecord& run);
// The edges that keep out of the way whoever did nothing before the run failed. `other` is a run
// that ends well: they wait for a point to which the failing task comes there, and not here, as it
// failed before.
std::vector<OrderEdge> edges_of_the_idle(const RunRecord& run, const RunRecord& other);

// In the grammar of the live mount: "B@role[hit=2] after A@role give up 2ms".
std::string rule_text(const OrderEdge& edge, const RunRecord& run, const std::string& give_up);

// In words: "CPU1 comes to end_writeback:cleared, then CPU3 passes wait:queued".
std::string edge_text(const OrderEdge& edge);

}  // namespace wbfat::explore
