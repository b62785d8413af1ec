// Goal: rename and exchange answer as Linux vfat does (and change the case of a name, which it does
// not); the tree, the link counts and ".." are right afterwards; and a power cut in the middle
// leaves the file under one of its names. Method: the kernel's answers as tables, and the log of
// writes cut off at every entry.
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "cache/device/memory_device.h"
#include "fs/dir.h"
#include "fs/namei.h"

#include "tests/fs/names_fixture.h"

namespace wbfat::fs::inline WBFAT_RT {
namespace {

class RenameTest : public testing::TestWithParam<VolumeShape> {
protected:
    RenameTest() : fixture_(GetParam()) {}

    Inode& root() {
        return fixture_.root();
    }
    static int rename_code(Inode& old_dir, std::string_view old_name, Inode& new_dir,
                           std::string_view new_name, unsigned flags = 0) {
        return rename(old_dir, old_name, new_dir, new_name, flags).code();
    }
    int rename_root(std::string_view old_name, std::string_view new_name, unsigned flags = 0) {
        return rename_code(root(), old_name, root(), new_name, flags);
    }
    // The cluster ".." of a directory names on the device.
    cluster_t dotdot(Inode& dir) {
        const auto entry = read_short_entry(fixture_.volume(), *dir.directory().dotdot_i_pos());
        EXPECT_TRUE(entry->is_dotdot());
        return entry->first_cluster(fixture_.volume().geometry().type);
    }

