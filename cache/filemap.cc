// Reading and writing a mapping through its pages, and waiting for a range.
#include "cache/filemap.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "cache/base/check.h"
#include "cache/integrity_check.h"
#include "cache/mark_check.h"
#include "cache/page_cache.h"
#include "cache/page_frames.h"
#include "cache/page_io.h"
#include "cache/page_lock.h"
#include "cache/readahead.h"
#include "cache/writeback.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

constexpr std::size_t kLookupBatch = 32;

// The bytes of the file that [offset, offset + length) would have to bring to make its page whole
// without a read.
bool covers_valid_bytes(const AddressSpace& mapping, std::uint64_t offset, std::size_t length) {
    if (offset_in_page(offset) != 0) {
        return false;
    }
    return length == kPageSize || offset + length >= mapping.i_size();
}

// Releases one of a batch of pages that were locked by other functions.
void unlock_and_put(Page& page)
    NO_THREAD_SAFETY_ANALYSIS {  // the lock came out of a function's result
    unlock_page(page);
    put_page(page);
}

// Finds or makes the page; locked and referenced. Errors: ENOMEM; EINTR. Source: pagecache_get_page
// with FGP_LOCK | FGP_CREAT.
Result<Page*> find_or_create_page(AddressSpace& mapping, pgoff_t index)
    NO_THREAD_SAFETY_ANALYSIS {  // returns the page locked, which cannot be expressed
    for (;;) {
        Page* page = mapping.i_pages.find_get(index);
        if (page == nullptr) {
            page = TRY(add_new_page(mapping, index));
            if (page != nullptr) {
                return page;
            }
            continue;
        }
        if (const Result<> locked = lock_page_killable(*page); !locked.has_value()) {
            put_page(*page);
            return locked.error();
        }
        if (page->mapping.load() == &mapping) {
            mapping.cache().frames().mark_accessed(*page);
            return page;
        }
        unlock_and_put(*page);
    }
}

// Reads a locked page and waits; the lock is gone afterwards, the caller's reference is not.
// Errors: EIO or what map_blocks says.
Result<> read_and_wait(AddressSpace& mapping, Page& page) {
    get_page(page);  // the read's
    Page* const one = &page;
    TRY_VOID(read_locked_pages(mapping, {&one, 1}));
    wait_on_page_locked(page);
    if (!page_test(page, PG_uptodate) && page_test(page, PG_error)) {
        return Errno{EIO};
    }
    return {};
}

Result<> lock_for_read(Page& page, Interruptible state)
    NO_THREAD_SAFETY_ANALYSIS {  // locks one way or the other
    if (state == Interruptible::kKillable) {
        TRY_VOID(wait_on_page_locked_killable(page));
        return lock_page_killable(page);
    }
    wait_on_page_locked(page);
    lock_page(page);
    return {};
}

// Makes a referenced page uptodate. Returns false when it has left the mapping. Source:
// filemap_update_page.
Result<bool> make_uptodate(AddressSpace& mapping, Page& page, Interruptible state)
    NO_THREAD_SAFETY_ANALYSIS {  // the lock goes to the read
    while (!page_test(page, PG_uptodate)) {
        TRY_VOID(lock_for_read(page, state));
        if (page.mapping.load() != &mapping) {
            unlock_page(page);
            return false;
        }
        if (page_test(page, PG_uptodate)) {
            unlock_page(page);
            break;
        }
        // A readahead that failed is not held against the page: it is read again, alone, for
        // whoever needs it.
        TRY_VOID(read_and_wait(mapping, page));
    }
    return true;
}

// One read request on its way through the pages.
class PageReader {
public:
    PageReader(AddressSpace& mapping, ReadaheadState& ra, std::uint64_t offset,
               std::uint64_t length, PageVec& out)
        : mapping_(mapping),
          ra_(ra),
          position_(offset),
          length_(length),
          out_(out),
          chunk_pages_(std::max<std::uint64_t>(mapping.cache().frames().nr_frames() / 8, 1)) {}

