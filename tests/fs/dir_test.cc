// Goal: a Directory shows what is on the disk, whatever that is, and puts names there as other
// systems expect them. Method: raw slots written into a root, sound and damaged ones; the bytes
// that adding and erasing leave; unreadable sectors.
#include "fs/dir.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "cache/device/faulty_device.h"
#include "fs/dir_slots.h"
#include "fs/namei.h"

#include "tests/fs/names_fixture.h"

namespace wbfat::fs::inline WBFAT_RT {
namespace {

ShortName short_name(std::string_view text) {
    ShortName name{};
    std::copy(text.begin(), text.end(), name.begin());
    return name;
}

ShortEntry file_entry(std::string_view name, std::uint8_t nt_case = 0) {
    ShortEntry entry;
    entry.name = short_name(name);
    entry.attr = kAttrArchive;
    entry.nt_reserved = nt_case;
    return entry;
}

using Slots = std::vector<std::byte>;

Slots join(std::initializer_list<Slots> pieces) {
    Slots all;
    for (const Slots& piece : pieces) {
        all.insert(all.end(), piece.begin(), piece.end());
    }
    return all;
}

Slots plain(std::string_view name, std::uint8_t nt_case = 0) {
    return encode_set(u"", file_entry(name, nt_case));
}

// One byte of a set changed.
Slots with_byte(Slots slots, std::size_t slot, std::size_t offset, std::uint8_t value) {
    slots[slot * kDirEntryBytes + offset] = std::byte{value};
    return slots;
}

Slots without_slot(Slots slots, std::size_t slot) {
    const auto first = slots.begin() + static_cast<std::ptrdiff_t>(slot * kDirEntryBytes);
    slots.erase(first, first + kDirEntryBytes);
    return slots;
}

Slots deleted_slot() {
    Slots slot(kDirEntryBytes);
    slot[0] = std::byte{kDirEntryDeleted};
    return slot;
}

Slots label() {
    ShortEntry entry = file_entry("MY LABEL   ");
    entry.attr = kAttrVolumeId;
    return encode_set(u"", entry);
}

// --- sets to bytes and back

TEST(DirSlotsTest, ASetIsReadBackAsItWasWritten) {
    for (const std::size_t length : {1U, 12U, 13U, 14U, 26U, 254U, 255U}) {
        SCOPED_TRACE(length);
        const std::u16string name(length, u'n');
        const ShortEntry entry = file_entry("NNNNNN~1   ");
        const Slots bytes = encode_set(name, entry);
        ASSERT_EQ(bytes.size(), slots_for(length) * kDirEntryBytes);
        LongNameReader reader;
        for (std::size_t slot = 0; slot + 1 < slots_for(length); ++slot) {
            reader.feed(load<LongSlot>(bytes, slot * kDirEntryBytes));
        }
        EXPECT_EQ(reader.nr_slots(), slots_for(length) - 1);
        EXPECT_EQ(reader.finish(entry.name), name);
        EXPECT_FALSE(reader.finish(entry.name).has_value()) << "a set belongs to one entry";
    }
}

TEST(DirSlotsTest, ASlotLooksAsTheSpecificationSays) {
    const ShortEntry entry = file_entry("ABCDEF~1   ");
    const Slots bytes = encode_set(u"abcdefghijklmno", entry);  // 13 + 2 units
    const auto first = load<LongSlot>(bytes, 0);
    EXPECT_EQ(first.ordinal, 0x42);
    EXPECT_EQ(first.attr, 0x0F);
    EXPECT_EQ(first.type, 0);
    EXPECT_EQ(first.checksum, short_name_checksum(entry.name));
    EXPECT_EQ(first.first_cluster_low.get(), 0);
    EXPECT_EQ(first.unit(0), u'n');
    EXPECT_EQ(first.unit(1), u'o');
    EXPECT_EQ(first.unit(2), 0x0000);
    EXPECT_EQ(first.unit(3), 0xFFFF);
    EXPECT_EQ(first.unit(12), 0xFFFF);
    EXPECT_EQ(load<LongSlot>(bytes, kDirEntryBytes).ordinal, 0x01);
    // No terminator where there is no room for one.
    EXPECT_EQ(load<LongSlot>(encode_set(u"abcdefghijklm", entry), 0).unit(12), u'm');
}

// --- reading

struct ReadCase {
    const char* what;
    Slots slots;
    std::vector<std::string> shown;
};

std::vector<ReadCase> read_cases() {
    const Slots set =
        encode_set(u"A long file name.text", file_entry("ALONGF~1TEX"));  // 2 + 1 slots
    const Slots other = encode_set(u"Another", file_entry("OTHER      "));
    const Slots twenty = encode_set(std::u16string(255, u'w'), file_entry("WWWWWW~1   "));
    Slots twenty_one = with_byte(twenty, 0, 0, 0x40 | 21);
    Slots too_long = twenty;  // 260 units: the terminator is gone
    for (const std::size_t offset : {14U, 16U, 18U, 20U, 22U, 24U, 28U, 30U}) {
        too_long = with_byte(with_byte(too_long, 0, offset, 'w'), 0, offset + 1, 0);
    }
    const std::string w255(255, 'w');
    const std::vector<std::string> alias{"ALONGF~1.TEX"};
    return {
        {"a sound set", set, {"A long file name.text"}},
        {"a wrong checksum", with_byte(set, 0, 13, 0x55), alias},
        {"a wrong checksum in the slot next to the entry", with_byte(set, 1, 13, 0x55), alias},
        {"an ordinal that does not follow", with_byte(set, 1, 0, 3), alias},
        {"an ordinal twice", with_byte(set, 1, 0, 2), alias},
        {"ordinal zero", with_byte(set, 0, 0, 0x40), alias},
        {"bit 7 in the ordinal", with_byte(set, 0, 0, 0xC2), alias},
        {"the first slot is missing", without_slot(set, 0), alias},
        {"the last slot is missing", without_slot(set, 1), alias},
        {"an orphaned slot at the end",
         join({plain("FILE       "), without_slot(set, 2)}),
         {"FILE"}},
        {"a deleted slot in between",
         join({without_slot(set, 2), deleted_slot(), plain("ALONGF~1TEX")}), alias},
        {"a label in between", join({without_slot(set, 2), label(), plain("ALONGF~1TEX")}), alias},
        {"two sets one inside the other",
         join({without_slot(without_slot(set, 2), 1), other}),
         {"Another"}},
        {"somebody else's set", join({without_slot(set, 2), plain("FOREIGN    ")}), {"FOREIGN"}},
        {"twenty slots", twenty, {w255}},
        {"twenty-one slots", twenty_one, {"WWWWWW~1"}},
        {"260 units", too_long, {"WWWWWW~1"}},
        {"an empty long name",
         encode_set(std::u16string(1, u'\0'), file_entry("EMPTY      ")),
         {"EMPTY"}},
        {"a long name of dots", encode_set(u"..", file_entry("DOTS       ")), {"DOTS"}},
        {"a slash in a long name",
         encode_set(u"a/b", file_entry("AB         ")),
         {"a\xEF\xBF\xBD"
          "b"}},
        {"a name ending in a dot", encode_set(u"end.", file_entry("END        ")), {"end."}},
        {"a lone surrogate", encode_set(u"a\xD800", file_entry("A~1        ")), {"a\xED\xA0\x80"}},
        {"0x05 stands for 0xE5",
         with_byte(plain("?BC        "), 0, 0, 0x05),
         {"\xCF\x83"
          "BC"}},
        {"NT case flags: base", plain("LOWER   TXT", kNtLowerBase), {"lower.TXT"}},
        {"NT case flags: extension", plain("UPPER   TXT", kNtLowerExtension), {"UPPER.txt"}},
        {"NT case flags: both", plain("BOTH    TXT", kNtCaseMask), {"both.txt"}},
        {"NT bits of Windows", plain("EFS     TXT", 0xE7), {"EFS.TXT"}},
        {"an entry of blanks", join({plain("           "), plain("FILE       ")}), {"FILE"}},
        {"an entry shown as dots", join({plain("        .  "), plain("FILE       ")}), {"FILE"}},
        {"dot entries in a root",
         join({plain(".          "), plain("..         "), plain("FILE       ")}),
         {"FILE"}},
        {"a label", join({label(), plain("FILE       ")}), {"FILE"}},
        {"names behind the end mark",
         join({plain("FILE       "), Slots(kDirEntryBytes), plain("GHOST      ")}),
         {"FILE", "GHOST"}},
    };
}

TEST(DirectoryTest, ShowsWhatSoundAndBrokenSlotsMean) {
    for (const ReadCase& c : read_cases()) {
        SCOPED_TRACE(c.what);
        NamesFixture fixture(kFat16);
        fixture.damage_root(0, c.slots);
        EXPECT_EQ(fixture.names(fixture.root()), c.shown);
        for (const std::string& name : c.shown) {
            const auto found = lookup(fixture.root(), name);
            ASSERT_EQ(found.code(), 0) << name;
            EXPECT_EQ(found->name, name);
            EXPECT_EQ(unlink(fixture.root(), name).code(), 0) << name;
        }
        EXPECT_TRUE(fixture.names(fixture.root()).empty());
        EXPECT_EQ(create(fixture.root(), "A new name.text").code(), 0);
        fixture.remount();
        EXPECT_EQ(fixture.names(fixture.root()), std::vector<std::string>{"A new name.text"});
    }
}

// What a lost sector leaves: an end mark before names that fsync may have promised.
TEST(DirectoryTest, ReadsOnBehindAnEndMarkAndClosesTheHole) {
    NamesFixture fixture(kFat16);
    fixture.damage_root(0, join({plain("FILE       "), Slots(2 * kDirEntryBytes),
                                 plain("LIVE1      "), plain("LIVE2      ")}));
    EXPECT_EQ(fixture.names(fixture.root()), (std::vector<std::string>{"FILE", "LIVE1", "LIVE2"}));
    ASSERT_TRUE(create(fixture.root(), "NEW").has_value());
    fixture.remount();
    std::vector<std::string> names = fixture.names(fixture.root());
    std::sort(names.begin(), names.end());
    EXPECT_EQ(names, (std::vector<std::string>{"FILE", "LIVE1", "LIVE2", "NEW"}));
    const auto at_slot = [&](std::uint32_t slot) {
        return *read_short_entry(
            fixture.volume(),
            fixture.volume().geometry().root_dir_offset_bytes() + slot * kDirEntryBytes);
    };
    EXPECT_FALSE(at_slot(1).is_end());
    EXPECT_FALSE(at_slot(2).is_end());
    EXPECT_TRUE(at_slot(5).is_end());
    fixture.expect_clean();
}

TEST(DirectoryTest, OfEqualNamesTheFirstAnswersUntilItGoes) {
    NamesFixture fixture(kFat16);
    ShortEntry second = file_entry("SAME       ");
    second.nt_reserved = 0x04;  // tells it apart
    fixture.damage_root(
        0, join({plain("SAME       "), encode_set(u"", second), plain("OTHER      ")}));
    Directory& directory = fixture.root().directory();
    EXPECT_EQ((*directory.find("same"))->slot, 0U);
    EXPECT_EQ(fixture.names(fixture.root()), (std::vector<std::string>{"SAME", "SAME", "OTHER"}));
    EXPECT_NE(fixture.test().logged().find("several entries of one name"), std::string::npos);
    ASSERT_EQ(unlink(fixture.root(), "SAME").code(), 0);
    EXPECT_EQ((*directory.find("same"))->slot, 1U);
    ASSERT_EQ(unlink(fixture.root(), "SAME").code(), 0);
    EXPECT_EQ(lookup(fixture.root(), "SAME").code(), ENOENT);
    EXPECT_EQ(fixture.names(fixture.root()), std::vector<std::string>{"OTHER"});
}

TEST(DirectoryTest, AChainThatLoopsEndsAndCannotGrow) {
    MountOptions options;
    options.errors = ErrorPolicy::kContinue;
    NamesFixture fixture(kFat32, options);
    for (int i = 0; i < 40; ++i) {  // 3 clusters of 16 slots
        ASSERT_TRUE(create(fixture.root(), "F" + std::to_string(i)).has_value());
    }
    const Geometry geometry = fixture.volume().geometry();
    const cluster_t second = fixture.volume().fat().get(geometry.root_cluster)->next;
    const cluster_t third = fixture.volume().fat().get(second)->next;
    fixture.unmount();
    for (std::uint32_t fat = 0; fat < geometry.nr_fats; ++fat) {
        Le32 link;
        link.set(second);
        store(fixture.test().memory().bytes(), link,
              geometry.fat_offset_bytes(fat) + std::size_t{third} * 4);
    }
    fixture.mount();
    EXPECT_EQ(fixture.names(fixture.root()).size(), 40U);
    EXPECT_NE(fixture.test().logged(), "");
    // 48 slots are there; the rest must not be written into the loop.
    int error = 0;
    for (int i = 0; i < 40 && error == 0; ++i) {
        error = create(fixture.root(), "G" + std::to_string(i)).code();
    }
    EXPECT_EQ(error, EIO);
    EXPECT_EQ(fixture.names(fixture.root()).size(), 48U);
}

TEST(DirectoryTest, UnreadableSectorsAreLeftOutAndNeverTakenForEmpty) {
    NamesFixture fixture(kFat16);
    for (int i = 0; i < 300; ++i) {
        ASSERT_TRUE(create(fixture.root(), "F" + std::to_string(i)).has_value());
    }
    // The page in the middle of the root.
    const std::uint64_t bad = (fixture.root_slot_offset(0) + 2 * cache::kPageSize - 1) /
                              cache::kPageSize * cache::kPageSize;
    fixture.unmount();
    fixture.test().faults().add_rule({.ops = cache::kFaultReads,
                                      .begin_bytes = bad,
                                      .end_bytes = bad + 512,
                                      .nr_hits = cache::FaultRule::kSticky});
    fixture.mount();
    std::vector<std::string> seen;
    EXPECT_EQ(readdir(fixture.root(), 2,
                      [&](const DirEntryView& entry) {
                          seen.emplace_back(entry.name);
                          return true;
                      })
                  .code(),
              EIO);
    EXPECT_LT(seen.size(), 300U);
    EXPECT_GE(seen.size(), 300U - cache::kPageSize / kDirEntryBytes);
    EXPECT_EQ(lookup(fixture.root(), "F0").code(), 0);
    EXPECT_EQ(lookup(fixture.root(), "NOT THERE").code(), EIO);
    EXPECT_EQ(create(fixture.root(), "NEW").code(), EIO);
    EXPECT_EQ(unlink(fixture.root(), "F0").code(), 0);
}

// --- writing

TEST(DirectoryTest, ASetGoesIntoOneSectorAndSkippedSlotsAreMarkedDeleted) {
    NamesFixture fixture(kFat16);
    Inode& root = fixture.root();
    for (int i = 0; i < 14; ++i) {
        ASSERT_TRUE(create(root, "F" + std::to_string(i)).has_value());
    }
    ASSERT_TRUE(
        create(root, "a name of three slots").has_value());  // 2 slots are left in the sector
    const DirRecord record = **root.directory().find("a name of three slots");
    EXPECT_EQ(record.first_slot(), 16U);
    fixture.commit();
    EXPECT_EQ(fixture.root_slot(14).name[0], kDirEntryDeleted);
    EXPECT_EQ(fixture.root_slot(15).name[0], kDirEntryDeleted);
    // The skipped ones serve shorter names.
    ASSERT_TRUE(create(root, "two slots").has_value());
    EXPECT_EQ((**root.directory().find("two slots")).first_slot(), 14U);
    fixture.expect_clean();
}

TEST(DirectoryTest, ADirectoryHalfFullIsPackedAcrossSectors) {
    NamesFixture fixture(kFat16);
    Inode& root = fixture.root();
    const std::string nine_slots = std::string(100, 'n');
    int made = 0;
    while (create(root, nine_slots + std::to_string(made)).has_value()) {
        ++made;
    }
    // One in a sector would be 32; 512 / 9 is 56.
    EXPECT_GT(made, 40);
    fixture.expect_clean();
    EXPECT_EQ(fixture.names(fixture.root()).size(), static_cast<std::size_t>(made));
}

TEST(DirectoryTest, ErasingANameMarksItsWholeSet) {
    NamesFixture fixture(kFat16);
    ASSERT_TRUE(create(fixture.root(), "a name of three slots").has_value());
    ASSERT_TRUE(create(fixture.root(), "KEEP").has_value());
    fixture.commit();
    ASSERT_EQ(unlink(fixture.root(), "a name of three slots").code(), 0);
    fixture.commit();
    for (std::uint32_t slot = 0; slot < 3; ++slot) {
        EXPECT_EQ(fixture.root_slot(slot).name[0], kDirEntryDeleted) << slot;
    }
    EXPECT_EQ(fixture.root_slot(3).name, short_name("KEEP       "));
}

TEST(DirectoryTest, ANameHeldBackStaysOnDiskUntilItsCommit) {
    NamesFixture fixture(kFat16);
    const InodeRef dir = *mkdir(fixture.root(), "DIR");
    ASSERT_TRUE(create(fixture.root(), "NAME").has_value());
    fixture.commit();
    ASSERT_EQ(rename(fixture.root(), "NAME", *dir, "NAME", 0).code(), 0);
    Directory& directory = fixture.root().directory();
    EXPECT_TRUE(directory.is_held_back("name"));
    EXPECT_EQ(directory.find("NAME").code(), ENOENT);
    EXPECT_EQ(read_short_entry(fixture.volume(), fixture.root_slot_offset(1))->name,
              short_name("NAME       "));
    // Its slot is not free yet.
    ASSERT_TRUE(create(fixture.root(), "NEXT").has_value());
    EXPECT_EQ((**directory.find("NEXT")).slot, 2U);
    fixture.commit();
    EXPECT_FALSE(directory.is_held_back("name"));
    EXPECT_EQ(fixture.root_slot(1).name[0], kDirEntryDeleted);
    ASSERT_TRUE(create(fixture.root(), "AGAIN").has_value());
    EXPECT_EQ((**directory.find("AGAIN")).slot, 1U);
}

TEST(DirectoryTest, AliasesAvoidEveryNameOfTheDirectory) {
    NamesFixture fixture(kFat16);
    Inode& root = fixture.root();
    ASSERT_TRUE(create(root, "alongf~1.tex").has_value());  // a long name that looks like an alias
    ASSERT_TRUE(create(root, "a long file name.text").has_value());
    EXPECT_EQ((**root.directory().find("a long file name.text")).short_name,
              short_name("ALONGF~2TEX"));
    // And the other way round: an alias is a name that cannot be made again.
    EXPECT_EQ(create(root, "ALONGF~2.TEX").code(), EEXIST);
    fixture.expect_clean();
}

TEST(DirectoryTest, TheSectorIsTheAtomicUnitWhateverItsSize) {
    NamesFixture fixture(kFat16Sector4096);
    Inode& root = fixture.root();
    for (int i = 0; i < 20; ++i) {
        ASSERT_TRUE(create(root, "a name of three slots " + std::to_string(i)).has_value());
    }
    // With 512-byte sectors a set would have been pushed over the boundary at slot 16.
    const DirRecord sixth = **root.directory().find("a name of three slots 5");
    EXPECT_EQ(sixth.first_slot(), 15U);
    const DirRecord first = **root.directory().find("a name of three slots 0");
    EXPECT_TRUE(root.directory().same_sector(first, sixth));
    fixture.expect_clean();
}

TEST(DirectoryDeathTest, RefusesANameThatExists) {
    NamesFixture fixture(kFat16);
    ASSERT_TRUE(create(fixture.root(), "here").has_value());
    const ParsedName name = *parse_name("HERE", fixture.volume().options());
    bool pending = false;
    EXPECT_DEATH(static_cast<void>(fixture.root().directory().add(name, {}, pending).has_value()),
                 "D1");
}

}  // namespace
}  // namespace wbfat::fs::inline WBFAT_RT
