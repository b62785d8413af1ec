// Reading and checking the boot sector and FSINFO.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "cache/device/block_device.h"
#include "fs/geometry.h"

namespace wbfat::fs::inline WBFAT_RT {

// What to do with a volume that is damaged but can be read.
struct BootSectorCheck {
    Geometry geometry;
    std::vector<std::string> warnings;  // one sentence each: mounted all the same
    bool must_be_read_only = false;     // the reason is the last warning
};

// Checks one boot sector. `device_bytes` is the size of the device.
// Errors: EINVAL; `why` then is one sentence that names the field, its value and what would be
// right.
Result<BootSectorCheck> parse_boot_sector(std::span<const std::byte> sector,
                                          std::uint64_t device_bytes,
                                          std::uint32_t device_block_bytes, bool dos1xfloppy,
                                          std::string& why);

// Reads sector 0, and where that is unreadable or no FAT32 boot sector, the backup at 6 (then
// read-only). Errors: as above; EIO when the device cannot be read.
Result<BootSectorCheck> read_boot_sector(cache::BlockDevice& device, bool dos1xfloppy,
                                         std::string& why);

// FSINFO: only hints, valid only with the right signatures and in range.
struct FsInfo {
    bool valid = false;
    std::uint32_t free_clusters = 0xFFFFFFFF;  // FSI_Free_Count; 0xFFFFFFFF unknown
    std::uint32_t next_free = 0xFFFFFFFF;      // FSI_Nxt_Free
};
FsInfo parse_fsinfo(std::span<const std::byte> sector, const Geometry& geometry);

}  // namespace wbfat::fs::inline WBFAT_RT
