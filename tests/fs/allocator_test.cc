// Goal: no cluster is ever handed out twice, before its time or while bad; free counts are right;
// files stay together. Method: a naive model under random requests for each FAT type, and cases for
// placement, pending and FSINFO.
#include "fs/allocator.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "fs/run_set.h"

#include "tests/fs/fat_bed.h"
#include "tests/fs/gen.h"

namespace wbfat::fs {
namespace {

using testing::FatBed;
using testing::Gen;
using testing::make_geometry;

TEST(RunSetTest, AgreesWithANaiveModel) {
    Gen gen(20);
    SCOPED_TRACE(gen.replay());
    constexpr std::uint32_t kEnd = 300;
    RunSet set;
    std::vector<bool> model(kEnd, false);
    for (int i = 0; i < 20000; ++i) {
        const auto first = static_cast<cluster_t>(gen.between(2, kEnd - 2));
        const ClusterRun run{first, static_cast<std::uint32_t>(
                                        gen.between(1, std::min<std::uint64_t>(12, kEnd - first)))};
        const auto begin = model.begin() + run.first;
        const auto known = static_cast<std::uint32_t>(std::count(begin, begin + run.count, true));
        ASSERT_EQ(set.count_in(run), known);
        if (gen.one_in(4)) {
            ASSERT_EQ(set.erase(run), known);
            std::fill_n(begin, run.count, false);
        } else if (gen.one_in(3)) {
            ASSERT_EQ(set.insert(run), run.count - known);
            std::fill_n(begin, run.count, true);
        }
        ASSERT_EQ(set.size(),
                  static_cast<std::uint32_t>(std::count(model.begin(), model.end(), true)));
        ASSERT_EQ(set.contains(first), model[first]);
        if (gen.one_in(60)) {
            set.clear();
            std::fill(model.begin(), model.end(), false);
        }
        cluster_t previous_end = 0;
        set.for_each([&](const ClusterRun& r) {
            ASSERT_GT(r.first, previous_end) << "runs touch or overlap";
            previous_end = r.first + r.count;
        });
    }
}

class AllocatorBed : public FatBed {
public:
    explicit AllocatorBed(const Geometry& geometry_of_bed) : FatBed(geometry_of_bed) {}
    // After planting.
    void start(const FsInfo& hint = {}, bool trust = false) {
        allocator = std::make_unique<Allocator>(geometry, *fat, blocks(), hint, trust);
    }
    std::vector<ClusterRun> must_allocate(std::uint32_t count, cluster_t goal = 0) {
        bool pending_would_do = false;
        Result<std::vector<ClusterRun>> runs = allocator->allocate(count, goal, pending_would_do);
        EXPECT_TRUE(runs.has_value()) << count << " clusters: errno " << runs.code();
        return runs.has_value() ? *runs : std::vector<ClusterRun>{};
    }
    cluster_t must_allocate_one(cluster_t goal = 0) {
        const std::vector<ClusterRun> runs = must_allocate(1, goal);
        return runs.empty() ? 0 : runs[0].first;
    }

    std::unique_ptr<Allocator> allocator;
};

constexpr std::uint32_t kInUse = 0xFFF;  // planted: in use or reserved, whatever the type

struct AllocatorCase {
    FatType type;
    std::uint32_t nr_clusters;
};

enum class State : std::uint8_t { kFree, kUsed, kPending };

// Random allocations, cancels, frees and commits against a vector of states.
class AllocatorTest : public ::testing::TestWithParam<AllocatorCase> {
protected:
    AllocatorTest() {
        for (cluster_t cluster = 2; cluster < nr_ + 2;
             cluster += static_cast<cluster_t>(gen_.between(1, 40))) {
            bed_.plant(cluster, gen_.one_in(2)
                                    ? kInUse
                                    : encode_fat_entry(bed_.geometry.type, FatValue::bad(), 0));
            model_[cluster] = State::kUsed;  // nobody's: never to be seen again
        }
        bed_.start();
    }

