// Processes, one for each cell, and the table of what they found.
#include "tools/explore/cli/matrix.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <sys/wait.h>

#include "cache/protocol.h"

#include "tools/explore/cli/progress_line.h"
#include "tools/explore/cli/report.h"
#include "tools/explore/draw/html.h"
#include "tools/explore/draw/picture.h"
#include "tools/explore/draw/svg.h"

namespace wbfat::explore {

namespace {

namespace json = boost::json;

std::string svg_of_cell(const Options& options, const Result& result) {
    // A cell without a failure shows one run, so that a reader sees what its scenario does.
    RunRecord run = result.failure ? *result.failure : replay(options, "");
    if (result.failure) {
        run.inevitability = inevitability(options, run);
    }
    const std::vector<Story> stories = {
        story_of(run, subtitle_of(options, run, result.failure ? &result : nullptr))};
    return svg_of(lay_out(stories));
}

// What the process of a cell says: {"report": .., "svg": ..} or {"error": ..}.
std::string explore_cell(const Options& options, Pictures pictures) {
    json::object out;
    try {
        const Result result = explore(options);
        out["report"] = json_report(options, result);
        out["svg"] = pictures == Pictures::kDraw ? svg_of_cell(options, result) : "";
    } catch (const std::exception& error) {
        out["error"] = error.what();
    }
    return json::serialize(out);
}

class Worker {
public:
    Worker(std::size_t cell, const Options& options, Pictures pictures) : cell_(cell) {
        std::array<int, 2> ends{};
        if (pipe(ends.data()) != 0) {
            throw std::system_error(errno, std::generic_category(), "pipe");
        }
        pid_ = fork();
        if (pid_ < 0) {
            throw std::system_error(errno, std::generic_category(), "fork");
        }
        if (pid_ == 0) {
            close(ends[0]);
            const std::string said = explore_cell(options, pictures);
            std::size_t written = 0;
            while (written < said.size()) {
                const ssize_t n = write(ends[1], said.data() + written, said.size() - written);
                if (n < 0 && errno != EINTR) {
                    break;
                }
                written += n > 0 ? static_cast<std::size_t>(n) : 0;
            }
            _exit(0);
        }
        close(ends[1]);
        from_ = ends[0];
    }
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;
    Worker(Worker&& other) noexcept
        : cell_(other.cell_), pid_(std::exchange(other.pid_, -1)), from_(other.from_) {}
    Worker& operator=(Worker&& other) = delete;
    ~Worker() {
        if (pid_ > 0) {
            close(from_);
            waitpid(pid_, nullptr, 0);
        }
    }

    std::size_t cell() const {
        return cell_;
    }

