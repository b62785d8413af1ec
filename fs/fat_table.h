// The file allocation table: typed values in, typed values out.
//
// Raw entries are decoded at this door; nobody else sees 0x0FFFFFF8. Values held back for a later
// phase of the commit (ordering.h) live in an overlay that get() consults first, so readers always
// see the newest table while the pages hold what may be written now.
//
// Invariants
//   - T1. All copies that are written (every mirrored FAT, or the active one alone) hold the same
//     entries in their pages: a change needs the pages of all of them before it touches one.
//   - T2. An entry changes only under fat_lock, also where it straddles two sectors or two pages
//     (FAT12), so no reader sees half of it.
//   - T3. The upper four bits of a FAT32 entry never change.
//
// The pages last used, one a copy, stay referenced, so a walk along a chain costs a lock and a load
// a step.
//
// Locking: fat_lock, a Mutex, inside; taken under page locks of file mappings (map_blocks) and
// never held while a file's page is locked afterwards. Pages of the device mapping are locked under
// fat_lock: never call in here with one of them locked. Nothing is read from the device under
// fat_lock. All methods may read from the device. Source: Linux fs/fat/fatent.c; fat.md 7.4-7.6.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "cache/address_space.h"
#include "cache/base/result.h"
#include "cache/sync/sync.h"
#include "fs/geometry.h"
#include "fs/ordering_sink.h"
#include "fs/run_set.h"

namespace wbfat::fs::inline WBFAT_RT {

struct FatValue {
    enum class Kind : std::uint8_t { kFree, kNext, kEndOfChain, kBad, kReserved };
    Kind kind = Kind::kFree;
    // kNext only: a cluster in range, checked; an out-of-range link decodes as kReserved.
    cluster_t next = 0;

    static constexpr FatValue free() {
        return {};
    }
    static constexpr FatValue end_of_chain() {
        return {Kind::kEndOfChain, 0};
    }
    static constexpr FatValue bad() {
        return {Kind::kBad, 0};
    }
    static constexpr FatValue link(cluster_t cluster) {
        return {Kind::kNext, cluster};
    }
    friend constexpr bool operator==(const FatValue&, const FatValue&) = default;
};

// The pure bit arithmetic, for tests and mkfs.
FatValue decode_fat_entry(FatType type, std::uint32_t raw, std::uint32_t nr_clusters);
// Keeps what is not the entry's of `old_raw` (T3). Requires value.kind != kReserved.
std::uint32_t encode_fat_entry(FatType type, FatValue value, std::uint32_t old_raw);
// Entry `number` of a table that starts at entry 0; 12, 16 or 32 bits. Requires that it lies
// inside.
std::uint32_t read_fat_entry(FatType type, std::span<const std::byte> table, cluster_t number);
void write_fat_entry(FatType type, std::span<std::byte> table, cluster_t number, std::uint32_t raw);

class FatTable {
public:
    // `device_mapping`: pages of the whole device. Every change notes its blocks with `ordering`.
    // All three outlive the table; the table goes before the pages of the mapping do.
    FatTable(const Geometry& geometry, cache::AddressSpace& device_mapping, MetadataSink& ordering);
    ~FatTable();
    FatTable(const FatTable&) = delete;
    FatTable& operator=(const FatTable&) = delete;

    // Errors: EIO when every copy of the FAT sector is unreadable (other copies are tried); EUCLEAN
    // never (see kind).
    Result<FatValue> get(cluster_t cluster);

    // Changes the entry in the pages of every mirrored FAT now (phase kAllocate). Inside a
    // Transaction. Requires: !is_held_back(cluster). Errors: EIO when a copy cannot be read;
    // nothing has changed then.
    Result<> set(cluster_t cluster, FatValue value);
    // The same for a whole run: each cluster links to the next one, and the last holds `last`. Page
    // by page, so much cheaper than set() in a loop. Errors: as set(); the entries changed so far
    // are free again. Requires: the entries are free, as those of a run from the allocator are.
    Result<> set_chain(const ClusterRun& run, FatValue last);
    // Changes it in `phase` (any but kAllocate) of the next commit; get() sees it at once. A
    // value already held back for this cluster is replaced, value and phase: only the last one is
    // ever applied.
    Result<> set_later(cluster_t cluster, FatValue value, Phase phase);
    // Frees all clusters of the runs in kFree of the next commit, one change for all; get() sees
    // them free at once, and is_held_back() is true for them. Inside a Transaction.
    Result<> free_runs_later(std::vector<ClusterRun> runs);
    bool is_held_back(cluster_t cluster) const;
    // True if the entries of both clusters lie wholly in one and the same sector of the FAT.
    bool same_sector(cluster_t a, cluster_t b) const;