    std::uint32_t count_of(State state) const {
        return static_cast<std::uint32_t>(std::count(model_.begin() + 2, model_.end(), state));
    }
    void allocate() {
        const auto count = static_cast<std::uint32_t>(gen_.one_in(10) ? gen_.between(1, nr_ / 3)
                                                                      : gen_.between(1, 30));
        const cluster_t goal =
            gen_.one_in(3) || owned_.empty() ? 0 : owned_[gen_.below(owned_.size())].first;
        bool pending_would_do = false;
        const std::uint32_t free = count_of(State::kFree);
        const Result<std::vector<ClusterRun>> runs =
            bed_.allocator->allocate(count, goal, pending_would_do);
        ASSERT_EQ(runs.has_value(), count <= free) << "errno " << runs.code();
        if (!runs.has_value()) {
            ASSERT_EQ(runs.code(), ENOSPC);
            ASSERT_EQ(pending_would_do, free + count_of(State::kPending) >= count);
            return;
        }
        std::uint32_t got = 0;
        for (const ClusterRun& run : *runs) {
            for (cluster_t c = run.first; c < run.first + run.count; ++c) {
                ASSERT_EQ(model_[c], State::kFree) << "cluster " << c << " is not free";
                model_[c] = State::kUsed;
            }
            got += run.count;
            owned_.push_back(run);
        }
        ASSERT_EQ(got, count);
    }
    void give_back() {
        const std::size_t which = gen_.below(owned_.size());
        const ClusterRun run = owned_[which];
        owned_.erase(owned_.begin() + static_cast<std::ptrdiff_t>(which));
        const bool cancel = gen_.one_in(3);
        if (cancel) {
            bed_.allocator->cancel(run);
        } else {
            ASSERT_TRUE(bed_.allocator->free_later(run));
        }
        std::fill_n(model_.begin() + run.first, run.count, cancel ? State::kFree : State::kPending);
    }
    void step() {
        const std::uint64_t action = gen_.below(100);
        if (action < 60) {
            allocate();
        } else if (action < 92 && !owned_.empty()) {
            give_back();
        } else if (action < 95) {
            bed_.allocator->release_pending();
            std::replace(model_.begin(), model_.end(), State::kPending, State::kFree);
        } else {
            ASSERT_EQ(*bed_.allocator->free_count(),
                      count_of(State::kFree) + count_of(State::kPending));
        }
    }

