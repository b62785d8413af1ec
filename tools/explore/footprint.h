// What an operation has to do with the others on its object: when two of them commute.
//
// Two operations commute, where one follows the other, if they leave the same behind and see the
// same in either order. What they touch says it, and what they find there: to set a flag that is
// set already changes nothing, and who lets go of one of many references sees only that some are
// left. So a footprint is of one operation in one state.
//
// Invariant: to swap two neighbours that commute changes no footprint, theirs or anybody's; so
// whatever order of a run keeps all pairs that do not commute is the same run
// (search_traces.cc needs that). Memory that one task frees and another allocates is not in it:
// which address comes out may differ between two runs that are the same.
//
// Under ThreadSanitizer operations on an atomic commute only if both are loads.
#pragma once

#include <cstdint>

#include "cache/sync/scheduler.h"

namespace wbfat::explore {

struct Footprint {
    sync::sched::OpKind kind = sync::sched::OpKind::kYield;
    const void* object = nullptr;  // null: commutes with everything
    // As bits of an atomic's value; all of a lock or parker, but that nothing of it is seen by what
    // shares a lock or unparks.
    std::uint64_t written = 0;  // changed or not
    std::uint64_t changed = 0;
    std::uint64_t seen = 0;  // with those of `written` that FetchOr and FetchAnd found as they wish
    bool leaves_none = false;  // kSubAndSign: nothing is left of the count, or less
};

// Of an operation that is about to be done.
Footprint footprint(const sync::sched::Pending& op);

bool commute(const Footprint& a, const Footprint& b);

// Whether it commutes with no operation at all on its object.
bool orders_all(const Footprint& print);

}  // namespace wbfat::explore
