// Functions stand alone on a line where a thread enters them, steps below them.
#include "tools/explore/draw/text_lanes.h"

#include <fmt/format.h>

#include <vector>

#include "cache/lanes.h"

namespace wbfat::explore {

namespace {

std::string words_of(const Box& box) {
    return box.object.empty() ? box.verb : box.verb + " " + box.object;
}

const Pause* pause_after(const Story& story, std::size_t box) {
    for (const Pause& pause : story.pauses) {
        if (pause.from_box == box) {
            return &pause;
        }
    }
    return nullptr;
}

}  // namespace

std::string text_lanes_of(const Story& story) {
    std::vector<std::string> names;
    for (const StoryThread& thread : story.threads) {
        names.push_back(thread.name);
    }
    std::vector<std::string> inside(names.size());  // function that each thread was last seen in
    std::vector<cache::LaneRow> rows;
    for (std::size_t i = 0; i < story.boxes.size(); ++i) {
        const Box& box = story.boxes[i];
        const auto add = [&](std::string text, std::string margin) {
            rows.push_back(
                {.lane = box.thread, .text = std::move(text), .margin = std::move(margin)});
        };
        const bool leads = i == 0 || story.boxes[i - 1].thread != box.thread;
        if (!box.function.empty() && (leads || inside[box.thread] != box.function)) {
            add(box.function + "()", "");
        }
        inside[box.thread] = box.function;
        add("  " + words_of(box), box.chapter == 0 ? "" : fmt::format("{}.", box.chapter));
        const Pause* const pause = pause_after(story, i);
        if (pause != nullptr && (box.deed != Deed::kSleep || !pause->to_box)) {
            add(fmt::format("  .. {} ..", pause->text), "");
        }
    }
    return cache::draw_lanes(names, rows);
}

}  // namespace wbfat::explore
