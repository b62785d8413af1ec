// Goal: a device whose transfers complete by rule, each on its own, exactly once. Method: a memory
// device that completes in submit(), rules and gates at the device's points; order is observed,
// durations are not.
#include "cache/device/latency_device.h"

#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cache/device/memory_device.h"
#include "cache/sync/point_rules.h"
#include "cache/sync/points.h"

#include "tests/cache/device_test_util.h"

namespace wbfat::test {
namespace {

class LatencyDeviceTest : public ::testing::Test {
protected:
    ~LatencyDeviceTest() override {
        sync::clear_point_rules();
    }
    static void set(const std::string& rules) {
        EXPECT_EQ(sync::set_point_rules(rules), "");
    }

    cache::MemoryDevice inner_{1U << 20, {}};
    std::optional<cache::LatencyDevice> device_{std::in_place, inner_};
    std::vector<std::byte> memory_ = pattern(0, 4096);
};

TEST_F(LatencyDeviceTest, PassesEverythingThroughWhileNothingIsArmed) {
    TestBio bio(cache::BioOp::kWrite, 4096, memory_);
    device_->submit(bio.bio());
    EXPECT_EQ(bio.wait(), 0);
    std::vector<std::byte> read(4096);
    EXPECT_TRUE(cache::read_device(*device_, 4096, read).has_value());
    EXPECT_EQ(read, memory_);
    EXPECT_EQ(device_->geometry().size_bytes, inner_.geometry().size_bytes);
    EXPECT_EQ(device_->name(), inner_.name());
    EXPECT_TRUE(device_->flush().has_value());
}

TEST_F(LatencyDeviceTest, OneHeldCompletionHoldsUpNoOther) {
    sync::PointRule first_only;
    first_only.count = 1;
    sync::PointGate gate("device:before_end_io", first_only);
    TestBio held(cache::BioOp::kWrite, 0, memory_);
    device_->submit(held.bio());
    gate.wait_for_arrivals();
    TestBio other(cache::BioOp::kWrite, 4096, memory_);
    device_->submit(other.bio());
    EXPECT_EQ(other.wait(), 0);
    EXPECT_EQ(held.nr_completions(), 0);
    gate.open();
    EXPECT_EQ(held.wait(), 0);
}

TEST_F(LatencyDeviceTest, WhatIsDueFirstCompletesFirst) {
    set("device:write=1*sleep(500ms)->sleep(1us..2us)");
    TestBio slow(cache::BioOp::kWrite, 0, memory_);
    TestBio fast(cache::BioOp::kWrite, 4096, memory_);
    device_->submit(slow.bio());
    device_->submit(fast.bio());
    EXPECT_EQ(fast.wait(), 0);
    EXPECT_EQ(slow.nr_completions(), 0);
    EXPECT_EQ(slow.wait(), 0);
}

TEST_F(LatencyDeviceTest, ErrorsOfTheInnerDeviceArriveWithTheSubmittersContext) {
    set("device:write=count");
    TestBio beyond(cache::BioOp::kWrite, 2U << 20, memory_);
    device_->submit(beyond.bio());
    EXPECT_EQ(beyond.wait(), EINVAL);
}

TEST_F(LatencyDeviceTest, DestructionWaitsForWhatIsInFlight) {
    set("device:write=sleep(20ms)");
    TestBio bio(cache::BioOp::kWrite, 0, memory_);
    device_->submit(bio.bio());
    device_.reset();
    EXPECT_EQ(bio.nr_completions(), 1);
}

TEST_F(LatencyDeviceTest, CountsEveryKindOfTransfer) {
    set("device:read=count\ndevice:write=count\ndevice:flush=count");
    EXPECT_TRUE(cache::write_device(*device_, 0, memory_).has_value());
    std::vector<std::byte> read(4096);
    EXPECT_TRUE(cache::read_device(*device_, 0, read).has_value());
    EXPECT_TRUE(device_->flush().has_value());
    for (const sync::PointRuleStatus& rule : sync::point_rules()) {
        EXPECT_EQ(rule.acted, 1U) << rule.text;
    }
}

}  // namespace
}  // namespace wbfat::test
