// A FAT on a memory device, the mapping of that device, and a MetadataSink that writes down what it
// is told: what FatTable and Allocator need, without a volume.
#pragma once

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cache/address_space.h"
#include "cache/device/faulty_device.h"
#include "cache/device/memory_device.h"
#include "cache/filemap.h"
#include "cache/flusher.h"
#include "cache/page_cache.h"
#include "cache/writeback.h"
#include "fs/fat_table.h"
#include "fs/geometry.h"
#include "fs/ordering_sink.h"

namespace wbfat::fs::testing {

// Remembers notes, and runs held-back changes when told to.
class RecordingSink final : public MetadataSink {
public:
    void note_blocks(Phase phase, std::uint64_t offset, std::uint64_t length) override {
        EXPECT_EQ(phase, Phase::kAllocate);
        add(noted, offset, length);
    }
    void hold_back(Phase phase, std::function<Result<>()> apply) override {
        held_back.emplace_back(phase, std::move(apply));
    }
    void note_applied(std::uint64_t offset, std::uint64_t length) override {
        add(applied, offset, length);
    }

    // As a commit does: phase after phase; a change that failed stays, and so do those after it.
    Result<> commit() {
        for (const Phase phase : {Phase::kLink, Phase::kUnlink, Phase::kFree}) {
            for (std::size_t i = 0; i < held_back.size();) {
                if (held_back[i].first != phase) {
                    ++i;
                    continue;
                }
                TRY_VOID(held_back[i].second());
                held_back.erase(held_back.begin() + static_cast<std::ptrdiff_t>(i));
            }
        }
        return {};
    }

    std::set<std::uint64_t> noted;  // blocks of 512 bytes
    std::set<std::uint64_t> applied;
    std::vector<std::pair<Phase, std::function<Result<>()>>> held_back;

private:
    static void add(std::set<std::uint64_t>& blocks, std::uint64_t offset, std::uint64_t length) {
        for (std::uint64_t block = offset / 512; block <= (offset + length - 1) / 512; ++block) {
            blocks.insert(block);
        }
    }
};

class IdentityOps final : public cache::AddressSpaceOps {
public:
    Result<cache::MappedExtent> map_blocks(cache::AddressSpace& mapping, std::uint64_t offset,
                                           std::uint64_t length) override {
        const std::uint64_t size = mapping.i_size();
        if (offset >= size) {
            return Errno{EIO};
        }
        return cache::MappedExtent{offset, std::min(length, size - offset)};
    }
    Result<> write_inode(cache::AddressSpace& /*mapping*/,
                         const cache::WritebackControl& /*wbc*/) override {
        return {};
    }
    bool grab_inode(cache::AddressSpace& /*mapping*/) override {
        return true;
    }
    void drop_inode(cache::AddressSpace& /*mapping*/) override {}
};

// A volume of `nr_clusters` with one-sector clusters.
inline Geometry make_geometry(FatType type, std::uint32_t nr_clusters, std::uint32_t nr_fats = 2,
                              std::uint32_t sector_bytes = 512) {
    Geometry g;
    g.type = type;
    g.sector_bytes = sector_bytes;
    g.cluster_bytes = sector_bytes;
    g.cluster_shift = static_cast<unsigned>(std::countr_zero(sector_bytes));
    g.reserved_sectors = type == FatType::kFat32 ? 32 : 1;
    g.nr_fats = nr_fats;
    const std::uint64_t bits = (std::uint64_t{nr_clusters} + 2) * static_cast<unsigned>(type);
    g.fat_sectors = static_cast<std::uint32_t>((bits + sector_bytes * 8 - 1) / (sector_bytes * 8));
    g.nr_clusters = nr_clusters;
    g.root_dir_sector = g.reserved_sectors + std::uint64_t{nr_fats} * g.fat_sectors;
    g.data_sector = g.root_dir_sector;
    g.total_sectors = g.data_sector + nr_clusters;
    return g;
}

class FatBed {
public:
    explicit FatBed(const Geometry& geometry_of_bed)
        : geometry(geometry_of_bed),
          disk(geometry_of_bed.volume_bytes()),
          faults(disk),
          cache_(*cache::PageCache::create(
              {.cache_size_bytes = 16U << 20, .dirty_ratio = 90, .dirty_writeback_centisecs = 0})),
          mapping(*cache_, faults, ops_, cache::AddressSpace::StablePages::kYes, "device") {
        mapping.i_size_write(geometry.volume_bytes());
        fat = std::make_unique<FatTable>(geometry, mapping, sink);
    }
    ~FatBed() {
        fat.reset();
        faults.clear_rules();
        cache_->flusher().forget(mapping);
        cache::truncate_setsize(mapping, 0);
    }
    FatBed(const FatBed&) = delete;
    FatBed& operator=(const FatBed&) = delete;

    std::span<std::byte> table_on_disk(std::uint32_t number) {
        return disk.bytes().subspan(geometry.fat_offset_bytes(number),
                                    std::uint64_t{geometry.fat_sectors} * geometry.sector_bytes);
    }
    // Puts an entry on the disk, in every copy, before anything was read.
    void plant(cluster_t cluster, std::uint32_t raw) {
        for (std::uint32_t copy = 0; copy < geometry.nr_fats; ++copy) {
            write_fat_entry(geometry.type, table_on_disk(copy), cluster, raw);
        }
    }
    // Writes every dirty page, as a commit of everything would.
    void write_out() {
        ASSERT_TRUE(cache::filemap_fdatawrite_range(mapping, 0, cache::kLastByte).has_value());
        cache::filemap_fdatawait_range(mapping, 0, cache::kLastByte);
    }
    // Writes exactly the blocks in `blocks` and forgets them.
    void write_blocks(std::set<std::uint64_t>& blocks) {
        const std::vector<std::uint64_t> sorted(blocks.begin(), blocks.end());
        ASSERT_TRUE(cache::sync_dirty_blocks(mapping, sorted).has_value());
        blocks.clear();
    }
    cache::BlockUse& blocks() {
        return cache_->blocks();
    }
    FatValue must_get(cluster_t cluster) {
        const Result<FatValue> value = fat->get(cluster);
        EXPECT_TRUE(value.has_value()) << "cluster " << cluster << ": errno " << value.code();
        return value.has_value() ? *value : FatValue{FatValue::Kind::kReserved, 0};
    }
    FatValue on_disk(std::uint32_t copy, cluster_t cluster) {
        return decode_fat_entry(geometry.type,
                                read_fat_entry(geometry.type, table_on_disk(copy), cluster),
                                geometry.nr_clusters);
    }

    const Geometry geometry;
    cache::MemoryDevice disk;
    cache::FaultyDevice faults;
    RecordingSink sink;

private:
    IdentityOps ops_;
    std::unique_ptr<cache::PageCache> cache_;

public:
    cache::AddressSpace mapping;
    std::unique_ptr<FatTable> fat;
};

inline void PrintTo(FatType type, std::ostream* os) {
    *os << "FAT" << static_cast<unsigned>(type);
}

}  // namespace wbfat::fs::testing

namespace wbfat::fs::inline WBFAT_RT {

inline void PrintTo(const FatValue& value,
                    std::ostream* os) {  // NOLINT(readability-identifier-naming): gtest's name
    *os << "kind " << static_cast<int>(value.kind) << " next " << value.next;
}

}  // namespace wbfat::fs::inline WBFAT_RT
