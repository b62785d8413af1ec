// The page protocol: lock, dirty, writeback, wait. The whole public family on one screen.
//
//   lock_page ... unlock_page                        the page lock: bounded unfairness, then
//   hand-off set_page_dirty / clear_page_dirty_for_io         the page owes a write / the caller
//   now owes it set_page_writeback ... end_page_writeback        the write is in flight
//   wait_on_page_writeback, wait_for_stable_page     sleep until it is not
//
// The version implemented is the newest kernel's (6.8 and later): xor clear, `while` around the
// wait, a reference held across the end. The places where the kernel's versions differ are marked
// `switch:` in page_lock.cc and page_wait.cc.
//
// Source: Linux v6.19 mm/filemap.c, mm/page-writeback.c; the page-era names (mm/folio-compat.c).
#pragma once

#include "cache/base/result.h"
#include "cache/page.h"

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
// The same, giving the caller's reference away first: on return the page may be another's.
// Source: folio_put_wait_locked.
void put_and_wait_on_page_locked(Page& page);

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

// PG_writeback on, WRITEBACK mark on, DIRTY mark off if the page is clean, TOWRITE off; one i_pages
// section. Source: __folio_start_writeback.
void set_page_writeback(Page& page) REQUIRES(page);
// The write has completed: PG_writeback off, its mark off, sleepers woken. Needs no lock and takes
// none but leaf locks. Context: completion. Source: folio_end_writeback (6.8).
void end_page_writeback(Page& page);
// Returns when PG_writeback was seen clear. With the page lock held it stays clear until
// unlock_page. Source: folio_wait_writeback (`while`, c2407cf7d22d).
void wait_on_page_writeback(Page& page);
// Errors: EINTR. Source: folio_wait_writeback_killable.
Result<> wait_on_page_writeback_killable(Page& page);
// Waits only if the mapping demands stable pages under I/O (metadata does). Source:
// folio_wait_stable.
void wait_for_stable_page(Page& page) REQUIRES(page);

}  // namespace wbfat::cache::inline WBFAT_RT
