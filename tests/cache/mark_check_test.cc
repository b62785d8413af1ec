// Goal: marks that contradict their pages are found, and those of pages in somebody's hands are
// left alone. Method: flags and marks are set against each other by hand; the assertions warn.
#include "cache/mark_check.h"

#include "tests/cache/page_fixture.h"
#include "tests/support/bugs.h"

namespace wbfat::cache::inline WBFAT_RT {
namespace {

class MarkCheckTest : public PageTest {
protected:
    void set_mark(const Page& page, PageTag tag) {
        const sync::SpinLockGuard guard(mapping_->i_pages.lock());
        mapping_->i_pages.set_tag_locked(page.index, tag);
    }
    void clear_mark(const Page& page, PageTag tag) {
        const sync::SpinLockGuard guard(mapping_->i_pages.lock());
        mapping_->i_pages.clear_tag_locked(page.index, tag);
    }
    void check() {
        check_marks(*mapping_, 0, ~pgoff_t{0} >> 1);
    }
    const Bugs bugs_;
};

TEST_F(MarkCheckTest, TheMarksOfPagesThatWentTheirOrdinaryWayAgree) {
    dirty(add_page(0));
    start_writeback(add_page(1));
    Page& both = add_page(2);
    start_writeback(both);
    dirty(both);
    check();
    EXPECT_EQ(Bugs::count(Assertion::kDirtyMark), 0U);
    EXPECT_EQ(Bugs::count(Assertion::kWritebackMark), 0U);
}

TEST_F(MarkCheckTest, ADirtyPageWithoutItsMarkIsFound) {
    Page& page = add_page(0);
    dirty(page);
    clear_mark(page, PAGECACHE_TAG_DIRTY);
    check();
    EXPECT_EQ(Bugs::count(Assertion::kDirtyMark), 1U);
    set_mark(page, PAGECACHE_TAG_DIRTY);
}

TEST_F(MarkCheckTest, AWritebackMarkWithoutTheFlagIsFound) {
    Page& page = add_page(0);
    set_mark(page, PAGECACHE_TAG_WRITEBACK);
    check();
    EXPECT_EQ(Bugs::count(Assertion::kWritebackMark), 1U);
    clear_mark(page, PAGECACHE_TAG_WRITEBACK);
}

TEST_F(MarkCheckTest, AFlagWithoutItsWritebackMarkIsFound) {
    Page& page = add_page(0);
    start_writeback(page);
    clear_mark(page, PAGECACHE_TAG_WRITEBACK);
    check();
    EXPECT_EQ(Bugs::count(Assertion::kWritebackMark), 1U);
    set_mark(page, PAGECACHE_TAG_WRITEBACK);
}

TEST_F(MarkCheckTest, ALockedPageIsLeftToItsHolder) {
    Page& page = add_page(0);
    set_mark(page, PAGECACHE_TAG_WRITEBACK);
    lock_page(page);
    check();
    EXPECT_EQ(Bugs::count(Assertion::kWritebackMark), 0U);
    unlock_page(page);
    clear_mark(page, PAGECACHE_TAG_WRITEBACK);
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
