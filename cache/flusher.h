// The flusher: one thread per cache that writes dirty inodes back, and the brake on those who dirty
// faster.
//
//   b_dirty     inodes with dirty pages or a dirty inode, newest first
//   b_io        taken for this round
//   b_more_io   had more to write than their share
//
// Work comes from three sources: periodic (kupdate: inodes dirty for longer than
// dirty_expire_centisecs), background (while dirty pages exceed the background share), and explicit
// (sync, kick).
//
// After a failed write the periodic and background work back off, from 100 ms doubling to 30 s,
// until a write succeeds; explicit work always runs. A throttled writer sleeps at most one pause
// then: nothing it waits for can happen.
//
// Invariants
//   - L1. A mapping with dirty pages, a dirty inode or pages under writeback that the flusher
//     started is on one list, or has I_SYNC.
//   - L2. Whoever has set I_SYNC on a mapping works on it without locks; forget() waits for it, so
//     it cannot go away.
//   - L3. While sync_inodes runs, the flusher thread starts no inode and lets no inode look younger
//     than it is.
//
// Locking: list_lock guards the three lists and i_state of every mapping. It is taken after page
// and inode locks and before i_pages locks; never held across I/O or a wait. Source: Linux v6.19
// fs/fs-writeback.c, mm/page-writeback.c balance_dirty_pages; writeback-protocol.md 14, 15.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "cache/address_space.h"
#include "cache/base/result.h"
#include "cache/writeback.h"

namespace wbfat::cache::inline WBFAT_RT {

// What the flusher is at. Exact at one moment, which has passed when it is read.
struct FlusherStatus {
    bool paused = false;
    bool busy = false;  // in a round
    unsigned dirty_writeback_centisecs = 0;
    std::uint64_t limit_pages = 0;       // writers wait above
    std::uint64_t background_pages = 0;  // the flusher starts above
    std::uint64_t nr_dirty_inodes = 0;   // on b_dirty, b_io and b_more_io
    std::uint64_t backoff_ms = 0;        // after failed writes; 0: none
};

class Flusher {
public:
    explicit Flusher(PageCache& cache);
    // Stops the thread. Dirty inodes stay dirty: whoever unmounts has synced before.
    ~Flusher();
    Flusher(const Flusher&) = delete;
    Flusher& operator=(const Flusher&) = delete;

    // Called by set_page_dirty and by filesystems when an inode's own fields change.
    // Context: any but completions. Source: __mark_inode_dirty.
    void mark_inode_dirty(AddressSpace& mapping, std::uint32_t i_dirty_flags);
    // Takes the mapping off the lists for good and waits for a running writeback of it: before its
    // inode is freed.
    void forget(AddressSpace& mapping);

    // Writes every dirty inode and waits (WB_SYNC_ALL, for_sync), in the calling thread, paused or
    // not. Returns the first error. Calls are served one after the other. Context: sleeps; holding
    // nothing that writepages or write_inode of any mapping takes; never from those. Source:
    // sync_inodes_sb.
    Result<> sync_inodes();
    // Writes one inode's pages and the inode now; waits for I_SYNC. Source: write_inode_now /
    // writeback_single_inode.
    Result<> write_inode_now(AddressSpace& mapping, SyncMode mode);

    // Runs on the flusher thread every dirty_writeback period, after the inodes: the filesystem's
    // group commit.
    void set_periodic(std::function<void()> work);
    // Starts a background pass at once (start_all): everything dirty now, without waiting. Context:
    // any.
    void kick();
    // The thread starts nothing new; returns when it has finished what it was at. Pauses nest.
    void pause();
    // The same; false, and not paused, when it was still at it after `patience`.
    [[nodiscard]] bool pause_within(sync::Nanoseconds patience);
    void resume();
    // The period of the old dirty inodes from now on; 0: never.
    void set_dirty_writeback_centisecs(unsigned centisecs);
    [[nodiscard]] FlusherStatus status() const;

    // Sleeps while dirty + writeback pages exceed the dirty limit, so that writers go at the speed
    // of the device. Call after a write, holding no page lock, no transaction and no lock that the
    // flusher needs. Source: balance_dirty_pages_ratelimited.
    void balance_dirty_pages(AddressSpace& mapping);

    // Writeback of some pages has ended: throttled writers look again. Context: completion.
    void note_writeback_ended();

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace wbfat::cache::inline WBFAT_RT
