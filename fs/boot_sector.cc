// The checks that stand between a boot sector and a Geometry: one small validator a field.
#include "fs/boot_sector.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "fs/layout.h"

namespace wbfat::fs::inline WBFAT_RT {
namespace {

constexpr std::uint32_t kMinSectorBytes = 512;
constexpr std::uint32_t kMaxSectorBytes = 4096;
constexpr std::uint32_t kMaxFat12Clusters = 0xFF4;
constexpr std::uint32_t kMaxFat16Clusters = 0xFFF4;
constexpr std::uint32_t kMaxFat32Clusters = 0x0FFFFFF6;
constexpr std::uint16_t kNoSector = 0xFFFF;
// BS_BootSig 0x28: only the volume id follows, no label.
constexpr std::uint8_t kShortBootSignature = 0x28;

// Floppies formatted before DOS 2.0 had no BPB: the size tells everything.
// Source: Linux fs/fat/inode.c floppy_defaults.
struct FloppyDefaults {
    std::uint64_t nr_sectors;
    std::uint8_t sectors_per_cluster;
    std::uint16_t root_entries;
    std::uint8_t media;
    std::uint16_t fat_sectors;
};
constexpr std::array<FloppyDefaults, 4> kFloppies = {{
    {320, 1, 64, 0xFE, 1},   // 160 KiB, 1 side, 8 sectors
    {360, 1, 64, 0xFC, 2},   // 180 KiB, 1 side, 9 sectors
    {640, 2, 112, 0xFF, 1},  // 320 KiB, 2 sides, 8 sectors
    {720, 2, 112, 0xFD, 2},  // 360 KiB, 2 sides, 9 sectors
}};

std::string hex(std::uint32_t value) {
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    std::string text;
    do {
        text.insert(text.begin(), kDigits[value & 0xFU]);
        value >>= 4;
    } while (value != 0);
    return "0x" + text;
}

bool is_media_byte(std::uint8_t media) {
    return media == 0xF0 || media >= 0xF8;
}

// Checks one boot sector, field after field; the first that is wrong ends it.
//
// Arithmetic is in 64 bits and cannot overflow: 65535 reserved + 255 x 2^32 FAT + 4096 root sectors
// stay below 2^41, and times 4096 bytes below 2^53.
class Parser {
public:
    Parser(std::span<const std::byte> sector, std::uint64_t device_bytes,
           std::uint32_t device_block_bytes, std::string& why)
        : sector16_(load<BootSector16>(sector)),
          sector32_(load<BootSector32>(sector)),
          device_bytes_(device_bytes),
          device_block_bytes_(device_block_bytes),
          why_(why) {}

    // False: `why` was set.
    bool parse() {
        return check_system() && check_reserved_sectors() && check_nr_fats() && check_media() &&
               check_sector_bytes() && check_cluster_size() && check_fat_sectors() &&
               check_root_entries() && check_total_sectors() && compute_clusters() &&
               check_device_size() && check_fat32_fields() && read_extension();
    }

    // Replaces an empty BPB by the defaults of a DOS 1.x floppy. False: `why` was set.
    bool use_dos1x_defaults();

    BootSectorCheck take() {
        BootSectorCheck check{geometry_, std::move(warnings_), !read_only_reasons_.empty()};
        for (std::string& reason : read_only_reasons_) {
            check.warnings.push_back(std::move(reason));
        }
        return check;
    }

private:
    const Bpb& bpb() const {
        return sector16_.bpb;
    }
    bool refuse(std::string sentence) {
        why_ = std::move(sentence);
        return false;
    }
    // "the reserved sectors (BPB_RsvdSecCnt) are 0; they must be at least 1"
    bool refuse_field(const std::string& field, const std::string& found,
                      const std::string& right) {
        return refuse(field + " is " + found + "; it must be " + right);
    }
    void warn(std::string sentence) {
        warnings_.push_back(std::move(sentence));
    }
    void read_only(std::string sentence) {
        read_only_reasons_.push_back(std::move(sentence));
    }

