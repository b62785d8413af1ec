// Steps become boxes, flag words become strips, pauses and wake-ups become lines.
#include "tools/explore/draw/story_of.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "cache/page_flags.h"

#include "tools/explore/draw/explain.h"
#include "tools/explore/draw/happens_before.h"

namespace wbfat::explore {

namespace {

// Flags that have a strip if they change, in this order. PG_locked has one of its own kind.
constexpr std::array<std::uint64_t, 3> kStripFlags = {cache::PG_writeback, cache::PG_dirty,
                                                      cache::PG_waiters};
constexpr std::uint64_t kBoxFlags =
    cache::PG_locked | cache::PG_writeback | cache::PG_dirty | cache::PG_waiters;

// The functions whose names a reader of the kernel knows: the innermost of these frames a box, and
// only without any the innermost of all does.
constexpr std::array<std::string_view, 24> kKnownFunctions = {
    "lock_page",
    "lock_page_killable",
    "trylock_page",
    "unlock_page",
    "wait_on_page_locked",
    "put_and_wait_on_page_locked",
    "set_page_dirty",
    "clear_page_dirty_for_io",
    "redirty_page_for_writepage",
    "cancel_dirty_page",
    "set_page_writeback",
    "end_page_writeback",
    "wait_on_page_writeback",
    "wait_on_page_writeback_killable",
    "wait_for_stable_page",
    "write_cache_pages",
    "tag_pages_for_writeback",
    "mpage_writepages",
    "do_writepages",
    "filemap_fdatawait_range",
    "filemap_check_errors",
    "truncate_pagecache",
    "fat_cont_expand",
    "balance_dirty_pages",
};

class Teller {
public:
    Teller(const RunRecord& run, Folding folding) : run_(run), folding_(folding) {}

    Story tell(std::vector<std::string> subtitle) {
        explanation_ = explain(run_);
        clocks_ = happens_before(run_);
        story_.mood = run_.failure.verdict == Verdict::kOk ? Mood::kSafe : Mood::kFailed;
        story_.title = explanation_.title;
        story_.subtitle = std::move(subtitle);
        for (const TaskRecord& task : run_.tasks) {
            story_.threads.push_back(
                {.name = task.name, .role = task.purpose.empty() ? task.role : task.purpose});
        }
        for (int i = 0; i < nr_steps(); ++i) {
            add_step(i);
        }
        drop_idle_threads();
        add_chapters();
        add_segments();
        add_pauses();
        add_strips();
        add_arrows();
        add_inevitability();
        return std::move(story_);
    }

private:
    int nr_steps() const {
        return static_cast<int>(run_.steps.size());
    }
    const StepRecord& step(int index) const {
        return run_.steps[static_cast<std::size_t>(index)];
    }
    const std::string& task_name(int task) const {
        return run_.tasks[static_cast<std::size_t>(task)].name;
    }
    std::size_t box_of(int index) const {
        return box_of_[static_cast<std::size_t>(index)];
    }

    std::string of_page(int page) const {
        return run_.pages.size() < 2 ? ""
                                     : " of " + run_.pages[static_cast<std::size_t>(page)].name;
    }

    // "PG_writeback of P": where there is one page, of which is no question.
    std::string without_page(const std::string& text) const {
        const std::string suffix = run_.pages.size() == 1 ? " of " + run_.pages[0].name : "";
        return text.ends_with(suffix) ? text.substr(0, text.size() - suffix.size()) : text;
    }

    // --- boxes

    static std::string function_of(const StepRecord& step) {
        for (auto it = step.functions.rbegin(); it != step.functions.rend(); ++it) {
            if (std::find(kKnownFunctions.begin(), kKnownFunctions.end(), *it) !=
                kKnownFunctions.end()) {
                return *it;
            }
        }
        // A lambda has no name that says anything.
        const std::string& innermost =
            step.functions.empty() ? std::string() : step.functions.back();
        return innermost == "operator()" ? "" : innermost;
    }

