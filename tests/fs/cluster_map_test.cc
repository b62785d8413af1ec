// Goal: chains become extents, and no chain on disk can make the map loop or lie.
// Method: chains written into the FAT of a fresh volume, sound and broken ones.
#include "fs/cluster_map.h"

#include <vector>

#include <gtest/gtest.h>

#include "tests/support/volume_fixture.h"

namespace wbfat::fs::inline WBFAT_RT {
namespace {

class ClusterMapTest : public testing::Test {
protected:
    ClusterMapTest() {
        bed_.mount();
    }

    // Links the clusters in this order; the last one ends the chain.
    void chain(const std::vector<cluster_t>& clusters) {
        const Transaction transaction(bed_.volume());
        ASSERT_TRUE(transaction.status().has_value());
        for (std::size_t i = 0; i < clusters.size(); ++i) {
            const FatValue value = i + 1 == clusters.size() ? FatValue::end_of_chain()
                                                            : FatValue::link(clusters[i + 1]);
            ASSERT_TRUE(fat().set(clusters[i], value).has_value());
        }
        map_.reset(clusters.front());
    }
    void set(cluster_t cluster, FatValue value) {
        const Transaction transaction(bed_.volume());
        ASSERT_TRUE(fat().set(cluster, value).has_value());
    }
    FatTable& fat() {
        return bed_.volume().fat();
    }
    std::optional<ClusterMap::Extent> find(std::uint32_t file_cluster) {
        const auto found = map_.find(fat(), file_cluster);
        EXPECT_EQ(found.code(), 0);
        return found.has_value() ? *found : std::nullopt;
    }

    TestVolume bed_;
    ClusterMap map_;
};

TEST_F(ClusterMapTest, AnEmptyChainHasNothing) {
    map_.reset(0);
    EXPECT_EQ(find(0), std::nullopt);
    EXPECT_EQ(*map_.length(fat()), 0U);
    EXPECT_EQ(*map_.last(fat()), 0U);
    EXPECT_TRUE(map_.runs_from(fat(), 0)->empty());
}

TEST_F(ClusterMapTest, MergesNeighboursAndFindsTails) {
    chain({10, 11, 12, 20, 21, 5});
    EXPECT_EQ(find(1), (ClusterMap::Extent{1, 11, 2}));
    EXPECT_EQ(find(3), (ClusterMap::Extent{3, 20, 2}));
    EXPECT_EQ(find(5), (ClusterMap::Extent{5, 5, 1}));
    EXPECT_EQ(find(6), std::nullopt);
    EXPECT_EQ(map_.nr_extents(), 3U);
    EXPECT_EQ(*map_.length(fat()), 6U);
    EXPECT_EQ(*map_.last(fat()), 5U);
}

TEST_F(ClusterMapTest, ReadsNoFurtherThanAsked) {
    chain({10, 20, 30, 40});
    EXPECT_EQ(find(1), (ClusterMap::Extent{1, 20, 1}));
    EXPECT_EQ(map_.known_length(), 2U);
}

TEST_F(ClusterMapTest, AppendsAndMergesAtTheSeam) {
    chain({10, 11});
    ASSERT_EQ(*map_.length(fat()), 2U);
    const std::vector<ClusterRun> runs{{12, 3}, {30, 2}};
    map_.append(runs);
    EXPECT_EQ(map_.nr_extents(), 2U);
    EXPECT_EQ(find(4), (ClusterMap::Extent{4, 14, 1}));
    EXPECT_EQ(*map_.last(fat()), 31U);
}

TEST_F(ClusterMapTest, TruncateKeepsTheFirstClusters) {
    chain({10, 11, 12, 20, 21});
    ASSERT_EQ(*map_.length(fat()), 5U);
    map_.truncate(4);
    EXPECT_EQ(*map_.last(fat()), 20U);
    map_.truncate(2);
    EXPECT_EQ(*map_.last(fat()), 11U);
    EXPECT_EQ(find(2), std::nullopt);
    map_.truncate(0);
    EXPECT_EQ(*map_.length(fat()), 0U);
}

TEST_F(ClusterMapTest, GivesTheRunsBehindAPoint) {
    chain({10, 11, 12, 20, 21});
    const auto runs = map_.runs_from(fat(), 2);
    ASSERT_EQ(runs->size(), 2U);
    EXPECT_EQ((*runs)[0].first, 12U);
    EXPECT_EQ((*runs)[0].count, 1U);
    EXPECT_EQ((*runs)[1].first, 20U);
    EXPECT_EQ((*runs)[1].count, 2U);
    EXPECT_TRUE(map_.runs_from(fat(), 5)->empty());
}

struct Loop {
    const char* name;
    std::vector<cluster_t> clusters;  // the last links to the one at `back`
    std::size_t back;
};

class ClusterMapLoopTest : public ClusterMapTest, public testing::WithParamInterface<Loop> {};

TEST_P(ClusterMapLoopTest, EndsWithAnError) {
    const Loop& loop = GetParam();
    chain(loop.clusters);
    set(loop.clusters.back(), FatValue::link(loop.clusters[loop.back]));
    EXPECT_EQ(map_.length(fat()).code(), EIO);
    EXPECT_TRUE(map_.damaged().has_value());
    EXPECT_LE(map_.known_length(), 3 * loop.clusters.size() + 3);
    // It stays an error, and what lies before is still to be had.
    EXPECT_EQ(map_.length(fat()).code(), EIO);
    EXPECT_EQ(find(0)->disk_cluster, loop.clusters.front());
}

INSTANTIATE_TEST_SUITE_P(Loops, ClusterMapLoopTest,
                         testing::Values(Loop{"Self", {10}, 0}, Loop{"Two", {10, 12}, 0},
                                         Loop{"TailOntoItself", {10, 12, 14, 16}, 3},
                                         Loop{"Rho", {10, 12, 14, 16, 18, 20, 22}, 4},
                                         Loop{"Ring", {30, 28, 26, 24, 22, 20, 18, 16}, 0}),
                         [](const auto& test) { return test.param.name; });

TEST_F(ClusterMapTest, AChainIntoAFreeClusterIsDamaged) {
    chain({10, 11});
    set(11, FatValue::link(40));
    EXPECT_EQ(map_.length(fat()).code(), EIO);
    EXPECT_EQ(map_.damaged(), cluster_t{40});
}

TEST_F(ClusterMapTest, AnUnreadableTableIsAnErrorButNoDamage) {
    bed_.unmount();
    bed_.mount();
    bed_.faults().add_rule({.ops = cache::kFaultReads, .nr_hits = cache::FaultRule::kSticky});
    map_.reset(4000);  // on a page of the table that mounting did not read
    EXPECT_EQ(map_.length(fat()).code(), EIO);
    EXPECT_EQ(map_.damaged(), std::nullopt);
}

}  // namespace
}  // namespace wbfat::fs::inline WBFAT_RT
