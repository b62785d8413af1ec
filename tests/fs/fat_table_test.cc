// Goal: the table says what was put into it, in every copy, at every width, and holds back what
// must wait. Method: known bytes, a naive model under random changes for every FAT type and
// mirroring, and unreadable sectors.
#include "fs/fat_table.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/fs/fat_bed.h"
#include "tests/fs/gen.h"

namespace wbfat::fs {
namespace {

using testing::FatBed;
using testing::Gen;
using testing::make_geometry;

TEST(FatEntryTest, DecodesAndEncodesEveryKind) {
    struct Case {
        const char* name;
        FatType type;
        std::uint32_t raw;
        FatValue value;
    };
    const FatValue reserved{FatValue::Kind::kReserved, 0};
    const Case cases[] = {
        {"FAT12 free", FatType::kFat12, 0, FatValue::free()},
        {"FAT12 cluster 1 is reserved", FatType::kFat12, 1, reserved},
        {"FAT12 the first cluster", FatType::kFat12, 2, FatValue::link(2)},
        {"FAT12 the last cluster", FatType::kFat12, 101, FatValue::link(101)},
        {"FAT12 beyond the last", FatType::kFat12, 102, reserved},
        {"FAT12 the last reserved one", FatType::kFat12, 0xFF6, reserved},
        {"FAT12 bad", FatType::kFat12, 0xFF7, FatValue::bad()},
        {"FAT12 the smallest end mark", FatType::kFat12, 0xFF8, FatValue::end_of_chain()},
        {"FAT12 the end mark", FatType::kFat12, 0xFFF, FatValue::end_of_chain()},
        {"FAT16 bad", FatType::kFat16, 0xFFF7, FatValue::bad()},
        {"FAT16 what is bad on FAT12", FatType::kFat16, 0xFF7, reserved},
        {"FAT16 the smallest end mark", FatType::kFat16, 0xFFF8, FatValue::end_of_chain()},
        {"FAT16 the end mark", FatType::kFat16, 0xFFFF, FatValue::end_of_chain()},
        {"FAT32 free whatever the upper bits", FatType::kFat32, 0xF0000000, FatValue::free()},
        {"FAT32 a link under upper bits", FatType::kFat32, 0xA0000005, FatValue::link(5)},
        {"FAT32 bad", FatType::kFat32, 0x0FFFFFF7, FatValue::bad()},
        {"FAT32 the smallest end mark", FatType::kFat32, 0x0FFFFFF8, FatValue::end_of_chain()},
        {"FAT32 an end mark with upper bits", FatType::kFat32, 0xFFFFFFFF,
         FatValue::end_of_chain()},
        {"FAT32 what ends FAT16", FatType::kFat32, 0xFFFF, reserved},
    };
    for (const Case& c : cases) {
        SCOPED_TRACE(c.name);
        EXPECT_EQ(decode_fat_entry(c.type, c.raw, 100), c.value);
        if (c.value.kind != FatValue::Kind::kReserved) {
            const std::uint32_t raw = encode_fat_entry(c.type, c.value, 0xC0000000);
            EXPECT_EQ(decode_fat_entry(c.type, raw, 100), c.value);
            EXPECT_EQ(raw >> 28, c.type == FatType::kFat32 ? 0xCU : 0U) << "T3";
        }
    }
}

TEST(FatEntryTest, Fat12PairsShareTheirMiddleByte) {
    std::array<std::byte, 6> table{};
    write_fat_entry(FatType::kFat12, table, 0, 0xABC);
    write_fat_entry(FatType::kFat12, table, 1, 0x123);
    write_fat_entry(FatType::kFat12, table, 2, 0xFFF);
    EXPECT_EQ(table[0], std::byte{0xBC});
    EXPECT_EQ(table[1], std::byte{0x3A});
    EXPECT_EQ(table[2], std::byte{0x12});
    write_fat_entry(FatType::kFat12, table, 1, 0);
    EXPECT_EQ(read_fat_entry(FatType::kFat12, table, 0), 0xABCU);
    EXPECT_EQ(read_fat_entry(FatType::kFat12, table, 1), 0U);
    EXPECT_EQ(read_fat_entry(FatType::kFat12, table, 2), 0xFFFU);
}

struct TableCase {
    FatType type;
    std::uint32_t nr_clusters;
    std::uint32_t nr_fats;
    std::uint32_t sector_bytes;
    int active_fat;  // -1: mirroring
};

class FatTableTest : public ::testing::TestWithParam<TableCase> {
protected:
    static Geometry geometry() {
        const TableCase& c = GetParam();
        Geometry g = make_geometry(c.type, c.nr_clusters, c.nr_fats, c.sector_bytes);
        g.mirroring = c.active_fat < 0;
        g.active_fat = c.active_fat < 0 ? 0 : static_cast<std::uint32_t>(c.active_fat);
        return g;
    }
    std::vector<std::uint32_t> copies() {
        std::vector<std::uint32_t> numbers;
        for (std::uint32_t n = 0; n < bed_.geometry.nr_fats; ++n) {
            if (bed_.geometry.mirroring || n == bed_.geometry.active_fat) {
                numbers.push_back(n);
            }
        }
        return numbers;
    }

