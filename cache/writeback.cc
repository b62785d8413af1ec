// The walk over dirty pages, and the writers it feeds.
#include "cache/writeback.h"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstring>
#include <vector>

#include "cache/assertions.h"
#include "cache/page_cache.h"
#include "cache/page_io.h"
#include "cache/page_lock.h"
#include "cache/protocol.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

// Nothing to write after all: clears the marks and lets go, through an empty cycle.
void end_without_io(Page& page) NO_THREAD_SAFETY_ANALYSIS {  // releases a lock of a run
    set_page_writeback(page);
    unlock_page(page);
    end_page_writeback(page);
}

// Only parts with dirty blocks, and no holes: a page that lies scattered is written block by block.
Result<> keep_dirty_parts(PageParts& parts, BlockMask dirty) {
    unsigned kept = 0;
    for (const PagePart& part : parts.all()) {
        if ((blocks_covering(part.offset_bytes, part.length_bytes) & dirty) == 0) {
            continue;
        }
        if (part.is_hole()) {
            return Errno{EIO};
        }
        parts.part[kept++] = part;
    }
    parts.count = kept;
    return {};
}

// The page could not be written and is dirty again: lets go of it, and of the writeback bit if that
// came with the wait.
void give_up(Page& page) NO_THREAD_SAFETY_ANALYSIS {  // releases a lock of a run
    if (current_protocol().set == SetWriteback::kWithWait) {
        end_without_io(page);
    } else {
        unlock_page(page);
    }
}

// Gets PG_writeback ready for a new write of a locked page; `before_sleep` submits what was
// gathered.
template <typename BeforeSleep>
void wait_for_writeback(Page& page, BeforeSleep before_sleep) REQUIRES(page) {
    if (!try_prepare_page_writeback(page)) {
        before_sleep();
        prepare_page_writeback(page);
    }
    const bool is_ours = current_protocol().set == SetWriteback::kWithWait;
    PAGE_ASSERT_ELSE(page, Assertion::kBugOnWriteback, page_test(page, PG_writeback) == is_ours,
                     "PageWriteback after the wait under the page lock", wait_in_earnest(page));
}

enum class Rest { kNone, kStaysDirty };

// Starts writeback of a locked page and unlocks it: all its parts, or those that are written now.
// Requires: wait_for_writeback, parts not empty and no hole. Source: the ends of __mpage_writepage
// and, for a page in several places, __block_write_full_page.
void start_writeback(BioBuilder& builder, Page& page, const PageParts& parts,
                     Rest rest = Rest::kNone)
    NO_THREAD_SAFETY_ANALYSIS {  // releases a lock of a run
    page.blocks_in_flight.store(parts.count > 1 ? static_cast<std::int32_t>(parts.count) : 0);
    if (rest == Rest::kNone) {
        set_page_writeback(page);
    } else {
        set_page_writeback_keepwrite(page);
    }
    // Held by PG_writeback alone from here (P2, P3).
    unlock_page(page);
    for (const PagePart& part : parts.all()) {
        builder.add(page, part);
    }
}

// Gathers a run of consecutive dirty pages, locked, and writes it with as few lookups and Bios as
// it takes. Source: struct mpage_data, mpage_write_folio.
class MpageWriter {
public:
    MpageWriter(AddressSpace& mapping, WritebackControl& wbc)
        : mapping_(mapping),
          wbc_(wbc),
          granule_(io_granule_bytes(mapping)),
          max_run_(std::clamp<std::size_t>(mapping.cache().options().bio_max_bytes >> kPageShift, 1,
                                           kMaxRun)),
          builder_(mapping, BioOp::kWrite) {}

    // The page stays locked until its run is written. Returns the errors met since the last call,
    // maybe of pages before.
    Result<> write_page(Page& page, BlockMask dirty) {
        if (count_ > 0 && page.index != run_[count_ - 1].page->index + 1) {
            write_run();
        }
        get_page(page);
        run_[count_++] = {&page, dirty};
        if (count_ == max_run_) {
            write_run();
        }
        return take_error();
    }
    // Everything gathered is with the device when it returns.
    void flush() {
        write_run();
        builder_.submit();
    }
    Result<> take_error() {
        const int error = std::exchange(error_, 0);
        return error != 0 ? Result<>(Errno{error}) : Result<>();
    }

private:
    struct Gathered {
        Page* page;
        BlockMask dirty;
    };
    static constexpr std::size_t kMaxRun = 256;