    // Reads until the process has said everything and ended.
    json::object result(const Cell& cell) {
        std::string said;
        std::array<char, 65536> buffer{};
        for (;;) {
            const ssize_t n = read(from_, buffer.data(), buffer.size());
            if (n < 0 && errno == EINTR) {
                continue;
            }
            if (n <= 0) {
                break;
            }
            said.append(buffer.data(), static_cast<std::size_t>(n));
        }
        boost::system::error_code bad;
        const json::value value = json::parse(said, bad);
        if (bad.failed() || !value.is_object()) {
            throw std::runtime_error(fmt::format("{} under {}: the process that explored it died.",
                                                 cell.scenario, cell.protocol));
        }
        if (const json::value* const error = value.as_object().if_contains("error")) {
            throw UsageError(std::string(error->as_string()));
        }
        return value.as_object();
    }

private:
    std::size_t cell_;
    pid_t pid_ = -1;
    int from_ = -1;
};

std::vector<std::string> chosen_protocols(const Arguments& arguments) {
    if (!arguments.protocols.empty()) {
        return arguments.protocols;
    }
    std::vector<std::string> names;
    for (const cache::ProtocolPreset& preset : cache::protocol_presets()) {
        names.emplace_back(preset.name);
    }
    return names;
}

std::vector<std::string> chosen_scenarios(const Arguments& arguments) {
    if (!arguments.scenario_names.empty()) {
        return arguments.scenario_names;
    }
    std::vector<std::string> names;
    for (const ScenarioInfo& scenario : scenarios()) {
        names.push_back(scenario.name);
    }
    return names;
}

Options options_of(const Arguments& arguments, const Cell& cell) {
    Options options = arguments.options;
    options.protocol = cell.protocol;
    options.scenario = cell.scenario;
    options.jobs = 1;
    for (const ScenarioInfo& scenario : scenarios()) {
        if (scenario.name == cell.scenario && options.max_executions != UINT64_MAX) {
            options.max_executions =
                std::max<std::uint64_t>(options.max_executions / scenario.weight, 1);
        }
    }
    return options;
}

std::string_view style_of(const Cell& cell) {
    const std::string_view verdict = cell.report.at("verdict").as_string();
    return verdict == "safe" ? "safe" : verdict == "not finished" ? "open" : "fails";
}

constexpr std::string_view kStyle = R"(
body{margin:24px;background:#fff;color:#1b2733;font:14px/1.5 "DejaVu Sans",Verdana,sans-serif}
table{border-collapse:collapse}
th,td{border:1px solid #c8d0d7;padding:.4em .7em;text-align:left;white-space:nowrap}
th{background:#f2f5f8}
td.safe{background:#e3f4e8}td.fails{background:#fbd5d3}td.open{background:#fff4d6}
td a{color:inherit;text-decoration:none;display:block}td a:hover{text-decoration:underline}
section{display:none;position:fixed;inset:0;background:#fff;overflow:auto}
section:target{display:block}
section>a{position:fixed;right:24px;top:12px;background:#1b2733;color:#fff;padding:.3em .8em;
 border-radius:4px;text-decoration:none}
)";

}  // namespace

Matrix explore_matrix(const Arguments& arguments, Pictures pictures) {
    Matrix matrix{.protocols = chosen_protocols(arguments),
                  .scenarios = chosen_scenarios(arguments),
                  .cells = {}};
    for (const std::string& scenario : matrix.scenarios) {
        for (const std::string& protocol : matrix.protocols) {
            matrix.cells.push_back(
                {.protocol = protocol, .scenario = scenario, .text = "", .report = {}, .svg = ""});
        }
    }
    ProgressLine progress("matrix", arguments.progress);
    std::deque<Worker> workers;
    std::size_t next = 0;
    for (std::size_t done = 0; done < matrix.cells.size(); ++done) {
        while (next < matrix.cells.size() && workers.size() < arguments.options.jobs) {
            workers.emplace_back(next, options_of(arguments, matrix.cells[next]), pictures);
            ++next;
        }
        Cell& cell = matrix.cells[workers.front().cell()];
        progress.update(fmt::format("{} of {} cells, now {} under {}", done, matrix.cells.size(),
                                    cell.scenario, cell.protocol));
        json::object result = workers.front().result(cell);
        cell.report = result.at("report").as_object();
        cell.text = std::string(cell.report.at("text").as_string());
        cell.svg = std::string(result.at("svg").as_string());
        workers.pop_front();
    }
    return matrix;
}

std::string text_of(const Matrix& matrix) {
    std::vector<std::vector<std::string>> rows(matrix.scenarios.size() + 1);
    rows[0].emplace_back("scenario");
    rows[0].insert(rows[0].end(), matrix.protocols.begin(), matrix.protocols.end());
    for (std::size_t s = 0; s < matrix.scenarios.size(); ++s) {
        rows[s + 1].push_back(matrix.scenarios[s]);
        for (std::size_t p = 0; p < matrix.protocols.size(); ++p) {
            rows[s + 1].push_back(matrix.at(s, p).text);
        }
    }
    std::vector<std::size_t> widths(matrix.protocols.size() + 1);
    for (const auto& row : rows) {
        for (std::size_t i = 0; i < row.size(); ++i) {
            widths[i] = std::max(widths[i], row[i].size());
        }
    }
    std::string text;
    const auto add = [&](const std::vector<std::string>& row) {
        for (std::size_t i = 0; i < row.size(); ++i) {
            text += fmt::format("| {:{}} ", row[i], widths[i]);
        }
        text += "|\n";
    };
    add(rows[0]);
    for (const std::size_t width : widths) {
        text += fmt::format("|{:-<{}}", "", width + 2);
    }
    text += "|\n";
    std::for_each(rows.begin() + 1, rows.end(), add);
    return text;
}

std::string json_of(const Matrix& matrix) {
    std::string text = "[\n";
    for (const Cell& cell : matrix.cells) {
        text += json::serialize(cell.report) + (&cell == &matrix.cells.back() ? "\n" : ",\n");
    }
    return text + "]\n";
}

std::string html_of(const Matrix& matrix) {
    std::string page = html_head("wbfat-explore matrix", kStyle);
    page +=
        "<h1>Protocols in scenarios</h1>\n<p>A cell opens its picture. <b>safe (N states)</b>: "
        "every state was seen, none fails. <b>BUG (k preemptions)</b>: the fewest a failing "
        "schedule needs.</p>\n<table>\n<tr><th>scenario</th>";
    for (const std::string& protocol : matrix.protocols) {
        page += fmt::format("<th>{}</th>", xml_escaped(protocol));
    }
    page += "</tr>\n";
    for (std::size_t s = 0; s < matrix.scenarios.size(); ++s) {
        page += fmt::format("<tr><th>{}</th>", xml_escaped(matrix.scenarios[s]));
        for (std::size_t p = 0; p < matrix.protocols.size(); ++p) {
            const Cell& cell = matrix.at(s, p);
            page += fmt::format("<td class=\"{}\"><a href=\"#c{}-{}\">{}</a></td>", style_of(cell),
                                s, p, xml_escaped(cell.text));
        }
        page += "</tr>\n";
    }
    page += "</table>\n";
    for (std::size_t s = 0; s < matrix.scenarios.size(); ++s) {
        for (std::size_t p = 0; p < matrix.protocols.size(); ++p) {
            page += fmt::format("<section id=\"c{}-{}\"><a href=\"#\">back</a>{}</section>\n", s, p,
                                matrix.at(s, p).svg);
        }
    }
    return page + "</body></html>\n";
}

int exit_status(const Matrix& matrix) {
    int status = kExitSafe;
    for (const Cell& cell : matrix.cells) {
        const std::string_view style = style_of(cell);
        if (style == "fails") {
            return kExitViolation;
        }
        if (style == "open") {
            status = kExitUnfinished;
        }
    }
    return status;
}

}  // namespace wbfat::explore