    Result<> run() {
        for (;;) {
            const std::uint64_t end = end_now();
            if (position_ >= end) {
                return {};
            }
            std::array<Page*, kLookupBatch> pages{};
            const std::size_t found =
                mapping_.i_pages.find_get_range(page_index(position_), page_index(end - 1), pages);
            const Result<> result = take({pages.data(), found});
            if (!result.has_value()) {
                return out_.size_bytes() > 0 ? Result<>() : result;
            }
        }
    }

private:
    // i_size may shrink and grow while we read.
    [[nodiscard]] std::uint64_t end_now() const {
        const std::uint64_t size = mapping_.i_size();
        return position_ >= size ? position_ : position_ + std::min(size - position_, length_);
    }
    [[nodiscard]] std::uint64_t pages_wanted() const {
        const std::uint64_t end = end_now();
        return end <= position_
                   ? 1
                   : std::min(page_index(end - 1) - page_index(position_) + 1, chunk_pages_);
    }

    // Takes over the references. Stops early, with success, when the pages are to be looked up
    // again.
    Result<> take(std::span<Page* const> pages) {
        if (pages.empty() || pages.front()->index != page_index(position_)) {
            put_all(pages);
            return read_missing();
        }
        for (std::size_t i = 0; i < pages.size(); ++i) {
            Page& page = *pages[i];
            if (length_ == 0 || page.index != page_index(position_)) {
                put_all(pages.subspan(i));
                break;
            }
            if (is_being_read(page)) {
                // Asleep without a reference, and then looked up again: by then it may be another
                // page's frame.
                put_all(pages.subspan(i + 1));
                return put_and_wait_on_page_locked(page, Interruptible::kKillable);
            }
            const Result<bool> usable = take_one(page);
            if (!usable.has_value() || !*usable) {
                put_all(pages.subspan(i));
                return usable.has_value() ? Result<>() : Result<>(usable.error());
            }
        }
        return {};
    }

    static bool is_being_read(const Page& page) {
        return !page_test(page, PG_uptodate) && page_test(page, PG_locked);
    }

    Result<> read_missing() {
        const pgoff_t index = page_index(position_);
        const Result<> result = page_cache_sync_ra(mapping_, ra_, index, pages_wanted());
        if (!result.has_value()) {
            // The error may be another page's; ours, if it came into the mapping, will tell its
            // own.
            Page* page = mapping_.i_pages.find_get(index);
            if (page == nullptr) {
                return result;
            }
            put_page(*page);
        }
        return {};
    }

    Result<bool> take_one(Page& page) {
        if (page_test(page, PG_readahead)) {
            page_cache_async_ra(mapping_, ra_, page, pages_wanted());
        }
        if (!TRY(make_uptodate(mapping_, page, Interruptible::kKillable))) {
            return false;
        }
        // After the page was seen uptodate: a truncate may have zeroed its tail since.
        const std::uint64_t end = end_now();
        if (position_ >= end) {
            return false;
        }
        const std::size_t offset = offset_in_page(position_);
        const std::uint64_t length = std::min<std::uint64_t>(kPageSize - offset, end - position_);
        mapping_.cache().frames().mark_accessed(page);
        out_.add(page, static_cast<std::uint32_t>(offset), static_cast<std::uint32_t>(length));
        ra_.prev_index = page.index;
        position_ += length;
        length_ -= length;
        return true;
    }

    static void put_all(std::span<Page* const> pages) {
        for (Page* page : pages) {
            put_page(*page);
        }
    }

    AddressSpace& mapping_;
    ReadaheadState& ra_;
    std::uint64_t position_;
    std::uint64_t length_;  // left to read
    PageVec& out_;
    const std::uint64_t chunk_pages_;
};

// The end of a write whose copy failed: what it may have spoilt in the page is put right.
void abandon_write(AddressSpace& mapping, Page& page, std::uint64_t offset, std::size_t length)
    NO_THREAD_SAFETY_ANALYSIS {  // releases a page acquired in write_begin
    if (page_test(page, PG_uptodate)) {
        const std::uint64_t size = mapping.i_size();
        const std::uint64_t kept =
            size > offset ? std::min<std::uint64_t>(size - offset, length) : 0;
        std::memset(page.data + offset_in_page(offset) + kept, 0, length - kept);
        if (kept > 0) {
            // Half written, as after a short copy: then the same on the disk as in the cache.
            set_page_dirty(page, blocks_covering(offset_in_page(offset), kept));
        }
    }
    unlock_and_put(page);
}

}  // namespace

void PageVec::add(Page& page, std::uint32_t offset_bytes, std::uint32_t length_bytes) {
    pieces_.push_back({&page, offset_bytes, length_bytes});
    size_bytes_ += length_bytes;
}

void PageVec::release() {
    for (const Piece& piece : pieces_) {
        put_page(*piece.page);
    }
    pieces_.clear();
    size_bytes_ = 0;
}