    void add_step(int index) {
        Box box = describe(index);
        const bool worth = box.deed != Deed::kPlain;
        if (folding_ == Folding::kFold && !worth && fold_into_last(box)) {
            box_of_.push_back(story_.boxes.size() - 1);
            return;
        }
        story_.boxes.push_back(std::move(box));
        box_of_.push_back(story_.boxes.size() - 1);
    }

    // Whether the last box is a plain one of the same thread, which then takes the step in.
    bool fold_into_last(const Box& box) {
        if (story_.boxes.empty()) {
            return false;
        }
        Box& last = story_.boxes.back();
        if (last.deed != Deed::kPlain || last.thread != box.thread) {
            return false;
        }
        ++last.nr_steps;
        last.verb = std::to_string(last.nr_steps);
        last.object = "steps";
        last.detail += "\n" + box.detail;
        last.clock = box.clock;
        if (last.function != box.function) {
            last.function.clear();
        }
        return true;
    }

    Box describe(int index) const {
        const StepRecord& step = this->step(index);
        Box box{.first_step = static_cast<std::size_t>(index),
                .thread = static_cast<std::size_t>(step.task),
                .function = function_of(step),
                .detail = detail_of(index),
                .clock = clocks_[static_cast<std::size_t>(index)]};
        if (is_failing(index)) {
            fill_failing(box);
        } else if (!fill_flag_change(index, box) && !fill_wait(index, box) &&
                   !fill_look(index, box)) {
            box.verb = std::string(plain_verb(step.kind));
            box.object = short_name(step.object.empty() ? step.operation : step.object);
        }
        return box;
    }

    bool is_failing(int index) const {
        return run_.failure.verdict == Verdict::kAssertion && index == failing_step();
    }
    int failing_step() const {
        return run_.failure.step >= 0 ? run_.failure.step : nr_steps() - 1;
    }

    void fill_failing(Box& box) const {
        box.deed = Deed::kFail;
        box.verb = "BUG_ON";
        if (explanation_.accused != 0) {
            const bool set = (page_state_after(run_, failing_step(), explanation_.page).flags &
                              explanation_.accused) != 0;
            box.object =
                fmt::format("{} {}", flag_name(explanation_.accused), set ? "set" : "clear");
        }
    }

    bool fill_flag_change(int index, Box& box) const {
        for (int page = 0; page < static_cast<int>(run_.pages.size()); ++page) {
            const std::uint64_t before = page_state_before(run_, index, page).flags;
            const std::uint64_t after = page_state_after(run_, index, page).flags;
            const std::uint64_t changed = (before ^ after) & kBoxFlags;
            if (changed == 0) {
                continue;
            }
            if ((changed & cache::PG_locked) != 0) {
                const bool locks = (after & cache::PG_locked) != 0;
                box.deed = locks ? Deed::kLock : Deed::kUnlock;
                box.verb = locks ? "locks" : "unlocks";
                box.object = run_.pages.size() < 2
                                 ? "page"
                                 : "page " + run_.pages[static_cast<std::size_t>(page)].name;
                return true;
            }
            const std::uint64_t bit = changed & (~changed + 1);
            box.deed = Deed::kWrite;
            box.verb = (after & bit) != 0 ? "sets" : "clears";
            box.object = flag_name(bit) + of_page(page);
            return true;
        }
        return false;
    }

