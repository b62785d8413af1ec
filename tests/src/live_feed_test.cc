// Goal: a viewer hears every change once, in few words, and nothing while nothing changes. Method:
// a volume in memory, changed between two updates.
#include "src/live_feed.h"

#include <chrono>
#include <string>
#include <thread>

#include <boost/json.hpp>

#include <gtest/gtest.h>

#include "cache/assertions.h"
#include "cache/oops.h"

#include "tests/support/volume_fixture.h"

namespace wbfat::daemon {
namespace {

namespace json = boost::json;

class LiveFeedTest : public testing::Test {
protected:
    LiveFeedTest() {
        bed_.mount();
        context_.emplace(
            ControlContext{bed_.volume(), bed_.volume().cache(), options_, "disk.img", "/mnt"});
        feed_.emplace(*context_, [this] { return said_; });
    }
    ~LiveFeedTest() override {
        feed_.reset();
        context_.reset();
        bed_.unmount();
        cache::set_trace(cache::TraceState::kOn);
    }
    json::object update() {
        const std::string text = feed_->update();
        return text.empty() ? json::object() : json::parse(text).as_object();
    }
    // Files are chosen a few times a second: the update that tells of `name`.
    json::object wait_for_files(const std::string& name) {
        for (;;) {
            json::object told = update();
            if (const json::value* const files = told.if_contains("files")) {
                for (const json::value& file : files->as_array()) {
                    if (file.at(1).as_string() == name) {
                        id_ = file.at(0).to_number<std::uint64_t>();
                        return told;
                    }
                }
            }
            std::this_thread::yield();
        }
    }
    // Returns its id.
    std::uint64_t wait_for_file(const std::string& name) {
        const json::object told = wait_for_files(name);
        cells_ = told.contains("cells") ? told.at("cells").as_array() : json::array();
        return id_;
    }
    // The words of file `id_` in an update.
    static std::vector<json::array> words_of(const json::array& cells, std::uint64_t id) {
        std::vector<json::array> words;
        for (const json::value& word : cells) {
            if (word.at(0).to_number<std::uint64_t>() == id) {
                words.push_back(word.as_array());
            }
        }
        return words;
    }

