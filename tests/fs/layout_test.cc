// Goal: the structures of the disk mean what the specification says. Method: bytes as other systems
// write them, field by field, beside the static_asserts of layout.h.
#include "fs/layout.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <gtest/gtest.h>

namespace wbfat::fs {
namespace {

TEST(LayoutTest, NumbersAreLittleEndianAtAnyAlignment) {
    std::array<std::byte, 9> bytes{};
    store(std::span<std::byte>(bytes), Le32(0x12345678), 1);
    store(std::span<std::byte>(bytes), Le16(0xABCD), 5);
    EXPECT_EQ(bytes[1], std::byte{0x78});
    EXPECT_EQ(bytes[4], std::byte{0x12});
    EXPECT_EQ(bytes[5], std::byte{0xCD});
    EXPECT_EQ(load<Le32>(bytes, 1).get(), 0x12345678U);
    EXPECT_EQ(load<Le16>(bytes, 5).get(), 0xABCDU);
}

// A short entry as Linux wrote it: README.TXT, cluster 0x00021234, 5 bytes.
constexpr std::array<std::uint8_t, 32> kEntry = {
    'R',  'E',  'A',  'D',  'M',  'E',  ' ',  ' ',  'T',  'X',  'T',  0x21, 0x18, 0x63, 0x00, 0x60,
    0x77, 0x5B, 0x78, 0x5B, 0x02, 0x00, 0x20, 0x61, 0x79, 0x5B, 0x34, 0x12, 0x05, 0x00, 0x00, 0x00};

TEST(LayoutTest, AShortEntryHasItsFieldsWhereTheSpecificationPutsThem) {
    const auto entry = load<ShortEntry>(std::as_bytes(std::span(kEntry)));
    EXPECT_EQ(entry.attr, kAttrArchive | kAttrReadOnly);
    EXPECT_EQ(entry.nt_reserved, kNtLowerBase | kNtLowerExtension);
    EXPECT_EQ(entry.created(), (FatTimestamp{0x5B77, 0x6000, 0x63}));
    EXPECT_EQ(entry.accessed(), (FatTimestamp{0x5B78, 0, 0}));
    EXPECT_EQ(entry.written(), (FatTimestamp{0x5B79, 0x6120, 0}));
    EXPECT_EQ(entry.first_cluster(FatType::kFat32), 0x21234U);
    EXPECT_EQ(entry.size.get(), 5U);
    EXPECT_FALSE(entry.is_free());
    EXPECT_FALSE(entry.is_directory());
    EXPECT_FALSE(entry.is_long_slot());
    EXPECT_FALSE(entry.is_volume_label());
}

TEST(LayoutTest, TheUpperClusterHalfIsNotOursOnFat12AndFat16) {
    auto entry = load<ShortEntry>(std::as_bytes(std::span(kEntry)));
    EXPECT_EQ(entry.first_cluster(FatType::kFat16), 0x1234U);
    entry.set_first_cluster(FatType::kFat16, 0x4321);
    EXPECT_EQ(entry.first_cluster_high.get(), 0x0002U)
        << "extended attributes of OS/2 were overwritten";
    entry.set_first_cluster(FatType::kFat32, 0x0BCDEF01);
    EXPECT_EQ(entry.first_cluster(FatType::kFat32), 0x0BCDEF01U);
}

TEST(LayoutTest, TellsTheKindsOfEntriesApart) {
    struct Case {
        const char* name;
        std::uint8_t first;
        std::uint8_t attr;
        bool free;
        bool end;
        bool long_slot;
        bool label;
    };
    constexpr Case kCases[] = {
        {"a zero first byte ends the directory", 0x00, 0x20, true, true, false, false},
        {"E5 is a deleted entry", 0xE5, 0x20, true, false, false, false},
        {"05 is a live entry: it stands for E5", 0x05, 0x20, false, false, false, false},
        {"attribute 0F is a slot of a long name", 'A', 0x0F, false, false, true, false},
        {"attribute 0F counts without its upper bits", 'A', 0xCF, false, false, true, false},
        {"attribute 3F is no long name: 6 bits count", 'A', 0x3F, false, false, false, true},
        {"attribute 08 is the label", 'A', 0x08, false, false, false, true},
        {"attribute 28 is a label too", 'A', 0x28, false, false, false, true},
    };
    for (const Case& c : kCases) {
        SCOPED_TRACE(c.name);
        ShortEntry entry;
        entry.name[0] = c.first;
        entry.attr = c.attr;
        EXPECT_EQ(entry.is_free(), c.free);
        EXPECT_EQ(entry.is_end(), c.end);
        EXPECT_EQ(entry.is_long_slot(), c.long_slot);
        EXPECT_EQ(entry.is_volume_label(), c.label);
    }
}

TEST(LayoutTest, DotEntriesAreDotsAndBlanksOnly) {
    ShortEntry entry;
    entry.name.fill(' ');
    EXPECT_FALSE(entry.is_dot());
    entry.name[0] = '.';
    EXPECT_TRUE(entry.is_dot());
    EXPECT_FALSE(entry.is_dotdot());
    entry.name[1] = '.';
    EXPECT_FALSE(entry.is_dot());
    EXPECT_TRUE(entry.is_dotdot());
    entry.name[10] = 'X';
    EXPECT_FALSE(entry.is_dotdot());
}

TEST(LayoutTest, ALongSlotKeepsItsThirteenUnitsApart) {
    LongSlot slot;
    slot.ordinal = 0x42;
    for (std::size_t i = 0; i < kLongSlotUnits; ++i) {
        slot.set_unit(i, static_cast<char16_t>(0x1000 + i));
    }
    for (std::size_t i = 0; i < kLongSlotUnits; ++i) {
        EXPECT_EQ(slot.unit(i), static_cast<char16_t>(0x1000 + i)) << i;
    }
    std::array<std::byte, 32> bytes{};
    store(std::span<std::byte>(bytes), slot);
    // Units start at 1, 14 and 28.
    EXPECT_EQ(load<Le16>(bytes, 1).get(), 0x1000U);
    EXPECT_EQ(load<Le16>(bytes, 14).get(), 0x1005U);
    EXPECT_EQ(load<Le16>(bytes, 28).get(), 0x100BU);
    EXPECT_EQ(bytes[13], std::byte{0});
    EXPECT_TRUE(slot.is_last());
}

}  // namespace
}  // namespace wbfat::fs
