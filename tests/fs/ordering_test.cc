// Goal: what a commit writes, in which order, and what remains when a part of it fails.
// Method: operations on a small volume; then the log of the recording device, and the pages, are
// read.
#include "fs/ordering.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cache/flusher.h"
#include "fs/dir.h"
#include "fs/namei.h"
#include "fs/truncate.h"

#include "tests/support/volume_fixture.h"

namespace wbfat::fs::inline WBFAT_RT {
namespace {

using cache::LogEntry;
using cache::WriteLog;

constexpr std::uint64_t kCluster = 2048;

VolumeSpec small(unsigned fat_bits = 16) {
    VolumeSpec spec;
    spec.fat_bits = fat_bits;
    spec.size_bytes = fat_bits == 32 ? 40U << 20 : fat_bits == 16 ? 16U << 20 : 2U << 20;
    spec.sectors_per_cluster = fat_bits == 32 ? 1 : kCluster / 512;
    return spec;
}

class OrderingTest : public testing::Test {
protected:
    OrderingTest() {
        bed_.mount();
    }

    Ordering& ordering() {
        return bed_.volume().ordering();
    }
    const Geometry& geometry() {
        return bed_.volume().geometry();
    }
    // The writes since the last call, each with its epoch: the number of flushes before it.
    struct Write {
        std::size_t epoch;
        std::uint64_t offset;
        std::uint64_t length;
        std::vector<std::byte> data;
    };
    std::vector<Write> take_writes() {
        std::vector<Write> writes;
        std::size_t epoch = 0;
        for (LogEntry& entry : bed_.recorder().take_log()) {
            if (entry.kind == LogEntry::Kind::kFlush) {
                ++epoch;
            } else if (entry.kind == LogEntry::Kind::kWrite) {
                writes.push_back(
                    {epoch, entry.offset_bytes, entry.length_bytes, std::move(entry.data)});
            }
        }
        nr_flushes_ = epoch;
        return writes;
    }
    // The epoch in which the byte was written first or last; nullopt: not at all.
    static std::optional<std::size_t> first_epoch(const std::vector<Write>& writes,
                                                  std::uint64_t offset) {
        for (const Write& write : writes) {
            if (offset >= write.offset && offset < write.offset + write.length) {
                return write.epoch;
            }
        }
        return std::nullopt;
    }
    static std::optional<std::size_t> last_epoch(std::vector<Write> writes, std::uint64_t offset) {
        std::reverse(writes.begin(), writes.end());
        return first_epoch(writes, offset);
    }
    // Of a FAT16 entry.
    std::uint64_t fat_offset(cluster_t cluster, std::uint32_t fat = 0) {
        return geometry().fat_offset_bytes(fat) + std::uint64_t{cluster} * 2;
    }
    std::uint64_t data_offset(cluster_t cluster) {
        return geometry().cluster_offset_bytes(cluster);
    }
    // The entry of FAT16 as the device has it.
    std::uint16_t fat_on_disk(cluster_t cluster, std::uint32_t fat = 0) {
        return load<Le16>(bed_.memory().bytes(), fat_offset(cluster, fat)).get();
    }
    ShortEntry entry_on_disk(std::uint64_t i_pos) {
        return load<ShortEntry>(bed_.memory().bytes(), i_pos);
    }
    void expect_clean_fsck() {
        bed_.unmount();
        const FsckResult result = bed_.fsck();
        EXPECT_EQ(result.status, 0) << result.output;
    }

