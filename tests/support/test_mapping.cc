// A file on a memory device, and the bed it lies in.
#include "tests/support/test_mapping.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>

#include "cache/flusher.h"
#include "cache/page_lock.h"

namespace wbfat::cache::inline WBFAT_RT {

TestMapping::TestMapping(PageCache& cache, BlockDevice& device, const Layout& layout,
                         AddressSpace::StablePages stable, std::string name)
    : layout_(layout),
      mapping_(std::make_unique<AddressSpace>(cache, device, *this, stable, std::move(name))) {
    if (layout.kind == Layout::Kind::kScattered) {
        cluster_place_.resize(layout.size_bytes / layout.cluster_bytes);
        std::iota(cluster_place_.begin(), cluster_place_.end(), 0);
        std::mt19937_64 random(layout.seed);
        // Some neighbours stay neighbours, as on a real disk.
        for (std::uint64_t& place : cluster_place_) {
            if (random() % 4 != 0) {
                std::swap(place, cluster_place_[random() % cluster_place_.size()]);
            }
        }
    }
}

TestMapping::~TestMapping() {
    mapping_->cache().flusher().forget(*mapping_);
    // What a reference from grab_inode is for: its holder may still be on its way to drop_inode.
    eventually([this] { return nr_grabbed.load() == 0; }, "the flusher's reference");
    truncate_setsize(*mapping_, 0);
}

std::uint64_t TestMapping::place_of(std::uint64_t offset_bytes) const {
    if (cluster_place_.empty()) {
        return layout_.device_start_bytes + offset_bytes;
    }
    const std::uint64_t cluster = offset_bytes / layout_.cluster_bytes;
    return layout_.device_start_bytes + cluster_place_[cluster] * layout_.cluster_bytes +
           offset_bytes % layout_.cluster_bytes;
}

Result<MappedExtent> TestMapping::map_blocks(AddressSpace& /*mapping*/, std::uint64_t offset_bytes,
                                             std::uint64_t length_bytes) {
    nr_maps.fetch_add(1);
    if (offset_bytes >= layout_.size_bytes) {
        return Errno{EIO};
    }
    const std::uint64_t limit = std::min(length_bytes, layout_.size_bytes - offset_bytes);
    std::uint64_t length =
        cluster_place_.empty()
            ? limit
            : std::min(limit, layout_.cluster_bytes - offset_bytes % layout_.cluster_bytes);
    while (length < limit && place_of(offset_bytes + length) == place_of(offset_bytes) + length) {
        length = std::min(limit, length + layout_.cluster_bytes);
    }
    const MappedExtent answer{.device_offset_bytes = place_of(offset_bytes),
                              .length_bytes = length};
    return on_map ? on_map(offset_bytes, answer) : Result<MappedExtent>(answer);
}

Result<> TestMapping::writepages(AddressSpace& mapping, WritebackControl& wbc) {
    nr_writepages.fetch_add(1);
    return on_writepages ? on_writepages(mapping, wbc) : mpage_writepages(mapping, wbc);
}

Result<> TestMapping::write_inode(AddressSpace& /*mapping*/, const WritebackControl& /*wbc*/) {
    nr_inode_writes.fetch_add(1);
    return on_write_inode ? on_write_inode() : Result<>();
}

bool TestMapping::grab_inode(AddressSpace& /*mapping*/) {
    nr_grabbed.fetch_add(1);
    return true;
}

void TestMapping::drop_inode(AddressSpace& /*mapping*/) {
    nr_grabbed.fetch_sub(1);
}

std::vector<std::byte> pattern(std::uint64_t offset_bytes, std::size_t length_bytes, unsigned tag) {
    std::vector<std::byte> bytes(length_bytes);
    for (std::size_t i = 0; i < length_bytes; ++i) {
        const std::uint64_t place =
            (offset_bytes + i) * 0x9E3779B97F4A7C15ULL + tag * 0xD1B54A32D192ED03ULL;
        bytes[i] = static_cast<std::byte>(place >> 56 | 1U);  // never 0: a missing write shows
    }
    return bytes;
}

void eventually(const std::function<bool()>& condition, const char* what) {
    const sync::Nanoseconds end = sync::monotonic_now() + std::chrono::seconds(30);
    while (!condition()) {
        if (sync::monotonic_now() > end) {
            ADD_FAILURE() << "waited in vain for: " << what;
            return;
        }
        sync::sleep_for(std::chrono::milliseconds(1));
    }
}

TestBed::TestBed(const TestBedOptions& options)
    : disk_(options.device_bytes,
            {.completion = options.completion, .logical_block_bytes = options.logical_block_bytes}),
      faults_(disk_),
      cache_(*PageCache::create(options.cache)),
      file_(std::make_unique<TestMapping>(*cache_, faults_, options.layout, options.stable)) {}

TestBed::~TestBed() {
    faults_.clear_rules();
    faults_.release();
}

void TestBed::fill_disk(std::uint64_t size_bytes, unsigned tag) {
    const std::vector<std::byte> bytes =
        pattern(0, (size_bytes + kBlockSize - 1) / kBlockSize * kBlockSize, tag);
    for (std::uint64_t offset = 0; offset < bytes.size(); offset += kBlockSize) {
        std::memcpy(disk_.bytes().data() + file_->place_of(offset), bytes.data() + offset,
                    kBlockSize);
    }
    mapping().i_size_write(size_bytes);
}

std::vector<std::byte> TestBed::on_disk(std::uint64_t offset_bytes, std::size_t length_bytes) {
    std::vector<std::byte> bytes(length_bytes);
    for (std::size_t done = 0; done < length_bytes;) {
        const std::uint64_t offset = offset_bytes + done;
        const std::size_t length =
            std::min<std::size_t>(kBlockSize - offset % kBlockSize, length_bytes - done);
        std::memcpy(bytes.data() + done, disk_.bytes().data() + file_->place_of(offset), length);
        done += length;
    }
    return bytes;
}

void TestBed::write(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
    std::size_t done = 0;
    const Result<std::size_t> written = generic_perform_write(
        mapping(), offset_bytes, bytes.size(), [&](std::span<std::byte> piece) -> Result<> {
            std::memcpy(piece.data(), bytes.data() + done, piece.size());
            done += piece.size();
            return {};
        });
    ASSERT_TRUE(written.has_value()) << "errno " << written.code();
    ASSERT_EQ(*written, bytes.size());
}

std::vector<std::byte> TestBed::read(std::uint64_t offset_bytes, std::size_t length_bytes) {
    std::vector<std::byte> bytes(length_bytes);
    const Result<std::size_t> got = filemap_read(mapping(), ra, offset_bytes, bytes);
    EXPECT_TRUE(got.has_value()) << "errno " << got.code();
    bytes.resize(got.has_value() ? *got : 0);
    return bytes;
}

Result<> TestBed::fsync() {
    return file_write_and_wait_range(mapping(), 0, kLastByte, cursor);
}

bool TestBed::page_is(pgoff_t index, PageFlag flag) {
    Page* page = mapping().i_pages.find_get(index);
    if (page == nullptr) {
        return false;
    }
    const bool set = page_test(*page, flag);
    put_page(*page);
    return set;
}

}  // namespace wbfat::cache::inline WBFAT_RT
