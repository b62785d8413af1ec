// The layout: columns, then lanes and gutters, then everything at its place.
#include "tools/explore/draw/picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace wbfat::explore {

namespace {

// Units: pixels.
constexpr double kMargin = 24;
constexpr double kNameWidth = 150;  // of the column on the left, at least
constexpr double kNameSize = 15;    // of a thread's name
constexpr double kTitleSize = 20;
constexpr double kTextSize = 13;
constexpr double kSmallSize = 11;
constexpr double kTinySize = 10;
constexpr double kLineHeight = 20;
constexpr double kBoxHeight = 38;
constexpr double kBoxPadding = 10;
constexpr double kBoxMinWidth = 44;
constexpr double kColumnGap = 12;
constexpr double kFramePadding = 5;
constexpr double kLabelSlot = 26;  // above and below a lane's boxes
constexpr double kGutter = 10;     // between lanes, without tracks
constexpr double kTrackHeight = 20;
constexpr double kStripHeight = 22;
constexpr double kStripGap = 10;
constexpr double kCurveHeight = 56;
constexpr double kBadgeRadius = 8;
constexpr double kRulerHeight = 30;
constexpr double kForeverWidth = 260;  // behind the last box, for who sleeps on

// Boxes of one thread and one function, in adjacent columns: they share a frame.
struct Frame {
    std::size_t first = 0;
    std::size_t count = 0;
    bool touched_above = false;  // an arrow ends or begins there: no place for the name
};

// The way of an arrow from lane to lane.
struct Route {
    const Arrow* arrow = nullptr;
    std::size_t gutter = 0;  // gutter g lies above lane g
    std::size_t track = 0;
    double from_x = 0;
    double to_x = 0;
    bool down = true;
};

class Panel {
public:
    Panel(const Story& story, Picture& picture, double top)
        : story_(story), picture_(picture), y_(top) {
        for (const PanelFrame& panel : picture.panels) {
            frame_.first_box += panel.columns.size();
        }
    }

    // Returns where the panel ends.
    double draw() {
        make_names();
        make_columns();
        make_routes();
        draw_head();
        frame_.left = left();
        frame_.right = right_;
        frame_.top = y_;
        draw_ruler();
        draw_strips();
        place_lanes();
        draw_lanes();
        draw_frames();
        draw_boxes();
        draw_pauses();
        draw_arrows();
        draw_curve();
        draw_look_back();
        frame_.bottom = y_;
        for (const Rect& box : boxes_) {
            frame_.columns.push_back(box.right() + kColumnGap / 2);
        }
        picture_.panels.push_back(frame_);
        widen(right_ + kMargin);
        return y_;
    }

private:
    double left() const {
        return kMargin + name_width_;
    }

    void make_names() {
        for (const StoryThread& thread : story_.threads) {
            const double words = std::max(text_width(thread.name, kNameSize, Weight::kBold),
                                          text_width(thread.role, kTinySize, Weight::kRegular));
            name_width_ = std::max(name_width_, words + 24);
        }
        for (const Strip& strip : story_.strips) {
            name_width_ =
                std::max(name_width_, text_width(strip.name, kSmallSize, Weight::kBold) + 12);
        }
    }

    void widen(double right) {
        picture_.width = std::max(picture_.width, right);
    }

    void label(Label text) {
        widen(text.area().right() + kMargin);
        picture_.labels.push_back(std::move(text));
    }

    bool failed() const {
        return story_.mood == Mood::kFailed;
    }

    // --- columns

    static std::string function_name(const Box& box) {
        return box.function.empty() ? "" : box.function + "()";
    }

    static double box_width(const Box& box) {
        const double words = std::max(text_width(box.verb, kSmallSize, Weight::kBold),
                                      text_width(box.object, kTinySize, Weight::kRegular));
        return std::max(kBoxMinWidth, std::ceil(words) + 2 * kBoxPadding);
    }

