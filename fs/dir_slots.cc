// Long-name sets to bytes and back; see dir_slots.h.
#include "fs/dir_slots.h"

#include <algorithm>

#include "cache/base/check.h"

namespace wbfat::fs::inline WBFAT_RT {

void LongNameReader::reset() {
    total_ = 0;
    next_ = 0;
}

void LongNameReader::feed(const LongSlot& slot) {
    // Bit 7 means nothing in a live slot, so it may not be masked away: the ordinal is then out of
    // range.
    const std::uint32_t ordinal = slot.ordinal & ~std::uint32_t{kLastLongSlot};
    if (slot.is_last()) {
        reset();
        if (ordinal == 0 || ordinal > kMaxLongSlots) {
            return;
        }
        total_ = ordinal;
        checksum_ = slot.checksum;
    } else if (total_ == 0 || ordinal != next_ || ordinal == 0 || slot.checksum != checksum_) {
        reset();
        return;
    }
    next_ = ordinal - 1;
    for (std::size_t i = 0; i < kLongSlotUnits; ++i) {
        units_.at(next_ * kLongSlotUnits + i) = slot.unit(i);
    }
}

std::optional<std::u16string> LongNameReader::finish(const ShortName& name) {
    const bool complete = total_ != 0 && next_ == 0 && checksum_ == short_name_checksum(name);
    const std::size_t nr_units = total_ * kLongSlotUnits;
    reset();
    if (!complete) {
        return std::nullopt;
    }
    std::u16string units(units_.data(), nr_units);
    units.resize(std::min(units.find(u'\0'), nr_units));
    if (units.size() > kMaxNameUnits || !is_usable_long_name(units)) {
        return std::nullopt;
    }
    return units;
}

std::vector<std::byte> encode_set(std::u16string_view long_name, const ShortEntry& entry) {
    BUG_ON(long_name.size() > kMaxNameUnits);
    const std::uint32_t nr_slots = slots_for(long_name.size());
    std::vector<std::byte> bytes(std::size_t{nr_slots} * kDirEntryBytes);
    const std::uint8_t checksum = short_name_checksum(entry.name);
    for (std::uint32_t ordinal = 1; ordinal < nr_slots; ++ordinal) {
        LongSlot slot;
        slot.ordinal =
            static_cast<std::uint8_t>(ordinal | (ordinal + 1 == nr_slots ? kLastLongSlot : 0U));
        slot.attr = kAttrLongName;
        slot.checksum = checksum;
        for (std::size_t i = 0; i < kLongSlotUnits; ++i) {
            const std::size_t at = (ordinal - 1) * kLongSlotUnits + i;
            // One terminator if there is room, then padding.
            slot.set_unit(i, at < long_name.size()    ? long_name[at]
                             : at == long_name.size() ? u'\0'
                                                      : u'\xFFFF');
        }
        store(std::span(bytes), slot, (nr_slots - 1 - ordinal) * kDirEntryBytes);
    }
    store(std::span(bytes), entry, (nr_slots - 1) * kDirEntryBytes);
    return bytes;
}

}  // namespace wbfat::fs::inline WBFAT_RT
