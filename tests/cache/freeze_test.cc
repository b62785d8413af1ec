// Goal: the protocol of a cache at work is switched, and nothing is lost: no request fails, no byte
// is wrong, nobody sleeps for ever. Method: gates at named points for who waits for whom; threads
// that write, sync, truncate and read while the protocol changes a hundred times.
#include "cache/freeze.h"

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "cache/flusher.h"
#include "cache/page_lock.h"
#include "cache/sync/points.h"

#include "tests/cache/protocol_fixture.h"
#include "tests/support/test_mapping.h"

namespace wbfat::cache::inline WBFAT_RT {
namespace {

using sync::PointGate;
using sync::Role;
using sync::Thread;
using Pass = FreezeGate::Pass;

constexpr sync::Nanoseconds kLong = std::chrono::minutes(5);

class FreezeTest : public ::testing::Test {
protected:
    ~FreezeTest() override {
        set_protocol_while_idle(Protocol{});
    }
};

TEST_F(FreezeTest, ClosesWhenTheLastHasLeftAndLetsNobodyIn) {
    FreezeGate gate;
    PointGate working("test:inside");
    Thread inside("inside", Role::kRequest, [&gate] {
        const Pass pass(gate);
        WBFAT_POINT("test:inside");
    });
    working.wait_for_arrivals();
    EXPECT_FALSE(gate.close(sync::Nanoseconds{0}));  // somebody is inside; open again
    sync::Atomic<bool> closed{false};
    Thread closer("closer", Role::kOther, [&] {
        ASSERT_TRUE(gate.close(kLong));
        closed.store(true);
    });
    EXPECT_FALSE(closed.load());
    working.open();
    inside.join();
    closer.join();
    EXPECT_TRUE(closed.load());

    sync::Atomic<bool> entered{false};
    PointGate outside("freeze:outside");
    Thread late("late", Role::kRequest, [&] {
        const Pass pass(gate);
        entered.store(true);
    });
    outside.wait_for_arrivals();
    EXPECT_FALSE(entered.load());
    outside.open();
    gate.open();
    late.join();
    EXPECT_TRUE(entered.load());
    EXPECT_TRUE(gate.close(sync::Nanoseconds{0}));
    gate.open();
}

TEST_F(FreezeTest, WaitsForWhatIsInFlight) {
    TestBed bed;
    bed.write(0, pattern(0, kPageSize, 1));
    bed.faults().add_rule({.ops = kFaultWrites, .nr_hits = 1, .effect = FaultEffect::kHold});
    ASSERT_TRUE(filemap_fdatawrite_range(bed.mapping(), 0, kLastByte).has_value());
    bed.faults().wait_until_held(1);
    EXPECT_EQ(switch_protocol(bed.cache(), protocol_named("5.9"), sync::Nanoseconds{0}).code(),
              EBUSY);
    EXPECT_EQ(current_protocol(), Protocol{});
    PointGate at_rest("freeze:at_rest");
    PointGate closed("freeze:closed");
    Thread switcher("switcher", Role::kOther, [&bed] {
        EXPECT_TRUE(switch_protocol(bed.cache(), protocol_named("5.9"), kLong).has_value());
    });
    closed.wait_for_arrivals();
    closed.open();
    EXPECT_EQ(at_rest.arrivals(), 0U);
    bed.faults().release();
    at_rest.wait_for_arrivals();
    EXPECT_FALSE(bed.page_is(0, PG_writeback));
    EXPECT_EQ(current_protocol(), Protocol{});
    at_rest.open();
    switcher.join();
    EXPECT_EQ(to_string(current_protocol()), "5.9");
}

TEST_F(FreezeTest, AHungRequestMakesItGiveUpAndChangesNothing) {
    TestBed bed;
    const Pass pass(operations_gate());
    EXPECT_EQ(switch_protocol(bed.cache(), protocol_named("5.9"), sync::Nanoseconds{0}).code(),
              EBUSY);
    EXPECT_EQ(current_protocol(), Protocol{});
}

// Each worker owns a share of the file and knows what is in it; all use the same pages' neighbours,
// the same flusher, the same device.
struct Load {
    sync::Mutex i_rwsem;
    sync::Atomic<bool> stop{false};
    sync::Atomic<int> errors{0};
};
constexpr std::uint64_t kShare = 8 * kPageSize;

void work(TestBed& bed, unsigned worker, Load& load) {
    const std::uint64_t start = worker * kShare;
    sync::Atomic<int>& errors = load.errors;
    for (unsigned round = 1; !load.stop.load(); ++round) {
        const std::vector<std::byte> bytes = pattern(start, kShare, worker * 1000 + round);
        {
            const Pass pass(operations_gate());
            {
                const sync::MutexLock lock(load.i_rwsem);
                bed.write(start, bytes);
            }
            bed.flusher().balance_dirty_pages(bed.mapping());
        }
        bed.flusher().kick();
        if (round % 3 == 0) {
            const Pass pass(operations_gate());
            ErrSeq::Cursor cursor = bed.mapping().wb_err.sample();
            const Result<> synced =
                file_write_and_wait_range(bed.mapping(), start, start + kShare - 1, cursor);
            errors.fetch_add(synced.has_value() ? 0 : 1);
            errors.fetch_add(bed.on_disk(start, kShare) == bytes ? 0 : 1);
        }
        std::vector<std::byte> read(kShare);
        {
            const Pass pass(operations_gate());
            ReadaheadState ra;
            const Result<std::size_t> got = filemap_read(bed.mapping(), ra, start, read);
            errors.fetch_add(got.has_value() && *got == kShare && read == bytes ? 0 : 1);
        }
    }
}

TEST_F(FreezeTest, SwitchesUnderLoadLoseNoRequest) {
    constexpr unsigned kWorkers = 4;
    constexpr int kSwitches = 100;
    const char* const safe[] = {"5.11", "6.8", "recheck-on-wake", "wake-clears", "wait-to-set"};
    // Stable pages: what writers do to others is no bug, but ThreadSanitizer cannot know.
    TestBed bed({.cache = {.cache_size_bytes = 1U << 20, .dirty_ratio = 10},
                 .stable = AddressSpace::StablePages::kYes});
    bed.fill_disk(kWorkers * kShare, 1);
    Load load;
    std::vector<Thread> workers;
    for (unsigned worker = 0; worker < kWorkers; ++worker) {
        workers.emplace_back("worker", Role::kRequest,
                             [&bed, &load, worker] { work(bed, worker, load); });
    }
    for (int i = 0; i < kSwitches; ++i) {
        const Protocol next = protocol_named(safe[static_cast<unsigned>(i) % std::size(safe)]);
        ASSERT_TRUE(switch_protocol(bed.cache(), next, kLong).has_value());
        EXPECT_EQ(current_protocol(), next);
    }
    load.stop.store(true);
    workers.clear();
    EXPECT_EQ(load.errors.load(), 0);
    EXPECT_TRUE(page_waiters().empty());
    ASSERT_TRUE(bed.fsync().has_value());
    EXPECT_EQ(bed.cache().stats().nr_writeback, 0U);
    EXPECT_EQ(bed.cache().stats().nr_dirty, 0U);
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
