// The Bio pool, gathering, and the completions of page I/O.
#include "cache/page_io.h"

#include <algorithm>
#include <cstring>

#include <xxhash.h>

#include "cache/assertions.h"
#include "cache/base/check.h"
#include "cache/block_use.h"
#include "cache/counters.h"
#include "cache/flusher.h"
#include "cache/page_cache.h"
#include "cache/page_lock.h"
#include "cache/page_lock_order.h"
#include "cache/trace.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

Page& page_of(const BioSegment& segment) {
    return *static_cast<Page*>(segment.owner);
}

std::uint32_t offset_of(const BioSegment& segment) {
    return static_cast<std::uint32_t>(segment.data - page_of(segment).data);
}

// The read handed its page lock to the completion, with a reference.
void end_page_read(Page& page) NO_THREAD_SAFETY_ANALYSIS {
    if (!page_test(page, PG_error)) {
        page.flags.set(PG_uptodate);
    }
    unlock_page(page);
    put_page(page);
}

void trace_segments(TraceKind kind, const Bio& bio, std::uint64_t detail) {
    if (trace_enabled()) {
        for (const BioSegment& segment : bio.segments) {
            trace_page(kind, page_of(segment), detail);
        }
    }
}

// A part of the page has been written; the last one ends the writeback. A page that went in one
// piece has no count: two writes of it in flight, which must not be (I10 of
// writeback-protocol.md 17.6), then end it twice, as in the kernel. Source: end_buffer_async_write,
// mpage_end_io.
void end_part_write(Page& page) {
    if (page.blocks_in_flight.load(std::memory_order_relaxed) == 0 ||
        page.blocks_in_flight.fetch_sub(1) == 1) {
        end_page_writeback(page);
    }
}

std::uint64_t hash_of(const BioSegment& segment) {
    return XXH3_64bits(segment.data, segment.length_bytes);
}

// The assertion stable_page: what a mapping with stable pages hands to the device stays as it is
// until it is written.
void remember_hashes(PageBio& bio) {
    if (assertion_enabled(Assertion::kStablePage) && bio.op == BioOp::kWrite &&
        bio.mapping->stable_pages()) {
        for (const BioSegment& segment : bio.segments) {
            bio.hashes.push_back(hash_of(segment));
        }
    }
}

void check_hashes(const PageBio& bio) {
    for (std::size_t i = 0; i < bio.hashes.size(); ++i) {
        PAGE_ASSERT(page_of(bio.segments[i]), Assertion::kStablePage,
                    bio.hashes[i] == hash_of(bio.segments[i]),
                    "the page was changed while it was being written");
    }
}

void zero_beyond_eof(const BioSegment& segment, std::uint64_t eof_bytes) {
    const std::uint64_t start = page_offset(page_of(segment).index) + offset_of(segment);
    if (start + segment.length_bytes > eof_bytes) {
        const std::uint64_t keep = eof_bytes > start ? eof_bytes - start : 0;
        std::memset(segment.data + keep, 0, segment.length_bytes - keep);
    }
}

}  // namespace

std::uint32_t io_granule_bytes(const AddressSpace& mapping) {
    return std::max<std::uint32_t>(kBlockSize, mapping.device().geometry().logical_block_bytes);
}

Result<> ExtentCursor::seek(std::uint64_t offset_bytes) {
    if (offset_bytes >= start_bytes_ && offset_bytes < start_bytes_ + extent_.length_bytes) {
        return {};
    }
    const std::uint64_t wanted =
        std::max<std::uint64_t>(end_bytes_, offset_bytes + kBlockSize) - offset_bytes;
    extent_ = TRY(mapping_.ops().map_blocks(mapping_, offset_bytes, wanted));
    BUG_ON(extent_.length_bytes == 0 || extent_.length_bytes % kBlockSize != 0,
           "map_blocks gave a broken extent");
    start_bytes_ = offset_bytes;
    return {};
}

