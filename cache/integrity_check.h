// The assertion integrity_sync (17.6 I9): an integrity sync that reports success has written every
// page that was dirty, or under writeback, when it began, unless the page left its mapping.
//
//   IntegrityCheck check(mapping, first, last);
//   ... write, wait, look at the errors ...
//   check.finish();   // only if there was none
//
// What a page owes is taken up with each write and each cancelling; Page::write_sequence counts
// that. A page that was dirty must have been taken up since, and that write must be over: there is
// only one at a time (I10).
//
// While the assertion is off both calls look at one switch. While it is on a sync costs a lookup
// and the lock of each of its dirty pages, twice. Pages are remembered by index and generation, not
// by a reference: a sync must not keep reclaim from its pages.
//
// Context: sleeps for page locks; no page lock held.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/address_space.h"

namespace wbfat::cache::inline WBFAT_RT {

class IntegrityCheck {
public:
    // Units: bytes, both inclusive.
    IntegrityCheck(AddressSpace& mapping, std::uint64_t first_bytes, std::uint64_t last_bytes);
    void finish();

private:
    struct Debt {
        pgoff_t index = 0;
        std::uint32_t generation = 0;
        std::uint32_t write_sequence = 0;
        bool dirty = false;  // else: under writeback
    };
    void remember(PageTag tag, pgoff_t start, pgoff_t end);

    AddressSpace& mapping_;
    std::vector<Debt> debts_;
};

}  // namespace wbfat::cache::inline WBFAT_RT
