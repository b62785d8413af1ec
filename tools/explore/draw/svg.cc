// The writer: one element a thing, looks in the style sheet.
#include "tools/explore/draw/svg.h"

#include <fmt/format.h>

#include <iterator>

namespace wbfat::explore {

namespace {

// Orange changes, blue locks, green wakes, violet sleeps, red fails; grey only looks.
constexpr std::string_view kStyleSheet = R"(
svg{font-family:"DejaVu Sans",Verdana,sans-serif;fill:#1b2733}
.paper{fill:#fff}
.bad{fill:#b3151c}.good{fill:#17703a}.quiet{fill:#5b6976}.inverse{fill:#fff}.inside{fill:#26435e}
.function{fill:#2b4257}
.lane{fill:#f2f5f8}.track{fill:#f7f9fa}
.high{fill:#dbe7f1}.high.accused{fill:#fbd5d3}.owner{fill:#c9dff3;stroke:#5f93bf}
.frame{fill:#fff;stroke:#b9c6d1}
.box{stroke:#0003}
.write{fill:#f6b26b}.read{fill:#dfe4e8}.lock{fill:#9cc3e6}.unlock{fill:#cfe2f3}.wake{fill:#7ccb92}
.sleep{fill:#c5b6ea}.woken{fill:#ddd4f5}.plain{fill:#eef1f3}.fail{fill:#d3222a;stroke:#7d0f14}
.badge{fill:#1b2733}
.spot{fill:#d3222a;stroke:#fff;stroke-width:1.5}
.stroke{fill:none}
.ruler{stroke:#9aa7b2}
.level{stroke:#3d6d99;stroke-width:2}.level.accused{stroke:#c4161c}
.pause{stroke-width:2.2;stroke-dasharray:1 5;stroke-linecap:round}
.delayed{stroke:#c76a00}.asleep{stroke:#7a5cc2}.blocked{stroke:#3d78ad}.forever{stroke:#c4161c}
.delayed.words{fill:#a85800}.asleep.words{fill:#6546b0}.blocked.words{fill:#2c608f}
.forever.words{fill:#b3151c}.wakes.words{fill:#157a43}.saw.words{fill:#b3151c}
.arrow{stroke-width:2.2}.wakes{stroke:#1b9a55}.saw{stroke:#d3222a;stroke-dasharray:6 4}
.look{stroke:#d3222a;stroke-width:1.4;stroke-dasharray:2 3}
.curve{stroke:#a8323e;stroke-width:1.8}.curve.fill{fill:#a8323e;fill-opacity:.16;stroke:none}
.curve.words{fill:#8c2530}
text.words{stroke:none}
)";

constexpr std::string_view kTips = R"(<defs>
<marker id="wake" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto" markerUnits="userSpaceOnUse"><path d="M0,0 L9,4 L0,8 Z" fill="#1b9a55"/></marker>
<marker id="saw" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto" markerUnits="userSpaceOnUse"><path d="M0,0 L9,4 L0,8 Z" fill="#d3222a"/></marker>
</defs>
)";

std::string tie(std::optional<std::size_t> box) {
    return box ? fmt::format(" data-box=\"{}\"", *box) : "";
}

void write(std::string& out, const Shape& shape) {
    const Rect& r = shape.area;
    fmt::format_to(std::back_inserter(out),
                   "<rect class=\"{}\" x=\"{:.6g}\" y=\"{:.6g}\" width=\"{:.6g}\" "
                   "height=\"{:.6g}\" rx=\"{:g}\"{}",
                   shape.style, r.x, r.y, r.width, r.height, shape.radius, tie(shape.box));
    if (shape.hint.empty()) {
        out += "/>\n";
    } else {
        out += fmt::format("><title>{}</title></rect>\n", xml_escaped(shape.hint));
    }
}

void write(std::string& out, const Stroke& stroke) {
    const std::string_view tip = stroke.tip == Tip::kWake  ? " marker-end=\"url(#wake)\""
                                 : stroke.tip == Tip::kSaw ? " marker-end=\"url(#saw)\""
                                                           : "";
    fmt::format_to(std::back_inserter(out), "<path class=\"stroke {}\" d=\"{}\"{}{}/>\n",
                   stroke.style, stroke.path, tip, tie(stroke.box));
}

void write(std::string& out, const Label& label) {
    const std::string_view anchor = label.anchor == Anchor::kMiddle  ? " text-anchor=\"middle\""
                                    : label.anchor == Anchor::kRight ? " text-anchor=\"end\""
                                                                     : "";
    const std::string_view weight = label.weight == Weight::kBold ? " font-weight=\"bold\"" : "";
    const std::string style = label.style.empty() ? "" : fmt::format(" class=\"{}\"", label.style);
    fmt::format_to(std::back_inserter(out),
                   "<text x=\"{:.6g}\" y=\"{:.6g}\" font-size=\"{:g}\"{}{}{}{}>{}</text>\n",
                   label.x, label.baseline, label.size, weight, anchor, style, tie(label.box),
                   xml_escaped(label.text));
}

}  // namespace

std::string xml_escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        switch (c) {
            case '&':
                out += "&amp;";
                break;
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '"':
                out += "&quot;";
                break;
            default:
                out += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
        }
    }
    return out;
}

std::string svg_of(const Picture& picture) {
    std::string out = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:g}\" height=\"{1:g}\" "
        "viewBox=\"0 0 {0:g} {1:g}\">\n<style>{2}</style>\n{3}"
        "<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n",
        picture.width, picture.height, kStyleSheet, kTips);
    for (const Shape& shape : picture.ground) {
        write(out, shape);
    }
    for (const Stroke& stroke : picture.strokes) {
        write(out, stroke);
    }
    for (const Shape& shape : picture.boxes) {
        write(out, shape);
    }
    for (const Stroke& stroke : picture.arrows) {
        write(out, stroke);
    }
    for (const Label& label : picture.labels) {
        write(out, label);
    }
    out += "</svg>\n";
    return out;
}

}  // namespace wbfat::explore
