// Planning and writing a new FAT volume.
#include "fs/mkfs.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <map>
#include <utility>

namespace wbfat::fs::inline WBFAT_RT {

namespace {

constexpr std::uint64_t kKib = 1024;
constexpr std::uint64_t kMib = 1024 * kKib;
constexpr std::uint64_t kFat32FromBytes = 512 * kMib;
constexpr std::uint64_t kDataBytesMin = 32 * kKib;    // less is no viable filesystem
constexpr std::uint64_t kUnalignedSectorsMax = 8192;  // up to here alignment would cost too much
constexpr std::uint32_t kSectorsPerClusterMax = 128;
constexpr std::uint32_t kRootEntriesMin = 16;
constexpr std::uint32_t kRootEntriesMax = 32768;
constexpr std::uint8_t kMediaDisk = 0xF8;

// Cluster counts that no driver takes for another FAT type (fat.md 7.1).
constexpr std::uint32_t kFat12ClustersMax = 4084;
constexpr std::uint32_t kFat16ClustersMin = 4087;
constexpr std::uint32_t kFat16ClustersMax = 65524;
constexpr std::uint32_t kFat32ClustersMin = 65525;
constexpr std::uint32_t kFat32ClustersAdvised = 65529;
constexpr std::uint32_t kFat32ClustersMax = 0x0FFFFFF6;

// GEMDOS, the Atari's.
constexpr std::uint64_t kGemdosSectorsMax = 65531;
constexpr std::uint64_t kGemdosSectorsOldTos = 32765;
constexpr std::uint32_t kGemdosSectorBytesMax = 16384;

constexpr std::size_t kMbrOffset = 0x1B8;  // disk signature, then the partition table

// 16-bit BIOS code: print the text at the address in bytes 6-7, wait for a key, try the next boot
// device.
//   xor ax,ax; mov ds,ax; cld; mov si,TEXT; next: lodsb; test al,al; jz done; mov ah,0Eh; mov bx,7;
//   int 10h; jmp next done: cbw; int 16h; int 19h; jmp $
constexpr std::array<std::uint8_t, 29> kBootCode = {
    0x31, 0xC0, 0x8E, 0xD8, 0xFC, 0xBE, 0x00, 0x00, 0xAC, 0x84, 0xC0, 0x74, 0x09, 0xB4, 0x0E,
    0xBB, 0x07, 0x00, 0xCD, 0x10, 0xEB, 0xF2, 0x98, 0xCD, 0x16, 0xCD, 0x19, 0xEB, 0xFE};
constexpr std::size_t kBootCodeTextAddress = 6;
constexpr std::uint32_t kBootLoadAddress = 0x7C00;

constexpr std::string_view kDefaultBootMessage =
    "There is no operating system on this volume.\r\n"
    "Remove it and press any key to start from another disk.\r\n";

constexpr std::string_view kOemName = "WBFAT1.0";

struct Floppy {
    std::uint64_t size_kib;
    std::uint8_t media;
    std::uint32_t sectors_per_cluster;
    std::uint32_t root_entries;
    DiskGeometry disk_geometry;
};

constexpr std::array<Floppy, 5> kFloppies = {{
    {360, 0xFD, 2, 112, {2, 9}},
    {720, 0xF9, 2, 112, {2, 9}},
    {1200, 0xF9, 1, 224, {2, 15}},
    {1440, 0xF0, 1, 224, {2, 18}},
    {2880, 0xF0, 2, 224, {2, 36}},
}};

const Floppy* find_floppy(std::uint64_t size_kib) {
    const auto* const found = std::ranges::find(kFloppies, size_kib, &Floppy::size_kib);
    return found == kFloppies.end() ? nullptr : found;
}

constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t unit) {
    return (value + unit - 1) / unit * unit;
}

constexpr std::uint64_t div_up(std::uint64_t value, std::uint64_t unit) {
    return (value + unit - 1) / unit;
}

// The sectors of a volume, as being negotiated.
struct Layout {
    unsigned fat_bits = 0;
    std::uint32_t sectors_per_cluster = 0;
    std::uint64_t reserved_sectors = 0;
    std::uint64_t root_entries = 0;
    std::uint64_t fat_sectors = 0;
    std::uint64_t clusters = 0;
};

class Planner {
public:
    Planner(const FormatOptions& options, const FormatDevice& device, std::string& why)
        : options_(options), device_(device), why_(why) {}

    Result<FormatPlan> run() {
        TRY_VOID(check_options());
        TRY_VOID(choose_sector_size());
        choose_disk_geometry();
        TRY_VOID(choose_total());
        choose_type();
        TRY_VOID(choose_layout());
        TRY_VOID(check_room());
        TRY_VOID(fill_plan());
        return std::move(plan_);
    }

private:
    Result<> refuse(std::string sentence) {
        why_ = std::move(sentence);
        return Errno{EINVAL};
    }

    Result<> check_options();
    Result<> choose_sector_size();
    void choose_disk_geometry();
    Result<> choose_total();
    void choose_type();
    Result<> choose_layout_atari();
    Result<> choose_layout();
    Result<> choose_layout_fat32();
    Result<> choose_layout_fat12_or_16();
    std::optional<Layout> try_fat12_or_16(unsigned bits, std::uint32_t sectors_per_cluster) const;
    Result<> refuse_layout();
    Result<> check_room();
    Result<> fill_plan();
    Result<> choose_backup();
    std::uint32_t default_sectors_per_cluster() const;

