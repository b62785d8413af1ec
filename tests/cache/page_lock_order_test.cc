// Goal: the assertion page_lock_order finds whoever locks pages of a mapping downwards, the first
// time, and nobody else. Method: one or two threads at pages of one mapping; the assertion warns.
#include "cache/page_lock_order.h"

#include "tests/cache/page_fixture.h"
#include "tests/support/bugs.h"

// Here a lock passes between threads: the static analysis cannot follow.
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"
#endif

namespace wbfat::cache::inline WBFAT_RT {
namespace {

class PageLockOrderTest : public PageTest {
protected:
    static std::uint64_t found() {
        return Bugs::count(Assertion::kPageLockOrder);
    }
    const Bugs bugs_;
};

TEST_F(PageLockOrderTest, ALowerPageUnderAHigherOneIsFoundWithoutAnyContention) {
    Page& low = add_page(3);
    Page& high = add_page(4);
    lock_page(high);
    lock_page(low);
    EXPECT_EQ(found(), 1U);
    unlock_page(low);
    EXPECT_TRUE(lock_page_killable(low).has_value());
    EXPECT_EQ(found(), 2U);
    unlock_page(low);
    unlock_page(high);
}

TEST_F(PageLockOrderTest, UpwardsIsFine) {
    Page& low = add_page(3);
    Page& high = add_page(4);
    lock_page(low);
    lock_page(high);
    unlock_page(low);
    unlock_page(high);
    lock_page(low);
    unlock_page(low);
    EXPECT_EQ(found(), 0U);
}

TEST_F(PageLockOrderTest, WhoOnlyTriesCannotDeadlock) {
    Page& low = add_page(3);
    Page& high = add_page(4);
    lock_page(high);
    EXPECT_TRUE(trylock_page(low));
    EXPECT_EQ(found(), 0U);
    unlock_page(low);
    unlock_page(high);
}

TEST_F(PageLockOrderTest, PagesOfOtherMappingsDoNotCount) {
    AddressSpace other(*cache_, device_, ops_, AddressSpace::StablePages::kNo, "other");
    Page& high = add_page(4);
    Page& low = *frames().alloc().value();
    low.index = 3;
    low.mapping.store(&other);
    lock_page(high);
    lock_page(low);
    EXPECT_EQ(found(), 0U);
    unlock_page(low);
    unlock_page(high);
    low.mapping.store(nullptr);
    put_page(low);
}

TEST_F(PageLockOrderTest, WhatAnotherThreadUnlockedOrHoldsIsNotMine) {
    Page& low = add_page(3);
    Page& high = add_page(4);
    lock_page(high);
    {
        sync::Thread other("other", sync::Role::kOther, [&high] { unlock_page(high); });
    }
    lock_page(low);
    unlock_page(low);
    {
        sync::Thread other("other", sync::Role::kOther, [&high] { lock_page(high); });
    }
    lock_page(low);
    unlock_page(low);
    unlock_page(high);
    EXPECT_EQ(found(), 0U);
}

TEST_F(PageLockOrderTest, APageWhoseLockWentToItsReadIsNotHeld) {
    Page& low = add_page(3);
    Page& high = add_page(4);
    lock_page(high);
    note_page_released(high);
    lock_page(low);
    unlock_page(low);
    unlock_page(high);
    EXPECT_EQ(found(), 0U);
}

TEST_F(PageLockOrderTest, APageThatWasLockedWhileItWasOffIsNotHeldForEver) {
    Page& low = add_page(3);
    Page& high = add_page(4);
    lock_page(high);
    set_assertion(Assertion::kPageLockOrder, AssertionState::kOff);
    unlock_page(high);
    set_assertion(Assertion::kPageLockOrder, AssertionState::kWarn);
    lock_page(low);
    unlock_page(low);
    EXPECT_EQ(found(), 0U);
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