    // Calls `visit(first, count)` for maximal runs of free clusters in [first, last], reading ahead
    // in large pieces. The raw table without the overlay's kFree values: a cluster whose free is
    // not durable yet is not free. Errors: EIO when a part is unreadable in every copy.
    Result<> for_each_free_run(cluster_t first, cluster_t last,
                               const std::function<void(cluster_t first, cluster_t count)>& visit);

    // FAT[1]'s clean-shutdown bit (FAT16 bit 15, FAT32 bit 27); none on FAT12: always clean.
    Result<bool> clean_bit();
    // Changes pages of all copies; notes nothing: the caller writes them.
    Result<> set_clean_bit(bool clean);

private:
    class PageRef;
    struct EntryPages;

    struct Later {
        FatValue value;
        Phase phase{};
    };
    // What a chunk of neighbouring entries becomes.
    struct Fill {
        FatValue last;        // of the last cluster, or of every one if not `linked`
        bool linked = false;  // all but the last link to their successors
        cluster_t end = 0;    // one past the last cluster
        [[nodiscard]] FatValue value_of(cluster_t cluster) const;
    };
    struct HotPage;

    std::uint32_t nr_copies() const;
    std::uint32_t fat_of_copy(std::uint32_t copy) const;
    std::uint64_t entry_offset(std::uint32_t copy, cluster_t cluster) const;
    unsigned entry_length() const;
    std::uint32_t chunk_length(cluster_t first, std::uint32_t count) const;

    std::optional<FatValue> overlay_locked(cluster_t cluster) const REQUIRES(fat_lock_);
    std::optional<std::uint32_t> read_hot_locked(cluster_t cluster) const REQUIRES(fat_lock_);
    bool write_hot_locked(cluster_t cluster, FatValue value) REQUIRES(fat_lock_);
    void make_hot_locked(std::uint32_t copy, const EntryPages& pages) REQUIRES(fat_lock_);

    Result<std::uint32_t> read_raw(cluster_t cluster);
    Result<EntryPages> pin(std::uint32_t copy, cluster_t cluster);
    Result<> write_chunk(cluster_t first, std::uint32_t count, const Fill& fill);
    // Calls note(offset, length) for the sectors of a range of entries, in every copy.
    template <typename Note>
    void for_sectors_of(cluster_t first, std::uint32_t count, Note&& note) const;
    Result<> fill_entries(cluster_t first, std::uint32_t count, const Fill& fill,
                          std::uint32_t& done);
    void hold_back(Phase phase);
    Result<> apply(Phase phase);
    Result<> apply_value(cluster_t cluster, FatValue value);
    Result<> apply_free(const ClusterRun& run);
    Result<std::vector<std::uint8_t>> read_piece(std::uint32_t copy, cluster_t first,
                                                 std::uint32_t count);
    Result<std::vector<std::uint8_t>> read_piece_of_any(cluster_t first, std::uint32_t count);

    // Constant after construction.
    const Geometry& geometry_;
    cache::AddressSpace& device_;
    MetadataSink& ordering_;

    mutable sync::Mutex fat_lock_{sync::LockRank::kFat};
    std::unordered_map<cluster_t, Later> later_ GUARDED_BY(fat_lock_);
    RunSet later_free_ GUARDED_BY(fat_lock_);  // runs of free_runs_later()
    // One a copy: the page used last. `read_copy_` is the one get() looks at first: the active one
    // while it is readable.
    std::vector<HotPage> hot_ GUARDED_BY(fat_lock_);
    std::uint32_t read_copy_ GUARDED_BY(fat_lock_) = 0;
};

}  // namespace wbfat::fs::inline WBFAT_RT