    const FormatOptions& options_;
    const FormatDevice& device_;
    std::string& why_;

    FormatPlan plan_;
    const Floppy* floppy_ = nullptr;
    std::uint32_t sector_bytes_ = 512;
    std::uint64_t wanted_kib_ = 0;
    std::uint64_t total_sectors_ = 0;
    std::uint64_t untrimmed_sectors_ = 0;  // before rounding to tracks
    bool align_ = true;
    Layout layout_;
};

Result<> Planner::check_options() {
    const FormatOptions& o = options_;
    if (o.fat_bits && *o.fat_bits != 12 && *o.fat_bits != 16 && *o.fat_bits != 32) {
        return refuse(fmt::format("-F {}: a FAT has entries of 12, 16 or 32 bits.", *o.fat_bits));
    }
    if (o.sector_bytes && (!std::has_single_bit(*o.sector_bytes) || *o.sector_bytes < 512 ||
                           *o.sector_bytes > 32768)) {
        return refuse(fmt::format("-S {}: a sector has 512, 1024, 2048, .. or 32768 bytes.",
                                  *o.sector_bytes));
    }
    if (o.sectors_per_cluster && (!std::has_single_bit(*o.sectors_per_cluster) ||
                                  *o.sectors_per_cluster > kSectorsPerClusterMax)) {
        return refuse(fmt::format("-s {}: a cluster has 1, 2, 4, .. or 128 sectors.",
                                  *o.sectors_per_cluster));
    }
    if (o.nr_fats < 1 || o.nr_fats > 4) {
        return refuse(fmt::format("-f {}: a volume has 1 to 4 FATs.", o.nr_fats));
    }
    if (o.reserved_sectors && (*o.reserved_sectors < 1 || *o.reserved_sectors > 0xFFFF)) {
        return refuse(
            fmt::format("-R {}: a volume has 1 to 65535 reserved sectors.", *o.reserved_sectors));
    }
    if (o.root_entries &&
        (*o.root_entries < kRootEntriesMin || *o.root_entries > kRootEntriesMax)) {
        return refuse(
            fmt::format("-r {}: a root directory has 16 to 32768 entries.", *o.root_entries));
    }
    if (o.media && *o.media != 0xF0 && *o.media < 0xF8) {
        return refuse(fmt::format("-M {:#x}: a media type is 0xf0 or 0xf8 to 0xff.", *o.media));
    }
    if (o.disk_geometry &&
        (o.disk_geometry->heads == 0 || o.disk_geometry->sectors_per_track == 0)) {
        return refuse("-g: a disk has at least one head and one sector per track.");
    }
    return {};
}

Result<> Planner::choose_sector_size() {
    sector_bytes_ = options_.sector_bytes.value_or(512);
    if (sector_bytes_ < device_.logical_block_bytes) {
        sector_bytes_ = device_.logical_block_bytes;
        if (options_.sector_bytes) {
            plan_.warnings.push_back(fmt::format(
                "The sector size was raised to {}, the smallest of this device.", sector_bytes_));
        }
    }
    if (!std::has_single_bit(sector_bytes_) || sector_bytes_ > 32768) {
        return refuse(fmt::format(
            "The device has sectors of {} bytes, and FAT allows at most 32768.", sector_bytes_));
    }
    if (sector_bytes_ > 4096) {
        plan_.warnings.push_back(
            fmt::format("A sector size of {} is not standard, at most 4096 is: the volume may not "
                        "be usable everywhere.",
                        sector_bytes_));
    }
    return {};
}

void Planner::choose_disk_geometry() {
    const std::uint64_t device_kib = device_.size_bytes / kKib;
    floppy_ = find_floppy(device_kib);
    if (options_.disk_geometry) {
        plan_.disk_geometry = *options_.disk_geometry;
    } else if (floppy_ != nullptr) {
        plan_.disk_geometry = floppy_->disk_geometry;
    } else if (device_.disk_geometry) {
        plan_.disk_geometry = *device_.disk_geometry;
    } else {
        plan_.disk_geometry = lba_assist_geometry(device_kib * kKib / sector_bytes_);
    }
    Geometry& g = plan_.geometry;
    g.media = options_.media.value_or(floppy_ != nullptr ? floppy_->media : kMediaDisk);
    plan_.drive = options_.drive.value_or(g.media == kMediaDisk ? 0x80 : 0x00);
}

Result<> Planner::choose_total() {
    if (options_.offset_sectors > device_.size_bytes / sector_bytes_) {
        return refuse(fmt::format("--offset {}: the device ends at sector {}.",
                                  options_.offset_sectors, device_.size_bytes / sector_bytes_));
    }
    plan_.offset_bytes = options_.offset_sectors * sector_bytes_;
    const std::uint64_t found_bytes = device_.size_bytes - plan_.offset_bytes;
    const std::uint64_t found_kib = found_bytes / kKib;
    if (options_.size_kib && *options_.size_kib != found_kib) {
        plan_.warnings.push_back(
            fmt::format("The device has {} blocks of 1 KiB, and {} were asked for.", found_kib,
                        *options_.size_kib));
    }
    wanted_kib_ = options_.size_kib.value_or(found_kib);
    total_sectors_ = (options_.size_kib ? *options_.size_kib * kKib : found_bytes) / sector_bytes_;
    if (total_sectors_ > std::numeric_limits<std::uint32_t>::max()) {
        plan_.warnings.push_back(
            "The device is larger than FAT can address: its end will be left unused.");
        total_sectors_ = std::numeric_limits<std::uint32_t>::max();
    }
    untrimmed_sectors_ = total_sectors_;
    if (options_.align) {
        total_sectors_ -= total_sectors_ % plan_.disk_geometry.sectors_per_track;
    }
    align_ = options_.align && !options_.atari && total_sectors_ > kUnalignedSectorsMax;
    return {};
}

void Planner::choose_type() {
    if (options_.fat_bits) {
        layout_.fat_bits = *options_.fat_bits;
    } else if (device_.size_bytes >= kFat32FromBytes) {
        layout_.fat_bits = 32;
    } else if (options_.atari) {
        // GEMDOS knows FAT12 on floppies only, and mkfs.fat knows those by their number of sectors.
        constexpr std::array<std::uint64_t, 4> kFloppySectors = {1440, 2400, 2880, 5760};
        layout_.fat_bits = std::ranges::count(kFloppySectors, total_sectors_) != 0 ? 12 : 16;
    }
}

// GEMDOS counts sectors and FAT entries in few bits, so larger volumes get larger sectors.
Result<> Planner::choose_layout_atari() {
    const std::uint32_t sectors_per_cluster =
        options_.sectors_per_cluster.value_or(default_sectors_per_cluster());
    for (;;) {
        if (total_sectors_ <= kGemdosSectorsMax) {
            if (layout_.fat_bits == 32) {
                break;
            }
            if (const std::optional<Layout> found =
                    try_fat12_or_16(layout_.fat_bits, sectors_per_cluster)) {
                layout_ = *found;
                break;
            }
        }
        if (options_.sector_bytes) {
            return refuse(fmt::format(
                "-S {}: {} sectors or their clusters are too many for GEMDOS; try larger ones.",
                *options_.sector_bytes, total_sectors_));
        }
        if (sector_bytes_ == kGemdosSectorBytesMax) {
            return refuse(
                "The volume needs sectors of more than 16 KiB, which GEMDOS cannot use: give fewer "
                "BLOCKS.");
        }
        sector_bytes_ *= 2;
        total_sectors_ /= 2;
    }
    if (total_sectors_ > kGemdosSectorsOldTos) {
        plan_.warnings.emplace_back("More than 32765 sectors need TOS 1.04 or newer.");
    }
    if (layout_.fat_bits == 32) {
        return choose_layout_fat32();
    }
    return {};
}

std::uint32_t Planner::default_sectors_per_cluster() const {
    if (options_.atari) {
        return 2;
    }
    if (layout_.fat_bits != 32) {
        return floppy_ != nullptr ? floppy_->sectors_per_cluster : 4;
    }
    // Microsoft's table, in sectors: mkfs.fat reads it so for every sector size.
    constexpr std::uint64_t kSectorsPerMib = 2048;
    constexpr std::array<std::pair<std::uint64_t, std::uint32_t>, 4> kTable = {
        {{260 * kSectorsPerMib, 1},
         {8192 * kSectorsPerMib, 8},
         {16384 * kSectorsPerMib, 16},
         {32768 * kSectorsPerMib, 32}}};
    for (const auto& [sectors_max, sectors_per_cluster] : kTable) {
        if (untrimmed_sectors_ <= sectors_max) {
            return sectors_per_cluster;
        }
    }
    return 64;
}

Result<> Planner::choose_layout() {
    if (options_.atari) {
        return choose_layout_atari();
    }
    return layout_.fat_bits == 32 ? choose_layout_fat32() : choose_layout_fat12_or_16();
}

Result<> Planner::refuse_layout() {
    if (options_.sectors_per_cluster) {
        return refuse(
            fmt::format("-s {}: the number of clusters fits no FAT type; try more or fewer sectors "
                        "per cluster.",
                        *options_.sectors_per_cluster));
    }
    if (options_.fat_bits) {
        return refuse(fmt::format(
            "-F {}: a volume of {} sectors is too small or too large for this FAT type.",
            *options_.fat_bits, total_sectors_));
    }
    return refuse(fmt::format("{} sectors of {} bytes are too few or too many for a FAT volume.",
                              total_sectors_, sector_bytes_));
}

Result<> Planner::choose_layout_fat32() {
    const std::uint64_t reserved_min = options_.reserved_sectors.value_or(32);
    if (reserved_min < 2) {
        return refuse("-R 1: FAT32 needs at least 2 reserved sectors.");
    }
    Layout& l = layout_;
    l.sectors_per_cluster = options_.sectors_per_cluster.value_or(default_sectors_per_cluster());
    const std::uint64_t unit = align_ ? l.sectors_per_cluster : 1;
    l.reserved_sectors = align_up(reserved_min, unit);
    if (l.reserved_sectors >= total_sectors_) {
        return refuse_layout();
    }
    const std::uint64_t shared = total_sectors_ - l.reserved_sectors;  // FATs and data
    const std::uint64_t estimate = (shared * sector_bytes_ + std::uint64_t{options_.nr_fats} * 8) /
                                   (std::uint64_t{l.sectors_per_cluster} * sector_bytes_ +
                                    std::uint64_t{options_.nr_fats} * 4);
    l.fat_sectors = align_up(div_up((estimate + 2) * 4, sector_bytes_), unit);
    if (l.fat_sectors * options_.nr_fats >= shared) {
        return refuse_layout();
    }
    l.clusters = (shared - l.fat_sectors * options_.nr_fats) / l.sectors_per_cluster;
    if (l.clusters > kFat32ClustersMax || l.clusters + 2 > l.fat_sectors * sector_bytes_ / 4) {
        return refuse_layout();
    }
    if (l.clusters < kFat32ClustersAdvised && !options_.atari) {
        if (!options_.fat_bits && l.clusters < kFat32ClustersMin) {
            return refuse_layout();
        }
        plan_.warnings.push_back(
            fmt::format("{} clusters are fewer than FAT32 should have ({}): some systems will take "
                        "the volume for FAT16 or FAT12.",
                        l.clusters, kFat32ClustersAdvised));
    }
    return {};
}

std::optional<Layout> Planner::try_fat12_or_16(unsigned bits,
                                               std::uint32_t sectors_per_cluster) const {
    const std::uint64_t unit = align_ ? sectors_per_cluster : 1;
    const std::uint64_t entries_per_sector = sector_bytes_ / kDirEntryBytes;
    const std::uint64_t entries =
        options_.root_entries.value_or(floppy_ != nullptr ? floppy_->root_entries : 512);
    const std::uint64_t root_sectors = align_up(div_up(entries, entries_per_sector), unit);
    const std::uint64_t fats = options_.nr_fats;

    Layout l;
    l.fat_bits = bits;
    l.sectors_per_cluster = sectors_per_cluster;
    l.reserved_sectors = align_up(options_.reserved_sectors.value_or(1), unit);
    l.root_entries = align_ ? root_sectors * entries_per_sector : entries;
    if (l.reserved_sectors + root_sectors >= total_sectors_ || l.reserved_sectors > 0xFFFF) {
        return std::nullopt;
    }
    // Entries are counted in half bits per byte: 3 half-bytes on FAT12, 4 on FAT16; two of them are
    // not clusters.
    const std::uint64_t nibbles = bits / 4;
    const std::uint64_t shared = total_sectors_ - l.reserved_sectors - root_sectors;
    const std::uint64_t estimate =
        (2 * shared * sector_bytes_ + 2 * fats * nibbles) /
        (2 * std::uint64_t{sectors_per_cluster} * sector_bytes_ + fats * nibbles);
    l.fat_sectors = align_up(div_up(div_up((estimate + 2) * nibbles, 2), sector_bytes_), unit);
    if (l.fat_sectors * fats >= shared) {
        return std::nullopt;
    }
    l.clusters = (shared - l.fat_sectors * fats) / sectors_per_cluster;
    const std::uint64_t entries_max = l.fat_sectors * sector_bytes_ * 2 / nibbles;
    const std::uint64_t clusters_max = bits == 12 ? kFat12ClustersMax : kFat16ClustersMax;
    if (options_.atari) {
        // GEMDOS is told the FAT type by the kind of medium, not by the count; but the FAT may hold
        // no entry too many.
        return entries_max <= clusters_max && l.clusters + 2 <= entries_max ? std::optional(l)
                                                                            : std::nullopt;
    }
    const std::uint64_t clusters_min = bits == 12 ? 0 : kFat16ClustersMin;
    if (l.clusters > clusters_max || l.clusters < clusters_min || l.clusters + 2 > entries_max) {
        return std::nullopt;
    }
    return l;
}

Result<> Planner::choose_layout_fat12_or_16() {
    const unsigned wanted = layout_.fat_bits;  // 0: either
    std::uint32_t sectors_per_cluster =
        options_.sectors_per_cluster.value_or(default_sectors_per_cluster());
    for (; sectors_per_cluster <= kSectorsPerClusterMax; sectors_per_cluster *= 2) {
        for (const unsigned bits : {12U, 16U}) {
            if (wanted != 0 && wanted != bits) {
                continue;
            }
            if (const std::optional<Layout> found = try_fat12_or_16(bits, sectors_per_cluster)) {
                layout_ = *found;
                return {};
            }
        }
        if (options_.sectors_per_cluster) {
            break;
        }
    }
    return refuse_layout();
}

Result<> Planner::check_room() {
    const Layout& l = layout_;
    const std::uint64_t before_data = l.reserved_sectors + l.fat_sectors * options_.nr_fats +
                                      div_up(l.root_entries * kDirEntryBytes, sector_bytes_);
    // Whole KiB, and before rounding to tracks: so mkfs.fat counts.
    if (wanted_kib_ * kKib / sector_bytes_ < before_data + kDataBytesMin / sector_bytes_ ||
        l.clusters == 0) {
        return refuse(fmt::format(
            "{} sectors are too few: {} of them come before the data, which needs 32 KiB.",
            total_sectors_, before_data));
    }
    if (l.root_entries * kDirEntryBytes % sector_bytes_ != 0) {
        plan_.warnings.push_back(
            fmt::format("{} root entries do not fill whole sectors: many drivers, Linux among "
                        "them, refuse that.",
                        l.root_entries));
    }
    if (l.reserved_sectors > 0xFFFF) {
        return refuse(
            fmt::format("-R: {} reserved sectors after alignment are more than 65535; try -a.",
                        l.reserved_sectors));
    }
    if (l.root_entries > 0xFFFF) {
        return refuse(fmt::format(
            "-r: {} root entries after alignment are more than 65535; try -a.", l.root_entries));
    }
    return {};
}

Result<> Planner::choose_backup() {
    Geometry& g = plan_.geometry;
    const std::uint32_t reserved = g.reserved_sectors;
    if (!options_.backup_boot_sector) {
        // Microsoft's place where there is room for it and its FSINFO, else as far back as
        // possible.
        g.backup_boot_sector = reserved >= 7   ? kDefaultBackupBootSector
                               : reserved >= 4 ? reserved - 2
                               : reserved == 3 ? 2
                                               : 0;
        return {};
    }
    g.backup_boot_sector = *options_.backup_boot_sector;
    if (g.backup_boot_sector == g.fsinfo_sector) {
        return refuse(fmt::format("-b {}: that sector holds FSINFO.", g.backup_boot_sector));
    }
    if (g.backup_boot_sector >= reserved) {
        return refuse(fmt::format("-b {}: the backup must lie in the {} reserved sectors.",
                                  g.backup_boot_sector, reserved));
    }
    return {};
}

Result<> Planner::fill_plan() {
    const Layout& l = layout_;
    Geometry& g = plan_.geometry;
    g.type = static_cast<FatType>(l.fat_bits);
    g.sector_bytes = sector_bytes_;
    g.sectors_per_cluster = l.sectors_per_cluster;
    g.cluster_bytes = sector_bytes_ * l.sectors_per_cluster;
    g.cluster_shift = static_cast<unsigned>(std::countr_zero(g.cluster_bytes));
    g.reserved_sectors = static_cast<std::uint32_t>(l.reserved_sectors);
    g.nr_fats = options_.nr_fats;
    g.fat_sectors = static_cast<std::uint32_t>(l.fat_sectors);
    g.root_entries = static_cast<std::uint32_t>(l.root_entries);
    g.total_sectors = total_sectors_;
    g.root_dir_sector = l.reserved_sectors + l.fat_sectors * g.nr_fats;
    g.data_sector = g.root_dir_sector + div_up(g.root_dir_bytes(), sector_bytes_);
    g.nr_clusters = static_cast<std::uint32_t>(l.clusters);
    g.volume_id = options_.volume_id;
    constexpr std::array<char, 11> kNoName = {'N', 'O', ' ', 'N', 'A', 'M',
                                              'E', ' ', ' ', ' ', ' '};
    g.label = options_.label.value_or(kNoName);
    if (g.type == FatType::kFat32) {
        g.root_cluster = kFirstCluster;
        g.fsinfo_sector = 1;
        TRY_VOID(choose_backup());
    }
    // BPB_HiddSec counts in the volume's sectors; the kernel tells starts in 512-byte ones.
    plan_.hidden_sectors =
        options_.hidden_sectors.value_or(device_.partition_start_sectors / (sector_bytes_ / 512));
    plan_.atari = options_.atari;
    plan_.mbr = options_.mbr && !options_.atari && options_.offset_sectors == 0;
    plan_.has_label = options_.label.has_value();
    plan_.label_time = options_.label_time;
    plan_.boot_message = options_.boot_message.value_or(std::string(kDefaultBootMessage));
    const std::size_t code_at = g.type == FatType::kFat32 ? offsetof(BootSector32, boot_code)
                                                          : offsetof(BootSector16, boot_code);
    const std::size_t room =
        (plan_.mbr ? kMbrOffset : kBootSectorBytes - 2) - code_at - kBootCode.size() - 1;
    if (!plan_.atari && plan_.boot_message.size() > room) {
        plan_.warnings.push_back(fmt::format("The boot message of {} bytes was cut to {}.",
                                             plan_.boot_message.size(), room));
        plan_.boot_message.resize(room);
    }
    return {};
}

// --- bytes

void put_boot_code(std::span<std::byte> sector, std::size_t at, const std::string& message) {
    std::array<std::uint8_t, kBootCode.size()> code = kBootCode;
    const std::uint32_t text_address =
        kBootLoadAddress + static_cast<std::uint32_t>(at + code.size());
    code.at(kBootCodeTextAddress) = static_cast<std::uint8_t>(text_address);
    code.at(kBootCodeTextAddress + 1) = static_cast<std::uint8_t>(text_address >> 8);
    std::memcpy(sector.subspan(at, code.size()).data(), code.data(), code.size());
    std::memcpy(sector.subspan(at + code.size(), message.size()).data(), message.data(),
                message.size());
}

struct MbrEntry {
    std::uint8_t active = 0x80;
    std::array<std::uint8_t, 3> first_chs{0x00, 0x01, 0x00};
    std::uint8_t type = 0;
    std::array<std::uint8_t, 3> last_chs{0xFE, 0xFF, 0xFF};
    Le32 first_sector;
    Le32 sectors;
};
static_assert(sizeof(MbrEntry) == 16);

void put_mbr(std::span<std::byte> sector, const FormatPlan& plan) {
    const Geometry& g = plan.geometry;
    MbrEntry entry;
    entry.type = g.type == FatType::kFat32   ? 0x0C
                 : g.type == FatType::kFat12 ? 0x01
                 : g.total_sectors < 65536   ? 0x04
                                             : 0x06;
    // One past the end, as mkfs.fat has it. Beyond cylinder 1023 CHS says "too far".
    const std::uint64_t track = g.total_sectors / plan.disk_geometry.sectors_per_track;
    const std::uint64_t cylinder = track / plan.disk_geometry.heads;
    if (cylinder < 1024) {
        entry.last_chs = {
            static_cast<std::uint8_t>(track % plan.disk_geometry.heads),
            static_cast<std::uint8_t>((g.total_sectors % plan.disk_geometry.sectors_per_track + 1) |
                                      ((cylinder >> 2) & 0xC0)),
            static_cast<std::uint8_t>(cylinder)};
    }
    entry.sectors.set(static_cast<std::uint32_t>(g.total_sectors));
    store(sector, Le32(g.volume_id), kMbrOffset);
    store(sector, entry, kMbrOffset + 6);
}

Bpb make_bpb(const FormatPlan& plan) {
    const Geometry& g = plan.geometry;
    Bpb bpb;
    bpb.bytes_per_sector.set(static_cast<std::uint16_t>(g.sector_bytes));
    bpb.sectors_per_cluster = static_cast<std::uint8_t>(g.sectors_per_cluster);
    bpb.reserved_sectors.set(static_cast<std::uint16_t>(g.reserved_sectors));
    bpb.nr_fats = static_cast<std::uint8_t>(g.nr_fats);
    bpb.root_entries.set(static_cast<std::uint16_t>(g.root_entries));
    if (g.total_sectors < 65536) {
        bpb.total_sectors_16.set(static_cast<std::uint16_t>(g.total_sectors));
    } else {
        bpb.total_sectors_32.set(static_cast<std::uint32_t>(g.total_sectors));
    }
    bpb.media = g.media;
    if (g.type != FatType::kFat32) {
        bpb.fat_sectors_16.set(static_cast<std::uint16_t>(g.fat_sectors));
    }
    bpb.sectors_per_track.set(plan.disk_geometry.sectors_per_track);
    bpb.nr_heads.set(plan.disk_geometry.heads);
    bpb.hidden_sectors.set(plan.hidden_sectors);
    if (plan.atari) {
        // A 68000 branch, six free bytes, and the serial number that GEMDOS uses to notice a
        // changed disk.
        bpb.jump = {0x60, 0x1C, static_cast<std::uint8_t>(kOemName[0])};
        std::memcpy(bpb.oem_name.data(), kOemName.data() + 1, 5);
        for (std::size_t i = 0; i < 3; ++i) {
            bpb.oem_name.at(5 + i) = static_cast<char>(g.volume_id >> (8 * i));
        }
    } else {
        bpb.jump = {0xEB, static_cast<std::uint8_t>(g.type == FatType::kFat32 ? 0x58 : 0x3C), 0x90};
        std::memcpy(bpb.oem_name.data(), kOemName.data(), bpb.oem_name.size());
    }
    return bpb;
}

BootExtension make_extension(const FormatPlan& plan) {
    const Geometry& g = plan.geometry;
    BootExtension extension;
    extension.drive = plan.drive;
    if (plan.atari) {
        return extension;
    }
    extension.signature = kExtendedBootSignature;
    extension.volume_id.set(g.volume_id);
    extension.label = g.label;
    const char* const text = g.type == FatType::kFat12   ? "FAT12   "
                             : g.type == FatType::kFat16 ? "FAT16   "
                                                         : "FAT32   ";
    std::memcpy(extension.type_text.data(), text, extension.type_text.size());
    return extension;
}

// --- the FAT

// The sectors of a FAT that are not all zeros.
class FatImage {
public:
    FatImage(FatType type, std::uint32_t sector_bytes) : type_(type), sector_bytes_(sector_bytes) {}

