// A Story laid out: rectangles, strokes and labels with their places, ready for a writer.
//
// The idea: every box has a column of its own, as wide as its words and those of its frame need,
// and every lane keeps free room above and below its boxes. So the vertical parts of arrows run in
// columns where no other lane has a box, the horizontal parts run in gutters between lanes, and
// no label meets another.
//
// Invariants
//   L1. The areas of any two labels are disjoint.
//   L2. A label lies within the picture, and within its box or outside of every box.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tools/explore/draw/story.h"
#include "tools/explore/draw/text_width.h"

namespace wbfat::explore {

struct Rect {
    double x = 0;
    double y = 0;
    double width = 0;
    double height = 0;

    double right() const {
        return x + width;
    }
    double bottom() const {
        return y + height;
    }
    double center() const {
        return x + width / 2;
    }
    bool meets(const Rect& other) const {
        return x < other.right() && other.x < right() && y < other.bottom() && other.y < bottom();
    }
    bool contains(const Rect& other) const {
        return x <= other.x && y <= other.y && other.right() <= right() &&
               other.bottom() <= bottom();
    }
};

// `style` is a class of the style sheet; `box` ties a thing to a box of the stories, counted
// through all of them, for the step-through.
struct Shape {
    Rect area;
    double radius = 0;
    std::string style;
    std::optional<std::size_t> box = {};
    std::string hint = {};
};

enum class Tip { kNone, kWake, kSaw };

struct Stroke {
    std::string path;  // as in SVG
    std::string style;
    Tip tip = Tip::kNone;
    std::optional<std::size_t> box = {};
};

enum class Anchor { kLeft, kMiddle, kRight };

struct Label {
    double x = 0;  // of the anchor
    double baseline = 0;
    std::string text;
    double size = 11;
    Weight weight = Weight::kRegular;
    Anchor anchor = Anchor::kLeft;
    std::string style = {};
    std::optional<std::size_t> box = {};

    Rect area() const;
};

// One story's part of a picture, for what moves over it.
struct PanelFrame {
    std::size_t first_box = 0;
    double left = 0;  // of the first column
    double right = 0;
    double top = 0;  // of the schedule's ruler
    double bottom = 0;
    std::vector<double> columns;  // right edge of each box's column
};

// Drawn in this order: ground, strokes, boxes, arrows, labels.
struct Picture {
    double width = 0;
    double height = 0;
    std::vector<Shape> ground;
    std::vector<Stroke> strokes;
    std::vector<Shape> boxes;
    std::vector<Stroke> arrows;
    std::vector<Label> labels;
    std::vector<PanelFrame> panels;
};

// One below the other.
Picture lay_out(std::span<const Story> stories);

}  // namespace wbfat::explore
