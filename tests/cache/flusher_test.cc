// The flusher: what makes it write, what makes it stop, and the brake on writers.
// Time is only ever waited for through events (a write seen, the periodic hook run); no test
// asserts how long it took.
#include "cache/flusher.h"

#include <chrono>

#include <gtest/gtest.h>

#include "cache/counters.h"
#include "cache/page_io.h"
#include "cache/page_lock.h"

#include "tests/support/test_mapping.h"

namespace wbfat::cache::inline WBFAT_RT {
namespace {

using Bytes = std::vector<std::byte>;

constexpr FaultRule kHoldWrites{
    .ops = kFaultWrites, .nr_hits = FaultRule::kSticky, .effect = FaultEffect::kHold};
constexpr FaultRule kFailWrites{.ops = kFaultWrites, .nr_hits = FaultRule::kSticky};

PageCacheOptions quiet() {
    return {.cache_size_bytes = 8U << 20, .dirty_writeback_centisecs = 0};
}

void wait_until_clean(TestBed& bed) {
    eventually(
        [&] { return bed.cache().stats().nr_dirty == 0 && bed.cache().stats().nr_writeback == 0; },
        "the flusher to write everything");
}

TEST(FlusherTest, WritesExpiredInodesByItself) {
    TestBed bed({.cache = {.cache_size_bytes = 8U << 20,
                           .dirty_writeback_centisecs = 1,
                           .dirty_expire_centisecs = 1}});
    bed.write(0, pattern(0, 20 * kPageSize, 1));
    bed.flusher().mark_inode_dirty(bed.mapping(), I_DIRTY_INODE);
    wait_until_clean(bed);
    eventually([&] { return bed.file().nr_inode_writes.load() == 1; }, "write_inode");
    EXPECT_EQ(bed.on_disk(0, 20 * kPageSize), pattern(0, 20 * kPageSize, 1));
    eventually([&] { return bed.file().nr_grabbed.load() == 0; }, "the reference to be dropped");
}

TEST(FlusherTest, LeavesYoungInodesAlone) {
    TestBed bed({.cache = {.cache_size_bytes = 8U << 20,
                           .dirty_writeback_centisecs = 1,
                           .dirty_expire_centisecs = 1'000'000}});
    sync::Atomic<int> periods{0};
    bed.write(0, pattern(0, kPageSize, 1));
    bed.flusher().set_periodic([&] { periods.fetch_add(1); });
    eventually([&] { return periods.load() >= 3; }, "three periods");
    EXPECT_EQ(bed.cache().stats().nr_dirty, 1U);
    bed.flusher().set_periodic({});
}

TEST(FlusherTest, AKickWritesEverythingAtOnce) {
    TestBed bed({.cache = quiet()});
    bed.write(0, pattern(0, 100 * kPageSize, 1));
    bed.flusher().kick();
    wait_until_clean(bed);
    EXPECT_EQ(bed.on_disk(0, 100 * kPageSize), pattern(0, 100 * kPageSize, 1));
}

TEST(FlusherTest, WritesInTheBackgroundAboveTheThreshold) {
    TestBed bed({.cache = {.cache_size_bytes = 1U << 20,
                           .dirty_ratio = 80,
                           .dirty_background_ratio = 10,
                           .dirty_writeback_centisecs = 0}});
    bed.write(0, pattern(0, 20 * kPageSize, 1));
    bed.flusher().balance_dirty_pages(bed.mapping());
    EXPECT_EQ(bed.cache().stats().nr_dirty, 20U);
    bed.write(20 * kPageSize, pattern(20 * kPageSize, 20 * kPageSize, 1));
    bed.flusher().balance_dirty_pages(bed.mapping());
    eventually([&] { return bed.cache().stats().nr_dirty <= 25; }, "background writeback");
    EXPECT_EQ(bed.cache().stats().throttle_waits, 0U);
}

TEST(FlusherTest, ALargeCacheDoesNotLetMoreBytesGatherInTheBackground) {
    constexpr std::uint64_t kMostBytes = 32U << 20;
    TestBed bed({.cache = {.cache_size_bytes = 256U << 20,
                           .dirty_ratio = 80,
                           .dirty_background_ratio = 50,
                           .dirty_writeback_centisecs = 0}});
    bed.write(0, pattern(0, kMostBytes + 64 * kPageSize, 1));
    bed.flusher().balance_dirty_pages(bed.mapping());
    eventually([&] { return bed.cache().stats().nr_dirty <= kMostBytes / kPageSize; },
               "background writeback");
    EXPECT_EQ(bed.cache().stats().throttle_waits, 0U);
}

TEST(FlusherTest, PausedItDoesNothingButExplicitWorkRuns) {
    TestBed bed({.cache = {.cache_size_bytes = 8U << 20,
                           .dirty_writeback_centisecs = 1,
                           .dirty_expire_centisecs = 0}});
    bed.flusher().pause();
    bed.write(0, pattern(0, kPageSize, 1));
    bed.flusher().kick();
    EXPECT_TRUE(bed.flusher().sync_inodes().has_value());
    EXPECT_EQ(bed.cache().stats().nr_dirty, 0U);
    const std::uint64_t calls = bed.file().nr_writepages.load();
    bed.write(0, pattern(0, kPageSize, 2));
    bed.flusher().kick();
    EXPECT_EQ(bed.file().nr_writepages.load(), calls);
    bed.flusher().resume();
    wait_until_clean(bed);
}

TEST(FlusherTest, ItsPeriodCanBeSetAndItSaysWhatItIsAt) {
    TestBed bed({.cache = {.cache_size_bytes = 8U << 20,
                           .dirty_ratio = 50,
                           .dirty_background_ratio = 25,
                           .dirty_writeback_centisecs = 0,
                           .dirty_expire_centisecs = 0}});
    bed.write(0, pattern(0, kPageSize, 1));
    FlusherStatus status = bed.flusher().status();
    EXPECT_EQ(status.dirty_writeback_centisecs, 0U);
    EXPECT_EQ(status.nr_dirty_inodes, 1U);
    EXPECT_EQ(status.limit_pages, 1024U);
    EXPECT_EQ(status.background_pages, 512U);
    EXPECT_FALSE(status.paused);
    bed.flusher().set_dirty_writeback_centisecs(1);
    wait_until_clean(bed);
    bed.flusher().pause();
    bed.flusher().set_dirty_writeback_centisecs(0);
    status = bed.flusher().status();
    EXPECT_EQ(status.dirty_writeback_centisecs, 0U);
    EXPECT_EQ(status.nr_dirty_inodes, 0U);
    EXPECT_TRUE(status.paused);
    bed.flusher().resume();
}

TEST(FlusherTest, SyncWaitsForWhatWasInFlightBefore) {
    TestBed bed({.cache = quiet()});
    bed.write(0, pattern(0, kPageSize, 1));
    bed.faults().add_rule(kHoldWrites);
    bed.flusher().kick();
    bed.faults().wait_until_held(1);
    bed.faults().clear_rules();
    sync::Atomic<bool> synced{false};
    TestThread syncer([&] {
        EXPECT_TRUE(bed.flusher().sync_inodes().has_value());
        synced.store(true);
    });
    eventually([&] { return bed.cache().stats().writeback_waits > 0; }, "sync to wait");
    EXPECT_FALSE(synced.load());
    bed.faults().release();
    syncer.join();
    EXPECT_EQ(bed.on_disk(0, kPageSize), pattern(0, kPageSize, 1));
}

TEST(FlusherTest, SyncWritesManyInodesAndTellsTheFirstError) {
    TestBed bed({.cache = quiet(), .device_bytes = 32U << 20});
    std::vector<std::unique_ptr<TestMapping>> files;
    for (std::uint64_t i = 0; i < 50; ++i) {
        const Layout layout{.size_bytes = 64U << 10, .device_start_bytes = (2U << 20) + (i << 16)};
        files.push_back(std::make_unique<TestMapping>(bed.cache(), bed.faults(), layout));
        const CopyIn copy = [&](std::span<std::byte> piece) -> Result<> {
            std::ranges::fill(piece, static_cast<std::byte>(i + 1));
            return {};
        };
        ASSERT_TRUE(generic_perform_write(files.back()->mapping(), 0, 10'000, copy).has_value());
        bed.flusher().mark_inode_dirty(files.back()->mapping(), I_DIRTY_INODE);
    }
    bed.flusher().pause();
    const std::uint64_t bad = (2U << 20) + (7U << 16);
    const auto rule = bed.faults().add_rule({.ops = kFaultWrites,
                                             .begin_bytes = bad,
                                             .end_bytes = bad + 512,
                                             .nr_hits = FaultRule::kSticky,
                                             .error = ENOSPC});
    EXPECT_EQ(bed.flusher().sync_inodes().code(), ENOSPC);
    for (std::uint64_t i = 0; i < 50; ++i) {
        EXPECT_EQ(files[i]->nr_inode_writes.load(), 1U);
        EXPECT_EQ(files[i]->nr_grabbed.load(), 0);
        const auto byte = bed.disk().bytes()[(2U << 20) + (i << 16) + 9999];
        EXPECT_EQ(byte, i == 7 ? std::byte{0} : static_cast<std::byte>(i + 1));
    }
    bed.faults().remove_rule(rule);
    EXPECT_TRUE(bed.flusher().sync_inodes().has_value());
    EXPECT_EQ(bed.disk().bytes()[bad + 9999], std::byte{8});
    EXPECT_EQ(bed.cache().stats().nr_dirty, 0U);
    bed.flusher().resume();
}

TEST(FlusherTest, AnInodeThatCouldNotBeWrittenStaysDirty) {
    TestBed bed({.cache = quiet()});
    int failures = 1;
    bed.file().on_write_inode = [&]() -> Result<> {
        return failures-- > 0 ? Result<>(Errno{EIO}) : Result<>();
    };
    bed.flusher().mark_inode_dirty(bed.mapping(), I_DIRTY_INODE);
    EXPECT_EQ(bed.flusher().write_inode_now(bed.mapping(), WB_SYNC_ALL).code(), EIO);
    EXPECT_TRUE(bed.flusher().write_inode_now(bed.mapping(), WB_SYNC_ALL).has_value());
    EXPECT_TRUE(bed.flusher().write_inode_now(bed.mapping(), WB_SYNC_ALL).has_value());
    EXPECT_EQ(bed.file().nr_inode_writes.load(), 2U);
}

TEST(FlusherTest, WriteInodeNowWaitsForTheDataAndReportsItsError) {
    TestBed bed({.cache = quiet()});
    bed.flusher().pause();
    bed.write(0, pattern(0, 2 * kPageSize, 1));
    bed.faults().add_rule({.ops = kFaultWrites, .nr_hits = 1});
    EXPECT_EQ(bed.flusher().write_inode_now(bed.mapping(), WB_SYNC_ALL).code(), EIO);
    EXPECT_EQ(bed.cache().stats().nr_dirty, 2U);
    EXPECT_TRUE(bed.flusher().write_inode_now(bed.mapping(), WB_SYNC_ALL).has_value());
    EXPECT_EQ(bed.on_disk(0, 2 * kPageSize), pattern(0, 2 * kPageSize, 1));
    bed.flusher().resume();
}

TEST(FlusherTest, ForgetWaitsForARunningWriteback) {
    // Stable: it is written to again while the transfer may still run.
    TestBed bed({.cache = quiet(), .stable = AddressSpace::StablePages::kYes});
    sync::Atomic<bool> entered{false};
    sync::Atomic<bool> go_on{false};
    bed.write(0, pattern(0, kPageSize, 1));
    bed.file().on_writepages = [&](AddressSpace& mapping, WritebackControl& wbc) {
        entered.store(true);
        eventually([&] { return go_on.load(); }, "permission to go on");
        return mpage_writepages(mapping, wbc);
    };
    bed.flusher().kick();
    eventually([&] { return entered.load(); }, "the flusher to start");
    sync::Atomic<bool> forgotten{false};
    TestThread forgetter([&] {
        bed.flusher().forget(bed.mapping());
        forgotten.store(true);
    });
    EXPECT_FALSE(forgotten.load());
    go_on.store(true);
    forgetter.join();
    EXPECT_EQ(bed.mapping().wb_list, 0);
    bed.write(0, pattern(0, kPageSize, 2));
    EXPECT_EQ(bed.mapping().wb_list, 0);
}

TEST(FlusherTest, PagesThatNobodyMayWriteNowDoNotMakeItSpin) {
    TestBed bed({.cache = {.cache_size_bytes = 1U << 20,
                           .dirty_writeback_centisecs = 1,
                           .dirty_expire_centisecs = 0}});
    bed.file().on_writepages = [](AddressSpace&, WritebackControl&) -> Result<> { return {}; };
    const sync::Nanoseconds start = sync::monotonic_now();
    sync::Atomic<int> periods{0};
    bed.write(0, pattern(0, 60 * kPageSize, 1));
    bed.flusher().set_periodic([&] { periods.fetch_add(1); });
    for (int i = 0; i < 10'000; ++i) {
        bed.flusher().kick();
        bed.flusher().balance_dirty_pages(bed.mapping());
    }
    eventually([&] { return periods.load() >= 10; }, "ten periods");
    const auto elapsed_ms = (sync::monotonic_now() - start) / std::chrono::milliseconds(1);
    // A pause of 20 ms between passes, three kinds of work in a pass.
    EXPECT_LE(bed.file().nr_writepages.load(),
              static_cast<std::uint64_t>(3 * (elapsed_ms / 20 + 2)));
    bed.flusher().set_periodic({});
}

// --- failing devices

TEST(FlusherErrorTest, TriesFailedPagesAgainUntilTheDeviceHeals) {
    TestBed bed({.cache = quiet()});
    bed.write(0, pattern(0, 4 * kPageSize, 1));
    const auto rule = bed.faults().add_rule(kFailWrites);
    bed.flusher().kick();
    eventually([&] { return bed.faults().acts(rule) >= 3; }, "three tries");
    EXPECT_EQ(bed.read(0, 4 * kPageSize), pattern(0, 4 * kPageSize, 1));
    bed.faults().clear_rules();
    const std::uint64_t tries = bed.faults().operations(kFaultWrites);
    eventually([&] { return bed.faults().operations(kFaultWrites) > tries; },
               "the try that succeeds");
    wait_until_clean(bed);
    EXPECT_EQ(bed.on_disk(0, 4 * kPageSize), pattern(0, 4 * kPageSize, 1));
    EXPECT_EQ(bed.fsync().code(), EIO);  // told once, although all is well again
    EXPECT_TRUE(bed.fsync().has_value());
}

TEST(FlusherErrorTest, BacksOffFromADeadDevice) {
    TestBed bed({.cache = {.cache_size_bytes = 8U << 20,
                           .dirty_writeback_centisecs = 1,
                           .dirty_expire_centisecs = 0}});
    const sync::Nanoseconds start = sync::monotonic_now();
    bed.write(0, pattern(0, kPageSize, 1));
    const auto rule = bed.faults().add_rule(kFailWrites);
    eventually([&] { return bed.faults().acts(rule) >= 4; }, "four tries");
    // 100 + 200 + 400 ms lie between them at least.
    EXPECT_GE(sync::monotonic_now() - start, std::chrono::milliseconds(700));
}

// --- the brake

TEST(BalanceDirtyPagesTest, HoldsAWriterUntilEnoughIsWritten) {
    TestBed bed(
        {.cache = {
             .cache_size_bytes = 1U << 20, .dirty_ratio = 20, .dirty_writeback_centisecs = 0}});
    bed.flusher().pause();
    bed.write(0, pattern(0, 100 * kPageSize, 1));
    sync::Atomic<bool> released{false};
    TestThread writer([&] {
        bed.flusher().balance_dirty_pages(bed.mapping());
        released.store(true);
    });
    eventually([&] { return bed.cache().stats().throttle_waits == 1; }, "the writer to be held");
    EXPECT_FALSE(released.load());
    bed.flusher().resume();
    writer.join();
    EXPECT_LE(bed.cache().stats().nr_dirty + bed.cache().stats().nr_writeback, 51U);
}

TEST(BalanceDirtyPagesTest, CompletionsLetTheWriterGo) {
    TestBed bed(
        {.cache = {
             .cache_size_bytes = 1U << 20, .dirty_ratio = 20, .dirty_writeback_centisecs = 0}});
    bed.write(0, pattern(0, 100 * kPageSize, 1));
    bed.faults().add_rule(kHoldWrites);
    TestThread writer([&] { bed.flusher().balance_dirty_pages(bed.mapping()); });
    bed.faults().wait_until_held(1);
    eventually([&] { return bed.cache().stats().throttle_waits == 1; }, "the writer to be held");
    bed.faults().clear_rules();
    bed.faults().release();
    writer.join();
}

TEST(BalanceDirtyPagesTest, ADeadDeviceDoesNotHoldWritersForEver) {
    TestBed bed(
        {.cache = {
             .cache_size_bytes = 1U << 20, .dirty_ratio = 20, .dirty_writeback_centisecs = 0}});
    bed.faults().remove_device();
    bed.flusher().pause();
    bed.write(0, pattern(0, 100 * kPageSize, 1));
    TestThread writer([&] { bed.flusher().balance_dirty_pages(bed.mapping()); });
    eventually([&] { return bed.cache().stats().throttle_waits == 1; }, "the writer to be held");
    bed.flusher().resume();
    writer.join();
    // Whatever the flusher tries meanwhile, the next ones come through as well.
    for (int i = 0; i < 3; ++i) {
        bed.cache().io().redirty_failed_pages(PageIo::Redirty::kWait);
        bed.flusher().balance_dirty_pages(bed.mapping());
    }
    bed.cache().io().redirty_failed_pages(PageIo::Redirty::kWait);
    EXPECT_EQ(bed.read(0, 100 * kPageSize), pattern(0, 100 * kPageSize, 1));
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