    void set(cluster_t cluster, std::uint32_t value) {
        if (type_ == FatType::kFat12) {
            const std::uint64_t at = cluster + cluster / 2;
            const bool odd = (cluster & 1U) != 0;
            put(at, odd ? 0x0F : 0x00, odd ? value << 4 : value);
            put(at + 1, odd ? 0x00 : 0xF0, odd ? value >> 4 : value >> 8);
            return;
        }
        const unsigned bytes = type_ == FatType::kFat16 ? 2 : 4;
        for (unsigned i = 0; i < bytes; ++i) {
            put(std::uint64_t{cluster} * bytes + i, 0, value >> (8 * i));
        }
    }

    const std::map<std::uint64_t, std::vector<std::byte>>& sectors() const {
        return sectors_;
    }

private:
    void put(std::uint64_t offset, std::uint8_t keep, std::uint32_t value) {
        std::vector<std::byte>& sector = sectors_[offset / sector_bytes_];
        sector.resize(sector_bytes_);
        std::byte& byte = sector[offset % sector_bytes_];
        byte = (byte & std::byte{keep}) | (static_cast<std::byte>(value) & ~std::byte{keep});
    }

    const FatType type_;
    const std::uint32_t sector_bytes_;
    std::map<std::uint64_t, std::vector<std::byte>> sectors_;
};

FatImage make_fat(const FormatPlan& plan) {
    const Geometry& g = plan.geometry;
    FatImage fat(g.type, g.sector_bytes);
    const std::uint32_t ones = g.type == FatType::kFat12   ? 0xFFF
                               : g.type == FatType::kFat16 ? 0xFFFF
                                                           : 0x0FFFFFFF;
    fat.set(0, (ones & ~0xFFU) | g.media);
    fat.set(1, ones);
    if (g.type == FatType::kFat32) {
        fat.set(g.root_cluster, plan.atari ? ones : ones & ~0x7U);
    }
    for (const cluster_t cluster : plan.bad_clusters) {
        fat.set(cluster, ones & ~0x8U);
    }
    return fat;
}

// Device access in pieces that keep a progress report moving.
constexpr std::uint64_t kZeroStepBytes = 64 * kMib;
constexpr std::size_t kZeroBufferBytes = 64 * kKib;

std::span<const std::byte> zero_buffer() {
    static constexpr std::array<std::byte, kZeroBufferBytes> kZeros{};
    return kZeros;
}

}  // namespace