    void write_run() {
        if (count_ == 0) {
            return;
        }
        ExtentCursor cursor(mapping_,
                            std::min(page_offset(run_[count_ - 1].page->index + 1),
                                     (mapping_.i_size() + granule_ - 1) / granule_ * granule_));
        for (std::size_t i = 0; i < count_; ++i) {
            const int error = write_locked(cursor, *run_[i].page, run_[i].dirty).code();
            error_ = error_ != 0 ? error_ : error;
            put_page(*run_[i].page);
        }
        count_ = 0;
    }

    Result<> write_locked(ExtentCursor& cursor, Page& page, BlockMask dirty)
        NO_THREAD_SAFETY_ANALYSIS {  // releases a lock of the run
        PAGE_ASSERT(page, Assertion::kDirtyNotUptodate, page_test(page, PG_uptodate),
                    "a dirty page is not uptodate");
        // Under the page lock: i_size may fall, then truncate waits for this page; it cannot rise
        // within the page.
        const std::uint64_t base = page_offset(page.index);
        const std::uint64_t size = mapping_.i_size();
        if (size <= base) {
            end_without_io(page);
            return {};
        }
        const auto valid =
            static_cast<std::uint32_t>(std::min<std::uint64_t>(size - base, kPageSize));
        if (valid < kPageSize) {
            std::memset(page.data + valid, 0, kPageSize - valid);
        }
        const std::uint32_t length = (valid + granule_ - 1) / granule_ * granule_;
        Result<PageParts> parts = cursor.map_page(page, 0, length);
        const int error = parts.has_value() ? keep_dirty_parts(*parts, dirty).code() : parts.code();
        if (error != 0) {
            // Stays dirty, and readable, for a later try.
            mapping_set_error(mapping_, error);
            redirty_page_for_writepage(page, dirty);
            ++wbc_.pages_skipped;
            give_up(page);
            return Errno{error};
        }
        if (parts->count == 0) {
            end_without_io(page);
            return {};
        }
        start_writeback(builder_, page, *parts);
        return {};
    }

    AddressSpace& mapping_;
    WritebackControl& wbc_;
    const std::uint32_t granule_;
    const std::size_t max_run_;
    BioBuilder builder_;
    std::array<Gathered, kMaxRun> run_{};
    std::size_t count_ = 0;
    int error_ = 0;
};

// One call of sync_dirty_blocks.
class BlockSync {
public:
    explicit BlockSync(AddressSpace& mapping)
        : mapping_(mapping),
          blocks_per_granule_(io_granule_bytes(mapping) >> kBlockShift),
          builder_(mapping, BioOp::kWrite, &sink_) {
        in_flight_.reserve(kMaxInFlight);
    }

    void sync(pgoff_t index, BlockMask blocks) {
        Page* page = mapping_.i_pages.find_get(index);
        if (page == nullptr) {
            return;
        }
        if (start(*page, whole_granules(blocks))) {
            in_flight_.push_back(page);
            if (in_flight_.size() == kMaxInFlight) {
                wait();
            }
        } else {
            put_page(*page);
        }
    }

    Result<> finish() {
        wait();
        // The blocks that failed are dirty again when the caller hears of it.
        mapping_.cache().io().redirty_failed_pages(PageIo::Redirty::kWait);
        return sink_.error() != 0 ? Result<>(Errno{sink_.error()}) : Result<>();
    }

private:
    static constexpr std::size_t kMaxInFlight = 512;

    [[nodiscard]] BlockMask whole_granules(BlockMask blocks) const {
        unsigned mask = blocks;
        if (blocks_per_granule_ > 1) {
            const unsigned granule = (1U << blocks_per_granule_) - 1U;
            for (unsigned first = 0; first < kBlocksPerPage; first += blocks_per_granule_) {
                mask |= (mask & (granule << first)) != 0 ? granule << first : 0U;
            }
        }
        return static_cast<BlockMask>(mask);
    }