    void make_columns() {
        for (std::size_t i = 0; i < story_.boxes.size(); ++i) {
            const Box& box = story_.boxes[i];
            if (i > 0 && box.thread == story_.boxes[i - 1].thread &&
                box.function == story_.boxes[i - 1].function) {
                ++frames_.back().count;
            } else {
                frames_.push_back({.first = i, .count = 1});
            }
        }
        double x = left() + kColumnGap;
        for (const Frame& frame : frames_) {
            const double begin = x;
            for (std::size_t i = frame.first; i < frame.first + frame.count; ++i) {
                boxes_.push_back({.x = x, .width = box_width(story_.boxes[i])});
                x = boxes_.back().right() + kColumnGap;
            }
            const std::string name = function_name(story_.boxes[frame.first]);
            const double missing =
                std::ceil(text_width(name, kSmallSize, Weight::kBold)) - (x - kColumnGap - begin);
            if (missing > 0) {
                boxes_.back().width += missing;
                x += missing;
            }
        }
        const bool forever =
            std::any_of(story_.pauses.begin(), story_.pauses.end(),
                        [](const Pause& pause) { return !pause.to_box.has_value(); });
        right_ = x + (forever ? kForeverWidth : 0);
    }

    // The number of a box in the whole picture.
    std::size_t id(std::size_t box) const {
        return frame_.first_box + box;
    }

    // --- arrows

    Frame& frame_of(std::size_t box) {
        return *std::find_if(frames_.begin(), frames_.end(),
                             [box](const Frame& frame) { return box < frame.first + frame.count; });
    }

    void make_routes() {
        gutters_.assign(story_.threads.size() + 1, 0);
        for (const Arrow& arrow : story_.arrows) {
            const std::size_t from = story_.boxes[arrow.from_box].thread;
            const std::size_t to = story_.boxes[arrow.to_box].thread;
            if (from == to) {
                continue;  // the reader follows one lane without help
            }
            Route route{.arrow = &arrow, .down = from < to};
            route.gutter = route.down ? to : to + 1;
            // Two arrows may meet at a box: what was seen comes in left of the middle.
            const double shift = arrow.kind == Arrow::Kind::kSaw ? -8 : 0;
            route.from_x = boxes_[arrow.from_box].center();
            route.to_x = boxes_[arrow.to_box].center() + shift;
            route.track = gutters_[route.gutter]++;
            frame_of(arrow.from_box).touched_above |= !route.down;
            frame_of(arrow.to_box).touched_above |= route.down;
            routes_.push_back(route);
        }
        for (const Box& box : story_.boxes) {
            if (box.deed == Deed::kFail) {
                frame_of(static_cast<std::size_t>(&box - story_.boxes.data())).touched_above = true;
            }
        }
    }

    // --- words on top

    void draw_head() {
        label({.x = kMargin,
               .baseline = y_ + kTitleSize,
               .text = story_.title,
               .size = kTitleSize,
               .weight = Weight::kBold,
               .style = failed() ? "bad" : "good"});
        y_ += kTitleSize + 12;
        for (const std::string& line : story_.subtitle) {
            label({.x = kMargin,
                   .baseline = y_ + kTextSize,
                   .text = line,
                   .size = kTextSize,
                   .style = "quiet"});
            y_ += kLineHeight;
        }
        y_ += 6;
        for (std::size_t i = 0; i < story_.chapters.size(); ++i) {
            badge(kMargin + kBadgeRadius, y_ + kLineHeight / 2, i + 1, {});
            label({.x = kMargin + 3 * kBadgeRadius,
                   .baseline = y_ + kLineHeight / 2 + 4.5,
                   .text = story_.chapters[i],
                   .size = kTextSize});
            y_ += kLineHeight;
        }
        y_ += 14;
    }

