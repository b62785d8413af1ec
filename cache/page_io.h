// Between pages and Bios: the pool of Bios, gathering pages into them, and what happens when they
// complete.
//
// A page may lie on the device in several parts, each a segment of some Bio. page.blocks_in_flight
// counts the parts; whoever completes the last one ends the page's read (PG_uptodate, unlock) or
// its writeback.
//
// A write that failed must leave its page dirty, but a completion takes no page lock and
// dirty_blocks is guarded by it. So the completion takes a reference on each page of the Bio, which
// keeps reclaim away, and parks the whole Bio on the failed list; redirty_failed_pages, called by
// the flusher, by everyone about to look for dirty pages and by everyone who has waited for
// writeback, locks the pages and gives the blocks their dirtiness back.
//
// Invariants
//   - I1. blocks_in_flight is set to the number of parts before the first of them is handed to a
//     BioBuilder.
//   - I2. A page of a failed write is either on the failed list (with a reference), or dirty, or no
//     longer in a mapping.
//   - I3. A waiter that saw PG_writeback end, and then calls redirty_failed_pages(kWait), finds the
//     failed blocks dirty.
//   - I4. A failed Bio is announced before its first page ends and parked after its last: never
//     freed under its completion.
//
// Locking: redirty_lock_ is taken before page locks; pool_lock_ is a leaf, taken by completions
// too. Source: Linux v6.19 fs/mpage.c mpage_end_io, fs/buffer.c end_buffer_async_write. Differs:
// failed pages stay dirty (reliability.md section 4 b).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cache/address_space.h"
#include "cache/base/result.h"
#include "cache/device/block_device.h"
#include "cache/page.h"

namespace wbfat::cache::inline WBFAT_RT {

// The first error among the Bios of a caller who waits for all of them. Lives on that caller's
// stack: a completion writes it before it ends a page, and the caller leaves only after all its
// pages have ended.
class IoErrorSink {
public:
    void record(int error) {
        int expected = 0;
        error_.compare_exchange(expected, error);
    }
    [[nodiscard]] int error() const {
        return error_.load();
    }

private:
    sync::Atomic<int> error_{0};
};

// A Bio of the pool.
struct PageBio final : Bio {
    AddressSpace* mapping = nullptr;
    IoErrorSink* sink = nullptr;  // may be null
    // Reads: what was i_size at submission; bytes beyond it are zeroed.
    std::uint64_t eof_bytes = 0;
    // Writes of stable pages: xxh3 of the segments at submission. Empty unless the assertion
    // stable_page is on.
    std::vector<std::uint64_t> hashes;
    PageBio* next = nullptr;  // free list or failed list
};

// Piece of a page that is contiguous on the device, or a hole.
struct PagePart {
    std::uint32_t offset_bytes = 0;  // in the page
    std::uint32_t length_bytes = 0;
    std::uint64_t device_offset_bytes = 0;

    [[nodiscard]] bool is_hole() const {
        return device_offset_bytes == MappedExtent::kHole;
    }
};

struct PageParts {
    std::array<PagePart, kBlocksPerPage> part;
    unsigned count = 0;

    [[nodiscard]] std::span<const PagePart> all() const {
        return {part.data(), count};
    }
};

// Looks extents up once a run, not once a page. Only for a range of pages that stay locked
// meanwhile: truncate frees blocks after it has removed their pages, so locked pages keep their
// place on the device.
class ExtentCursor {
public:
    ExtentCursor(AddressSpace& mapping, std::uint64_t end_bytes)
        : mapping_(mapping), end_bytes_(end_bytes) {}

    // Where [offset, offset + length) of `page` lies. Requires: both multiples of kBlockSize.
    // Errors: of map_blocks.
    Result<PageParts> map_page(const Page& page, std::uint32_t offset, std::uint32_t length);

private:
    Result<> seek(std::uint64_t offset_bytes);

    AddressSpace& mapping_;
    std::uint64_t end_bytes_;
    std::uint64_t start_bytes_ = 0;  // of extent_
    MappedExtent extent_{.device_offset_bytes = 0, .length_bytes = 0};
};

// Gathers parts that are contiguous on the device into one Bio; submits it when the next part does
// not fit.
class BioBuilder {
public:
    BioBuilder(AddressSpace& mapping, BioOp op, IoErrorSink* sink = nullptr);
    ~BioBuilder() {
        submit();
    }
    BioBuilder(const BioBuilder&) = delete;
    BioBuilder& operator=(const BioBuilder&) = delete;

    void set_eof(std::uint64_t eof_bytes) {
        eof_bytes_ = eof_bytes;
    }
    // Requires: I1; the page is locked (read) or under writeback (write). A read takes over one
    // reference of the page with its last part.
    void add(Page& page, const PagePart& part);
    // Nobody may sleep on a page lock or on PG_writeback while something is gathered and not
    // submitted.
    void submit();

private:
    AddressSpace& mapping_;
    const BioOp op_;
    IoErrorSink* const sink_;
    std::uint64_t eof_bytes_ = ~std::uint64_t{0};
    PageBio* bio_ = nullptr;
    std::uint64_t size_bytes_ = 0;
};

// Start of the I/O unit: what may be transferred at all.
std::uint32_t io_granule_bytes(const AddressSpace& mapping);

class PageIo {
public:
    explicit PageIo(PageCache& cache);
    // Requires: wait_until_idle().
    ~PageIo();
    PageIo(const PageIo&) = delete;
    PageIo& operator=(const PageIo&) = delete;

    PageBio& get_bio();
    void put_bio(PageBio& bio);
    // Sleeps until every Bio has come back.
    void wait_until_idle();
    // Whether none is out, nor parked after a failure.
    bool is_idle();

    enum class Redirty : std::uint8_t {
        kTry,   // leave what is locked for the next time: the flusher, on whom lock holders may be
                // waiting
        kWait,  // all of it (I3)
    };
    // Context: sleeps; no page lock held.
    void redirty_failed_pages(Redirty mode);

    // Pages ever submitted for writing, and Bios that failed since the last one that did not.
    [[nodiscard]] std::uint64_t pages_submitted() const {
        return pages_submitted_.load(std::memory_order_relaxed);
    }
    [[nodiscard]] std::uint64_t failures_in_a_row() const {
        return failures_in_a_row_.load(std::memory_order_relaxed);
    }

private:
    friend class BioBuilder;
    static void end_read(Bio& base);
    static void end_write(Bio& base);
    void end_failed_write(PageBio& bio);
    bool redirty_bio(PageBio& bio, Redirty mode);

    PageCache& cache_;

    sync::Mutex redirty_lock_;

    sync::Mutex pool_lock_{sync::LockRank::kLeaf};
    sync::CondVar changed_;
    PageBio* free_ GUARDED_BY(pool_lock_) = nullptr;
    PageBio* failed_ GUARDED_BY(pool_lock_) = nullptr;
    std::uint64_t in_use_ GUARDED_BY(pool_lock_) = 0;     // neither free nor destroyed
    std::uint64_t announced_ GUARDED_BY(pool_lock_) = 0;  // I4: failed, not yet parked

    // Announced or parked. Stored before the first page ends, so the waiter of I3 sees it.
    sync::Atomic<std::uint64_t> nr_failed_{0};
    sync::Atomic<std::uint64_t> pages_submitted_{0};
    sync::Atomic<std::uint64_t> failures_in_a_row_{0};
};

}  // namespace wbfat::cache::inline WBFAT_RT
