// Goal: operations on names answer as Linux vfat does, and what they leave on the disk is sound.
// Method: the kernel's answers as tables, a random walk beside a map, threads in shared
// directories; fsck.fat and mtools judge the images.
#include "fs/namei.h"

#include <atomic>
#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/fs/names_fixture.h"

namespace wbfat::fs::inline WBFAT_RT {
namespace {

std::string times(std::string_view piece, int count) {
    std::string all;
    for (int i = 0; i < count; ++i) {
        all += piece;
    }
    return all;
}

// --- the kernel's answers

struct CreateCase {
    std::string name;
    int error = 0;
    std::string shown{};  // "" means as spelled
};

std::vector<CreateCase> create_cases() {
    return {
        {"lower.txt"},
        {"UPPER2.TXT"},
        {"MixEd.TxT"},
        {"lower3.TXT"},
        {"UPPER4.txt"},
        {"a.b.c"},
        {".dot"},
        {"..dots"},
        {"dot.", 0, "dot"},
        {"dots...", 0, "dots"},
        {"space ", EINVAL},
        {" lead"},
        {"in side"},
        {"a+b"},
        {"a,b;=[]"},
        {"aux"},
        {"con.txt"},
        {"nul"},
        {"com1"},
        {"clock$"},
        {"a:b", EINVAL},
        {"a*b", EINVAL},
        {"a?b", EINVAL},
        {"a\"b", EINVAL},
        {"a<b", EINVAL},
        {"a|b", EINVAL},
        {"a\\b", EINVAL},
        {"tab\tx", EINVAL},
        {"del\x7f"},
        {"ü"},
        {"名前"},
        {"😀"},
        {"é"},
        {"\xff", EINVAL},
        {times("x", 255)},
        {times("x", 256), ENAMETOOLONG},
        {times("ü", 255)},
        {times("名", 255)},
        {times("😀", 127)},
        {times("😀", 128), ENAMETOOLONG},
        {"~1"},
        {"foo~1.txt"},
        {"...", ENOENT},
        {".", ENOENT},
        {"", ENOENT},
    };
}

TEST(NameiTest, CreatesTheNamesThatTheKernelCreates) {
    const std::vector<CreateCase> cases = create_cases();
    for (const VolumeShape& shape : {kFat12, kFat16, kFat32, kFat16Sector4096}) {
        SCOPED_TRACE(shape.label);
        NamesFixture fixture(shape);
        ASSERT_TRUE(mkdir(fixture.root(), "d").has_value());
        std::vector<std::string> expected;
        {
            const InodeRef dir = fixture.dir("d");
            for (const CreateCase& c : cases) {
                EXPECT_EQ(create(*dir, c.name).code(), c.error) << c.name;
                if (c.error == 0) {
                    expected.push_back(c.shown.empty() ? c.name : c.shown);
                }
            }
            std::sort(expected.begin(), expected.end());
            EXPECT_EQ(fixture.sorted_names(*dir), expected);
        }
        fixture.remount();
        {
            const InodeRef dir = fixture.dir("d");
            EXPECT_EQ(fixture.sorted_names(*dir), expected) << "after a remount";
            // fsck.fat takes offence at 0x7F in an alias; the kernel does not, nor do we.
            EXPECT_EQ(unlink(*dir, "del\x7f").code(), 0);
            std::erase(expected, "del\x7f");
        }
        fixture.expect_clean();
        const InodeRef dir = fixture.dir("d");
        for (const std::string& name : expected) {
            EXPECT_EQ(lookup(*dir, name).code(), 0) << name;
        }
    }
}

TEST(NameiTest, LookupIgnoresCaseTrailingDotsAndKnowsAliases) {
    NamesFixture fixture(kFat32);
    Inode& root = fixture.root();
    ASSERT_TRUE(create(root, "a long file name.text").has_value());
    ASSERT_TRUE(create(root, "CaseTest.txt").has_value());
    const std::uint64_t ino = fixture.dir("CaseTest.txt")->ino();
    for (const char* spelling :
         {"CASETEST.TXT", "casetest.txt", "CaseTest.txt.", "CaseTest.txt..."}) {
        const auto found = lookup(root, spelling);
        ASSERT_TRUE(found.has_value()) << spelling;
        EXPECT_EQ(found->inode->ino(), ino) << spelling;
        EXPECT_FALSE(found->canonical) << spelling;
        EXPECT_EQ(found->name, "CaseTest.txt");
    }
    EXPECT_TRUE(lookup(root, "CaseTest.txt")->canonical);
    const auto alias = lookup(root, "ALONGF~1.TEX");
    ASSERT_TRUE(alias.has_value());
    EXPECT_FALSE(alias->canonical);
    EXPECT_EQ(alias->inode->ino(), fixture.dir("a long file name.text")->ino());
    EXPECT_EQ(lookup(root, "a:b").code(), ENOENT);
    EXPECT_EQ(lookup(root, times("x", 256)).code(), ENOENT);
    EXPECT_EQ(lookup(*alias->inode, "x").code(), ENOTDIR);
}

TEST(NameiTest, CreatingAnotherSpellingOfANameSaysThatItExists) {
    NamesFixture fixture(kFat16);
    Inode& root = fixture.root();
    ASSERT_TRUE(create(root, "CaseTest.txt").has_value());
    ASSERT_TRUE(create(root, "a long file name.text").has_value());
    for (const char* spelling : {"CASETEST.TXT", "casetest.TXT", "ALONGF~1.TEX", "CaseTest.txt."}) {
        EXPECT_EQ(create(root, spelling).code(), EEXIST) << spelling;
        EXPECT_EQ(mkdir(root, spelling).code(), EEXIST) << spelling;
    }
    EXPECT_EQ(fixture.names(root).size(), 2U);
}

TEST(NameiTest, ANewFileIsEmptyAndStampedNow) {
    NamesFixture fixture(kFat32);
    fixture.volume().set_clock([] { return timespec{1700000001, 876000000}; });
    const InodeRef file = *create(fixture.root(), "new");
    EXPECT_EQ(file->attributes.attr, kAttrArchive);
    EXPECT_EQ(file->i_size(), 0U);
    EXPECT_EQ(file->i_start, 0U);
    EXPECT_EQ(file->attributes.mtime.tv_sec, 1700000000);
    EXPECT_EQ(file->attributes.btime.tv_sec, 1700000001);
    EXPECT_EQ(file->attributes.btime.tv_nsec, 870000000);
    EXPECT_EQ(file->attributes.atime.tv_sec, 1699920000);
    EXPECT_EQ(file->nlink, 1U);
}

TEST(NameiTest, DirectoriesCountTheirSubdirectories) {
    NamesFixture fixture(kFat16);
    ASSERT_TRUE(mkdir(fixture.root(), "d").has_value());
    const InodeRef dir = fixture.dir("d");
    EXPECT_EQ(dir->getattr().st_nlink, 2U);
    ASSERT_TRUE(mkdir(*dir, "one").has_value());
    ASSERT_TRUE(mkdir(*dir, "two").has_value());
    ASSERT_TRUE(create(*dir, "file").has_value());
    EXPECT_EQ(dir->getattr().st_nlink, 4U);
    EXPECT_EQ(fixture.root().getattr().st_nlink, 3U);
    ASSERT_TRUE(rmdir(*dir, "one").has_value());
    EXPECT_EQ(dir->getattr().st_nlink, 3U);
}

TEST(NameiTest, RemovalAnswersAsTheKernelDoes) {
    NamesFixture fixture(kFat32);
    Inode& root = fixture.root();
    ASSERT_TRUE(create(root, "file").has_value());
    ASSERT_TRUE(mkdir(root, "dir").has_value());
    ASSERT_TRUE(create(*fixture.dir("dir"), "inside").has_value());
    EXPECT_EQ(unlink(root, "dir").code(), EISDIR);
    EXPECT_EQ(rmdir(root, "file").code(), ENOTDIR);
    EXPECT_EQ(rmdir(root, "dir").code(), ENOTEMPTY);
    EXPECT_EQ(unlink(root, "none").code(), ENOENT);
    EXPECT_EQ(unlink(root, "a:b").code(), ENOENT);
    EXPECT_EQ(rmdir(root, "none").code(), ENOENT);
    EXPECT_EQ(unlink(*fixture.dir("dir"), "inside").code(), 0);
    EXPECT_EQ(rmdir(root, "DIR").code(), 0);
    EXPECT_EQ(unlink(root, "FILE.").code(), 0);
    EXPECT_TRUE(fixture.names(root).empty());
    fixture.expect_clean();
}

TEST(NameiTest, ReadOnlyFilesCanBeUnlinked) {
    NamesFixture fixture(kFat32);
    const InodeRef file = *create(fixture.root(), "ro");
    ASSERT_EQ(set_fat_attributes(*file, kAttrReadOnly | kAttrArchive, true).code(), 0);
    EXPECT_EQ(unlink(fixture.root(), "ro").code(), 0);
}

TEST(NameiTest, AnUnlinkedFileLivesUntilItsLastReferenceGoes) {
    NamesFixture fixture(kFat16);
    fixture.put(fixture.root(), "f", "old");
    const std::uint64_t free_before = fixture.volume().statfs()->blocks_free;
    {
        const InodeRef file = fixture.dir("f");
        ASSERT_EQ(unlink(fixture.root(), "f").code(), 0);
        EXPECT_EQ(file->getattr().st_nlink, 0U);
        EXPECT_EQ(lookup(fixture.root(), "f").code(), ENOENT);
        fixture.write(file, "still here");
        EXPECT_EQ(fixture.text(file), "still here");
        // The name is free for another file, which may get the same slot.
        fixture.put(fixture.root(), "f", "new");
        fixture.commit();
        EXPECT_EQ(fixture.text(file), "still here");
        EXPECT_EQ(fixture.text(fixture.root(), "f"), "new");
    }
    ASSERT_EQ(unlink(fixture.root(), "f").code(), 0);
    fixture.commit();
    EXPECT_EQ(fixture.volume().statfs()->blocks_free, free_before + 1);
    fixture.expect_clean();
}

TEST(NameiTest, NothingCanBeMadeInARemovedDirectory) {
    NamesFixture fixture(kFat32);
    const InodeRef dir = *mkdir(fixture.root(), "d");
    ASSERT_EQ(rmdir(fixture.root(), "d").code(), 0);
    EXPECT_EQ(create(*dir, "x").code(), ENOENT);
    EXPECT_EQ(mkdir(*dir, "x").code(), ENOENT);
    EXPECT_EQ(lookup(*dir, "x").code(), ENOENT);
    EXPECT_EQ(readdir(*dir, 0, [](const DirEntryView&) { return true; }).code(), ENOENT);
    ASSERT_TRUE(create(fixture.root(), "f").has_value());
    EXPECT_EQ(rename(fixture.root(), "f", *dir, "f", 0).code(), ENOENT);
    EXPECT_EQ(dir->getattr().st_nlink, 0U);
}

TEST(NameiTest, AReadOnlyVolumeChangesNothing) {
    NamesFixture fixture(kFat16);
    ASSERT_TRUE(mkdir(fixture.root(), "d").has_value());
    ASSERT_TRUE(create(fixture.root(), "f").has_value());
    fixture.unmount();
    fixture.test().options().read_only = true;
    fixture.mount();
    Inode& root = fixture.root();
    EXPECT_EQ(create(root, "x").code(), EROFS);
    EXPECT_EQ(mkdir(root, "x").code(), EROFS);
    EXPECT_EQ(unlink(root, "f").code(), EROFS);
    EXPECT_EQ(rmdir(root, "d").code(), EROFS);
    EXPECT_EQ(rename(root, "f", root, "g", 0).code(), EROFS);
    EXPECT_EQ(fixture.sorted_names(root), (std::vector<std::string>{"d", "f"}));
}

TEST(NameiTest, ASyncMountHasEveryNameOnDiskWhenTheCallReturns) {
    for (const bool dirsync : {false, true}) {
        MountOptions options;
        (dirsync ? options.dirsync : options.sync) = true;
        NamesFixture fixture(kFat32, options);
        ASSERT_TRUE(mkdir(fixture.root(), "d").has_value());
        ASSERT_TRUE(create(*fixture.dir("d"), "a name with slots").has_value());
        ASSERT_TRUE(create(fixture.root(), "gone").has_value());
        ASSERT_EQ(unlink(fixture.root(), "gone").code(), 0);
        ASSERT_EQ(rename(*fixture.dir("d"), "a name with slots", fixture.root(), "here", 0).code(),
                  0);
        fixture.crash_and_mount();
        EXPECT_EQ(fixture.sorted_names(fixture.root()), (std::vector<std::string>{"d", "here"}));
        EXPECT_TRUE(fixture.names(*fixture.dir("d")).empty());
    }
}

TEST(NameiTest, ASyncMountHasTheClustersOfAnUnlinkedFileBackWhenTheCallReturns) {
    MountOptions options;
    options.sync = true;
    NamesFixture fixture(kFat16, options);
    ASSERT_TRUE(create(fixture.root(), "other").has_value());
    const std::uint64_t free_before = fixture.volume().statfs()->blocks_free;
    fixture.put(fixture.root(), "f", "text");
    fixture.put(fixture.root(), "g", "text");
    ASSERT_EQ(fixture.volume().statfs()->blocks_free, free_before - 2);
    ASSERT_EQ(rename(fixture.root(), "f", fixture.root(), "g", 0).code(), 0);
    ASSERT_EQ(unlink(fixture.root(), "g").code(), 0);
    fixture.crash_and_mount();
    EXPECT_EQ(fixture.volume().statfs()->blocks_free, free_before);
    EXPECT_EQ(fixture.names(fixture.root()), std::vector<std::string>{"other"});
}

// --- readdir

TEST(NameiTest, ReaddirGivesDotsNamesNumbersAndTypes) {
    NamesFixture fixture(kFat32);
    const InodeRef dir = *mkdir(fixture.root(), "d");
    const InodeRef sub = *mkdir(*dir, "sub");
    const InodeRef file = *create(*dir, "a long file name.text");
    std::vector<DirEntryView> seen;
    std::vector<std::string> names;
    ASSERT_EQ(readdir(*dir, 0,
                      [&](const DirEntryView& entry) {
                          seen.push_back(entry);
                          names.emplace_back(entry.name);
                          return true;
                      })
                  .code(),
              0);
    ASSERT_EQ(names, (std::vector<std::string>{".", "..", "sub", "a long file name.text"}));
    EXPECT_EQ(seen[0].ino, dir->ino());
    EXPECT_EQ(seen[1].ino, fixture.root().ino());
    EXPECT_EQ(seen[2].ino, sub->ino());
    EXPECT_TRUE(seen[2].is_directory);
    EXPECT_EQ(seen[3].ino, file->ino());
    EXPECT_FALSE(seen[3].is_directory);
    EXPECT_EQ(seen[3].short_name, "ALONGF~1.TEX");
}

TEST(NameiTest, ReaddirResumesAtItsCookieWhileNamesComeAndGo) {
    NamesFixture fixture(kFat16);
    Inode& root = fixture.root();
    for (int i = 0; i < 40; ++i) {
        ASSERT_TRUE(create(root, "file" + std::to_string(i)).has_value());
    }
    std::set<std::string> seen;
    std::uint64_t cookie = 0;
    int step = 0;
    while (true) {
        std::string got;
        ASSERT_EQ(readdir(root, cookie,
                          [&](const DirEntryView& entry) {
                              got = entry.name;
                              cookie = entry.next_cookie;
                              return false;
                          })
                      .code(),
                  0);
        if (got.empty()) {
            break;
        }
        EXPECT_TRUE(seen.insert(got).second) << got << " came twice";
        // What was listed goes, and other names take its place behind the reader.
        if (got[0] == 'f' && ++step % 3 == 0) {
            ASSERT_EQ(unlink(root, got).code(), 0);
        }
    }
    for (int i = 0; i < 40; ++i) {
        EXPECT_TRUE(seen.contains("file" + std::to_string(i))) << i;
    }
}

// --- limits

TEST(NameiTest, AFixedRootTakesExactlyItsEntries) {
    NamesFixture fixture(kFat16);
    Inode& root = fixture.root();
    for (int i = 0; i < 512; ++i) {
        ASSERT_EQ(create(root, "F" + std::to_string(i)).code(), 0) << i;
    }
    EXPECT_EQ(create(root, "ONEMORE").code(), ENOSPC);
    EXPECT_EQ(mkdir(root, "ONEMORE").code(), ENOSPC);
    const std::uint64_t free_blocks = fixture.volume().statfs()->blocks_free;
    ASSERT_EQ(unlink(root, "F100").code(), 0);
    EXPECT_EQ(create(root, "needs two slots").code(), ENOSPC);
    EXPECT_EQ(create(root, "LAST").code(), 0);
    EXPECT_EQ(fixture.volume().statfs()->blocks_free, free_blocks) << "mkdir gave its cluster back";
    fixture.expect_clean();
    EXPECT_EQ(fixture.names(fixture.root()).size(), 512U);
}

TEST(NameiTest, SlotsOfANameMovedAwayServeAFullRootAfterACommit) {
    NamesFixture fixture(kFat16);
    Inode& root = fixture.root();
    ASSERT_TRUE(mkdir(root, "D").has_value());
    for (int i = 1; i < 512; ++i) {
        ASSERT_EQ(create(root, "F" + std::to_string(i)).code(), 0) << i;
    }
    ASSERT_EQ(rename(root, "F7", *fixture.dir("D"), "F7", 0).code(), 0);
    EXPECT_EQ(create(root, "AGAIN").code(), 0);
    fixture.expect_clean();
}

TEST(NameiTest, AFullVolumeTakesNothingAndLosesNothing) {
    NamesFixture fixture(kFat12);
    fixture.put(fixture.root(), "ballast", "x");
    {
        File file(fixture.dir("ballast"), {});
        // Larger than what is left: whatever the volume has goes to this file.
        for (std::uint64_t size = 4096; file.fallocate(0, 0, size).has_value(); size += 1024) {
        }
    }
    const std::uint64_t free_blocks = fixture.volume().statfs()->blocks_free;
    ASSERT_LE(free_blocks, 4U);
    for (std::uint64_t i = 0; i < free_blocks; ++i) {
        ASSERT_EQ(mkdir(fixture.root(), "d" + std::to_string(i)).code(), 0);
    }
    EXPECT_EQ(mkdir(fixture.root(), "more").code(), ENOSPC);
    EXPECT_EQ(lookup(fixture.root(), "more").code(), ENOENT);
    // The clusters of the ballast are pending: mkdir commits and succeeds.
    ASSERT_EQ(unlink(fixture.root(), "ballast").code(), 0);
    EXPECT_EQ(mkdir(fixture.root(), "more").code(), 0);
    fixture.expect_clean();
}

TEST(NameiTest, ADirectoryHoldsTwoMebibytesOfSlots) {
    NamesFixture fixture({"Fat32", 32, 64U << 20, 512, 1});
    const InodeRef dir = *mkdir(fixture.root(), "d");
    std::uint32_t made = 0;
    int error = 0;
    while (error == 0 && made < 70000) {
        error = create(*dir, "F" + std::to_string(made)).code();
        made += error == 0 ? 1 : 0;
    }
    EXPECT_EQ(error, ENOSPC);
    EXPECT_EQ(made, kMaxDirEntries - 2);  // "." and ".."
    EXPECT_EQ(*dir->directory().nr_slots(), kMaxDirEntries);
    ASSERT_EQ(unlink(*dir, "F4711").code(), 0);
    EXPECT_EQ(create(*dir, "AGAIN").code(), 0);
}

// Makes and looks up `count` names; the work per name, counted, must be that of the first tenth.
void expect_constant_work(const std::string& prefix, int count) {
    NamesFixture fixture({"Fat32", 32, 128U << 20, 512, 8});
    const InodeRef dir = *mkdir(fixture.root(), "d");
    std::uint64_t probes_of_first_tenth = 0;
    const std::uint64_t reads_before_create = fixture.volume().cache().stats().pages_read;
    for (int i = 0; i < count; ++i) {
        ASSERT_EQ(create(*dir, prefix + std::to_string(i)).code(), 0) << i;
        if (i + 1 == count / 10) {
            probes_of_first_tenth = dir->directory().nr_probes();
        }
    }
    EXPECT_LT(dir->directory().nr_probes(), probes_of_first_tenth * 20);
    const std::uint64_t reads_before_lookup = fixture.volume().cache().stats().pages_read;
    // A page of the directory, now and then one of the FAT: never the whole directory again.
    EXPECT_LT(reads_before_lookup - reads_before_create, 3000U);
    for (int i = 0; i < count; i += 7) {
        ASSERT_EQ(lookup(*dir, prefix + std::to_string(i)).code(), 0) << i;
    }
    EXPECT_EQ(lookup(*dir, prefix).code(), ENOENT);
    EXPECT_LT(fixture.volume().cache().stats().pages_read - reads_before_lookup, 3000U);
}

TEST(NameiTest, WorkPerNameDoesNotGrowWithSixtyThousandNames) {
    expect_constant_work("N", 60000);
}

TEST(NameiTest, WorkPerNameDoesNotGrowWithAliasesOfOnePrefix) {
    expect_constant_work("some f ", 30000);
}

// --- random operations beside a model

std::string fold(const std::string& name) {
    std::string folded = name;
    for (char& c : folded) {
        c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    }
    return folded;
}

class NameiRandomTest : public testing::TestWithParam<VolumeShape> {};

// Two directories of files; a file is known by the text in it.
class RandomWalk {
public:
    RandomWalk(NamesFixture& fixture, std::uint64_t seed) : fixture_(fixture), random_(seed) {
        EXPECT_TRUE(mkdir(fixture.root(), "left").has_value());
        EXPECT_TRUE(mkdir(fixture.root(), "right").has_value());
    }

