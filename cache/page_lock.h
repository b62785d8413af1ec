// The page protocol: lock, dirty, writeback, wait. The whole public family on one screen.
//
//   lock_page ... unlock_page                   the page lock
//   set_page_dirty, clear_page_dirty_for_io     the page owes a write; now the caller owes it
//   set_page_writeback ... end_page_writeback   the write is in flight
//   wait_on_page_writeback                      sleep until it is not
//
// Which of the kernel's versions of these runs is in protocol.h. The places where they differ are
// marked `switch:` in page_lock.cc, page_wait.cc and writeback.cc, each with what the other setting
// gives up.
//
// Source: Linux v5.8 to v6.19 mm/filemap.c, mm/page-writeback.c; the page-era names.
#pragma once

#include "cache/base/result.h"
#include "cache/page.h"
#include "cache/page_wait.h"

namespace wbfat::cache::inline WBFAT_RT {

// Sleeps until PG_locked can be taken, then takes it. After `page_lock_unfairness` lost races the
// next unlock hands the lock over. Context: sleeps; never from a completion. Several pages of one
// mapping: ascending index only. Source:  folio_lock / __folio_lock.
void lock_page(Page& page) ACQUIRE(page);
// Errors: EINTR when the task was interrupted before it got the lock; nothing stays queued.
// Source: __folio_lock_killable. Returns with the lock held only on success.
Result<> lock_page_killable(Page& page);
// Source: folio_trylock. Context: any.
bool trylock_page(Page& page) TRY_ACQUIRE(true, page);
// Source: folio_unlock. Context: any.
void unlock_page(Page& page) RELEASE(page);
// Tells the analysis (and in debug builds checks) that the caller holds the lock: after
// find_lock_page.
void assert_page_locked(const Page& page) ASSERT_CAPABILITY(page);

// Waits once for PG_locked to clear; owns nothing on return. Source: folio_wait_locked.
void wait_on_page_locked(Page& page);
// The same whatever the protocol says: for a volume that is shut down, where two writes of a page
// must not be in flight and no page leaves its mapping under one.
void wait_in_earnest(Page& page);
// Errors: EINTR; nothing stays queued. Source: folio_wait_locked_killable.
Result<> wait_on_page_locked_killable(Page& page);
// The same, giving the caller's reference away first, on failure too: on return the page may be
// another's. Source: folio_put_wait_locked.
Result<> put_and_wait_on_page_locked(Page& page, Interruptible state = Interruptible::kNo);

// Marks blocks (default: all) dirty and tags the page DIRTY; the first dirty page of a mapping puts
// it on the flusher's list. Legal while PG_writeback is set: the page is then written again.
// Source: filemap_dirty_folio / block_dirty_folio. Differs: always under the page lock.
void set_page_dirty(Page& page, BlockMask blocks = kAllBlocks) REQUIRES(page);
// Takes the duty to write from the page: clears PG_dirty and returns the blocks that were dirty (0:
// none). The DIRTY mark stays until set_page_writeback, so that a concurrent integrity walk still
// finds the page. Source: folio_clear_dirty_for_io.
BlockMask clear_page_dirty_for_io(Page& page) REQUIRES(page);
// Gives part of that duty back (what could not be mapped or submitted). Source:
// folio_redirty_for_writepage.
void redirty_page_for_writepage(Page& page, BlockMask blocks) REQUIRES(page);
// Forgets dirtiness: the page is being truncated. Source: folio_cancel_dirty.
void cancel_dirty_page(Page& page, BlockMask blocks = kAllBlocks) REQUIRES(page);

// For whoever is about to write the page and cleans it next: returns when no earlier writeback of
// it runs. With set=with-wait the bit is the caller's own then, and has to go through
// set_page_writeback and end_page_writeback even if nothing is written. Source: the wait in
// write_cache_pages; Torvalds, mail of 5 January 2021.
void prepare_page_writeback(Page& page) REQUIRES(page);
// The same without sleeping: false if an earlier writeback runs.
bool try_prepare_page_writeback(Page& page) REQUIRES(page);
// PG_writeback on, WRITEBACK mark on, DIRTY mark off if the page is clean, TOWRITE off; one i_pages
// section. Requires: prepare_page_writeback. Source: __test_set_page_writeback,
// __folio_start_writeback.
void set_page_writeback(Page& page) REQUIRES(page);
// The same for a page of which only a part is written now: TOWRITE stays, so that an integrity walk
// comes for the rest. Source: set_page_writeback_keepwrite.
void set_page_writeback_keepwrite(Page& page) REQUIRES(page);
// The write has completed: PG_writeback off, its mark off, sleepers woken. Needs no lock and takes
// none but leaf locks (end-lock=yes: the page lock). Context: completion. Source:
// end_page_writeback / folio_end_writeback.
void end_page_writeback(Page& page);
// Returns when PG_writeback was clear once. With the page lock held it stays clear until
// unlock_page, unless an `if` was fooled by the wake-up of an earlier writeback (5.9 and 5.10).
// Source: wait_on_page_writeback.
void wait_on_page_writeback(Page& page);
// Errors: EINTR; nothing stays queued. Source: folio_wait_writeback_killable.
Result<> wait_on_page_writeback_killable(Page& page);
// Waits only if the mapping demands stable pages under I/O (metadata does). Source:
// folio_wait_stable.
void wait_for_stable_page(Page& page) REQUIRES(page);

}  // namespace wbfat::cache::inline WBFAT_RT
