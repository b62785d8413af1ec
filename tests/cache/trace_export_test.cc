// Goal: the exported trace is what Perfetto reads: valid JSON, a track a thread, arrows whose ends
// lie in slices, counters. Method: a trace made by hand, parsed back.
#include "cache/trace_export.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

#include <gtest/gtest.h>

namespace wbfat::cache::inline WBFAT_RT {
namespace {

namespace json = boost::json;

class TraceExportTest : public ::testing::Test {
protected:
    TraceExportTest() {
        trace_.tasks = {{1, "completion", sync::Role::kCompletion},
                        {2, "writer \"x\"\\\n", sync::Role::kRequest}};
    }

    void add(std::int64_t ns, std::uint32_t task, TraceKind kind, std::uint64_t detail = 0) {
        TraceEvent event;
        event.time = sync::Nanoseconds(ns);
        event.task_id = task;
        event.kind = kind;
        event.detail = detail;
        event.index = 17;
        event.flags = PG_locked | PG_writeback;
        trace_.events.push_back(event);
    }
    std::vector<json::object> exported(std::string_view phase) {
        std::vector<json::object> found;
        const json::value all = json::parse(to_chrome_json(trace_));
        for (const json::value& event : all.at("traceEvents").as_array()) {
            if (event.at("ph").as_string() == phase) {
                found.push_back(event.as_object());
            }
        }
        return found;
    }

    Trace trace_;
};

TEST_F(TraceExportTest, AnEmptyTraceIsValid) {
    trace_.tasks.clear();
    EXPECT_EQ(exported("M").size(), 1U);
    EXPECT_TRUE(exported("X").empty());
}

TEST_F(TraceExportTest, EveryThreadHasANamedTrack) {
    const std::vector<json::object> names = exported("M");
    ASSERT_EQ(names.size(), 3U);
    EXPECT_EQ(names[1].at("tid").as_int64(), 1);
    EXPECT_EQ(names[2].at("args").at("name").as_string(), "writer \"x\"\\\n");
}

TEST_F(TraceExportTest, SlicesOfAThreadDoNotOverlap) {
    add(1000, 1, TraceKind::kLock);
    add(1200, 1, TraceKind::kWaitBegin, PG_writeback);
    add(1500, 2, TraceKind::kUnlock);
    add(9000, 1, TraceKind::kWaitEnd, PG_writeback);
    const std::vector<json::object> slices = exported("X");
    ASSERT_EQ(slices.size(), 4U);
    EXPECT_EQ(slices[0].at("name").as_string(), "lock");
    EXPECT_DOUBLE_EQ(slices[0].at("dur").as_double(), 0.2);
    EXPECT_DOUBLE_EQ(slices[1].at("ts").as_double(), 1.2);
    EXPECT_DOUBLE_EQ(slices[1].at("dur").as_double(), 7.8);
    EXPECT_EQ(slices[1].at("args").at("index").as_int64(), 17);
    EXPECT_EQ(slices[1].at("args").at("flags").as_string(), "locked|writeback");
}

TEST_F(TraceExportTest, ArrowsGoFromTheWakerToTheNextEndOfThatWait) {
    add(1000, 2, TraceKind::kWaitBegin, PG_writeback);
    add(2000, 1, TraceKind::kWake, trace_wake_detail(PG_writeback, 2));
    add(3000, 2, TraceKind::kWaitEnd, PG_writeback);
    add(4000, 1, TraceKind::kWake, trace_wake_detail(PG_writeback, 2));
    const std::vector<json::object> starts = exported("s");
    const std::vector<json::object> ends = exported("f");
    ASSERT_EQ(starts.size(), 1U);
    ASSERT_EQ(ends.size(), 1U);
    EXPECT_EQ(starts[0].at("tid").as_int64(), 1);
    EXPECT_DOUBLE_EQ(starts[0].at("ts").as_double(), 2.0);
    EXPECT_EQ(ends[0].at("tid").as_int64(), 2);
    EXPECT_DOUBLE_EQ(ends[0].at("ts").as_double(), 3.0);
    EXPECT_EQ(starts[0].at("id"), ends[0].at("id"));
}

TEST_F(TraceExportTest, CountsDirtyPagesAndSpansWriteback) {
    add(1000, 2, TraceKind::kDirty, 5);
    add(2000, 2, TraceKind::kSetWriteback, 1);
    add(3000, 1, TraceKind::kClearWriteback, 0);
    const std::vector<json::object> counters = exported("C");
    ASSERT_EQ(counters.size(), 3U);
    EXPECT_EQ(counters[0].at("name").as_string(), "dirty pages");
    EXPECT_EQ(counters[0].at("args").at("pages").as_int64(), 5);
    EXPECT_EQ(counters[2].at("name").as_string(), "pages under writeback");
    ASSERT_EQ(exported("b").size(), 1U);
    EXPECT_EQ(exported("b")[0].at("id"), exported("e")[0].at("id"));
}

TEST_F(TraceExportTest, ABugIsMarkedAcrossAllTracks) {
    add(1000, 2, TraceKind::kBug, 0);
    const std::vector<json::object> marks = exported("i");
    ASSERT_EQ(marks.size(), 1U);
    EXPECT_EQ(marks[0].at("s").as_string(), "g");
    EXPECT_EQ(marks[0].at("name").as_string(), "BUG: bug_on_writeback");
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
