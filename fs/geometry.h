// What a boot sector says, checked: the only way to learn where anything lies on the volume.
//
// A Geometry exists only if every field is in range and they do not contradict each other, so no
// later code divides by zero, shifts by 64 or reads outside the volume because of what is on the
// disk.
//
// Units: *_sectors and *_sector are in the volume's logical sectors (sector_bytes); clusters are
// numbered from 2. Source: Microsoft FAT specification (BPB_*); Linux fs/fat/inode.c
// fat_fill_super; fat.md 3.4 and 7.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "cache/base/result.h"
#include "cache/base/runtime.h"

namespace wbfat::fs::inline WBFAT_RT {

using cluster_t = std::uint32_t;

inline constexpr cluster_t kFirstCluster = 2;

// `count` consecutive clusters from `first` on.
struct ClusterRun {
    cluster_t first = 0;
    std::uint32_t count = 0;
};

enum class FatType : std::uint8_t { kFat12 = 12, kFat16 = 16, kFat32 = 32 };

struct Geometry {
    FatType type = FatType::kFat12;
    std::uint32_t sector_bytes = 512;       // BPB_BytsPerSec
    std::uint32_t sectors_per_cluster = 1;  // BPB_SecPerClus
    std::uint32_t cluster_bytes = 512;
    unsigned cluster_shift = 9;
    std::uint32_t reserved_sectors = 1;    // BPB_RsvdSecCnt
    std::uint32_t nr_fats = 2;             // BPB_NumFATs
    std::uint32_t fat_sectors = 1;         // BPB_FATSz16 or BPB_FATSz32
    std::uint32_t root_entries = 0;        // BPB_RootEntCnt; 0 on FAT32
    std::uint64_t total_sectors = 0;       // BPB_TotSec16 or BPB_TotSec32
    std::uint64_t root_dir_sector = 0;     // FAT12/16: first sector of the fixed root
    std::uint64_t data_sector = 0;         // sector of cluster 2
    std::uint32_t nr_clusters = 0;         // clusters 2 .. nr_clusters + 1 exist
    cluster_t root_cluster = 0;            // BPB_RootClus; FAT32 only
    std::uint32_t fsinfo_sector = 0;       // 0: none
    std::uint32_t backup_boot_sector = 0;  // 0: none
    std::uint32_t active_fat = 0;          // read from here
    bool mirroring = true;                 // writes go to every FAT
    std::uint8_t media = 0xF8;             // BPB_Media
    std::uint32_t volume_id = 0;           // BS_VolID
    std::array<char, 11> label{};          // BS_VolLab
    std::uint8_t state = 0;  // boot byte 0x25 / 0x41: bit 0 dirty, bit 1 surface scan wanted

    // The boot sector has a state byte (and perhaps an id). False on floppies from before DOS 4,
    // where boot code lies at state_offset_bytes(): it must not be written there.
    bool has_extended_boot = false;

    // Byte offsets on the device.
    [[nodiscard]] std::uint64_t fat_offset_bytes(std::uint32_t fat) const {
        return (std::uint64_t{reserved_sectors} + std::uint64_t{fat} * fat_sectors) * sector_bytes;
    }
    [[nodiscard]] std::uint64_t root_dir_offset_bytes() const {
        return root_dir_sector * sector_bytes;
    }
    [[nodiscard]] std::uint64_t root_dir_bytes() const {
        return std::uint64_t{root_entries} * 32;
    }
    // Requires is_data_cluster(cluster).
    [[nodiscard]] std::uint64_t cluster_offset_bytes(cluster_t cluster) const {
        return data_sector * sector_bytes +
               (std::uint64_t{cluster - kFirstCluster} << cluster_shift);
    }
    [[nodiscard]] bool is_data_cluster(cluster_t cluster) const {
        return cluster >= kFirstCluster && cluster - kFirstCluster < nr_clusters;
    }
    // Byte of the boot sector that holds the dirty bit.
    [[nodiscard]] std::uint32_t state_offset_bytes() const {
        return type == FatType::kFat32 ? 0x41 : 0x25;
    }
    [[nodiscard]] std::uint64_t volume_bytes() const {
        return total_sectors * sector_bytes;
    }
};

}  // namespace wbfat::fs::inline WBFAT_RT