    void step() {
        const std::size_t from = random_() % 2;
        const InodeRef dir = open(from);
        const std::string name = random_name();
        const auto choice = random_() % 10;
        if (choice < 4) {
            create_file(*dir, from, name);
        } else if (choice < 6) {
            const bool exists = model_[from].erase(fold(name)) != 0;
            ASSERT_EQ(unlink(*dir, name).code(), exists ? 0 : ENOENT) << name;
        } else {
            rename_file(from, name, random_() % 2, random_name(), choice == 9);
        }
    }

    void check() {
        for (std::size_t side = 0; side < 2; ++side) {
            const InodeRef dir = open(side);
            std::vector<std::string> expected;
            for (const auto& [folded, file] : model_[side]) {
                expected.push_back(file.shown);
                ASSERT_EQ(fixture_.text(*dir, folded), file.text) << folded;
            }
            std::sort(expected.begin(), expected.end());
            ASSERT_EQ(fixture_.sorted_names(*dir), expected);
        }
    }

private:
    struct FileModel {
        std::string shown;
        std::string text;
    };

    InodeRef open(std::size_t side) {
        return fixture_.dir(side == 0 ? "left" : "right");
    }

    std::string random_name() {
        static const std::vector<std::string> kStems{
            "a",        "Long name of a file", "x.txt", "Sixteen letters.", "another one.text",
            "MIXED.Ext"};
        const std::string& stem = kStems[random_() % kStems.size()];
        std::string name =
            std::to_string(random_() % 6) + stem + times("y", static_cast<int>(random_() % 3) * 40);
        while (name.back() == '.') {
            name.pop_back();
        }
        if (random_() % 4 == 0) {
            name = fold(name);
        }
        return name;
    }

