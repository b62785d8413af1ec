// Who did what, drawn as lanes.
#include "cache/lanes.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

namespace wbfat::cache::inline WBFAT_RT {

namespace {

constexpr std::size_t kMinLaneWidth = 8;
constexpr std::string_view kContinuation = "  ";

bool is_continuation_byte(char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U;
}

// Characters, not bytes: names of threads and files may be UTF-8.
std::size_t width_of(std::string_view text) {
    return static_cast<std::size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return !is_continuation_byte(c); }));
}

// How many bytes the first `width` characters take.
std::size_t bytes_of(std::string_view text, std::size_t width) {
    std::size_t at = 0;
    while (at < text.size()) {
        if (!is_continuation_byte(text[at]) && width-- == 0) {
            break;
        }
        ++at;
    }
    return at;
}

// Breaks at a blank where there is one, and within a word where there is none.
std::vector<std::string> wrap(std::string_view text, std::size_t width) {
    std::vector<std::string> lines;
    std::string prefix;
    while (width_of(text) > width - prefix.size()) {
        const std::size_t fits = bytes_of(text, width - prefix.size());
        const std::size_t blank = text.substr(0, fits + 1).rfind(' ');
        const bool at_blank =
            blank != std::string_view::npos &&
            text.substr(0, blank).find_first_not_of(' ') != std::string_view::npos;
        const std::size_t cut = at_blank ? blank : fits;
        lines.push_back(prefix + std::string(text.substr(0, cut)));
        text.remove_prefix(at_blank ? cut + 1 : cut);
        prefix = kContinuation;
    }
    lines.push_back(prefix + std::string(text));
    return lines;
}

// Appends a line made of cells that each start at a place of their own.
class LineWriter {
public:
    explicit LineWriter(std::string& out) : out_(out) {}

    void cell(std::size_t column, std::string_view text) {
        if (text.empty()) {
            return;
        }
        out_.append(column > at_ ? column - at_ : 0, ' ');
        out_ += text;
        at_ = std::max(at_, column) + width_of(text);
    }
    void end() {
        out_ += '\n';
        at_ = 0;
    }

private:
    std::string& out_;
    std::size_t at_ = 0;
};

struct Layout {
    std::size_t margin_column = 0;
    std::size_t margin_width = 0;
    std::vector<std::size_t> lane_column;
};

Layout lay_out(std::span<const std::string> lanes, std::span<const LaneRow> rows,
               const LaneStyle& style, std::size_t max_width) {
    Layout layout;
    layout.margin_column = style.indent;
    std::vector<std::size_t> widths;
    for (const std::string& name : lanes) {
        widths.push_back(width_of(name));
    }
    for (const LaneRow& row : rows) {
        std::size_t& width = widths[std::min(row.lane, lanes.size() - 1)];
        width = std::max(width, std::min(width_of(row.text), max_width));
        layout.margin_width = std::max(layout.margin_width, width_of(row.margin));
    }
    std::size_t column = style.indent;
    column += layout.margin_width > 0 ? layout.margin_width + style.gap : 0;
    for (const std::size_t width : widths) {
        layout.lane_column.push_back(column);
        column += width + style.gap;
    }
    return layout;
}

}  // namespace

std::string draw_lanes(std::span<const std::string> lanes, std::span<const LaneRow> rows,
                       const LaneStyle& style) {
    if (lanes.empty()) {
        return {};
    }
    const std::size_t max_width = std::max(style.max_lane_width, kMinLaneWidth);
    const Layout layout = lay_out(lanes, rows, style, max_width);
    std::string out;
    LineWriter line(out);
    for (std::size_t i = 0; i < lanes.size(); ++i) {
        line.cell(layout.lane_column[i], lanes[i]);
    }
    line.end();
    for (std::size_t i = 0; i < lanes.size(); ++i) {
        line.cell(layout.lane_column[i], std::string(width_of(lanes[i]), '-'));
    }
    line.end();
    std::size_t last_lane = lanes.size();
    for (const LaneRow& row : rows) {
        const std::size_t lane = std::min(row.lane, lanes.size() - 1);
        if (lane != last_lane) {
            line.end();
            last_lane = lane;
        }
        // Numbers stand below each other.
        line.cell(layout.margin_column + layout.margin_width - width_of(row.margin), row.margin);
        for (const std::string& text : wrap(row.text, max_width)) {
            line.cell(layout.lane_column[lane], text);
            line.end();
        }
    }
    return out;
}

}  // namespace wbfat::cache::inline WBFAT_RT
