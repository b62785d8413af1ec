// The backward walk from the failing step.
#include "tools/explore/draw/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "cache/failure_story.h"
#include "cache/page_flags.h"

namespace wbfat::explore {

namespace {

using cache::PG_dirty;
using cache::PG_locked;
using cache::PG_waiters;
using cache::PG_writeback;

struct FlagWords {
    std::uint64_t bit;
    const char* name;       // of the enumerator
    const char* predicate;  // as the kernel's test is spelled
};
constexpr std::array<FlagWords, 9> kFlags{{
    {PG_writeback, "PG_writeback", "PageWriteback"},
    {PG_dirty, "PG_dirty", "PageDirty"},
    {PG_locked, "PG_locked", "PageLocked"},
    {PG_waiters, "PG_waiters", "PageWaiters"},
    {cache::PG_uptodate, "PG_uptodate", "PageUptodate"},
    {cache::PG_referenced, "PG_referenced", "PageReferenced"},
    {cache::PG_error, "PG_error", "PageError"},
    {cache::PG_reclaim, "PG_reclaim", "PageReclaim"},
    {cache::PG_readahead, "PG_readahead", "PageReadahead"},
}};

// The flag that a text speaks of.
std::uint64_t flag_in(const std::string& text) {
    for (const FlagWords& flag : kFlags) {
        if (text.find(flag.name) != std::string::npos ||
            text.find(flag.predicate) != std::string::npos) {
            return flag.bit;
        }
    }
    return 0;
}

// The steps that the sentences are about; -1 where a run has none of the kind.
struct Culprits {
    int ended = -1;   // the waker cleared the flag
    int set = -1;     // the flag got the value that the failing step saw
    int slept = -1;   // the last step before the failing task slept
    int woke = -1;    // the step that woke it
    int failed = -1;  // the failing step
};

class Explainer {
public:
    explicit Explainer(const RunRecord& run) : run_(run) {}

    Explanation explain() {
        if (run_.failure.verdict == Verdict::kOk) {
            result_.title = "every task came to its end";
            return result_;
        }
        if (run_.failure.verdict == Verdict::kDeadlock) {
            explain_deadlock();
        } else {
            explain_failing_step();
        }
        return result_;
    }

private:
    const StepRecord& step(int index) const {
        return run_.steps.at(static_cast<std::size_t>(index));
    }
    const std::string& task_name(int index) const {
        return run_.tasks.at(static_cast<std::size_t>(step(index).task)).name;
    }

    bool changes(int index, int page, std::uint64_t bit, bool to) const {
        const bool before = (page_state_before(run_, index, page).flags & bit) != 0;
        const bool after = (page_state_after(run_, index, page).flags & bit) != 0;
        return before != after && after == to;
    }

    // The last step before `end` that gave the flag that value.
    int last_change(int end, bool to, std::optional<int> by_task = {}) const {
        for (int i = end - 1; i >= 0; --i) {
            if (changes(i, result_.page, result_.accused, to) &&
                (!by_task || step(i).task == *by_task)) {
                return i;
            }
        }
        return -1;
    }

    const PauseRecord* pause_of(int task, int end) const {
        const PauseRecord* found = nullptr;
        for (const PauseRecord& pause : run_.pauses) {
            if (pause.task == task && pause.why == PauseRecord::Why::kAsleep && pause.from >= 0 &&
                pause.to <= end && (found == nullptr || pause.to > found->to)) {
                found = &pause;
            }
        }
        return found;
    }

    bool delayed_after(int index) const {
        return std::any_of(run_.pauses.begin(), run_.pauses.end(), [&](const PauseRecord& pause) {
            return pause.task == step(index).task && pause.why == PauseRecord::Why::kDelayed &&
                   pause.from >= index;
        });
    }

    // --- assertions and what is found at the end

    void explain_failing_step() {
        const FailureRecord& failure = run_.failure;
        culprits_.failed =
            failure.step >= 0 ? failure.step : static_cast<int>(run_.steps.size()) - 1;
        if (culprits_.failed < 0) {
            result_.title = failure.title;
            return;
        }
        find_accused();
        result_.title = failure.verdict == Verdict::kAssertion && result_.accused != 0
                            ? fmt::format("BUG_ON({}(page))", predicate())
                            : failure.title;
        if (result_.accused != 0) {
            find_culprits();
        }
        tell();
    }

    std::string predicate() const {
        const auto* const flag =
            std::find_if(kFlags.begin(), kFlags.end(),
                         [&](const FlagWords& words) { return words.bit == result_.accused; });
        return std::string(seen_set() ? "" : "!") + flag->predicate;
    }

    bool seen_set() const {
        return (page_state_after(run_, culprits_.failed, result_.page).flags & result_.accused) !=
               0;
    }

    void find_accused() {
        if (run_.failure.verdict != Verdict::kAssertion) {
            return;
        }
        const StepRecord& failing = step(culprits_.failed);
        result_.page = failing.page >= 0 ? failing.page : run_.pages.empty() ? -1 : 0;
        result_.accused = flag_in(run_.failure.condition);
        if (result_.accused == 0) {
            result_.accused = flag_in(run_.failure.title);
        }
        if (result_.page < 0) {
            result_.accused = 0;
        }
    }

