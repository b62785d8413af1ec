// The writer of trace events. Slices of one track must nest and flow events must lie inside the
// slices they join, so an arrow begins and ends in the middle of its boxes.
#include "tools/explore/draw/perfetto.h"

#include <boost/json.hpp>

namespace wbfat::explore {

namespace {

namespace json = boost::json;

constexpr int kProcess = 1;

json::object event(const char* phase, std::size_t thread, double at, const std::string& name) {
    return {{"ph", phase}, {"pid", kProcess}, {"tid", thread + 1}, {"ts", at}, {"name", name}};
}

json::object metadata(const char* what, std::size_t thread, const std::string& name) {
    json::object made = event("M", thread, 0, what);
    made["args"] = {{"name", name}};
    return made;
}

void add_arrows(const Story& story, json::array& events) {
    int id = 0;
    for (const Arrow& arrow : story.arrows) {
        const char* const name = arrow.kind == Arrow::Kind::kWake ? "wakes" : "saw";
        const auto end = [&](const char* phase, std::size_t box) {
            json::object made =
                event(phase, story.boxes[box].thread, static_cast<double>(box) + 0.5, name);
            made["cat"] = name;
            made["id"] = id;
            return made;
        };
        events.push_back(end("s", arrow.from_box));
        json::object finish = end("f", arrow.to_box);
        finish["bp"] = "e";
        events.push_back(std::move(finish));
        ++id;
    }
}

void add_strips(const Story& story, json::array& events) {
    for (const Strip& strip : story.strips) {
        const auto level = [&](double at, bool set) {
            json::object made = event("C", 0, at, strip.name);
            made["args"] = {{"value", set ? 1 : 0}};
            events.push_back(std::move(made));
        };
        level(0, strip.set_before);
        for (const Strip::Change& change : strip.changes) {
            level(static_cast<double>(change.box) + 0.5, change.set);
        }
    }
}

}  // namespace

std::string perfetto_of(const Story& story) {
    json::array events;
    events.push_back(metadata("process_name", 0, story.title));
    for (std::size_t i = 0; i < story.threads.size(); ++i) {
        events.push_back(metadata("thread_name", i, story.threads[i].name));
    }
    for (std::size_t i = 0; i < story.boxes.size(); ++i) {
        const Box& box = story.boxes[i];
        const std::string words = box.object.empty() ? box.verb : box.verb + " " + box.object;
        json::object slice = event("X", box.thread, static_cast<double>(i), words);
        slice["dur"] = 1;
        slice["args"] = {{"function", box.function}, {"detail", box.detail}};
        events.push_back(std::move(slice));
        if (box.deed == Deed::kFail) {
            json::object instant =
                event("i", box.thread, static_cast<double>(i) + 0.5, story.title);
            instant["s"] = "g";
            events.push_back(std::move(instant));
        }
    }
    add_arrows(story, events);
    add_strips(story, events);
    return json::serialize(json::object{{"traceEvents", std::move(events)}}) + "\n";
}

}  // namespace wbfat::explore