    FatBed bed_{geometry()};
};

// Random single changes, runs and held-back changes against a vector of values.
class FatTableModelTest : public FatTableTest {
protected:
    cluster_t random_cluster() {
        return static_cast<cluster_t>(gen_.between(2, nr_ + 1));
    }
    std::uint32_t random_count(cluster_t first, std::uint64_t most) {
        return static_cast<std::uint32_t>(
            gen_.between(1, std::min<std::uint64_t>(most, nr_ + 2 - first)));
    }
    FatValue random_value() {
        switch (gen_.below(4)) {
            case 0:
                return FatValue::free();
            case 1:
                return FatValue::end_of_chain();
            case 2:
                return FatValue::bad();
            default:
                return FatValue::link(random_cluster());
        }
    }
    void set_chain(cluster_t first) {
        const std::uint32_t count = random_count(first, 3000);
        for (cluster_t c = first; c < first + count; ++c) {
            if (bed_.fat->is_held_back(c)) {
                return;
            }
        }
        ASSERT_TRUE(bed_.fat->set_chain({first, count}, FatValue::end_of_chain()).has_value());
        for (cluster_t c = first; c < first + count; ++c) {
            model_[c] = c + 1 < first + count ? FatValue::link(c + 1) : FatValue::end_of_chain();
        }
    }
    void set_later(cluster_t cluster) {
        constexpr std::array<Phase, 3> kPhases = {Phase::kLink, Phase::kUnlink, Phase::kFree};
        const FatValue value = random_value();
        ASSERT_TRUE(bed_.fat->set_later(cluster, value, kPhases.at(gen_.below(3))).has_value());
        model_[cluster] = value;
    }
    void free_later(cluster_t first) {
        const std::uint32_t count = random_count(first, 50);
        ASSERT_TRUE(bed_.fat->free_runs_later({{first, count}}).has_value());
        std::fill_n(model_.begin() + first, count, FatValue::free());
    }
    void set(cluster_t cluster) {
        if (!bed_.fat->is_held_back(cluster)) {
            const FatValue value = random_value();
            ASSERT_TRUE(bed_.fat->set(cluster, value).has_value());
            model_[cluster] = value;
        }
    }
    void change(cluster_t cluster) {
        switch (gen_.below(8)) {
            case 0:
                return set_chain(cluster);
            case 1:
                return set_later(cluster);
            case 2:
                return free_later(cluster);
            case 3:
                if (gen_.one_in(20)) {
                    ASSERT_TRUE(bed_.sink.commit().has_value());
                }
                return;
            default:
                return set(cluster);
        }
    }
    // What was noted and applied is enough to bring every copy on the disk to the model.
    void expect_model_on_disk() {
        bed_.write_blocks(bed_.sink.noted);
        bed_.write_blocks(bed_.sink.applied);
        for (cluster_t cluster = 2; cluster < nr_ + 2; ++cluster) {
            ASSERT_FALSE(bed_.fat->is_held_back(cluster));
            for (const std::uint32_t copy : copies()) {
                ASSERT_EQ(bed_.on_disk(copy, cluster), model_[cluster])
                    << "copy " << copy << " cluster " << cluster;
            }
        }
        EXPECT_FALSE(bed_.mapping.i_pages.tagged(cache::PAGECACHE_TAG_DIRTY))
            << "a change was not noted";
    }

