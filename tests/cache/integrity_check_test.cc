// Goal: the assertion integrity_sync finds a sync that left something behind, whichever way, and
// lets every honest one pass. Method: pages are taken through their writes by hand, between the two
// halves of a check or under a writepages that cheats.
#include "cache/integrity_check.h"

#include "cache/filemap.h"

#include "tests/cache/page_fixture.h"
#include "tests/support/bugs.h"

// The fixture unlocks what it removes: the static analysis cannot follow.
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"
#endif

namespace wbfat::cache::inline WBFAT_RT {
namespace {

class IntegrityCheckTest : public PageTest {
protected:
    static std::uint64_t found() {
        return Bugs::count(Assertion::kIntegritySync);
    }
    IntegrityCheck begin() {
        return {*mapping_, 0, kLastByte};
    }
    Result<> sync() {
        ErrSeq::Cursor cursor = mapping_->wb_err.sample();
        return file_write_and_wait_range(*mapping_, 0, kLastByte, cursor);
    }
    const Bugs bugs_;
};

TEST_F(IntegrityCheckTest, ASyncThatWritesNothingIsFound) {
    dirty(add_page(7));
    EXPECT_TRUE(sync().has_value());
    EXPECT_EQ(found(), 1U);
}

TEST_F(IntegrityCheckTest, ASyncThatWritesIsFine) {
    Page& page = add_page(7);
    dirty(page);
    ops_.on_writepages = [&](AddressSpace&) {
        start_writeback(page);
        end_page_writeback(page);
        dirty(page);  // again: not this sync's
    };
    EXPECT_TRUE(sync().has_value());
    EXPECT_EQ(found(), 0U);
}

TEST_F(IntegrityCheckTest, AWriteThatIsNotWaitedForIsFound) {
    Page& page = add_page(7);
    dirty(page);
    IntegrityCheck check = begin();
    start_writeback(page);
    check.finish();
    EXPECT_EQ(found(), 1U);
    end_page_writeback(page);
    check.finish();
    EXPECT_EQ(found(), 1U);
}

TEST_F(IntegrityCheckTest, AnEarlierWriteMustBeWaitedForAndALaterOneNeedNot) {
    Page& page = add_page(7);
    start_writeback(page);
    IntegrityCheck check = begin();
    check.finish();
    EXPECT_EQ(found(), 1U);
    end_page_writeback(page);
    start_writeback(page);
    check.finish();
    EXPECT_EQ(found(), 1U);
}

TEST_F(IntegrityCheckTest, ADirtyPageUnderWritebackNeedsAWriteOfItsOwn) {
    Page& page = add_page(7);
    start_writeback(page);
    dirty(page);
    IntegrityCheck check = begin();
    end_page_writeback(page);
    check.finish();
    EXPECT_EQ(found(), 1U);
}

TEST_F(IntegrityCheckTest, WhatIsTruncatedOrThrownAwayIsOwedNoMore) {
    Page& gone = add_page(7);
    Page& cancelled = add_page(8);
    dirty(gone);
    dirty(cancelled);
    IntegrityCheck check = begin();
    lock_page(gone);
    remove_locked_page(gone);
    lock_page(cancelled);
    cancel_dirty_page(cancelled);
    unlock_page(cancelled);
    check.finish();
    EXPECT_EQ(found(), 0U);
}

TEST_F(IntegrityCheckTest, PagesThatBecomeDirtyLaterAndPagesOutsideTheRangeDoNotCount) {
    Page& outside = add_page(9);
    dirty(outside);
    Page& later = add_page(1);
    IntegrityCheck check(*mapping_, 0, page_offset(9) - 1);
    dirty(later);
    check.finish();
    EXPECT_EQ(found(), 0U);
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
