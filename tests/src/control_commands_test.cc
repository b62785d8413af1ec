// Goal: every command does what its help says, and whatever is no request gets one sentence.
// Method: lines in, JSON out, on a volume in memory.
#include "src/control_commands.h"

#include <random>
#include <string>
#include <vector>

#include <boost/json.hpp>

#include <gtest/gtest.h>

#include "cache/assertions.h"
#include "cache/flusher.h"
#include "cache/oops.h"
#include "cache/protocol.h"
#include "cache/sync/points.h"
#include "src/control_protocol.h"

#include "tests/support/volume_fixture.h"

namespace wbfat::daemon {
namespace {

namespace json = boost::json;

class ControlCommandsTest : public testing::Test {
protected:
    void SetUp() override {
        bed_.mount();
        open_commands();
    }
    void TearDown() override {
        cache::reset_assertions();
        commands_.reset();
        bed_.unmount();
    }
    void open_commands() {
        commands_.emplace(
            ControlContext{bed_.volume(), bed_.volume().cache(), options_, "disk.img", "/mnt"});
    }
    json::object reply(const std::string& line) {
        return json::parse(commands_->answer(line)).as_object();
    }
    json::object ask(const std::string& command, const std::vector<std::string>& words = {}) {
        const json::array list(words.begin(), words.end());
        return reply(json::serialize(json::object{{"command", command}, {"words", list}}));
    }
    json::value result(const std::string& command, const std::vector<std::string>& words = {}) {
        json::object answer = ask(command, words);
        EXPECT_TRUE(answer.at("ok").as_bool()) << json::serialize(answer);
        return answer["result"];
    }
    std::string error(const std::string& command, const std::vector<std::string>& words = {}) {
        const json::object answer = ask(command, words);
        EXPECT_FALSE(answer.at("ok").as_bool()) << json::serialize(answer);
        return answer.contains("error") ? std::string(answer.at("error").as_string()) : "";
    }

