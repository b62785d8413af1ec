// The assertion page_lock_order: a thread that holds pages of a mapping locks only higher ones.
//
// While it is on, who has locked which page is written down, so that an inversion is found the
// first time it happens and not the first time two threads meet in it.
//
// Locking: a spin lock of its own, a leaf. Context: any.
#pragma once

#include "cache/page.h"

namespace wbfat::cache::inline WBFAT_RT {

// Before lock_page may sleep; a trylock cannot deadlock, and is not checked.
void check_page_lock_order(const Page& page);
void note_page_locked(const Page& page);
// The lock is no longer this thread's: it is about to be unlocked, or goes to the completion of a
// read. Costs a load while nothing is written down.
void note_page_released(const Page& page);

}  // namespace wbfat::cache::inline WBFAT_RT
