// Goal: sleepers that nobody wakes are reported, once, and nobody else is. Method: looks at sleeps
// made by hand, with times as values; and one real sleeper under the real thread.
#include "cache/watchdog.h"

#include <chrono>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cache/assertions.h"
#include "cache/page_lock.h"

namespace wbfat::cache::inline WBFAT_RT {
namespace {

using namespace std::chrono_literals;

class WatchdogTest : public ::testing::Test {
protected:
    WatchdogTest()
        : reporter_(set_bug_reporter([](const BugReport&) {})),
          handler_(set_bug_handler([](const BugReport&) {})) {
        reset_assertions();
    }
    ~WatchdogTest() override {
        reset_assertions();
        set_bug_reporter(reporter_);
        set_bug_handler(handler_);
    }

    PageWaiter waiter(sync::Nanoseconds since, bool bit_is_clear) const {
        PageWaiter made;
        made.page = &page_;
        made.bit = PG_writeback;
        made.task = "sleeper";
        made.since = since;
        made.bit_is_clear = bit_is_clear;
        return made;
    }
    static std::uint64_t lost() {
        return assertion_hits(Assertion::kLostWakeup);
    }
    static std::uint64_t hung() {
        return assertion_hits(Assertion::kHungWait);
    }

    Page page_;
    WaitInspector inspector_{WatchdogLimits{}};

private:
    BugReporter reporter_;
    BugHandler handler_;
};

TEST_F(WatchdogTest, AClearBitAtTwoLooksIsALostWakeup) {
    inspector_.look({waiter(0s, true)}, 10s);
    EXPECT_EQ(lost(), 0U);
    inspector_.look({waiter(0s, true)}, 11s);
    EXPECT_EQ(lost(), 1U);
    inspector_.look({waiter(0s, true)}, 12s);
    EXPECT_EQ(lost(), 1U);
    EXPECT_EQ(hung(), 0U);
}

TEST_F(WatchdogTest, AWakerOnItsWayIsNoLostWakeup) {
    inspector_.look({waiter(0s, true)}, 10s);
    inspector_.look({waiter(10s, false)}, 11s);
    inspector_.look({waiter(10s, true)}, 16s);
    inspector_.look({}, 17s);
    EXPECT_EQ(lost(), 0U);
}

TEST_F(WatchdogTest, WhoSleepsTooLongHangs) {
    inspector_.look({waiter(0s, false)}, 119s);
    EXPECT_EQ(hung(), 0U);
    inspector_.look({waiter(0s, false)}, 120s);
    inspector_.look({waiter(0s, false)}, 121s);
    EXPECT_EQ(hung(), 1U);
    EXPECT_EQ(lost(), 0U);
}

TEST_F(WatchdogTest, TheThreadFindsARealSleeper) {
    page_.flags.fetch_or(PG_writeback);
    sync::Thread sleeper("sleeper", sync::Role::kOther, [this] {
        static_cast<void>(wait_on_page_bit_common(page_, PG_writeback, Interruptible::kNo,
                                                  WaitBehavior::kShared));
    });
    {
        const Watchdog watchdog({.lost_wakeup = 1h, .hung_wait = 1ms, .interval = 1ms});
        while (hung() == 0) {
            sync::yield_now();
        }
    }
    page_.flags.fetch_and(~std::uint64_t{PG_writeback});
    wake_up_page_bit(page_, PG_writeback);
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
