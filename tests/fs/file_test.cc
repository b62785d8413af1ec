// Goal: a write does what it can, and is as durable as it was opened. Method: files on a volume in
// memory that is nearly full; the log of the recording device.
#include "fs/file.h"

#include <algorithm>
#include <barrier>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cache/sync/point_rules.h"
#include "cache/sync/points.h"
#include "fs/namei.h"

#include "tests/support/volume_fixture.h"

namespace wbfat::fs::inline WBFAT_RT {
namespace {

constexpr std::uint32_t kCluster = 2048;

VolumeSpec small() {
    VolumeSpec spec;
    spec.fat_bits = 12;
    spec.size_bytes = 2U << 20;
    spec.sectors_per_cluster = kCluster / 512;
    return spec;
}

cache::CopyIn filling(std::byte value) {
    return [value](std::span<std::byte> piece) -> Result<> {
        std::fill(piece.begin(), piece.end(), value);
        return {};
    };
}

class FileTest : public testing::Test {
protected:
    ~FileTest() override {
        bed_.unmount();
        const FsckResult result = bed_.fsck();
        EXPECT_EQ(result.status, 0) << result.output;
    }

    std::uint64_t free_clusters() {
        return bed_.volume().statfs()->blocks_free;
    }
    // Data writes and flushes of the device since the last call.
    struct Seen {
        bool data = false;
        unsigned flushes = 0;
    };
    Seen look(std::uint64_t data_offset) {
        Seen seen;
        for (const cache::LogEntry& entry : bed_.recorder().take_log()) {
            seen.flushes += entry.kind == cache::LogEntry::Kind::kFlush ? 1 : 0;
            seen.data |= entry.kind == cache::LogEntry::Kind::kWrite &&
                         data_offset >= entry.offset_bytes &&
                         data_offset < entry.offset_bytes + entry.length_bytes;
        }
        return seen;
    }

    TestVolume bed_{small()};
};

TEST_F(FileTest, ASynchronousWriteIsDurableUnlessAnFsyncIsToFollow) {
    bed_.options().sync = true;
    bed_.mount();
    const InodeRef inode = bed_.make("a", kCluster);
    const std::uint64_t at = bed_.volume().geometry().cluster_offset_bytes(inode->i_start);
    File file(inode, {});
    bed_.recorder().take_log();
    EXPECT_EQ(file.write(0, 100, filling(std::byte{1})).code(), 0);
    Seen seen = look(at);
    EXPECT_TRUE(seen.data);
    EXPECT_GE(seen.flushes, 1U);
    EXPECT_EQ(file.write(0, 100, filling(std::byte{2}), File::Durable::kLater).code(), 0);
    seen = look(at);
    EXPECT_FALSE(seen.data);
    EXPECT_EQ(seen.flushes, 0U);
    EXPECT_EQ(file.fsync(true).code(), 0);
    seen = look(at);
    EXPECT_TRUE(seen.data);
    EXPECT_GE(seen.flushes, 1U);
}

// Of two that want the last clusters one gets them; the other still writes to what it has. The
// pages of a mapping come with those of a write behind them, and must not be lost for its sake.
TEST_F(FileTest, WhatIsMappedIsWrittenThoughOthersTakeTheLastClusters) {
    constexpr unsigned kThreads = 4;
    constexpr unsigned kRounds = 20;
    bed_.mount();
    // All have counted before the first one takes.
    ASSERT_EQ(sync::set_point_rules("map_for_write:counted=sleep(2ms)"), "");
    std::vector<InodeRef> inodes;
    for (unsigned thread = 0; thread < kThreads; ++thread) {
        inodes.push_back(bed_.make("file " + std::to_string(thread), kCluster));
    }
    const InodeRef rest = bed_.make("rest");
    // Less than any two of them want.
    const std::uint64_t wanted = kThreads + 1;
    bed_.truncate(rest, (free_clusters() - wanted) * kCluster);
    bed_.commit();
    std::barrier<> start(kThreads);
    std::vector<unsigned> refused(kThreads);
    std::vector<std::thread> threads;
    for (unsigned thread = 0; thread < kThreads; ++thread) {
        threads.emplace_back([&, thread] {
            File file(inodes[thread], {});
            for (unsigned round = 0; round < kRounds; ++round) {
                start.arrive_and_wait();
                const auto written =
                    file.write(0, (wanted + 2) * kCluster, filling(std::byte(round)));
                refused[thread] += written.has_value() && *written >= kCluster ? 0 : 1;
                start.arrive_and_wait();
                AttrChange change;
                change.size = kCluster;
                EXPECT_EQ(setattr(*inodes[thread], change).code(), 0);
                EXPECT_EQ(bed_.volume().ordering().commit().code(), 0);
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    sync::clear_point_rules();
    EXPECT_EQ(refused, std::vector<unsigned>(kThreads, 0));
}

// Whoever loses the race for what was counted gets what is left, however often he loses.
TEST_F(FileTest, WhatOthersLeaveOfTheLastClustersIsWritten) {
    constexpr std::uint64_t kFree = 6;
    bed_.mount();
    const InodeRef inode = bed_.make("a");
    const InodeRef other = bed_.make("other");
    bed_.truncate(bed_.make("rest"), (free_clusters() - kFree) * kCluster);
    bed_.commit();
    // Each time the free clusters have been counted the other file takes two of them.
    std::uint64_t taken = 0;
    sync::PointRule rule;
    rule.count = 2;
    rule.hook = [&] { bed_.truncate(other, (taken += 2) * kCluster); };
    const sync::PointRuleId id = sync::arm_point("map_for_write:counted", rule);
    File file(inode, {});
    const Result<std::size_t> written =
        file.write(0, (kFree + 1) * kCluster, filling(std::byte{1}));
    EXPECT_EQ(sync::rule_hits(id), 3U);
    sync::disarm_point(id);
    ASSERT_EQ(written.code(), 0);
    EXPECT_EQ(*written, (kFree - taken) * kCluster);
    EXPECT_EQ(free_clusters(), 0U);
}

}  // namespace
}  // namespace wbfat::fs::inline WBFAT_RT
