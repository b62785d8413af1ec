// Directory sectors as bytes in pages; see dir_pages.h.
#include "fs/dir_pages.h"

#include <algorithm>
#include <array>

#include "cache/base/check.h"
#include "cache/filemap.h"
#include "cache/page_lock.h"
#include "fs/dir.h"
#include "fs/layout.h"
#include "fs/volume.h"

namespace wbfat::fs::inline WBFAT_RT {

namespace {

struct ByteRange {
    std::uint64_t offset_bytes;
    std::uint64_t length_bytes;
};

// The volume's sectors under the range: they are written whole, and a sector is what a power cut
// leaves whole.
ByteRange whole_sectors(const Volume& volume, std::uint64_t offset_bytes,
                        std::uint64_t length_bytes) {
    const std::uint64_t sector = volume.geometry().sector_bytes;
    const std::uint64_t first = offset_bytes / sector * sector;
    const std::uint64_t end = (offset_bytes + length_bytes + sector - 1) / sector * sector;
    return {first, end - first};
}

}  // namespace

PinnedBytes::~PinnedBytes() {
    for (const Piece& piece : pieces_) {
        cache::put_page(*piece.page);
    }
}

Result<> PinnedBytes::pin(std::uint64_t device_offset_bytes, std::uint32_t length_bytes) {
    const std::uint64_t end = device_offset_bytes + length_bytes;
    while (device_offset_bytes < end) {
        const std::uint64_t page_end =
            cache::page_offset(cache::page_index(device_offset_bytes) + 1);
        const auto length =
            static_cast<std::uint32_t>(std::min(page_end, end) - device_offset_bytes);
        cache::Page* page = TRY(cache::read_mapping_page(volume_.device_mapping(),
                                                         cache::page_index(device_offset_bytes)));
        pieces_.push_back({page, device_offset_bytes, length});
        device_offset_bytes += length;
    }
    return {};
}

void PinnedBytes::change(
    Due due, const std::function<void(std::span<std::byte> piece, std::size_t done)>& how) {
    std::size_t done = 0;
    for (const Piece& piece : pieces_) {
        const std::size_t at = cache::offset_in_page(piece.device_offset_bytes);
        // A sector never crosses a page: both are powers of two and a sector is not larger.
        const ByteRange sectors =
            whole_sectors(volume_, piece.device_offset_bytes, piece.length_bytes);
        cache::lock_page(*piece.page);
        cache::wait_for_stable_page(*piece.page);
        how(std::span(piece.page->data + at, piece.length_bytes), done);
        cache::set_page_dirty(*piece.page,
                              cache::blocks_covering(cache::offset_in_page(sectors.offset_bytes),
                                                     sectors.length_bytes));
        cache::unlock_page(*piece.page);
        if (due == Due::kEntry) {
            volume_.ordering().note_blocks(Phase::kEntry, sectors.offset_bytes,
                                           sectors.length_bytes);
        } else {
            volume_.ordering().note_applied(sectors.offset_bytes, sectors.length_bytes);
        }
        done += piece.length_bytes;
    }
}

void PinnedBytes::write(std::span<const std::byte> bytes) {
    change(Due::kEntry, [&](std::span<std::byte> piece, std::size_t done) {
        const std::span<const std::byte> from = bytes.subspan(done, piece.size());
        std::copy(from.begin(), from.end(), piece.begin());
    });
}

void PinnedBytes::mark_deleted(Due due) {
    change(due, [](std::span<std::byte> piece, std::size_t) {
        for (std::size_t at = 0; at < piece.size(); at += kDirEntryBytes) {
            piece[at] = std::byte{kDirEntryDeleted};
        }
    });
}

Result<ShortEntry> read_short_entry(Volume& volume, std::uint64_t i_pos) {
    cache::Page& page =
        *TRY(cache::read_mapping_page(volume.device_mapping(), cache::page_index(i_pos)));
    // The lock keeps the commit's update of this entry out of the copy.
    cache::lock_page(page);
    const auto entry = load<ShortEntry>(std::span<const std::byte>(page.data, cache::kPageSize),
                                        cache::offset_in_page(i_pos));
    cache::unlock_page(page);
    cache::put_page(page);
    return entry;
}

Result<> write_short_entry(Volume& volume, std::uint64_t i_pos,
                           const std::function<void(ShortEntry&)>& change) {
    BUG_ON(i_pos % kDirEntryBytes != 0);
    PinnedBytes bytes(volume);
    TRY_VOID(bytes.pin(i_pos, kDirEntryBytes));
    bytes.change(PinnedBytes::Due::kEntry, [&](std::span<std::byte> piece, std::size_t) {
        auto entry = load<ShortEntry>(piece);
        change(entry);
        store(piece, entry);
    });
    return {};
}

}  // namespace wbfat::fs::inline WBFAT_RT