DiskGeometry lba_assist_geometry(std::uint64_t sectors) {
    struct Row {
        std::uint64_t sectors_max;
        DiskGeometry geometry;
    };
    constexpr std::array<Row, 9> kRows = {{
        {4096, {2, 16}},
        {32768, {2, 32}},
        {65536, {4, 32}},
        {262144, {8, 32}},
        {524288, {16, 32}},
        {1032192, {16, 63}},
        {2064384, {32, 63}},
        {4128768, {64, 63}},
        {8257536, {128, 63}},
    }};
    for (const Row& row : kRows) {
        if (sectors <= row.sectors_max) {
            return row.geometry;
        }
    }
    return {255, 63};
}

Result<FormatPlan> plan_mkfs(const FormatOptions& options, const FormatDevice& device,
                             std::string& why) {
    return Planner(options, device, why).run();
}

Result<> mark_bad_blocks(FormatPlan& plan, std::span<const std::uint64_t> blocks,
                         std::string& why) {
    const Geometry& g = plan.geometry;
    for (const std::uint64_t block : blocks) {
        if (block >= g.volume_bytes() / kKib) {
            why = fmt::format("Bad block {} lies behind the end of the volume.", block);
            return Errno{EINVAL};
        }
        if (block * kKib / g.sector_bytes < g.data_sector) {
            why = fmt::format(
                "Bad block {} lies before the data area, so no volume can be made here.", block);
            return Errno{EINVAL};
        }
        const std::uint64_t first_byte = block * kKib - g.data_sector * g.sector_bytes;
        for (std::uint64_t at = first_byte; at < first_byte + kKib; at += 512) {
            const std::uint64_t cluster = (at >> g.cluster_shift) + kFirstCluster;
            if (cluster == g.root_cluster) {
                why = fmt::format(
                    "Bad block {} lies in the root directory, so no volume can be made here.",
                    block);
                return Errno{EINVAL};
            }
            if (cluster < std::uint64_t{g.nr_clusters} + kFirstCluster) {
                plan.bad_clusters.push_back(static_cast<cluster_t>(cluster));
            }
        }
    }
    std::ranges::sort(plan.bad_clusters);
    // Not std::ranges::unique: clang 14 cannot use libstdc++'s subrange.
    plan.bad_clusters.erase(std::unique(plan.bad_clusters.begin(), plan.bad_clusters.end()),
                            plan.bad_clusters.end());
    return {};
}

