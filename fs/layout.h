// What is on the disk, and nothing else: the structures of a FAT volume, byte for byte.
//
// Every structure has alignment 1 and is made of bytes and little-endian wrappers, so it may be
// overlaid on any byte of a page, on any machine. The names in the comments are those of
// Microsoft's FAT specification; FORMAT.md draws them.
//
// The attribute bits are kAttr* and not ATTR_*, because <linux/msdos_fs.h> defines macros of those
// names.
//
// Source: Microsoft FAT32 File System Specification 1.03; fat.md 7.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "fs/geometry.h"

namespace wbfat::fs::inline WBFAT_RT {

// Little-endian numbers of the disk. Plain bytes: no alignment, no host byte order.
struct Le16 {
    std::array<std::uint8_t, 2> bytes{};

    constexpr Le16() = default;
    constexpr explicit Le16(std::uint16_t value) {
        set(value);
    }
    [[nodiscard]] constexpr std::uint16_t get() const {
        return static_cast<std::uint16_t>(bytes[0] | (bytes[1] << 8));
    }
    constexpr void set(std::uint16_t value) {
        bytes[0] = static_cast<std::uint8_t>(value);
        bytes[1] = static_cast<std::uint8_t>(value >> 8);
    }
    friend constexpr bool operator==(const Le16&, const Le16&) = default;
};

struct Le32 {
    std::array<std::uint8_t, 4> bytes{};