    bool check_system();
    bool check_reserved_sectors();
    bool check_nr_fats();
    bool check_media();
    bool check_sector_bytes();
    bool check_cluster_size();
    bool check_fat_sectors();
    bool check_root_entries();
    bool check_total_sectors();
    bool compute_clusters();
    bool check_cluster_count(std::uint64_t nr_clusters);
    bool check_device_size();
    bool check_fat32_fields();
    void read_active_fat();
    void read_reserved_sector_numbers();
    bool read_extension();

    BootSector16 sector16_;
    BootSector32 sector32_;
    std::uint64_t device_bytes_;
    std::uint32_t device_block_bytes_;
    std::string& why_;

    Geometry geometry_;
    std::uint64_t root_sectors_ = 0;
    bool has_extension_ = true;
    std::vector<std::string> warnings_;
    std::vector<std::string> read_only_reasons_;
};

// Two neighbours whose boot sectors look alike get their own sentence.
bool Parser::check_system() {
    const std::string_view oem(bpb().oem_name.data(), bpb().oem_name.size());
    if (oem == "EXFAT   ") {
        return refuse(
            "the OEM name (BS_OEMName) is \"EXFAT\"; this is an exFAT volume, not FAT12, FAT16 or "
            "FAT32");
    }
    if (oem == "NTFS    ") {
        return refuse(
            "the OEM name (BS_OEMName) is \"NTFS\"; this is an NTFS volume, not FAT12, FAT16 or "
            "FAT32");
    }
    if (sector16_.boot_signature.get() != kBootSignature) {
        warn("the boot sector's last word (Signature_word) is " +
             hex(sector16_.boot_signature.get()) + "; it should be 0xAA55");
    }
    return true;
}

bool Parser::check_reserved_sectors() {
    geometry_.reserved_sectors = bpb().reserved_sectors.get();
    return geometry_.reserved_sectors != 0 ||
           refuse_field("the number of reserved sectors (BPB_RsvdSecCnt)", "0", "at least 1");
}

bool Parser::check_nr_fats() {
    geometry_.nr_fats = bpb().nr_fats;
    return geometry_.nr_fats != 0 ||
           refuse_field("the number of FATs (BPB_NumFATs)", "0", "at least 1, usually 2");
}

bool Parser::check_media() {
    geometry_.media = bpb().media;
    return is_media_byte(bpb().media) ||
           refuse_field("the media byte (BPB_Media)", hex(bpb().media), "0xF0 or 0xF8 to 0xFF");
}

bool Parser::check_sector_bytes() {
    const std::uint32_t bytes = bpb().bytes_per_sector.get();
    const std::string field = "the sector size (BPB_BytsPerSec)";
    if (!std::has_single_bit(bytes) || bytes < kMinSectorBytes || bytes > kMaxSectorBytes) {
        return refuse_field(field, std::to_string(bytes), "512, 1024, 2048 or 4096");
    }
    if (bytes < device_block_bytes_) {
        return refuse_field(
            field, std::to_string(bytes),
            "at least the block size of the device, " + std::to_string(device_block_bytes_));
    }
    geometry_.sector_bytes = bytes;
    return true;
}

bool Parser::check_cluster_size() {
    const std::uint32_t sectors = bpb().sectors_per_cluster;
    if (!std::has_single_bit(sectors)) {
        return refuse_field("the number of sectors per cluster (BPB_SecPerClus)",
                            std::to_string(sectors), "a power of two from 1 to 128");
    }
    geometry_.sectors_per_cluster = sectors;
    geometry_.cluster_bytes = sectors * geometry_.sector_bytes;
    geometry_.cluster_shift = static_cast<unsigned>(std::countr_zero(geometry_.cluster_bytes));
    return true;
}

// FATSz16 alone decides whether the volume is FAT32, as in Linux.
bool Parser::check_fat_sectors() {
    geometry_.fat_sectors = bpb().fat_sectors_16.get();
    if (geometry_.fat_sectors == 0) {
        geometry_.type = FatType::kFat32;
        geometry_.fat_sectors = sector32_.bpb32.fat_sectors_32.get();
    }
    return geometry_.fat_sectors != 0 ||
           refuse_field("the size of a FAT (BPB_FATSz16 and BPB_FATSz32)", "0",
                        "at least 1 sector");
}

bool Parser::check_root_entries() {
    const std::uint32_t entries = bpb().root_entries.get();
    const auto per_sector = geometry_.sector_bytes / static_cast<std::uint32_t>(kDirEntryBytes);
    const std::string field = "the number of root directory entries (BPB_RootEntCnt)";
    if (entries % per_sector != 0) {
        return refuse_field(field, std::to_string(entries),
                            "a multiple of " + std::to_string(per_sector));
    }
    root_sectors_ = entries / per_sector;
    if (geometry_.type == FatType::kFat32) {
        // Linux and fsck.fat leave room for it all the same: so the data starts there.
        if (entries != 0) {
            warn(field + " is " + std::to_string(entries) + "; it should be 0 on FAT32");
        }
        return true;
    }
    geometry_.root_entries = entries;
    return entries != 0 ||
           refuse_field(field, "0",
                        "at least " + std::to_string(per_sector) + " on FAT12 and FAT16");
}

bool Parser::check_total_sectors() {
    geometry_.total_sectors = bpb().total_sectors_16.get();
    if (geometry_.total_sectors == 0) {
        geometry_.total_sectors = bpb().total_sectors_32.get();
    }
    geometry_.root_dir_sector =
        geometry_.reserved_sectors + std::uint64_t{geometry_.nr_fats} * geometry_.fat_sectors;
    geometry_.data_sector = geometry_.root_dir_sector + root_sectors_;
    const std::string field = "the number of sectors of the volume (BPB_TotSec16 and BPB_TotSec32)";
    const std::uint64_t smallest = geometry_.data_sector + geometry_.sectors_per_cluster;
    return geometry_.total_sectors >= smallest ||
           refuse_field(field, std::to_string(geometry_.total_sectors),
                        "at least " + std::to_string(smallest) +
                            " to hold the FATs, the root directory and one cluster");
}

bool Parser::compute_clusters() {
    const std::uint64_t data_sectors = geometry_.total_sectors - geometry_.data_sector;
    const std::uint64_t nr_clusters = data_sectors / geometry_.sectors_per_cluster;
    if (geometry_.type != FatType::kFat32) {
        geometry_.type = nr_clusters > kMaxFat12Clusters ? FatType::kFat16 : FatType::kFat12;
    }
    const std::uint64_t fat_bits =
        std::uint64_t{geometry_.fat_sectors} * geometry_.sector_bytes * 8;
    const std::uint64_t fat_entries = fat_bits / static_cast<unsigned>(geometry_.type);
    if (fat_entries <= kFirstCluster) {
        return refuse_field("the size of a FAT (BPB_FATSz16 and BPB_FATSz32)",
                            std::to_string(geometry_.fat_sectors), "large enough for one cluster");
    }
    const std::uint64_t described = std::min(nr_clusters, fat_entries - kFirstCluster);
    if (described < nr_clusters) {
        warn("the FAT (BPB_FATSz16 and BPB_FATSz32) has room for " + std::to_string(described) +
             " clusters only; the other " + std::to_string(nr_clusters - described) +
             " of the volume are not used");
    }
    return check_cluster_count(described);
}

bool Parser::check_cluster_count(std::uint64_t nr_clusters) {
    const std::uint64_t most = geometry_.type == FatType::kFat32   ? kMaxFat32Clusters
                               : geometry_.type == FatType::kFat16 ? kMaxFat16Clusters
                                                                   : kMaxFat12Clusters;
    if (nr_clusters > most) {
        return refuse_field("the number of clusters (from BPB_TotSec and BPB_SecPerClus)",
                            std::to_string(nr_clusters),
                            "at most " + std::to_string(most) + " on FAT" +
                                std::to_string(static_cast<unsigned>(geometry_.type)));
    }
    geometry_.nr_clusters = static_cast<std::uint32_t>(nr_clusters);
    return true;
}

bool Parser::check_device_size() {
    const std::uint64_t metadata_bytes = geometry_.data_sector * geometry_.sector_bytes;
    if (device_bytes_ < metadata_bytes) {
        return refuse("the device has " + std::to_string(device_bytes_) +
                      " bytes; the FATs and the root directory alone"
                      " (BPB_RsvdSecCnt, BPB_NumFATs, BPB_FATSz) need " +
                      std::to_string(metadata_bytes));
    }
    if (device_bytes_ < geometry_.volume_bytes()) {
        read_only("the volume (BPB_TotSec16 and BPB_TotSec32) has " +
                  std::to_string(geometry_.volume_bytes()) + " bytes, but the device only " +
                  std::to_string(device_bytes_) + "; mounted read-only");
    }
    return true;
}

bool Parser::check_fat32_fields() {
    if (geometry_.type != FatType::kFat32) {
        return true;
    }
    geometry_.root_cluster = sector32_.bpb32.root_cluster.get();
    if (!geometry_.is_data_cluster(geometry_.root_cluster)) {
        return refuse_field(
            "the first cluster of the root directory (BPB_RootClus)",
            std::to_string(geometry_.root_cluster),
            "from 2 to " + std::to_string(std::uint64_t{geometry_.nr_clusters} + 1));
    }
    if (sector32_.bpb32.version.get() != 0) {
        read_only("the version of the volume (BPB_FSVer) is " + hex(sector32_.bpb32.version.get()) +
                  "; only 0 is known; mounted read-only");
    }
    read_active_fat();
    read_reserved_sector_numbers();
    return true;
}

// Differs: Linux ignores BPB_ExtFlags, always reads FAT 0 and writes them all.
void Parser::read_active_fat() {
    const std::uint16_t flags = sector32_.bpb32.ext_flags.get();
    if ((flags & kExtFlagsNoMirroring) == 0) {
        return;
    }
    geometry_.mirroring = false;
    const std::uint32_t active = flags & kExtFlagsActiveFat;
    if (active < geometry_.nr_fats) {
        geometry_.active_fat = active;
        return;
    }
    read_only("the active FAT (BPB_ExtFlags) is " + std::to_string(active) + "; there are only " +
              std::to_string(geometry_.nr_fats) + "; mounted read-only from FAT 0");
}

void Parser::read_reserved_sector_numbers() {
    // 0 means 1 to Linux, and harmlessly so: FSINFO counts only with its three signatures.
    const std::uint16_t raw_fsinfo = sector32_.bpb32.fsinfo_sector.get();
    const std::uint32_t fsinfo = raw_fsinfo == 0 ? 1 : raw_fsinfo;
    if (fsinfo < geometry_.reserved_sectors) {
        geometry_.fsinfo_sector = fsinfo;
    } else if (raw_fsinfo != 0 && raw_fsinfo != kNoSector) {
        warn("the FSINFO sector (BPB_FSInfo) is " + std::to_string(raw_fsinfo) +
             "; it should be below " + std::to_string(geometry_.reserved_sectors) +
             ", the number of reserved sectors; FSINFO is not used");
    }
    const std::uint16_t backup = sector32_.bpb32.backup_boot_sector.get();
    if (backup == 0 || backup == kNoSector) {
        return;
    }
    if (backup < geometry_.reserved_sectors && backup != geometry_.fsinfo_sector) {
        geometry_.backup_boot_sector = backup;
    } else {
        warn("the backup boot sector (BPB_BkBootSec) is " + std::to_string(backup) +
             "; it should be a reserved sector"
             " of its own, below " +
             std::to_string(geometry_.reserved_sectors) + "; there is no backup");
    }
}

bool Parser::read_extension() {
    const BootExtension& extension =
        geometry_.type == FatType::kFat32 ? sector32_.extension : sector16_.extension;
    const bool has_id =
        extension.signature == kExtendedBootSignature || extension.signature == kShortBootSignature;
    geometry_.label.fill(' ');
    geometry_.has_extended_boot = has_extension_ && (has_id || geometry_.type == FatType::kFat32);
    if (!geometry_.has_extended_boot) {
        return true;
    }
    geometry_.state = extension.state;
    if (has_id) {
        geometry_.volume_id = extension.volume_id.get();
    }
    if (extension.signature == kExtendedBootSignature) {
        geometry_.label = extension.label;
    }
    return true;
}

bool Parser::use_dos1x_defaults() {
    const Bpb& b = bpb();
    const bool jumps = b.jump[0] == 0xEB && b.jump[2] == 0x90;
    const bool empty = b.bytes_per_sector.get() == 0 && b.sectors_per_cluster == 0 &&
                       b.reserved_sectors.get() == 0 && b.nr_fats == 0 &&
                       b.root_entries.get() == 0 && b.total_sectors_16.get() == 0 && b.media == 0 &&
                       b.fat_sectors_16.get() == 0 && b.sectors_per_track.get() == 0 &&
                       b.nr_heads.get() == 0;
    if (!jumps || !empty) {
        return refuse(
            why_ +
            "; and it is no DOS 1.x floppy: its boot sector starts with EB xx 90 and has no BPB");
    }
    const auto* const floppy =
        std::find_if(kFloppies.begin(), kFloppies.end(), [this](const FloppyDefaults& known) {
            return known.nr_sectors * kMinSectorBytes == device_bytes_;
        });
    if (floppy == kFloppies.end()) {
        return refuse("the device has " + std::to_string(device_bytes_) +
                      " bytes; a DOS 1.x floppy without a BPB has 160, 180, 320 or 360 KiB");
    }
    sector16_.bpb.bytes_per_sector.set(kMinSectorBytes);
    sector16_.bpb.sectors_per_cluster = floppy->sectors_per_cluster;
    sector16_.bpb.reserved_sectors.set(1);
    sector16_.bpb.nr_fats = 2;
    sector16_.bpb.root_entries.set(floppy->root_entries);
    sector16_.bpb.total_sectors_16.set(static_cast<std::uint16_t>(floppy->nr_sectors));
    sector16_.bpb.media = floppy->media;
    sector16_.bpb.fat_sectors_16.set(floppy->fat_sectors);
    sector16_.boot_signature.set(kBootSignature);  // not theirs to have
    has_extension_ = false;
    warnings_.clear();
    return true;
}

// --- the device
// ------------------------------------------------------------------------------------------------------------

using SectorBytes = std::array<std::byte, kBootSectorBytes>;

// 512 bytes at any multiple of 512, read in whole blocks of the device.
Result<SectorBytes> read_512(cache::BlockDevice& device, std::uint64_t offset_bytes) {
    const std::uint64_t block =
        std::max<std::uint64_t>(device.geometry().logical_block_bytes, kBootSectorBytes);
    const std::uint64_t start = offset_bytes / block * block;
    std::vector<std::byte> buffer(block);
    TRY_VOID(cache::read_device(device, start, buffer));
    SectorBytes bytes{};
    std::memcpy(bytes.data(), buffer.data() + (offset_bytes - start), bytes.size());
    return bytes;
}

std::optional<BootSectorCheck> parse_quietly(std::span<const std::byte> sector,
                                             cache::BlockDevice& device) {
    std::string ignored;
    Result<BootSectorCheck> check =
        parse_boot_sector(sector, device.geometry().size_bytes,
                          device.geometry().logical_block_bytes, false, ignored);
    if (!check.has_value()) {
        return std::nullopt;
    }
    return std::move(*check);
}

// A FAT32 boot sector at number 6, whatever the sector size, that calls itself so.
std::optional<BootSectorCheck> find_backup(cache::BlockDevice& device) {
    for (std::uint32_t bytes = kMinSectorBytes; bytes <= kMaxSectorBytes; bytes *= 2) {
        const std::uint64_t offset = std::uint64_t{bytes} * kDefaultBackupBootSector;
        if (offset + bytes > device.geometry().size_bytes) {
            continue;
        }
        const Result<SectorBytes> sector = read_512(device, offset);
        if (!sector.has_value() ||
            load<BootSector32>(*sector).boot_signature.get() != kBootSignature) {
            continue;
        }
        std::optional<BootSectorCheck> check = parse_quietly(*sector, device);
        if (check.has_value() && check->geometry.type == FatType::kFat32 &&
            check->geometry.sector_bytes == bytes &&
            check->geometry.backup_boot_sector == kDefaultBackupBootSector) {
            return check;
        }
    }
    return std::nullopt;
}

void add_warning(BootSectorCheck& check, std::string sentence) {
    // The reason for being read-only stays the last one.
    check.warnings.insert(check.must_be_read_only ? check.warnings.end() - 1 : check.warnings.end(),
                          std::move(sentence));
}

void make_read_only(BootSectorCheck& check, std::string_view reason) {
    check.must_be_read_only = true;
    check.warnings.emplace_back(reason);
}

bool describe_same_volume(const Geometry& a, const Geometry& b) {
    return a.type == b.type && a.sector_bytes == b.sector_bytes &&
           a.cluster_bytes == b.cluster_bytes && a.reserved_sectors == b.reserved_sectors &&
           a.nr_fats == b.nr_fats && a.fat_sectors == b.fat_sectors &&
           a.total_sectors == b.total_sectors && a.root_cluster == b.root_cluster;
}

// A backup that is a boot sector, but of another volume, means that one of the two is wrong.
void compare_with_backup(BootSectorCheck& check, cache::BlockDevice& device) {
    if (check.geometry.backup_boot_sector == 0) {
        return;
    }
    const Result<SectorBytes> sector = read_512(
        device, std::uint64_t{check.geometry.backup_boot_sector} * check.geometry.sector_bytes);
    if (!sector.has_value()) {
        add_warning(check, "the backup boot sector (BPB_BkBootSec) cannot be read");
        return;
    }
    const std::optional<BootSectorCheck> backup = parse_quietly(*sector, device);
    if (!backup.has_value()) {
        add_warning(check,
                    "the backup boot sector (BPB_BkBootSec) is no boot sector; fsck can repair it");
    } else if (!describe_same_volume(check.geometry, backup->geometry)) {
        make_read_only(
            check,
            "the boot sector and its backup (BPB_BkBootSec) describe different volumes, so one of"
            " them is wrong; mounted read-only");
    }
}

// FAT[0] holds the media byte. It is often wrong in the field, so it is only told.
void compare_with_fats(BootSectorCheck& check, cache::BlockDevice& device) {
    const Geometry& geometry = check.geometry;
    const Result<SectorBytes> active =
        read_512(device, geometry.fat_offset_bytes(geometry.active_fat));
    if (!active.has_value()) {
        add_warning(check, "the first sector of the FAT cannot be read");
        return;
    }
    if (std::to_integer<std::uint8_t>((*active)[0]) != geometry.media) {
        add_warning(check, "the first entry of the FAT is for media " +
                               hex(std::to_integer<std::uint32_t>((*active)[0])) +
                               ", but the media byte (BPB_Media) is " + hex(geometry.media) +
                               "; fsck can repair it");
    }
    if (!geometry.mirroring || geometry.nr_fats < 2) {
        return;
    }
    const Result<SectorBytes> second = read_512(device, geometry.fat_offset_bytes(1));
    if (second.has_value() && *second != *active) {
        add_warning(check, "the two FATs differ; the first is believed; fsck can repair it");
    }
}

Result<BootSectorCheck> check_first_sector(const Result<SectorBytes>& sector,
                                           cache::BlockDevice& device, bool dos1xfloppy,
                                           std::string& why) {
    if (!sector.has_value()) {
        why = "the boot sector cannot be read";
        return sector.error();
    }
    const cache::DeviceGeometry& on = device.geometry();
    return parse_boot_sector(*sector, on.size_bytes, on.logical_block_bytes, dos1xfloppy, why);
}

}  // namespace

Result<BootSectorCheck> parse_boot_sector(std::span<const std::byte> sector,
                                          std::uint64_t device_bytes,
                                          std::uint32_t device_block_bytes, bool dos1xfloppy,
                                          std::string& why) {
    if (sector.size() < kBootSectorBytes || device_bytes < kBootSectorBytes) {
        why = "the device has " +
              std::to_string(std::min<std::uint64_t>(device_bytes, sector.size())) +
              " bytes; a boot sector alone needs 512";
        return Errno{EINVAL};
    }
    Parser parser(sector, device_bytes, device_block_bytes, why);
    if (parser.parse()) {
        return parser.take();
    }
    if (!dos1xfloppy) {
        return Errno{EINVAL};
    }
    Parser floppy(sector, device_bytes, device_block_bytes, why);
    if (!floppy.use_dos1x_defaults() || !floppy.parse()) {
        return Errno{EINVAL};
    }
    return floppy.take();
}

Result<BootSectorCheck> read_boot_sector(cache::BlockDevice& device, bool dos1xfloppy,
                                         std::string& why) {
    const cache::DeviceGeometry& on = device.geometry();
    if (on.size_bytes < std::max<std::uint64_t>(on.logical_block_bytes, kBootSectorBytes)) {
        why = "the device has " + std::to_string(on.size_bytes) +
              " bytes; a boot sector alone needs 512";
        return Errno{EINVAL};
    }
    const Result<SectorBytes> sector = read_512(device, 0);
    Result<BootSectorCheck> first = check_first_sector(sector, device, dos1xfloppy, why);
    if (first.has_value()) {
        compare_with_backup(*first, device);
        compare_with_fats(*first, device);
        return first;
    }
    // Another filesystem's boot sector is in order as it is, even if an old backup of ours still
    // lies behind it.
    const bool is_foreign = sector.has_value() && why.find("(BS_OEMName)") != std::string::npos;
    std::optional<BootSectorCheck> backup = is_foreign ? std::nullopt : find_backup(device);
    if (!backup.has_value()) {
        return first.error();
    }
    make_read_only(*backup,
                   why + "; its backup at sector 6 is used, and the volume mounted read-only");
    compare_with_fats(*backup, device);
    return std::move(*backup);
}

FsInfo parse_fsinfo(std::span<const std::byte> sector, const Geometry& geometry) {
    FsInfo info;
    if (sector.size() < sizeof(FsInfoSector)) {
        return info;
    }
    const auto raw = load<FsInfoSector>(sector);
    info.valid = raw.lead_signature.get() == kFsInfoLeadSignature &&
                 raw.struct_signature.get() == kFsInfoStructSignature &&
                 raw.trail_signature.get() == kFsInfoTrailSignature;
    if (!info.valid) {
        return info;
    }
    if (raw.free_count.get() <= geometry.nr_clusters) {
        info.free_clusters = raw.free_count.get();
    }
    if (geometry.is_data_cluster(raw.next_free.get())) {
        info.next_free = raw.next_free.get();
    }
    return info;
}

}  // namespace wbfat::fs::inline WBFAT_RT