std::array<std::byte, kBootSectorBytes> make_boot_sector(const FormatPlan& plan) {
    const Geometry& g = plan.geometry;
    std::array<std::byte, kBootSectorBytes> sector{};
    store(std::span<std::byte>(sector), make_bpb(plan));
    const bool fat32 = g.type == FatType::kFat32;
    if (fat32) {
        Bpb32 bpb32;
        bpb32.fat_sectors_32.set(g.fat_sectors);
        bpb32.root_cluster.set(g.root_cluster);
        bpb32.fsinfo_sector.set(static_cast<std::uint16_t>(g.fsinfo_sector));
        bpb32.backup_boot_sector.set(static_cast<std::uint16_t>(g.backup_boot_sector));
        store(std::span<std::byte>(sector), bpb32, offsetof(BootSector32, bpb32));
    }
    store(std::span<std::byte>(sector), make_extension(plan),
          fat32 ? offsetof(BootSector32, extension) : offsetof(BootSector16, extension));
    if (plan.atari) {
        return sector;
    }
    put_boot_code(sector,
                  fat32 ? offsetof(BootSector32, boot_code) : offsetof(BootSector16, boot_code),
                  plan.boot_message);
    if (plan.mbr) {
        put_mbr(sector, plan);
    }
    store(std::span<std::byte>(sector), Le16(kBootSignature),
          offsetof(BootSector16, boot_signature));
    return sector;
}

