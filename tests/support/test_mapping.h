// A file on a memory device with a block map made to order, for tests of the cache without a
// filesystem.
//
// Layout::kContiguous puts byte n of the file at device byte n; kScattered shuffles clusters of the
// file over the device, so that pages and parts of pages are not contiguous. TestBed puts device,
// faults, cache and file together in the right order of destruction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cache/address_space.h"
#include "cache/device/faulty_device.h"
#include "cache/device/memory_device.h"
#include "cache/filemap.h"
#include "cache/page_cache.h"
#include "cache/sync/sync.h"
#include "cache/writeback.h"

namespace wbfat::cache::inline WBFAT_RT {

struct Layout {
    enum class Kind { kContiguous, kScattered };
    Kind kind = Kind::kContiguous;
    std::uint64_t size_bytes = 1U << 20;  // blocks exist up to here
    std::uint64_t cluster_bytes = kPageSize;
    std::uint64_t seed = 1;
    std::uint64_t device_start_bytes = 0;  // of the area the clusters lie in
};

class TestMapping final : public AddressSpaceOps {
public:
    TestMapping(PageCache& cache, BlockDevice& device, const Layout& layout,
                AddressSpace::StablePages stable = AddressSpace::StablePages::kNo,
                std::string name = "test");
    // As an evicted inode does: forgets, truncates.
    ~TestMapping() override;

    AddressSpace& mapping() {
        return *mapping_;
    }
    // Device offset of a byte of the file; the map without any hook.
    std::uint64_t place_of(std::uint64_t offset_bytes) const;

    Result<MappedExtent> map_blocks(AddressSpace& mapping, std::uint64_t offset_bytes,
                                    std::uint64_t length_bytes) override;
    Result<> writepages(AddressSpace& mapping, WritebackControl& wbc) override;
    Result<> write_inode(AddressSpace& mapping, const WritebackControl& wbc) override;
    bool grab_inode(AddressSpace& mapping) override;
    void drop_inode(AddressSpace& mapping) override;

    // Hooks, set before anything runs. on_map may replace the answer.
    std::function<Result<MappedExtent>(std::uint64_t offset, MappedExtent answer)> on_map;
    std::function<Result<>(AddressSpace&, WritebackControl&)> on_writepages;
    std::function<Result<>()> on_write_inode;

    sync::Atomic<std::uint64_t> nr_maps{0};
    sync::Atomic<std::uint64_t> nr_writepages{0};
    sync::Atomic<std::uint64_t> nr_inode_writes{0};
    sync::Atomic<std::int64_t> nr_grabbed{0};

private:
    const Layout layout_;
    std::vector<std::uint64_t> cluster_place_;  // in clusters; empty when contiguous
    std::unique_ptr<AddressSpace> mapping_;
};

// Bytes that are a function of their place and a tag.
std::vector<std::byte> pattern(std::uint64_t offset_bytes, std::size_t length_bytes, unsigned tag);

// Waits until `condition` holds; fails the test after half a minute.
void eventually(const std::function<bool()>& condition, const char* what);
// Threads of a test that must come to an end even when an assertion fails.
using TestThread = std::jthread;

struct TestBedOptions {
    PageCacheOptions cache{.cache_size_bytes = 8U << 20, .dirty_writeback_centisecs = 0};
    Layout layout{};
    std::uint64_t device_bytes = 16U << 20;
    std::uint32_t logical_block_bytes = 512;
    CompletionContext completion = CompletionContext::kOnThread;
    AddressSpace::StablePages stable = AddressSpace::StablePages::kNo;
};

class TestBed {
public:
    explicit TestBed(const TestBedOptions& options = {});
    ~TestBed();

    PageCache& cache() {
        return *cache_;
    }
    Flusher& flusher() {
        return cache_->flusher();
    }
    MemoryDevice& disk() {
        return disk_;
    }
    FaultyDevice& faults() {
        return faults_;
    }
    TestMapping& file() {
        return *file_;
    }
    AddressSpace& mapping() {
        return file_->mapping();
    }

    // Fills the file's blocks on the device with pattern(.., tag) and sets i_size; nothing is
    // cached.
    void fill_disk(std::uint64_t size_bytes, unsigned tag);
    std::vector<std::byte> on_disk(std::uint64_t offset_bytes, std::size_t length_bytes);

    void write(std::uint64_t offset_bytes, std::span<const std::byte> bytes);
    std::vector<std::byte> read(std::uint64_t offset_bytes, std::size_t length_bytes);
    Result<> fsync();
    bool page_is(pgoff_t index, PageFlag flag);

    ReadaheadState ra;
    ErrSeq::Cursor cursor = 0;

private:
    MemoryDevice disk_;
    FaultyDevice faults_;
    std::unique_ptr<PageCache> cache_;
    std::unique_ptr<TestMapping> file_;
};

}  // namespace wbfat::cache::inline WBFAT_RT
