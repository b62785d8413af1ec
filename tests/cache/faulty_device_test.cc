// The misbehaving device: which rule acts when (R1 to R3), and what every effect leaves behind.
// Method: a device in RAM whose bytes are inspected, one operation at a time; holds replace every
// sleep.
#include "cache/device/faulty_device.h"

#include <algorithm>
#include <memory>
#include <thread>

#include "cache/device/memory_device.h"

#include "tests/cache/device_test_util.h"

namespace wbfat::cache {
namespace {

constexpr std::uint64_t kSize = 65536;

class FaultyDeviceTest : public testing::Test {
protected:
    int write(std::uint64_t offset, std::size_t length, std::uint64_t generation = 1) {
        return write_device(device_, offset, test::pattern(offset, length, generation)).code();
    }
    int read(std::uint64_t offset, std::size_t length) {
        std::vector<std::byte> memory(length);
        return read_device(device_, offset, memory).code();
    }
    // Whether [offset, offset + length) holds this generation; generation 0 stands for the
    // untouched zeros.
    bool holds(std::uint64_t offset, std::size_t length, std::uint64_t generation) {
        const std::vector<std::byte> expected = generation == 0
                                                    ? std::vector<std::byte>(length)
                                                    : test::pattern(offset, length, generation);
        return std::ranges::equal(memory_.bytes().subspan(offset, length), expected);
    }