    void badge(double x, double y, std::size_t number, std::optional<std::size_t> box) {
        picture_.boxes.push_back(
            {.area = {x - kBadgeRadius, y - kBadgeRadius, 2 * kBadgeRadius, 2 * kBadgeRadius},
             .radius = kBadgeRadius,
             .style = "badge",
             .box = box});
        label({.x = x,
               .baseline = y + 3.6,
               .text = std::to_string(number),
               .size = kTinySize,
               .weight = Weight::kBold,
               .anchor = Anchor::kMiddle,
               .style = "inverse",
               .box = box});
    }

    void name_of_row(double middle, const std::string& name) {
        label({.x = kMargin,
               .baseline = middle + 4,
               .text = name,
               .size = kSmallSize,
               .weight = Weight::kBold});
    }

    // --- the schedule

    void draw_ruler() {
        name_of_row(y_ + kRulerHeight / 2 - 3, "schedule");
        for (const Segment& segment : story_.segments) {
            const Rect& first = boxes_[segment.first_box];
            const Rect& last = boxes_[segment.first_box + segment.nr_boxes - 1];
            const double begin = first.x - kFramePadding;
            const double end = last.right() + kFramePadding;
            picture_.strokes.push_back(
                {.path = fmt::format("M{:g},{:g} V{:g} H{:g} V{:g}", begin, y_ + kRulerHeight - 5,
                                     y_ + kRulerHeight - 10, end, y_ + kRulerHeight - 5),
                 .style = "ruler"});
            label({.x = (begin + end) / 2,
                   .baseline = y_ + kRulerHeight - 14,
                   .text = segment.text,
                   .size = kSmallSize,
                   .weight = Weight::kBold,
                   .anchor = Anchor::kMiddle,
                   .style = "quiet"});
        }
        y_ += kRulerHeight;
    }

    // --- strips

    void draw_strips() {
        for (const Strip& strip : story_.strips) {
            strips_.push_back({left(), y_, right_ - left(), kStripHeight});
            name_of_row(y_ + kStripHeight / 2, strip.name);
            picture_.ground.push_back({.area = strips_.back(), .style = "track"});
            std::string path;
            double begin = left();
            bool set = strip.set_before;
            std::string text = strip.text_before;
            path = fmt::format("M{:g},{:g}", begin, set ? y_ : y_ + kStripHeight);
            const auto advance = [&](double x, bool now, const std::string& words) {
                stretch(strip, begin, x, set ? text : "", set);
                path += fmt::format(" H{:g} V{:g}", x, now ? y_ : y_ + kStripHeight);
                begin = x;
                set = now;
                text = words;
            };
            for (const Strip::Change& change : strip.changes) {
                advance(boxes_[change.box].center(), change.set, change.text);
            }
            advance(right_, set, text);
            if (strip.kind == Strip::Kind::kLevel) {
                picture_.strokes.push_back(
                    {.path = path, .style = strip.accused ? "level accused" : "level"});
            }
            y_ += kStripHeight + kStripGap;
        }
        y_ += 6;
    }

    void stretch(const Strip& strip, double begin, double end, const std::string& text, bool set) {
        if (!set || end <= begin) {
            return;
        }
        const bool owner = strip.kind == Strip::Kind::kOwner;
        picture_.ground.push_back({.area = {begin, y_, end - begin, kStripHeight},
                                   .radius = owner ? 3.0 : 0.0,
                                   .style = owner           ? "owner"
                                            : strip.accused ? "high accused"
                                                            : "high"});
        if (text_width(text, kTinySize, Weight::kRegular) + 12 < end - begin) {
            label({.x = begin + 6,
                   .baseline = y_ + kStripHeight / 2 + 3.6,
                   .text = text,
                   .size = kTinySize,
                   .style = "inside"});
        }
    }

    // --- lanes

