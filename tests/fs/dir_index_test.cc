// Goal: NameIndex and SlotMap answer exactly as the simplest thing that could answer, whatever was
// done to them before. Method: random operations beside a std::multimap and a linear scan, and the
// sizes at which the structures change.
#include "fs/dir_index.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace wbfat::fs::inline WBFAT_RT {
namespace {

constexpr std::uint64_t kSeed = 20240607;

std::optional<std::uint32_t> find_id(const NameIndex& index, std::uint64_t hash, std::uint32_t id) {
    return index.find(hash, [id](std::uint32_t candidate) { return candidate == id; });
}

TEST(NameIndexTest, FindsNothingWhenEmpty) {
    NameIndex index(1);
    EXPECT_FALSE(find_id(index, 7, 0).has_value());
    index.erase(7, 0);
    EXPECT_EQ(index.size(), 0U);
}

TEST(NameIndexTest, TellsIdsOfOneHashApart) {
    NameIndex index(1);
    index.insert(7, 0);
    index.insert(7, 1);
    EXPECT_EQ(find_id(index, 7, 0), 0U);
    EXPECT_EQ(find_id(index, 7, 1), 1U);
    index.erase(7, 0);
    EXPECT_FALSE(find_id(index, 7, 0).has_value());
    EXPECT_EQ(find_id(index, 7, 1), 1U);
}

TEST(NameIndexTest, AgreesWithAMultimapUnderRandomUse) {
    std::mt19937_64 random(kSeed);
    NameIndex index(random());
    std::multimap<std::uint64_t, std::uint32_t> model;
    std::uint32_t next_id = 0;
    for (int step = 0; step < 40000; ++step) {
        // Few hashes, so that long probe sequences and their repair after an erase are common.
        const std::uint64_t hash = random() % 700;
        if (random() % 5 < 3) {
            index.insert(hash, next_id);
            model.emplace(hash, next_id++);
        } else if (const auto victim = model.lower_bound(hash); victim != model.end()) {
            index.erase(victim->first, victim->second);
            EXPECT_FALSE(find_id(index, victim->first, victim->second).has_value());
            model.erase(victim);
        }
        ASSERT_EQ(index.size(), model.size());
        if (step % 4096 == 0) {
            for (const auto& [key, id] : model) {
                ASSERT_EQ(find_id(index, key, id), id) << "seed " << kSeed << " step " << step;
            }
        }
    }
}

TEST(NameIndexTest, HashesEqualInTheirLowBitsDoNotPileUp) {
    NameIndex index(0x1234);
    constexpr std::uint32_t kCount = 50000;
    for (std::uint32_t id = 0; id < kCount; ++id) {
        index.insert(std::uint64_t{id} << 32, id);
    }
    // Every rehash places all again: about twice the count, times the probes of a three quarters
    // full table.
    EXPECT_LT(index.nr_probes(), std::uint64_t{kCount} * 16);
}

// The slots as a row of flags.
class SlotModel {
public:
    explicit SlotModel(std::uint32_t per_sector) : per_sector_(per_sector) {}

    std::vector<bool> used;

    std::optional<std::uint32_t> find_anywhere(std::uint32_t n) const {
        return scan(n, false);
    }
    std::optional<std::uint32_t> find_in_sector(std::uint32_t n) const {
        return scan(n, true);
    }

private:
    std::optional<std::uint32_t> scan(std::uint32_t n, bool in_sector) const {
        std::uint32_t run = 0;
        for (std::uint32_t slot = 0; slot < used.size(); ++slot) {
            if (in_sector && slot % per_sector_ == 0) {
                run = 0;
            }
            run = used[slot] ? 0 : run + 1;
            if (run >= n) {
                return slot + 1 - n;
            }
        }
        return std::nullopt;
    }

    std::uint32_t per_sector_;
};

TEST(SlotMapTest, AnEmptyMapHasNoPlace) {
    SlotMap map(16);
    map.assign({});
    EXPECT_FALSE(map.find_in_sector(1).has_value());
    EXPECT_FALSE(map.find_anywhere(1).has_value());
    map.grow(16);
    EXPECT_EQ(map.find_in_sector(16), 0U);
    EXPECT_EQ(map.size(), 16U);
}

TEST(SlotMapTest, ARunMayCrossSectorsOnlyWhereThatIsAllowed) {
    SlotMap map(16);
    std::vector<bool> used(64, true);
    std::fill(used.begin() + 12, used.begin() + 20, false);  // 4 + 4 around a boundary
    map.assign(used);
    EXPECT_EQ(map.find_in_sector(4), 12U);
    EXPECT_FALSE(map.find_in_sector(5).has_value());
    EXPECT_EQ(map.find_anywhere(5), 12U);
    EXPECT_EQ(map.find_anywhere(8), 12U);
    EXPECT_FALSE(map.find_anywhere(9).has_value());
}

TEST(SlotMapTest, TheSectorOfARunCountsTheRunAsFree) {
    SlotMap map(16);
    std::vector<bool> used(32, true);
    used[21] = false;
    map.assign(used);
    EXPECT_EQ(map.find_in_sector_of({19, 2}, 3), 19U);
    EXPECT_FALSE(map.find_in_sector_of({19, 2}, 4).has_value());
    EXPECT_FALSE(map.find_in_sector_of({17, 2}, 3).has_value());
}

class SlotMapRandomTest : public testing::TestWithParam<std::uint32_t> {};

TEST_P(SlotMapRandomTest, AgreesWithALinearScan) {
    const std::uint32_t per_sector = GetParam();
    std::mt19937_64 random(kSeed + per_sector);
    SlotMap map(per_sector);
    SlotModel model(per_sector);
    map.assign({});
    for (int step = 0; step < 3000; ++step) {
        const auto choice = random() % 16;
        if (choice == 0 && model.used.size() < 40 * std::size_t{per_sector}) {
            const auto sectors = static_cast<std::uint32_t>(1 + random() % 3);
            map.grow(sectors * per_sector);
            model.used.resize(model.used.size() + std::size_t{sectors} * per_sector, false);
        } else if (!model.used.empty()) {
            const auto first = static_cast<std::uint32_t>(random() % model.used.size());
            const auto count = static_cast<std::uint32_t>(
                std::min<std::uint64_t>(1 + random() % 40, model.used.size() - first));
            const bool use = choice < 9;
            use ? map.set_used({first, count}) : map.set_free({first, count});
            std::fill_n(model.used.begin() + first, count, use);
        }
        for (const std::uint32_t n : {1U, 2U, 3U, 7U, 16U, 17U, 21U, 128U}) {
            ASSERT_EQ(map.find_in_sector(n), model.find_in_sector(n)) << "step " << step;
            ASSERT_EQ(map.find_anywhere(n), model.find_anywhere(n)) << "step " << step;
        }
        const std::size_t slot = random() % (model.used.size() + 1);
        ASSERT_TRUE(slot == model.used.size() ||
                    map.is_used(static_cast<std::uint32_t>(slot)) == model.used[slot]);
    }
}

INSTANTIATE_TEST_SUITE_P(SectorSizes, SlotMapRandomTest, testing::Values(16U, 32U, 64U, 128U),
                         [](const auto& sector) { return std::to_string(sector.param * 32); });

TEST(SlotMapDeathTest, RefusesAPartOfASector) {
    SlotMap map(16);
    EXPECT_DEATH(map.grow(15), "per_sector_");
}

}  // namespace
}  // namespace wbfat::fs::inline WBFAT_RT
