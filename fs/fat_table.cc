// The FAT in the pages of the device mapping: reading, changing, holding back.
#include "fs/fat_table.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <utility>

#include "cache/base/check.h"
#include "cache/base/units.h"
#include "cache/filemap.h"
#include "cache/page.h"
#include "cache/page_lock.h"

namespace wbfat::fs::inline WBFAT_RT {
namespace {

constexpr std::uint32_t kFat12EndOfChain = 0xFFF;  // written; 0xFF8 .. 0xFFF are read as such
constexpr std::uint32_t kFat16EndOfChain = 0xFFFF;
constexpr std::uint32_t kFat32EndOfChain = 0x0FFFFFFF;
constexpr std::uint32_t kFat32Mask = 0x0FFFFFFF;
constexpr std::uint32_t kBadBelowEnd = 8;       // 0x..F7: bad cluster
constexpr std::uint32_t kFirstEndBelowEnd = 7;  // 0x..F8: the smallest end mark
constexpr std::uint32_t kFat16CleanBit = 0x8000;
constexpr std::uint32_t kFat32CleanBit = 0x08000000;
constexpr cluster_t kFlagsEntry = 1;             // FAT[1]
constexpr std::size_t kPieceBytes = 128U << 10;  // of the table, read at once by a scan
constexpr std::size_t kMaxEntryBytes = 4;

std::uint32_t end_of_chain_of(FatType type) {
    return type == FatType::kFat12   ? kFat12EndOfChain
           : type == FatType::kFat16 ? kFat16EndOfChain
                                     : kFat32EndOfChain;
}

std::uint64_t offset_in_table(FatType type, cluster_t number) {
    const std::uint64_t n = number;
    return type == FatType::kFat12 ? n + n / 2 : type == FatType::kFat16 ? n * 2 : n * 4;
}

constexpr unsigned entry_bytes(FatType type) {
    return type == FatType::kFat32 ? 4 : 2;
}

// The bytes an entry touches; of a FAT12 pair only half of the middle byte is its own.
using EntryBytes = std::array<std::byte, kMaxEntryBytes>;

std::uint32_t unpack(FatType type, cluster_t number, const EntryBytes& bytes) {
    const auto at = [&bytes](std::size_t i) { return std::to_integer<std::uint32_t>(bytes.at(i)); };
    const std::uint32_t low = at(0) | (at(1) << 8);
    switch (type) {
        case FatType::kFat12:
            return number % 2 != 0 ? low >> 4 : low & 0xFFFU;
        case FatType::kFat16:
            return low;
        case FatType::kFat32:
            break;
    }
    return low | (at(2) << 16) | (at(3) << 24);
}

void pack(FatType type, cluster_t number, std::uint32_t raw, EntryBytes& bytes) {
    if (type == FatType::kFat12) {
        const auto low = std::to_integer<std::uint32_t>(bytes[0]) |
                         (std::to_integer<std::uint32_t>(bytes[1]) << 8);
        raw = number % 2 != 0 ? (low & 0x000FU) | (raw << 4) : (low & 0xF000U) | (raw & 0xFFFU);
    }
    for (unsigned i = 0; i < entry_bytes(type); ++i) {
        bytes.at(i) = static_cast<std::byte>(raw >> (8 * i));
    }
}

std::uint32_t read_at(FatType type, cluster_t number, const std::byte* at) {
    EntryBytes bytes{};
    std::copy_n(at, entry_bytes(type), bytes.begin());
    return unpack(type, number, bytes);
}

void write_at(FatType type, cluster_t number, std::uint32_t raw, std::byte* at) {
    EntryBytes bytes{};
    std::copy_n(at, entry_bytes(type), bytes.begin());
    pack(type, number, raw, bytes);
    std::copy_n(bytes.begin(), entry_bytes(type), at);
}

// Changes bytes of a page of the device mapping and dirties the sectors they lie in, whole: a
// device with large blocks is never asked to write part of one.
template <typename Change>
void change_page(cache::Page& page, std::size_t offset, std::size_t length,
                 std::size_t sector_bytes, Change&& change) {
    const std::size_t from = offset / sector_bytes * sector_bytes;
    const std::size_t to = (offset + length + sector_bytes - 1) / sector_bytes * sector_bytes;
    cache::lock_page(page);
    cache::wait_for_stable_page(page);
    change(page.data + offset);
    cache::set_page_dirty(page, cache::blocks_covering(from, to - from));
    cache::unlock_page(page);
}

}  // namespace

FatValue decode_fat_entry(FatType type, std::uint32_t raw, std::uint32_t nr_clusters) {
    const std::uint32_t value = type == FatType::kFat32 ? raw & kFat32Mask : raw;
    const std::uint32_t end = end_of_chain_of(type);
    if (value == 0) {
        return FatValue::free();
    }
    if (value >= end - kFirstEndBelowEnd) {
        return FatValue::end_of_chain();
    }
    if (value == end - kBadBelowEnd) {
        return FatValue::bad();
    }
    if (value >= kFirstCluster && value - kFirstCluster < nr_clusters) {
        return FatValue::link(value);
    }
    return {FatValue::Kind::kReserved, 0};
}

std::uint32_t encode_fat_entry(FatType type, FatValue value, std::uint32_t old_raw) {
    std::uint32_t raw = 0;
    switch (value.kind) {
        case FatValue::Kind::kFree:
            break;
        case FatValue::Kind::kNext:
            raw = value.next;
            break;
        case FatValue::Kind::kEndOfChain:
            raw = end_of_chain_of(type);
            break;
        case FatValue::Kind::kBad:
            raw = end_of_chain_of(type) - kBadBelowEnd;
            break;
        case FatValue::Kind::kReserved:
            BUG_ON(value.kind == FatValue::Kind::kReserved, "a reserved value is never written");
            break;
    }
    return type == FatType::kFat32 ? (raw & kFat32Mask) | (old_raw & ~kFat32Mask) : raw;
}

std::uint32_t read_fat_entry(FatType type, std::span<const std::byte> table, cluster_t number) {
    return read_at(type, number,
                   table.subspan(offset_in_table(type, number), entry_bytes(type)).data());
}

void write_fat_entry(FatType type, std::span<std::byte> table, cluster_t number,
                     std::uint32_t raw) {
    write_at(type, number, raw,
             table.subspan(offset_in_table(type, number), entry_bytes(type)).data());
}

// One reference to a page.
class FatTable::PageRef {
public:
    PageRef() = default;
    // Takes over the caller's reference.
    explicit PageRef(cache::Page* page) : page_(page) {}
    PageRef(PageRef&& other) noexcept : page_(std::exchange(other.page_, nullptr)) {}
    PageRef& operator=(PageRef&& other) noexcept {
        std::swap(page_, other.page_);
        return *this;
    }
    PageRef(const PageRef&) = delete;
    PageRef& operator=(const PageRef&) = delete;
    ~PageRef() {
        if (page_ != nullptr) {
            cache::put_page(*page_);
        }
    }