    void place_lanes() {
        for (std::size_t i = 0; i < story_.threads.size(); ++i) {
            y_ += kGutter + static_cast<double>(gutters_[i]) * kTrackHeight;
            lanes_.push_back(
                {kMargin, y_, right_ - kMargin, 2 * (kLabelSlot + kFramePadding) + kBoxHeight});
            y_ = lanes_.back().bottom();
        }
        y_ += kGutter + static_cast<double>(gutters_.back()) * kTrackHeight;
        for (std::size_t i = 0; i < boxes_.size(); ++i) {
            boxes_[i].y = lanes_[story_.boxes[i].thread].y + kLabelSlot + kFramePadding;
            boxes_[i].height = kBoxHeight;
        }
    }

    void draw_lanes() {
        for (std::size_t i = 0; i < lanes_.size(); ++i) {
            picture_.ground.push_back({.area = lanes_[i], .radius = 6, .style = "lane"});
            const StoryThread& thread = story_.threads[i];
            const double middle = lanes_[i].y + lanes_[i].height / 2;
            label({.x = kMargin + 10,
                   .baseline = middle + (thread.role.empty() ? 5 : -1),
                   .text = thread.name,
                   .size = kNameSize,
                   .weight = Weight::kBold});
            label({.x = kMargin + 10,
                   .baseline = middle + 14,
                   .text = thread.role,
                   .size = kTinySize,
                   .style = "quiet"});
        }
    }

    void draw_frames() {
        for (const Frame& frame : frames_) {
            const Box& box = story_.boxes[frame.first];
            if (box.function.empty()) {
                continue;
            }
            const Rect& first = boxes_[frame.first];
            const Rect& last = boxes_[frame.first + frame.count - 1];
            const Rect area = {first.x - kFramePadding, first.y - kFramePadding,
                               last.right() - first.x + 2 * kFramePadding,
                               kBoxHeight + 2 * kFramePadding};
            picture_.ground.push_back({.area = area, .radius = 5, .style = "frame"});
            label({.x = first.x,
                   .baseline = frame.touched_above ? area.bottom() + 14 : area.y - 7,
                   .text = function_name(box),
                   .size = kSmallSize,
                   .weight = Weight::kBold,
                   .style = "function"});
        }
    }

    static std::string_view deed_style(Deed deed) {
        switch (deed) {
            case Deed::kWrite:
                return "write";
            case Deed::kRead:
                return "read";
            case Deed::kLock:
                return "lock";
            case Deed::kUnlock:
                return "unlock";
            case Deed::kWake:
                return "wake";
            case Deed::kSleep:
                return "sleep";
            case Deed::kWoken:
                return "woken";
            case Deed::kPlain:
                return "plain";
            case Deed::kFail:
                return "fail";
        }
        return "plain";
    }

    void draw_boxes() {
        for (std::size_t i = 0; i < boxes_.size(); ++i) {
            const Box& box = story_.boxes[i];
            const Rect& area = boxes_[i];
            const bool fail = box.deed == Deed::kFail;
            picture_.boxes.push_back({.area = area,
                                      .radius = 4,
                                      .style = fmt::format("box {}", deed_style(box.deed)),
                                      .box = id(i),
                                      .hint = box.detail});
            const bool two_lines = !box.object.empty();
            const double middle = area.y + area.height / 2;
            label({.x = area.center(),
                   .baseline = middle + (two_lines ? -2 : 4),
                   .text = box.verb,
                   .size = kSmallSize,
                   .weight = Weight::kBold,
                   .anchor = Anchor::kMiddle,
                   .style = fail ? "inverse" : "",
                   .box = id(i)});
            if (two_lines) {
                label({.x = area.center(),
                       .baseline = middle + 12,
                       .text = box.object,
                       .size = kTinySize,
                       .anchor = Anchor::kMiddle,
                       .style = fail ? "inverse" : "",
                       .box = id(i)});
            }
            if (box.chapter != 0) {
                badge(area.x, area.y, box.chapter, id(i));
            }
        }
    }

    // --- pauses