std::array<std::byte, kBootSectorBytes> make_fsinfo_sector(const FormatPlan& plan) {
    FsInfoSector info;
    info.lead_signature.set(kFsInfoLeadSignature);
    info.struct_signature.set(kFsInfoStructSignature);
    info.free_count.set(plan.geometry.nr_clusters - 1 -
                        static_cast<std::uint32_t>(plan.bad_clusters.size()));
    info.next_free.set(kFirstCluster);
    info.trail_signature.set(kFsInfoTrailSignature);
    std::array<std::byte, kBootSectorBytes> sector{};
    store(std::span<std::byte>(sector), info);
    return sector;
}

namespace {

// Zeros by writing them, for a target that has no quicker way.
Result<> write_zeros(FormatTarget& target, std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    while (length_bytes > 0) {
        const auto piece =
            zero_buffer().first(std::min<std::uint64_t>(length_bytes, kZeroBufferBytes));
        TRY_VOID(target.write(offset_bytes, piece));
        offset_bytes += piece.size();
        length_bytes -= piece.size();
    }
    return {};
}

}  // namespace

Result<> FdFormatTarget::write(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const ssize_t written =
            pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset_bytes));
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return Errno{written < 0 ? errno : EIO};
        }
        bytes = bytes.subspan(static_cast<std::size_t>(written));
        offset_bytes += static_cast<std::uint64_t>(written);
    }
    return {};
}

