// Goal: one inode for one file, however it is met; and none leaves memory while the disk lacks
// something of it. Method: files and directories of a small volume, moved, unlinked, evicted, and
// twisted into loops.
#include "fs/inode_cache.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cache/flusher.h"
#include "fs/namei.h"

#include "tests/support/volume_fixture.h"

namespace wbfat::fs::inline WBFAT_RT {
namespace {

class InodeCacheTest : public testing::Test {
protected:
    InodeCacheTest() {
        bed_.mount();
    }
    InodeCache& inodes() {
        return bed_.volume().inodes();
    }
    std::uint64_t free_clusters() {
        return bed_.volume().statfs()->blocks_free;
    }

    TestVolume bed_;
};

TEST_F(InodeCacheTest, TheSameNameIsTheSameInode) {
    InodeRef made = bed_.make("a", 10);
    const InodeRef found = bed_.open(*bed_.root(), "A");
    EXPECT_EQ(&*made, &*found);
    EXPECT_EQ(&*inodes().find(made->i_pos), &*made);
}

TEST_F(InodeCacheTest, AnUnreferencedInodeKeepsItsPages) {
    const Inode* address = &*bed_.make("a", 5000);
    const InodeRef again = bed_.open(*bed_.root(), "a");
    EXPECT_EQ(&*again, address);
    EXPECT_GT(again->mapping().i_pages.nr_pages(), 0U);
}

TEST_F(InodeCacheTest, ShrinkingDropsCleanInodesAndReadsThemBack) {
    for (int i = 0; i < 50; ++i) {
        bed_.make("file" + std::to_string(i), 3000, static_cast<std::uint8_t>(i));
    }
    bed_.commit();
    EXPECT_GT(inodes().nr_inodes(), 50U);
    inodes().shrink(0);
    EXPECT_EQ(inodes().nr_inodes(), 1U) << "the root stays";
    for (int i = 0; i < 50; ++i) {
        EXPECT_EQ(bed_.read(bed_.open(*bed_.root(), "file" + std::to_string(i))),
                  pattern(0, 3000, static_cast<std::uint8_t>(i)));
    }
}

TEST_F(InodeCacheTest, AnInodeWithDirtyPagesStays) {
    InodeRef file = bed_.make("a", 5000);
    bed_.commit();
    // An overwrite in the same two seconds: nothing for the commit, dirty pages for the flusher.
    bed_.write(file, 0, 5000, 9);
    ASSERT_FALSE(bed_.volume().ordering().anything_pending());
    file = {};
    inodes().shrink(0);
    EXPECT_EQ(inodes().nr_inodes(), 2U);
    ASSERT_EQ(bed_.volume().cache().flusher().sync_inodes().code(), 0);
    inodes().shrink(0);
    EXPECT_EQ(inodes().nr_inodes(), 1U);
    EXPECT_EQ(bed_.read(bed_.open(*bed_.root(), "a")), pattern(0, 5000, 9));
}

TEST_F(InodeCacheTest, DirectoriesGoWithTheirParents) {
    InodeRef dir = bed_.root();
    for (int depth = 0; depth < 10; ++depth) {
        dir = bed_.make_directory(*dir, "d");
    }
    dir = {};
    bed_.commit();
    inodes().shrink(0);
    EXPECT_EQ(inodes().nr_inodes(), 1U);
}

TEST_F(InodeCacheTest, AnUnlinkedInodeLivesUntilTheLastReference) {
    const std::uint64_t before = free_clusters();
    InodeRef file = bed_.make("a", 100000);
    const InodeRef second = file;
    ASSERT_EQ(unlink(*bed_.root(), "a").code(), 0);
    EXPECT_EQ(file->getattr().st_nlink, 0U);
    bed_.write(file, 100000, 1000, 1);
    EXPECT_EQ(bed_.read(second), pattern(0, 101000, 1));
    EXPECT_LT(free_clusters(), before);
    bed_.commit();
    EXPECT_EQ(bed_.read(second), pattern(0, 101000, 1));
}

TEST_F(InodeCacheTest, ItsClustersAreFreeWhenItIsGone) {
    const std::uint64_t before = free_clusters();
    InodeRef file = bed_.make("a", 100000);
    ASSERT_EQ(unlink(*bed_.root(), "a").code(), 0);
    file = {};
    EXPECT_EQ(inodes().nr_inodes(), 1U);
    EXPECT_EQ(free_clusters(), before);
    EXPECT_EQ(bed_.volume().cache().stats().nr_dirty > 50, false) << "dead pages are not kept";
    bed_.unmount();
    EXPECT_EQ(bed_.fsck().status, 0) << bed_.fsck().output;
}

TEST_F(InodeCacheTest, TheLastReferenceMayGoInsideATransaction) {
    const std::uint64_t before = free_clusters();
    InodeRef file = bed_.make("a", 100000);
    ASSERT_EQ(unlink(*bed_.root(), "a").code(), 0);
    {
        const Transaction transaction(bed_.volume());
        file = {};
        EXPECT_EQ(inodes().nr_inodes(), 2U);
    }
    EXPECT_EQ(inodes().nr_inodes(), 1U);
    EXPECT_EQ(free_clusters(), before);
}

TEST_F(InodeCacheTest, ARenamedFileKeepsItsInodeAndNumber) {
    const InodeRef file = bed_.make("a", 10);
    const std::uint64_t ino = file->ino();
    const std::uint64_t old_pos = file->i_pos;
    const InodeRef dir = bed_.make_directory(*bed_.root(), "dir");
    ASSERT_EQ(fs::rename(*bed_.root(), "a", *dir, "b", 0).code(), 0);
    EXPECT_EQ(&*bed_.open(*dir, "b"), &*file);
    EXPECT_EQ(file->ino(), ino);
    EXPECT_FALSE(inodes().find(old_pos));
    EXPECT_EQ(&*inodes().find(file->i_pos), &*file);
    EXPECT_EQ(inodes().ino_at(file->i_pos, 0), ino);
}

TEST_F(InodeCacheTest, ExchangedFilesAreBothFound) {
    const InodeRef a = bed_.make("a", 10, 1);
    const InodeRef b = bed_.make("b", 20, 2);
    ASSERT_EQ(fs::rename(*bed_.root(), "a", *bed_.root(), "b", kRenameExchange).code(), 0);
    EXPECT_EQ(&*bed_.open(*bed_.root(), "a"), &*b);
    EXPECT_EQ(&*bed_.open(*bed_.root(), "b"), &*a);
    EXPECT_EQ(&*inodes().find(a->i_pos), &*a);
    EXPECT_EQ(&*inodes().find(b->i_pos), &*b);
}

TEST_F(InodeCacheTest, NumbersAreUniqueAndSurviveARemount) {
    std::vector<std::uint64_t> numbers{bed_.root()->ino()};
    for (int i = 0; i < 20; ++i) {
        numbers.push_back(bed_.make("file" + std::to_string(i))->ino());
        numbers.push_back(bed_.make_directory(*bed_.root(), "dir" + std::to_string(i))->ino());
    }
    std::vector<std::uint64_t> sorted = numbers;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(std::adjacent_find(sorted.begin(), sorted.end()), sorted.end());
    bed_.remount();
    EXPECT_EQ(bed_.open(*bed_.root(), "file7")->ino(), numbers[15]);
    EXPECT_EQ(bed_.open(*bed_.root(), "dir7")->ino(), numbers[16]);
}

TEST_F(InodeCacheTest, AnUnlinkedOpenFileDoesNotShareItsNumber) {
    const InodeRef old = bed_.make("a", 10);
    const std::uint64_t i_pos = old->i_pos;
    ASSERT_EQ(unlink(*bed_.root(), "a").code(), 0);
    bed_.commit();
    const InodeRef fresh = bed_.make("a", 10);
    ASSERT_EQ(fresh->i_pos, i_pos) << "the slot was expected to be used again";
    EXPECT_NE(fresh->ino(), old->ino());
    EXPECT_EQ(inodes().ino_at(fresh->i_pos, 0), fresh->ino());
}

TEST_F(InodeCacheTest, ADirectoryThatContainsItselfIsMetAsItself) {
    InodeRef made = bed_.make_directory(*bed_.root(), "dir");
    const cluster_t start = made->i_start;
    const std::uint64_t i_pos = bed_.make_directory(*made, "inside")->i_pos;
    bed_.commit();
    made = {};
    bed_.crash();
    auto entry = load<ShortEntry>(bed_.memory().bytes(), i_pos);
    entry.set_first_cluster(FatType::kFat16, start);
    store(bed_.memory().bytes(), entry, i_pos);
    bed_.mount();
    const InodeRef dir = bed_.open(*bed_.root(), "dir");
    EXPECT_EQ(&*bed_.open(*dir, "inside"), &*dir);
}

TEST_F(InodeCacheTest, AStartOutsideTheVolumeIsDamage) {
    for (const cluster_t start : {1U, 0xFFF0U}) {
        TestVolume bed;
        bed.mount();
        const std::uint64_t i_pos = bed.make("a", 10)->i_pos;
        bed.commit();
        bed.crash();
        auto entry = load<ShortEntry>(bed.memory().bytes(), i_pos);
        entry.set_first_cluster(FatType::kFat16, start);
        store(bed.memory().bytes(), entry, i_pos);
        bed.mount();
        EXPECT_EQ(lookup(*bed.root(), "a").code(), EIO);
        EXPECT_TRUE(bed.volume().is_read_only());
    }
}

TEST_F(InodeCacheTest, ADirectoryWithABrokenChainIsDamage) {
    InodeRef made = bed_.make_directory(*bed_.root(), "dir");
    const cluster_t start = made->i_start;
    const Geometry geometry = bed_.volume().geometry();
    bed_.commit();
    made = {};
    bed_.crash();
    for (std::uint32_t fat = 0; fat < geometry.nr_fats; ++fat) {
        store(bed_.memory().bytes(), Le16(static_cast<std::uint16_t>(start)),
              geometry.fat_offset_bytes(fat) + start * 2ULL);
    }
    bed_.mount();
    EXPECT_EQ(lookup(*bed_.root(), "dir").code(), EIO);
    EXPECT_NE(bed_.logged().find("broken"), std::string::npos);
}

TEST_F(InodeCacheTest, AFat32RootWithABrokenChainIsShownAsFarAsItGoes) {
    TestVolume bed({.fat_bits = 32, .size_bytes = 40U << 20, .sectors_per_cluster = 1});
    bed.mount();
    bed.make("a", 10);
    const Geometry geometry = bed.volume().geometry();
    bed.commit();
    bed.crash();
    for (std::uint32_t fat = 0; fat < geometry.nr_fats; ++fat) {
        store(bed.memory().bytes(), Le32(geometry.root_cluster),
              geometry.fat_offset_bytes(fat) + geometry.root_cluster * 4ULL);
    }
    bed.mount();
    EXPECT_TRUE(bed.volume().is_read_only());
    EXPECT_EQ(bed.read(bed.open(*bed.root(), "a")), pattern(0, 10, 1));
}

TEST_F(InodeCacheTest, LookupsAndEvictionsRace) {
    constexpr int kFiles = 8;
    for (int i = 0; i < kFiles; ++i) {
        bed_.make("file" + std::to_string(i), 3000, static_cast<std::uint8_t>(i));
    }
    bed_.commit();
    std::vector<std::thread> threads;
    std::atomic<bool> done{false};
    threads.emplace_back([&] {
        while (!done.load()) {
            inodes().shrink(0);
        }
    });
    std::vector<std::thread> readers;
    for (int t = 0; t < 3; ++t) {
        readers.emplace_back([&, t] {
            for (int round = 0; round < 60; ++round) {
                const int i = (round + t) % kFiles;
                EXPECT_EQ(bed_.read(bed_.open(*bed_.root(), "file" + std::to_string(i))),
                          pattern(0, 3000, static_cast<std::uint8_t>(i)));
            }
        });
    }
    for (std::thread& reader : readers) {
        reader.join();
    }
    done.store(true);
    threads.front().join();
}

}  // namespace
}  // namespace wbfat::fs::inline WBFAT_RT
