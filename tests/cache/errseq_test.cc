// Goal: every opener hears of every writeback error exactly once, and of none that was reported
// before it came. Method: several cursors over one sequence; the states of lib/errseq.c one by one.
#include <cerrno>
#include <vector>

#include <gtest/gtest.h>

#include "cache/address_space.h"
#include "cache/base/check.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {
namespace {

TEST(ErrSeqTest, ReportsNothingWhileNothingHappened) {
    ErrSeq sequence;
    ErrSeq::Cursor cursor = sequence.sample();
    EXPECT_EQ(sequence.check(cursor), 0);
    EXPECT_EQ(sequence.check_and_advance(cursor), 0);
}

TEST(ErrSeqTest, ReportsAnErrorOncePerOpener) {
    ErrSeq sequence;
    ErrSeq::Cursor first = sequence.sample();
    ErrSeq::Cursor second = sequence.sample();
    sequence.set(EIO);
    EXPECT_EQ(sequence.check_and_advance(first), EIO);
    EXPECT_EQ(sequence.check_and_advance(first), 0);
    EXPECT_EQ(sequence.check_and_advance(second), EIO);
    EXPECT_EQ(sequence.check_and_advance(second), 0);
}

TEST(ErrSeqTest, TellsALaterOpenerOfAnErrorNobodyHasSeen) {
    ErrSeq sequence;
    sequence.set(ENOSPC);
    ErrSeq::Cursor late = sequence.sample();
    EXPECT_EQ(sequence.check_and_advance(late), ENOSPC);
}

TEST(ErrSeqTest, KeepsASeenErrorFromLaterOpeners) {
    ErrSeq sequence;
    ErrSeq::Cursor early = sequence.sample();
    sequence.set(EIO);
    EXPECT_EQ(sequence.check_and_advance(early), EIO);
    ErrSeq::Cursor late = sequence.sample();
    EXPECT_EQ(sequence.check_and_advance(late), 0);
}

TEST(ErrSeqTest, ReportsTheSameErrorAgainWhenItHappensAgain) {
    ErrSeq sequence;
    ErrSeq::Cursor cursor = sequence.sample();
    sequence.set(EIO);
    EXPECT_EQ(sequence.check_and_advance(cursor), EIO);
    sequence.set(EIO);
    EXPECT_EQ(sequence.check(cursor), EIO);
    EXPECT_EQ(sequence.check_and_advance(cursor), EIO);
    EXPECT_EQ(sequence.check_and_advance(cursor), 0);
}

TEST(ErrSeqTest, LatestErrorWinsWhenNobodyLookedBetween) {
    ErrSeq sequence;
    ErrSeq::Cursor cursor = sequence.sample();
    sequence.set(EIO);
    sequence.set(ENOSPC);
    EXPECT_EQ(sequence.check_and_advance(cursor), ENOSPC);
    EXPECT_EQ(sequence.check_and_advance(cursor), 0);
}

TEST(ErrSeqTest, CheckDoesNotConsume) {
    ErrSeq sequence;
    const ErrSeq::Cursor cursor = sequence.sample();
    sequence.set(EIO);
    EXPECT_EQ(sequence.check(cursor), EIO);
    EXPECT_EQ(sequence.check(cursor), EIO);
}

TEST(ErrSeqTest, EveryThreadHearsOfAnErrorSetBesideIt) {
    ErrSeq sequence;
    constexpr int kErrors = 2000;
    std::vector<std::uint64_t> heard(3, 0);
    sync::Atomic<bool> done{false};
    {
        std::vector<sync::Thread> openers;
        for (auto& count : heard) {
            openers.emplace_back("opener", sync::Role::kOther, [&sequence, &done, &count] {
                ErrSeq::Cursor cursor = 0;
                bool last_round = false;
                while (!last_round) {
                    last_round = done.load();
                    count += sequence.check_and_advance(cursor) == EIO ? 1U : 0U;
                }
            });
        }
        for (int i = 0; i < kErrors; ++i) {
            sequence.set(EIO);
        }
        done.store(true);
    }
    for (const std::uint64_t count : heard) {
        EXPECT_GE(count, 1U);
        // Twice the errors: one may be reported before and after another opener marked it seen.
        EXPECT_LE(count, 2U * kErrors);
    }
}

TEST(ErrSeqDeathTest, RefusesWhatIsNoErrno) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    ErrSeq sequence;
    EXPECT_DEATH(sequence.set(-EIO), "E1");
    EXPECT_DEATH(sequence.set(0), "E1");
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
