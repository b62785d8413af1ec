// The cache of one mount: frames, flusher, counters. Everything that the kernel keeps in globals.
#pragma once

#include <cstdint>
#include <memory>

#include "cache/address_space.h"
#include "cache/base/result.h"

namespace wbfat::cache::inline WBFAT_RT {

class BlockUse;
class Flusher;
class PageFrames;
class PageIo;

struct PageCacheOptions {
    // Memory for page frames, bytes; rounded down to pages, at least 1 MiB. Fixed for the life of
    // the cache.
    std::uint64_t cache_size_bytes = 64ULL << 20;
    // Dirty pages (with those under writeback) above this share of the cache make writers wait.
    // Percent.
    unsigned dirty_ratio = 40;
    // Above this share the flusher writes in the background. Percent; half of dirty_ratio if not
    // below it.
    unsigned dirty_background_ratio = 10;
    // The flusher looks for old dirty inodes this often (0: never), and takes those dirty for
    // longer than `expire`.
    unsigned dirty_writeback_centisecs = 500;
    unsigned dirty_expire_centisecs = 500;
    // Largest readahead window, bytes; 0 turns readahead off.
    std::uint32_t readahead_max_bytes = 1U << 20;
    // Largest write Bio, bytes.
    std::uint32_t bio_max_bytes = 1U << 20;
};

// Counters since the cache was made (monotonic) and gauges (now). All are exact only when nothing
// runs.
struct PageCacheStats {
    std::uint64_t nr_frames = 0, nr_free = 0, nr_cached = 0, nr_dirty = 0,
                  nr_writeback = 0;  // gauges, pages
    std::uint64_t pages_dirtied = 0, pages_written = 0, pages_read = 0,
                  pages_reclaimed = 0;              // pages
    std::uint64_t bios_read = 0, bios_written = 0;  // transfers
    std::uint64_t lock_waits = 0, writeback_waits = 0, throttle_waits = 0,
                  reclaim_waits = 0;                  // sleeps
    std::uint64_t write_errors = 0, read_errors = 0;  // pages
};

class PageCache {
public:
    // Errors: ENOMEM when the arena cannot be mapped.
    static Result<std::unique_ptr<PageCache>> create(const PageCacheOptions& options);
    // Requires: every mapping of this cache is gone.
    ~PageCache();
    PageCache(const PageCache&) = delete;
    PageCache& operator=(const PageCache&) = delete;

    [[nodiscard]] const PageCacheOptions& options() const {
        return options_;
    }
    [[nodiscard]] PageCacheStats stats() const;
    PageFrames& frames() {
        return *frames_;
    }
    Flusher& flusher() {
        return *flusher_;
    }
    // Bios in flight and failed writes: for filemap and writeback.
    PageIo& io() {
        return *io_;
    }
    // What the filesystem tells of its blocks, for the assertion freed_blocks.
    BlockUse& blocks() {
        return *blocks_;
    }
    // Writeback errors of any mapping: what syncfs reports.
    ErrSeq s_wb_err;

    // Drops every clean, unused page of every mapping of this cache (drop_caches). Returns pages
    // dropped.
    std::uint64_t drop_caches();

    // Hot counters, written with relaxed atomics by the functions they count.
    struct Counters;
    Counters& counters() {
        return *counters_;
    }

private:
    explicit PageCache(const PageCacheOptions& options);

    PageCacheOptions options_;
    std::unique_ptr<Counters> counters_;
    std::unique_ptr<BlockUse> blocks_;
    std::unique_ptr<PageFrames> frames_;
    std::unique_ptr<PageIo> io_;
    std::unique_ptr<Flusher> flusher_;
};

}  // namespace wbfat::cache::inline WBFAT_RT