    // Returns true if the page is under writeback now, and so to be waited for. It is unlocked
    // either way.
    bool start(Page& page, BlockMask blocks) NO_THREAD_SAFETY_ANALYSIS {  // tries the lock first
        if (!trylock_page(page)) {
            builder_.submit();
            lock_page(page);
        }
        if (page.mapping.load() != &mapping_) {
            unlock_page(page);
            return false;
        }
        if ((page.dirty_blocks & blocks) == 0) {
            // Somebody else may be writing them at this moment.
            const bool in_flight = page_test(page, PG_writeback);
            unlock_page(page);
            return in_flight;
        }
        wait_for_writeback(page, [this] { builder_.submit(); });
        const BlockMask dirty = clear_page_dirty_for_io(page);
        const Result<PageParts> parts = map_blocks_of(page, static_cast<BlockMask>(dirty & blocks));
        if (!parts.has_value()) {
            mapping_set_error(mapping_, parts.code());
            sink_.record(parts.code());
            redirty_page_for_writepage(page, dirty);
            give_up(page);
            return false;
        }
        // Before set_page_writeback, so that the DIRTY mark stays.
        const auto rest = static_cast<BlockMask>(dirty & ~blocks);
        redirty_page_for_writepage(page, rest);
        start_writeback(builder_, page, *parts, rest == 0 ? Rest::kNone : Rest::kStaysDirty);
        return true;
    }

    Result<PageParts> map_blocks_of(Page& page, BlockMask blocks) {
        PageParts all;
        unsigned rest = whole_granules(blocks);
        while (rest != 0) {
            const auto first = static_cast<unsigned>(std::countr_zero(rest));
            const auto count = static_cast<unsigned>(std::countr_one(rest >> first));
            ExtentCursor cursor(mapping_, page_offset(page.index + 1));
            const PageParts some =
                TRY(cursor.map_page(page, static_cast<std::uint32_t>(first << kBlockShift),
                                    static_cast<std::uint32_t>(count << kBlockShift)));
            for (const PagePart& part : some.all()) {
                if (part.is_hole()) {
                    return Errno{EIO};
                }
                all.part[all.count++] = part;
            }
            rest &= ~(((1U << count) - 1U) << first);
        }
        return all;
    }

    void wait() {
        builder_.submit();
        for (Page* page : in_flight_) {
            wait_on_page_writeback(*page);
            put_page(*page);
        }
        in_flight_.clear();
    }

    AddressSpace& mapping_;
    const unsigned blocks_per_granule_;
    IoErrorSink sink_;
    BioBuilder builder_;
    std::vector<Page*> in_flight_;  // referenced
};

}  // namespace

// --- the walk

WritebackIter::WritebackIter(AddressSpace& mapping, WritebackControl& wbc,
                             std::function<void()> before_sleep)
    : mapping_(mapping),
      wbc_(wbc),
      before_sleep_(std::move(before_sleep)),
      tag_first_(wbc.sync_mode == WB_SYNC_ALL || wbc.tagged_writepages),
      index_(page_index(wbc.range_start)),
      end_(page_index(wbc.range_end)) {
    if (wbc_.range_cyclic) {
        index_ = mapping_.writeback_index.load(std::memory_order_relaxed);
        end_ = ~pgoff_t{0} >> 1;
    }
    if (tag_first_) {
        mapping_.i_pages.tag_pages_for_writeback(wbc_.range_cyclic ? 0 : index_, end_);
    }
    done_index_ = first_ = index_;
}

WritebackIter::~WritebackIter() {
    release_batch();
}

Page* WritebackIter::next(const Result<>& previous)
    NO_THREAD_SAFETY_ANALYSIS {  // returns the page locked, which cannot be expressed
    if (page_ != nullptr) {
        note_written(previous);
    }
    while (!done_) {
        Page* const page = next_tagged();
        if (page == nullptr) {
            break;
        }
        done_index_ = page->index;
        if (prepare(*page)) {
            WBFAT_POINT("write_cache_pages:prepared", *page);
            page_ = page;
            dirty_ = clear_page_dirty_for_io(*page);
            return page_;
        }
    }
    finish();
    return nullptr;
}

// What became of the page before: W4 g and h.
void WritebackIter::note_written(const Result<>& result) {
    const pgoff_t after = page_->index + 1;
    page_ = nullptr;
    if (!result.has_value()) {
        error_ = error_ != 0 ? error_ : result.code();
    }
    --wbc_.nr_to_write;
    const bool enough = !result.has_value() || wbc_.nr_to_write <= 0;
    if (enough && wbc_.sync_mode == WB_SYNC_NONE) {
        done_index_ = after;
        done_ = true;
    }
}

