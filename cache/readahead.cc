// The readahead window and the reads it starts.
#include "cache/readahead.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "cache/base/check.h"
#include "cache/page_cache.h"
#include "cache/page_frames.h"
#include "cache/page_io.h"
#include "cache/page_lock.h"
#include "cache/trace.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

// Pages inserted and not yet submitted. Whoever might sleep submits first: nobody else can unlock
// them.
class LockedRun {
public:
    explicit LockedRun(AddressSpace& mapping) : mapping_(mapping) {}
    LockedRun(const LockedRun&) = delete;
    LockedRun& operator=(const LockedRun&) = delete;
    ~LockedRun() {
        submit();
    }

    void add(Page& page) {
        pages_[count_++] = &page;
        if (count_ == pages_.size()) {
            submit();
        }
    }
    void submit() {
        if (count_ > 0) {
            const Result<> result = read_locked_pages(mapping_, {pages_.data(), count_});
            error_ = error_ != 0 ? error_ : result.code();
            count_ = 0;
        }
    }
    [[nodiscard]] int error() const {
        return error_;
    }

private:
    AddressSpace& mapping_;
    std::array<Page*, 256> pages_{};
    std::size_t count_ = 0;
    int error_ = 0;
};

// The page was neither read nor can it be: everything it should hold is known to be zero, or an
// error.
void finish_without_io(Page& page, PageFlag flag)
    NO_THREAD_SAFETY_ANALYSIS {  // the lock came with a run of pages
    page.flags.set(flag);
    unlock_page(page);
    put_page(page);
}

std::uint32_t max_window_pages(AddressSpace& mapping) {
    const std::uint64_t configured = mapping.cache().options().readahead_max_bytes >> kPageShift;
    const std::uint64_t share = mapping.cache().frames().nr_frames() / 8;
    return static_cast<std::uint32_t>(std::min(configured, share));
}

std::uint32_t initial_window(std::uint64_t wanted, std::uint32_t max) {
    const auto size =
        static_cast<std::uint32_t>(std::bit_ceil(std::min<std::uint64_t>(wanted, max)));
    if (size <= max / 32) {
        return size * 4;
    }
    return size <= max / 4 ? size * 2 : max;
}

std::uint32_t next_window(std::uint32_t size, std::uint32_t max) {
    if (size < max / 16) {
        return size * 4;
    }
    return size <= max / 2 ? size * 2 : max;
}

bool present(AddressSpace& mapping, pgoff_t index) {
    Page* page = mapping.i_pages.find_get(index);
    if (page != nullptr) {
        put_page(*page);
    }
    return page != nullptr;
}

// Reads what is missing of [start, start + nr); marks the page `lookahead` pages before the end.
// Only the first `nr_wanted` pages may wait for a frame. Source: page_cache_ra_unbounded.
Result<> read_window(AddressSpace& mapping, pgoff_t start, std::uint64_t nr,
                     std::uint64_t lookahead, std::uint64_t nr_wanted) {
    const pgoff_t end = std::min(start + nr, pages_for(mapping.i_size()));
    PageFrames& frames = mapping.cache().frames();
    LockedRun run(mapping);
    for (pgoff_t index = start; index < end; ++index) {
        if (present(mapping, index)) {
            run.submit();
            continue;
        }
        if (frames.nr_free() == 0) {
            run.submit();
            if (index >= start + nr_wanted && frames.reclaim(32) == 0) {
                break;
            }
        }
        Page* page = TRY(add_new_page(mapping, index));
        if (page == nullptr) {
            run.submit();
            continue;
        }
        if (lookahead > 0 && index == start + nr - lookahead) {
            page->flags.set(PG_readahead);
        }
        run.add(*page);
    }
    run.submit();
    return run.error() != 0 ? Result<>(Errno{run.error()}) : Result<>();
}

Result<> read_current_window(AddressSpace& mapping, ReadaheadState& ra, pgoff_t index,
                             std::uint64_t nr_wanted, std::uint32_t max) {
    // The new window would be triggered again by the very page asked for: make it two windows.
    if (index == ra.start && ra.size == ra.async_size) {
        const std::uint32_t add = next_window(ra.size, max);
        if (ra.size + add <= max) {
            ra.async_size = add;
            ra.size += add;
        } else {
            ra.size = max;
            ra.async_size = max / 2;
        }
    }
    if (index == ra.start && ra.size < nr_wanted) {
        ra.size = static_cast<std::uint32_t>(nr_wanted);
    }
    return read_window(mapping, ra.start, ra.size, ra.async_size, nr_wanted);
}

// A reader without a window of its own whose predecessors' pages are still cached. Source:
// try_context_readahead.
bool join_cached_history(AddressSpace& mapping, ReadaheadState& ra, pgoff_t index,
                         std::uint64_t nr_wanted, std::uint32_t max) {
    std::uint64_t history = 0;
    while (history < max && history < index && present(mapping, index - 1 - history)) {
        ++history;
    }
    if (history <= nr_wanted) {
        return false;
    }
    if (history >= index) {
        history *= 2;
    }
    ra.start = index;
    ra.size = static_cast<std::uint32_t>(std::min<std::uint64_t>(history + nr_wanted, max));
    ra.async_size = 1;
    return true;
}

}  // namespace