// --- reading

Result<Page*> read_mapping_page(AddressSpace& mapping, pgoff_t index) {
    for (;;) {
        Page* page = mapping.i_pages.find_get(index);
        if (page == nullptr) {
            page = TRY(add_new_page(mapping, index));
            if (page == nullptr) {
                continue;
            }
            const Result<> read = read_and_wait(mapping, *page);
            if (!read.has_value()) {
                put_page(*page);
                return read.error();
            }
        } else {
            mapping.cache().frames().mark_accessed(*page);
        }
        const Result<bool> usable = make_uptodate(mapping, *page, Interruptible::kNo);
        if (usable.has_value() && *usable) {
            return page;
        }
        put_page(*page);
        if (!usable.has_value()) {
            return usable.error();
        }
    }
}

Result<> filemap_read_pages(AddressSpace& mapping, ReadaheadState& ra, std::uint64_t offset_bytes,
                            std::uint64_t length_bytes, PageVec& out) {
    return PageReader(mapping, ra, offset_bytes, length_bytes, out).run();
}

std::uint64_t max_pinned_read_bytes(PageCache& cache) {
    return std::max<std::uint64_t>(cache.frames().nr_frames() / 4, 1) << kPageShift;
}

Result<std::size_t> filemap_read(AddressSpace& mapping, ReadaheadState& ra,
                                 std::uint64_t offset_bytes, std::span<std::byte> into) {
    // A pinned page cannot be reclaimed, so not too many at a time.
    const std::uint64_t chunk =
        std::min<std::uint64_t>(max_pinned_read_bytes(mapping.cache()), 1U << 20);
    std::size_t done = 0;
    while (done < into.size()) {
        PageVec pages;
        const std::uint64_t wanted = std::min<std::uint64_t>(into.size() - done, chunk);
        const Result<> result = filemap_read_pages(mapping, ra, offset_bytes + done, wanted, pages);
        if (!result.has_value() && done == 0) {
            return result.error();
        }
        for (const PageVec::Piece& piece : pages.pieces()) {
            std::memcpy(into.data() + done, piece.page->data + piece.offset_bytes,
                        piece.length_bytes);
            done += piece.length_bytes;
        }
        if (pages.size_bytes() < wanted) {
            break;
        }
    }
    return done;
}

// --- writing

// NOLINTNEXTLINE(readability-function-size): the fifth level is that of TRY_VOID.
Result<Page*> write_begin(AddressSpace& mapping, std::uint64_t offset_bytes,
                          std::size_t length_bytes)
    NO_THREAD_SAFETY_ANALYSIS {  // returns the page locked
    BUG_ON(offset_in_page(offset_bytes) + length_bytes > kPageSize,
           "a write cycle leaves its page");
    for (;;) {
        Page& page = *TRY(find_or_create_page(mapping, page_index(offset_bytes)));
        if (!page_test(page, PG_uptodate) &&
            !covers_valid_bytes(mapping, offset_bytes, length_bytes)) {
            if (page_offset(page.index) < mapping.i_size()) {
                const Result<> read = read_and_wait(mapping, page);
                put_page(page);
                TRY_VOID(read);
                continue;
            }
            std::memset(page.data, 0, kPageSize);
            page.flags.set(PG_uptodate);
        }
        wait_for_stable_page(page);
        return &page;
    }
}

void write_end(AddressSpace& mapping, Page& page, std::uint64_t offset_bytes,
               std::size_t copied_bytes) {
    assert_page_locked(page);
    const std::size_t offset = offset_in_page(offset_bytes);
    if (!page_test(page, PG_uptodate)) {
        if (!covers_valid_bytes(mapping, offset_bytes, copied_bytes)) {
            // A short copy into a page that was not read, because all of it was to be overwritten:
            // nothing of it can be kept, the rest is missing. Source: block_write_end.
            unlock_and_put(page);
            return;
        }
        std::memset(page.data + copied_bytes, 0, kPageSize - copied_bytes);
        page.flags.set(PG_uptodate);
    }
    if (copied_bytes > 0) {
        set_page_dirty(page, blocks_covering(offset, copied_bytes));
    } else if (offset_bytes % kBlockSize != 0) {
        set_page_dirty(page, blocks_covering(offset, 1));
    }
    // Under the page lock, so that writeback cannot take the fresh bytes for a tail to be zeroed.
    if (offset_bytes + copied_bytes > mapping.i_size()) {
        mapping.i_size_write(offset_bytes + copied_bytes);
    }
    unlock_and_put(page);
}

