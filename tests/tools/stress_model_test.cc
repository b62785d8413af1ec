// The judge of the stress must itself be right: content, model and choice of operations, against
// plain arrays. Method: the same random steps on the FileModel and on a byte vector; the inverse of
// every word; bounds of every plan.
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tools/stress/content.h"
#include "tools/stress/file_model.h"
#include "tools/stress/options.h"
#include "tools/stress/plan.h"
#include "tools/stress/random.h"

namespace wbfat::tools {
namespace {

TEST(StressContentTest, TellsWhereEveryWordCameFrom) {
    const Content content(42);
    Random random(1, 2, 3);
    for (int i = 0; i < 10'000; ++i) {
        const Origin origin{
            .file = static_cast<std::uint32_t>(random.below(kMaxFiles)),
            .generation = static_cast<std::uint32_t>(random.between(1, kMaxGeneration)),
            .offset_bytes = random.below(kMaxFileSize) / 8 * 8};
        EXPECT_EQ(content.origin(content.word(origin)), origin);
    }
}

TEST(StressContentTest, IsTheSameBytesHoweverItIsCut) {
    const Content content(7);
    std::vector<std::byte> whole(1000);
    content.fill(3, 5, 96, whole);
    Random random(0, 0, 0);
    for (int i = 0; i < 1000; ++i) {
        const std::size_t begin = random.below(whole.size());
        std::vector<std::byte> part(random.between(1, whole.size() - begin));
        content.fill(3, 5, 96 + begin, part);
        EXPECT_TRUE(std::equal(part.begin(), part.end(),
                               whole.begin() + static_cast<std::ptrdiff_t>(begin)));
    }
}

TEST(StressContentTest, FindsAnySingleWrongByte) {
    const Content content(7);
    std::vector<std::byte> data(5000);
    content.fill(1, 1, 13, data);
    ASSERT_EQ(content.first_mismatch(1, 1, 13, data), data.size());
    for (std::size_t at = 0; at < data.size(); ++at) {
        data[at] ^= std::byte{0x10};
        EXPECT_EQ(content.first_mismatch(1, 1, 13, data), at);
        data[at] ^= std::byte{0x10};
    }
}

TEST(StressContentTest, DiffersBetweenSeedsFilesGenerationsAndOffsets) {
    std::set<std::uint64_t> words;
    for (const std::uint64_t seed : {1U, 2U}) {
        for (const std::uint32_t file : {0U, 1U}) {
            for (const std::uint32_t generation : {1U, 2U}) {
                for (const std::uint64_t offset : {0U, 8U}) {
                    words.insert(Content(seed).word(
                        {.file = file, .generation = generation, .offset_bytes = offset}));
                }
            }
        }
    }
    EXPECT_EQ(words.size(), 16U);
}

// A file as a plain array of generations.
class FileModelTest : public testing::Test {
protected:
    void truncate(std::uint64_t size) {
        model_.truncate(size);
        plain_.resize(size, 0);
    }
    void write(std::uint64_t offset, std::uint64_t length, std::uint32_t generation) {
        model_.write(offset, length, generation);
        if (plain_.size() < offset + length) {
            plain_.resize(offset + length, 0);
        }
        std::fill_n(plain_.begin() + static_cast<std::ptrdiff_t>(offset), length, generation);
    }
    void expect_equal(std::uint64_t begin, std::uint64_t end) {
        ASSERT_EQ(model_.size(), plain_.size());
        std::uint64_t at = begin;
        model_.for_each_run(begin, end - begin,
                            [&](std::uint64_t offset, std::uint64_t length, std::uint32_t run) {
                                EXPECT_EQ(offset, at);
                                EXPECT_GT(length, 0U);
                                for (; at < offset + length; ++at) {
                                    EXPECT_EQ(run, plain_[at]) << "at " << at;
                                    EXPECT_EQ(model_.generation_at(at), plain_[at]);
                                }
                                return !HasFailure();
                            });
        EXPECT_EQ(at, end);
    }