Result<Page*> add_new_page(AddressSpace& mapping, pgoff_t index)
    NO_THREAD_SAFETY_ANALYSIS {  // returns the page locked, which cannot be expressed
    PageFrames& frames = mapping.cache().frames();
    Page& page = *TRY(frames.alloc());
    BUG_ON(!trylock_page(page), "P4");
    page.index = index;
    page.name_tag.store(mapping.name_tag());
    page.mapping.store(&mapping);
    get_page(page);  // the slot's
    bool out_of_memory = false;
    bool inserted = false;
    {
        const sync::SpinLockGuard lock(mapping.i_pages.lock());
        inserted = mapping.i_pages.insert_locked(index, page, out_of_memory);
    }
    if (!inserted) {
        page.mapping.store(nullptr);
        unlock_page(page);
        put_page(page);
        put_page(page);
        if (out_of_memory) {
            return Errno{ENOMEM};
        }
        return nullptr;
    }
    trace_page(TraceKind::kInsert, page);
    frames.lru_add(page);
    return &page;
}

Result<> read_locked_pages(AddressSpace& mapping, std::span<Page* const> pages) {
    // Sampled with the pages in the mapping and locked: a truncate that stored a smaller size
    // before is seen here, one that stores it later finds these pages and waits for them.
    const std::uint64_t eof = mapping.i_size();
    const std::uint32_t granule = io_granule_bytes(mapping);
    ExtentCursor cursor(mapping, std::min(page_offset(pages.back()->index + 1),
                                          (eof + granule - 1) / granule * granule));
    BioBuilder builder(mapping, BioOp::kRead);
    builder.set_eof(eof);
    int error = 0;
    for (Page* page : pages) {
        page->flags.clear(PG_error);
        const std::uint64_t base = page_offset(page->index);
        const std::uint64_t valid = eof > base ? std::min<std::uint64_t>(eof - base, kPageSize) : 0;
        const auto length = static_cast<std::uint32_t>((valid + granule - 1) / granule * granule);
        const Result<PageParts> mapped = cursor.map_page(*page, 0, length);
        if (!mapped.has_value()) {
            error = error != 0 ? error : mapped.code();
            finish_without_io(*page, PG_error);
            continue;
        }
        std::memset(page->data + length, 0, kPageSize - length);
        std::int32_t nr_parts = 0;
        for (const PagePart& part : mapped->all()) {
            if (part.is_hole()) {
                std::memset(page->data + part.offset_bytes, 0, part.length_bytes);
            } else {
                ++nr_parts;
            }
        }
        if (nr_parts == 0) {
            finish_without_io(*page, PG_uptodate);
            continue;
        }
        page->blocks_in_flight.store(nr_parts);
        for (const PagePart& part : mapped->all()) {
            if (!part.is_hole()) {
                builder.add(*page, part);
            }
        }
    }
    builder.submit();
    return error != 0 ? Result<>(Errno{error}) : Result<>();
}

Result<> page_cache_sync_ra(AddressSpace& mapping, ReadaheadState& ra, pgoff_t index,
                            std::uint64_t nr_wanted) {
    const std::uint32_t max = max_window_pages(mapping);
    if (max == 0) {
        return read_window(mapping, index, nr_wanted, 0, nr_wanted);
    }
    // Not yet started, or the reader is just where the window says it would be next.
    const bool expected =
        ra.size > 0 && (index == ra.start + ra.size || index == ra.start + ra.size - ra.async_size);
    if (index != 0 && expected) {
        ra.start += ra.size;
        ra.size = next_window(ra.size, max);
        ra.async_size = ra.size;
        if (index != ra.start) {
            // The marked page was lost to reclaim: what is missing before the new window is read
            // along with it.
            TRY_VOID(read_window(mapping, index, nr_wanted, 0, nr_wanted));
        }
        return read_current_window(mapping, ra, index, nr_wanted, max);
    }
    const bool sequential = index == ra.prev_index || index == ra.prev_index + 1;
    if (index == 0 || nr_wanted > max || sequential) {
        ra.start = index;
        ra.size = initial_window(nr_wanted, max);
        ra.async_size =
            ra.size > nr_wanted ? ra.size - static_cast<std::uint32_t>(nr_wanted) : ra.size;
        return read_current_window(mapping, ra, index, nr_wanted, max);
    }
    if (join_cached_history(mapping, ra, index, nr_wanted, max)) {
        return read_current_window(mapping, ra, index, nr_wanted, max);
    }
    return read_window(mapping, index, nr_wanted, 0, nr_wanted);
}

void page_cache_async_ra(AddressSpace& mapping, ReadaheadState& ra, Page& page,
                         std::uint64_t nr_wanted) {
    const std::uint32_t max = max_window_pages(mapping);
    page.flags.clear(PG_readahead);
    if (max == 0) {
        return;
    }
    const pgoff_t index = page.index;
    if (ra.size > 0 &&
        (index == ra.start + ra.size || index == ra.start + ra.size - ra.async_size)) {
        ra.start += ra.size;
        ra.size = next_window(ra.size, max);
        ra.async_size = ra.size;
    } else {
        // Somebody else's mark (interleaved readers): go on behind what is cached already.
        pgoff_t start = index + 1;
        while (start <= index + max && present(mapping, start)) {
            ++start;
        }
        if (start > index + max) {
            return;
        }
        ra.start = start;
        ra.size = next_window(
            static_cast<std::uint32_t>(start - index + std::min<std::uint64_t>(nr_wanted, max)),
            max);
        ra.async_size = ra.size;
    }
    // Speculative: an error will be met again by whoever needs the page.
    static_cast<void>(read_window(mapping, ra.start, ra.size, ra.async_size, 0));
}

}  // namespace wbfat::cache::inline WBFAT_RT
