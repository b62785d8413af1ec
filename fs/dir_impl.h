// What a Directory keeps in memory; seen by dir.cc and dir_load.cc only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "cache/sync/sync.h"
#include "fs/dir.h"
#include "fs/dir_index.h"
#include "fs/dir_pages.h"
#include "fs/dir_slots.h"

namespace wbfat::fs::inline WBFAT_RT {

class Directory::Impl {
public:
    Impl(Volume& volume, Inode& inode);

    Result<> load();
    Result<const DirRecord*> find(std::string_view name);
    Result<> for_each(std::uint64_t cookie,
                      const std::function<bool(const DirRecord&, std::uint64_t)>& visit);
    Result<DirRecord> add(const ParsedName& name, const ShortEntry& entry, bool& pending_would_do);
    Result<DirRecord> rename(const DirRecord& record, const ParsedName& name,
                             bool& pending_would_do);
    Result<> erase(const DirRecord& record, Phase phase);
    Result<> replace(const DirRecord& record, const ShortEntry& entry);
    Result<std::uint64_t> dotdot_i_pos();
    bool is_held_back(std::string_view name);
    bool anything_held_back() const;
    bool same_sector(const DirRecord& a, const DirRecord& b) const;
    void forget();

    Volume& volume() const {
        return volume_;
    }
    bool is_empty() const {
        return nr_records_ == 0 && !incomplete_ && !damaged_;
    }
    std::uint32_t nr_subdirectories() const {
        return nr_subdirectories_;
    }
    std::uint32_t nr_slots() const {
        return slots_.size();
    }
    std::uint64_t nr_probes() const {
        return index_.nr_probes() + nr_alias_candidates_;
    }

private:
    static constexpr std::uint32_t kNoRecord = ~std::uint32_t{0};

    // Names erased in kUnlink whose commit has not come. Shared with what the commit will run: that
    // takes no inode lock, and may outlive the Directory.
    struct HeldBack {
        sync::Mutex lock{sync::LockRank::kLeaf};
        std::unordered_multiset<std::u16string> keys GUARDED_BY(lock);
        std::vector<SlotRun> applied GUARDED_BY(lock);  // erased on disk, not yet free in slots_
    };
    struct Keys {
        std::u16string long_key;
        std::u16string alias_key;
    };
    // Where a set may go of whose names one was erased.
    struct ErasedPlace {
        enum class Kind : std::uint8_t { kAnywhere, kHere, kNowhereBeforeCommit };
        Kind kind = Kind::kAnywhere;
        SlotRun run{};  // kHere
    };
    struct LoadState {
        LongNameReader long_name;
        std::vector<bool> used;
        bool ended = false;
    };
    // Neighbouring slots whose bytes are neighbours on the device too.
    struct DeviceRun {
        SlotRun slots;
        std::uint64_t device_offset_bytes = 0;
    };

    // --- reading (dir_load.cc)
    void reset();
    Result<> read_chain();
    std::vector<DeviceRun> device_runs() const;
    Result<> load_run(const DeviceRun& run, LoadState& state);
    Result<> load_page_wise(const DeviceRun& run, std::uint32_t first_slot, LoadState& state);
    void load_slots(std::uint32_t first_slot, std::span<const std::byte> bytes, LoadState& state);
    void read_on(std::uint32_t slot, LoadState& state);
    std::uint32_t slots_in_all() const {
        return static_cast<std::uint32_t>(record_at_.size());
    }
    void load_slot(std::uint32_t slot, const ShortEntry& entry, LoadState& state);
    void load_unreadable(SlotRun run, LoadState& state);
    void load_name(std::uint32_t slot, const ShortEntry& entry, LoadState& state);

    // --- records
    DirRecord make_record(SlotRun run, const ShortEntry& entry,
                          std::optional<std::u16string> long_name) const;
    const DirRecord& insert_record(DirRecord record);
    void remove_record(std::uint32_t id);
    std::uint32_t id_of(const DirRecord& record) const;
    Keys keys_of(const DirRecord& record) const;
    std::optional<std::uint32_t> find_key(const std::u16string& key) const;
    void index_record(std::uint32_t id);
    void index_key(const std::u16string& key, std::uint32_t id);
    void rebuild_index();

    // --- slots
    bool is_fixed_root() const;
    std::uint64_t slot_offset_bytes(std::uint32_t slot) const;
    Result<> pin_slots(PinnedBytes& bytes, SlotRun run) const;
    std::uint32_t max_slots() const;
    void collect_applied();
    Result<> grow(bool& pending_would_do);
    std::optional<std::uint32_t> find_place(std::uint32_t count) const;
    Result<SlotRun> reserve(std::uint32_t count, bool& pending_would_do);
    Result<> write_set(SlotRun place, std::span<const std::byte> bytes);
    void hold_back(const DirRecord& record);
    void note_erased(const DirRecord& record);
    ErasedPlace place_of_erased(const Keys& keys, std::uint32_t count) const;
    Result<SlotRun> place_for(const Keys& keys, std::uint32_t count, bool& pending_would_do);

    // --- names
    Result<ShortNameChoice> choose_alias(const ParsedName& name, std::uint32_t except_id);
    Result<std::optional<DirRecord>> rename_in_sector(const DirRecord& record,
                                                      const ParsedName& name,
                                                      const ShortEntry& entry);

    // Constant after construction.
    Volume& volume_;
    Inode& inode_;
    const std::uint32_t slots_per_cluster_;

    sync::Mutex load_lock_;
    sync::Atomic<bool> loaded_{false};

    // Written by load() under load_lock_, published by loaded_; then guarded by the inode's
    // i_rwsem.
    std::vector<cluster_t> chain_;  // of a directory that is no fixed root
    bool damaged_ = false;          // the chain is not whole: it may not grow
    bool incomplete_ = false;       // some sectors could not be read: their slots count as used
    bool duplicates_ = false;       // some records are not found by some of their names
    std::uint32_t end_ = 0;         // the end mark: no slot from here on was ever used
    std::vector<SlotRun> holes_;    // free slots before it that look like an end mark (D3)
    std::uint32_t nr_records_ = 0;
    std::uint32_t nr_subdirectories_ = 0;
    std::uint64_t nr_alias_candidates_ = 0;
    std::optional<std::uint32_t> dotdot_slot_;
    SlotMap slots_;
    NameIndex index_;
    std::deque<DirRecord> records_;  // by id; a deque keeps them where they are
    std::vector<std::uint32_t> free_ids_;
    std::vector<std::uint32_t> record_at_;  // id by the slot of the short entry, or kNoRecord
    std::shared_ptr<HeldBack> held_back_;
    // Slots of the short entries that were erased in kEntry of a commit that has not come, by their
    // names. The same name may reappear in the same sector, which is one write; elsewhere a power
    // cut could show it twice.
    std::unordered_map<std::u16string, std::uint32_t> erased_at_;
    std::uint64_t erased_sequence_ = 0;  // of the last of them
};

}  // namespace wbfat::fs::inline WBFAT_RT