// The next marked page, from the batch or a new one; the batch keeps its reference.
Page* WritebackIter::next_tagged() {
    if (position_ == found_) {
        release_batch();
        if (index_ > end_) {
            return nullptr;
        }
        const PageTag tag = tag_first_ ? PAGECACHE_TAG_TOWRITE : PAGECACHE_TAG_DIRTY;
        found_ = mapping_.i_pages.find_get_range_tag(index_, end_, tag, batch_);
        if (found_ == 0 && wbc_.range_cyclic && index_ == first_ && first_ != 0) {
            // Nothing from where the last walk stopped to the end. As nothing was visited yet,
            // starting over cannot break the ascending order. Differs: the kernel comes back
            // empty-handed and starts over next time.
            first_ = index_ = 0;
            found_ = mapping_.i_pages.find_get_range_tag(index_, end_, tag, batch_);
        }
        if (found_ == 0) {
            return nullptr;
        }
        index_ = batch_[found_ - 1]->index + 1;
    }
    return batch_[position_++];
}

void WritebackIter::release_batch() {
    for (std::size_t i = 0; i < found_; ++i) {
        put_page(*batch_[i]);
    }
    position_ = found_ = 0;
}

// Locks the page, and decides whether it is ours to write. Source: W4 a to d;
// folio_prepare_writeback.
bool WritebackIter::prepare(Page& page)
    NO_THREAD_SAFETY_ANALYSIS {  // conditionally returns with the lock held
    if (!trylock_page(page)) {
        before_sleep_();
        lock_page(page);
    }
    // Truncated, or somebody wrote it for us.
    if (page.mapping.load() != &mapping_ || !page_test(page, PG_dirty)) {
        unlock_page(page);
        return false;
    }
    if (wbc_.sync_mode == WB_SYNC_NONE && page_test(page, PG_writeback)) {
        unlock_page(page);
        return false;
    }
    wait_for_writeback(page, before_sleep_);
    return true;
}

void WritebackIter::finish() {
    release_batch();
    if (wbc_.range_cyclic && !done_) {
        done_index_ = 0;
    }
    const bool range_whole =
        !wbc_.range_cyclic && wbc_.range_start == 0 && wbc_.range_end >= INT64_MAX;
    if (wbc_.range_cyclic || (range_whole && wbc_.nr_to_write > 0)) {
        // Racy by design (W6): two walkers may send the next one to either's place.
        mapping_.writeback_index.store(done_index_, std::memory_order_relaxed);
    }
    done_ = true;
}

Result<> WritebackIter::result() const {
    return error_ != 0 ? Result<>(Errno{error_}) : Result<>();
}

Result<> write_cache_pages(AddressSpace& mapping, WritebackControl& wbc,
                           const WritePage& writepage) {
    WritebackIter iter(mapping, wbc);
    Result<> written;
    while (Page* const page = iter.next(written)) {
        written = writepage(*page, iter.dirty());
    }
    return iter.result();
}

Result<> mpage_writepages(AddressSpace& mapping, WritebackControl& wbc) {
    MpageWriter writer(mapping, wbc);
    WritebackIter iter(mapping, wbc, [&writer] { writer.flush(); });
    Result<> written;
    while (Page* const page = iter.next(written)) {
        written = writer.write_page(*page, iter.dirty());
    }
    writer.flush();
    const Result<> last = writer.take_error();
    return iter.result().has_value() ? last : iter.result();
}

Result<> do_writepages(AddressSpace& mapping, WritebackControl& wbc) {
    const sync::RoleGuard role(wbc.sync_mode == WB_SYNC_ALL ? sync::Role::kSyncWriter
                                                            : sync::current_task().role());
    // Source's loop has no end; a mount that can never get memory must still be able to say so.
    constexpr int kMaxTries = 50;
    constexpr std::chrono::milliseconds kPause{20};
    if (wbc.nr_to_write <= 0) {
        return {};
    }
    for (int tries = 1;; ++tries) {
        Result<> result = mapping.ops().writepages(mapping, wbc);
        if (result.code() != ENOMEM || wbc.sync_mode != WB_SYNC_ALL || tries == kMaxTries) {
            return result;
        }
        sync::sleep_for(kPause);
    }
}

Result<> sync_dirty_blocks(AddressSpace& mapping, std::span<const std::uint64_t> blocks) {
    mapping.cache().io().redirty_failed_pages(PageIo::Redirty::kWait);
    BlockSync sync(mapping);
    for (std::size_t i = 0; i < blocks.size();) {
        const pgoff_t index = blocks[i] / kBlocksPerPage;
        unsigned mask = 0;
        for (; i < blocks.size() && blocks[i] / kBlocksPerPage == index; ++i) {
            mask |= 1U << (blocks[i] % kBlocksPerPage);
        }
        sync.sync(index, static_cast<BlockMask>(mask));
    }
    return sync.finish();
}

}  // namespace wbfat::cache::inline WBFAT_RT
