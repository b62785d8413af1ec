// Reading a directory: its chain, its slots, its names.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "cache/filemap.h"
#include "cache/page_lock.h"
#include "fs/dir_impl.h"
#include "fs/inode.h"
#include "fs/volume.h"

namespace wbfat::fs::inline WBFAT_RT {

namespace {

// One request to the cache while a directory is read.
constexpr std::uint32_t kLoadBytes = 64 * 1024;
constexpr std::uint32_t kSlotBytes = kDirEntryBytes;

bool is_damage(int error) {
    return error == EIO || error == EUCLEAN;
}

// A copy, because the commit may be refreshing entries of files in this directory.
std::array<std::byte, cache::kPageSize> copy_page(cache::Page& page) {
    std::array<std::byte, cache::kPageSize> copy;  // NOLINT(*-member-init): filled at once
    cache::lock_page(page);
    std::memcpy(copy.data(), page.data, copy.size());
    cache::unlock_page(page);
    return copy;
}

}  // namespace

Result<> Directory::Impl::load() {
    if (loaded_.load()) {
        return {};
    }
    const sync::MutexLock lock(load_lock_);
    if (loaded_.load()) {
        return {};
    }
    reset();
    if (!is_fixed_root()) {
        TRY_VOID(read_chain());
    }
    const std::vector<DeviceRun> runs = device_runs();
    LoadState state;
    state.used.resize(runs.empty() ? 0 : runs.back().slots.end());
    record_at_.assign(state.used.size(), kNoRecord);
    end_ = slots_in_all();
    for (const DeviceRun& run : runs) {
        TRY_VOID(load_run(run, state));
    }
    slots_.assign(std::move(state.used));
    if (duplicates_) {
        volume_.log(LogLevel::kWarning,
                    "a directory holds several entries of one name; the first one is used");
    }
    loaded_.store(true);
    return {};
}

void Directory::Impl::reset() {
    chain_.clear();
    damaged_ = incomplete_ = duplicates_ = false;
    holes_.clear();
    end_ = nr_records_ = nr_subdirectories_ = 0;
    dotdot_slot_.reset();
    slots_.assign({});
    index_.clear();
    records_.clear();
    free_ids_.clear();
    record_at_.clear();
}

Result<> Directory::Impl::read_chain() {
    const std::size_t max_clusters = kMaxDirEntries / slots_per_cluster_;
    std::unordered_set<cluster_t> seen;
    while (true) {
        const auto extent = inode_.find_cluster(static_cast<std::uint32_t>(chain_.size()));
        if (!extent.has_value()) {
            if (!is_damage(extent.error().value) || chain_.empty()) {
                return extent.error();
            }
            damaged_ = true;
            return {};
        }
        if (!extent->has_value()) {
            break;
        }
        for (std::uint32_t i = 0; i < (*extent)->count; ++i) {
            if (chain_.size() == max_clusters) {
                volume_.fs_error("a directory has more than 65536 entries");
                damaged_ = true;
                return {};
            }
            if (!seen.insert((*extent)->disk_cluster + i).second) {
                volume_.fs_error("the cluster chain of a directory loops");
                damaged_ = true;
                return {};
            }
            chain_.push_back((*extent)->disk_cluster + i);
        }
    }
    if (chain_.empty()) {
        volume_.fs_error("a directory has no clusters");
        return Errno{EIO};
    }
    return {};
}

std::vector<Directory::Impl::DeviceRun> Directory::Impl::device_runs() const {
    std::vector<DeviceRun> runs;
    if (is_fixed_root()) {
        runs.push_back({{0, max_slots()}, volume_.geometry().root_dir_offset_bytes()});
        return runs;
    }
    for (std::uint32_t i = 0; i < chain_.size(); ++i) {
        if (i > 0 && chain_[i] == chain_[i - 1] + 1) {
            runs.back().slots.count += slots_per_cluster_;
        } else {
            runs.push_back({{i * slots_per_cluster_, slots_per_cluster_},
                            volume_.geometry().cluster_offset_bytes(chain_[i])});
        }
    }
    return runs;
}

Result<> Directory::Impl::load_run(const DeviceRun& run, LoadState& state) {
    cache::ReadaheadState readahead;
    std::uint32_t slot = run.slots.first;
    while (slot < run.slots.end()) {
        const std::uint64_t offset =
            run.device_offset_bytes + std::uint64_t{slot - run.slots.first} * kDirEntryBytes;
        const std::uint32_t wanted = static_cast<std::uint32_t>(std::min<std::uint64_t>(
            kLoadBytes, std::uint64_t{run.slots.end() - slot} * kDirEntryBytes));
        cache::PageVec pages;
        const Result<> read =
            cache::filemap_read_pages(volume_.device_mapping(), readahead, offset, wanted, pages);
        if (!read.has_value() && !is_damage(read.error().value)) {
            return read;
        }
        const std::uint32_t chunk_end = slot + wanted / kSlotBytes;
        for (const cache::PageVec::Piece& piece : pages.pieces()) {
            const auto copy = copy_page(*piece.page);
            load_slots(slot, std::span(copy).subspan(piece.offset_bytes, piece.length_bytes),
                       state);
            slot += piece.length_bytes / kSlotBytes;
        }
        if (slot < chunk_end) {
            TRY_VOID(load_page_wise({{slot, chunk_end - slot}, run.device_offset_bytes},
                                    run.slots.first, state));
            slot = chunk_end;
        }
    }
    return {};
}

// Where a large read failed: finds out which pages can be read. `run.device_offset_bytes` is that
// of `first_slot`.
Result<> Directory::Impl::load_page_wise(const DeviceRun& run, std::uint32_t first_slot,
                                         LoadState& state) {
    std::uint32_t slot = run.slots.first;
    while (slot < run.slots.end()) {
        const std::uint64_t offset =
            run.device_offset_bytes + std::uint64_t{slot - first_slot} * kDirEntryBytes;
        const std::size_t at = cache::offset_in_page(offset);
        const auto count = static_cast<std::uint32_t>(std::min<std::size_t>(
            (cache::kPageSize - at) / kDirEntryBytes, run.slots.end() - slot));
        const Result<cache::Page*> page =
            cache::read_mapping_page(volume_.device_mapping(), cache::page_index(offset));
        if (page.has_value()) {
            const auto copy = copy_page(**page);
            cache::put_page(**page);
            load_slots(slot, std::span(copy).subspan(at, std::size_t{count} * kDirEntryBytes),
                       state);
        } else if (is_damage(page.error().value)) {
            load_unreadable({slot, count}, state);
        } else {
            return page.error();
        }
        slot += count;
    }
    return {};
}

void Directory::Impl::load_unreadable(SlotRun run, LoadState& state) {
    if (!incomplete_) {
        volume_.log(LogLevel::kError, "a part of a directory cannot be read");
    }
    incomplete_ = true;
    state.long_name.reset();
    read_on(run.first, state);
    for (std::uint32_t slot = run.first; slot < run.end(); ++slot) {
        state.used[slot] = true;
    }
}

void Directory::Impl::load_slots(std::uint32_t first_slot, std::span<const std::byte> bytes,
                                 LoadState& state) {
    for (std::size_t at = 0; at < bytes.size(); at += kDirEntryBytes) {
        const auto slot = first_slot + static_cast<std::uint32_t>(at / kDirEntryBytes);
        const auto entry = fs::load<ShortEntry>(bytes, at);
        if (entry.is_end()) {
            state.long_name.reset();
            end_ = state.ended ? end_ : slot;
            state.ended = true;
            continue;
        }
        read_on(slot, state);
        if (entry.is_long_slot() && !entry.is_free()) {
            state.used[slot] = true;
            state.long_name.feed(fs::load<LongSlot>(bytes, at));
        } else {
            load_slot(slot, entry, state);
        }
    }
}

// Something is there behind what looked like the end (D3): Linux and fsck.fat read on, and so do
// we.
void Directory::Impl::read_on(std::uint32_t slot, LoadState& state) {
    if (state.ended) {
        holes_.push_back({end_, slot - end_});
        end_ = slots_in_all();
        state.ended = false;
    }
}

void Directory::Impl::load_slot(std::uint32_t slot, const ShortEntry& entry, LoadState& state) {
    if (entry.is_free()) {
        state.long_name.reset();
        return;
    }
    state.used[slot] = true;
    if (entry.is_volume_label() || entry.is_dot() || entry.is_dotdot()) {
        state.long_name.reset();
        if (entry.is_dotdot() && !dotdot_slot_.has_value()) {
            dotdot_slot_ = slot;
        }
        return;
    }
    load_name(slot, entry, state);
}

void Directory::Impl::load_name(std::uint32_t slot, const ShortEntry& entry, LoadState& state) {
    const std::uint32_t nr_long_slots = state.long_name.nr_slots();
    std::optional<std::u16string> long_name = state.long_name.finish(entry.name);
    const std::uint32_t count = long_name.has_value() ? nr_long_slots + 1 : 1;
    DirRecord record = make_record({slot + 1 - count, count}, entry, std::move(long_name));
    // Nothing but blanks or dots: neither Linux nor Windows shows it, and a ".." here would be
    // taken for the parent.
    if (record.name.empty() || !is_usable_long_name(record.units)) {
        return;
    }
    insert_record(std::move(record));
}

}  // namespace wbfat::fs::inline WBFAT_RT
