// The page around the picture.
#include "tools/explore/draw/html.h"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "tools/explore/draw/picture.h"
#include "tools/explore/draw/svg.h"

namespace wbfat::explore {

namespace {

constexpr std::string_view kStyle = R"(
body{margin:0;background:#fff;color:#1b2733;font:14px/1.45 "DejaVu Sans",Verdana,sans-serif}
#picture{overflow-x:auto;padding-bottom:7em}
#bar{position:fixed;bottom:0;left:0;right:0;padding:.6em 24px;background:#1b2733;color:#fff;
 min-height:4.4em;white-space:pre-line;max-height:30vh;overflow-y:auto}
#bar b{color:#ffd59a}
#bar kbd{border:1px solid #7c8a97;border-radius:3px;padding:0 .35em;font-size:85%}
.later{opacity:.13}
.box.now{stroke:#1b2733;stroke-width:3}
.box.past{fill:#8fbcec}.box.future{fill:#ffb55e}.box.beside{fill:#d9dde0}
.head{stroke:#1b2733;stroke-width:1.5;stroke-dasharray:3 3}
.box{cursor:pointer}
.fit svg{width:100%;height:auto}
)";

// `panels` is defined before: per panel first, columns, top, bottom, boxes of {thread, clock,
// detail}.
constexpr std::string_view kScript = R"(
const svg = document.querySelector('svg'), bar = document.querySelector('#bar');
const flat = panels.flatMap(p => p.boxes);
const longest = Math.max(...panels.map(p => p.boxes.length));
const heads = panels.map(p => {
  const line = document.createElementNS(svg.namespaceURI, 'line');
  line.setAttribute('class', 'head');
  line.setAttribute('y1', p.top); line.setAttribute('y2', p.bottom);
  svg.append(line);
  return line;
});
let now = longest - 1;
function say(text) { bar.textContent = text; }
function show() {
  const said = [];
  panels.forEach((p, n) => {
    const at = Math.min(now, p.boxes.length - 1), x = at < 0 ? p.left : p.columns[at];
    heads[n].setAttribute('x1', x); heads[n].setAttribute('x2', x);
    if (at >= 0) said.push(p.boxes[at].detail);
  });
  for (const thing of svg.querySelectorAll('[data-box]')) {
    const box = +thing.dataset.box, p = panels.findLast(q => q.first <= box), at = box - p.first;
    thing.classList.toggle('later', at > now);
    thing.classList.toggle('now', at === Math.min(now, p.boxes.length - 1));
  }
  say(now < 0 ? 'Before the first step.' : said.join('\n'));
}
function go(to) {
  now = Math.max(-1, Math.min(longest - 1, to));
  show();
}
addEventListener('keydown', event => {
  if (event.key === 'f') document.querySelector('#picture').classList.toggle('fit');
  const to = {ArrowRight: now + 1, ArrowLeft: now - 1, Home: -1, End: longest - 1}[event.key];
  if (to === undefined) return;
  event.preventDefault();
  go(to);
});
const before = (a, b) => b.clock[a.thread] >= a.clock[a.thread];
for (const thing of svg.querySelectorAll('.box')) {
  const id = +thing.dataset.box, p = panels.findLast(q => q.first <= id), me = flat[id];
  thing.addEventListener('mouseenter', () => {
    for (const other of svg.querySelectorAll('.box')) {
      const at = +other.dataset.box;
      if (at === id || at < p.first || at >= p.first + p.boxes.length) continue;
      other.classList.add(before(flat[at], me) ? 'past' : before(me, flat[at]) ? 'future' : 'beside');
    }
    say(me.detail);
  });
  thing.addEventListener('mouseleave', () => {
    for (const other of svg.querySelectorAll('.box')) other.classList.remove('past', 'future', 'beside');
    show();
  });
  thing.addEventListener('click', () => go(id - p.first));
}
bar.innerHTML = '<kbd>&rarr;</kbd> <kbd>&larr;</kbd> <kbd>Home</kbd> <kbd>End</kbd> go through the steps, <kbd>f</kbd> fits the window. ' +
  'Point at a box: <b style="color:#8fbcec">before it</b>, <b style="color:#ffb55e">only after it</b>, ' +
  '<b style="color:#d9dde0">in no order with it</b>.';
)";

boost::json::object panel_json(const Story& story, const PanelFrame& frame) {
    boost::json::array boxes;
    for (const Box& box : story.boxes) {
        boxes.push_back({{"thread", box.thread},
                         {"clock", boost::json::value_from(box.clock)},
                         {"detail", box.detail}});
    }
    return {{"first", frame.first_box},
            {"left", frame.left},
            {"top", frame.top},
            {"bottom", frame.bottom},
            {"columns", boost::json::value_from(frame.columns)},
            {"boxes", std::move(boxes)}};
}

// JSON inside of a script element: nothing in it may end the element.
std::string script_safe(const std::string& json) {
    std::string out;
    for (const char c : json) {
        out += c == '<' ? "\\u003c" : std::string(1, c);
    }
    return out;
}

}  // namespace

std::string html_head(const std::string& title, std::string_view style) {
    return fmt::format(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
        "<title>{}</title>\n<style>{}</style></head><body>\n",
        xml_escaped(title), style);
}

std::string html_of(std::span<const Story> stories) {
    const Picture picture = lay_out(stories);
    boost::json::array panels;
    for (std::size_t i = 0; i < stories.size(); ++i) {
        panels.push_back(panel_json(stories[i], picture.panels[i]));
    }
    return fmt::format(
        "{}<div id=\"picture\">{}</div><div id=\"bar\"></div>\n<script>\nconst panels = {};{}"
        "</script>\n</body></html>\n",
        html_head(stories.empty() ? "wbfat-explore" : stories.front().title, kStyle),
        svg_of(picture), script_safe(boost::json::serialize(panels)), kScript);
}

}  // namespace wbfat::explore