    fs::TestVolume bed_;
    DaemonOptions options_;
    std::optional<ControlCommands> commands_;
};

TEST_F(ControlCommandsTest, WhatIsNoRequestGetsOneSentence) {
    const std::string lines[] = {"",
                                 "{",
                                 "status",
                                 "[]",
                                 "null",
                                 "3",
                                 R"({"command": 3})",
                                 R"({"command": null, "words": []})",
                                 R"({"words": ["sync"]})",
                                 R"({"command": "sync", "words": "now"})",
                                 R"({"command": "sync", "words": [1]})",
                                 R"({"command": "sync"} trailing)",
                                 "{\"command\": \"\xff\xfe\"}",
                                 std::string("{\"command\": \"sy\0nc\"}", 20),
                                 std::string(10'000, '['),
                                 R"({"command": "reboot"})"};
    for (const std::string& line : lines) {
        const json::object answer = reply(line);
        EXPECT_FALSE(answer.at("ok").as_bool()) << line;
        EXPECT_FALSE(answer.at("error").as_string().empty()) << line;
    }
}

TEST_F(ControlCommandsTest, DamagedRequestsGetAReplyToo) {
    std::mt19937 random(1);
    const std::string sound = R"({"command": "flusher", "words": ["interval", "0.5"]})";
    for (int round = 0; round < 2000; ++round) {
        std::string line = sound;
        for (auto changes = 1 + random() % 3; changes > 0; --changes) {
            line[random() % line.size()] = static_cast<char>(random() % 256);
        }
        EXPECT_TRUE(reply(line).contains("ok")) << line;
    }
}

TEST_F(ControlCommandsTest, EveryCommandOfTheTableIsThere) {
    for (const control::CommandHelp& command : control::command_table()) {
        const json::object answer = ask(std::string(command.name));
        const std::string text = json::serialize(answer);
        EXPECT_EQ(text.find("there is no command"), std::string::npos) << text;
    }
    EXPECT_NE(error("reboot").find("there are status, "), std::string::npos);
}

TEST_F(ControlCommandsTest, WordsThatDoNotBelongGetTheUsage) {
    for (const control::CommandHelp& command : control::command_table()) {
        EXPECT_EQ(error(std::string(command.name), {"no", "such", "words"}),
                  "usage: " + std::string(command.name) + (command.words.empty() ? "" : " ") +
                      std::string(command.words));
    }
}

TEST_F(ControlCommandsTest, StatusTellsThePagesByState) {
    const fs::InodeRef file = bed_.make("file", 3 * cache::kPageSize);
    json::value pages = result("status").at("pages");
    EXPECT_GE(pages.at("dirty").to_number<int>(), 3);
    EXPECT_EQ(pages.at("writeback").to_number<int>(), 0);
    ASSERT_TRUE(bed_.volume().sync_fs().has_value());
    pages = result("status").at("pages");
    EXPECT_EQ(pages.at("dirty").to_number<int>(), 0);
    EXPECT_GE(pages.at("clean").to_number<int>(), 3);
    const json::value volume = result("status").at("volume");
    EXPECT_EQ(volume.at("device").as_string(), "disk.img");
    EXPECT_EQ(volume.at("fat").to_number<int>(), 16);
    EXPECT_FALSE(volume.at("read_only").as_bool());
}

TEST_F(ControlCommandsTest, SyncWritesEverything) {
    const fs::InodeRef file = bed_.make("file", 10 * cache::kPageSize);
    ASSERT_GT(bed_.volume().cache().stats().nr_dirty, 0U);
    result("sync");
    EXPECT_EQ(bed_.volume().cache().stats().nr_dirty, 0U);
}

TEST_F(ControlCommandsTest, SyncSaysWhatFailed) {
    bed_.make("file", cache::kPageSize);
    bed_.faults().remove_device();
    EXPECT_EQ(error("sync"), "not everything could be written: Input/output error");
    commands_.reset();
    bed_.crash();
    bed_.faults().insert_device();
    bed_.mount();
}

TEST_F(ControlCommandsTest, DropCachesDropsCleanPages) {
    {
        const fs::InodeRef file = bed_.make("file", 10 * cache::kPageSize);
        result("sync");
    }
    EXPECT_GE(result("drop-caches").at("pages_dropped").to_number<int>(), 10);
    // The volume itself holds on to a page or two of its own.
    EXPECT_LT(bed_.volume().cache().stats().nr_cached, 5U);
}

TEST_F(ControlCommandsTest, TheFlusherIsPausedOnceAndResumedOnce) {
    EXPECT_FALSE(result("flusher").at("paused").as_bool());
    EXPECT_TRUE(result("flusher", {"pause"}).at("paused").as_bool());
    EXPECT_TRUE(result("flusher", {"pause"}).at("paused").as_bool());
    EXPECT_FALSE(result("flusher", {"resume"}).at("paused").as_bool());
    EXPECT_FALSE(result("flusher", {"resume"}).at("paused").as_bool());
    result("flusher", {"pause"});
    commands_.reset();
    EXPECT_FALSE(bed_.volume().cache().flusher().status().paused) << "still paused without a door";
}

TEST_F(ControlCommandsTest, TheIntervalIsSeconds) {
    EXPECT_EQ(
        result("flusher", {"interval", "0.5"}).at("dirty_writeback_centisecs").to_number<int>(),
        50);
    EXPECT_EQ(result("flusher", {"interval", "0"}).at("dirty_writeback_centisecs").to_number<int>(),
              0);
    for (const char* wrong : {"", "x", "-1", "3601", "nan", "inf", "1s", "0x10"}) {
        EXPECT_EQ(error("flusher", {"interval", wrong}),
                  "flusher interval: give seconds from 0 to 3600, such as 5 or 0.5")
            << wrong;
    }
}

TEST_F(ControlCommandsTest, AssertionsAreSetAllOrNone) {
    using cache::Assertion;
    using cache::AssertionState;
    result("assert", {"set", "bug_on_writeback:warn", "late_touch:off"});
    EXPECT_EQ(cache::assertion_state(Assertion::kBugOnWriteback), AssertionState::kWarn);
    EXPECT_EQ(cache::assertion_state(Assertion::kLateTouch), AssertionState::kOff);
    EXPECT_NE(error("assert", {"set", "bug_on_writeback:off", "no_such:warn"}), "");
    EXPECT_EQ(cache::assertion_state(Assertion::kBugOnWriteback), AssertionState::kWarn);
    EXPECT_EQ(result("assert").at("assertions").as_array().size(), cache::kNrAssertions);
}

TEST_F(ControlCommandsTest, TheTraceIsSwitched) {
    EXPECT_FALSE(result("trace", {"off"}).at("on").as_bool());
    EXPECT_TRUE(result("trace", {"on"}).at("on").as_bool());
    EXPECT_TRUE(result("trace").at("on").as_bool());
}

TEST_F(ControlCommandsTest, TheTraceIsToldAsPerfettoReadsIt) {
    result("trace", {"on"});
    bed_.make("file", cache::kPageSize);
    const json::value saved = result("trace", {"save"});
    EXPECT_GT(saved.at("nr_events").to_number<int>(), 0);
    EXPECT_TRUE(json::parse(saved.at("trace").as_string()).as_object().contains("traceEvents"));
}

TEST_F(ControlCommandsTest, ReportsAreListedAndShown) {
    cache::forget_oopses();
    cache::OopsOptions options;
    options.sink = [](const cache::Oops&) {};
    cache::install_oops_reports(std::move(options));
    EXPECT_TRUE(result("oops").at("reports").as_array().empty());
    cache::set_assertion(cache::Assertion::kLateTouch, cache::AssertionState::kWarn);
    CACHE_ASSERT(cache::Assertion::kLateTouch, false, "on purpose");
    const json::value list = result("oops", {"list"}).at("reports");
    ASSERT_EQ(list.as_array().size(), 1U);
    EXPECT_EQ(list.at(0).at("assertion").as_string(), "late_touch");
    const std::string number = std::to_string(list.at(0).at("number").to_number<int>());
    const json::value shown = result("oops", {"show", number});
    EXPECT_NE(shown.at("text").as_string().find("on purpose"), std::string::npos);
    EXPECT_EQ(shown.at("severity").as_string(), "warning");
    EXPECT_EQ(error("oops", {"show", "999"}), "no report '999' is kept; oops list tells which are");
    EXPECT_EQ(result("status").at("last_report").to_number<int>(), std::stoi(number));
    cache::remove_oops_reports();
    cache::forget_oopses();
}

TEST_F(ControlCommandsTest, PointRulesAreSetAllOrNoneCountedAndRemoved) {
    EXPECT_TRUE(result("point").at("points").as_array().empty());
    const std::string ordering = "test:held after test:first give up 1ms";
    result("point", {"set", "test:a=2*count", ordering});
    for (int pass = 0; pass < 3; ++pass) {
        WBFAT_POINT("test:a");
    }
    WBFAT_POINT("test:held");
    WBFAT_POINT("test:first");
    WBFAT_POINT("test:held");
    const json::value rules = result("point", {"list"}).at("points");
    ASSERT_EQ(rules.as_array().size(), 2U);
    EXPECT_EQ(json::serialize(rules.at(0)),
              R"({"text":"test:a=2*count","hits":3,"acted":2,"met":0,"given_up":0})");
    EXPECT_EQ(json::serialize(rules.at(1)),
              R"({"text":")" + ordering + R"(","hits":2,"acted":2,"met":1,"given_up":1})");
    EXPECT_EQ(result("status").at("point_rules").to_number<int>(), 2);
    EXPECT_EQ(error("point", {"set", "test:b=count", "test:c=explode"}),
              "point rule 'test:c=explode': action 'explode' is not valid; give off, count, yield, "
              "pause, print, sleep(TIME) or delay(TIME)");
    EXPECT_EQ(result("point").at("points").as_array().size(), 2U);
    // A file of rules is one word; setting a site again replaces its rule.
    result("point", {"set", "# all new\n\ntest:a=yield\ntest:b=yield\n"});
    EXPECT_EQ(result("point").at("points").as_array().size(), 3U);
    EXPECT_TRUE(result("point", {"clear"}).at("points").as_array().empty());
}

TEST_F(ControlCommandsTest, RulesEndBeforeTheUnmountThatTheyWouldHold) {
    result("point", {"set", "test:a=count"});
    WBFAT_POINT("test:a");
    EXPECT_EQ(commands_->end_point_rules().at(0).hits, 1U);
    EXPECT_EQ(error("point", {"set", "test:a=pause"}), "the volume is being unmounted");
    WBFAT_POINT("test:a");
    EXPECT_EQ(commands_->end_point_rules().at(0).hits, 1U);
}

TEST_F(ControlCommandsTest, TheProtocolIsTold) {
    const json::value told = result("protocol");
    EXPECT_EQ(told.at("protocol").as_string(), "6.8");
    EXPECT_EQ(told.at("switches").at("end").as_string(), "xor");
    EXPECT_EQ(result("protocol", {"list"}).at("presets").as_array().size(),
              cache::protocol_presets().size());
}

TEST_F(ControlCommandsTest, TheProtocolIsSet) {
    bed_.make("file", 10 * cache::kPageSize);
    EXPECT_EQ(result("protocol", {"set", "5.9", "end=xor"}).at("protocol").as_string(),
              "5.9,end=xor");
    EXPECT_EQ(cache::to_string(cache::current_protocol()), "5.9,end=xor");
    EXPECT_NE(error("protocol", {"set", "5.7"}).find("5.11"), std::string::npos);
    EXPECT_EQ(cache::to_string(cache::current_protocol()), "5.9,end=xor");
    result("protocol", {"set", "6.8"});
}

TEST_F(ControlCommandsTest, ThePageIsServedWhenAskedForAndStopped) {
    const json::value served = result("web");
    EXPECT_TRUE(served.at("url").as_string().starts_with("http://127.0.0.1:"));
    EXPECT_EQ(result("web").at("url"), served.at("url"));
    EXPECT_TRUE(result("web", {"stop"}).at("url").is_null());
    EXPECT_NE(result("web").at("url"), served.at("url")) << "the old secret still opens it";
    EXPECT_EQ(error("web", {"0.0.0.0:80"}),
              "web: '0.0.0.0:80' is not valid; give a loopback address and a port, such as "
              "127.0.0.1:8080");
    EXPECT_EQ(result("web", {"say", "Two", "threads write."}).at("says").as_string(),
              "Two threads write.");
    EXPECT_EQ(result("web").at("says").as_string(), "Two threads write.");
    EXPECT_EQ(error("web", {"say", std::string(501, 'x')}),
              "web say: 501 bytes are too many; the page has room for 500");
    EXPECT_EQ(commands_->said(), "Two threads write.");
    result("web", {"say"});
    EXPECT_EQ(commands_->said(), "");
    const std::string from_page = commands_->answer(R"({"command": "web", "words": ["stop"]})",
                                                    ControlCommands::Caller::kPage);
    EXPECT_NE(from_page.find("cannot start or stop itself"), std::string::npos) << from_page;
}

}  // namespace
}  // namespace wbfat::daemon