    constexpr Le32() = default;
    constexpr explicit Le32(std::uint32_t value) {
        set(value);
    }
    [[nodiscard]] constexpr std::uint32_t get() const {
        return bytes[0] | (std::uint32_t{bytes[1]} << 8) | (std::uint32_t{bytes[2]} << 16) |
               (std::uint32_t{bytes[3]} << 24);
    }
    constexpr void set(std::uint32_t value) {
        bytes[0] = static_cast<std::uint8_t>(value);
        bytes[1] = static_cast<std::uint8_t>(value >> 8);
        bytes[2] = static_cast<std::uint8_t>(value >> 16);
        bytes[3] = static_cast<std::uint8_t>(value >> 24);
    }
    friend constexpr bool operator==(const Le32&, const Le32&) = default;
};

// --- the boot sector
// -----------------------------------------------------------------------------------------------

// The part all FAT types share. Source: BPB, offsets 0 .. 35.
struct Bpb {
    std::array<std::uint8_t, 3> jump{};    // BS_jmpBoot: EB xx 90 or E9 xx xx
    std::array<char, 8> oem_name{};        // BS_OEMName
    Le16 bytes_per_sector;                 // BPB_BytsPerSec
    std::uint8_t sectors_per_cluster = 0;  // BPB_SecPerClus
    Le16 reserved_sectors;                 // BPB_RsvdSecCnt
    std::uint8_t nr_fats = 0;              // BPB_NumFATs
    Le16 root_entries;                     // BPB_RootEntCnt; 0 on FAT32
    Le16 total_sectors_16;                 // BPB_TotSec16; 0: look at the 32-bit one
    std::uint8_t media = 0;                // BPB_Media
    Le16 fat_sectors_16;                   // BPB_FATSz16; 0 means FAT32
    Le16 sectors_per_track;                // BPB_SecPerTrk
    Le16 nr_heads;                         // BPB_NumHeads
    Le32 hidden_sectors;                   // BPB_HiddSec
    Le32 total_sectors_32;                 // BPB_TotSec32
};

// What follows: at 36 on FAT12/16, at 64 on FAT32.
struct BootExtension {
    std::uint8_t drive = 0;           // BS_DrvNum
    std::uint8_t state = 0;           // BS_Reserved1: kState* bits
    std::uint8_t signature = 0;       // BS_BootSig: 0x29 means that the next three fields exist
    Le32 volume_id;                   // BS_VolID
    std::array<char, 11> label{};     // BS_VolLab
    std::array<char, 8> type_text{};  // BS_FilSysType: never trusted
};

// FAT32 only, offsets 36 .. 63.
struct Bpb32 {
    Le32 fat_sectors_32;                      // BPB_FATSz32
    Le16 ext_flags;                           // BPB_ExtFlags: kExtFlags* bits
    Le16 version;                             // BPB_FSVer: 0
    Le32 root_cluster;                        // BPB_RootClus
    Le16 fsinfo_sector;                       // BPB_FSInfo
    Le16 backup_boot_sector;                  // BPB_BkBootSec
    std::array<std::uint8_t, 12> reserved{};  // BPB_Reserved
};

struct BootSector16 {
    Bpb bpb;
    BootExtension extension;
    std::array<std::uint8_t, 448> boot_code{};
    Le16 boot_signature;  // Signature_word: 0xAA55 at 510, whatever the sector size
};

struct BootSector32 {
    Bpb bpb;
    Bpb32 bpb32;
    BootExtension extension;
    std::array<std::uint8_t, 420> boot_code{};
    Le16 boot_signature;
};

inline constexpr std::size_t kBootSectorBytes = 512;
inline constexpr std::uint16_t kBootSignature = 0xAA55;       // Signature_word
inline constexpr std::uint8_t kExtendedBootSignature = 0x29;  // BS_BootSig
inline constexpr std::uint8_t kStateDirty = 0x01;             // BS_Reserved1: not cleanly unmounted
inline constexpr std::uint8_t kStateSurfaceScan = 0x02;       // BS_Reserved1: surface scan wanted
inline constexpr std::uint16_t kExtFlagsActiveFat = 0x000F;   // BPB_ExtFlags bits 0-3
inline constexpr std::uint16_t kExtFlagsNoMirroring = 0x0080;  // BPB_ExtFlags bit 7
inline constexpr std::uint32_t kDefaultBackupBootSector =
    6;  // where a backup is looked for without a BPB

// --- FSINFO
// ----------------------------------------------------------------------------------------------------------

struct FsInfoSector {
    Le32 lead_signature;                        // FSI_LeadSig
    std::array<std::uint8_t, 480> reserved1{};  // FSI_Reserved1: preserved
    Le32 struct_signature;                      // FSI_StrucSig
    Le32 free_count;                            // FSI_Free_Count
    Le32 next_free;                             // FSI_Nxt_Free
    std::array<std::uint8_t, 12> reserved2{};   // FSI_Reserved2: preserved
    Le32 trail_signature;                       // FSI_TrailSig
};

inline constexpr std::uint32_t kFsInfoLeadSignature = 0x41615252;    // "RRaA"
inline constexpr std::uint32_t kFsInfoStructSignature = 0x61417272;  // "rrAa"
inline constexpr std::uint32_t kFsInfoTrailSignature = 0xAA550000;
inline constexpr std::uint32_t kFsInfoUnknown = 0xFFFFFFFF;

// --- directories
// -----------------------------------------------------------------------------------------------------

inline constexpr std::size_t kDirEntryBytes = 32;
inline constexpr std::size_t kShortNameBytes = 11;
inline constexpr std::uint32_t kMaxDirEntries = 65536;  // 2 MiB

inline constexpr std::uint8_t kDirEntryEnd =
    0x00;  // DIR_Name[0]: this slot and all after it are free
inline constexpr std::uint8_t kDirEntryDeleted = 0xE5;  // DIR_Name[0]: free
inline constexpr std::uint8_t kDirEntryKanji = 0x05;    // DIR_Name[0]: stands for a real 0xE5

inline constexpr std::uint8_t kAttrReadOnly = 0x01;   // ATTR_READ_ONLY
inline constexpr std::uint8_t kAttrHidden = 0x02;     // ATTR_HIDDEN
inline constexpr std::uint8_t kAttrSystem = 0x04;     // ATTR_SYSTEM
inline constexpr std::uint8_t kAttrVolumeId = 0x08;   // ATTR_VOLUME_ID
inline constexpr std::uint8_t kAttrDirectory = 0x10;  // ATTR_DIRECTORY
inline constexpr std::uint8_t kAttrArchive = 0x20;    // ATTR_ARCHIVE
inline constexpr std::uint8_t kAttrLongName = 0x0F;   // ATTR_LONG_NAME
inline constexpr std::uint8_t kAttrMask = 0x3F;       // ATTR_LONG_NAME_MASK

inline constexpr std::uint8_t kNtLowerBase = 0x08;       // DIR_NTRes: base shown in lower case
inline constexpr std::uint8_t kNtLowerExtension = 0x10;  // DIR_NTRes: extension shown in lower case
inline constexpr std::uint8_t kNtCaseMask = 0x18;  // the other bits are Windows' and are preserved

// As on the disk. `centisecs` 0..199 adds up to 1.99 s to `time`'s two-second steps (creation
// only).
struct FatTimestamp {
    std::uint16_t date = 0;  // bits 0-4 day, 5-8 month, 9-15 years since 1980
    std::uint16_t time = 0;  // bits 0-4 seconds / 2, 5-10 minutes, 11-15 hours
    std::uint8_t centisecs = 0;
    friend constexpr bool operator==(const FatTimestamp&, const FatTimestamp&) = default;
};

// A file, a directory or the volume label.
struct ShortEntry {
    std::array<std::uint8_t, kShortNameBytes> name{};  // DIR_Name
    std::uint8_t attr = 0;                             // DIR_Attr
    std::uint8_t nt_reserved = 0;       // DIR_NTRes: kNt* bits, the rest is preserved
    std::uint8_t create_centisecs = 0;  // DIR_CrtTimeTenth: 0..199
    Le16 create_time;                   // DIR_CrtTime
    Le16 create_date;                   // DIR_CrtDate
    Le16 access_date;                   // DIR_LstAccDate
    Le16 first_cluster_high;            // DIR_FstClusHI: FAT32 only, elsewhere not ours
    Le16 write_time;                    // DIR_WrtTime
    Le16 write_date;                    // DIR_WrtDate
    Le16 first_cluster_low;             // DIR_FstClusLO
    Le32 size;                          // DIR_FileSize: 0 for directories