    fs::TestVolume bed_;
    DaemonOptions options_;
    std::optional<ControlContext> context_;
    std::string said_;
    std::optional<LiveFeed> feed_;
    std::uint64_t id_ = 0;
    json::array cells_;
};

TEST_F(LiveFeedTest, TellsEverythingFirstAndNothingTwice) {
    const fs::InodeRef file = bed_.make("file", 3 * cache::kPageSize);
    cache::set_trace(cache::TraceState::kOff);
    const json::object first = update();
    for (const char* member :
         {"t", "stats", "files", "cells", "protocol", "trace", "guilty", "hits"}) {
        EXPECT_TRUE(first.contains(member)) << member;
    }
    EXPECT_EQ(feed_->update(), "");
}

TEST_F(LiveFeedTest, AFileKeepsItsNumberWhileItIsShown) {
    const fs::InodeRef file = bed_.make("file", 3 * cache::kPageSize);
    const std::uint64_t id = wait_for_file(file->mapping().name());
    // Until files were chosen again.
    const fs::InodeRef other = bed_.make("other", cache::kPageSize);
    std::uint64_t after = 0;
    const json::object told = wait_for_files("other");
    for (const json::value& one : told.at("files").as_array()) {
        after = one.at(1).as_string() == "file" ? one.at(0).to_number<std::uint64_t>() : after;
    }
    EXPECT_EQ(after, id);
    EXPECT_TRUE(words_of(told.at("cells").as_array(), id).empty());
}

TEST_F(LiveFeedTest, APageThatTurnsDirtyAndCleanIsOneWordEach) {
    const fs::InodeRef file = bed_.make("file", 100 * cache::kPageSize);
    ASSERT_TRUE(bed_.volume().sync_fs().has_value());
    const std::uint64_t id = wait_for_file(file->mapping().name());
    std::vector<json::array> words = words_of(cells_, id);
    ASSERT_EQ(words.size(), 2U);
    EXPECT_EQ(words[0], (json::array{id, 0, "ffffffffffffffff"}));
    EXPECT_EQ(words[1], (json::array{id, 1, "fffffffff"}));

    bed_.write(file, 66 * cache::kPageSize, 1, 7);
    const json::object dirty = update();
    words = words_of(dirty.at("cells").as_array(), id);
    ASSERT_EQ(words.size(), 1U);
    EXPECT_EQ(words[0], (json::array{id, 1, "fffffffff", "4"}));
    EXPECT_TRUE(dirty.at("stats").as_object().contains("nr_dirty"));

    ASSERT_TRUE(bed_.volume().sync_fs().has_value());
    const json::object clean = update();
    words = words_of(clean.at("cells").as_array(), id);
    ASSERT_EQ(words.size(), 1U);
    EXPECT_EQ(words[0], (json::array{id, 1, "fffffffff"}));
}

TEST_F(LiveFeedTest, PagesThatLeaveAreToldToo) {
    const fs::InodeRef file = bed_.make("file", 100 * cache::kPageSize);
    ASSERT_TRUE(bed_.volume().sync_fs().has_value());
    const std::uint64_t id = wait_for_file(file->mapping().name());
    bed_.truncate(file, 10 * cache::kPageSize);
    const std::vector<json::array> words = words_of(update().at("cells").as_array(), id);
    ASSERT_EQ(words.size(), 2U);
    EXPECT_EQ(words[0], (json::array{id, 0, "3ff"}));
    EXPECT_EQ(words[1], (json::array{id, 1}));
}

TEST_F(LiveFeedTest, ALargerFileHasCellsOfMorePages) {
    const fs::InodeRef file = bed_.make("file", 8 * cache::kPageSize);
    wait_for_file(file->mapping().name());
    // Nothing but the size: no clusters are needed for it.
    file->mapping().i_size_write(std::uint64_t{1} << 30);
    json::object told;
    while (!told.contains("files")) {
        told = update();
    }
    for (const json::value& one : told.at("files").as_array()) {
        if (one.at(1).as_string() == file->mapping().name()) {
            EXPECT_EQ(one.at(3).to_number<int>(), 64);
            const auto words =
                words_of(told.at("cells").as_array(), one.at(0).to_number<std::uint64_t>());
            ASSERT_EQ(words.size(), 1U);
            EXPECT_EQ(words[0], (json::array{one.at(0), 0, "1", "1"}));
        }
    }
    file->mapping().i_size_write(8 * cache::kPageSize);
}

TEST_F(LiveFeedTest, AFileThatIsGoneIsNotFollowed) {
    {
        const fs::InodeRef file = bed_.make("file", 10 * cache::kPageSize);
        ASSERT_TRUE(bed_.volume().sync_fs().has_value());
        wait_for_file(file->mapping().name());
    }
    bed_.volume().inodes().shrink(0);
    const std::vector<json::array> words = words_of(update().at("cells").as_array(), id_);
    ASSERT_EQ(words.size(), 1U);
    EXPECT_EQ(words[0], (json::array{id_, 0}));
}

TEST_F(LiveFeedTest, WhatTheLoadDoesIsToldWhenItChanges) {
    cache::set_trace(cache::TraceState::kOff);
    EXPECT_EQ(update().at("says").as_string(), "");
    said_ = "Two \"threads\".";
    json::object told;
    while (!told.contains("says")) {
        told = update();
    }
    EXPECT_EQ(told.at("says").as_string(), said_);
}

TEST_F(LiveFeedTest, EventsNameTheirThreadAndFile) {
    cache::set_trace(cache::TraceState::kOn);
    const fs::InodeRef file = bed_.make("file", cache::kPageSize);
    const std::uint64_t id = wait_for_file(file->mapping().name());
    bed_.write(file, 0, 1, 9);
    json::object told;
    while (!told.contains("events")) {
        told = update();
    }
    const json::array& events = told.at("events").as_array();
    const bool found = std::any_of(events.begin(), events.end(), [&](const json::value& event) {
        return event.at(2).as_string() == "lock" && event.at(3).to_number<std::uint64_t>() == id &&
               event.at(4).to_number<int>() == 0;
    });
    EXPECT_TRUE(found) << json::serialize(told);
}

TEST_F(LiveFeedTest, APageThatFailedAnAssertionIsToldWithItsLastReport) {
    cache::OopsOptions options;
    options.sink = [](const cache::Oops&) {};
    cache::install_oops_reports(std::move(options));
    cache::set_assertion(cache::Assertion::kBugOnWriteback, cache::AssertionState::kWarn);
    const fs::InodeRef other = bed_.make("other", 3 * cache::kPageSize);
    const fs::InodeRef file = bed_.make("file", 3 * cache::kPageSize);
    const std::uint64_t id = wait_for_file(file->mapping().name());
    const auto fail = [&](cache::pgoff_t index) {
        cache::Page* const page = file->mapping().i_pages.find_get(index);
        PAGE_ASSERT(*page, cache::Assertion::kBugOnWriteback, false, "on purpose");
        cache::put_page(*page);
        json::object told;
        while (!told.contains("guilty")) {
            told = update();
        }
        return told.at("guilty");
    };
    const std::uint64_t before = cache::last_oops_number();
    EXPECT_EQ(fail(2), (json::array{json::array{id, 2, before + 1}}));
    EXPECT_EQ(fail(2), (json::array{json::array{id, 2, before + 2}}));
    EXPECT_EQ(fail(0),
              (json::array{json::array{id, 0, before + 3}, json::array{id, 2, before + 2}}));
    cache::set_assertion(cache::Assertion::kBugOnWriteback, cache::AssertionState::kBug);
    cache::remove_oops_reports();
    cache::forget_oopses();
}

TEST_F(LiveFeedTest, TheFirstEventsOfAFileNameItToo) {
    cache::set_trace(cache::TraceState::kOn);
    while (update().contains("events")) {
    }
    update();
    const fs::InodeRef file = bed_.make("file", cache::kPageSize);
    json::object told;
    while (!told.contains("events")) {
        told = update();
    }
    ASSERT_TRUE(told.contains("files")) << json::serialize(told);
    const json::array& shown = told.at("files").as_array().back().as_array();
    EXPECT_EQ(shown.at(1).as_string(), file->mapping().name());
    const json::array& events = told.at("events").as_array();
    EXPECT_TRUE(std::any_of(events.begin(), events.end(), [&](const json::value& event) {
        return event.at(2).as_string() == "insert" && event.at(3) == shown.at(0);
    })) << json::serialize(told);
    // A page that is in no file yet has no index.
    EXPECT_TRUE(std::any_of(events.begin(), events.end(), [&](const json::value& event) {
        return event.at(2).as_string() == "alloc" && event.at(4).to_number<int>() == -1;
    })) << json::serialize(told);
}

}  // namespace
}  // namespace wbfat::daemon