    TestVolume bed_{small()};
    std::size_t nr_flushes_ = 0;
};

TEST_F(OrderingTest, TheDirtyMarkIsDurableBeforeAnythingElse) {
    bed_.recorder().take_log();
    const InodeRef file = bed_.make("a", 3000);
    bed_.commit();
    const std::vector<Write> writes = take_writes();
    ASSERT_FALSE(writes.empty());
    const std::uint32_t state = geometry().state_offset_bytes();
    EXPECT_EQ(first_epoch(writes, state), 0U);
    EXPECT_EQ(writes.front().data.at(state - writes.front().offset) & std::byte{1}, std::byte{1});
    for (const Write& write : writes) {
        // FAT[1] shares its sector with ordinary entries; the mark is the write of epoch 0.
        const bool is_mark = write.offset == 0 || write.offset == fat_offset(0, 0) ||
                             write.offset == fat_offset(0, 1);
        EXPECT_TRUE(write.epoch > 0 || is_mark) << write.offset;
    }
    EXPECT_EQ(fat_on_disk(1) & 0x8000, 0);
}

TEST_F(OrderingTest, ReadingWritesNothing) {
    bed_.make("a", 3000);
    bed_.remount();
    bed_.recorder().take_log();
    EXPECT_EQ(bed_.read(bed_.open(*bed_.root(), "a")), pattern(0, 3000, 1));
    bed_.unmount();
    EXPECT_TRUE(bed_.recorder().take_log().empty());
}

TEST_F(OrderingTest, DataAndChainPrecedeTheEntry) {
    bed_.make("first");  // the mark and the directory are out of the way
    bed_.commit();
    take_writes();
    const InodeRef file = bed_.make("a", 5 * kCluster);
    bed_.commit();
    const std::vector<Write> writes = take_writes();
    const auto entry = first_epoch(writes, file->i_pos);
    ASSERT_TRUE(entry.has_value());
    for (cluster_t k = 0; k < 5; ++k) {
        const auto extent = *file->clusters.find(bed_.volume().fat(), k);
        EXPECT_LT(first_epoch(writes, data_offset(extent->disk_cluster)).value(), *entry);
        EXPECT_LT(first_epoch(writes, fat_offset(extent->disk_cluster, 0)).value(), *entry);
        EXPECT_LT(first_epoch(writes, fat_offset(extent->disk_cluster, 1)).value(), *entry);
    }
    EXPECT_EQ(entry_on_disk(file->i_pos).size.get(), 5 * kCluster);
    EXPECT_EQ(nr_flushes_, 2U);
}

TEST_F(OrderingTest, TheFirstFatIsSubmittedFirst) {
    take_writes();
    const InodeRef file = bed_.make("a", kCluster);
    bed_.commit();
    const std::vector<Write> writes = take_writes();
    const auto at = [&](std::uint64_t offset) {
        return std::find_if(writes.rbegin(), writes.rend(), [&](const Write& write) {
            return offset >= write.offset && offset < write.offset + write.length;
        });
    };
    EXPECT_GT(at(fat_offset(file->i_start, 0)) - writes.rbegin(),
              at(fat_offset(file->i_start, 1)) - writes.rbegin());
    EXPECT_EQ(last_epoch(writes, fat_offset(file->i_start, 0)),
              last_epoch(writes, fat_offset(file->i_start, 1)));
}

TEST_F(OrderingTest, DataWrittenLongAgoIsFlushedBeforeTheEntryThatShowsIt) {
    const InodeRef file = bed_.make("a", kCluster);
    bed_.commit();
    // Within the allocated cluster: no table changes. The flusher has written the data already.
    bed_.truncate(file, 100);
    bed_.commit();
    bed_.write(file, 100, 200, 7);
    ASSERT_TRUE(bed_.volume()
                    .cache()
                    .flusher()
                    .write_inode_now(file->mapping(), cache::WB_SYNC_NONE)
                    .has_value());
    cache::filemap_fdatawait_range(file->mapping(), 0, cache::kLastByte);
    bed_.commit();
    const std::vector<Write> writes = take_writes();
    EXPECT_LT(last_epoch(writes, data_offset(file->i_start)).value(),
              last_epoch(writes, file->i_pos).value());
}

TEST_F(OrderingTest, FreesComeAfterTheEntryIsGoneAndAreNotReusedBefore) {
    InodeRef file = bed_.make("a", 3 * kCluster);
    bed_.commit();
    take_writes();
    const std::uint64_t i_pos = file->i_pos;
    const cluster_t start = file->i_start;
    file = {};
    ASSERT_EQ(unlink(*bed_.root(), "a").code(), 0);
    // Still used on disk, still used for the allocator: nothing gets these clusters now.
    const InodeRef other = bed_.make("b", 3 * kCluster);
    EXPECT_NE(other->i_start, start);
    bed_.commit();
    const std::vector<Write> writes = take_writes();
    EXPECT_EQ(entry_on_disk(i_pos).name[0] == kDirEntryDeleted || i_pos == other->i_pos, true);
    EXPECT_EQ(fat_on_disk(start), 0);
    EXPECT_EQ(fat_on_disk(start, 1), 0);
    // Epochs that still show the chain: all up to the one of the entry.
    const std::size_t entry = last_epoch(writes, i_pos).value();
    for (const Write& write : writes) {
        const std::uint64_t at = fat_offset(start);
        if (at >= write.offset && at < write.offset + write.length) {
            const std::uint16_t value = load<Le16>(write.data, at - write.offset).get();
            EXPECT_EQ(value == 0, write.epoch > entry);
        }
    }
}

TEST_F(OrderingTest, FreedClustersAreAllocatableAfterTheCommit) {
    const auto before = bed_.volume().statfs();
    InodeRef file = bed_.make("a", 100 * kCluster);
    file = {};
    ASSERT_EQ(unlink(*bed_.root(), "a").code(), 0);
    bed_.commit();
    EXPECT_EQ(bed_.volume().statfs()->blocks_free, before->blocks_free);
    // All of it: only possible when nothing is pending.
    const std::uint64_t all = before->blocks_free * kCluster;
    const InodeRef big = bed_.make("b");
    EXPECT_EQ(fat_add_clusters(*big, all).code(), 0);
    EXPECT_EQ(bed_.volume().statfs()->blocks_free, 0U);
}

TEST_F(OrderingTest, WhatIsFreedIsFlushedByTheNextCommit) {
    bed_.make("a", 3 * kCluster);
    bed_.commit();
    take_writes();
    ASSERT_EQ(unlink(*bed_.root(), "a").code(), 0);
    bed_.commit();
    take_writes();
    EXPECT_EQ(nr_flushes_, 1U) << "of the name";
    EXPECT_TRUE(ordering().anything_pending());
    // The commit of the flusher, which nobody waits for.
    EXPECT_EQ(ordering().try_commit().code(), 0);
    EXPECT_TRUE(take_writes().empty());
    EXPECT_EQ(nr_flushes_, 1U);
    EXPECT_FALSE(ordering().anything_pending());
}

TEST_F(OrderingTest, AfterAFailedFlushTheFreesOfTheCommitBeforeAreWrittenAgain) {
    InodeRef file = bed_.make("a", 3 * kCluster);
    const cluster_t start = file->i_start;
    bed_.commit();
    file = {};
    ASSERT_EQ(unlink(*bed_.root(), "a").code(), 0);
    bed_.commit();
    bed_.faults().add_rule({.ops = cache::kFaultFlushes});
    EXPECT_EQ(ordering().commit().code(), EIO);
    take_writes();
    bed_.commit();
    EXPECT_TRUE(first_epoch(take_writes(), fat_offset(start)).has_value());
    EXPECT_EQ(fat_on_disk(start), 0);
}

TEST_F(OrderingTest, TheCleanMarkComesAfterTheFrees) {
    InodeRef file = bed_.make("a", 3 * kCluster);
    const cluster_t start = file->i_start;
    bed_.commit();
    file = {};
    ASSERT_EQ(unlink(*bed_.root(), "a").code(), 0);
    take_writes();
    const std::uint64_t entry = fat_offset(start);
    const std::uint64_t mark = geometry().state_offset_bytes();
    bed_.unmount();
    const std::vector<Write> writes = take_writes();
    const auto frees = std::find_if(writes.begin(), writes.end(), [&](const Write& write) {
        return entry >= write.offset && entry < write.offset + write.length &&
               load<Le16>(write.data, entry - write.offset).get() == 0;
    });
    ASSERT_NE(frees, writes.end());
    EXPECT_LT(frees->epoch, last_epoch(writes, mark).value());
}

// --- discard ---

class DiscardTest : public OrderingTest {
protected:
    DiscardTest() {
        bed_.unmount();
        bed_.options().discard = true;
        bed_.mount();
    }
    // What was discarded since the last call, by number of log entries before it.
    std::vector<LogEntry> take_discards() {
        std::vector<LogEntry> discards;
        for (LogEntry& entry : bed_.recorder().take_log()) {
            if (entry.kind == LogEntry::Kind::kDiscard) {
                discards.push_back(std::move(entry));
            }
        }
        return discards;
    }
};

TEST_F(DiscardTest, TellsTheDeviceWhatACommitFreed) {
    InodeRef file = bed_.make("a", 3 * kCluster);
    const std::uint64_t data = data_offset(file->i_start);
    bed_.commit();
    EXPECT_TRUE(take_discards().empty());
    file = {};
    ASSERT_EQ(unlink(*bed_.root(), "a").code(), 0);
    EXPECT_TRUE(take_discards().empty()) << "the name is still on the device";
    bed_.commit();
    const std::vector<LogEntry> discards = take_discards();
    ASSERT_EQ(discards.size(), 1U);
    EXPECT_EQ(discards[0].offset_bytes, data);
    EXPECT_EQ(discards[0].length_bytes, 3 * kCluster);
    bed_.commit();
    EXPECT_TRUE(take_discards().empty());
    expect_clean_fsck();
}

TEST_F(DiscardTest, ADeviceThatFailsToDiscardIsSaidSoOnce) {
    bed_.faults().add_rule({.ops = cache::kFaultDiscards, .nr_hits = cache::FaultRule::kSticky});
    for (int i = 0; i < 3; ++i) {
        bed_.make("a", 3 * kCluster);
        bed_.commit();
        ASSERT_EQ(unlink(*bed_.root(), "a").code(), 0);
        bed_.commit();
    }
    const std::string logged = bed_.logged();
    EXPECT_NE(logged.find("does not discard"), std::string::npos) << logged;
    EXPECT_EQ(logged.find("does not discard"), logged.rfind("does not discard")) << logged;
    expect_clean_fsck();
}

TEST_F(OrderingTest, AFullVolumeReusesPendingClustersThroughACommit) {
    const std::uint64_t all = bed_.volume().statfs()->blocks_free * kCluster;
    InodeRef file = bed_.make("a");
    ASSERT_EQ(fat_add_clusters(*file, all).code(), 0);
    file->preallocated = true;
    file = {};
    bed_.commit();
    ASSERT_EQ(unlink(*bed_.root(), "a").code(), 0);
    bed_.make("b", 20 * kCluster);
    expect_clean_fsck();
}

TEST_F(OrderingTest, AShrunkFileLosesItsSizeBeforeItsTail) {
    const InodeRef file = bed_.make("a", 6 * kCluster);
    bed_.commit();
    const cluster_t keep = file->i_start;
    const cluster_t tail = (*file->clusters.find(bed_.volume().fat(), 1))->disk_cluster;
    take_writes();
    bed_.truncate(file, 100);
    EXPECT_NE(fat_on_disk(keep), 0xFFFF);
    bed_.commit();
    const std::vector<Write> writes = take_writes();
    EXPECT_EQ(entry_on_disk(file->i_pos).size.get(), 100U);
    EXPECT_EQ(fat_on_disk(keep), 0xFFFF);
    EXPECT_EQ(fat_on_disk(tail), 0);
    // Entry, end mark, free: three epochs, in this order.
    std::optional<std::size_t> end_mark;
    std::optional<std::size_t> freed;
    for (const Write& write : writes) {
        const auto value = [&](cluster_t cluster) -> std::optional<std::uint16_t> {
            const std::uint64_t at = fat_offset(cluster);
            if (at < write.offset || at >= write.offset + write.length) {
                return std::nullopt;
            }
            return load<Le16>(write.data, at - write.offset).get();
        };
        if (!end_mark && value(keep) == 0xFFFF) {
            end_mark = write.epoch;
        }
        if (!freed && value(tail) == 0) {
            freed = write.epoch;
        }
    }
    EXPECT_LT(first_epoch(writes, file->i_pos).value(), end_mark.value());
    EXPECT_LT(*end_mark, freed.value());
}

TEST_F(OrderingTest, AFileThatShrankAndGrewShowsItsSizeOnlyAfterTheRelink) {
    InodeRef file = bed_.make("a", 6 * kCluster);
    bed_.commit();
    bed_.truncate(file, kCluster);
    bed_.write(file, kCluster, 3 * kCluster, 9);
    take_writes();
    bed_.commit();
    const std::vector<Write> writes = take_writes();
    std::vector<std::uint32_t> sizes;
    for (const Write& write : writes) {
        if (file->i_pos >= write.offset && file->i_pos < write.offset + write.length) {
            sizes.push_back(load<ShortEntry>(write.data, file->i_pos - write.offset).size.get());
        }
    }
    EXPECT_EQ(sizes, (std::vector<std::uint32_t>{kCluster, 4 * kCluster}));
    EXPECT_EQ(file->low_water_size, ~std::uint64_t{0});
    file = {};
    expect_clean_fsck();
}

TEST_F(OrderingTest, ANewDirectoryIsCompleteBeforeAnythingLeadsThere) {
    bed_.make("first");
    bed_.commit();
    take_writes();
    const InodeRef dir = bed_.make_directory(*bed_.root(), "dir");
    const InodeRef file = bed_.make_in(*dir, "inside", 100);
    bed_.commit();
    const std::vector<Write> writes = take_writes();
    // The entry inside goes with the cluster, the entry outside later.
    EXPECT_EQ(first_epoch(writes, file->i_pos), 0U);
    EXPECT_EQ(first_epoch(writes, data_offset(dir->i_start)), 0U);
    EXPECT_GT(first_epoch(writes, dir->i_pos).value(), 0U);
    // From then on it is an ordinary directory.
    const InodeRef later = bed_.make_in(*dir, "later", 100);
    bed_.commit();
    const std::vector<Write> more = take_writes();
    EXPECT_GT(first_epoch(more, later->i_pos).value(),
              first_epoch(more, fat_offset(later->i_start)).value());
}

TEST_F(OrderingTest, APureChangeOfTimesNeedsNoAllocation) {
    const InodeRef file = bed_.make("a");
    bed_.commit();
    take_writes();
    AttrChange change;
    change.mtime = timespec{1'600'000'000, 0};
    EXPECT_EQ(fs::setattr(*file, change).code(), 0);
    bed_.commit();
    EXPECT_EQ(take_writes().size(), 1U);
    EXPECT_EQ(nr_flushes_, 1U);
}

TEST_F(OrderingTest, WithNothingPendingACommitIsOneFlush) {
    bed_.commit();
    bed_.recorder().take_log();
    bed_.commit();
    EXPECT_TRUE(take_writes().empty());
    EXPECT_EQ(nr_flushes_, 1U);
    EXPECT_EQ(ordering().try_commit().code(), 0);
    take_writes();
    EXPECT_EQ(nr_flushes_, 0U);
}

TEST_F(OrderingTest, SequencesTellWhatIsDurable) {
    const std::uint64_t before = ordering().current_sequence();
    const InodeRef file = bed_.make("a", 10);
    EXPECT_EQ(file->dirty_sequence.load(), before);
    EXPECT_FALSE(ordering().is_durable(before));
    EXPECT_TRUE(ordering().anything_pending());
    bed_.commit();
    EXPECT_TRUE(ordering().is_durable(before));
    EXPECT_EQ(ordering().current_sequence(), before + 1);
    EXPECT_FALSE(ordering().anything_pending());
}

TEST_F(OrderingTest, AnInodeIsKeptUntilItsEntryIsDurable) {
    InodeRef file = bed_.make("a", 10);
    const std::uint64_t i_pos = file->i_pos;
    file = {};
    bed_.volume().inodes().shrink(0);
    EXPECT_TRUE(bed_.volume().inodes().find(i_pos));
    bed_.commit();
    bed_.volume().inodes().shrink(0);
    EXPECT_FALSE(bed_.volume().inodes().find(i_pos));
}

TEST_F(OrderingTest, HeldBackChangesOfAPhaseRunInOrder) {
    std::string order;
    {
        const Transaction transaction(bed_.volume());
        ASSERT_TRUE(transaction.status().has_value());
        const auto add = [&](Phase phase, char letter) {
            ordering().hold_back(phase, [&order, letter]() -> Result<> {
                order += letter;
                return {};
            });
        };
        add(Phase::kFree, 'e');
        add(Phase::kUnlink, 'c');
        add(Phase::kLink, 'a');
        add(Phase::kUnlink, 'd');
        add(Phase::kLink, 'b');
    }
    bed_.commit();
    EXPECT_EQ(order, "abcde");
}

TEST_F(OrderingTest, AHeldBackChangeThatFailsIsRunAgainAndNothingAfterItBefore) {
    std::string order;
    bool fails = true;
    {
        const Transaction transaction(bed_.volume());
        ordering().hold_back(Phase::kLink, [&]() -> Result<> {
            order += 'a';
            return {};
        });
        ordering().hold_back(Phase::kLink, [&]() -> Result<> {
            order += fails ? 'x' : 'b';
            return fails ? Result<>{Errno{EIO}} : Result<>{};
        });
        ordering().hold_back(Phase::kUnlink, [&]() -> Result<> {
            order += 'c';
            return {};
        });
    }
    EXPECT_EQ(ordering().commit().code(), EIO);
    EXPECT_TRUE(ordering().anything_pending());
    fails = false;
    bed_.commit();
    EXPECT_EQ(order, "axbc");
}

// --- failures ---

// A rename over a file after growth and a shrink: every phase has something to do.
void do_everything(TestVolume& bed) {
    const InodeRef root = bed.root();
    bed.write(bed.open(*root, "grow"), 3 * kCluster, 3 * kCluster, 3);
    bed.truncate(bed.open(*root, "shrink"), 50);
    EXPECT_EQ(fs::rename(*root, "from", *bed.open(*root, "dir"), "to", 0).code(), 0);
    EXPECT_EQ(unlink(*root, "victim").code(), 0);
    bed.make_in(*bed.make_directory(*root, "new"), "inside", 2 * kCluster, 4);
}

void expect_everything(TestVolume& bed) {
    const InodeRef root = bed.root();
    std::vector<std::byte> grown = pattern(0, 3 * kCluster, 1);
    const std::vector<std::byte> added = pattern(3 * kCluster, 3 * kCluster, 3);
    grown.insert(grown.end(), added.begin(), added.end());
    EXPECT_EQ(bed.read(bed.open(*root, "grow")), grown);
    EXPECT_EQ(bed.read(bed.open(*root, "shrink")), pattern(0, 50, 1));
    EXPECT_EQ(bed.read(bed.open(*bed.open(*root, "dir"), "to")), pattern(0, kCluster, 1));
    EXPECT_EQ(lookup(*root, "from").code(), ENOENT);
    EXPECT_EQ(lookup(*root, "victim").code(), ENOENT);
    EXPECT_EQ(bed.read(bed.open(*bed.open(*root, "new"), "inside")), pattern(0, 2 * kCluster, 4));
}

struct Failure {
    const char* name;
    std::uint8_t ops;
};

class OrderingFailureTest : public testing::TestWithParam<Failure> {
public:
    static void prepare(TestVolume& bed) {
        bed.mount();
        bed.make("grow", 3 * kCluster);
        bed.make("between", kCluster);
        bed.make("shrink", 4 * kCluster);
        bed.make("from", kCluster);
        bed.make("victim", 2 * kCluster);
        bed.make_directory(*bed.root(), "dir");
        bed.commit();
    }
};

// Fails the n-th operation of a commit, for every n; then lets it through.
TEST_P(OrderingFailureTest, AFailureAnywhereLeavesAllPendingAndARetryHeals) {
    unsigned nr_failures = 0;
    for (std::uint64_t hit = 1;; ++hit) {
        SCOPED_TRACE(hit);
        TestVolume bed(small());
        prepare(bed);
        do_everything(bed);
        const std::uint64_t sequence = bed.volume().ordering().current_sequence();
        const auto rule = bed.faults().add_rule({.ops = GetParam().ops, .first_hit = hit});
        const Result<> failed = bed.volume().ordering().commit();
        const bool acted = bed.faults().acts(rule) != 0;
        bed.faults().clear_rules();
        // Data that failed before the exclusive section is written again in it: no failure then.
        EXPECT_TRUE(failed.has_value() || (acted && failed.code() == EIO)) << failed.code();
        EXPECT_TRUE(bed.volume().ordering().anything_pending())
            << "frees are flushed by the next commit";
        EXPECT_EQ(bed.volume().ordering().is_durable(sequence), failed.has_value());
        if (!acted) {
            break;
        }
        nr_failures += failed.has_value() ? 0 : 1;
        // What is on the disk now is no worse than after a power cut.
        const FsckResult broken = run_fsck(bed.image());
        EXPECT_EQ(broken.output.find("cluster chain length is <"), std::string::npos)
            << broken.output;
        // The one thing that may look worse: both names of the rename in flight.
        const std::size_t shared = broken.output.find("share clusters");
        const std::size_t both_names = broken.output.find("/from  and\n/dir/to\n  share clusters");
        EXPECT_EQ(shared == std::string::npos, both_names == std::string::npos) << broken.output;
        EXPECT_EQ(broken.output.rfind("share clusters"), shared) << broken.output;
        bed.commit();
        EXPECT_TRUE(bed.volume().ordering().is_durable(sequence));
        bed.commit();
        EXPECT_FALSE(bed.volume().ordering().anything_pending());
        // All of it is on the device: a crash now loses nothing.
        bed.crash();
        bed.mount();
        expect_everything(bed);
        bed.crash();
        const FsckResult healed = bed.fsck();
        EXPECT_EQ(healed.output.find("cluster chain"), std::string::npos) << healed.output;
        EXPECT_EQ(healed.output.find("Reclaim"), std::string::npos) << healed.output;
    }
    EXPECT_GE(nr_failures, GetParam().ops == cache::kFaultFlushes ? 4U : 6U);
}

INSTANTIATE_TEST_SUITE_P(Kinds, OrderingFailureTest,
                         testing::Values(Failure{"Write", cache::kFaultWrites},
                                         Failure{"Flush", cache::kFaultFlushes}),
                         [](const auto& test) { return test.param.name; });

// --- power cuts ---

class OrderingPowerCutTest : public testing::TestWithParam<unsigned> {
protected:
    // What fsck.fat may say of a state that a power cut left.
    static void expect_only_leaks(const std::vector<std::byte>& image) {
        const FsckResult result = run_fsck(image);
        for (const char* damage :
             {"chain length is <", "Start cluster", "start cluster", "out of range", "free cluster",
              "ad cluster", "ircular", "beyond limit"}) {
            EXPECT_EQ(result.output.find(damage), std::string::npos) << damage << "\n"
                                                                     << result.output;
        }
        const std::size_t shared = result.output.find("share clusters");
        const std::size_t both_names = result.output.find("/from  and\n/dir/to\n  share clusters");
        EXPECT_EQ(shared == std::string::npos, both_names == std::string::npos) << result.output;
    }
    // Files that were durable before and were not touched are whole.
    static void expect_durable_files(const std::vector<std::byte>& image, const VolumeSpec& spec) {
        TestVolume bed(spec);
        std::copy(image.begin(), image.end(), bed.memory().bytes().begin());
        bed.mount();
        EXPECT_EQ(bed.read(bed.open(*bed.root(), "between")), pattern(0, kCluster, 1));
        const std::vector<std::byte> grown = bed.read(bed.open(*bed.root(), "grow"));
        const std::vector<std::byte> old = pattern(0, 3 * kCluster, 1);
        ASSERT_GE(grown.size(), old.size());
        EXPECT_TRUE(std::equal(old.begin(), old.end(), grown.begin()));
    }
};

TEST_P(OrderingPowerCutTest, EveryStateIsOldOrNewButForLeaks) {
    const VolumeSpec spec = small(GetParam());
    TestVolume bed(spec);
    OrderingFailureTest::prepare(bed);
    const std::vector<std::byte> before = bed.image();
    bed.recorder().take_log();
    do_everything(bed);
    bed.commit();
    const WriteLog log = bed.recorder().take_log();
    bed.crash();
    ASSERT_GT(log.size(), 8U);
    for (std::size_t cut = 0; cut <= log.size(); ++cut) {
        SCOPED_TRACE(cut);
        std::vector<std::byte> image = before;
        cache::replay(log, cut, image);
        expect_only_leaks(image);
        for (std::uint64_t seed = 1; seed <= 2; ++seed) {
            image = before;
            cache::build_crash_state(log, cut, {.seed = seed}, image);
            expect_only_leaks(image);
        }
        expect_durable_files(image, spec);
    }
}

INSTANTIATE_TEST_SUITE_P(Fats, OrderingPowerCutTest, testing::Values(12U, 16U, 32U),
                         [](const auto& test) { return "Fat" + std::to_string(test.param); });

TEST_F(OrderingTest, AfterAFailedFlushEverythingIsWrittenAgain) {
    const InodeRef file = bed_.make("a", 2 * kCluster);
    bed_.faults().add_rule({.ops = cache::kFaultFlushes});
    EXPECT_EQ(ordering().commit().code(), EIO);
    take_writes();
    bed_.commit();
    const std::vector<Write> writes = take_writes();
    EXPECT_TRUE(first_epoch(writes, data_offset(file->i_start)).has_value());
    EXPECT_TRUE(first_epoch(writes, fat_offset(file->i_start)).has_value());
}

TEST_F(OrderingTest, ADataErrorIsStillToldToWhoOpensTheFile) {
    const InodeRef file = bed_.make("a", 2 * kCluster);
    const std::uint64_t data = data_offset(file->i_start);
    // Twice: before and in the exclusive section.
    bed_.faults().add_rule({.ops = cache::kFaultWrites,
                            .begin_bytes = data,
                            .end_bytes = data + 2 * kCluster,
                            .nr_hits = 2});
    cache::ErrSeq::Cursor before = file->mapping().wb_err.sample();
    EXPECT_EQ(ordering().commit().code(), EIO);
    bed_.commit();
    EXPECT_EQ(file->mapping().wb_err.sample(), 0U) << "a new opener would not hear of it";
    EXPECT_EQ(file->mapping().wb_err.check_and_advance(before), EIO);
    EXPECT_EQ(bed_.read(file), pattern(0, 2 * kCluster, 1));
}

TEST_F(OrderingTest, AnOldErrorNobodyHasSeenDoesNotFailLaterCommits) {
    const InodeRef file = bed_.make("a", kCluster);
    bed_.commit();
    cache::mapping_set_error(file->mapping(), EIO);
    bed_.write(file, 0, 100, 2);
    bed_.set_time(1'700'000'100);
    bed_.write(file, 0, 100, 3);
    bed_.commit();
    EXPECT_EQ(file->mapping().wb_err.sample(), 0U);
}

TEST_F(OrderingTest, WithoutTheDirtyMarkNothingChanges) {
    bed_.faults().add_rule({.ops = cache::kFaultWrites});
    EXPECT_EQ(create(*bed_.root(), "a").code(), EIO);
    bed_.faults().clear_rules();
    EXPECT_EQ(lookup(*bed_.root(), "a").code(), ENOENT);
    bed_.make("a", 10);
    expect_clean_fsck();
}

TEST_F(OrderingTest, AReadOnlyVolumeRefusesTransactions) {
    bed_.unmount();
    bed_.options().read_only = true;
    bed_.mount();
    const Transaction transaction(bed_.volume());
    EXPECT_EQ(transaction.status().code(), EROFS);
}

TEST_F(OrderingTest, AfterAnEmergencyStopNothingIsCommitted) {
    bed_.make("a", 10);
    bed_.volume().shutdown("test");
    EXPECT_EQ(ordering().commit().code(), EROFS);
    EXPECT_EQ(ordering().try_commit().code(), EROFS);
    EXPECT_EQ(create(*bed_.root(), "b").code(), EROFS);
    EXPECT_TRUE(ordering().anything_pending());
}

TEST_F(OrderingTest, RepeatedFailureStopsTheVolume) {
    bed_.make("a", 10);
    bed_.faults().add_rule({.ops = cache::kFaultWrites, .nr_hits = cache::FaultRule::kSticky});
    int tries = 0;
    while (ordering().commit().code() == EIO && tries < 100) {
        ++tries;
    }
    EXPECT_GT(tries, 1);
    EXPECT_LT(tries, 100);
    EXPECT_TRUE(bed_.volume().is_read_only());
    EXPECT_EQ(create(*bed_.root(), "b").code(), EROFS);
    // What was read or written stays readable.
    EXPECT_EQ(bed_.read(bed_.open(*bed_.root(), "a")), pattern(0, 10, 1));
}

// --- sharing ---

TEST_F(OrderingTest, CallersWhoWaitForTheSameCommitShareIt) {
    constexpr int kCallers = 4;
    bed_.make("a", 10);
    bed_.commit();
    bed_.make("b", 10);
    bed_.recorder().take_log();
    // The first one is stopped in its first flush; the others find it sealed and share the next.
    bed_.faults().add_rule({.ops = cache::kFaultFlushes, .effect = cache::FaultEffect::kHold});
    std::thread first([&] { bed_.commit(); });
    bed_.faults().wait_until_held(1);
    std::vector<std::thread> others;
    for (int i = 0; i < kCallers; ++i) {
        others.emplace_back([&] { bed_.commit(); });
    }
    bed_.faults().release();
    first.join();
    for (std::thread& other : others) {
        other.join();
    }
    take_writes();
    // Two of the first commit, and at least one, at most one each for those who came during it.
    EXPECT_GE(nr_flushes_, 3U);
    EXPECT_LE(nr_flushes_, 2U + kCallers);
}

TEST_F(OrderingTest, ManyWritersAndCommittersAgree) {
    constexpr int kThreads = 4;
    constexpr int kRounds = 20;
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < kRounds; ++i) {
                const std::string name = "file" + std::to_string(t) + "_" + std::to_string(i);
                const InodeRef file = bed_.make(name, 3000, static_cast<std::uint8_t>(t));
                if (i % 3 == 0) {
                    bed_.fsync(file);
                    EXPECT_TRUE(ordering().is_durable(file->dirty_sequence.load()));
                }
                if (i % 4 == 1) {
                    EXPECT_EQ(unlink(*bed_.root(), name).code(), 0);
                }
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    expect_clean_fsck();
}

using OrderingDeathTest = OrderingTest;

TEST_F(OrderingDeathTest, TransactionsDoNotNest) {
    const Transaction outer(bed_.volume());
    EXPECT_DEATH(const Transaction inner(bed_.volume()), "O7");
}

TEST_F(OrderingDeathTest, NobodyCommitsInsideATransaction) {
    const Transaction outer(bed_.volume());
    EXPECT_DEATH(static_cast<void>(ordering().commit().has_value()), "O7");
}

TEST_F(OrderingDeathTest, OnlyTwoPhasesChangePagesAtOnce) {
    const Transaction outer(bed_.volume());
    EXPECT_DEATH(ordering().note_blocks(Phase::kUnlink, 0, 512), "O2");
    EXPECT_DEATH(ordering().hold_back(Phase::kAllocate, [] { return Result<>{}; }), "O3");
}

}  // namespace
}  // namespace wbfat::fs::inline WBFAT_RT
