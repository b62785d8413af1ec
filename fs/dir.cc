// The entries of a directory: finding, adding, erasing, renaming. See dir.h; reading is in
// dir_load.cc.
#include "fs/dir.h"

#include <algorithm>
#include <utility>

#include "cache/base/check.h"
#include "fs/dir_impl.h"
#include "fs/inode.h"
#include "fs/truncate.h"
#include "fs/volume.h"

namespace wbfat::fs::inline WBFAT_RT {

namespace {

constexpr std::uint32_t kSlotBytes = kDirEntryBytes;

}  // namespace

Directory::Impl::Impl(Volume& volume, Inode& inode)
    : volume_(volume),
      inode_(inode),
      slots_per_cluster_(volume.geometry().cluster_bytes / kSlotBytes),
      slots_(volume.geometry().sector_bytes / kSlotBytes),
      // Where an object lies differs from run to run, which is all the salt has to do.
      index_(reinterpret_cast<std::uintptr_t>(this)),  // NOLINT(*-reinterpret-cast)
      held_back_(std::make_shared<HeldBack>()) {}

// Not known to the constructor: the inode is made before it is the root.
bool Directory::Impl::is_fixed_root() const {
    return inode_.is_root() && volume_.geometry().type != FatType::kFat32;
}

// --- records

DirRecord Directory::Impl::make_record(SlotRun run, const ShortEntry& entry,
                                       std::optional<std::u16string> long_name) const {
    DirRecord record;
    if (long_name.has_value() && is_usable_long_name(*long_name)) {
        record.name = units_to_utf8(*long_name, volume_.options());
        record.units = std::move(*long_name);
    } else {
        record.name = short_name_to_utf8(entry.name, entry.nt_reserved, volume_.codepage(),
                                         volume_.options());
        record.units = short_name_to_units(entry.name, volume_.codepage());
    }
    record.short_name = entry.name;
    record.attr = entry.attr;
    record.nt_case = entry.nt_reserved;
    record.slot = run.end() - 1;
    record.nr_slots = run.count;
    record.i_pos = slot_offset_bytes(record.slot);
    record.directory_start =
        entry.is_directory() ? entry.first_cluster(volume_.geometry().type) : 0;
    return record;
}

Directory::Impl::Keys Directory::Impl::keys_of(const DirRecord& record) const {
    Keys keys{name_key(record.units, volume_.options()), {}};
    keys.alias_key =
        name_key(short_name_to_units(record.short_name, volume_.codepage()), volume_.options());
    return keys;
}

std::optional<std::uint32_t> Directory::Impl::find_key(const std::u16string& key) const {
    return index_.find(name_hash(key), [&](std::uint32_t id) {
        const DirRecord& record = records_[id];
        return name_key(record.units, volume_.options()) == key ||
               name_key(short_name_to_units(record.short_name, volume_.codepage()),
                        volume_.options()) == key;
    });
}

void Directory::Impl::index_key(const std::u16string& key, std::uint32_t id) {
    const std::optional<std::uint32_t> other = find_key(key);
    if (!other.has_value()) {
        index_.insert(name_hash(key), id);
    } else if (*other != id) {
        duplicates_ = true;
    }
}

void Directory::Impl::index_record(std::uint32_t id) {
    const Keys keys = keys_of(records_[id]);
    index_key(keys.long_key, id);
    if (keys.alias_key != keys.long_key) {
        index_key(keys.alias_key, id);
    }
}

// Only on damaged volumes: when a name went away, a later entry of the same name takes its place.
void Directory::Impl::rebuild_index() {
    index_.clear();
    duplicates_ = false;
    for (const std::uint32_t id : record_at_) {
        if (id != kNoRecord) {
            index_record(id);
        }
    }
}

const DirRecord& Directory::Impl::insert_record(DirRecord record) {
    std::uint32_t id = 0;
    if (free_ids_.empty()) {
        id = static_cast<std::uint32_t>(records_.size());
        records_.push_back(std::move(record));
    } else {
        id = free_ids_.back();
        free_ids_.pop_back();
        records_[id] = std::move(record);
    }
    const DirRecord& inserted = records_[id];
    record_at_[inserted.slot] = id;
    ++nr_records_;
    nr_subdirectories_ += (inserted.attr & kAttrDirectory) != 0 ? 1 : 0;
    index_record(id);
    return inserted;
}

void Directory::Impl::remove_record(std::uint32_t id) {
    const Keys keys = keys_of(records_[id]);
    index_.erase(name_hash(keys.long_key), id);
    index_.erase(name_hash(keys.alias_key), id);
    record_at_[records_[id].slot] = kNoRecord;
    --nr_records_;
    nr_subdirectories_ -= (records_[id].attr & kAttrDirectory) != 0 ? 1 : 0;
    records_[id] = {};
    free_ids_.push_back(id);
    if (duplicates_) {
        rebuild_index();
    }
}

std::uint32_t Directory::Impl::id_of(const DirRecord& record) const {
    BUG_ON(record.slot >= record_at_.size() || record_at_[record.slot] == kNoRecord,
           "a record of another directory, or an old one");
    return record_at_[record.slot];
}

// --- slots

std::uint64_t Directory::Impl::slot_offset_bytes(std::uint32_t slot) const {
    const Geometry& geometry = volume_.geometry();
    if (is_fixed_root()) {
        return geometry.root_dir_offset_bytes() + std::uint64_t{slot} * kDirEntryBytes;
    }
    return geometry.cluster_offset_bytes(chain_[slot / slots_per_cluster_]) +
           std::uint64_t{slot % slots_per_cluster_} * kDirEntryBytes;
}

Result<> Directory::Impl::pin_slots(PinnedBytes& bytes, SlotRun run) const {
    while (run.count > 0) {
        const std::uint32_t in_cluster =
            is_fixed_root()
                ? run.count
                : std::min(run.count, slots_per_cluster_ - run.first % slots_per_cluster_);
        TRY_VOID(bytes.pin(slot_offset_bytes(run.first), in_cluster * kSlotBytes));
        run.first += in_cluster;
        run.count -= in_cluster;
    }
    return {};
}

// What the directory may grow to.
std::uint32_t Directory::Impl::max_slots() const {
    if (!is_fixed_root()) {
        return kMaxDirEntries;
    }
    const std::uint32_t per_sector = slots_.slots_per_sector();
    return volume_.geometry().root_entries / per_sector * per_sector;
}

void Directory::Impl::collect_applied() {
    std::vector<SlotRun> applied;
    {
        const sync::MutexLock lock(held_back_->lock);
        applied.swap(held_back_->applied);
    }
    for (const SlotRun run : applied) {
        slots_.set_free(run);
    }
}

bool Directory::Impl::anything_held_back() const {
    const sync::MutexLock lock(held_back_->lock);
    return !held_back_->keys.empty();
}

Result<> Directory::Impl::grow(bool& pending_would_do) {
    if (is_fixed_root() || slots_.size() + slots_per_cluster_ > kMaxDirEntries) {
        // Slots held back become free with the commit.
        pending_would_do = anything_held_back();
        return Errno{ENOSPC};
    }
    if (damaged_) {
        return Errno{EIO};
    }
    chain_.push_back(TRY(fat_add_directory_cluster(inode_, pending_would_do)));
    slots_.grow(slots_per_cluster_);
    record_at_.resize(slots_.size(), kNoRecord);
    return {};
}

// A place for a set of `count` slots without growing (D2).
std::optional<std::uint32_t> Directory::Impl::find_place(std::uint32_t count) const {
    const bool fits_sector = count <= slots_.slots_per_sector();
    const bool must_pack = end_ > max_slots() / 2;
    const std::optional<std::uint32_t> in_sector =
        fits_sector ? slots_.find_in_sector(count) : std::nullopt;
    if (in_sector.has_value() && (!must_pack || *in_sector <= end_)) {
        return in_sector;
    }
    return !fits_sector || must_pack ? slots_.find_anywhere(count) : std::nullopt;
}

// The same, growing if it must. Nothing is marked; a grown directory stays grown.
Result<SlotRun> Directory::Impl::reserve(std::uint32_t count, bool& pending_would_do) {
    while (true) {
        const std::optional<std::uint32_t> place = find_place(count);
        if (place.has_value()) {
            return SlotRun{*place, count};
        }
        const Result<> grown = grow(pending_would_do);
        if (!grown.has_value()) {
            const std::optional<std::uint32_t> anywhere = slots_.find_anywhere(count);
            if (anywhere.has_value()) {
                return SlotRun{*anywhere, count};
            }
            return grown.error();
        }
    }
}

// Puts a set into the pages, keeping D3. Takes the slots. On error nothing has changed.
Result<> Directory::Impl::write_set(SlotRun place, std::span<const std::byte> bytes) {
    const SlotRun skipped{end_, place.first > end_ ? place.first - end_ : 0};
    PinnedBytes set_bytes(volume_);
    PinnedBytes skipped_bytes(volume_);
    TRY_VOID(pin_slots(set_bytes, place));
    TRY_VOID(pin_slots(skipped_bytes, skipped));
    for (const SlotRun& hole : holes_) {
        TRY_VOID(pin_slots(skipped_bytes, hole));
    }

    skipped_bytes.mark_deleted(PinnedBytes::Due::kEntry);
    set_bytes.write(bytes);
    end_ = std::max(end_, place.end());
    holes_.clear();
    slots_.set_used(place);
    return {};
}

// Takes the record out of the index now and off the disk in kUnlink; its slots stay taken until
// then.
void Directory::Impl::hold_back(const DirRecord& record) {
    const std::uint32_t id = id_of(record);
    const SlotRun run{record.first_slot(), record.nr_slots};
    const Keys keys = keys_of(record);
    std::vector<std::uint64_t> offsets;
    for (std::uint32_t slot = run.first; slot < run.end(); ++slot) {
        offsets.push_back(slot_offset_bytes(slot));
    }
    {
        const sync::MutexLock lock(held_back_->lock);
        held_back_->keys.insert(keys.long_key);
        held_back_->keys.insert(keys.alias_key);
    }
    volume_.ordering().hold_back(Phase::kUnlink,
                                 [&volume = volume_, held_back = held_back_, run, keys, offsets,
                                  done = false]() mutable -> Result<> {
                                     if (done) {
                                         return {};
                                     }
                                     PinnedBytes bytes(volume);
                                     for (const std::uint64_t offset : offsets) {
                                         TRY_VOID(bytes.pin(offset, kDirEntryBytes));
                                     }
                                     bytes.mark_deleted(PinnedBytes::Due::kRunningCommit);
                                     const sync::MutexLock lock(held_back->lock);
                                     held_back->keys.erase(held_back->keys.find(keys.long_key));
                                     held_back->keys.erase(held_back->keys.find(keys.alias_key));
                                     held_back->applied.push_back(run);
                                     done = true;
                                     return {};
                                 });
    // Keeps this directory in memory until the commit: its sectors still show the old name.
    if (!inode_.is_root()) {
        inode_.mark_dirty();
    }
    remove_record(id);
}

void Directory::Impl::note_erased(const DirRecord& record) {
    if (volume_.ordering().is_durable(erased_sequence_)) {
        erased_at_.clear();
    }
    erased_sequence_ = volume_.ordering().current_sequence();
    const Keys keys = keys_of(record);
    erased_at_.try_emplace(keys.long_key, record.slot);
    erased_at_.try_emplace(keys.alias_key, record.slot);
}

// Where a set of `count` slots with these names may go, if one of them was erased lately.
Directory::Impl::ErasedPlace Directory::Impl::place_of_erased(const Keys& keys,
                                                              std::uint32_t count) const {
    if (erased_at_.empty() || volume_.ordering().is_durable(erased_sequence_)) {
        return {};
    }
    const auto of_name = erased_at_.find(keys.long_key);
    const auto of_alias = erased_at_.find(keys.alias_key);
    if (of_name == erased_at_.end() && of_alias == erased_at_.end()) {
        return {};
    }
    const std::uint32_t slot = of_name != erased_at_.end() ? of_name->second : of_alias->second;
    const std::uint32_t other = of_alias != erased_at_.end() ? of_alias->second : slot;
    const std::uint32_t per_sector = slots_.slots_per_sector();
    if (slot / per_sector == other / per_sector && count <= per_sector) {
        const std::optional<std::uint32_t> first = slots_.find_in_sector_of({slot, 0}, count);
        if (first.has_value()) {
            return {ErasedPlace::Kind::kHere, {*first, count}};
        }
    }
    return {ErasedPlace::Kind::kNowhereBeforeCommit, {}};
}

// Errors: ENOSPC, also when only a commit must come first (pending_would_do).
Result<SlotRun> Directory::Impl::place_for(const Keys& keys, std::uint32_t count,
                                           bool& pending_would_do) {
    const ErasedPlace place = place_of_erased(keys, count);
    switch (place.kind) {
        case ErasedPlace::Kind::kHere:
            return place.run;
        case ErasedPlace::Kind::kNowhereBeforeCommit:
            pending_would_do = true;
            return Errno{ENOSPC};
        case ErasedPlace::Kind::kAnywhere:
            break;
    }
    return reserve(count, pending_would_do);
}

// --- names

Result<ShortNameChoice> Directory::Impl::choose_alias(const ParsedName& name,
                                                      std::uint32_t except_id) {
    return make_short_name(
        name, volume_.codepage(), volume_.options(), [&](const ShortName& candidate) {
            ++nr_alias_candidates_;
            const std::u16string key =
                name_key(short_name_to_units(candidate, volume_.codepage()), volume_.options());
            const std::optional<std::uint32_t> id = find_key(key);
            if (id.has_value() && *id != except_id) {
                return true;
            }
            const sync::MutexLock lock(held_back_->lock);
            return held_back_->keys.contains(key);
        });
}

namespace {

// The entry under the name chosen, and the long name that goes before it, empty for none.
struct NamedSet {
    ShortEntry entry;
    std::optional<std::u16string> long_name;

