// Goal: the bug of the mail of 4 January 2021, and the page-reuse bug of November 2020, happen
// every time under the versions that have them and never under the others. Method: the
// interleavings of writeback-protocol.md 9.1 and 6 on real threads, held at named points; failed
// assertions are collected and the run goes on.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cache/assertions.h"

#include "tests/cache/protocol_fixture.h"
#include "tests/support/bugs.h"

// Here a lock passes between threads: the static analysis cannot follow.
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"
#endif

namespace wbfat::cache::inline WBFAT_RT {
namespace {

using sync::PointGate;
using sync::Role;
using sync::Thread;

sync::PointRule nth(const std::string& task, std::uint64_t skip) {
    sync::PointRule rule = only(task);
    rule.skip = skip;
    return rule;
}

// What else keeps PG_waiters set at the moment of the clear, which the xor of 6.8 needs.
enum class OldMark { kNo, kYes };

class StaleWakeTest : public ProtocolFixture {
protected:
    // CPU3: an integrity walk whose writer starts writeback and sends nothing anywhere.
    void integrity_walk() {
        WritebackControl wbc;
        wbc.sync_mode = WB_SYNC_ALL;
        const WritePage writepage = [](Page& page, BlockMask) -> Result<> {
            set_page_writeback(page);
            unlock_page(page);
            return {};
        };
        EXPECT_TRUE(write_cache_pages(*mapping_, wbc, writepage).has_value());
    }

