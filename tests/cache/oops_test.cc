// Goal: the report says what happened, to whom and how it came about, in any context.
// Method: a page with a history that three threads made one after the other, whole texts compared
// where they are the same in every run; then failures of many threads at once and under spin locks.
#include "cache/oops.h"

#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cache/assertions.h"

#include "tests/cache/page_fixture.h"

namespace wbfat::cache::inline WBFAT_RT {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class OopsTest : public PageTest {
protected:
    OopsTest() : handler_(set_bug_handler([](const BugReport&) {})) {
        reset_assertions();
        forget_oopses();
        set_trace(TraceState::kOn);
        forget_trace();
        OopsOptions options;
        options.sink = [this](const Oops& oops) { sunk_.push_back(oops.number); };
        options.volume_state = [] { return std::string("read-write"); };
        install_oops_reports(std::move(options));
    }
    ~OopsTest() override {
        remove_oops_reports();
        set_bug_handler(handler_);
        reset_assertions();
        forget_oopses();
    }

    void step(const char* task, TraceKind kind, const Page& page, std::uint64_t detail = 0) {
        sync::Thread thread(task, sync::Role::kOther, [&] { trace_page(kind, page, detail); });
        thread.join();
    }

    std::vector<std::uint64_t> sunk_;

private:
    BugHandler handler_;
};

TEST_F(OopsTest, NamesPagePlaceProtocolAssertionsAndVolume) {
    Page& page = add_page(17);
    lock_page(page);
    set_assertion(Assertion::kHungWait, AssertionState::kOff);
    PAGE_ASSERT(page, Assertion::kBugOnWriteback, false, "PageWriteback after the wait");
    unlock_page(page);
    const std::vector<Oops> kept = kept_oopses();
    ASSERT_EQ(kept.size(), 1U);
    EXPECT_EQ(sunk_, (std::vector<std::uint64_t>{kept[0].number}));
    EXPECT_EQ(kept[0].assertion, "bug_on_writeback");
    EXPECT_EQ(kept[0].file, "tests/cache/oops_test.cc");
    ASSERT_TRUE(kept[0].page.has_value());
    EXPECT_EQ(kept[0].page->mapping, "subject");
    const std::string text = to_string(kept[0]);
    EXPECT_THAT(text, HasSubstr("\nBUG at tests/cache/oops_test.cc:"));
    EXPECT_THAT(text, HasSubstr("bug_on_writeback: P1: PageWriteback after the wait\n"));
    EXPECT_THAT(text, HasSubstr("  page       index 17 of 'subject', locked|uptodate, refs 1"));
    EXPECT_THAT(text, HasSubstr("  task       'main' (other)\n"));
    EXPECT_THAT(text, HasSubstr("  protocol   6.8\n"));
    EXPECT_THAT(text, HasSubstr("  assertions hung_wait:off\n"));
    EXPECT_THAT(text, HasSubstr("  volume     read-write\n"));
    EXPECT_THAT(text, HasSubstr("  stack:\n    "));
}

TEST_F(OopsTest, DrawsTheHistoryOfThePageOneColumnAThread) {
    Oops oops;
    oops.monotonic_time = sync::Nanoseconds(200'000);
    Trace& history = oops.page.emplace().history;
    history.tasks = {{1, "completion", sync::Role::kCompletion},
                     {2, "flusher", sync::Role::kFlusher},
                     {3, "request 1", sync::Role::kRequest}};
    const auto add = [&](std::int64_t ns, std::uint32_t task, TraceKind kind,
                         std::uint64_t detail = 0) {
        TraceEvent event;
        event.time = sync::Nanoseconds(ns);
        event.task_id = task;
        event.kind = kind;
        event.detail = detail;
        history.events.push_back(event);
    };
    add(80'000, 1, TraceKind::kClearWriteback);
    add(100'100, 2, TraceKind::kLock);
    add(110'000, 2, TraceKind::kSetWriteback);
    add(111'500, 2, TraceKind::kUnlock);
    add(150'000, 3, TraceKind::kLock);
    add(151'000, 3, TraceKind::kWaitBegin, PG_writeback);
    add(190'000, 1, TraceKind::kWake, trace_wake_detail(PG_writeback, 3));
    add(199'900, 3, TraceKind::kBug, static_cast<std::uint64_t>(Assertion::kBugOnWriteback));
    EXPECT_EQ(draw_history(oops),
              "            completion                    flusher        request 1\n"
              "            ----------                    -------        ---------\n"
              "\n"
              "    -120.0  clear writeback\n"
              "\n"
              "     -99.9                                lock\n"
              "     -90.0                                set writeback\n"
              "     -88.5                                unlock\n"
              "\n"
              "     -50.0                                               lock\n"
              "     -49.0                                               wait (writeback)\n"
              "\n"
              "     -10.0  wake 'request 1' (writeback)\n"
              "\n"
              "      -0.1                                               BUG: bug_on_writeback\n");
}

// The mail of January 2021: a completion is late to wake, and finds who waits for the next write.
struct LateWake {
    LateWake() {
        oops.assertion = "bug_on_writeback";
        oops.monotonic_time = sync::Nanoseconds(200'000);
        Trace& history = oops.page.emplace().history;
        history.tasks = {{1, "io", sync::Role::kCompletion},
                         {2, "flusher", sync::Role::kFlusher},
                         {3, "request", sync::Role::kRequest},
                         {4, "io", sync::Role::kCompletion}};
        add(4, TraceKind::kComplete);
        add(1, TraceKind::kClearWriteback);
        add(2, TraceKind::kSetWriteback);
        add(3, TraceKind::kLock);
        add(3, TraceKind::kWaitBegin, PG_writeback);
        add(1, TraceKind::kWake, trace_wake_detail(PG_writeback, 3));
        add(3, TraceKind::kWaitEnd, PG_writeback);
        add(3, TraceKind::kBug, static_cast<std::uint64_t>(Assertion::kBugOnWriteback));
        events().back().flags = PG_writeback;
    }
    std::vector<TraceEvent>& events() {
        return oops.page->history.events;
    }
    void add(std::uint32_t task, TraceKind kind, std::uint64_t detail = 0) {
        TraceEvent event;
        event.time = sync::Nanoseconds(100'000 + 10'000 * events().size());
        event.task_id = task;
        event.kind = kind;
        event.detail = detail;
        event.generation = 7;
        events().push_back(event);
    }
    void move(std::size_t from, std::size_t to) {
        const TraceEvent event = events()[from];
        events().erase(events().begin() + static_cast<std::ptrdiff_t>(from));
        events().insert(events().begin() + static_cast<std::ptrdiff_t>(to), event);
    }
    // The sentences, each on a line.
    std::string told() const {
        std::string text;
        for (const StorySentence& sentence : explain(oops)) {
            text += sentence.text + "\n";
        }
        return text;
    }

    Oops oops;
};
constexpr const char* kOnlyWhatWasSeen =
    "flusher sets PG_writeback: a writeback has begun.\n"
    "request: BUG_ON(PageWriteback(page)), since (1).\n";

TEST(ExplainOopsTest, TellsTheLateWakeUpInFiveSentences) {
    const LateWake story;
    EXPECT_EQ(story.told(),
              "io #1 ends a writeback: it clears PG_writeback. Then it is delayed, before it wakes "
              "anybody.\n"
              "flusher sets PG_writeback again: the next writeback of the same page has begun.\n"
              "request sees PG_writeback set, and goes to sleep until it is clear.\n"
              "io #1 goes on with the end of its writeback (1) and wakes request.\n"
              "request takes that wake-up for the end of the writeback that has just begun (2), "
              "does not look again, and goes on: BUG_ON(PageWriteback(page)).\n");
    EXPECT_THAT(to_string(story.oops),
                HasSubstr("    (5)     -30.0  request takes that wake-up for the end of the "
                          "writeback that has just begun (2),\n"
                          "                   does not look again, and goes on: "
                          "BUG_ON(PageWriteback(page)).\n"));
}

TEST(ExplainOopsTest, AWakerThatHasWokenOthersFirstWasNotDelayedBeforeAnybody) {
    LateWake story;
    story.add(1, TraceKind::kWake, trace_wake_detail(PG_writeback, 9));
    story.move(story.events().size() - 1, 2);
    EXPECT_THAT(story.told(), HasSubstr("it clears PG_writeback.\n"));
}

TEST(ExplainOopsTest, TellsOnlyWhatWasSeenOfAnotherStory) {
    LateWake right_waker;  // woken by the end of the write that it waited for, which began anew
    right_waker.move(2, 6);
    EXPECT_EQ(right_waker.told(), kOnlyWhatWasSeen);
    LateWake slept_before;
    slept_before.move(4, 2);
    slept_before.move(4, 2);
    EXPECT_EQ(slept_before.told(), kOnlyWhatWasSeen);
    LateWake lost_wake;  // no longer in the ring of its thread
    lost_wake.events().erase(lost_wake.events().begin() + 5);
    EXPECT_EQ(lost_wake.told(), kOnlyWhatWasSeen);
    LateWake other_waiter;
    other_waiter.events()[5].detail = trace_wake_detail(PG_writeback, 2);
    EXPECT_EQ(other_waiter.told(), kOnlyWhatWasSeen);
    LateWake other_bit;
    other_bit.events()[4].detail = other_bit.events()[6].detail = PG_locked;
    EXPECT_EQ(other_bit.told(), kOnlyWhatWasSeen);
    LateWake earlier_life;  // of the frame: another page's writeback
    earlier_life.events()[1].generation = 6;
    EXPECT_EQ(earlier_life.told(), kOnlyWhatWasSeen);
    LateWake no_end;
    no_end.events().erase(no_end.events().begin() + 1);
    EXPECT_EQ(no_end.told(), kOnlyWhatWasSeen);
}

TEST(ExplainOopsTest, TellsNothingWhereTheHistoryDoesNotShowTheFlagSet) {
    LateWake no_set;
    no_set.events().erase(no_set.events().begin() + 2);
    EXPECT_EQ(no_set.told(), "");
    LateWake clear;  // what a protocol that sets with the wait complains about
    clear.events().back().flags = 0;
    EXPECT_EQ(clear.told(), "");
    LateWake no_failure;
    no_failure.events().pop_back();
    EXPECT_EQ(no_failure.told(), "");
    LateWake other_assertion;
    other_assertion.oops.assertion = "hung_wait";
    EXPECT_EQ(other_assertion.told(), "");
    EXPECT_TRUE(explain(Oops{}).empty());
}

TEST_F(OopsTest, SaysWhoHoldsTheLockAndWhoWaits) {
    Page& page = add_page(0);
    forget_trace();
    page.flags.fetch_or(PG_locked);
    step("holder", TraceKind::kLock, page, 0);
    step("was woken", TraceKind::kWaitBegin, page, PG_locked);
    sync::Thread woken("woken", sync::Role::kOther, [&] {
        trace_page(TraceKind::kWaitBegin, page, PG_locked);
        trace_page(TraceKind::kWaitEnd, page, PG_locked);
    });
    woken.join();
    BugReport report;
    report.page = &page;
    const Oops oops = make_oops(report);
    ASSERT_TRUE(oops.page.has_value());
    EXPECT_EQ(oops.page->locked_by, "holder");
    EXPECT_GT(oops.page->locked_for, sync::Nanoseconds(0));
    ASSERT_EQ(oops.page->waiters.size(), 1U);
    EXPECT_EQ(oops.page->waiters[0].task, "was woken");
    EXPECT_EQ(oops.page->waiters[0].bit, "locked");
    EXPECT_THAT(to_string(oops), HasSubstr("  locked by  'holder', for "));
    EXPECT_THAT(to_string(oops), HasSubstr("  waiting    'was woken' for locked, since "));

    step("holder", TraceKind::kUnlock, page);
    EXPECT_EQ(make_oops(report).page->locked_by, "");
}

TEST_F(OopsTest, ANewLifeOfTheFrameShowsInTheHistory) {
    Page& page = add_page(0);
    forget_trace();
    step("one", TraceKind::kLock, page);
    page.generation.fetch_add(1);
    step("two", TraceKind::kAlloc, page);
    BugReport report;
    report.page = &page;
    EXPECT_THAT(draw_history(make_oops(report)), HasSubstr("alloc [generation 2]"));
}

TEST_F(OopsTest, WithoutTheTraceItSaysSo) {
    Page& page = add_page(0);
    set_trace(TraceState::kOff);
    forget_trace();
    BugReport report;
    report.page = &page;
    EXPECT_THAT(to_string(make_oops(report)), HasSubstr("the trace is off"));
}

TEST_F(OopsTest, APlainBugHasItsObjectAndNoPage) {
    BUG_ON(true, "S1", "pthread_mutex_init failed");
    const std::vector<Oops> kept = kept_oopses();
    ASSERT_EQ(kept.size(), 1U);
    EXPECT_FALSE(kept[0].page.has_value());
    EXPECT_THAT(to_string(kept[0]), Not(HasSubstr("  page ")));
    EXPECT_THAT(kept[0].title, HasSubstr("S1: pthread_mutex_init failed"));
}

TEST_F(OopsTest, ManyThreadsMayFailAtOnce) {
    Page& page = add_page(3);
    constexpr std::size_t kThreads = 6;
    {
        std::vector<sync::Thread> threads;
        for (std::size_t i = 0; i < kThreads; ++i) {
            threads.emplace_back("failing", sync::Role::kOther, [&page] {
                PAGE_ASSERT(page, Assertion::kTwoWrites, false, "at once");
            });
        }
    }
    EXPECT_EQ(assertion_hits(Assertion::kTwoWrites), kThreads);
    EXPECT_EQ(sunk_.size(), kThreads);
    EXPECT_EQ(std::set<std::uint64_t>(sunk_.begin(), sunk_.end()).size(), kThreads);
}

TEST_F(OopsTest, UnderTheSpinLocksOfTheCacheToo) {
    Page& page = add_page(3);
    const sync::SpinLockGuard guard(mapping_->i_pages.lock());
    PAGE_ASSERT(page, Assertion::kTwoWrites, false, "under a spin lock");
    EXPECT_EQ(sunk_.size(), 1U);
}

TEST_F(OopsTest, AFloodIsCountedAndNotReported) {
    Page& page = add_page(3);
    for (std::size_t i = 0; i < 3 * kMaxOopsBurst; ++i) {
        PAGE_ASSERT(page, Assertion::kTwoWrites, false, "again");
    }
    EXPECT_EQ(sunk_.size(), kMaxOopsBurst);
    EXPECT_EQ(assertion_hits(Assertion::kTwoWrites), 3 * kMaxOopsBurst);
}

TEST_F(OopsTest, TheLastOnesAreKept) {
    OopsOptions options;
    options.sink = [this](const Oops& oops) { sunk_.push_back(oops.number); };
    options.max_burst = 100;
    install_oops_reports(std::move(options));
    for (std::size_t i = 0; i < kMaxOopses + 3; ++i) {
        BUG_ON(true, "S1", "again");
    }
    const std::vector<Oops> kept = kept_oopses();
    ASSERT_EQ(kept.size(), kMaxOopses);
    EXPECT_EQ(kept.front().number, sunk_[3]);
    EXPECT_EQ(kept.back().number, sunk_.back());
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