    bool fill_wait(int index, Box& box) const {
        const StepRecord& step = this->step(index);
        for (const PauseRecord& pause : run_.pauses) {
            if (is_sleep(pause) && waker_of(pause) == index) {
                box.deed = Deed::kWake;
                box.verb = "wakes";
                box.object += (box.object.empty() ? "" : ", ") + task_name(pause.task);
            }
        }
        if (box.deed == Deed::kWake) {
            return true;
        }
        for (const PauseRecord& pause : run_.pauses) {
            if (pause.task != step.task || !is_sleep(pause)) {
                continue;
            }
            if (resumed_at(pause) == index) {
                box.deed = Deed::kWoken;
                box.verb = "woken";
                const int waker = waker_of(pause);
                box.object = waker < 0 ? "" : "by " + task_name(this->step(waker).task);
                return true;
            }
            if (pause.from == index) {
                box.deed = Deed::kSleep;
                box.verb = "sleeps";
                box.object = "on " + without_page(pause.on);
                return true;
            }
        }
        return false;
    }

    // On a flag of a page. A lock that was not free, and a wake-up that only the scenario knows of,
    // are waited for too, but that is no step of the story.
    static bool is_sleep(const PauseRecord& pause) {
        return pause.why == PauseRecord::Why::kAsleep && pause.from >= 0 &&
               pause.on.starts_with("PG_");
    }

    // Its next step: who was woken may be delayed before that. nr_steps() if there is none.
    int resumed_at(const PauseRecord& pause) const {
        int index = std::max(pause.to, 0);
        while (index < nr_steps() && step(index).task != pause.task) {
            ++index;
        }
        return index;
    }

    int waker_of(const PauseRecord& pause) const {
        for (int i = std::min(pause.to, nr_steps()) - 1; i > pause.from; --i) {
            const std::vector<int>& woken = step(i).woken;
            if (std::find(woken.begin(), woken.end(), pause.task) != woken.end()) {
                return i;
            }
        }
        return -1;
    }

    // A look at the accused flag by somebody who does not change it.
    bool fill_look(int index, Box& box) const {
        const StepRecord& step = this->step(index);
        const std::string name = flag_name(explanation_.accused);
        if (explanation_.accused == 0 || step.page != explanation_.page ||
            step.operation.find(name) == std::string::npos) {
            return false;
        }
        const bool set = (step.before & explanation_.accused) != 0;
        box.deed = Deed::kRead;
        box.verb = set ? "sees set" : "sees clear";
        box.object = name;
        return true;
    }

    static std::string short_name(std::string name) {
        constexpr std::string_view kLockOf = "lock of ";
        return name.starts_with(kLockOf) ? name.substr(kLockOf.size()) : name;
    }

    static std::string_view plain_verb(OpKind kind) {
        switch (kind) {
            case OpKind::kStart:
                return "begins";
            case OpKind::kLoad:
                return "reads";
            case OpKind::kStore:
                return "writes";
            case OpKind::kReadModifyWrite:
                return "changes";
            case OpKind::kLock:
            case OpKind::kLockShared:
                return "locks";
            case OpKind::kTryLock:
                return "tries";
            case OpKind::kUnlock:
            case OpKind::kUnlockShared:
                return "unlocks";
            case OpKind::kPark:
                return "parks";
            case OpKind::kUnpark:
                return "unparks";
            case OpKind::kCondWait:
                return "waits";
            case OpKind::kCondNotify:
                return "notifies";
            case OpKind::kJoin:
                return "joins";
            case OpKind::kSleep:
                return "sleeps";
            case OpKind::kPoint:
                return "passes";
            case OpKind::kFinish:
                return "ends";
        }
        return "";
    }

    std::string detail_of(int index) const {
        const StepRecord& step = this->step(index);
        std::string text =
            fmt::format("step {}: {} {}", index + 1, task_name(step.task), step.operation);
        if (!step.object.empty()) {
            text += fmt::format(" ({})", step.object);
        }
        if (!step.functions.empty()) {
            text += fmt::format(", in {}()", step.functions.back());
        }
        if (!step.file.empty()) {
            text += fmt::format(", {}:{}", step.file, step.line);
        }
        for (const std::string& point : step.points) {
            text += fmt::format("; passes {}", point);
        }
        return text;
    }

    // --- the rest