Result<std::size_t> generic_perform_write(AddressSpace& mapping, std::uint64_t offset_bytes,
                                          std::size_t length_bytes, const CopyIn& copy) {
    std::size_t done = 0;
    Result<> result;
    while (done < length_bytes) {
        const std::uint64_t position = offset_bytes + done;
        const std::size_t offset = offset_in_page(position);
        const std::size_t length = std::min(kPageSize - offset, length_bytes - done);
        const Result<Page*> begun = write_begin(mapping, position, length);
        if (!begun.has_value()) {
            result = begun.error();
            break;
        }
        Page& page = **begun;
        result = copy({page.data + offset, length});
        if (!result.has_value()) {
            abandon_write(mapping, page, position, length);
            break;
        }
        write_end(mapping, page, position, length);
        done += length;
    }
    if (done == 0 && !result.has_value()) {
        return result.error();
    }
    return done;
}

Result<> zero_range(AddressSpace& mapping, std::uint64_t from_bytes, std::uint64_t to_bytes) {
    for (std::uint64_t position = from_bytes; position < to_bytes;) {
        const std::size_t offset = offset_in_page(position);
        const auto length = static_cast<std::size_t>(
            std::min<std::uint64_t>(kPageSize - offset, to_bytes - position));
        Page& page = *TRY(write_begin(mapping, position, length));
        std::memset(page.data + offset, 0, length);
        write_end(mapping, page, position, length);
        WBFAT_POINT("zero_range:unlocked", mapping);
        position += length;
    }
    return {};
}

// --- writing out and waiting

Result<> filemap_fdatawrite_range(AddressSpace& mapping, std::uint64_t first_bytes,
                                  std::uint64_t last_bytes) {
    mapping.cache().io().redirty_failed_pages(PageIo::Redirty::kWait);
    check_marks(mapping, page_index(first_bytes), page_index(last_bytes));
    if (!mapping.i_pages.tagged(PAGECACHE_TAG_DIRTY)) {
        return {};
    }
    WritebackControl wbc;
    wbc.sync_mode = WB_SYNC_ALL;
    wbc.range_start = first_bytes;
    wbc.range_end = last_bytes;
    return do_writepages(mapping, wbc);
}

Result<> filemap_flush(AddressSpace& mapping) {
    mapping.cache().io().redirty_failed_pages(PageIo::Redirty::kWait);
    if (!mapping.i_pages.tagged(PAGECACHE_TAG_DIRTY)) {
        return {};
    }
    WritebackControl wbc;
    return do_writepages(mapping, wbc);
}

void filemap_fdatawait_range(AddressSpace& mapping, std::uint64_t first_bytes,
                             std::uint64_t last_bytes) {
    const sync::RoleGuard role(sync::Role::kSyncWriter);
    WBFAT_POINT("fdatawait:begin", mapping);
    const pgoff_t end = page_index(last_bytes);
    pgoff_t index = page_index(first_bytes);
    while (index <= end) {
        std::array<Page*, kLookupBatch> pages{};
        const std::size_t found =
            mapping.i_pages.find_get_range_tag(index, end, PAGECACHE_TAG_WRITEBACK, pages);
        if (found == 0) {
            break;
        }
        index = pages[found - 1]->index + 1;
        for (std::size_t i = 0; i < found; ++i) {
            wait_on_page_writeback(*pages[i]);
            put_page(*pages[i]);
        }
    }
    mapping.cache().io().redirty_failed_pages(PageIo::Redirty::kWait);
}

Result<> file_write_and_wait_range(AddressSpace& mapping, std::uint64_t first_bytes,
                                   std::uint64_t last_bytes, ErrSeq::Cursor& since) {
    Result<> result;
    IntegrityCheck check(mapping, first_bytes, last_bytes);
    if (mapping.i_pages.nr_pages() != 0) {
        result = filemap_fdatawrite_range(mapping, first_bytes, last_bytes);
        // Also after EIO. Source's older kernels skip the wait then, and return with I/O in flight.
        filemap_fdatawait_range(mapping, first_bytes, last_bytes);
    }
    const int error = mapping.wb_err.check_and_advance(since);
    if (!result.has_value()) {
        return result;
    }
    if (error != 0) {
        return Errno{error};
    }
    check.finish();
    return {};
}

}  // namespace wbfat::cache::inline WBFAT_RT