    Gen gen_{21};
    AllocatorBed bed_{make_geometry(GetParam().type, GetParam().nr_clusters)};
    const std::uint32_t nr_ = bed_.geometry.nr_clusters;
    std::vector<State> model_ = std::vector<State>(nr_ + 2, State::kFree);
    std::vector<ClusterRun> owned_;
};

TEST_P(AllocatorTest, AgreesWithANaiveModel) {
    SCOPED_TRACE(gen_.replay());
    for (int i = 0; i < 3000 && !HasFatalFailure(); ++i) {
        step();
    }
    // Every free run, and nothing else, is shown to FITRIM.
    std::vector<bool> seen(nr_ + 2, false);
    const auto visit = [&](const ClusterRun& run) -> Result<> {
        EXPECT_TRUE(run.first == 2 || model_[run.first - 1] != State::kFree);
        EXPECT_TRUE(run.first + run.count == nr_ + 2 ||
                    model_[run.first + run.count] != State::kFree);
        std::fill_n(seen.begin() + run.first, run.count, true);
        return {};
    };
    ASSERT_TRUE(bed_.allocator->for_each_free_run(2, nr_ + 1, 1, visit).has_value());
    for (cluster_t cluster = 2; cluster < nr_ + 2; ++cluster) {
        ASSERT_EQ(seen[cluster], model_[cluster] == State::kFree) << cluster;
    }
}

INSTANTIATE_TEST_SUITE_P(Types, AllocatorTest,
                         ::testing::Values(AllocatorCase{FatType::kFat12, 4000},
                                           AllocatorCase{FatType::kFat16, 40000},
                                           AllocatorCase{FatType::kFat32, 100001}),
                         [](const ::testing::TestParamInfo<AllocatorCase>& param) {
                             return "Fat" + std::to_string(static_cast<unsigned>(param.param.type));
                         });

TEST(AllocatorPlacementTest, AFileGrowsRightBehindItself) {
    AllocatorBed bed(make_geometry(FatType::kFat16, 20000));
    bed.start();
    cluster_t last = bed.must_allocate_one();
    for (int i = 0; i < 1000; ++i) {
        const cluster_t next = bed.must_allocate_one(last);
        ASSERT_EQ(next, last + 1);
        last = next;
    }
    const std::vector<ClusterRun> more = bed.must_allocate(500, last);
    ASSERT_EQ(more.size(), 1U);
    EXPECT_EQ(more[0].first, last + 1);
}

TEST(AllocatorPlacementTest, NewFilesLieOneAfterTheOther) {
    AllocatorBed bed(make_geometry(FatType::kFat16, 20000));
    bed.start();
    cluster_t expected = bed.must_allocate_one() + 1;
    for (std::uint32_t i = 1; i < 100; ++i) {
        const std::vector<ClusterRun> runs = bed.must_allocate(i);
        ASSERT_EQ(runs.size(), 1U);
        EXPECT_EQ(runs[0].first, expected);
        expected += i;
    }
}

TEST(AllocatorPlacementTest, ALongRunIsPreferredToHoles) {
    AllocatorBed bed(make_geometry(FatType::kFat16, 20000));
    for (cluster_t cluster = 2; cluster < 5000; cluster += 4) {
        bed.plant(cluster, kInUse);
    }
    bed.start();
    const std::vector<ClusterRun> runs = bed.must_allocate(1000);
    ASSERT_EQ(runs.size(), 1U);
    EXPECT_GE(runs[0].first, 4995U);
    const std::vector<ClusterRun> whole = bed.must_allocate(10000);
    EXPECT_EQ(whole.size(), 1U);
}

TEST(AllocatorPlacementTest, HolesAreUsedWhenThereIsNothingElse) {
    AllocatorBed bed(make_geometry(FatType::kFat16, 10000));
    for (cluster_t cluster = 3; cluster < 10002; cluster += 2) {
        bed.plant(cluster, kInUse);
    }
    bed.start();
    EXPECT_EQ(bed.must_allocate(5000).size(), 5000U);
    EXPECT_EQ(*bed.allocator->free_count(), 0U);
}

TEST(AllocatorPlacementTest, RunsCrossGroupsUnbroken) {
    AllocatorBed bed(make_geometry(FatType::kFat32, 150000));
    bed.start();
    const std::vector<ClusterRun> runs = bed.must_allocate(140000);
    ASSERT_EQ(runs.size(), 1U);
    EXPECT_EQ(runs[0].count, 140000U);
}

TEST(AllocatorPlacementTest, FilesGrowingInTurnsDoNotInterleave) {
    AllocatorBed bed(make_geometry(FatType::kFat32, 100000));
    bed.start();
    std::vector<cluster_t> last(3, 0);
    std::vector<int> pieces(3, 0);
    constexpr int kRounds = 1024;
    for (int round = 0; round < kRounds; ++round) {
        for (std::size_t file = 0; file < last.size(); ++file) {
            const cluster_t next = bed.must_allocate_one(last[file]);
            pieces[file] += next != last[file] + 1 ? 1 : 0;
            last[file] = next;
        }
    }
    for (const int count : pieces) {
        EXPECT_LE(count, kRounds / 32)
            << "pieces of " << kRounds / std::max(count, 1) << " clusters";
    }
}

TEST(AllocatorPlacementTest, BadClustersAreNeverHandedOut) {
    AllocatorBed bed(make_geometry(FatType::kFat12, 4000));
    for (cluster_t cluster = 10; cluster < 20; ++cluster) {
        bed.plant(cluster, 0xFF7);
    }
    bed.start();
    for (const ClusterRun& run : bed.must_allocate(3990)) {
        EXPECT_TRUE(run.first + run.count <= 10 || run.first >= 20)
            << run.first << '+' << run.count;
    }
    bool pending_would_do = true;
    EXPECT_EQ(bed.allocator->allocate(1, 0, pending_would_do).code(), ENOSPC);
    EXPECT_FALSE(pending_would_do);
}

TEST(AllocatorPlacementTest, StartsWhereFsInfoSays) {
    AllocatorBed bed(make_geometry(FatType::kFat32, 100000));
    bed.start({true, 100000, 70000});
    EXPECT_EQ(bed.allocator->next_free_hint(), 70000U);
    EXPECT_EQ(bed.must_allocate_one(), 70000U);
    EXPECT_EQ(bed.allocator->next_free_hint(), 70001U);
}

TEST(AllocatorPlacementTest, GoesRoundTheEnd) {
    AllocatorBed bed(make_geometry(FatType::kFat32, 100000));
    bed.start({true, 0xFFFFFFFF, 99990});
    std::uint32_t got = 0;
    for (const ClusterRun& run : bed.must_allocate(100000)) {
        got += run.count;
    }
    EXPECT_EQ(got, 100000U);
}

// --- pending
// -------------------------------------------------------------------------------------------------------------

TEST(AllocatorPendingTest, FreedClustersWaitForTheCommit) {
    AllocatorBed bed(make_geometry(FatType::kFat16, 5000));
    bed.start();
    const std::vector<ClusterRun> all = bed.must_allocate(5000);
    ASSERT_TRUE(bed.allocator->free_later({all[0].first, 10}));
    EXPECT_EQ(*bed.allocator->free_count(), 10U) << "statfs counts them";
    bool pending_would_do = false;
    EXPECT_EQ(bed.allocator->allocate(10, 0, pending_would_do).code(), ENOSPC);
    EXPECT_TRUE(pending_would_do);
    EXPECT_EQ(bed.allocator->allocate(11, 0, pending_would_do).code(), ENOSPC);
    EXPECT_FALSE(pending_would_do);
    bed.allocator->release_pending();
    EXPECT_EQ(bed.must_allocate(10)[0].first, all[0].first);
}

TEST(AllocatorPendingTest, AGroupReadWhileItsFreesAreInThePagesKeepsThemBack) {
    AllocatorBed bed(make_geometry(FatType::kFat32, 100000));
    bed.plant(90000, kInUse);
    bed.start();
    ASSERT_TRUE(bed.allocator->free_later({90000, 1}));  // its group is not loaded
    ASSERT_TRUE(bed.fat->free_runs_later({{90000, 1}}).has_value());
    ASSERT_TRUE(bed.sink.commit().has_value());  // the pages say free now, the disk does not
    EXPECT_EQ(*bed.allocator->free_count(), 100000U);
    for (const ClusterRun& run : bed.must_allocate(99999)) {
        EXPECT_TRUE(run.first > 90000 || run.first + run.count <= 90000)
            << "handed out before it is durable";
    }
    bed.allocator->release_pending();
    EXPECT_EQ(bed.must_allocate_one(), 90000U);
}

TEST(AllocatorPendingTest, FreeingTwiceIsReportedAndChangesNothing) {
    AllocatorBed bed(make_geometry(FatType::kFat16, 5000));
    bed.start();
    const cluster_t first = bed.must_allocate(20)[0].first;
    EXPECT_TRUE(bed.allocator->free_later({first, 10}));
    EXPECT_FALSE(bed.allocator->free_later({first + 5, 10})) << "half of it is pending";
    EXPECT_EQ(*bed.allocator->free_count(), 4995U);
    bed.allocator->release_pending();
    EXPECT_FALSE(bed.allocator->free_later({first + 10, 10})) << "half of it is free";
    EXPECT_EQ(*bed.allocator->free_count(), 5000U);
    bed.allocator->release_pending();
    EXPECT_EQ(*bed.allocator->free_count(), 5000U);
}

// --- FSINFO
// --------------------------------------------------------------------------------------------------------------

TEST(AllocatorCountTest, FsInfoIsBelievedOnlyWhenTold) {
    AllocatorBed bed(make_geometry(FatType::kFat32, 100000));
    bed.start({true, 77, 2}, false);
    EXPECT_EQ(bed.allocator->free_count_if_known(), 0xFFFFFFFFU);
    EXPECT_EQ(*bed.allocator->free_count(), 100000U);
    EXPECT_EQ(bed.allocator->free_count_if_known(), 100000U);

    bed.start({true, 77, 2}, true);
    EXPECT_EQ(*bed.allocator->free_count(), 77U);
    const ClusterRun run = bed.must_allocate(7)[0];
    EXPECT_EQ(bed.allocator->free_count_if_known(), 70U);
    EXPECT_TRUE(bed.allocator->free_later(run));
    EXPECT_EQ(bed.allocator->free_count_if_known(), 77U);
    bed.allocator->release_pending();
    EXPECT_EQ(bed.allocator->free_count_if_known(), 77U);
}

TEST(AllocatorCountTest, NothingIsReadBeforeItIsNeeded) {
    AllocatorBed bed(make_geometry(FatType::kFat32, 200000));
    bed.start({true, 150000, 2}, true);
    EXPECT_EQ(*bed.allocator->free_count(), 150000U);
    EXPECT_EQ(bed.faults.operations(cache::kFaultReads), 0U);
    bed.must_allocate_one();
    EXPECT_GT(bed.faults.operations(cache::kFaultReads), 0U);
}

TEST(AllocatorFaultTest, AnUnreadableTableIsAnErrorAndLosesNothing) {
    AllocatorBed bed(make_geometry(FatType::kFat32, 100000));
    bed.start();
    ASSERT_EQ(bed.must_allocate(1000).size(), 1U);
    bed.faults.add_rule({.ops = cache::kFaultReads, .nr_hits = cache::FaultRule::kSticky});
    bool pending_would_do = false;
    EXPECT_EQ(bed.allocator->allocate(90000, 0, pending_would_do).code(), EIO);
    EXPECT_EQ(bed.allocator->free_count().code(), EIO);
    EXPECT_TRUE(bed.allocator->allocate(100, 0, pending_would_do).has_value())
        << "what is loaded still serves";
    bed.faults.clear_rules();
    EXPECT_EQ(*bed.allocator->free_count(), 98900U);
}

TEST(AllocatorDeathTest, ReportsWhatACallerMustNotDo) {
    ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
    AllocatorBed bed(make_geometry(FatType::kFat16, 5000));
    bed.start();
    const ClusterRun run = bed.must_allocate(4)[0];
    EXPECT_DEATH(bed.allocator->cancel({run.first, 5}), "A2");
    EXPECT_DEATH(bed.allocator->cancel({1, 1}), "A2");
    EXPECT_DEATH(static_cast<void>(bed.allocator->free_later({5000, 3})), "A2");
    ASSERT_TRUE(bed.allocator->free_later(run));
    EXPECT_DEATH(bed.allocator->cancel(run), "A2");
}

}  // namespace
}  // namespace wbfat::fs
