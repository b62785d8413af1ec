// The cache of one mount: putting the parts together, and reading their counters.
#include "cache/page_cache.h"

#include <algorithm>

#include "cache/base/check.h"
#include "cache/block_use.h"
#include "cache/counters.h"
#include "cache/flusher.h"
#include "cache/page_frames.h"
#include "cache/page_io.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

constexpr std::uint64_t kMinCacheBytes = 1U << 20;

}  // namespace

PageCache::PageCache(const PageCacheOptions& options)
    : options_(options),
      counters_(std::make_unique<Counters>()),
      blocks_(std::make_unique<BlockUse>()) {
    options_.cache_size_bytes =
        std::max(options_.cache_size_bytes, kMinCacheBytes) & ~std::uint64_t{kPageSize - 1};
}

Result<std::unique_ptr<PageCache>> PageCache::create(const PageCacheOptions& options) {
    std::unique_ptr<PageCache> cache(new PageCache(options));
    cache->frames_ =
        TRY(PageFrames::create(*cache, cache->options_.cache_size_bytes >> kPageShift));
    cache->io_ = std::make_unique<PageIo>(*cache);
    cache->flusher_ = std::make_unique<Flusher>(*cache);
    return cache;
}

PageCache::~PageCache() {
    // A completion that ended the last page of its mapping may still be on its way out.
    if (io_ != nullptr) {
        io_->wait_until_idle();
    }
}

PageCacheStats PageCache::stats() const {
    const Counters& c = *counters_;
    return {
        .nr_frames = frames_->nr_frames(),
        .nr_free = frames_->nr_free(),
        .nr_cached = c.nr_cached.value(),
        .nr_dirty = c.nr_dirty.value(),
        .nr_writeback = c.nr_writeback.value(),
        .pages_dirtied = c.pages_dirtied.value(),
        .pages_written = c.pages_written.value(),
        .pages_read = c.pages_read.value(),
        .pages_reclaimed = c.pages_reclaimed.value(),
        .bios_read = c.bios_read.value(),
        .bios_written = c.bios_written.value(),
        .lock_waits = c.lock_waits.value(),
        .writeback_waits = c.writeback_waits.value(),
        .throttle_waits = c.throttle_waits.value(),
        .reclaim_waits = c.reclaim_waits.value(),
        .write_errors = c.write_errors.value(),
        .read_errors = c.read_errors.value(),
    };
}

std::uint64_t PageCache::drop_caches() {
    std::uint64_t dropped = 0;
    while (const std::uint64_t batch = frames_->reclaim(frames_->nr_frames())) {
        dropped += batch;
    }
    return dropped;
}

}  // namespace wbfat::cache::inline WBFAT_RT