    void draw_pauses() {
        for (const Pause& pause : story_.pauses) {
            const Rect& from = boxes_[pause.from_box];
            const double begin = from.right() + kFramePadding;
            const double end = pause.to_box ? boxes_[*pause.to_box].x - kFramePadding : right_;
            // It may begin with a step of somebody else's: the one that woke this thread.
            const double y = lanes_[pause.thread].y + from.y -
                             lanes_[story_.boxes[pause.from_box].thread].y + kBoxHeight / 2;
            const bool forever = !pause.to_box.has_value();
            const std::string_view style = forever                               ? "pause forever"
                                           : pause.kind == Pause::Kind::kDelayed ? "pause delayed"
                                           : pause.kind == Pause::Kind::kAsleep  ? "pause asleep"
                                                                                 : "pause blocked";
            picture_.strokes.push_back(
                {.path = fmt::format("M{:g},{:g} H{:g}", begin + 3, y, end - 3),
                 .style = std::string(style)});
            place_between(begin, end, y - 7, pause.text, fmt::format("{} words", style));
        }
    }

    // In the middle of the widest stretch of [begin, end] that no arrow crosses; only the first
    // word where there is no room for more.
    void place_between(double begin, double end, double baseline, const std::string& text,
                       const std::string& style) {
        std::vector<double> cuts = {begin, end};
        for (const Route& route : routes_) {
            for (const double x : {route.from_x, route.to_x}) {
                if (x > begin && x < end) {
                    cuts.push_back(x);
                }
            }
        }
        std::sort(cuts.begin(), cuts.end());
        std::size_t widest = 0;
        for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
            if (cuts[i + 1] - cuts[i] > cuts[widest + 1] - cuts[widest]) {
                widest = i;
            }
        }
        const double room = cuts[widest + 1] - cuts[widest] - 8;
        const auto fits = [room](const std::string& words) {
            return text_width(words, kTinySize, Weight::kRegular) <= room;
        };
        const std::string words = fits(text) ? text : text.substr(0, text.find(' '));
        if (!fits(words)) {
            return;
        }
        label({.x = (cuts[widest] + cuts[widest + 1]) / 2,
               .baseline = baseline,
               .text = words,
               .size = kTinySize,
               .anchor = Anchor::kMiddle,
               .style = style});
    }

    // --- arrows

    void draw_arrows() {
        for (const Route& route : routes_) {
            const Arrow& arrow = *route.arrow;
            const Rect& from = boxes_[arrow.from_box];
            const Rect& to = boxes_[arrow.to_box];
            const double gutter_top =
                route.gutter == 0
                    ? lanes_.front().y - static_cast<double>(gutters_[0]) * kTrackHeight - kGutter
                    : lanes_[route.gutter - 1].bottom();
            const double y =
                gutter_top + kGutter / 2 + static_cast<double>(route.track + 1) * kTrackHeight - 4;
            const double start = route.down ? from.bottom() : from.y;
            const double end = route.down ? to.y - 1 : to.bottom() + 1;
            const double bend = std::min(6.0, std::abs(route.to_x - route.from_x) / 2);
            const double turn = route.down ? bend : -bend;
            const double side = route.to_x > route.from_x ? bend : -bend;
            const bool wake = arrow.kind == Arrow::Kind::kWake;
            picture_.arrows.push_back(
                {.path = fmt::format("M{:g},{:g} V{:g} q0,{:g} {:g},{:g} H{:g} q{:g},0 {:g},{:g} "
                                     "V{:g}",
                                     route.from_x, start, y - turn, turn, side, turn,
                                     route.to_x - side, side, side, turn, end),
                 .style = wake ? "arrow wakes" : "arrow saw",
                 .tip = wake ? Tip::kWake : Tip::kSaw,
                 .box = id(arrow.to_box)});
            place_between(std::min(route.from_x, route.to_x), std::max(route.from_x, route.to_x),
                          y - 5, arrow.text, wake ? "wakes words" : "saw words");
        }
    }

