// Why a check of a page flag failed, in a few numbered sentences.
//
// The failing task saw a flag. What it saw was written by somebody; if the task had slept before,
// somebody woke it; and the waker had ended something of its own before. Whoever knows these steps,
// from a trace (oops.h) or from a schedule (tools/explore), has the story told here.
//
// Locking: none; values in, text out.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

// Who did it and when: places ascend with time.
struct StoryStep {
    static constexpr int kUnknown = -1;
    int place = kUnknown;
    std::string task;

    [[nodiscard]] bool is_known() const {
        return place != kUnknown;
    }
};

struct FailureStory {
    std::string flag;  // "PG_writeback"; "": the check was about no flag
    bool is_writeback = false;
    bool seen_set = true;
    StoryStep ended;  // the waker gave the flag the other value
    // After `ended` the waker was held up before it woke anybody.
    bool is_late = false;
    StoryStep set;    // the flag got the value that was seen
    StoryStep slept;  // the failing task did
    std::string slept_on;
    bool slept_on_flag = false;  // on the very flag
    StoryStep woke;              // the failing task was woken
    StoryStep failed;            // always known
    std::string what;            // "BUG_ON(PageWriteback(page))"
};

struct StorySentence {
    int place = 0;
    std::string text;
};
// One a known step, ascending by place; a number in parentheses in a text is that of a sentence,
// from 1.
std::vector<StorySentence> tell(const FailureStory& story);

}  // namespace wbfat::cache::inline WBFAT_RT
