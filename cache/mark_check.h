// Whether the marks of a mapping say what its pages say: the assertions writeback_mark (X2) and
// dirty_mark (X3) of page_index.h.
//
// Costs a lookup a page, so it runs before each integrity write, and only while one of the two is
// on. Pages that are locked are left out: their holder is in the middle of changing both.
//
// Locking: takes the i_pages lock once a page. Context: sleeps for nothing, holds references.
#pragma once

#include "cache/address_space.h"

namespace wbfat::cache::inline WBFAT_RT {

void check_marks(AddressSpace& mapping, pgoff_t start, pgoff_t end);

}  // namespace wbfat::cache::inline WBFAT_RT