Result<PageParts> ExtentCursor::map_page(const Page& page, std::uint32_t offset,
                                         std::uint32_t length) {
    PageParts parts;
    const std::uint64_t base = page_offset(page.index);
    const std::uint32_t end = offset + length;
    while (offset < end) {
        TRY_VOID(seek(base + offset));
        const std::uint64_t skip = base + offset - start_bytes_;
        const auto here = static_cast<std::uint32_t>(
            std::min<std::uint64_t>(extent_.length_bytes - skip, end - offset));
        const std::uint64_t place =
            extent_.is_hole() ? MappedExtent::kHole : extent_.device_offset_bytes + skip;
        PagePart* last = parts.count > 0 ? &parts.part[parts.count - 1] : nullptr;
        const bool joins =
            last != nullptr &&
            (last->is_hole() ? place == MappedExtent::kHole
                             : last->device_offset_bytes + last->length_bytes == place);
        if (joins) {
            last->length_bytes += here;
        } else {
            parts.part[parts.count++] = {offset, here, place};
        }
        offset += here;
    }
    return parts;
}

BioBuilder::BioBuilder(AddressSpace& mapping, BioOp op, IoErrorSink* sink)
    : mapping_(mapping), op_(op), sink_(sink) {}

void BioBuilder::add(Page& page, const PagePart& part) {
    const std::uint64_t limit =
        std::max<std::uint64_t>(mapping_.cache().options().bio_max_bytes, kPageSize);
    if (bio_ != nullptr && (bio_->offset_bytes + size_bytes_ != part.device_offset_bytes ||
                            size_bytes_ + part.length_bytes > limit)) {
        submit();
    }
    if (bio_ == nullptr) {
        bio_ = &mapping_.cache().io().get_bio();
        bio_->op = op_;
        bio_->offset_bytes = part.device_offset_bytes;
        bio_->end_io = op_ == BioOp::kRead ? &PageIo::end_read : &PageIo::end_write;
        bio_->error = 0;
        bio_->mapping = &mapping_;
        bio_->sink = sink_;
        bio_->eof_bytes = eof_bytes_;
        size_bytes_ = 0;
    }
    if (op_ == BioOp::kRead) {
        note_page_released(page);
    }
    bio_->segments.push_back(
        {.data = page.data + part.offset_bytes, .length_bytes = part.length_bytes, .owner = &page});
    size_bytes_ += part.length_bytes;
}

void BioBuilder::submit() {
    if (bio_ == nullptr) {
        return;
    }
    PageBio& bio = *bio_;
    bio_ = nullptr;
    PageCache& cache = mapping_.cache();
    if (op_ == BioOp::kRead) {
        cache.counters().bios_read.add();
    } else {
        cache.counters().bios_written.add();
        cache.io().pages_submitted_.fetch_add(bio.segments.size(), std::memory_order_relaxed);
    }
    trace_segments(TraceKind::kSubmit, bio, bio.offset_bytes);
    remember_hashes(bio);
    if (op_ == BioOp::kWrite) {
        cache.blocks().note_write_begins(bio);
    }
    WBFAT_POINT("bio:before_submit", mapping_);
    mapping_.device().submit(bio);
}

PageIo::PageIo(PageCache& cache) : cache_(cache) {}

PageIo::~PageIo() {
    const sync::MutexLock lock(pool_lock_);
    BUG_ON(in_use_ != 0, "a PageCache went away with I/O in flight");
    while (free_ != nullptr) {
        const std::unique_ptr<PageBio> bio(free_);
        free_ = bio->next;
    }
}

PageBio& PageIo::get_bio() {
    {
        const sync::MutexLock lock(pool_lock_);
        ++in_use_;
        if (free_ != nullptr) {
            PageBio& bio = *free_;
            free_ = bio.next;
            bio.next = nullptr;
            return bio;
        }
    }
    auto bio = std::make_unique<PageBio>();
    bio->context = this;
    return *bio.release();
}

void PageIo::put_bio(PageBio& bio) {
    bio.segments.clear();
    bio.hashes.clear();
    const sync::MutexLock lock(pool_lock_);
    bio.next = free_;
    free_ = &bio;
    if (--in_use_ == 0) {
        changed_.notify_all();
    }
}

void PageIo::wait_until_idle() {
    sync::MutexLock lock(pool_lock_);
    while (in_use_ != 0) {
        if (failed_ != nullptr) {
            lock.unlock();
            redirty_failed_pages(Redirty::kWait);
            lock.lock();
            continue;
        }
        changed_.wait(lock);
    }
}

bool PageIo::is_idle() {
    const sync::MutexLock lock(pool_lock_);
    return in_use_ == 0;
}