    Gen gen_{10};
    const std::uint32_t nr_ = bed_.geometry.nr_clusters;
    std::vector<FatValue> model_ = std::vector<FatValue>(nr_ + 2);
};

TEST_P(FatTableModelTest, AgreesWithANaiveModel) {
    SCOPED_TRACE(gen_.replay());
    for (int i = 0; i < 4000 && !HasFatalFailure(); ++i) {
        const cluster_t cluster = random_cluster();
        change(cluster);
        const cluster_t looked_at = gen_.one_in(2) ? cluster : random_cluster();
        ASSERT_EQ(bed_.must_get(looked_at), model_[looked_at]) << looked_at;
    }
    ASSERT_TRUE(bed_.sink.commit().has_value());
    expect_model_on_disk();
}

TEST_P(FatTableTest, WritesNothingOutsideItsTables) {
    const std::vector<std::byte> before(bed_.disk.bytes().begin(), bed_.disk.bytes().end());
    const std::uint32_t nr = bed_.geometry.nr_clusters;
    ASSERT_TRUE(bed_.fat->set_chain({2, nr}, FatValue::end_of_chain()).has_value());
    ASSERT_TRUE(bed_.fat->set_clean_bit(true).has_value());
    bed_.write_out();
    std::uint64_t begin = bed_.geometry.fat_offset_bytes(0);
    const std::uint64_t end = bed_.geometry.fat_offset_bytes(bed_.geometry.nr_fats);
    for (std::uint64_t at = 0; at < before.size(); ++at) {
        if (at < begin || at >= end) {
            ASSERT_EQ(bed_.disk.bytes()[at], before[at]) << at;
        }
    }
    if (!bed_.geometry.mirroring) {
        for (std::uint32_t copy = 0; copy < bed_.geometry.nr_fats; ++copy) {
            const std::uint32_t raw =
                read_fat_entry(bed_.geometry.type, bed_.table_on_disk(copy), 2);
            EXPECT_EQ(raw != 0, copy == bed_.geometry.active_fat)
                << "an inactive FAT is not touched";
        }
    }
}

TEST_P(FatTableTest, FindsMaximalFreeRuns) {
    Gen gen(11);
    SCOPED_TRACE(gen.replay());
    const std::uint32_t nr = bed_.geometry.nr_clusters;
    std::vector<bool> free(nr + 2, true);
    for (cluster_t cluster = 2; cluster < nr + 2;) {
        const std::uint64_t length = gen.one_in(5) ? gen.between(1, 3000) : gen.between(1, 5);
        const bool used = gen.one_in(2);
        for (std::uint64_t i = 0; i < length && cluster < nr + 2; ++i, ++cluster) {
            free[cluster] = !used;
            if (used) {
                bed_.plant(cluster, gen.one_in(2) ? 0xFF7 : 0xFFF);
            } else if (bed_.geometry.type == FatType::kFat32) {
                bed_.plant(cluster, 0x50000000);  // free: the upper bits do not count
            }
        }
    }
    // Held back: not free in the raw table yet.
    ASSERT_TRUE(bed_.fat->free_runs_later({{2, nr}}).has_value());
    for (const auto& [first, last] :
         {std::pair{2U, nr + 1}, std::pair{nr / 3 + 2, nr / 2 + 2}, std::pair{5U, 5U}}) {
        std::vector<bool> seen(nr + 2, false);
        cluster_t previous_end = 0;
        ASSERT_TRUE(
            bed_.fat
                ->for_each_free_run(first, last,
                                    [&, lo = first, hi = last](cluster_t start, cluster_t count) {
                                        EXPECT_GT(count, 0U);
                                        EXPECT_GE(start, lo);
                                        EXPECT_LE(start + count - 1, hi);
                                        EXPECT_GT(start, previous_end) << "two runs touch";
                                        previous_end = start + count;
                                        std::fill_n(seen.begin() + start, count, true);
                                    })
                .has_value());
        for (cluster_t cluster = first; cluster <= last; ++cluster) {
            ASSERT_EQ(seen[cluster], free[cluster]) << cluster;
        }
    }
}

TEST_P(FatTableTest, KnowsWhichEntriesShareASector) {
    const std::uint32_t bits = static_cast<unsigned>(GetParam().type);
    const std::uint64_t sector_bits = std::uint64_t{bed_.geometry.sector_bytes} * 8;
    for (cluster_t a = 2; a < std::min(bed_.geometry.nr_clusters, 1500U); ++a) {
        for (const cluster_t b : {a, a + 1, a + 300}) {
            const bool same = a * bits / sector_bits == (a * bits + bits - 1) / sector_bits &&
                              b * bits / sector_bits == (b * bits + bits - 1) / sector_bits &&
                              a * bits / sector_bits == b * bits / sector_bits;
            if (bits == 12 && same) {
                continue;  // the shared byte of a pair may lie beyond: false is allowed, and safe
            }
            EXPECT_EQ(bed_.fat->same_sector(a, b), same) << a << ' ' << b;
        }
    }
}

TEST_P(FatTableTest, TheCleanBitIsInEveryCopy) {
    bed_.plant(1, GetParam().type == FatType::kFat32 ? 0x0FFFFFFF : 0xFFFF);
    ASSERT_TRUE(*bed_.fat->clean_bit());
    ASSERT_TRUE(bed_.fat->set_clean_bit(false).has_value());
    if (GetParam().type == FatType::kFat12) {
        EXPECT_TRUE(*bed_.fat->clean_bit()) << "FAT12 has none";
        return;
    }
    EXPECT_FALSE(*bed_.fat->clean_bit());
    EXPECT_TRUE(bed_.sink.noted.empty()) << "the caller writes it";
    bed_.write_out();
    for (const std::uint32_t copy : copies()) {
        EXPECT_EQ(read_fat_entry(GetParam().type, bed_.table_on_disk(copy), 1),
                  GetParam().type == FatType::kFat16 ? 0x7FFFU : 0x07FFFFFFU);
    }
}

const auto kTableCases = ::testing::Values(
    TableCase{FatType::kFat12, 4084, 2, 512, -1}, TableCase{FatType::kFat12, 4084, 1, 512, -1},
    TableCase{FatType::kFat12, 3000, 2, 4096, -1}, TableCase{FatType::kFat16, 20000, 2, 512, -1},
    TableCase{FatType::kFat16, 5000, 4, 1024, -1}, TableCase{FatType::kFat32, 70000, 2, 512, -1},
    TableCase{FatType::kFat32, 70000, 2, 512, 1}, TableCase{FatType::kFat32, 66000, 3, 4096, 2});

std::string name_of_case(const ::testing::TestParamInfo<TableCase>& param) {
    const TableCase& c = param.param;
    return "Fat" + std::to_string(static_cast<unsigned>(c.type)) + "With" +
           std::to_string(c.nr_fats) + "TablesOf" + std::to_string(c.nr_clusters) + "At" +
           std::to_string(c.sector_bytes) + (c.active_fat < 0 ? "Mirrored" : "Active");
}

INSTANTIATE_TEST_SUITE_P(Types, FatTableTest, kTableCases, name_of_case);
INSTANTIATE_TEST_SUITE_P(Types, FatTableModelTest, kTableCases, name_of_case);

TEST(FatTableHoldBackTest, PagesKeepTheOldValueUntilTheCommit) {
    FatBed bed(make_geometry(FatType::kFat16, 5000));
    ASSERT_TRUE(bed.fat->set_chain({2, 10}, FatValue::end_of_chain()).has_value());
    ASSERT_TRUE(bed.fat->set_later(5, FatValue::end_of_chain(), Phase::kUnlink).has_value());
    ASSERT_TRUE(bed.fat->free_runs_later({{6, 6}}).has_value());
    EXPECT_EQ(bed.must_get(5), FatValue::end_of_chain());
    EXPECT_EQ(bed.must_get(6), FatValue::free());
    EXPECT_TRUE(bed.fat->is_held_back(5));
    EXPECT_TRUE(bed.fat->is_held_back(11));
    EXPECT_FALSE(bed.fat->is_held_back(4));
    bed.write_out();
    EXPECT_EQ(bed.on_disk(0, 5), FatValue::link(6)) << "kUnlink has not come";
    EXPECT_EQ(bed.on_disk(1, 11), FatValue::end_of_chain());
    ASSERT_TRUE(bed.sink.commit().has_value());
    bed.write_out();
    for (const std::uint32_t copy : {0U, 1U}) {
        EXPECT_EQ(bed.on_disk(copy, 4), FatValue::link(5));
        EXPECT_EQ(bed.on_disk(copy, 5), FatValue::end_of_chain());
        EXPECT_EQ(bed.on_disk(copy, 6), FatValue::free());
        EXPECT_EQ(bed.on_disk(copy, 11), FatValue::free());
    }
    EXPECT_FALSE(bed.fat->is_held_back(5));
}

TEST(FatTableHoldBackTest, OnlyTheLastValueHeldBackIsApplied) {
    FatBed bed(make_geometry(FatType::kFat16, 5000));
    ASSERT_TRUE(bed.fat->set_later(5, FatValue::end_of_chain(), Phase::kFree).has_value());
    ASSERT_TRUE(bed.fat->set_later(5, FatValue::link(9), Phase::kLink).has_value());
    ASSERT_TRUE(bed.fat->set_later(7, FatValue::end_of_chain(), Phase::kUnlink).has_value());
    ASSERT_TRUE(bed.fat->free_runs_later({{7, 1}}).has_value());
    ASSERT_TRUE(bed.sink.commit().has_value());
    EXPECT_EQ(bed.must_get(5), FatValue::link(9));
    EXPECT_EQ(bed.must_get(7), FatValue::free());
}

TEST(FatTableFaultTest, AnotherCopyServesWhatOneCannot) {
    Geometry g = make_geometry(FatType::kFat32, 70000);
    FatBed bed(g);
    bed.plant(2, 3);
    bed.plant(60000, 0x0FFFFFFF);
    bed.faults.add_rule({.ops = cache::kFaultReads,
                         .begin_bytes = g.fat_offset_bytes(0),
                         .end_bytes = g.fat_offset_bytes(1),
                         .nr_hits = cache::FaultRule::kSticky});
    EXPECT_EQ(bed.must_get(60000), FatValue::end_of_chain());
    std::uint32_t runs = 0;
    ASSERT_TRUE(bed.fat->for_each_free_run(59999, 60001, [&runs](cluster_t, cluster_t) { ++runs; })
                    .has_value());
    EXPECT_EQ(runs, 2U);
    // A change needs all copies, and changes none when it cannot have them.
    EXPECT_EQ(bed.fat->set(60000, FatValue::free()).code(), EIO);
    EXPECT_EQ(bed.must_get(60000), FatValue::end_of_chain());
    EXPECT_TRUE(bed.sink.noted.empty());
}

TEST(FatTableFaultTest, IsAnErrorWhenNoCopyCanBeRead) {
    Geometry g = make_geometry(FatType::kFat16, 30000);
    FatBed bed(g);
    bed.faults.add_rule({.ops = cache::kFaultReads, .nr_hits = cache::FaultRule::kSticky});
    EXPECT_EQ(bed.fat->get(20000).code(), EIO);
    EXPECT_EQ(bed.fat->for_each_free_run(2, 30001, [](cluster_t, cluster_t) {}).code(), EIO);
    EXPECT_EQ(bed.fat->set_later(20000, FatValue::free(), Phase::kFree).code(), EIO);
    EXPECT_FALSE(bed.fat->is_held_back(20000));
    bed.faults.clear_rules();
    EXPECT_EQ(bed.must_get(20000), FatValue::free()) << "the next try may succeed";
}

TEST(FatTableFaultTest, TheInactiveFatIsNoSubstitute) {
    Geometry g = make_geometry(FatType::kFat32, 70000);
    g.mirroring = false;
    g.active_fat = 1;
    FatBed bed(g);
    bed.faults.add_rule({.ops = cache::kFaultReads,
                         .begin_bytes = g.fat_offset_bytes(1),
                         .end_bytes = g.fat_offset_bytes(2),
                         .nr_hits = cache::FaultRule::kSticky});
    EXPECT_EQ(bed.fat->get(50000).code(), EIO);
}

TEST(FatTableFaultTest, AChainThatCannotBeWrittenWhollyIsFreeAgain) {
    Geometry g = make_geometry(FatType::kFat32, 70000);
    FatBed bed(g);
    const std::uint64_t third_page = (g.fat_offset_bytes(1) / 4096 + 3) * 4096;
    bed.faults.add_rule({.ops = cache::kFaultReads,
                         .begin_bytes = third_page,
                         .end_bytes = third_page + 4096,
                         .nr_hits = cache::FaultRule::kSticky});
    EXPECT_EQ(bed.fat->set_chain({2, 20000}, FatValue::end_of_chain()).code(), EIO);
    bed.faults.clear_rules();
    for (cluster_t cluster = 2; cluster < 20002; ++cluster) {
        ASSERT_EQ(bed.must_get(cluster), FatValue::free()) << cluster;
    }
}

TEST(FatTableFaultTest, ACommitThatFailedAppliesTheRestNextTime) {
    Geometry g = make_geometry(FatType::kFat32, 70000);
    FatBed bed(g);
    bed.plant(2, 0x0FFFFFFF);
    bed.plant(65000, 0x0FFFFFFF);
    ASSERT_TRUE(bed.fat->free_runs_later({{2, 1}, {65000, 1}}).has_value());
    const auto rule = bed.faults.add_rule({.ops = cache::kFaultReads,
                                           .begin_bytes = g.fat_offset_bytes(1) + 64000 * 4,
                                           .end_bytes = g.fat_offset_bytes(2),
                                           .nr_hits = cache::FaultRule::kSticky});
    EXPECT_EQ(bed.sink.commit().code(), EIO);
    EXPECT_EQ(bed.must_get(65000), FatValue::free()) << "still held back";
    EXPECT_TRUE(bed.fat->is_held_back(65000));
    bed.faults.remove_rule(rule);
    ASSERT_TRUE(bed.sink.commit().has_value());
    EXPECT_FALSE(bed.fat->is_held_back(65000));
    bed.write_out();
    EXPECT_EQ(bed.on_disk(1, 65000), FatValue::free());
    EXPECT_EQ(bed.on_disk(0, 2), FatValue::free());
}

TEST(FatTableDeathTest, ReportsWhatACallerMustNotDo) {
    ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
    FatBed bed(make_geometry(FatType::kFat16, 5000));
    EXPECT_DEATH(static_cast<void>(bed.fat->get(1)), "no such cluster");
    EXPECT_DEATH(static_cast<void>(bed.fat->get(5002)), "no such cluster");
    EXPECT_DEATH(static_cast<void>(bed.fat->set_later(5, FatValue::free(), Phase::kAllocate)),
                 "held back for");
    ASSERT_TRUE(bed.fat->set_later(5, FatValue::end_of_chain(), Phase::kLink).has_value());
    EXPECT_DEATH(static_cast<void>(bed.fat->set(5, FatValue::free())), "O3");
    EXPECT_DEATH(static_cast<void>(bed.fat->set(6, {FatValue::Kind::kReserved, 0})),
                 "reserved value");
}

}  // namespace
}  // namespace wbfat::fs
