// One page under one version of the protocol, and a record of the steps that named threads take.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cache/page_wait.h"
#include "cache/protocol.h"

#include "tests/cache/page_fixture.h"

namespace wbfat::cache::inline WBFAT_RT {

inline Protocol protocol_named(const std::string& text) {
    Protocol protocol;
    EXPECT_EQ(Protocol::parse(text, protocol), "");
    return protocol;
}

// The points that one task passes, in order, from here to the destructor.
class StepRecorder {
public:
    explicit StepRecorder(const std::string& task) {
        for (const char* point :
             {"wait:waiters_set", "wait:queued", "wait:woken", "wait:finish",
              "wake:before_queue_lock", "wake:flagged", "wake:woken", "wake:unlinked",
              "wake:broken", "unlink:half", "unlock_page:cleared", "end_writeback:before_lock",
              "end_writeback:cleared", "end_writeback:waiters_read", "wait_writeback:seen",
              "wait_writeback:woken", "set_writeback:done"}) {
            sync::PointRule rule = only(task);
            rule.hook = [this, point] { record(point); };
            rules_.push_back(sync::arm_point(point, std::move(rule)));
        }
    }
    ~StepRecorder() {
        for (const sync::PointRuleId rule : rules_) {
            sync::disarm_point(rule);
        }
    }
    StepRecorder(const StepRecorder&) = delete;
    StepRecorder& operator=(const StepRecorder&) = delete;

    // Points of one family are what most tests ask for: "wake:" or "wait".
    std::vector<std::string> steps(std::string_view prefix = {}) const {
        const sync::MutexLock lock(mutex_);
        std::vector<std::string> selected;
        for (const std::string& step : steps_) {
            if (step.starts_with(prefix)) {
                selected.push_back(step);
            }
        }
        return selected;
    }

private:
    void record(const char* point) {
        const sync::MutexLock lock(mutex_);
        steps_.emplace_back(point);
    }

    mutable sync::Mutex mutex_;
    std::vector<std::string> steps_ GUARDED_BY(mutex_);
    std::vector<sync::PointRuleId> rules_;
};

class ProtocolFixture : public PageTest {
protected:
    ProtocolFixture() {
        sync::reset_point_hits();
    }
    ~ProtocolFixture() override {
        set_protocol_while_idle(Protocol{});
    }

    static void use(const std::string& text) {
        set_protocol_while_idle(protocol_named(text));
    }
    // Starts a thread and returns when it is queued, has looked at the bit, and goes to sleep.
    static sync::Thread start_queued(const std::string& name, std::function<void()> body) {
        sync::PointGate asleep("wait:before_sleep", only(name));
        sync::Thread thread(name, sync::Role::kOther, std::move(body));
        asleep.wait_for_arrivals();
        return thread;
    }
    // Takes a page into writeback as a writer does under the protocol in force.
    void write(Page& page) {
        lock_page(page);
        prepare_page_writeback(page);
        clear_page_dirty_for_io(page);
        set_page_writeback(page);
        unlock_page(page);
    }
};

}  // namespace wbfat::cache::inline WBFAT_RT
