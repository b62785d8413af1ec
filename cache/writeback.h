// Writing dirty pages: the walk, the merging, the completion.
//
// WritebackIter walks a mapping's dirty pages in ascending order, and for each: lock, wait for an
// earlier writeback, BUG_ON(PageWriteback), clear dirty, hand it to its caller. write_cache_pages
// is the same with the caller as a callback; mpage_writepages is the caller for files: it gathers
// pages that are contiguous on the device into one Bio. A page whose blocks are not contiguous goes
// block by block, and the last of its blocks to complete ends the writeback.
//
// mpage_writepages keeps a run of consecutive pages locked until it has looked up where they lie,
// so that one map_blocks serves the run; it submits everything it has gathered before it sleeps on
// a page lock or on PG_writeback.
//
// A failed write leaves its blocks dirty (page_io.h); the error is in wb_err before the writeback
// ends.
//
// Source: Linux v6.19 mm/page-writeback.c, fs/mpage.c, fs/buffer.c; writeback-protocol.md
// section 10. Differs: an extent lookup per run; nothing unsubmitted while asleep; a page beyond
// i_size gets an empty writeback cycle, which clears the marks the kernel leaves to truncate.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>

#include "cache/address_space.h"
#include "cache/base/result.h"

namespace wbfat::cache::inline WBFAT_RT {

enum SyncMode : std::uint8_t {
    WB_SYNC_NONE,  // skip what is already under writeback
    WB_SYNC_ALL,   // wait for it, then write again: integrity
};

// One request to write. Source: struct writeback_control.
struct WritebackControl {
    SyncMode sync_mode = WB_SYNC_NONE;
    std::int64_t nr_to_write = INT64_MAX;  // pages; counted down; ignored by WB_SYNC_ALL
    std::int64_t pages_skipped = 0;        // pages redirtied instead of written
    std::uint64_t range_start = 0;         // bytes
    std::uint64_t range_end = INT64_MAX;   // bytes, inclusive
    bool range_cyclic = false;             // start at writeback_index instead of range_start
    bool tagged_writepages = false;        // tag first, as WB_SYNC_ALL does, to outrun dirtiers
    bool for_kupdate = false;
    bool for_background = false;
    bool for_sync = false;
};

// Writes one locked, clean-marked page and unlocks it, also on error.
// `dirty` are the blocks that clear_page_dirty_for_io took from it.
using WritePage = std::function<Result<>(Page& page, BlockMask dirty)>;

// The walk, one page at a time:
//
//   Result<> written;
//   while (Page* const page = iter.next(written)) {
//       written = write(*page, iter.dirty());
//   }
//
// The loop must not be left early. Source: writeback_iter; writeback-protocol.md 10.6, 10.7.
class WritebackIter {
public:
    // `before_sleep` submits what the caller has gathered.
    WritebackIter(
        AddressSpace& mapping, WritebackControl& wbc, std::function<void()> before_sleep = [] {});
    ~WritebackIter();
    WritebackIter(const WritebackIter&) = delete;
    WritebackIter& operator=(const WritebackIter&) = delete;

    // The next page, locked and cleaned, for the caller to write and unlock; null when there is
    // none or enough was written. `previous` tells what became of the page before. The page is
    // referenced until the next call.
    Page* next(const Result<>& previous);
    // The blocks that were dirty in the page that next() returned.
    [[nodiscard]] BlockMask dirty() const {
        return dirty_;
    }
    // The first error; WB_SYNC_ALL goes on after it, WB_SYNC_NONE stops.
    Result<> result() const;

private:
    static constexpr std::size_t kBatch = 15;  // Source: PAGEVEC_SIZE

    void note_written(const Result<>& result);
    Page* next_tagged();
    bool prepare(Page& page);
    void release_batch();
    void finish();

    AddressSpace& mapping_;
    WritebackControl& wbc_;
    const std::function<void()> before_sleep_;
    const bool tag_first_;
    pgoff_t index_;
    pgoff_t end_;
    pgoff_t first_ = 0;  // where the walk began
    pgoff_t done_index_ = 0;
    std::array<Page*, kBatch> batch_{};  // referenced
    std::size_t found_ = 0;
    std::size_t position_ = 0;
    Page* page_ = nullptr;
    BlockMask dirty_ = 0;
    bool done_ = false;
    int error_ = 0;
};

// The walk with the writer as a callback. Returns the first error. Source: write_cache_pages.
Result<> write_cache_pages(AddressSpace& mapping, WritebackControl& wbc,
                           const WritePage& writepage);
Result<> mpage_writepages(AddressSpace& mapping, WritebackControl& wbc);
// mapping.ops().writepages, retried on ENOMEM for WB_SYNC_ALL. Source: do_writepages.
Result<> do_writepages(AddressSpace& mapping, WritebackControl& wbc);

// Writes exactly the named dirty blocks of a mapping and waits for them: how an ordered commit
// writes one phase. `blocks` are device blocks of kBlockSize (offset / 512), sorted, unique; blocks
// that are not dirty are skipped. Neighbours are merged into large Bios. Other dirty blocks of the
// same pages stay dirty. Errors: the first write error; blocks that failed are dirty again. Source:
// write_dirty_buffer / fat_sync_bhs.
Result<> sync_dirty_blocks(AddressSpace& mapping, std::span<const std::uint64_t> blocks);

}  // namespace wbfat::cache::inline WBFAT_RT