    // Tasks of the cache that never ran would be empty lanes.
    void drop_idle_threads() {
        std::vector<std::size_t> place(story_.threads.size());
        std::vector<StoryThread> kept;
        for (std::size_t i = 0; i < story_.threads.size(); ++i) {
            const bool ran = std::any_of(story_.boxes.begin(), story_.boxes.end(),
                                         [i](const Box& box) { return box.thread == i; });
            place[i] = kept.size();
            if (ran || !run_.tasks[i].of_the_cache) {
                kept.push_back(story_.threads[i]);
            }
        }
        for (Box& box : story_.boxes) {
            std::vector<std::uint32_t> clock(kept.size());
            for (std::size_t i = 0; i < place.size(); ++i) {
                if (place[i] < clock.size() && box.clock[i] != 0) {
                    clock[place[i]] = box.clock[i];
                }
            }
            box.clock = std::move(clock);
            box.thread = place[box.thread];
        }
        lane_of_ = place;
        story_.threads = std::move(kept);
    }

    void add_chapters() {
        for (const Chapter& chapter : explanation_.chapters) {
            story_.chapters.push_back(chapter.sentence);
            story_.boxes[box_of(chapter.step)].chapter = story_.chapters.size();
        }
    }

    void add_segments() {
        for (int i = 0; i < nr_steps();) {
            int end = i;
            while (end < nr_steps() && step(end).task == step(i).task) {
                ++end;
            }
            const std::size_t first = box_of(i);
            story_.segments.push_back(
                {.first_box = first,
                 .nr_boxes = box_of(end - 1) - first + 1,
                 .text = fmt::format(
                     "{}{}", run_.tasks[static_cast<std::size_t>(step(i).task)].letter, end - i)});
            i = end;
        }
    }

    void add_pauses() {
        for (const PauseRecord& pause : run_.pauses) {
            if (pause.from < 0 || pause.to <= pause.from) {
                continue;
            }
            const bool ends = pause.to < nr_steps();
            const bool asleep = pause.why == PauseRecord::Why::kAsleep;
            if (!ends && (!asleep || run_.failure.verdict != Verdict::kDeadlock ||
                          run_.tasks[static_cast<std::size_t>(pause.task)].of_the_cache)) {
                continue;  // the run stopped before; that says nothing of this thread
            }
            const Pause::Kind kind = !asleep           ? Pause::Kind::kDelayed
                                     : is_sleep(pause) ? Pause::Kind::kAsleep
                                                       : Pause::Kind::kBlocked;
            Pause drawn{.kind = kind,
                        .thread = lane_of_[static_cast<std::size_t>(pause.task)],
                        .from_box = box_of(pause.from)};
            if (ends) {
                drawn.to_box = box_of(pause.to);
                if (*drawn.to_box <= drawn.from_box) {
                    continue;
                }
            }
            drawn.text = pause_text(pause, kind, ends);
            story_.pauses.push_back(std::move(drawn));
        }
    }

    std::string pause_text(const PauseRecord& pause, Pause::Kind kind, bool ends) const {
        switch (kind) {
            case Pause::Kind::kDelayed:
                return "delayed";
            case Pause::Kind::kBlocked:
                return fmt::format("waits for {}", without_page(pause.on));
            case Pause::Kind::kAsleep:
                break;
        }
        return ends ? fmt::format("asleep on {}", without_page(pause.on))
                    : fmt::format("asleep on {}, for ever", without_page(pause.on));
    }

    void add_strips() {
        for (int page = 0; page < static_cast<int>(run_.pages.size()); ++page) {
            for (const std::uint64_t bit : kStripFlags) {
                add_flag_strip(page, bit);
            }
            add_owner_strip(page);
        }
    }