Result<> FdFormatTarget::zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    if (contents_ == Contents::kZeros || length_bytes == 0) {
        return {};
    }
    if (can_punch_) {
        if (fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      static_cast<off_t>(offset_bytes), static_cast<off_t>(length_bytes)) == 0) {
            return {};
        }
        can_punch_ = false;
    }
    return write_zeros(*this, offset_bytes, length_bytes);
}

Result<> FdFormatTarget::flush() {
    // EINVAL: something that has no storage behind it.
    if (fsync(fd_) != 0 && errno != EINVAL) {
        return Errno{errno};
    }
    return {};
}

Result<> DeviceFormatTarget::write(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
    return cache::write_device(device_, offset_bytes, bytes);
}

Result<> DeviceFormatTarget::zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    return write_zeros(*this, offset_bytes, length_bytes);
}

Result<> DeviceFormatTarget::flush() {
    return device_.flush();
}

namespace {

class VolumeWriter {
public:
    VolumeWriter(FormatTarget& target, const FormatPlan& plan)
        : target_(target), plan_(plan), g_(plan.geometry) {}

    Result<> run(const FormatProgress& progress) {
        // F3: nothing of an older volume is believed any more, and nothing of the new one yet.
        TRY_VOID(target_.zero(plan_.offset_bytes, g_.fat_offset_bytes(0)));
        TRY_VOID(target_.flush());
        TRY_VOID(zero_tables(progress));
        TRY_VOID(write_fats());
        TRY_VOID(write_root());
        TRY_VOID(target_.flush());
        TRY_VOID(write_boot_sectors());
        return target_.flush();
    }

private:
    Result<> zero_tables(const FormatProgress& progress) {
        const std::uint64_t begin = g_.fat_offset_bytes(0);
        std::uint64_t end = g_.data_sector * g_.sector_bytes;
        if (g_.type == FatType::kFat32) {
            end += g_.cluster_bytes;  // the root: cluster 2
        }
        for (std::uint64_t at = begin; at < end;) {
            const std::uint64_t length = std::min(kZeroStepBytes, end - at);
            TRY_VOID(target_.zero(plan_.offset_bytes + at, length));
            at += length;
            if (progress) {
                progress(at - begin, end - begin);
            }
        }
        return {};
    }

