// The sentences.
#include "cache/failure_story.h"

#include <fmt/format.h>

#include <algorithm>

namespace wbfat::cache::inline WBFAT_RT {

namespace {

// Whether the waker's step was over before the flag got the value that was seen: it wakes for the
// wrong reason.
bool is_stale(const FailureStory& story) {
    return story.ended.is_known() && story.ended.place < story.set.place;
}

std::string ended_sentence(const FailureStory& story) {
    std::string text =
        story.is_writeback && story.seen_set
            ? fmt::format("{} ends a writeback: it clears {}.", story.ended.task, story.flag)
            : fmt::format("{} {} {}.", story.ended.task, story.seen_set ? "clears" : "sets",
                          story.flag);
    if (story.is_late) {
        text += " Then it is delayed, before it wakes anybody.";
    }
    return text;
}

std::string set_sentence(const FailureStory& story) {
    const bool again = is_stale(story);
    const bool writeback = story.is_writeback && story.seen_set;
    return fmt::format("{} {} {}{}{}.", story.set.task, story.seen_set ? "sets" : "clears",
                       story.flag, again ? " again" : "",
                       writeback && again ? ": the next writeback of the same page has begun"
                       : writeback        ? ": a writeback has begun"
                                          : "");
}

std::string slept_sentence(const FailureStory& story) {
    return story.slept_on_flag
               ? fmt::format("{} sees {} set, and goes to sleep until it is clear.",
                             story.slept.task, story.flag)
               : fmt::format("{} goes to sleep on {}.", story.slept.task, story.slept_on);
}

std::string woke_sentence(const FailureStory& story, std::ptrdiff_t ended) {
    if (!story.ended.is_known()) {
        return fmt::format("{} wakes {}.", story.woke.task, story.failed.task);
    }
    return story.is_writeback
               ? fmt::format("{} goes on with the end of its writeback ({}) and wakes {}.",
                             story.woke.task, ended, story.failed.task)
               : fmt::format("{} wakes {}, because of ({}).", story.woke.task, story.failed.task,
                             ended);
}

std::string failed_sentence(const FailureStory& story, std::ptrdiff_t set) {
    if (!story.set.is_known()) {
        return fmt::format("{}: {}.", story.failed.task, story.what);
    }
    if (story.woke.is_known() && is_stale(story)) {
        return fmt::format(
            "{} takes that wake-up for the end of {} ({}), does not look again, and goes on: {}.",
            story.failed.task,
            story.is_writeback ? "the writeback that has just begun" : "what it waits for", set,
            story.what);
    }
    return fmt::format("{}: {}, since ({}).", story.failed.task, story.what, set);
}

}  // namespace

std::vector<StorySentence> tell(const FailureStory& story) {
    std::vector<int> order;
    for (const StoryStep* step :
         {&story.ended, &story.set, &story.slept, &story.woke, &story.failed}) {
        if (step->is_known()) {
            order.push_back(step->place);
        }
    }
    std::sort(order.begin(), order.end());
    order.erase(std::unique(order.begin(), order.end()), order.end());
    const auto number = [&](const StoryStep& step) {
        return std::find(order.begin(), order.end(), step.place) - order.begin() + 1;
    };
    std::vector<StorySentence> told;
    for (const int place : order) {
        std::string text;
        if (place == story.failed.place) {
            text = failed_sentence(story, number(story.set));
        } else if (place == story.ended.place) {
            text = ended_sentence(story);
        } else if (place == story.set.place) {
            text = set_sentence(story);
        } else if (place == story.woke.place) {
            text = woke_sentence(story, number(story.ended));
        } else {
            text = slept_sentence(story);
        }
        told.push_back({place, std::move(text)});
    }
    return told;
}

}  // namespace wbfat::cache::inline WBFAT_RT