    NamedSet(const ShortEntry& fields, const ParsedName& name, const ShortNameChoice& choice)
        : entry(fields) {
        entry.name = choice.name;
        entry.nt_reserved =
            static_cast<std::uint8_t>((entry.nt_reserved & ~kNtCaseMask) | choice.nt_case);
        if (choice.needs_long_slots) {
            long_name = name.units;
        }
    }
    std::uint32_t nr_slots() const {
        return long_name.has_value() ? slots_for(long_name->size()) : 1;
    }
    std::vector<std::byte> bytes() const {
        return encode_set(long_name.value_or(std::u16string()), entry);
    }
};

}  // namespace

Result<const DirRecord*> Directory::Impl::find(std::string_view name) {
    TRY_VOID(load());
    const ParsedName parsed = TRY(parse_name_for_lookup(name, volume_.options()));
    const std::optional<std::uint32_t> id = find_key(name_key(parsed.units, volume_.options()));
    if (!id.has_value()) {
        return Errno{incomplete_ ? EIO : ENOENT};
    }
    return &records_[*id];
}

Result<> Directory::Impl::for_each(
    std::uint64_t cookie, const std::function<bool(const DirRecord&, std::uint64_t)>& visit) {
    TRY_VOID(load());
    for (std::uint64_t slot = cookie; slot < record_at_.size(); ++slot) {
        if (record_at_[slot] != kNoRecord && !visit(records_[record_at_[slot]], slot + 1)) {
            return {};
        }
    }
    // After all that could be read: the listing must not pass for a whole one.
    return incomplete_ ? Result<>(Errno{EIO}) : Result<>();
}

Result<DirRecord> Directory::Impl::add(const ParsedName& name, const ShortEntry& entry,
                                       bool& pending_would_do) {
    TRY_VOID(load());
    if (incomplete_) {
        return Errno{EIO};  // the name may be in the part that cannot be read
    }
    BUG_ON(find_key(name_key(name.units, volume_.options())).has_value(), "D1", "the name exists");
    collect_applied();
    const NamedSet set(entry, name, TRY(choose_alias(name, kNoRecord)));
    const Keys keys = keys_of(make_record({0, set.nr_slots()}, set.entry, set.long_name));
    const SlotRun place = TRY(place_for(keys, set.nr_slots(), pending_would_do));
    TRY_VOID(write_set(place, set.bytes()));
    return insert_record(make_record(place, set.entry, set.long_name));
}

Result<std::optional<DirRecord>> Directory::Impl::rename_in_sector(const DirRecord& record,
                                                                   const ParsedName& name,
                                                                   const ShortEntry& entry) {
    const SlotRun old{record.first_slot(), record.nr_slots};
    if (!slots_.in_one_sector(old)) {
        return std::optional<DirRecord>();
    }
    const std::uint32_t id = id_of(record);
    const NamedSet set(entry, name, TRY(choose_alias(name, id)));
    const std::uint32_t count = set.nr_slots();
    const std::optional<std::uint32_t> first =
        count <= old.count ? old.end() - count : slots_.find_in_sector_of(old, count);
    if (!first.has_value()) {
        return std::optional<DirRecord>();
    }
    const SlotRun place{*first, count};
    const ErasedPlace given =
        place_of_erased(keys_of(make_record(place, set.entry, set.long_name)), 1);
    const std::uint32_t per_sector = slots_.slots_per_sector();
    const bool is_allowed = given.kind == ErasedPlace::Kind::kAnywhere ||
                            (given.kind == ErasedPlace::Kind::kHere &&
                             given.run.first / per_sector == place.first / per_sector);
    if (!is_allowed) {
        return std::optional<DirRecord>();
    }
    PinnedBytes left_over(volume_);
    for (std::uint32_t slot = old.first; slot < old.end(); ++slot) {
        if (!place.contains(slot)) {
            TRY_VOID(pin_slots(left_over, {slot, 1}));
        }
    }
    TRY_VOID(write_set(place, set.bytes()));
    left_over.mark_deleted(PinnedBytes::Due::kEntry);
    note_erased(record);
    slots_.set_free(old);
    slots_.set_used(place);
    remove_record(id);
    return std::optional<DirRecord>(insert_record(make_record(place, set.entry, set.long_name)));
}

Result<DirRecord> Directory::Impl::rename(const DirRecord& record, const ParsedName& name,
                                          bool& pending_would_do) {
    const DirRecord old = record;  // `record` may be ours, and goes away
    if (incomplete_) {
        return Errno{EIO};
    }
    collect_applied();
    const ShortEntry entry = TRY(read_short_entry(volume_, old.i_pos));
    std::optional<DirRecord> moved = TRY(rename_in_sector(old, name, entry));
    if (moved.has_value()) {
        return *std::move(moved);
    }
    // For a while both sets are on the disk, so the old alias counts as taken.
    const NamedSet set(entry, name, TRY(choose_alias(name, kNoRecord)));
    const Keys keys = keys_of(make_record({0, set.nr_slots()}, set.entry, set.long_name));
    const SlotRun place = TRY(place_for(keys, set.nr_slots(), pending_would_do));
    TRY_VOID(write_set(place, set.bytes()));
    hold_back(old);
    return insert_record(make_record(place, set.entry, set.long_name));
}

Result<> Directory::Impl::erase(const DirRecord& record, Phase phase) {
    if (phase == Phase::kUnlink) {
        hold_back(record);
        return {};
    }
    BUG_ON(phase != Phase::kEntry);
    const std::uint32_t id = id_of(record);
    const SlotRun run{record.first_slot(), record.nr_slots};
    PinnedBytes bytes(volume_);
    TRY_VOID(pin_slots(bytes, run));
    bytes.mark_deleted(PinnedBytes::Due::kEntry);
    note_erased(record);
    slots_.set_free(run);
    remove_record(id);
    return {};
}

Result<> Directory::Impl::replace(const DirRecord& record, const ShortEntry& entry) {
    DirRecord& ours = records_[id_of(record)];
    TRY_VOID(write_short_entry(volume_, ours.i_pos, [&](ShortEntry& on_disk) {
        const ShortEntry old = on_disk;
        on_disk = entry;
        on_disk.name = old.name;
        on_disk.nt_reserved = static_cast<std::uint8_t>((entry.nt_reserved & ~kNtCaseMask) |
                                                        (old.nt_reserved & kNtCaseMask));
    }));
    nr_subdirectories_ +=
        (entry.is_directory() ? 1U : 0U) - ((ours.attr & kAttrDirectory) != 0 ? 1U : 0U);
    ours.attr = entry.attr;
    ours.directory_start = entry.is_directory() ? entry.first_cluster(volume_.geometry().type) : 0;
    return {};
}

Result<std::uint64_t> Directory::Impl::dotdot_i_pos() {
    TRY_VOID(load());
    if (!dotdot_slot_.has_value()) {
        volume_.fs_error("a directory has no \"..\" entry");
        return Errno{EIO};
    }
    return slot_offset_bytes(*dotdot_slot_);
}

bool Directory::Impl::is_held_back(std::string_view name) {
    const Result<ParsedName> parsed = parse_name_for_lookup(name, volume_.options());
    if (!parsed.has_value()) {
        return false;
    }
    const std::u16string key = name_key(parsed->units, volume_.options());
    const sync::MutexLock lock(held_back_->lock);
    return held_back_->keys.contains(key);
}

bool Directory::Impl::same_sector(const DirRecord& a, const DirRecord& b) const {
    const std::uint32_t first = std::min(a.first_slot(), b.first_slot());
    return slots_.in_one_sector({first, std::max(a.slot, b.slot) + 1 - first});
}

void Directory::Impl::forget() {
    reset();
    // Loaded and empty: nobody reads the slots of clusters that are being freed.
    loaded_.store(true);
}

// --- the door

Directory::Directory(Volume& volume, Inode& inode) : impl_(std::make_unique<Impl>(volume, inode)) {}

Directory::~Directory() = default;

Result<> Directory::load() {
    return impl_->load();
}

Result<const DirRecord*> Directory::find(std::string_view name) {
    return impl_->find(name);
}

bool Directory::is_empty() {
    return impl_->load().has_value() && impl_->is_empty();
}

std::uint32_t Directory::nr_subdirectories() {
    return impl_->load().has_value() ? impl_->nr_subdirectories() : 0;
}

Result<> Directory::for_each(std::uint64_t cookie,
                             const std::function<bool(const DirRecord&, std::uint64_t)>& visit) {
    return impl_->for_each(cookie, visit);
}

Result<DirRecord> Directory::add(const ParsedName& name, const ShortEntry& entry,
                                 bool& pending_would_do) {
    return impl_->add(name, entry, pending_would_do);
}

Result<> Directory::erase(const DirRecord& record, Phase phase) {
    TRY_VOID(impl_->load());
    return impl_->erase(record, phase);
}

Result<> Directory::replace(const DirRecord& record, const ShortEntry& entry) {
    TRY_VOID(impl_->load());
    return impl_->replace(record, entry);
}

bool Directory::is_held_back(std::string_view name) {
    return impl_->is_held_back(name);
}

bool Directory::anything_held_back() const {
    return impl_->anything_held_back();
}

Result<DirRecord> Directory::rename(const DirRecord& record, const ParsedName& name,
                                    bool& pending_would_do) {
    TRY_VOID(impl_->load());
    return impl_->rename(record, name, pending_would_do);
}

Result<std::uint64_t> Directory::dotdot_i_pos() {
    return impl_->dotdot_i_pos();
}

bool Directory::same_sector(const DirRecord& a, const DirRecord& b) const {
    return impl_->same_sector(a, b);
}

Result<ShortEntry> Directory::read_entry(std::uint64_t i_pos) const {
    return read_short_entry(impl_->volume(), i_pos);
}

void Directory::forget() {
    impl_->forget();
}

Result<std::uint32_t> Directory::nr_slots() {
    TRY_VOID(impl_->load());
    return impl_->nr_slots();
}

std::uint64_t Directory::nr_probes() const {
    return impl_->nr_probes();
}

}  // namespace wbfat::fs::inline WBFAT_RT