    [[nodiscard]] constexpr bool is_end() const {
        return name[0] == kDirEntryEnd;
    }
    // True for the end mark too: nothing lives here.
    [[nodiscard]] constexpr bool is_free() const {
        return name[0] == kDirEntryEnd || name[0] == kDirEntryDeleted;
    }
    [[nodiscard]] constexpr bool is_long_slot() const {
        return (attr & kAttrMask) == kAttrLongName;
    }
    [[nodiscard]] constexpr bool is_volume_label() const {
        return !is_long_slot() && (attr & kAttrVolumeId) != 0;
    }
    [[nodiscard]] constexpr bool is_directory() const {
        return (attr & kAttrDirectory) != 0;
    }
    [[nodiscard]] constexpr bool is_dot() const {
        return is_dots(1);
    }
    [[nodiscard]] constexpr bool is_dotdot() const {
        return is_dots(2);
    }

    // 0: no clusters. Not checked against the volume: the disk may say anything.
    [[nodiscard]] constexpr cluster_t first_cluster(FatType type) const {
        const cluster_t high = type == FatType::kFat32 ? first_cluster_high.get() : 0U;
        return (high << 16) | first_cluster_low.get();
    }
    constexpr void set_first_cluster(FatType type, cluster_t cluster) {
        first_cluster_low.set(static_cast<std::uint16_t>(cluster));
        // On FAT12 and FAT16 the upper half belongs to OS/2 (extended attributes): left alone.
        if (type == FatType::kFat32) {
            first_cluster_high.set(static_cast<std::uint16_t>(cluster >> 16));
        }
    }

    [[nodiscard]] constexpr FatTimestamp created() const {
        return {create_date.get(), create_time.get(), create_centisecs};
    }
    [[nodiscard]] constexpr FatTimestamp written() const {
        return {write_date.get(), write_time.get(), 0};
    }
    [[nodiscard]] constexpr FatTimestamp accessed() const {
        return {access_date.get(), 0, 0};
    }
    constexpr void set_created(const FatTimestamp& stamp) {
        create_date.set(stamp.date);
        create_time.set(stamp.time);
        create_centisecs = stamp.centisecs;
    }
    constexpr void set_written(const FatTimestamp& stamp) {
        write_date.set(stamp.date);
        write_time.set(stamp.time);
    }
    constexpr void set_accessed(const FatTimestamp& stamp) {
        access_date.set(stamp.date);
    }

private:
    [[nodiscard]] constexpr bool is_dots(std::size_t count) const {
        for (std::size_t i = 0; i < name.size(); ++i) {
            if (name.at(i) != static_cast<std::uint8_t>(i < count ? '.' : ' ')) {
                return false;
            }
        }
        return true;
    }
};

inline constexpr std::uint8_t kLastLongSlot = 0x40;     // LAST_LONG_ENTRY, or-ed into the ordinal
inline constexpr std::uint8_t kLongOrdinalMask = 0x3F;  // ordinals are 1 .. kMaxLongSlots
inline constexpr std::size_t kMaxLongSlots = 20;
inline constexpr std::size_t kLongSlotUnits = 13;

// Thirteen UTF-16 units of a long name. The slots precede the short entry, the last one first.
struct LongSlot {
    std::uint8_t ordinal = 0;     // LDIR_Ord
    std::array<Le16, 5> units_1;  // LDIR_Name1
    std::uint8_t attr = 0;        // LDIR_Attr: kAttrLongName
    std::uint8_t type = 0;        // LDIR_Type: 0
    std::uint8_t checksum = 0;    // LDIR_Chksum: of the short name
    std::array<Le16, 6> units_2;  // LDIR_Name2
    Le16 first_cluster_low;       // LDIR_FstClusLO: 0
    std::array<Le16, 2> units_3;  // LDIR_Name3