    void create_file(Inode& dir, std::size_t side, const std::string& name) {
        const bool exists = model_[side].contains(fold(name));
        const auto made = create(dir, name);
        ASSERT_EQ(made.code(), exists ? EEXIST : 0) << name;
        if (!exists) {
            const std::string text = "file " + std::to_string(next_++);
            fixture_.write(*made, text);
            model_[side][fold(name)] = {name, text};
        }
    }

    void rename_file(std::size_t from, const std::string& old_name, std::size_t to,
                     const std::string& new_name, bool swap) {
        const InodeRef old_dir = open(from);
        const InodeRef new_dir = open(to);
        const int error =
            rename(*old_dir, old_name, *new_dir, new_name, swap ? kRenameExchange : 0U).code();
        const auto source = model_[from].find(fold(old_name));
        const auto target = model_[to].find(fold(new_name));
        if (source == model_[from].end() || (swap && target == model_[to].end())) {
            ASSERT_EQ(error, ENOENT) << old_name << " -> " << new_name;
            return;
        }
        ASSERT_EQ(error, 0) << old_name << " -> " << new_name;
        if (swap) {
            std::swap(source->second.text, target->second.text);
        } else if (from == to && source == target) {
            source->second.shown = new_name;
        } else {
            // The name of a file that is replaced stays as it was spelled.
            const std::string shown = target == model_[to].end() ? new_name : target->second.shown;
            const std::string text = source->second.text;
            model_[from].erase(source);
            model_[to][fold(new_name)] = {shown, text};
        }
    }