    // The table of 9.1. Returns with writeback #3 in flight, and #2 too if CPU3 was fooled.
    void run_the_mail(Page& page, OldMark old_mark) {
        write(page);  // #1
        if (old_mark == OldMark::kYes) {
            page.flags.fetch_or(PG_waiters);
        }
        PointGate cleared("end_writeback:cleared", only("CPU1"));
        Thread cpu1("CPU1", Role::kCompletion, [&page] { end_page_writeback(page); });
        cleared.wait_for_arrivals();  // rows 1, 2
        dirty(page);
        write(page);  // row 3
        dirty(page);  // row 4

        PointGate asleep_again("wait:queued", nth("CPU3", 1));
        PointGate prepared("write_cache_pages:prepared", only("CPU3"));
        PointGate queued("wait:queued", only("CPU3", 1));
        Thread cpu3("CPU3", Role::kSyncWriter, [this] { integrity_walk(); });
        queued.wait_for_arrivals();  // row 5
        queued.open();
        sync::reset_point_hits();
        cleared.open();
        cpu1.join();  // row 6
        bool fooled = false;
        if (hits("wake:flagged") > 0) {
            // Row 7: fooled it goes on to write, otherwise it asks again.
            fooled = current_protocol().wait == OuterWait::kIf;
            (fooled ? prepared : asleep_again).wait_for_arrivals();
        }
        asleep_again.open();
        prepared.open();
        if (!fooled) {
            end_page_writeback(page);  // #2, before #3 can begin
        }
        cpu3.join();
    }
};

TEST_F(StaleWakeTest, TheMailsInterleavingHitsTheBugUnderTheVersionsThatHaveIt) {
    pgoff_t index = 0;
    for (const char* protocol : {"5.9-rc", "5.9", "5.10"}) {
        SCOPED_TRACE(protocol);
        use(protocol);
        const Bugs bugs;
        Page& page = add_page(index++);
        run_the_mail(page, OldMark::kNo);
        EXPECT_EQ(Bugs::count(Assertion::kBugOnWriteback), 1U);
        while (page_test(page, PG_writeback)) {
            end_page_writeback(page);
        }
        remove_all();
    }
}

TEST_F(StaleWakeTest, TheMailsInterleavingIsHarmlessUnderTheOthers) {
    pgoff_t index = 0;
    for (const char* protocol :
         {"5.8", "5.11", "6.8", "recheck-on-wake", "wake-clears", "wait-to-set"}) {
        for (const OldMark old_mark : {OldMark::kNo, OldMark::kYes}) {
            SCOPED_TRACE(protocol);
            use(protocol);
            const Bugs bugs;
            Page& page = add_page(index++);
            run_the_mail(page, old_mark);
            EXPECT_EQ(Bugs::count_all(), 0U);
            EXPECT_TRUE(page_test(page, PG_writeback));  // #3
            end_page_writeback(page);
            remove_all();
        }
    }
}

// 9.3 (7): the xor alone narrows the window and does not close it.
TEST_F(StaleWakeTest, TheXorAloneIsFooledOnlyWhenSomebodyElsesMarkIsThere) {
    const struct {
        OldMark old_mark;
        std::size_t bugs;
    } table[] = {{OldMark::kNo, 0}, {OldMark::kYes, 1}};
    pgoff_t index = 0;
    for (const auto& row : table) {
        use("5.10,end=xor");
        const Bugs bugs;
        Page& page = add_page(index++);
        run_the_mail(page, row.old_mark);
        EXPECT_EQ(Bugs::count(Assertion::kBugOnWriteback), row.bugs);
        while (page_test(page, PG_writeback)) {
            end_page_writeback(page);
        }
        remove_all();
    }
}

// 9.2: what follows when the assertion lets the run go on.
TEST_F(StaleWakeTest, PastTheBugTwoWritesShareOneBitAndTheSecondEndFindsItClear) {
    use("5.10");
    const Bugs bugs;
    Page& page = add_page(0);
    run_the_mail(page, OldMark::kNo);
    EXPECT_EQ(Bugs::count(Assertion::kBugOnWriteback), 1U);
    EXPECT_EQ(Bugs::count(Assertion::kSetWritebackTwice), 1U);
    EXPECT_EQ(Bugs::count(Assertion::kTwoWrites), 1U);
    // #2 and #3 are in flight; neither the mark nor the count knows of two.
    EXPECT_EQ(counters().nr_writeback.value(), 1U);
    end_page_writeback(page);
    EXPECT_FALSE(page_test(page, PG_writeback));
    EXPECT_FALSE(tagged(page, PAGECACHE_TAG_WRITEBACK));
    EXPECT_EQ(counters().nr_writeback.value(), 0U);
    EXPECT_EQ(Bugs::count(Assertion::kEndWritebackClear), 0U);
    end_page_writeback(page);
    EXPECT_EQ(Bugs::count(Assertion::kEndWritebackClear), 1U);
    EXPECT_FALSE(page_test(page, PG_writeback));
    EXPECT_EQ(counters().nr_writeback.value(), 0U);
}

TEST_F(StaleWakeTest, PastTheBugTheXorSetsTheBitForGood) {
    use("6.8,wait=if");
    const Bugs bugs;
    Page& page = add_page(0);
    write(page);
    end_page_writeback(page);
    end_page_writeback(page);
    EXPECT_EQ(Bugs::count(Assertion::kEndWritebackClear), 1U);
    EXPECT_TRUE(page_test(page, PG_writeback));
    page.flags.fetch_and(~std::uint64_t{PG_writeback});
}

// --- section 6: the frame is another page's by the time the waker looks

TEST_F(StaleWakeTest, WithoutAReferenceTheEndTouchesAReusedPage) {
    const struct {
        const char* protocol;
        bool late;
    } table[] = {{"5.8", true},   {"5.9-rc", true}, {"5.9", true},
                 {"5.10", false}, {"5.11", false},  {"6.8,end=split", false}};
    for (const auto& row : table) {
        SCOPED_TRACE(row.protocol);
        use(row.protocol);
        const Bugs bugs;
        Page& page = add_page(0);
        write(page);
        PointGate cleared("end_writeback:cleared", only("CPU1"));
        Thread cpu1("CPU1", Role::kCompletion, [&page] { end_page_writeback(page); });
        cleared.wait_for_arrivals();
        lock_page(page);
        remove_locked_page(page);      // truncation: nothing keeps the page
        Page& reused = add_page(100);  // and the next allocation takes the frame freed last
        EXPECT_EQ(&reused == &page, row.late);
        cleared.open();
        cpu1.join();
        EXPECT_EQ(Bugs::count(Assertion::kLateTouch) > 0, row.late);
        remove_all();
    }
}

TEST_F(StaleWakeTest, TheLateTouchReleasesTheNewPagesSleeper) {
    // Symptom 2 of section 6: the new use is under writeback and has a sleeper already.
    const struct {
        const char* protocol;
        bool released;
    } table[] = {{"5.8", false}, {"5.9", true}};
    for (const auto& row : table) {
        SCOPED_TRACE(row.protocol);
        use(row.protocol);
        const Bugs bugs;
        Page& page = add_page(0);
        write(page);
        PointGate cleared("end_writeback:cleared", only("CPU1"));
        Thread cpu1("CPU1", Role::kCompletion, [&page] { end_page_writeback(page); });
        cleared.wait_for_arrivals();
        lock_page(page);
        remove_locked_page(page);
        Page& reused = add_page(100);
        ASSERT_EQ(&reused, &page);
        write(reused);
        Thread sleeper = start_queued("sleeper", [&reused] { wait_on_page_writeback(reused); });
        cleared.open();
        cpu1.join();
        EXPECT_GT(Bugs::count(Assertion::kLateTouch), 0U);
        EXPECT_EQ(page_waiters(&reused).empty(), row.released);
        end_page_writeback(reused);
        sleeper.join();
        remove_all();
    }
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