    FileModel model_;
    std::vector<std::uint32_t> plain_;
};

TEST_F(FileModelTest, AgreesWithAnArrayOverRandomSteps) {
    for (std::uint64_t step = 0; step < 20'000 && !HasFailure(); ++step) {
        Random random(11, 0, step);
        if (random.one_in(3)) {
            truncate(random.below(300));
        } else {
            write(random.below(280), random.between(1, 40),
                  static_cast<std::uint32_t>(random.between(1, 4)));
        }
        const std::uint64_t begin = random.below(plain_.size() + 1);
        expect_equal(begin, begin + random.below(plain_.size() - begin + 1));
    }
}

TEST_F(FileModelTest, GrowsWithZerosOverWhatWasCut) {
    write(0, 100, 1);
    truncate(10);
    truncate(100);
    EXPECT_EQ(model_.generation_at(9), 1U);
    EXPECT_EQ(model_.generation_at(10), 0U);
    expect_equal(0, 100);
}

TEST_F(FileModelTest, JoinsNeighboursOfOneGeneration) {
    write(0, 10, 1);
    write(20, 10, 1);
    EXPECT_EQ(model_.nr_extents(), 2U);
    write(10, 10, 1);
    EXPECT_EQ(model_.nr_extents(), 1U);
}

TEST(StressPlanTest, KeepsEveryOperationWithinItsBounds) {
    const PlanLimits limits{
        .floor = 4808, .max_size = 1U << 20, .max_write = 64U << 10, .names = true};
    std::set<OpKind> seen;
    for (std::uint64_t i = 0; i < 20'000; ++i) {
        Random random(5, 1, i);
        const std::uint64_t size = random.between(limits.floor, limits.max_size);
        const Op op = plan_owned(random, limits, size);
        seen.insert(op.kind);
        if (op.kind == OpKind::kTruncate) {
            EXPECT_GE(op.offset, limits.floor);
            EXPECT_LE(op.offset, limits.max_size);
        } else if (op.length > 0) {
            EXPECT_GE(op.offset, limits.floor) << op.to_string();
            EXPECT_LE(op.offset + op.length, op.kind == OpKind::kWrite ? limits.max_size : size)
                << op.to_string();
        }
    }
    EXPECT_EQ(seen.size(), kNrOpKinds - 1) << "all kinds but spy";
}

TEST(StressPlanTest, TheGrowingMixMostlyStepsUpInsideAPageAndEndsInsideABlock) {
    const PlanLimits limits{.floor = 100,
                            .max_size = 1U << 20,
                            .max_write = 64U << 10,
                            .names = true,
                            .mix = Mix::kGrow};
    unsigned inside = 0;
    unsigned across = 0;
    unsigned back = 0;
    constexpr std::uint64_t kSize = 20'001;
    for (std::uint64_t i = 0; i < 20'000; ++i) {
        Random random(5, 1, i);
        const Op op = plan_owned(random, limits, kSize);
        if (op.kind != OpKind::kTruncate) {
            continue;
        }
        EXPECT_GE(op.offset, limits.floor);
        if (op.offset <= kSize) {
            ++back;
            continue;
        }
        EXPECT_NE(op.offset % 512, 0U);
        ++(op.offset / 4096 == kSize / 4096 ? inside : across);
    }
    EXPECT_GT(inside, 500U);
    EXPECT_GT(across, 500U);
    EXPECT_GT(back, 100U);
    EXPECT_LT(back, (inside + across) / 4);
}

TEST(StressPlanTest, StaysInsideASlotInWholeWords) {
    const PlanLimits limits{.max_size = 1U << 20, .max_write = 64U << 10};
    for (std::uint64_t i = 0; i < 20'000; ++i) {
        Random random(5, 1, i);
        const std::uint64_t begin = 8 * random.below(1000);
        const std::uint64_t length = 8 * random.between(1, 1000);
        const Op op = plan_in_range(random, limits, begin, length);
        EXPECT_GE(op.offset, begin);
        EXPECT_LE(op.offset + op.length, begin + length);
        EXPECT_EQ((op.offset | op.length) % 8, 0U);
    }
}

TEST(StressPlanTest, ReachesSizesJustBesidePagesAndClusters) {
    const PlanLimits limits{.max_size = 1U << 20, .max_write = 4096, .cluster = 32768};
    std::set<std::uint64_t> page_remainders;
    std::set<std::uint64_t> cluster_remainders;
    for (std::uint64_t i = 0; i < 20'000; ++i) {
        Random random(9, 0, i);
        const std::uint64_t size = pick_odd_size(random, limits, 0, limits.max_size, 100'000);
        page_remainders.insert(size % 4096);
        cluster_remainders.insert(size % limits.cluster);
    }
    for (const std::uint64_t wanted : {0U, 1U, 511U, 512U, 4095U}) {
        EXPECT_TRUE(page_remainders.contains(wanted)) << wanted;
    }
    for (const std::uint64_t wanted : {0U, 1U, 32767U}) {
        EXPECT_TRUE(cluster_remainders.contains(wanted)) << wanted;
    }
}

TEST(StressPlanTest, CrossesFourGibibytesOnlyWhenAsked) {
    PlanLimits limits{.max_size = 1U << 20, .max_write = 4096};
    const auto reaches = [&limits] {
        for (std::uint64_t i = 0; i < 2000; ++i) {
            Random random(3, 0, i);
            const Op op = plan_owned(random, limits, 5000);
            if (op.kind == OpKind::kTruncate && op.offset > 0xFFFFFFFF) {
                return true;
            }
        }
        return false;
    };
    EXPECT_FALSE(reaches());
    limits.four_gib = true;
    EXPECT_TRUE(reaches());
}

TEST(StressOptionsTest, RepeatsEveryOptionThatShapesTheRun) {
    const char* arguments[] = {"wbfat-stress",  "truncate",  "/",          "--seed",    "7",
                               "--threads",     "3",         "--max-size", "1M",        "--shared",
                               "--strict-full", "--cluster", "4K",         "--no-mmap", "--mix",
                               "grow",          "--sync",    "--waiters",  "2"};
    const Command command = parse_command_line(static_cast<int>(std::size(arguments)), arguments);
    ASSERT_TRUE(std::holds_alternative<StressOptions>(command));
    EXPECT_EQ(replay_command(std::get<StressOptions>(command), 64),
              "wbfat-stress truncate / --seed 7 --threads 3 --files 4 --ops 64 --max-size 1048576 "
              "--cluster 4096 "
              "--shared --no-mmap --mix grow --sync --waiters 2 --strict-full");
}

}  // namespace
}  // namespace wbfat::tools