    void find_culprits() {
        culprits_.set = last_change(culprits_.failed, seen_set());
        result_.seen_write = culprits_.set;
        const int task = step(culprits_.failed).task;
        const PauseRecord* const pause = pause_of(task, culprits_.failed);
        if (pause == nullptr) {
            return;
        }
        for (int i = pause->to - 1; i > pause->from; --i) {
            const std::vector<int>& woken = step(i).woken;
            if (std::find(woken.begin(), woken.end(), task) != woken.end()) {
                culprits_.slept = pause->from;
                culprits_.woke = i;
                slept_on_ = pause->on;
                culprits_.ended = last_change(i, !seen_set(), step(i).task);
                return;
            }
        }
    }

    cache::StoryStep story_step(int index) const {
        return index < 0 ? cache::StoryStep{} : cache::StoryStep{index, task_name(index)};
    }

    void tell() {
        cache::FailureStory story;
        if (result_.accused != 0) {
            story.flag = flag_name(result_.accused);
            story.is_writeback = result_.accused == PG_writeback;
            story.seen_set = seen_set();
        }
        story.ended = story_step(culprits_.ended);
        story.is_late = culprits_.ended >= 0 && culprits_.woke > culprits_.ended &&
                        delayed_after(culprits_.ended);
        story.set = story_step(culprits_.set);
        story.slept = story_step(culprits_.slept);
        story.slept_on = slept_on_;
        story.slept_on_flag = flag_in(slept_on_) == result_.accused;
        story.woke = story_step(culprits_.woke);
        story.failed = story_step(culprits_.failed);
        story.what = result_.accused == 0 ? run_.failure.title : result_.title;
        for (cache::StorySentence& sentence : cache::tell(story)) {
            result_.chapters.push_back({sentence.place, std::move(sentence.text)});
        }
    }

    // --- deadlock

    void explain_deadlock() {
        if (!run_.pages.empty() && !run_.failure.sleepers.empty()) {
            result_.page = 0;
            result_.accused = flag_in(run_.failure.sleepers.front().on);
        }
        std::string names;
        for (const SleeperRecord& sleeper : run_.failure.sleepers) {
            names += names.empty() ? "" : " and ";
            names += run_.tasks.at(static_cast<std::size_t>(sleeper.task)).name;
        }
        const bool one = run_.failure.sleepers.size() == 1;
        result_.title = fmt::format("{} for ever: nobody is left to wake {}",
                                    names + (one ? " sleeps" : " sleep"), one ? "it" : "them");
        for (const SleeperRecord& sleeper : run_.failure.sleepers) {
            const auto pause =
                std::find_if(run_.pauses.begin(), run_.pauses.end(), [&](const PauseRecord& it) {
                    return it.task == sleeper.task && it.why == PauseRecord::Why::kAsleep &&
                           it.to >= static_cast<int>(run_.steps.size());
                });
            if (pause == run_.pauses.end() || pause->from < 0) {
                continue;
            }
            result_.chapters.push_back({pause->from, sentence_of(sleeper)});
        }
        std::sort(result_.chapters.begin(), result_.chapters.end(),
                  [](const Chapter& a, const Chapter& b) { return a.step < b.step; });
    }

    std::string sentence_of(const SleeperRecord& sleeper) const {
        const auto name = [this](int task) {
            return run_.tasks.at(static_cast<std::size_t>(task)).name;
        };
        const std::string begin =
            fmt::format("{} goes to sleep on {}", name(sleeper.task), sleeper.on);
        if (!sleeper.missed_wake.empty()) {
            return fmt::format("{}. The wake-up that it waits for went past: {}.", begin,
                               sleeper.missed_wake);
        }
        if (run_.pages.size() != 1 || run_.steps.empty()) {
            return begin + ".";
        }
        const PageState& last = page_state_after(run_, static_cast<int>(run_.steps.size()) - 1, 0);
        if ((last.flags & flag_in(sleeper.on)) == 0) {
            return begin + ", which is clear.";
        }
        return sleeper.on.starts_with("PG_locked") && last.lock_owner >= 0
                   ? fmt::format("{}, which {} holds.", begin, name(last.lock_owner))
                   : begin + ", which is still set.";
    }

    const RunRecord& run_;
    Explanation result_;
    Culprits culprits_;
    std::string slept_on_;
};

}  // namespace

std::string flag_name(std::uint64_t bit) {
    for (const FlagWords& flag : kFlags) {
        if (flag.bit == bit) {
            return flag.name;
        }
    }
    return "no flag";
}

const PageState& page_state_before(const RunRecord& run, int step, int page) {
    const auto at = static_cast<std::size_t>(page);
    return step == 0 ? run.pages.at(at).initial
                     : run.steps.at(static_cast<std::size_t>(step) - 1).pages.at(at);
}

const PageState& page_state_after(const RunRecord& run, int step, int page) {
    return run.steps.at(static_cast<std::size_t>(step)).pages.at(static_cast<std::size_t>(page));
}

Explanation explain(const RunRecord& run) {
    return Explainer(run).explain();
}

}  // namespace wbfat::explore
