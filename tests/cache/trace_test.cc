// Goal: events of all threads are kept, merged by time, bounded, and never seen torn.
// Method: pages made by hand; threads that are joined before anything is read, and one test that
// reads while a thread writes.
#include "cache/trace.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cache/page.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {
namespace {

class TraceTest : public ::testing::Test {
protected:
    TraceTest() {
        set_trace(TraceState::kOn);
        forget_trace();
    }
    ~TraceTest() override {
        set_trace_events_per_thread(kDefaultTraceEvents);
        set_trace(TraceState::kOn);
        forget_trace();
    }

    Page page_;
};

TEST_F(TraceTest, AnEventTellsWhoWhatAndInWhichState) {
    page_.index = 17;
    page_.generation.store(5);
    page_.flags.store(PG_locked | PG_waiters);
    trace_page(TraceKind::kDirty, page_, 42);
    const Trace trace = read_page_history(page_, 10);
    ASSERT_EQ(trace.events.size(), 1U);
    const TraceEvent& event = trace.events[0];
    EXPECT_EQ(event.kind, TraceKind::kDirty);
    EXPECT_EQ(event.page, &page_);
    EXPECT_EQ(event.mapping, nullptr);
    EXPECT_EQ(event.index, 17U);
    EXPECT_EQ(event.generation, 5U);
    EXPECT_EQ(event.flags, PG_locked | PG_waiters);
    EXPECT_EQ(event.detail, 42U);
    EXPECT_EQ(event.task_id, sync::current_task().id());
    EXPECT_LE(event.time, sync::monotonic_now());
}

TEST_F(TraceTest, OffRecordsNothing) {
    set_trace(TraceState::kOff);
    trace_page(TraceKind::kLock, page_);
    trace_page_by_address(TraceKind::kWake, page_);
    EXPECT_TRUE(read_trace().events.empty());
}

TEST_F(TraceTest, EventsOfThreadsThatEndedAreMergedByTime) {
    for (const char* name : {"one", "two", "three"}) {
        sync::Thread thread(name, sync::Role::kOther, [this] {
            trace_page(TraceKind::kLock, page_);
            trace_page(TraceKind::kUnlock, page_);
        });
        thread.join();
    }
    const Trace trace = read_page_history(page_, 100);
    ASSERT_EQ(trace.events.size(), 6U);
    std::vector<std::string> names;
    for (const TraceEvent& event : trace.events) {
        const auto task = std::find_if(trace.tasks.begin(), trace.tasks.end(),
                                       [&](const TraceTask& t) { return t.id == event.task_id; });
        ASSERT_NE(task, trace.tasks.end());
        names.push_back(task->name);
    }
    EXPECT_EQ(names, (std::vector<std::string>{"one", "one", "two", "two", "three", "three"}));
}

TEST_F(TraceTest, AHistoryHasTheLastEventsOfItsPageOnly) {
    Page other;
    for (std::uint64_t i = 0; i < 20; ++i) {
        trace_page(TraceKind::kDirty, page_, i);
        trace_page(TraceKind::kDirty, other, i);
    }
    const Trace trace = read_page_history(page_, 3);
    ASSERT_EQ(trace.events.size(), 3U);
    EXPECT_EQ(trace.events[0].detail, 17U);
    EXPECT_EQ(trace.events[2].detail, 19U);
}

TEST_F(TraceTest, ARingKeepsTheYoungestEvents) {
    set_trace_events_per_thread(8);
    for (std::uint64_t i = 0; i < 100; ++i) {
        trace_page(TraceKind::kDirty, page_, i);
    }
    const Trace trace = read_trace();
    // One less than its size: the place of the eighth may be written any moment.
    ASSERT_EQ(trace.events.size(), 7U);
    EXPECT_EQ(trace.events.front().detail, 93U);
    EXPECT_EQ(trace.events.back().detail, 99U);
}

TEST_F(TraceTest, AReaderNeverSeesHalfAnEvent) {
    set_trace_events_per_thread(16);
    sync::Atomic<bool> stop{false};
    sync::Thread writer("writer", sync::Role::kOther, [&] {
        Page own;
        for (std::uint64_t i = 0; !stop.load(); ++i) {
            own.index = i;
            own.generation.store(static_cast<std::uint32_t>(i));
            trace_page(TraceKind::kDirty, own, i);
        }
    });
    std::uint64_t nr_seen = 0;
    for (int round = 0; round < 2000 || nr_seen == 0; ++round) {
        for (const TraceEvent& event : read_trace().events) {
            ++nr_seen;
            ASSERT_EQ(event.index, event.detail);
            ASSERT_EQ(event.generation, static_cast<std::uint32_t>(event.detail));
        }
    }
    stop.store(true);
}

TEST_F(TraceTest, RingsOfEndedThreadsAreBounded) {
    for (int i = 0; i < 200; ++i) {
        sync::Thread thread("short", sync::Role::kOther,
                            [this] { trace_page(TraceKind::kLock, page_); });
        thread.join();
    }
    EXPECT_LE(read_page_history(page_, 1000).events.size(), 32U);
}

TEST_F(TraceTest, AThreadThatIsRenamedIsShownByItsLastName) {
    sync::Thread thread("before", sync::Role::kOther, [this] {
        trace_page(TraceKind::kLock, page_);
        sync::adopt_current_task("after", sync::Role::kFlusher);
    });
    thread.join();
    const Trace trace = read_page_history(page_, 1);
    ASSERT_EQ(trace.events.size(), 1U);
    EXPECT_TRUE(std::any_of(trace.tasks.begin(), trace.tasks.end(), [&](const TraceTask& task) {
        return task.id == trace.events[0].task_id && task.name == "after" &&
               task.role == sync::Role::kFlusher;
    }));
}

TEST_F(TraceTest, EventsAreDescribedInWords) {
    const std::vector<TraceTask> tasks{{3, "flusher", sync::Role::kFlusher}};
    TraceEvent event;
    event.kind = TraceKind::kWake;
    event.detail = trace_wake_detail(PG_writeback, 3);
    EXPECT_EQ(describe(event, tasks), "wake 'flusher' (writeback)");
    event.detail = trace_wake_detail(PG_locked, 4);
    EXPECT_EQ(describe(event, tasks), "wake task 4 (locked)");
    event.kind = TraceKind::kSubmit;
    event.detail = 0x1f000;
    EXPECT_EQ(describe(event, tasks), "submit at 0x1f000");
    std::set<std::string_view> names;
    for (int kind = 0; kind <= static_cast<int>(TraceKind::kBug); ++kind) {
        EXPECT_TRUE(names.insert(trace_kind_name(static_cast<TraceKind>(kind))).second);
    }
    EXPECT_FALSE(names.contains("?"));
}

TEST_F(TraceTest, AReaderGoesOnWhereItStopped) {
    TraceReader reader;
    trace_page(TraceKind::kLock, page_);
    EXPECT_EQ(reader.read_new(100).events.size(), 1U);
    EXPECT_TRUE(reader.read_new(100).events.empty());
    trace_page(TraceKind::kDirty, page_);
    trace_page(TraceKind::kUnlock, page_);
    const Trace trace = reader.read_new(100);
    ASSERT_EQ(trace.events.size(), 2U);
    EXPECT_EQ(trace.events[0].kind, TraceKind::kDirty);
    EXPECT_EQ(trace.events[1].kind, TraceKind::kUnlock);
}

TEST_F(TraceTest, AReaderThatTakesTheLatestOnlyLeavesTheOthersForGood) {
    TraceReader reader;
    for (const TraceKind kind : {TraceKind::kLock, TraceKind::kDirty, TraceKind::kUnlock}) {
        trace_page(kind, page_);
    }
    {
        const sync::Thread other("other", sync::Role::kOther,
                                 [this] { trace_page(TraceKind::kWake, page_); });
    }
    const Trace trace = reader.read_new(2);
    ASSERT_EQ(trace.events.size(), 2U);
    EXPECT_EQ(trace.events[0].kind, TraceKind::kUnlock);
    EXPECT_EQ(trace.events[1].kind, TraceKind::kWake);
    EXPECT_TRUE(reader.read_new(100).events.empty());
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
