// Sets of slots: a name's long-name slots and the short entry behind them, to bytes and back.
//
// Pure functions and one small state machine; no disk, no cache.
//
// Source: Microsoft FAT specification, long directory entries; Linux fs/fat/dir.c fat_parse_long;
// fat.md 7.14.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/base/runtime.h"
#include "fs/layout.h"
#include "fs/names.h"

namespace wbfat::fs::inline WBFAT_RT {

// Collects long-name slots while a directory is read in slot order. Total: any bytes are fine.
class LongNameReader {
public:
    // A slot that is not a long-name slot nor the set's short entry lies between: the set is
    // broken.
    void reset();
    void feed(const LongSlot& slot);
    // The long name that belongs to this short entry, or nothing when the slots just before it are
    // no complete set with its checksum, or spell no name (empty, over 255 units, only dots).
    // Forgets them either way.
    std::optional<std::u16string> finish(const ShortName& name);
    // Slots of the set being collected; ask before finish().
    std::uint32_t nr_slots() const {
        return total_;
    }

private:
    std::array<char16_t, kMaxLongSlots * kLongSlotUnits> units_{};
    std::uint32_t total_ = 0;  // slots the set has; 0: none is being collected
    std::uint32_t next_ = 0;   // ordinal expected next; 0: complete
    std::uint8_t checksum_ = 0;
};

// Slots a name of this many units takes, its short entry included.
constexpr std::uint32_t slots_for(std::size_t nr_units) {
    return static_cast<std::uint32_t>((nr_units + kLongSlotUnits - 1) / kLongSlotUnits) + 1;
}

// The set as it lies on the disk, last long-name slot first. `long_name` may be empty: the short
// entry alone. Requires long_name.size() <= kMaxNameUnits.
std::vector<std::byte> encode_set(std::u16string_view long_name, const ShortEntry& entry);

}  // namespace wbfat::fs::inline WBFAT_RT