    void add_flag_strip(int page, std::uint64_t bit) {
        Strip strip{.name = flag_name(bit) + of_page(page)};
        strip.set_before = (run_.pages[static_cast<std::size_t>(page)].initial.flags & bit) != 0;
        strip.accused = bit == explanation_.accused && page == explanation_.page;
        bool set = strip.set_before;
        for (int i = 0; i < nr_steps(); ++i) {
            const bool now = (page_state_after(run_, i, page).flags & bit) != 0;
            if (now != set) {
                set = now;
                strip.changes.push_back({.box = box_of(i),
                                         .set = now,
                                         .text = now ? "set by " + task_name(step(i).task) : ""});
            }
        }
        if (!strip.changes.empty() || strip.accused) {
            story_.strips.push_back(std::move(strip));
        }
    }

    std::string owner_text(int owner) const {
        return owner < 0 ? "held" : task_name(owner);
    }

    void add_owner_strip(int page) {
        const auto held = [](const PageState& state) {
            return (state.flags & cache::PG_locked) != 0;
        };
        PageState last = run_.pages[static_cast<std::size_t>(page)].initial;
        Strip strip{.kind = Strip::Kind::kOwner,
                    .name = "page lock" + of_page(page),
                    .set_before = held(last),
                    .text_before = held(last) ? owner_text(last.lock_owner) : ""};
        for (int i = 0; i < nr_steps(); ++i) {
            const PageState& now = page_state_after(run_, i, page);
            const bool handed_over = held(now) && now.lock_owner != last.lock_owner;
            if (held(now) != held(last) || handed_over) {
                strip.changes.push_back({.box = box_of(i),
                                         .set = held(now),
                                         .text = held(now) ? owner_text(now.lock_owner) : ""});
            }
            last = now;
        }
        if (!strip.changes.empty()) {
            story_.strips.push_back(std::move(strip));
        }
    }

    void add_arrows() {
        for (const PauseRecord& pause : run_.pauses) {
            const int waker = is_sleep(pause) ? waker_of(pause) : -1;
            const int resumed = resumed_at(pause);
            if (waker >= 0 && resumed < nr_steps()) {
                story_.arrows.push_back({.kind = Arrow::Kind::kWake,
                                         .from_box = box_of(waker),
                                         .to_box = box_of(resumed),
                                         .text = "wakes"});
            }
        }
        if (explanation_.seen_write >= 0) {
            story_.arrows.push_back(
                {.kind = Arrow::Kind::kSaw,
                 .from_box = box_of(explanation_.seen_write),
                 .to_box = box_of(failing_step()),
                 .text = fmt::format("seen by {}", task_name(step(failing_step()).task))});
        }
    }

    // One value for the state before the first box and one after each.
    void add_inevitability() {
        if (run_.inevitability.size() != run_.steps.size() + 1 || run_.steps.empty()) {
            return;
        }
        story_.inevitability.push_back(run_.inevitability.front());
        for (const Box& box : story_.boxes) {
            story_.inevitability.push_back(run_.inevitability[box.first_step + box.nr_steps]);
        }
    }

    const RunRecord& run_;
    const Folding folding_;
    Story story_;
    Explanation explanation_;
    std::vector<std::vector<std::uint32_t>> clocks_;
    std::vector<std::size_t> box_of_;   // of each step
    std::vector<std::size_t> lane_of_;  // of each task
};

}  // namespace

Story story_of(const RunRecord& run, std::vector<std::string> subtitle, Folding folding) {
    return Teller(run, folding).tell(std::move(subtitle));
}

std::string schedule_of(const RunRecord& run) {
    std::string text;
    for (std::size_t i = 0; i < run.steps.size();) {
        std::size_t end = i;
        while (end < run.steps.size() && run.steps[end].task == run.steps[i].task) {
            ++end;
        }
        text += fmt::format("{}{}{}", text.empty() ? "" : " ",
                            run.tasks[static_cast<std::size_t>(run.steps[i].task)].letter, end - i);
        i = end;
    }
    return text;
}

}  // namespace wbfat::explore