    Result<> write_fats() {
        const FatImage fat = make_fat(plan_);
        for (std::uint32_t copy = 0; copy < g_.nr_fats; ++copy) {
            for (const auto& [sector, bytes] : fat.sectors()) {
                TRY_VOID(target_.write(
                    plan_.offset_bytes + g_.fat_offset_bytes(copy) + sector * g_.sector_bytes,
                    bytes));
            }
        }
        return {};
    }

    Result<> write_root() {
        if (!plan_.has_label) {
            return {};
        }
        ShortEntry entry;
        std::memcpy(entry.name.data(), g_.label.data(), entry.name.size());
        if (entry.name[0] == kDirEntryDeleted) {
            entry.name[0] = kDirEntryKanji;
        }
        entry.attr = kAttrVolumeId;
        entry.set_created({plan_.label_time.date, plan_.label_time.time, 0});
        entry.set_written(plan_.label_time);
        entry.set_accessed(plan_.label_time);
        const std::uint64_t at = g_.type == FatType::kFat32
                                     ? g_.cluster_offset_bytes(g_.root_cluster)
                                     : g_.root_dir_offset_bytes();
        return write_sector(at, std::as_bytes(std::span(&entry, 1)));
    }

    Result<> write_boot_sectors() {
        const auto boot = make_boot_sector(plan_);
        if (g_.type == FatType::kFat32) {
            const auto info = make_fsinfo_sector(plan_);
            TRY_VOID(write_sector(std::uint64_t{g_.fsinfo_sector} * g_.sector_bytes, info));
            const std::uint64_t backup = g_.backup_boot_sector;
            if (backup != 0) {
                TRY_VOID(write_sector(backup * g_.sector_bytes, boot));
            }
            if (backup != 0 && backup + 1 < g_.reserved_sectors) {
                TRY_VOID(write_sector((backup + 1) * g_.sector_bytes, info));
            }
        }
        return write_sector(0, boot);
    }

    // Fills the sector up with zeros: devices take whole sectors.
    Result<> write_sector(std::uint64_t at_bytes, std::span<const std::byte> bytes) {
        std::vector<std::byte> sector(g_.sector_bytes);
        std::ranges::copy(bytes, sector.begin());
        return target_.write(plan_.offset_bytes + at_bytes, sector);
    }

    FormatTarget& target_;
    const FormatPlan& plan_;
    const Geometry& g_;
};

}  // namespace

Result<> write_volume(FormatTarget& target, const FormatPlan& plan,
                      const FormatProgress& progress) {
    return VolumeWriter(target, plan).run(progress);
}

}  // namespace wbfat::fs::inline WBFAT_RT
