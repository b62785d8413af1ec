// Goal: stat's answers, where bytes lie, and what goes into the directory entry.
// Method: files and directories of a small volume, with options and damage of all kinds.
#include "fs/inode.h"

#include <gtest/gtest.h>

#include "cache/writeback.h"
#include "fs/dir.h"
#include "fs/file.h"
#include "fs/namei.h"

#include "tests/support/volume_fixture.h"

namespace wbfat::fs::inline WBFAT_RT {
namespace {

class InodeTest : public testing::Test {
protected:
    std::uint32_t cluster() {
        return bed_.volume().geometry().cluster_bytes;
    }
    ShortEntry entry_of(const InodeRef& inode) {
        return *read_short_entry(bed_.volume(), inode->i_pos);
    }
    // Puts a raw FAT16 value into both tables of the unmounted image.
    void set_raw_fat(const Geometry& geometry, cluster_t at, std::uint16_t value) {
        for (std::uint32_t fat = 0; fat < geometry.nr_fats; ++fat) {
            store(bed_.memory().bytes(), Le16(value), geometry.fat_offset_bytes(fat) + at * 2ULL);
        }
    }

    TestVolume bed_;
};

TEST_F(InodeTest, StatOfAFile) {
    bed_.mount();
    const InodeRef file = bed_.make("a", cluster() + 1);
    const struct stat answer = file->getattr();
    EXPECT_EQ(answer.st_mode, static_cast<mode_t>(S_IFREG | 0755));
    EXPECT_EQ(answer.st_nlink, 1U);
    EXPECT_EQ(answer.st_size, static_cast<off_t>(cluster() + 1));
    EXPECT_EQ(answer.st_blocks, static_cast<blkcnt_t>(2 * cluster() / 512));
    EXPECT_EQ(answer.st_blksize, static_cast<blksize_t>(cluster()));
    EXPECT_EQ(answer.st_mtim.tv_sec, 1'700'000'000);
    EXPECT_EQ(answer.st_ctim.tv_sec, answer.st_mtim.tv_sec);
    EXPECT_EQ(answer.st_atim.tv_sec % 86400, 0);
    EXPECT_EQ(answer.st_ino, file->ino());
}

TEST_F(InodeTest, StatOfDirectoriesCountsSubdirectoriesAndClusters) {
    bed_.mount();
    const InodeRef dir = bed_.make_directory(*bed_.root(), "dir");
    bed_.make_in(*dir, "file");
    bed_.make_directory(*dir, "one");
    bed_.make_directory(*dir, "two");
    const struct stat answer = dir->getattr();
    EXPECT_EQ(answer.st_mode, static_cast<mode_t>(S_IFDIR | 0755));
    EXPECT_EQ(answer.st_nlink, 4U);
    EXPECT_EQ(answer.st_size, static_cast<off_t>(cluster()));
    EXPECT_EQ(bed_.root()->getattr().st_nlink, 3U);
}

TEST_F(InodeTest, TheRootHasNoTimes) {
    bed_.mount();
    bed_.make("a");
    const struct stat answer = bed_.root()->getattr();
    EXPECT_EQ(answer.st_mtim.tv_sec, 0);
    EXPECT_EQ(answer.st_atim.tv_sec, 0);
    EXPECT_EQ(answer.st_ino, 1U);
    EXPECT_EQ(answer.st_size, static_cast<off_t>(bed_.volume().geometry().root_dir_bytes()));
}

struct ModeCase {
    const char* name;
    const char* file;
    std::uint8_t attr;
    bool showexec;
    mode_t fmask;
    mode_t mode;
};

TEST_F(InodeTest, ModesFollowTheOptions) {
    const ModeCase cases[] = {
        {"plain", "a.txt", 0, false, 022, 0755},
        {"read-only attribute", "a.txt", kAttrReadOnly, false, 022, 0555},
        {"fmask", "a.txt", 0, false, 0177, 0600},
        {"showexec, no program", "a.txt", 0, true, 022, 0644},
        {"showexec, a program", "a.exe", 0, true, 022, 0755},
        {"showexec, a batch file", "long name.bat", 0, true, 022, 0755},
        {"showexec, read-only", "a.txt", kAttrReadOnly, true, 022, 0444},
    };
    for (const ModeCase& c : cases) {
        SCOPED_TRACE(c.name);
        TestVolume bed;
        bed.options().showexec = c.showexec;
        bed.options().fmask = c.fmask;
        bed.mount();
        bed.make(c.file);
        bed.remount();
        const InodeRef file = bed.open(*bed.root(), c.file);
        EXPECT_EQ(set_fat_attributes(*file, c.attr, true).code(), 0);
        EXPECT_EQ(file->getattr().st_mode, S_IFREG | c.mode);
    }
}

TEST_F(InodeTest, DirectoriesShowReadOnlyOnlyWithRodir) {
    for (const bool rodir : {false, true}) {
        TestVolume bed;
        bed.options().rodir = rodir;
        bed.options().dmask = 002;
        bed.mount();
        const InodeRef dir = bed.make_directory(*bed.root(), "dir");
        EXPECT_EQ(set_fat_attributes(*dir, kAttrReadOnly, true).code(), 0);
        EXPECT_EQ(dir->getattr().st_mode, static_cast<mode_t>(S_IFDIR | (rodir ? 0555 : 0775)));
    }
}

TEST_F(InodeTest, TheEntryHoldsWhatTheInodeSays) {
    bed_.mount();
    const InodeRef file = bed_.make("a", 1234);
    bed_.commit();
    const ShortEntry entry = entry_of(file);
    EXPECT_EQ(entry.size.get(), 1234U);
    EXPECT_EQ(entry.first_cluster(FatType::kFat16), file->i_start);
    EXPECT_EQ(entry.attr, kAttrArchive);
    EXPECT_EQ(from_fat_time(entry.written(), bed_.options()).tv_sec, 1'700'000'000);
}

TEST_F(InodeTest, StampsThatSayTheSameAreLeftAsTheyWere) {
    bed_.mount();
    InodeRef made = bed_.make("a", 10);
    const std::uint64_t i_pos = made->i_pos;
    bed_.commit();
    made = {};
    bed_.crash();
    // No creation time at all, as DOS leaves it.
    auto entry = load<ShortEntry>(bed_.memory().bytes(), i_pos);
    entry.set_created({});
    store(bed_.memory().bytes(), entry, i_pos);
    bed_.mount();
    bed_.write(bed_.open(*bed_.root(), "a"), 0, 20, 2);
    bed_.commit();
    const auto now = load<ShortEntry>(bed_.memory().bytes(), i_pos);
    EXPECT_EQ(now.created(), FatTimestamp{});
    EXPECT_EQ(now.size.get(), 20U);
}

TEST_F(InodeTest, MapsRunsAndHoles) {
    bed_.mount();
    const InodeRef file = bed_.make("a", 4 * cluster());
    cache::AddressSpace& mapping = file->mapping();
    const auto run = mapping.ops().map_blocks(mapping, cluster() + 512, 16 * cluster());
    ASSERT_EQ(run.code(), 0);
    EXPECT_EQ(run->device_offset_bytes,
              bed_.volume().geometry().cluster_offset_bytes(file->i_start) + cluster() + 512);
    EXPECT_EQ(run->length_bytes, 3 * cluster() - 512);
    const auto hole = mapping.ops().map_blocks(mapping, 4 * cluster(), 512);
    ASSERT_EQ(hole.code(), 0);
    EXPECT_TRUE(hole->is_hole());
}

TEST_F(InodeTest, AChainShorterThanTheSizeIsDamage) {
    bed_.mount();
    InodeRef made = bed_.make("a", 4 * cluster());
    const cluster_t start = made->i_start;
    const Geometry geometry = bed_.volume().geometry();
    bed_.commit();
    made = {};
    bed_.crash();
    set_raw_fat(geometry, start, 0xFFFF);
    bed_.mount();
    const InodeRef file = bed_.open(*bed_.root(), "a");
    cache::AddressSpace& mapping = file->mapping();
    EXPECT_EQ(mapping.ops().map_blocks(mapping, 0, 512).code(), 0);
    EXPECT_EQ(mapping.ops().map_blocks(mapping, cluster(), 512).code(), EIO);
    EXPECT_TRUE(bed_.volume().is_read_only());
    EXPECT_NE(bed_.logged().find("error, "), std::string::npos);
}

TEST_F(InodeTest, ALoopIsDamageAndNoHang) {
    bed_.mount();
    InodeRef made = bed_.make("a", 4 * cluster());
    const cluster_t start = made->i_start;
    const Geometry geometry = bed_.volume().geometry();
    bed_.commit();
    made = {};
    bed_.crash();
    set_raw_fat(geometry, start + 1, static_cast<std::uint16_t>(start));
    bed_.mount();
    const InodeRef file = bed_.open(*bed_.root(), "a");
    EXPECT_EQ(file->find_cluster(1000).code(), EIO);
    EXPECT_NE(bed_.logged().find("broken"), std::string::npos);
}

TEST_F(InodeTest, WriteInodeWaitsOnlyForIntegrity) {
    bed_.mount();
    const InodeRef file = bed_.make("a", 10);
    cache::AddressSpace& mapping = file->mapping();
    cache::WritebackControl wbc;
    EXPECT_EQ(mapping.ops().write_inode(mapping, wbc).code(), 0);
    EXPECT_TRUE(bed_.volume().ordering().anything_pending());
    wbc.sync_mode = cache::WB_SYNC_ALL;
    wbc.for_sync = true;
    EXPECT_EQ(mapping.ops().write_inode(mapping, wbc).code(), 0);
    EXPECT_TRUE(bed_.volume().ordering().anything_pending());
    wbc.for_sync = false;
    EXPECT_EQ(mapping.ops().write_inode(mapping, wbc).code(), 0);
    EXPECT_FALSE(bed_.volume().ordering().anything_pending());
}

TEST_F(InodeTest, TouchingTwiceInTwoSecondsIsOneChange) {
    bed_.mount();
    const InodeRef file = bed_.make("a", 10);
    bed_.commit();
    const Transaction transaction(bed_.volume());
    file->touch_mtime();
    EXPECT_FALSE(bed_.volume().ordering().anything_pending());
    bed_.set_time(1'700'000'002);
    file->touch_mtime();
    EXPECT_TRUE(bed_.volume().ordering().anything_pending());
}

TEST_F(InodeTest, SettingTheTimeItHasIsNoChange) {
    bed_.mount();
    const InodeRef file = bed_.make("a", 10);
    bed_.commit();
    AttrChange change;
    change.mtime = timespec{.tv_sec = file->attributes.mtime.tv_sec + 1, .tv_nsec = 5};
    ASSERT_EQ(setattr(*file, change).code(), 0);
    EXPECT_FALSE(bed_.volume().ordering().anything_pending());
    change.mtime->tv_sec += 1;
    ASSERT_EQ(setattr(*file, change).code(), 0);
    EXPECT_TRUE(bed_.volume().ordering().anything_pending());
}

}  // namespace
}  // namespace wbfat::fs::inline WBFAT_RT
