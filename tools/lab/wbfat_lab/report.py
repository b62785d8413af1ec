"""Results for people and programs: a table, one JSON object, one HTML page that needs nothing else.

A Result is what an experiment found: its question, rows of figures, a verdict, how to look closer. Columns are named;
a row may lack some.
"""

import html
import json
from dataclasses import dataclass, field


@dataclass
class Column:
    key: str
    title: str
    form: str = "{}"
    bar: bool = False  # drawn as a bar on the page


@dataclass
class Result:
    name: str
    question: str
    what: str
    columns: list
    rows: list = field(default_factory=list)
    verdict: str = ""
    passed: bool = True
    closer: list = field(default_factory=list)  # commands
    report: str = ""                            # of the first hit
    stopped: bool = False                       # before it came to a verdict

    def stop(self):
        self.stopped, self.passed = True, False
        self.verdict = "none: the experiment was stopped, and these are the rows until then"

    def as_json(self):
        return {"experiment": self.name, "question": self.question, "verdict": self.verdict, "passed": self.passed,
                "stopped": self.stopped, "rows": self.rows, "closer": self.closer, "report": self.report}


def cell(column, row):
    value = row.get(column.key)
    return "" if value is None else column.form.format(value)


def row_line(result, row):
    """The row without a table around it: "protocol 5.9, rounds 20"."""
    return ", ".join(f"{column.title} {cell(column, row)}" for column in result.columns if cell(column, row))


def text_table(result):
    texts = [[column.title for column in result.columns]]
    texts += [[cell(column, row) for column in result.columns] for row in result.rows]
    widths = [max(len(line[i]) for line in texts) for i in range(len(result.columns))]
    numeric = [all(isinstance(row.get(column.key), (int, float, type(None))) for row in result.rows)
               for column in result.columns]

    def line(words):
        return "  ".join(word.rjust(width) if right else word.ljust(width)
                         for word, width, right in zip(words, widths, numeric)).rstrip()

    return "\n".join([line(texts[0]), "  ".join("-" * width for width in widths)] + [line(t) for t in texts[1:]])


def text(result):
    parts = [f"{result.name}: {result.question}", "", result.what, "", text_table(result), "",
             f"Verdict: {result.verdict}"]
    if result.report:
        parts += ["", "The first report:", "", result.report.rstrip()]
    if result.closer:
        parts += ["", "To look closer:"] + [f"  {command}" for command in result.closer]
    return "\n".join(parts) + "\n"


def as_json(results):
    return json.dumps([result.as_json() for result in results], indent=1)


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 3rem; border-top: 1px solid #ddd; padding-top: 1.5rem; }
.question { font-size: 1.15rem; font-style: italic; }
.verdict { padding: .6rem 1rem; border-left: 5px solid #2a7; background: #eefaf3; }
.verdict.failed { border-color: #c33; background: #fdeeee; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #e4e4e4; } td.n { text-align: right; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 13px; line-height: 1.35; }
svg text { font: 13px system-ui, sans-serif; fill: #222; }
@media (prefers-color-scheme: dark) { body { background: #16181b; color: #ddd; } pre { background: #22262b; }
 .verdict { background: #17301f; } .verdict.failed { background: #3a1a1a; } svg text { fill: #ddd; }
 th, td { border-color: #333; } }
"""
BAR_WIDTH = 460
BAR_HEIGHT = 20
LABEL_WIDTH = 210


def bars(result, column):
    """One bar a row, to the largest value's scale."""
    rows = [(row, row.get(column.key)) for row in result.rows if isinstance(row.get(column.key), (int, float))]
    if not rows:
        return ""
    top = max(value for _, value in rows) or 1
    height = BAR_HEIGHT * len(rows)
    parts = [f'<figure><figcaption>{html.escape(column.title)}</figcaption><svg role="img" '
             f'aria-label="{html.escape(column.title)}" width="{LABEL_WIDTH + BAR_WIDTH + 110}" height="{height}">']
    for i, (row, value) in enumerate(rows):
        label = " ".join(str(row[key]) for key in ("protocol", "how") if row.get(key))
        y = i * BAR_HEIGHT
        width = max(1 if value else 0, BAR_WIDTH * value / top)
        colour = "#c33" if row.get("bad") else "#37a"
        parts.append(f'<text x="{LABEL_WIDTH - 8}" y="{y + 14}" text-anchor="end">{html.escape(label)}</text>'
                     f'<rect x="{LABEL_WIDTH}" y="{y + 3}" width="{width:.1f}" height="{BAR_HEIGHT - 6}" '
                     f'fill="{colour}"/><text x="{LABEL_WIDTH + width + 6:.1f}" y="{y + 14}">'
                     f'{html.escape(column.form.format(value))}</text>')
    return "".join(parts) + "</svg></figure>"


def page_table(result):
    head = "".join(f"<th>{html.escape(column.title)}</th>" for column in result.columns)
    body = ""
    for row in result.rows:
        body += "<tr>" + "".join(
            f'<td class="{"n" if isinstance(row.get(column.key), (int, float)) else "t"}">'
            f"{html.escape(cell(column, row))}</td>" for column in result.columns) + "</tr>"
    return f"<table><tr>{head}</tr>{body}</table>"


def page_section(result):
    parts = [f'<h2 id="{html.escape(result.name)}">{html.escape(result.name)}</h2>'
             f'<p class="question">{html.escape(result.question)}</p><p>{html.escape(result.what)}</p>'
             f'<p class="verdict{"" if result.passed else " failed"}">{html.escape(result.verdict)}</p>']
    parts += [bars(result, column) for column in result.columns if column.bar]
    parts.append(page_table(result))
    if result.report:
        parts.append(f"<h3>The first report</h3><pre>{html.escape(result.report)}</pre>")
    if result.closer:
        parts.append("<h3>To look closer</h3><pre>" + html.escape("\n".join(result.closer)) + "</pre>")
    return "".join(parts)


def as_page(results, subtitle):
    sections = "".join(page_section(result) for result in results)
    return (f'<!doctype html><html lang="en"><meta charset="utf-8"><title>wbfat-lab</title><style>{STYLE}</style>'
            f"<h1>wbfat-lab</h1><p>{html.escape(subtitle)}</p>{sections}</html>\n")