    // Units 0 .. kLongSlotUnits - 1 across the three fields.
    [[nodiscard]] constexpr char16_t unit(std::size_t i) const {
        return static_cast<char16_t>(i < 5    ? units_1.at(i).get()
                                     : i < 11 ? units_2.at(i - 5).get()
                                              : units_3.at(i - 11).get());
    }
    constexpr void set_unit(std::size_t i, char16_t value) {
        Le16& field = i < 5 ? units_1.at(i) : i < 11 ? units_2.at(i - 5) : units_3.at(i - 11);
        field.set(static_cast<std::uint16_t>(value));
    }
    [[nodiscard]] constexpr bool is_last() const {
        return (ordinal & kLastLongSlot) != 0;
    }
};

// --- reading and writing structures in raw bytes
// -----------------------------------------------------------------------

// A copy of the structure at `offset`. Requires offset + sizeof(T) <= bytes.size().
template <typename T>
T load(std::span<const std::byte> bytes, std::size_t offset = 0) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) == 1);
    T value;
    std::memcpy(&value, bytes.subspan(offset, sizeof(T)).data(), sizeof(T));
    return value;
}

template <typename T>
void store(std::span<std::byte> bytes, const T& value, std::size_t offset = 0) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) == 1);
    std::memcpy(bytes.subspan(offset, sizeof(T)).data(), &value, sizeof(T));
}

static_assert(sizeof(Bpb) == 36 && alignof(Bpb) == 1);
static_assert(offsetof(Bpb, bytes_per_sector) == 11 && offsetof(Bpb, reserved_sectors) == 14);
static_assert(offsetof(Bpb, root_entries) == 17 && offsetof(Bpb, media) == 21);
static_assert(offsetof(Bpb, fat_sectors_16) == 22 && offsetof(Bpb, total_sectors_32) == 32);
static_assert(sizeof(Bpb32) == 28 && offsetof(Bpb32, root_cluster) == 8 &&
              offsetof(Bpb32, fsinfo_sector) == 12);
static_assert(sizeof(BootExtension) == 26 && offsetof(BootExtension, volume_id) == 3);
static_assert(sizeof(BootSector16) == kBootSectorBytes && offsetof(BootSector16, extension) == 36);
static_assert(offsetof(BootSector16, boot_signature) == 510);
static_assert(sizeof(BootSector32) == kBootSectorBytes && offsetof(BootSector32, bpb32) == 36);
static_assert(offsetof(BootSector32, extension) == 64 &&
              offsetof(BootSector32, boot_signature) == 510);
static_assert(sizeof(FsInfoSector) == 512 && offsetof(FsInfoSector, struct_signature) == 484);
static_assert(offsetof(FsInfoSector, free_count) == 488 &&
              offsetof(FsInfoSector, next_free) == 492);
static_assert(offsetof(FsInfoSector, trail_signature) == 508);
static_assert(sizeof(ShortEntry) == kDirEntryBytes && alignof(ShortEntry) == 1);
static_assert(offsetof(ShortEntry, attr) == 11 && offsetof(ShortEntry, create_time) == 14);
static_assert(offsetof(ShortEntry, first_cluster_high) == 20 &&
              offsetof(ShortEntry, write_time) == 22);
static_assert(offsetof(ShortEntry, first_cluster_low) == 26 && offsetof(ShortEntry, size) == 28);
static_assert(sizeof(LongSlot) == kDirEntryBytes && alignof(LongSlot) == 1);
static_assert(offsetof(LongSlot, units_2) == 14 && offsetof(LongSlot, units_3) == 28);

}  // namespace wbfat::fs::inline WBFAT_RT
