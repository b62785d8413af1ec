#!/usr/bin/env python3
"""Writes copies of cache sources in which known mistakes can be switched on.

    mutate.py SOURCE_ROOT cache/page_wait.cc OUTPUT

Every mistake of the source is in one copy, behind `is_mutant("name")`, so that all of them cost one compilation.
What a mistake replaces must stand in the source exactly once: whoever rewrites it is sent here by the build.
"""

import pathlib
import sys

# Source -> [(mutant, what stands there, what stands there instead)].
MUTANTS = {
    "cache/page_wait.cc": [
        # Queued without another look at the bit: it may have been cleared since the first.
        ("recheck-removed",
         """        if (try_bit(page_, entry_.bit, behavior_)) {
            entry_.state.fetch_or(kWoken | kDone""",
         """        if (!is_mutant("recheck-removed") && try_bit(page_, entry_.bit, behavior_)) {
            entry_.state.fetch_or(kWoken | kDone"""),
        # The bit is looked at before whoever clears it can know of a sleeper.
        ("waiters-set-too-late",
         """        entry_.page->flags.set(PG_waiters);
        WBFAT_POINT("wait:waiters_set");
        if (""",
         """        if (!is_mutant("waiters-set-too-late")) {
            entry_.page->flags.set(PG_waiters);
        }
        WBFAT_POINT("wait:waiters_set");
        if ("""),
        ("waiters-set-too-late",
         """            return;
        }
        insert_before(bucket_.head, entry_);
    }
""",
         """            return;
        }
        insert_before(bucket_.head, entry_);
        if (is_mutant("waiters-set-too-late")) {
            entry_.page->flags.set(PG_waiters);
        }
    }
"""),
        # The bit is taken for the sleeper, who is not told.
        ("gift-not-announced",
         """        state |= kDone;
""",
         """        state |= is_mutant("gift-not-announced") ? 0U : kDone;
"""),
        # Whoever is first in the queue, and nobody else, whatever he waits for.
        ("wake-only-the-first",
         """        if (entry.task != nullptr && wake_page_function(entry, key) == WakeVerdict::kStop) {""",
         """        if (entry.task != nullptr && (wake_page_function(entry, key) == WakeVerdict::kStop ||
                                      is_mutant("wake-only-the-first"))) {"""),
        # The queue is others' for a moment after every entry, not after every 64, and the rest is forgotten.
        ("walk-not-resumed",
         """++passed == kWalkBreak &&
            next != &bucket.head) {
            passed = 0;
""",
         """++passed >= (is_mutant("walk-not-resumed") ? 1U : kWalkBreak) &&
            next != &bucket.head) {
            if (is_mutant("walk-not-resumed")) {
                return;
            }
            passed = 0;
"""),
        # An owner believes one look, whatever the unlinking promises. Only one that ends when it has waited: another
        # would have its next calls written to, and nobody could say what comes of that.
        ("one-look-at-a-plain-unlink",
         """    return link.next.load(std::memory_order_acquire) == &link &&""",
         """    if (is_mutant("one-look-at-a-plain-unlink") && sync::current_task().name() == "CPU4") {
        return link.next.load(std::memory_order_acquire) == &link;
    }
    return link.next.load(std::memory_order_acquire) == &link &&"""),
    ],
    "cache/page_lock.cc": [
        # Sleepers are woken while the bit is still set, and not afterwards.
        ("wake-before-clear",
         """    const std::uint64_t old = clear_writeback(mapping, page, protocol.end);
""",
         """    if (is_mutant("wake-before-clear")) {
        wake_up_page_bit(page, PG_writeback);
    }
    const std::uint64_t old = clear_writeback(mapping, page, protocol.end);
"""),
        ("wake-before-clear",
         """    wake_writeback_waiters(page, hold, old, protocol.end);
""",
         """    if (!is_mutant("wake-before-clear")) {
        wake_writeback_waiters(page, hold, old, protocol.end);
    }
"""),
        ("writeback-mark-not-cleared",
         """        mapping->i_pages.clear_tag_locked(index, PAGECACHE_TAG_WRITEBACK);
""",
         """        if (!is_mutant("writeback-mark-not-cleared")) {
            mapping->i_pages.clear_tag_locked(index, PAGECACHE_TAG_WRITEBACK);
        }
"""),
        # The page is somebody else's once the bit is clear, and is looked at all the same.
        ("reference-dropped-early",
         """    EndHold(Page& page, EndReference reference) : page_(page), reference_(reference) {
""",
         """    EndHold(Page& page, EndReference reference)
        : page_(page),
          reference_(is_mutant("reference-dropped-early") ? EndReference::kNone : reference) {
"""),
    ],
    "cache/writeback.cc": [
        # What is written between the transfer and the clearing is taken for written back.
        ("dirty-cleared-after-submission",
         """            dirty_ = clear_page_dirty_for_io(*page);
""",
         """            dirty_ = is_mutant("dirty-cleared-after-submission") ? page->dirty_blocks
                                                                  : clear_page_dirty_for_io(*page);
"""),
        ("dirty-cleared-after-submission",
         """        written = writepage(*page, iter.dirty());
""",
         """        written = writepage(*page, iter.dirty());
        if (is_mutant("dirty-cleared-after-submission")) {
            lock_page(*page);
            clear_page_dirty_for_io(*page);
            unlock_page(*page);
        }
"""),
    ],
    "cache/freeze.cc": [
        # Who is inside stays inside.
        ("gate-waits-for-nobody",
         """    while (state_.load() != kClosed) {
""",
         """    while (state_.load() != kClosed && !is_mutant("gate-waits-for-nobody")) {
"""),
    ],
}


def mutate(text, source):
    for name, old, new in MUTANTS[source]:
        if text.count(old) != 1:
            sys.exit(f"mutate.py: {name}: what it replaces stands {text.count(old)} times in {source}, not once:\n{old}")
        text = text.replace(old, new)
    return '#include "tests/tools/mutants/mutant.h"\n' + text


def main():
    root, source, output = sys.argv[1:]
    text = (pathlib.Path(root) / source).read_text(encoding="utf-8")
    pathlib.Path(output).write_text(mutate(text, source), encoding="utf-8")


if __name__ == "__main__":
    main()