void PageIo::end_read(Bio& base) {
    auto& bio = static_cast<PageBio&>(base);
    auto& io = *static_cast<PageIo*>(bio.context);
    PageCache::Counters& counters = io.cache_.counters();
    if (bio.error != 0 && bio.sink != nullptr) {
        bio.sink->record(bio.error);
    }
    trace_segments(TraceKind::kComplete, bio, static_cast<std::uint64_t>(bio.error));
    for (const BioSegment& segment : bio.segments) {
        Page& page = page_of(segment);
        if (bio.error != 0) {
            counters.read_errors.add();
            page.flags.set(PG_error);
        } else {
            zero_beyond_eof(segment, bio.eof_bytes);
        }
        if (page.blocks_in_flight.fetch_sub(1) == 1) {
            counters.pages_read.add();
            end_page_read(page);
        }
    }
    io.put_bio(bio);
}

void PageIo::end_write(Bio& base) {
    auto& bio = static_cast<PageBio&>(base);
    auto& io = *static_cast<PageIo*>(bio.context);
    const bool failed = bio.error != 0;
    check_hashes(bio);
    io.cache_.blocks().note_write_ends(bio);
    trace_segments(TraceKind::kComplete, bio, static_cast<std::uint64_t>(bio.error));
    if (failed) {
        io.end_failed_write(bio);
    } else {
        io.failures_in_a_row_.store(0, std::memory_order_relaxed);
        for (const BioSegment& segment : bio.segments) {
            end_part_write(page_of(segment));
        }
    }
    // The mapping may be gone; the cache is kept alive by the Bio that is still out.
    io.cache_.flusher().note_writeback_ended();
    if (!failed) {
        io.put_bio(bio);
        return;
    }
    // To give the pages their dirtiness back and, after a pause, to try again. Before parking: then
    // the Bio is no longer ours, and the cache may go.
    io.cache_.flusher().kick();
    const sync::MutexLock lock(io.pool_lock_);
    bio.next = io.failed_;
    io.failed_ = &bio;
    --io.announced_;
    io.changed_.notify_all();
}

void PageIo::end_failed_write(PageBio& bio) {
    failures_in_a_row_.fetch_add(1, std::memory_order_relaxed);
    cache_.counters().write_errors.add(bio.segments.size());
    if (bio.sink != nullptr) {
        bio.sink->record(bio.error);
    }
    // Before any page ends: whoever waits for it must find the error.
    mapping_set_error(*bio.mapping, bio.error);
    {
        const sync::MutexLock lock(pool_lock_);
        ++announced_;
        nr_failed_.fetch_add(1);
    }
    for (const BioSegment& segment : bio.segments) {
        get_page(page_of(segment));
    }
    for (const BioSegment& segment : bio.segments) {
        end_part_write(page_of(segment));
    }
}

// Returns true when nothing of the Bio is left.
bool PageIo::redirty_bio(PageBio& bio, Redirty mode)
    NO_THREAD_SAFETY_ANALYSIS {  // locks one page a turn, two ways
    bool done = true;
    for (BioSegment& segment : bio.segments) {
        if (segment.owner == nullptr) {
            continue;
        }
        Page& page = page_of(segment);
        if (mode == Redirty::kWait) {
            lock_page(page);
        } else if (!trylock_page(page)) {
            done = false;
            continue;
        }
        // Truncated meanwhile: then nobody wants the bytes. A page never comes back into a mapping
        // while referenced.
        if (page.mapping.load() != nullptr) {
            set_page_dirty(page, blocks_covering(offset_of(segment), segment.length_bytes));
        }
        unlock_page(page);
        put_page(page);
        segment.owner = nullptr;
    }
    return done;
}

void PageIo::redirty_failed_pages(Redirty mode)
    NO_THREAD_SAFETY_ANALYSIS {  // redirty_lock_ is tried or taken
    if (nr_failed_.load() == 0) {
        return;
    }
    if (mode == Redirty::kWait) {
        redirty_lock_.lock();
    } else if (!redirty_lock_.try_lock()) {
        return;
    }
    PageBio* list = nullptr;
    {
        sync::MutexLock lock(pool_lock_);
        while (mode == Redirty::kWait && announced_ != 0) {
            changed_.wait(lock);
        }
        list = failed_;
        failed_ = nullptr;
    }
    while (list != nullptr) {
        PageBio& bio = *list;
        list = bio.next;
        if (redirty_bio(bio, mode)) {
            nr_failed_.fetch_sub(1);
            put_bio(bio);
        } else {
            const sync::MutexLock lock(pool_lock_);
            bio.next = failed_;
            failed_ = &bio;
        }
    }
    redirty_lock_.unlock();
}

}  // namespace wbfat::cache::inline WBFAT_RT