    MemoryDevice memory_{kSize};
    FaultyDevice device_{memory_};
};

TEST_F(FaultyDeviceTest, WithoutRulesEverythingPasses) {
    EXPECT_EQ(write(512, 4096), 0);
    EXPECT_TRUE(holds(512, 4096, 1));
    EXPECT_EQ(read(0, kSize), 0);
    EXPECT_TRUE(device_.flush());
    EXPECT_TRUE(device_.discard(0, kSize));
    EXPECT_TRUE(holds(512, 4096, 0));
    EXPECT_EQ(device_.operations(kFaultWrites), 1U);
    EXPECT_EQ(device_.operations(kFaultReads | kFaultFlushes), 2U);
    EXPECT_EQ(device_.operations(kFaultAnyOp), 4U);
    EXPECT_EQ(device_.geometry().size_bytes, kSize);
    EXPECT_EQ(device_.name(), "memory");
}

TEST_F(FaultyDeviceTest, TheNthHitFailsAndTheOthersDoNot) {
    const auto rule = device_.add_rule({.ops = kFaultWrites, .first_hit = 3, .error = ENOSPC});
    std::vector<int> results;
    for (unsigned i = 0; i < 5; i++) {
        results.push_back(write(i * 512, 512));
        EXPECT_EQ(read(i * 512, 512), 0);
    }
    EXPECT_EQ(results, (std::vector{0, 0, ENOSPC, 0, 0}));
    EXPECT_TRUE(holds(512, 512, 1));
    EXPECT_TRUE(holds(1024, 512, 0));
    EXPECT_TRUE(holds(1536, 512, 1));
    EXPECT_EQ(device_.matches(rule), 5U);
    EXPECT_EQ(device_.acts(rule), 1U);
}

TEST_F(FaultyDeviceTest, ACountedRuleEndsAndAStickyOneDoesNot) {
    device_.add_rule({.ops = kFaultReads, .first_hit = 2, .nr_hits = 2});
    EXPECT_EQ(read(0, 512), 0);
    EXPECT_EQ(read(0, 512), EIO);
    EXPECT_EQ(read(0, 512), EIO);
    EXPECT_EQ(read(0, 512), 0);
    const auto sticky = device_.add_rule({.ops = kFaultReads, .nr_hits = FaultRule::kSticky});
    for (int i = 0; i < 10; i++) {
        EXPECT_EQ(read(0, 512), EIO);
    }
    device_.remove_rule(sticky);
    EXPECT_EQ(read(0, 512), 0);
    EXPECT_EQ(device_.matches(sticky), 0U);
}

TEST_F(FaultyDeviceTest, ARangeSelectsWhatOverlapsIt) {
    device_.add_rule({.ops = kFaultAnyOp,
                      .begin_bytes = 4096,
                      .end_bytes = 8192,
                      .nr_hits = FaultRule::kSticky});
    EXPECT_EQ(write(0, 4096), 0);
    EXPECT_EQ(write(8192, 4096), 0);
    EXPECT_EQ(write(3584, 1024), EIO);
    EXPECT_EQ(read(7680, 1024), EIO);
    EXPECT_EQ(write(0, 16384), EIO);
    EXPECT_EQ(device_.discard(6144, 512).code(), EIO);
    EXPECT_EQ(device_.discard(0, 4096).code(), 0);
}

TEST_F(FaultyDeviceTest, TheFirstRuleWhoseWindowIsOpenActs) {
    device_.add_rule({.ops = kFaultWrites, .first_hit = 2, .error = ENOSPC});
    device_.add_rule({.ops = kFaultWrites, .nr_hits = FaultRule::kSticky, .error = EDQUOT});
    EXPECT_EQ(write(0, 512), EDQUOT);
    EXPECT_EQ(write(0, 512), ENOSPC);
    EXPECT_EQ(write(0, 512), EDQUOT);
    device_.clear_rules();
    EXPECT_EQ(write(0, 512), 0);
}

TEST_F(FaultyDeviceTest, AFailedFlushDoesNotReachTheDevice) {
    FaultyDevice outer(static_cast<BlockDevice&>(device_));
    outer.add_rule({.ops = kFaultFlushes, .error = EIO});
    EXPECT_EQ(outer.flush().code(), EIO);
    EXPECT_EQ(device_.operations(kFaultFlushes), 0U);
    EXPECT_TRUE(outer.flush());
    EXPECT_EQ(device_.operations(kFaultFlushes), 1U);
}

TEST_F(FaultyDeviceTest, AShortWriteLeavesAPrefixInWholeSectors) {
    device_.add_rule({.ops = kFaultWrites, .effect = FaultEffect::kShort, .keep_bytes = 1500});
    std::vector<std::byte> a = test::pattern(4096, 512, 1);
    std::vector<std::byte> b = test::pattern(4608, 4096, 1);
    test::TestBio bio(BioOp::kWrite, 4096, {a, b});
    device_.submit(bio.bio());
    EXPECT_EQ(bio.wait(), EIO);
    EXPECT_EQ(bio.nr_completions(), 1);
    EXPECT_TRUE(holds(4096, 1024, 1));
    EXPECT_TRUE(holds(5120, 3584, 0));
    EXPECT_FALSE(device_.removed());
}

TEST_F(FaultyDeviceTest, AShortReadFillsAPrefix) {
    ASSERT_EQ(write(0, 4096), 0);
    device_.add_rule({.ops = kFaultReads, .effect = FaultEffect::kShort, .keep_bytes = 512});
    std::vector<std::byte> memory(4096);
    EXPECT_EQ(read_device(device_, 0, memory).code(), EIO);
    EXPECT_TRUE(std::ranges::equal(std::span(memory).first(512), test::pattern(0, 512, 1)));
    EXPECT_TRUE(std::ranges::equal(std::span(memory).subspan(512), std::vector<std::byte>(3584)));
}

TEST_F(FaultyDeviceTest, ATornWriteLooksGoodAndThenTheDeviceIsGone) {
    ASSERT_EQ(write(0, 4096, 1), 0);
    device_.add_rule(
        {.ops = kFaultWrites, .effect = FaultEffect::kTornThenGone, .keep_bytes = 1536});
    EXPECT_EQ(write(0, 4096, 2), 0);
    EXPECT_TRUE(holds(0, 1536, 2));
    EXPECT_TRUE(holds(1536, 2560, 1));
    EXPECT_TRUE(device_.removed());
    EXPECT_EQ(write(8192, 512), EIO);
    EXPECT_EQ(read(0, 512), EIO);
    EXPECT_EQ(device_.flush().code(), EIO);
    EXPECT_EQ(device_.discard(0, 512).code(), EIO);
    EXPECT_TRUE(holds(8192, 512, 0));
}

TEST_F(FaultyDeviceTest, ATornWriteOfNothingIsAPowerCutBeforeIt) {
    device_.add_rule({.ops = kFaultWrites, .effect = FaultEffect::kTornThenGone});
    EXPECT_EQ(write(0, 4096), 0);
    EXPECT_TRUE(holds(0, 4096, 0));
    EXPECT_TRUE(device_.removed());
}

TEST_F(FaultyDeviceTest, AnErrorOfTheInnerDeviceWinsOverTheRule) {
    device_.add_rule(
        {.ops = kFaultWrites, .effect = FaultEffect::kShort, .error = ENOSPC, .keep_bytes = 1024});
    EXPECT_EQ(write(kSize - 512, 1024), EINVAL);
}

TEST_F(FaultyDeviceTest, RemovalLastsUntilInsertion) {
    device_.add_rule({.ops = kFaultWrites, .effect = FaultEffect::kRemove});
    EXPECT_EQ(write(0, 512), EIO);
    EXPECT_EQ(read(0, 512), EIO);
    device_.insert_device();
    EXPECT_EQ(write(0, 512), 0);
    EXPECT_TRUE(holds(0, 512, 1));
}

TEST_F(FaultyDeviceTest, HeldWritesWaitAndCanBeReordered) {
    device_.add_rule({.ops = kFaultWrites, .nr_hits = 3, .effect = FaultEffect::kHold});
    std::vector<std::byte> data = test::pattern(0, 512, 1);
    test::TestBio first(BioOp::kWrite, 0, data);
    test::TestBio second(BioOp::kWrite, 512, data);
    test::TestBio third(BioOp::kWrite, 1024, data);
    device_.submit(first.bio());
    device_.submit(second.bio());
    device_.submit(third.bio());
    device_.wait_until_held(3);
    EXPECT_EQ(device_.nr_held(), 3U);
    EXPECT_EQ(first.nr_completions() + second.nr_completions() + third.nr_completions(), 0);
    EXPECT_TRUE(holds(0, 1536, 0));

    EXPECT_TRUE(device_.release_transfer(1));
    EXPECT_EQ(second.wait(), 0);
    EXPECT_EQ(first.nr_completions() + third.nr_completions(), 0);
    EXPECT_FALSE(device_.release_transfer(2));
    device_.release();
    EXPECT_EQ(first.wait(), 0);
    EXPECT_EQ(third.wait(), 0);
    EXPECT_EQ(device_.nr_held(), 0U);
    EXPECT_EQ(write(4096, 512), 0);
}

TEST_F(FaultyDeviceTest, AHeldFlushSleepsInItsCaller) {
    device_.add_rule({.ops = kFaultFlushes, .effect = FaultEffect::kHold});
    int result = -1;
    std::thread caller([this, &result] { result = device_.flush().code(); });
    device_.wait_until_held(1);
    EXPECT_EQ(write(0, 512), 0);
    device_.release();
    caller.join();
    EXPECT_EQ(result, 0);
}

TEST_F(FaultyDeviceTest, RemovalFailsWhatIsHeld) {
    device_.add_rule({.nr_hits = 2, .effect = FaultEffect::kHold});
    std::vector<std::byte> data = test::pattern(0, 512, 1);
    test::TestBio bio(BioOp::kWrite, 0, data);
    device_.submit(bio.bio());
    int result = -1;
    std::thread caller([this, &result] { result = device_.flush().code(); });
    device_.wait_until_held(2);
    device_.remove_device();
    caller.join();
    EXPECT_EQ(bio.wait(), EIO);
    EXPECT_EQ(result, EIO);
    EXPECT_TRUE(holds(0, 512, 0));
}

TEST_F(FaultyDeviceTest, DestructionCompletesWhatIsHeld) {
    auto device = std::make_unique<FaultyDevice>(memory_);
    device->add_rule({.effect = FaultEffect::kHold});
    std::vector<std::byte> data(512);
    test::TestBio bio(BioOp::kRead, 0, data);
    device->submit(bio.bio());
    device.reset();
    EXPECT_EQ(bio.nr_completions(), 1);
    EXPECT_EQ(bio.bio().error, EIO);
}

TEST_F(FaultyDeviceTest, FailuresCompleteOnACompletionThreadOrInSubmit) {
    std::vector<std::byte> data(512);
    device_.add_rule({.ops = kFaultReads});
    test::TestBio posted(BioOp::kRead, 0, data);
    device_.submit(posted.bio());
    EXPECT_EQ(posted.wait(), EIO);
    EXPECT_EQ(posted.completed_by(), sync::Role::kCompletion);

    FaultyDevice direct(memory_, CompletionContext::kInSubmit);
    direct.add_rule({.ops = kFaultReads});
    test::TestBio bio(BioOp::kRead, 0, data);
    direct.submit(bio.bio());
    EXPECT_EQ(bio.nr_completions(), 1);
}

TEST_F(FaultyDeviceTest, RulesCanChangeWhileOperationsRun) {
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 3; t++) {
        threads.emplace_back([this, t] {
            for (unsigned i = 0; i < 300; i++) {
                const int error = write(t * 16384 + i % 32 * 512, 512);
                EXPECT_TRUE(error == 0 || error == ENOSPC);
            }
        });
    }
    std::uint64_t acted = 0;
    for (int i = 0; i < 100; i++) {
        const auto rule = device_.add_rule({.ops = kFaultWrites, .nr_hits = 2, .error = ENOSPC});
        acted += device_.acts(rule);
        device_.remove_rule(rule);
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_LE(acted, 200U);
    EXPECT_EQ(device_.operations(kFaultWrites), 900U);
    EXPECT_EQ(write(0, 512), 0);
}

}  // namespace
}  // namespace wbfat::cache