    // From the failing box straight up to the flag it looked at.
    void draw_look_back() {
        for (std::size_t i = 0; i < boxes_.size(); ++i) {
            if (story_.boxes[i].deed != Deed::kFail) {
                continue;
            }
            for (std::size_t strip = 0; strip < strips_.size(); ++strip) {
                if (!story_.strips[strip].accused) {
                    continue;
                }
                const double x = boxes_[i].center() + 8;
                const double y = strips_[strip].y;
                picture_.strokes.push_back(
                    {.path = fmt::format("M{:g},{:g} V{:g}", x, y, boxes_[i].y), .style = "look"});
                picture_.boxes.push_back(
                    {.area = {x - 4, y - 4, 8, 8}, .radius = 4, .style = "spot"});
            }
        }
    }

    // --- inevitability

    void draw_curve() {
        const std::vector<double>& values = story_.inevitability;
        if (values.size() != boxes_.size() + 1) {
            return;
        }
        y_ += 22;
        const double bottom = y_ + kCurveHeight;
        name_of_row(y_ + kCurveHeight / 2 - 6, "can it still go well?");
        label({.x = kMargin,
               .baseline = y_ + kCurveHeight / 2 + 12,
               .text = "share of ways on that fail",
               .size = kTinySize,
               .style = "quiet"});
        picture_.ground.push_back(
            {.area = {left(), y_, right_ - left(), kCurveHeight}, .style = "track"});
        const auto height = [&](double share) { return bottom - share * kCurveHeight; };
        std::string line = fmt::format("M{:g},{:g}", left(), height(values[0]));
        double free_from = left();
        percent(left() + 4, height(values[0]), values[0], free_from);
        for (std::size_t i = 0; i < boxes_.size(); ++i) {
            const double x = boxes_[i].center();
            line += fmt::format(" H{:g} V{:g}", x, height(values[i + 1]));
            if (std::abs(values[i + 1] - values[i]) > 0.005) {
                percent(x + 4, height(values[i + 1]), values[i + 1], free_from);
            }
        }
        line += fmt::format(" H{:g}", right_);
        picture_.strokes.push_back(
            {.path = fmt::format("{} V{:g} H{:g} Z", line, bottom, left()), .style = "curve fill"});
        picture_.strokes.push_back({.path = line, .style = "curve"});
        y_ = bottom + 6;
    }

    // Where an earlier number leaves no room, the curve speaks for itself.
    void percent(double x, double y, double share, double& free_from) {
        Label text{.x = x,
                   .baseline = y - 4,
                   .text = fmt::format("{:.{}f} %", 100 * share, share < 0.1 && share > 0 ? 1 : 0),
                   .size = kTinySize,
                   .style = "curve words"};
        if (x < free_from || text.area().right() > right_) {
            return;
        }
        free_from = text.area().right() + 4;
        label(std::move(text));
    }

    const Story& story_;
    Picture& picture_;
    double y_;
    double name_width_ = kNameWidth;
    double right_ = 0;
    std::vector<Frame> frames_;
    std::vector<Rect> boxes_;
    std::vector<Rect> strips_;
    std::vector<Rect> lanes_;
    std::vector<std::size_t> gutters_;  // number of tracks in each
    std::vector<Route> routes_;
    PanelFrame frame_;
};

}  // namespace

Rect Label::area() const {
    const double width = text_width(text, size, weight);
    const double begin = anchor == Anchor::kLeft     ? x
                         : anchor == Anchor::kMiddle ? x - width / 2
                                                     : x - width;
    // Without the room that a line leaves above its capitals.
    return {begin, baseline - 0.76 * size, width, 0.98 * size};
}

Picture lay_out(std::span<const Story> stories) {
    Picture picture;
    double y = kMargin;
    for (const Story& story : stories) {
        y = Panel(story, picture, y).draw() + kMargin;
    }
    picture.height = y;
    return picture;
}

}  // namespace wbfat::explore