    NamesFixture& fixture_;
    std::mt19937_64 random_;
    std::map<std::string, FileModel> model_[2];  // NOLINT(*-avoid-c-arrays)
    int next_ = 0;
};

TEST_P(NameiRandomTest, AgreesWithAMapThatIgnoresCase) {
    constexpr std::uint64_t kSeed = 4;
    NamesFixture fixture(GetParam());
    RandomWalk walk(fixture, kSeed);
    for (int round = 0; round < 6; ++round) {
        for (int i = 0; i < 150; ++i) {
            SCOPED_TRACE("seed " + std::to_string(kSeed) + " round " + std::to_string(round) +
                         " step " + std::to_string(i));
            walk.step();
            if (testing::Test::HasFatalFailure()) {
                return;
            }
            if (i % 40 == 0) {
                fixture.commit();
            }
        }
        walk.check();
        if (testing::Test::HasFatalFailure()) {
            return;
        }
        fixture.expect_clean();
        walk.check();
    }
}

INSTANTIATE_TEST_SUITE_P(Shapes, NameiRandomTest,
                         testing::Values(kFat12, kFat16, kFat32, kFat16Sector4096),
                         [](const auto& shape) { return std::string(shape.param.label); });

// --- what others see

TEST(NameiTest, MtoolsSeesTheNames) {
    NamesFixture fixture(kFat16);
    fixture.put(fixture.root(), "Readme.txt", "x");
    {
        const InodeRef dir = *mkdir(fixture.root(), "A Directory");
        fixture.put(*dir, "a rather long name with spaces.html", "y");
        fixture.put(*dir, "UPPER.TXT", "z");
        ASSERT_EQ(rename(*dir, "UPPER.TXT", *dir, "upper.txt", 0).code(), 0);
    }
    fixture.remount();
    EXPECT_EQ(fixture.mdir(), "::/Readme.txt\n::/A Directory/\n");
    EXPECT_EQ(fixture.mdir("/A Directory"),
              "::/A Directory/a rather long name with spaces.html\n::/A Directory/upper.txt\n");
}

// --- threads

TEST(NameiConcurrencyTest, ThreadsInSharedDirectoriesLeaveASoundVolume) {
    NamesFixture fixture(kFat32);
    constexpr int kThreads = 4;
    constexpr int kSteps = 250;
    for (int i = 0; i < 3; ++i) {
        ASSERT_TRUE(mkdir(fixture.root(), "dir" + std::to_string(i)).has_value());
    }
    std::atomic<int> unexpected{0};
    const auto expect_one_of = [&](int code, std::initializer_list<int> allowed) {
        if (std::find(allowed.begin(), allowed.end(), code) == allowed.end()) {
            unexpected = code;
        }
    };
    const auto work = [&](int seed) {
        std::mt19937 random(static_cast<unsigned>(seed));
        const auto pick_dir = [&]() {
            auto found = lookup(fixture.root(), "dir" + std::to_string(random() % 3));
            return found.has_value() ? found->inode : fixture.volume().root().value();
        };
        const auto pick_name = [&] { return "a shared name " + std::to_string(random() % 12); };
        for (int i = 0; i < kSteps; ++i) {
            const InodeRef dir = pick_dir();
            const InodeRef other = pick_dir();
            switch (random() % 8) {
                case 0:
                case 1:
                    expect_one_of(create(*dir, pick_name()).code(), {0, EEXIST});
                    break;
                case 2:
                    expect_one_of(unlink(*dir, pick_name()).code(), {0, ENOENT, EISDIR});
                    break;
                case 3:
                    expect_one_of(mkdir(*dir, pick_name()).code(), {0, EEXIST, ENOENT});
                    break;
                case 4:
                    expect_one_of(rmdir(*dir, pick_name()).code(), {0, ENOENT, ENOTDIR, ENOTEMPTY});
                    break;
                case 5:
                    expect_one_of(readdir(*dir, 0, [](const DirEntryView&) { return true; }).code(),
                                  {0, ENOENT});
                    break;
                default:
                    expect_one_of(rename(*dir, pick_name(), *other, pick_name(),
                                         random() % 4 == 0 ? kRenameExchange : 0U)
                                      .code(),
                                  {0, ENOENT, EISDIR, ENOTDIR, ENOTEMPTY, EINVAL});
            }
            if (i % 64 == 0) {
                expect_one_of(fixture.volume().ordering().commit().code(), {0});
            }
        }
    };
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
        threads.emplace_back(work, i);
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(unexpected.load(), 0);
    fixture.expect_clean();
}

}  // namespace
}  // namespace wbfat::fs::inline WBFAT_RT
