// The entries of one directory: an index in memory over 32-byte slots on disk.
//
// On first use every slot is read once and indexed by folded long name and by alias, so lookup and
// create are O(1) in a directory of 60,000 names. Slots are found by number (position / 32); free
// ones are kept as runs so that a new set of slots goes into one sector whenever it can (one atomic
// write).
//
// Changes go to the device mapping's pages at once (phase kEntry), except names erased in kUnlink:
// those leave the index at once, but their slots stay on disk, and are not reused, until the
// commit.
//
// Invariants
//   - D1. No two entries share a folded long name, an alias, or one's alias with another's long
//     name.
//   - D2. A long-name set and its short entry are contiguous, within one sector if they fit one.
//   - D3. After the end mark (0x00) every slot is free; skipped slots before it are 0xE5. A power
//     cut can leave a 0x00 before live entries (two sectors of one kEntry); reading goes on behind
//     it, as Linux and fsck.fat do, and the next name added closes such holes with 0xE5.
//   - D4. Broken sets (order, checksum, orphans) are ignored: the entry shows its short name.
//
// D2 gives way to space: once the end mark is behind half of what a directory may have, or when it
// cannot grow, a set may lie in two sectors. On a damaged volume D1 may not hold: the first of
// equal names in slot order answers, the others show up in listings. Unreadable sectors are left
// out: what is found is right, what is not found is EIO.
//
// Locking: the directory inode's i_rwsem: shared for find, for_each; exclusive for the rest, inside
// a Transaction. The first load happens under a mutex of its own, so shared is enough for it.
// Source: Linux fs/fat/dir.c, namei_vfat.c; fat.md 7.11-7.16.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "cache/base/result.h"
#include "fs/geometry.h"
#include "fs/layout.h"
#include "fs/names.h"
#include "fs/ordering.h"

namespace wbfat::fs::inline WBFAT_RT {

class Inode;
class Volume;

// One name. Valid until the directory changes.
struct DirRecord {
    std::string name;      // as readdir shows it, UTF-8
    std::u16string units;  // the same in UTF-16
    ShortName short_name{};
    std::uint8_t attr = 0;     // as last seen; ATTR_DIRECTORY is always right
    std::uint8_t nt_case = 0;  // DIR_NTRes, all bits, as last seen; the case bits are always right
    std::uint32_t slot = 0;    // slot number of the short entry
    std::uint32_t nr_slots = 1;     // with its long-name slots, which precede it
    std::uint64_t i_pos = 0;        // device offset of the short entry, bytes
    cluster_t directory_start = 0;  // first cluster; directories only

    // The first of its slots.
    [[nodiscard]] std::uint32_t first_slot() const {
        return slot + 1 - nr_slots;
    }
};

class Directory {
public:
    Directory(Volume& volume, Inode& inode);
    ~Directory();
    Directory(const Directory&) = delete;
    Directory& operator=(const Directory&) = delete;

    // Reads and indexes the slots unless already done. Every other method does it by itself.
    // Errors: EIO; a damaged chain is fs_error()ed and what could be read is kept.
    Result<> load();

    // By any spelling: other case, 8.3 alias, trailing dots. Errors: ENOENT, EINVAL, ENAMETOOLONG
    // as names.h.
    Result<const DirRecord*> find(std::string_view name);
    bool is_empty();
    std::uint32_t nr_subdirectories();

    // Visits records in slot order from position `cookie` on (0: the start); stops when `visit`
    // returns false. The cookie passed with a record resumes behind it. Stable while entries come
    // and go.
    Result<> for_each(
        std::uint64_t cookie,
        const std::function<bool(const DirRecord&, std::uint64_t next_cookie)>& visit);

    // Adds a name whose other fields are `entry`'s (name and nt_case are filled in). Grows the
    // directory if it must. Requires: find(name) fails with ENOENT. Errors: ENOSPC (fixed root
    // full, 65536 slots, no cluster; `pending_would_do` as Allocator); names.h's; EIO.
    Result<DirRecord> add(const ParsedName& name, const ShortEntry& entry, bool& pending_would_do);
    // Erases the record's slots in the given phase (kEntry now, kUnlink at commit).
    Result<> erase(const DirRecord& record, Phase phase);
    // Points the record's short entry at another file: start, size, times, attributes from `entry`;
    // the name stays. Rename over an existing target, and exchange.
    Result<> replace(const DirRecord& record, const ShortEntry& entry);
    // True if `name` was erased in kUnlink and is not committed: its re-creation must commit first
    // (O3).
    bool is_held_back(std::string_view name);
    // True if any name was. Whoever was renamed away may still have no other name on the disk: this
    // directory's own name must stay until kUnlink.
    [[nodiscard]] bool anything_held_back() const;
    // Gives the record another name, which may differ only in case. Its other fields are what the
    // page holds now. Within the record's sector that is one atomic write, and i_pos stays if the
    // new set is not longer; otherwise the new set is due in kEntry, the old one goes in kUnlink.
    // Requires: `name` is not held back, and find(name) fails or finds this record.
    // Errors: as add.
    Result<DirRecord> rename(const DirRecord& record, const ParsedName& name,
                             bool& pending_would_do);
    // Where ".." lies on the device. Errors: EIO, also when there is none.
    Result<std::uint64_t> dotdot_i_pos();
    // Both slot sets lie in one and the same sector of this directory: their change is one atomic
    // write.
    [[nodiscard]] bool same_sector(const DirRecord& a, const DirRecord& b) const;
    // The short entry now on disk's page. Errors: EIO.
    [[nodiscard]] Result<ShortEntry> read_entry(std::uint64_t i_pos) const;
    // Everything of a directory that no longer exists is forgotten (after rmdir).
    void forget();

    // For tests and status: slots on disk, and index cells and alias candidates looked at by
    // changes so far.
    Result<std::uint32_t> nr_slots();
    [[nodiscard]] std::uint64_t nr_probes() const;

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

// Reads / changes 32 bytes at `i_pos` of the device mapping under the page lock; a change is noted
// for kEntry. Errors: EIO.
Result<ShortEntry> read_short_entry(Volume& volume, std::uint64_t i_pos);
Result<> write_short_entry(Volume& volume, std::uint64_t i_pos,
                           const std::function<void(ShortEntry&)>& change);

}  // namespace wbfat::fs::inline WBFAT_RT