    NamesFixture fixture_;
};

INSTANTIATE_TEST_SUITE_P(Shapes, RenameTest,
                         testing::Values(kFat12, kFat16, kFat32, kFat16Sector4096),
                         [](const auto& shape) { return std::string(shape.param.label); });

TEST_P(RenameTest, AnswersAsTheKernelDoes) {
    ASSERT_TRUE(create(root(), "file").has_value());
    ASSERT_TRUE(create(root(), "other").has_value());
    const InodeRef dir = *mkdir(root(), "dir");
    ASSERT_TRUE(mkdir(root(), "empty").has_value());
    const InodeRef sub = *mkdir(*dir, "sub");
    ASSERT_TRUE(mkdir(*sub, "deep").has_value());

    EXPECT_EQ(rename_root("file", "other", kRenameNoReplace), EEXIST);
    EXPECT_EQ(rename_root("file", "OTHER.", kRenameNoReplace), EEXIST);
    EXPECT_EQ(rename_root("file", "file", kRenameNoReplace), EEXIST);
    EXPECT_EQ(rename_root("file", "x", 4), EINVAL);  // RENAME_WHITEOUT
    EXPECT_EQ(rename_root("file", "x", kRenameNoReplace | kRenameExchange), EINVAL);
    EXPECT_EQ(rename_root("file", "none", kRenameExchange), ENOENT);
    EXPECT_EQ(rename_root("none", "file"), ENOENT);
    EXPECT_EQ(rename_root("empty", "dir"), ENOTEMPTY);
    EXPECT_EQ(rename_root("dir", "file"), ENOTDIR);
    EXPECT_EQ(rename_root("file", "dir"), EISDIR);
    EXPECT_EQ(rename_code(root(), "dir", *dir, "into itself"), EINVAL);
    EXPECT_EQ(rename_code(root(), "dir", *sub, "deeper"), EINVAL);
    EXPECT_EQ(rename_code(root(), "dir", *dir, "sub", kRenameExchange), EINVAL);
    EXPECT_EQ(rename_code(*sub, "deep", root(), "dir"), ENOTEMPTY);
    EXPECT_EQ(rename_code(*sub, "deep", root(), "dir", kRenameExchange), EINVAL);
    EXPECT_EQ(rename_root("file", "a:b"), EINVAL);
    EXPECT_EQ(rename_root("file", std::string(256, 'x')), ENAMETOOLONG);
    EXPECT_EQ(rename_root("file", "..."), ENOENT);
    EXPECT_EQ(rename_root("file", "file"), 0);
    const InodeRef file = fixture_.dir("file");
    EXPECT_EQ(rename_code(*file, "x", root(), "y"), ENOTDIR);
    EXPECT_EQ(fixture_.sorted_names(root()),
              (std::vector<std::string>{"dir", "empty", "file", "other"}));
    EXPECT_EQ(fixture_.sorted_names(*sub), std::vector<std::string>{"deep"});
}

TEST_P(RenameTest, MovesAFileAndItsIdentity) {
    fixture_.put(root(), "a long name in the root.txt", "content");
    {
        const InodeRef dir = *mkdir(root(), "dir");
        const InodeRef file = fixture_.dir("a long name in the root.txt");
        const std::uint64_t ino = file->ino();
        ASSERT_EQ(rename_code(root(), "a long name in the root.txt", *dir, "another long name.txt"),
                  0);
        EXPECT_EQ(lookup(root(), "a long name in the root.txt").code(), ENOENT);
        EXPECT_EQ(fixture_.dir(*dir, "another long name.txt")->ino(), ino);
        EXPECT_EQ(fixture_.text(*dir, "another long name.txt"), "content");
        // What is written now must find the new entry.
        fixture_.write(file, "more content than before");
    }
    fixture_.expect_clean();
    EXPECT_EQ(fixture_.names(root()), std::vector<std::string>{"dir"});
    EXPECT_EQ(fixture_.text(*fixture_.dir("dir"), "another long name.txt"),
              "more content than before");
}

TEST_P(RenameTest, ReplacesAFileKeepingTheSpellingOfItsName) {
    fixture_.put(root(), "Source name.txt", "new");
    fixture_.put(root(), "Target name.txt", "old");
    {
        const InodeRef victim = fixture_.dir("Target name.txt");
        ASSERT_EQ(rename_root("Source name.txt", "TARGET NAME.TXT"), 0);
        EXPECT_EQ(victim->getattr().st_nlink, 0U);
        EXPECT_EQ(fixture_.text(victim), "old");
        EXPECT_EQ(fixture_.names(root()), std::vector<std::string>{"Target name.txt"});
        EXPECT_EQ(fixture_.text(root(), "Target name.txt"), "new");
        fixture_.commit();
        EXPECT_EQ(fixture_.text(victim), "old");
    }
    fixture_.expect_clean();
    EXPECT_EQ(fixture_.text(root(), "Target name.txt"), "new");
    EXPECT_EQ(fixture_.names(root()).size(), 1U);
}

// Reports, the live page and rules for points know a file by it.
TEST_P(RenameTest, AMappingGoesByTheNameOfItsFile) {
    const InodeRef one = *create(root(), "one.txt");
    const InodeRef two = *create(root(), "A long name");
    EXPECT_EQ(one->mapping().name(), "one.txt");
    EXPECT_EQ(two->mapping().name(), "A long name");
    ASSERT_EQ(rename_root("one.txt", "ONE.txt"), 0);
    EXPECT_EQ(one->mapping().name(), "ONE.txt");
    const InodeRef dir = *mkdir(root(), "dir");
    ASSERT_EQ(rename_code(root(), "ONE.txt", *dir, "three"), 0);
    EXPECT_EQ(one->mapping().name(), "three");
    ASSERT_EQ(rename_code(*dir, "three", root(), "A long name", kRenameExchange), 0);
    EXPECT_EQ(one->mapping().name(), "A long name");
    EXPECT_EQ(two->mapping().name(), "three");
    // The entry stays, and its spelling with it.
    ASSERT_EQ(rename_code(*dir, "three", root(), "a LONG name"), 0);
    EXPECT_EQ(two->mapping().name(), "A long name");
}

TEST_P(RenameTest, ChangesTheCaseOfAName) {
    struct Case {
        const char* from;
        const char* to;
    };
    for (const Case& c :
         {Case{"casetest.txt", "CaseTest.txt"}, Case{"A long mixed name", "a LONG mixed NAME"},
          Case{"UPPER.TXT", "Upper.txt"}, Case{"Lower.txt", "LOWER.TXT"}}) {
        SCOPED_TRACE(c.from);
        fixture_.put(root(), c.from, c.from);
        const std::uint64_t ino = fixture_.dir(c.from)->ino();
        ASSERT_EQ(rename_root(c.from, c.to), 0);
        EXPECT_EQ(fixture_.names(root()), std::vector<std::string>{c.to});
        EXPECT_EQ(fixture_.dir(c.from)->ino(), ino);
        fixture_.expect_clean();
        EXPECT_EQ(fixture_.names(root()), std::vector<std::string>{c.to});
        EXPECT_EQ(fixture_.text(root(), c.from), c.from);
        ASSERT_EQ(unlink(root(), c.from).code(), 0);
    }
}

TEST_P(RenameTest, ChangesTheCaseOfADirectory) {
    {
        const InodeRef dir = *mkdir(root(), "Directory");
        ASSERT_TRUE(create(*dir, "inside").has_value());
        ASSERT_EQ(rename_root("directory", "DIRECTORY", kRenameNoReplace), 0);
    }
    fixture_.expect_clean();
    EXPECT_EQ(fixture_.names(root()), std::vector<std::string>{"DIRECTORY"});
    EXPECT_EQ(fixture_.names(*fixture_.dir("directory")), std::vector<std::string>{"inside"});
}

TEST_P(RenameTest, TheAliasOfAFileCanBecomeItsName) {
    fixture_.put(root(), "a long file name.text", "x");
    ASSERT_EQ(rename_root("a long file name.text", "ALONGF~1.TEX"), 0);
    EXPECT_EQ(fixture_.names(root()), std::vector<std::string>{"ALONGF~1.TEX"});
    EXPECT_EQ(lookup(root(), "a long file name.text").code(), ENOENT);
    fixture_.expect_clean();
    EXPECT_EQ(fixture_.text(root(), "alongf~1.tex"), "x");
}

TEST_P(RenameTest, AMovedDirectoryKnowsItsNewParent) {
    {
        const InodeRef one = *mkdir(root(), "one");
        const InodeRef two = *mkdir(root(), "two");
        const InodeRef moving = *mkdir(*one, "moving");
        ASSERT_TRUE(create(*moving, "file").has_value());
        EXPECT_EQ(dotdot(*moving), one->i_start);
        ASSERT_EQ(rename_code(*one, "moving", *two, "moved"), 0);
        EXPECT_EQ(dotdot(*moving), two->i_start);
        EXPECT_EQ(&*moving->parent, &*two);
        EXPECT_EQ(one->getattr().st_nlink, 2U);
        EXPECT_EQ(two->getattr().st_nlink, 3U);
        EXPECT_EQ(root().getattr().st_nlink, 4U);
        // To the root it is 0, on FAT32 too.
        ASSERT_EQ(rename_code(*two, "moved", root(), "three"), 0);
        EXPECT_EQ(dotdot(*moving), 0U);
        EXPECT_EQ(root().getattr().st_nlink, 5U);
        // The old parent can go, and the tree below can be used.
        ASSERT_EQ(rmdir(root(), "two").code(), 0);
        ASSERT_TRUE(create(*moving, "second").has_value());
        EXPECT_EQ(rename_code(root(), "one", *moving, "one"), 0);
    }
    fixture_.expect_clean();
    const InodeRef three = fixture_.dir("three");
    EXPECT_EQ(fixture_.names(root()), std::vector<std::string>{"three"});
    EXPECT_EQ(fixture_.sorted_names(*three), (std::vector<std::string>{"file", "one", "second"}));
    EXPECT_EQ(dotdot(*fixture_.dir(*three, "one")), three->i_start);
}

TEST_P(RenameTest, AnEmptyDirectoryIsReplacedByAnother) {
    const std::uint64_t free_before = fixture_.volume().statfs()->blocks_free;
    {
        const InodeRef source = *mkdir(root(), "source");
        ASSERT_TRUE(create(*source, "inside").has_value());
        const InodeRef target = *mkdir(root(), "target");
        ASSERT_EQ(rename_root("source", "target"), 0);
        EXPECT_EQ(create(*target, "x").code(), ENOENT) << "the replaced directory is removed";
        EXPECT_EQ(&*fixture_.dir("target"), &*source);
        EXPECT_EQ(root().getattr().st_nlink, 3U);
    }
    fixture_.expect_clean();
    EXPECT_EQ(fixture_.names(*fixture_.dir("target")), std::vector<std::string>{"inside"});
    EXPECT_EQ(fixture_.volume().statfs()->blocks_free, free_before - 1);
}

TEST_P(RenameTest, ExchangesAFileAndADirectoryOfDifferentParents) {
    {
        const InodeRef one = *mkdir(root(), "one");
        const InodeRef two = *mkdir(root(), "two");
        fixture_.put(*one, "Thing", "a file");
        const InodeRef sub = *mkdir(*two, "a thing with a long name");
        ASSERT_TRUE(create(*sub, "inside").has_value());
        ASSERT_EQ(rename_code(*one, "thing", *two, "A thing with a long name", kRenameExchange), 0);
        EXPECT_EQ(&*fixture_.dir(*one, "Thing"), &*sub);
        EXPECT_EQ(fixture_.text(*two, "a thing with a long name"), "a file");
        EXPECT_EQ(dotdot(*sub), one->i_start);
        EXPECT_EQ(one->getattr().st_nlink, 3U);
        EXPECT_EQ(two->getattr().st_nlink, 2U);
        ASSERT_TRUE(create(*sub, "more").has_value());
    }
    fixture_.expect_clean();
    const InodeRef one = fixture_.dir("one");
    EXPECT_EQ(fixture_.names(*one), std::vector<std::string>{"Thing"});
    EXPECT_EQ(fixture_.sorted_names(*fixture_.dir(*one, "thing")),
              (std::vector<std::string>{"inside", "more"}));
    EXPECT_EQ(fixture_.text(*fixture_.dir("two"), "a thing with a long name"), "a file");
}

TEST_P(RenameTest, ANameMovedAwayCanBeMadeAgainAtOnce) {
    const InodeRef dir = *mkdir(root(), "dir");
    for (int i = 0; i < 5; ++i) {
        SCOPED_TRACE(i);
        fixture_.put(root(), "the same long name", std::to_string(i));
        ASSERT_EQ(rename_code(root(), "the same long name", *dir, "kept " + std::to_string(i)), 0);
    }
    EXPECT_EQ(fixture_.names(*dir).size(), 5U);
    for (int i = 0; i < 5; ++i) {
        EXPECT_EQ(fixture_.text(*dir, "kept " + std::to_string(i)), std::to_string(i));
    }
    // And the safe save of an editor, over and over.
    for (int i = 0; i < 5; ++i) {
        fixture_.put(root(), "document.tmp", "version " + std::to_string(i));
        ASSERT_EQ(rename_root("document.tmp", "document.txt"), 0);
        EXPECT_EQ(fixture_.text(root(), "document.txt"), "version " + std::to_string(i));
    }
}

TEST_P(RenameTest, AChainOfRenamesInOneCommitEndsAtTheLastName) {
    {
        const InodeRef dir = *mkdir(root(), "dir");
        fixture_.put(root(), "n0", "x");
        fixture_.commit();
        Inode* from = &root();
        Inode* to = &*dir;
        for (int i = 0; i < 6; ++i) {
            ASSERT_EQ(rename_code(*from, "n" + std::to_string(i), *to, "n" + std::to_string(i + 1)),
                      0);
            std::swap(from, to);
        }
        EXPECT_TRUE(fixture_.names(*dir).empty());
    }
    fixture_.expect_clean();
    EXPECT_EQ(fixture_.sorted_names(root()), (std::vector<std::string>{"dir", "n6"}));
    EXPECT_EQ(fixture_.text(root(), "n6"), "x");
}

TEST_P(RenameTest, AFileUnlinkedWhileOpenDoesNotDisturbWhoTookItsPlace) {
    fixture_.put(root(), "old", "old");
    fixture_.put(root(), "new", "new");
    {
        const InodeRef open = fixture_.dir("old");
        ASSERT_EQ(unlink(root(), "old").code(), 0);
        ASSERT_EQ(rename_root("new", "old"), 0);
        fixture_.write(open, "written to nowhere");
        fixture_.commit();
        EXPECT_EQ(fixture_.text(root(), "old"), "new");
    }
    fixture_.expect_clean();
    EXPECT_EQ(fixture_.text(root(), "old"), "new");
}

// A root of 512 entries that cannot grow.
class RenameInAFixedRootTest : public testing::TestWithParam<VolumeShape> {
protected:
    Inode& root() {
        return fixture_.root();
    }
    int rename_root(std::string_view old_name, std::string_view new_name, unsigned flags = 0) {
        return rename(root(), old_name, root(), new_name, flags).code();
    }

