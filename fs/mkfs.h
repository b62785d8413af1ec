// Making a FAT volume: first a plan, which touches nothing, then the writing of it.
//
// plan_mkfs() decides everything mkfs.fat decides (FAT type, cluster size, alignment, disk
// geometry, ..) and answers a complete FormatPlan or one sentence that says why not; write_volume()
// then puts the plan on a FormatTarget.
//
// Invariants
//   - F1. The geometry of a plan equals that of dosfstools' mkfs.fat 4.2 for the same options and
//     device size; where mkfs.fat refuses, so does plan_mkfs. tests/fs/mkfs_test.cc and
//     tests/tools/mkfs_grid_test.py compare them.
//   - F2. A plan describes a volume that parse_boot_sector() accepts, or the Atari variant of one,
//     or carries a warning that says it is not.
//   - F3. write_volume() wipes the reserved sectors first and writes the boot sector last: an
//     interrupted format leaves no volume, rather than half of one.
//   - F4. Equal options, device and time give equal bytes.
//
// Locking: none; a plan is a value, and one thread writes it.
// Differs: from mkfs.fat in the boot code, its message and the OEM name, in F3, and in code page
// labels (4.2 refuses every character above 0x7F).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cache/base/result.h"
#include "cache/device/block_device.h"
#include "fs/geometry.h"
#include "fs/layout.h"

namespace wbfat::fs::inline WBFAT_RT {

struct DiskGeometry {
    std::uint16_t heads = 0;              // BPB_NumHeads
    std::uint16_t sectors_per_track = 0;  // BPB_SecPerTrk
};

// What is to be formatted.
struct FormatDevice {
    std::uint64_t size_bytes = 0;
    std::uint32_t logical_block_bytes = 512;  // a volume's sector is never smaller
    std::optional<DiskGeometry> disk_geometry =
        std::nullopt;                           // what the device itself says, if anything
    std::uint32_t partition_start_sectors = 0;  // where it begins on its disk, in 512-byte sectors
};

// mkfs.fat's options; empty means mkfs.fat's default. Ranges are checked by plan_mkfs().
struct FormatOptions {
    std::optional<unsigned> fat_bits;                  // -F: 12, 16 or 32
    std::optional<std::uint32_t> sector_bytes;         // -S
    std::optional<std::uint32_t> sectors_per_cluster;  // -s
    std::uint32_t nr_fats = 2;                         // -f
    std::optional<std::uint32_t> reserved_sectors;     // -R, a minimum
    std::optional<std::uint32_t> root_entries;         // -r, a minimum
    std::optional<std::uint32_t> backup_boot_sector;   // -b; 0 for none
    std::optional<DiskGeometry> disk_geometry;         // -g
    std::optional<std::uint32_t> hidden_sectors;       // -h
    std::optional<std::uint8_t> media;                 // -M
    std::optional<std::uint8_t> drive;                 // -D
    std::optional<std::uint64_t> size_kib;             // BLOCKS
    std::uint64_t offset_sectors = 0;                  // --offset, in logical sectors
    bool align = true;                                 // cleared by -a
    bool atari = false;                                // -A, --variant
    bool mbr = false;                                  // --mbr
    std::uint32_t volume_id = 0;                       // -i
    std::optional<std::array<char, 11>> label;         // -n, in the code page, padded with spaces
    FatTimestamp label_time;                           // of the label's entry in the root
    std::optional<std::string> boot_message;           // -m, as it is to appear
};

struct FormatPlan {
    Geometry geometry;
    DiskGeometry disk_geometry;
    std::uint32_t hidden_sectors = 0;
    std::uint8_t drive = 0;
    bool atari = false;
    bool mbr = false;
    bool has_label = false;
    FatTimestamp label_time;
    std::uint64_t offset_bytes = 0;  // of the volume on its device
    std::string boot_message;
    std::vector<cluster_t> bad_clusters;  // ascending, unique
    std::vector<std::string> warnings;    // one sentence each
};

// Errors: EINVAL; `why` is then one sentence that names the option and what would be right.
Result<FormatPlan> plan_mkfs(const FormatOptions& options, const FormatDevice& device,
                             std::string& why);

// The SD card specification's heads and sectors per track for a disk of that many sectors.
DiskGeometry lba_assist_geometry(std::uint64_t sectors);

// Marks the clusters that hold the given blocks of 1024 bytes, counted from the start of the
// volume, as bad. Blocks in the unused tail of the volume are ignored. Errors: EINVAL: a block lies
// behind the volume, before its data area or in the FAT32 root; `why` says which.
Result<> mark_bad_blocks(FormatPlan& plan, std::span<const std::uint64_t> blocks, std::string& why);

// The boot sector of the plan, ready to be written: 512 bytes.
std::array<std::byte, kBootSectorBytes> make_boot_sector(const FormatPlan& plan);
std::array<std::byte, kBootSectorBytes> make_fsinfo_sector(const FormatPlan& plan);

// Where a plan is written.
class FormatTarget {
public:
    FormatTarget() = default;
    FormatTarget(const FormatTarget&) = delete;
    FormatTarget& operator=(const FormatTarget&) = delete;
    virtual ~FormatTarget() = default;

    virtual Result<> write(std::uint64_t offset_bytes, std::span<const std::byte> bytes) = 0;
    // Makes a range read as zeros, by whatever is cheapest.
    virtual Result<> zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) = 0;
    virtual Result<> flush() = 0;
};

// A file or a device node, by file descriptor (not owned).
class FdFormatTarget final : public FormatTarget {
public:
    enum class Contents {
        kUnknown,  // zeroing writes, or punches holes where the file can
        kZeros,    // freshly created: zeroing has nothing to do
    };
    FdFormatTarget(int fd, Contents contents) : fd_(fd), contents_(contents) {}

    Result<> write(std::uint64_t offset_bytes, std::span<const std::byte> bytes) override;
    Result<> zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;
    Result<> flush() override;

private:
    const int fd_;
    const Contents contents_;
    bool can_punch_ = true;
};

class DeviceFormatTarget final : public FormatTarget {
public:
    explicit DeviceFormatTarget(cache::BlockDevice& device) : device_(device) {}

    Result<> write(std::uint64_t offset_bytes, std::span<const std::byte> bytes) override;
    Result<> zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;
    Result<> flush() override;

private:
    cache::BlockDevice& device_;
};

// Called now and then with bytes zeroed so far and in all.
using FormatProgress = std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)>;

// Errors: the target's. The device then holds no volume (F3).
Result<> write_volume(FormatTarget& target, const FormatPlan& plan,
                      const FormatProgress& progress = {});

}  // namespace wbfat::fs::inline WBFAT_RT
