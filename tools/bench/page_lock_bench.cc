// What the switches of the page protocol cost while nobody contends: lock and unlock, start and end
// of writeback. Built twice from the same sources, with the switches as data and with the newest
// protocol as a constant (WBFAT_FIXED_PROTOCOL); tools/bench/protocol_cost.py compares.
#include <benchmark/benchmark.h>

#include <memory>

#include "cache/address_space.h"
#include "cache/device/memory_device.h"
#include "cache/filemap.h"
#include "cache/page_cache.h"
#include "cache/page_frames.h"
#include "cache/page_lock.h"
#include "cache/trace.h"

// The lock goes round in a loop that the static analysis cannot follow.
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"
#endif

namespace wbfat::cache::inline WBFAT_RT {
namespace {

class OnePage final : public AddressSpaceOps {
public:
    OnePage()
        : cache_(PageCache::create({.cache_size_bytes = 1U << 20, .dirty_writeback_centisecs = 0})
                     .value()),
          mapping_(*cache_, device_, *this, AddressSpace::StablePages::kNo, "bench") {
        set_trace(TraceState::kOff);
        mapping_.i_size_write(kPageSize);
        page_ = read_mapping_page(mapping_, 0).value();
    }
    ~OnePage() override {
        put_page(*page_);
        truncate_setsize(mapping_, 0);
    }
    OnePage(const OnePage&) = delete;
    OnePage& operator=(const OnePage&) = delete;

    Page& page() {
        return *page_;
    }

    Result<MappedExtent> map_blocks(AddressSpace&, std::uint64_t offset_bytes,
                                    std::uint64_t length_bytes) override {
        return MappedExtent{.device_offset_bytes = offset_bytes, .length_bytes = length_bytes};
    }
    Result<> write_inode(AddressSpace&, const WritebackControl&) override {
        return {};
    }
    bool grab_inode(AddressSpace&) override {
        return true;
    }
    void drop_inode(AddressSpace&) override {}

private:
    MemoryDevice device_{1U << 20};
    std::unique_ptr<PageCache> cache_;
    AddressSpace mapping_;
    Page* page_ = nullptr;
};

void lock_unlock(benchmark::State& state) {
    OnePage bed;
    for (auto _ : state) {
        lock_page(bed.page());
        unlock_page(bed.page());
    }
}
BENCHMARK(lock_unlock);

void writeback_cycle(benchmark::State& state) {
    OnePage bed;
    for (auto _ : state) {
        lock_page(bed.page());
        set_page_writeback(bed.page());
        unlock_page(bed.page());
        end_page_writeback(bed.page());
    }
}
BENCHMARK(writeback_cycle);

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT

BENCHMARK_MAIN();