    NamesFixture fixture_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Shapes, RenameInAFixedRootTest, testing::Values(kFat16, kFat16Sector4096),
                         [](const auto& shape) { return std::string(shape.param.label); });

TEST_P(RenameInAFixedRootTest, AFullDirectoryKeepsTheOldName) {
    fixture_.put(root(), "F0", "x");
    for (int i = 1; i < 512; ++i) {
        ASSERT_EQ(create(root(), "F" + std::to_string(i)).code(), 0);
    }
    EXPECT_EQ(rename_root("F0", "a name that needs more slots"), ENOSPC);
    EXPECT_EQ(fixture_.text(root(), "F0"), "x");
    EXPECT_EQ(lookup(root(), "a name that needs more slots").code(), ENOENT);
    EXPECT_EQ(rename_root("F0", "G0"), 0) << "one slot is rewritten in place";
    fixture_.expect_clean();
}

// Two files in the root whose names are in different sectors, and as many between them as it takes.
void put_two_apart(NamesFixture& fixture, const VolumeShape& shape) {
    fixture.put(fixture.root(), "first", "one");
    for (std::uint32_t i = 0; i < shape.sector_bytes / 32; ++i) {
        ASSERT_EQ(create(fixture.root(), "F" + std::to_string(i)).code(), 0);
    }
    fixture.put(fixture.root(), "second", "two");
    fixture.commit();
}

TEST_P(RenameTest, AnExchangeBetweenSectorsLeavesNoThirdName) {
    put_two_apart(fixture_, GetParam());
    const std::vector<std::string> names = fixture_.names(root());
    for (const char* const first : {"two", "one", "two"}) {
        SCOPED_TRACE(first);
        ASSERT_EQ(rename_root("first", "second", kRenameExchange), 0);
        EXPECT_EQ(fixture_.names(root()), names);
        EXPECT_EQ(fixture_.text(root(), "first"), first);
    }
    // What is written now must find the new entries.
    fixture_.put(root(), "first", "two is longer now");
    fixture_.put(root(), "second", "1");
    fixture_.expect_clean();
    EXPECT_EQ(fixture_.names(root()), names);
    EXPECT_EQ(fixture_.text(root(), "first"), "two is longer now");
    EXPECT_EQ(fixture_.text(root(), "second"), "1ne");
}

TEST_P(RenameTest, AThirdNameThatIsTakenIsLeftAlone) {
    put_two_apart(fixture_, GetParam());
    fixture_.put(root(), "exchange.000", "somebody's");
    ASSERT_EQ(rename_root("first", "second", kRenameExchange), 0);
    EXPECT_EQ(fixture_.text(root(), "exchange.000"), "somebody's");
    EXPECT_EQ(lookup(root(), "exchange.001").code(), ENOENT);
    EXPECT_EQ(fixture_.text(root(), "first"), "two");
    fixture_.expect_clean();
}

TEST_P(RenameInAFixedRootTest, AnExchangeWithoutRoomForAThirdNameIsDoneAllTheSame) {
    put_two_apart(fixture_, GetParam());
    for (unsigned i = 0; create(root(), "G" + std::to_string(i)).has_value(); ++i) {
    }
    ASSERT_EQ(rename_root("first", "second", kRenameExchange), 0);
    EXPECT_EQ(fixture_.text(root(), "first"), "two");
    EXPECT_EQ(fixture_.text(root(), "second"), "one");
    fixture_.expect_clean();
    EXPECT_EQ(fixture_.text(root(), "first"), "two");
}

// Fails the n-th write or flush of an exchange, for every n.
TEST_P(RenameTest, AnExchangeThatFailsLeavesBothNamesAsTheyWere) {
    unsigned nr_failures = 0;
    for (std::uint64_t hit = 1;; ++hit) {
        SCOPED_TRACE(hit);
        NamesFixture fixture(GetParam());
        put_two_apart(fixture, GetParam());
        const std::vector<std::string> names = fixture.names(fixture.root());
        cache::FaultyDevice& faults = fixture.test().faults();
        const auto rule = faults.add_rule(
            {.ops = std::uint8_t{cache::kFaultWrites | cache::kFaultFlushes}, .first_hit = hit});
        const int code =
            rename_code(fixture.root(), "first", fixture.root(), "second", kRenameExchange);
        const bool acted = faults.acts(rule) != 0;
        faults.clear_rules();
        EXPECT_EQ(code, acted ? EIO : 0);
        nr_failures += acted ? 1 : 0;
        const auto check = [&] {
            EXPECT_EQ(fixture.names(fixture.root()), names);
            EXPECT_EQ(fixture.text(fixture.root(), "first"), acted ? "one" : "two");
            EXPECT_EQ(fixture.text(fixture.root(), "second"), acted ? "two" : "one");
        };
        check();
        fixture.commit();
        fixture.crash_and_mount();
        check();
        if (!acted) {
            break;
        }
    }
    EXPECT_GE(nr_failures, 4U);
}

TEST_P(RenameTest, TellsHowTheNamesAreShown) {
    fixture_.put(root(), "A long Name.txt", "x");
    fixture_.put(root(), "Target.txt", "y");
    const auto told = [&](std::string_view old_name, std::string_view new_name, unsigned flags) {
        const Result<RenameSpellings> names = rename(root(), old_name, root(), new_name, flags);
        EXPECT_EQ(names.code(), 0);
        return std::vector<std::string>{names->old_before, names->new_before, names->old_after,
                                        names->new_after};
    };
    using Names = std::vector<std::string>;
    EXPECT_EQ(told("ALONGN~1.TXT", "TARGET.TXT", kRenameExchange),
              (Names{"A long Name.txt", "Target.txt", "A long Name.txt", "Target.txt"}));
    EXPECT_EQ(told("a LONG name.txt.", "Other.txt..", 0),
              (Names{"A long Name.txt", "", "", "Other.txt"}));
    EXPECT_EQ(told("other.TXT", "OTHER.txt", 0),
              (Names{"Other.txt", "Other.txt", "OTHER.txt", "OTHER.txt"}));
    EXPECT_EQ(told("other.txt", "target.txt", 0),
              (Names{"OTHER.txt", "Target.txt", "", "Target.txt"}));
    EXPECT_EQ(told("target.txt", "target.TXT", kRenameExchange),
              (Names{"Target.txt", "Target.txt", "Target.txt", "Target.txt"}));
}

// --- power cuts

// Finds a text anywhere in a tree of two levels; answers the paths.
std::set<std::string> paths_of(Volume& volume, const std::string& text) {
    std::set<std::string> paths;
    const InodeRef root = *volume.root();
    const auto scan = [&](Inode& dir, const std::string& prefix) {
        for (const std::string& name : NamesFixture::names(dir)) {
            const InodeRef inode = NamesFixture::dir(dir, name);
            if (!inode->is_directory() && NamesFixture::text(inode) == text) {
                paths.insert(prefix + name);
            }
        }
    };
    scan(*root, "/");
    for (const std::string& name : NamesFixture::names(*root)) {
        const InodeRef inode = NamesFixture::dir(*root, name);
        if (inode->is_directory()) {
            scan(*inode, "/" + name + "/");
        }
    }
    return paths;
}

// Mounts every state that a cut after each write of `log` leaves of `base`, read-only.
void at_every_cut(const std::vector<std::byte>& base, const cache::WriteLog& log,
                  const std::function<void(Volume&)>& check) {
    for (std::size_t cut = 0; cut <= log.size(); ++cut) {
        SCOPED_TRACE("cut after " + std::to_string(cut) + " of " + std::to_string(log.size()));
        cache::MemoryDevice device(base);
        cache::replay(log, cut, device.bytes());
        const auto page_cache = cache::PageCache::create({.cache_size_bytes = 4U << 20});
        ASSERT_TRUE(page_cache.has_value());
        MountOptions options;
        options.read_only = true;
        std::string why;
        const auto volume = Volume::mount(device, **page_cache, options, {}, why);
        ASSERT_TRUE(volume.has_value()) << why;
        check(**volume);
    }
}

TEST_P(RenameTest, APowerCutLeavesAMovedFileUnderOneOfItsNamesAtLeast) {
    const InodeRef dir = *mkdir(root(), "dir");
    fixture_.put(root(), "the old name", "precious");
    ASSERT_EQ(fixture_.volume().sync_fs().code(), 0);
    const std::vector<std::byte> base = fixture_.test().image();
    fixture_.test().recorder().take_log();

    ASSERT_EQ(rename_code(root(), "the old name", *dir, "the new name"), 0);
    ASSERT_EQ(fixture_.volume().sync_fs().code(), 0);
    const cache::WriteLog log = fixture_.test().recorder().take_log();
    ASSERT_FALSE(log.empty());
    const std::set<std::string> allowed{"/the old name", "/dir/the new name"};
    std::set<std::string> seen_last;
    at_every_cut(base, log, [&](Volume& volume) {
        seen_last = paths_of(volume, "precious");
        EXPECT_FALSE(seen_last.empty());
        for (const std::string& path : seen_last) {
            EXPECT_TRUE(allowed.contains(path)) << path;
        }
    });
    EXPECT_EQ(seen_last, std::set<std::string>{"/dir/the new name"});
}

TEST_P(RenameTest, APowerCutLeavesTheOldOrTheNewVersionOfAReplacedFile) {
    fixture_.put(root(), "document", "old version");
    ASSERT_EQ(fixture_.volume().sync_fs().code(), 0);
    fixture_.put(root(), "document.new", "new version");
    ASSERT_EQ(fixture_.volume().sync_fs().code(), 0);
    const std::vector<std::byte> base = fixture_.test().image();
    fixture_.test().recorder().take_log();

    ASSERT_EQ(rename_root("document.new", "document"), 0);
    ASSERT_EQ(fixture_.volume().sync_fs().code(), 0);
    const cache::WriteLog log = fixture_.test().recorder().take_log();
    std::string last;
    at_every_cut(base, log, [&](Volume& volume) {
        const InodeRef at_cut = *volume.root();
        last = NamesFixture::text(*at_cut, "document");
        EXPECT_TRUE(last == "old version" || last == "new version") << last;
        EXPECT_FALSE(paths_of(volume, "new version").empty());
    });
    EXPECT_EQ(last, "new version");
}

TEST_P(RenameTest, APowerCutFindsAFileWhoseOldDirectoryIsRemovedInTheSameCommit) {
    for (const bool replace : {false, true}) {
        SCOPED_TRACE(replace ? "replaced" : "removed");
        ASSERT_TRUE(mkdir(root(), "dir").has_value());
        fixture_.put(*fixture_.dir("dir"), "file", "precious");
        if (replace) {
            ASSERT_TRUE(mkdir(root(), "other").has_value());
        }
        // The new name goes into another sector than the name of the directory.
        const std::uint32_t in_sector = GetParam().sector_bytes / 32;
        for (std::uint32_t i = 0; i < in_sector; ++i) {
            ASSERT_EQ(create(root(), "F" + std::to_string(i)).code(), 0);
        }
        ASSERT_EQ(fixture_.volume().sync_fs().code(), 0);
        const std::vector<std::byte> base = fixture_.test().image();
        fixture_.test().recorder().take_log();
        ASSERT_EQ(rename_code(*fixture_.dir("dir"), "file", root(), "moved"), 0);
        ASSERT_EQ(replace ? rename_root("other", "dir") : rmdir(root(), "dir").code(), 0);
        ASSERT_EQ(fixture_.volume().sync_fs().code(), 0);
        at_every_cut(base, fixture_.test().recorder().take_log(),
                     [&](Volume& volume) { EXPECT_FALSE(paths_of(volume, "precious").empty()); });
        for (const std::string& name : fixture_.names(root())) {
            ASSERT_EQ(name == "dir" ? rmdir(root(), name).code() : unlink(root(), name).code(), 0);
        }
    }
}

TEST_P(RenameTest, RenamingWithinASectorIsOneWriteOfTheDirectory) {
    fixture_.put(root(), "short", "precious");
    ASSERT_EQ(fixture_.volume().sync_fs().code(), 0);
    const std::vector<std::byte> base = fixture_.test().image();
    fixture_.test().recorder().take_log();
    ASSERT_EQ(rename_root("short", "a name that needs three slots"), 0);
    ASSERT_EQ(fixture_.volume().sync_fs().code(), 0);
    at_every_cut(base, fixture_.test().recorder().take_log(),
                 [&](Volume& volume) { EXPECT_EQ(paths_of(volume, "precious").size(), 1U); });
}

}  // namespace
}  // namespace wbfat::fs::inline WBFAT_RT