    PageRef share() const {
        if (page_ != nullptr) {
            cache::get_page(*page_);
        }
        return PageRef(page_);
    }
    cache::Page* get() const {
        return page_;
    }

private:
    cache::Page* page_ = nullptr;
};

struct FatTable::HotPage {
    cache::pgoff_t index = 0;
    PageRef page;
};

// The page or two that hold one entry, or the first of a chunk.
struct FatTable::EntryPages {
    cache::pgoff_t index = 0;
    std::size_t offset = 0;  // in the first page
    PageRef first;
    PageRef second;  // FAT12 only, where the entry straddles the pages

    std::uint32_t read(FatType type, cluster_t number) const {
        if (second.get() == nullptr) {
            return read_at(type, number, first.get()->data + offset);
        }
        return unpack(type, number, {first.get()->data[offset], second.get()->data[0]});
    }
};

FatTable::FatTable(const Geometry& geometry, cache::AddressSpace& device_mapping,
                   MetadataSink& ordering)
    : geometry_(geometry), device_(device_mapping), ordering_(ordering), hot_(nr_copies()) {}

FatTable::~FatTable() = default;

FatValue FatTable::Fill::value_of(cluster_t cluster) const {
    return linked && cluster + 1 < end ? FatValue::link(cluster + 1) : last;
}

// --- where an entry lies
// -----------------------------------------------------------------------------------------------

std::uint32_t FatTable::nr_copies() const {
    return geometry_.mirroring ? geometry_.nr_fats : 1;
}

std::uint32_t FatTable::fat_of_copy(std::uint32_t copy) const {
    return geometry_.mirroring ? copy : geometry_.active_fat;
}

std::uint64_t FatTable::entry_offset(std::uint32_t copy, cluster_t cluster) const {
    return geometry_.fat_offset_bytes(fat_of_copy(copy)) + offset_in_table(geometry_.type, cluster);
}

unsigned FatTable::entry_length() const {
    return entry_bytes(geometry_.type);
}

// How many entries from `first` on lie in one page in every copy.
std::uint32_t FatTable::chunk_length(cluster_t first, std::uint32_t count) const {
    if (geometry_.type == FatType::kFat12) {
        return 1;
    }
    std::size_t most = count;
    for (std::uint32_t copy = 0; copy < nr_copies(); ++copy) {
        const std::size_t room =
            cache::kPageSize - cache::offset_in_page(entry_offset(copy, first));
        most = std::min(most, room / entry_length());
    }
    return static_cast<std::uint32_t>(most);
}

template <typename Note>
void FatTable::for_sectors_of(cluster_t first, std::uint32_t count, Note&& note) const {
    for (std::uint32_t copy = 0; copy < nr_copies(); ++copy) {
        const std::uint64_t sector = geometry_.sector_bytes;
        const std::uint64_t from = entry_offset(copy, first) / sector * sector;
        const std::uint64_t to = entry_offset(copy, first + count - 1) + entry_length();
        note(from, (to - from + sector - 1) / sector * sector);
    }
}

bool FatTable::same_sector(cluster_t a, cluster_t b) const {
    const auto sector_of = [this](cluster_t cluster, std::uint64_t byte) {
        return (offset_in_table(geometry_.type, cluster) + byte) / geometry_.sector_bytes;
    };
    const std::uint64_t last = entry_length() - 1;
    return sector_of(a, 0) == sector_of(b, 0) && sector_of(a, last) == sector_of(b, last) &&
           sector_of(a, 0) == sector_of(a, last);
}

// --- reading
// -----------------------------------------------------------------------------------------------------------

std::optional<FatValue> FatTable::overlay_locked(cluster_t cluster) const {
    if (!later_.empty()) {
        const auto it = later_.find(cluster);
        if (it != later_.end()) {
            return it->second.value;
        }
    }
    if (!later_free_.empty() && later_free_.contains(cluster)) {
        return FatValue::free();
    }
    return std::nullopt;
}

std::optional<std::uint32_t> FatTable::read_hot_locked(cluster_t cluster) const {
    const std::uint64_t offset = entry_offset(read_copy_, cluster);
    const std::size_t in_page = cache::offset_in_page(offset);
    const HotPage& hot = hot_[read_copy_];
    if (hot.page.get() == nullptr || hot.index != cache::page_index(offset) ||
        in_page + entry_length() > cache::kPageSize) {
        return std::nullopt;
    }
    return read_at(geometry_.type, cluster, hot.page.get()->data + in_page);
}

void FatTable::make_hot_locked(std::uint32_t copy, const EntryPages& pages) {
    HotPage& hot = hot_[copy];
    if (hot.page.get() != pages.first.get()) {
        hot.page = pages.first.share();
        hot.index = pages.index;
    }
}

Result<FatTable::EntryPages> FatTable::pin(std::uint32_t copy, cluster_t cluster) {
    const std::uint64_t offset = entry_offset(copy, cluster);
    EntryPages pages;
    pages.index = cache::page_index(offset);
    pages.offset = cache::offset_in_page(offset);
    pages.first = PageRef(TRY(cache::read_mapping_page(device_, pages.index)));
    if (pages.offset + entry_length() > cache::kPageSize) {
        pages.second = PageRef(TRY(cache::read_mapping_page(device_, pages.index + 1)));
    }
    return pages;
}

// From the device, the active copy first. A copy that cannot be read is passed over for the next
// one.
Result<std::uint32_t> FatTable::read_raw(cluster_t cluster) {
    const std::uint32_t first_choice = geometry_.mirroring ? geometry_.active_fat : 0;
    Errno error{EIO};
    for (std::uint32_t i = 0; i < nr_copies(); ++i) {
        const std::uint32_t copy = (first_choice + i) % nr_copies();
        const Result<EntryPages> pages = pin(copy, cluster);
        if (!pages.has_value()) {
            error = i == 0 ? pages.error() : error;
            continue;
        }
        sync::MutexLock lock(fat_lock_);
        make_hot_locked(copy, *pages);
        read_copy_ = copy;
        return pages->read(geometry_.type, cluster);
    }
    return error;
}

Result<FatValue> FatTable::get(cluster_t cluster) {
    BUG_ON(!geometry_.is_data_cluster(cluster), "no such cluster");
    {
        sync::MutexLock lock(fat_lock_);
        const std::optional<FatValue> newer = overlay_locked(cluster);
        if (newer.has_value()) {
            return *newer;
        }
        const std::optional<std::uint32_t> raw = read_hot_locked(cluster);
        if (raw.has_value()) {
            return decode_fat_entry(geometry_.type, *raw, geometry_.nr_clusters);
        }
    }
    return decode_fat_entry(geometry_.type, TRY(read_raw(cluster)), geometry_.nr_clusters);
}

// --- changing
// ----------------------------------------------------------------------------------------------------------

// The fast way of a single change: every copy's page is the one used last.
bool FatTable::write_hot_locked(cluster_t cluster, FatValue value) {
    for (std::uint32_t copy = 0; copy < nr_copies(); ++copy) {
        const std::uint64_t offset = entry_offset(copy, cluster);
        if (hot_[copy].page.get() == nullptr || hot_[copy].index != cache::page_index(offset) ||
            cache::offset_in_page(offset) + entry_length() > cache::kPageSize) {
            return false;
        }
    }
    for (std::uint32_t copy = 0; copy < nr_copies(); ++copy) {
        const std::size_t in_page = cache::offset_in_page(entry_offset(copy, cluster));
        change_page(*hot_[copy].page.get(), in_page, entry_length(), geometry_.sector_bytes,
                    [&](std::byte* at) {
                        const std::uint32_t old_raw = read_at(geometry_.type, cluster, at);
                        write_at(geometry_.type, cluster,
                                 encode_fat_entry(geometry_.type, value, old_raw), at);
                    });
    }
    return true;
}

// Requires count <= chunk_length(first, count).
Result<> FatTable::write_chunk(cluster_t first, std::uint32_t count, const Fill& fill) {
    const FatType type = geometry_.type;
    std::vector<EntryPages> copies;  // T1: all of them, before any is touched
    copies.reserve(nr_copies());
    for (std::uint32_t copy = 0; copy < nr_copies(); ++copy) {
        copies.push_back(TRY(pin(copy, first)));
    }
    sync::MutexLock lock(fat_lock_);
    for (std::uint32_t copy = 0; copy < nr_copies(); ++copy) {
        const EntryPages& pages = copies[copy];
        make_hot_locked(copy, pages);
        if (pages.second.get() == nullptr) {
            const std::size_t length = std::size_t{count} * entry_length();
            change_page(
                *pages.first.get(), pages.offset, length, geometry_.sector_bytes,
                [&](std::byte* at) {
                    for (cluster_t n = first; n < first + count; ++n, at += entry_length()) {
                        const std::uint32_t old_raw = read_at(type, n, at);
                        write_at(type, n, encode_fat_entry(type, fill.value_of(n), old_raw), at);
                    }
                });
            continue;
        }
        const std::uint32_t raw = encode_fat_entry(type, fill.value_of(first), 0);
        EntryBytes bytes = {pages.first.get()->data[pages.offset], pages.second.get()->data[0]};
        pack(type, first, raw, bytes);
        change_page(*pages.first.get(), pages.offset, 1, geometry_.sector_bytes,
                    [&bytes](std::byte* at) { *at = bytes[0]; });
        change_page(*pages.second.get(), 0, 1, geometry_.sector_bytes,
                    [&bytes](std::byte* at) { *at = bytes[1]; });
    }
    return {};
}

Result<> FatTable::fill_entries(cluster_t first, std::uint32_t count, const Fill& fill,
                                std::uint32_t& done) {
    for (done = 0; done < count;) {
        const std::uint32_t length = chunk_length(first + done, count - done);
        TRY_VOID(write_chunk(first + done, length, fill));
        done += length;
    }
    return {};
}

Result<> FatTable::set(cluster_t cluster, FatValue value) {
    BUG_ON(!geometry_.is_data_cluster(cluster), "no such cluster");
    bool written = false;
    {
        sync::MutexLock lock(fat_lock_);
        BUG_ON(overlay_locked(cluster).has_value(), "O3", "a held-back FAT entry is changed");
        written = write_hot_locked(cluster, value);
    }
    if (!written) {
        TRY_VOID(write_chunk(cluster, 1, {value, false, 0}));
    }
    for_sectors_of(cluster, 1, [this](std::uint64_t offset, std::uint64_t length) {
        ordering_.note_blocks(Phase::kAllocate, offset, length);
    });
    return {};
}

Result<> FatTable::set_chain(const ClusterRun& run, FatValue last) {
    BUG_ON(run.count == 0 || !geometry_.is_data_cluster(run.first) ||
               !geometry_.is_data_cluster(run.first + (run.count - 1)),
           "no such clusters");
    {
        sync::MutexLock lock(fat_lock_);
        BUG_ON(later_free_.count_in(run) != 0, "O3", "a held-back FAT entry is changed");
    }
    std::uint32_t done = 0;
    const Result<> result =
        fill_entries(run.first, run.count, {last, true, run.first + run.count}, done);
    if (!result.has_value() && done != 0) {
        std::uint32_t undone = 0;
        // Their pages were just here; if they are not to be had now, the clusters are lost until a
        // check.
        static_cast<void>(fill_entries(run.first, done, {FatValue::free(), false, 0}, undone));
    }
    const std::uint32_t touched = result.has_value() ? run.count : done;
    if (touched != 0) {
        for_sectors_of(run.first, touched, [this](std::uint64_t offset, std::uint64_t length) {
            ordering_.note_blocks(Phase::kAllocate, offset, length);
        });
    }
    return result;
}

// --- holding back
// --------------------------------------------------------------------------------------------------------

// Asks for one call in the phase; it applies everything of the phase that is in the overlay then. A
// second call of the same phase finds nothing to do, which is cheaper than to keep track of what
// the commit still has.
void FatTable::hold_back(Phase phase) {
    ordering_.hold_back(phase, [this, phase] { return apply(phase); });
}

Result<> FatTable::set_later(cluster_t cluster, FatValue value, Phase phase) {
    BUG_ON(!geometry_.is_data_cluster(cluster), "no such cluster");
    BUG_ON(phase == Phase::kAllocate, "FAT entries are held back for a later phase than set()'s");
    // Reads the page now: the commit should find it, and an unreadable sector is the caller's
    // error, not the commit's.
    if (!is_held_back(cluster)) {
        static_cast<void>(TRY(get(cluster)));
    }
    {
        sync::MutexLock lock(fat_lock_);
        later_[cluster] = {value, phase};
        later_free_.erase({cluster, 1});
    }
    hold_back(phase);
    return {};
}

Result<> FatTable::free_runs_later(std::vector<ClusterRun> runs) {
    {
        sync::MutexLock lock(fat_lock_);
        for (const ClusterRun& run : runs) {
            BUG_ON(run.count == 0 || !geometry_.is_data_cluster(run.first) ||
                       !geometry_.is_data_cluster(run.first + (run.count - 1)),
                   "no such clusters");
            later_free_.insert(run);
            std::erase_if(later_, [&run](const auto& entry) {
                return entry.first >= run.first && entry.first - run.first < run.count;
            });
        }
    }
    if (!runs.empty()) {
        hold_back(Phase::kFree);
    }
    return {};
}

bool FatTable::is_held_back(cluster_t cluster) const {
    sync::MutexLock lock(fat_lock_);
    return overlay_locked(cluster).has_value();
}

Result<> FatTable::apply_value(cluster_t cluster, FatValue value) {
    TRY_VOID(write_chunk(cluster, 1, {value, false, 0}));
    for_sectors_of(cluster, 1, [this](std::uint64_t offset, std::uint64_t length) {
        ordering_.note_applied(offset, length);
    });
    return {};
}

Result<> FatTable::apply_free(const ClusterRun& run) {
    std::uint32_t done = 0;
    const Result<> result = fill_entries(run.first, run.count, {FatValue::free(), false, 0}, done);
    if (done != 0) {
        for_sectors_of(run.first, done, [this](std::uint64_t offset, std::uint64_t length) {
            ordering_.note_applied(offset, length);
        });
    }
    return result;
}

// Called by the commit, with no transaction running: the overlay does not grow meanwhile. What
// could not be written stays in it, and is applied again when the commit is tried again.
Result<> FatTable::apply(Phase phase) {
    std::vector<std::pair<cluster_t, FatValue>> values;
    std::vector<ClusterRun> free_runs;
    {
        sync::MutexLock lock(fat_lock_);
        for (const auto& [cluster, later] : later_) {
            if (later.phase == phase) {
                values.emplace_back(cluster, later.value);
            }
        }
        if (phase == Phase::kFree) {
            later_free_.for_each([&free_runs](const ClusterRun& run) { free_runs.push_back(run); });
        }
    }
    std::sort(values.begin(), values.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const ClusterRun& run : free_runs) {
        TRY_VOID(apply_free(run));
    }
    for (const auto& [cluster, value] : values) {
        TRY_VOID(apply_value(cluster, value));
    }
    sync::MutexLock lock(fat_lock_);
    for (const auto& [cluster, value] : values) {
        later_.erase(cluster);
    }
    if (phase == Phase::kFree) {
        later_free_.clear();
    }
    return {};
}

// --- scanning
// ------------------------------------------------------------------------------------------------------------

// The bytes of `count` entries. Copied under fat_lock (T2); the pages are read before it is taken.
Result<std::vector<std::uint8_t>> FatTable::read_piece(std::uint32_t copy, cluster_t first,
                                                       std::uint32_t count) {
    const std::uint64_t start = entry_offset(copy, first);
    const std::uint64_t length = entry_offset(copy, first + count - 1) + entry_length() - start;
    std::vector<std::uint8_t> bytes;
    bytes.reserve(length);
    cache::ReadaheadState readahead;
    while (bytes.size() < length) {
        cache::PageVec pages;
        TRY_VOID(cache::filemap_read_pages(device_, readahead, start + bytes.size(),
                                           length - bytes.size(), pages));
        if (pages.size_bytes() == 0) {
            return Errno{EIO};  // the device ends inside the table
        }
        sync::MutexLock lock(fat_lock_);
        for (const cache::PageVec::Piece& piece : pages.pieces()) {
            const std::byte* const from = piece.page->data + piece.offset_bytes;
            std::transform(from, from + piece.length_bytes, std::back_inserter(bytes),
                           [](std::byte b) { return std::to_integer<std::uint8_t>(b); });
        }
    }
    return bytes;
}

Result<std::vector<std::uint8_t>> FatTable::read_piece_of_any(cluster_t first,
                                                              std::uint32_t count) {
    const std::uint32_t first_choice = geometry_.mirroring ? geometry_.active_fat : 0;
    Errno error{EIO};
    for (std::uint32_t i = 0; i < nr_copies(); ++i) {
        Result<std::vector<std::uint8_t>> bytes =
            read_piece((first_choice + i) % nr_copies(), first, count);
        if (bytes.has_value()) {
            return bytes;
        }
        error = i == 0 ? bytes.error() : error;
    }
    return error;
}

Result<> FatTable::for_each_free_run(
    cluster_t first, cluster_t last,
    const std::function<void(cluster_t first, cluster_t count)>& visit) {
    BUG_ON(first > last || !geometry_.is_data_cluster(first) || !geometry_.is_data_cluster(last),
           "no such clusters");
    const auto per_piece =
        static_cast<std::uint32_t>(kPieceBytes * 8 / static_cast<unsigned>(geometry_.type));
    const std::uint32_t mask = geometry_.type == FatType::kFat32 ? kFat32Mask : ~0U;
    ClusterRun run;
    const auto end_run = [&] {
        if (run.count != 0) {
            visit(run.first, run.count);
        }
        run.count = 0;
    };
    for (cluster_t piece = first; piece <= last; piece += per_piece) {
        const std::uint32_t count = std::min(per_piece, last - piece + 1);
        const std::vector<std::uint8_t> bytes = TRY(read_piece_of_any(piece, count));
        const std::uint64_t base = offset_in_table(geometry_.type, piece);
        const auto* const data = reinterpret_cast<const std::byte*>(bytes.data());
        for (cluster_t n = piece; n < piece + count; ++n) {
            if ((read_at(geometry_.type, n, data + (offset_in_table(geometry_.type, n) - base)) &
                 mask) != 0) {
                end_run();
                continue;
            }
            run.first = run.count == 0 ? n : run.first;
            ++run.count;
        }
    }
    end_run();
    return {};
}

// --- the clean bit
// ---------------------------------------------------------------------------------------------------------

Result<bool> FatTable::clean_bit() {
    if (geometry_.type == FatType::kFat12) {
        return true;
    }
    const std::uint32_t raw = TRY(read_raw(kFlagsEntry));
    return (raw & (geometry_.type == FatType::kFat16 ? kFat16CleanBit : kFat32CleanBit)) != 0;
}

Result<> FatTable::set_clean_bit(bool clean) {
    if (geometry_.type == FatType::kFat12) {
        return {};
    }
    const std::uint32_t bit = geometry_.type == FatType::kFat16 ? kFat16CleanBit : kFat32CleanBit;
    std::vector<EntryPages> copies;
    for (std::uint32_t copy = 0; copy < nr_copies(); ++copy) {
        copies.push_back(TRY(pin(copy, kFlagsEntry)));
    }
    sync::MutexLock lock(fat_lock_);
    for (const EntryPages& pages : copies) {
        change_page(*pages.first.get(), pages.offset, entry_length(), geometry_.sector_bytes,
                    [&](std::byte* at) {
                        const std::uint32_t raw = read_at(geometry_.type, kFlagsEntry, at);
                        write_at(geometry_.type, kFlagsEntry, clean ? raw | bit : raw & ~bit, at);
                    });
    }
    return {};
}

}  // namespace wbfat::fs::inline WBFAT_RT
