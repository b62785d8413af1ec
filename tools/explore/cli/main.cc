// wbfat-explore: prove a protocol of the page cache, or break it and draw how.
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <exception>
#include <fstream>
#include <system_error>
#include <variant>

#include "cache/protocol.h"

#include "tools/explore/cli/arguments.h"
#include "tools/explore/cli/matrix.h"
#include "tools/explore/cli/progress_line.h"
#include "tools/explore/cli/recipe.h"
#include "tools/explore/cli/report.h"
#include "tools/explore/draw/html.h"
#include "tools/explore/draw/perfetto.h"
#include "tools/explore/draw/picture.h"
#include "tools/explore/draw/svg.h"
#include "tools/explore/draw/text_lanes.h"
#include "tools/explore/explore.h"

namespace wbfat::explore {

namespace {

std::string title_of(const Options& options) {
    return fmt::format("{} under {}", options.scenario,
                       options.protocol.empty() ? "the newest protocol" : options.protocol);
}

Result search(const Arguments& arguments) {
    ProgressLine progress(title_of(arguments.options), arguments.progress);
    Options options = arguments.options;
    options.progress = progress.callback();
    return explore(options);
}

// What is written goes to a file whole or not at all as far as the reader can tell: errors are
// told.
void write_out(const std::string& file, const std::string& text) {
    if (file.empty()) {
        fmt::print("{}", text);
        return;
    }
    std::ofstream out(file, std::ios::binary | std::ios::trunc);
    out << text;
    out.close();
    if (!out) {
        throw UsageError(fmt::format("{}: it cannot be written: {}.", file,
                                     std::generic_category().message(errno)));
    }
}

// --- list

std::string list_text() {
    std::string text = "Scenarios:\n";
    for (const ScenarioInfo& scenario : scenarios()) {
        text += fmt::format("  {:<16} {}{}\n", scenario.name, scenario.summary,
                            scenario.is_big ? " (big: random strategies only)" : "");
        for (const ParameterInfo& size : scenario.parameters) {
            text += fmt::format("  {:<16}   --set {}={}  {}, {}\n", "", size.name,
                                value_text(size, size.standard), size.help,
                                size.value_names.empty()
                                    ? fmt::format("{} to {}", size.min, size.max)
                                    : fmt::format("{}", fmt::join(size.value_names, ", ")));
        }
    }
    text += "Protocols:\n";
    for (const cache::ProtocolPreset& preset : cache::protocol_presets()) {
        text += fmt::format("  {:<16} {}\n", preset.name, preset.help);
    }
    return text;
}

std::string list_json() {
    boost::json::array found;
    for (const ScenarioInfo& scenario : scenarios()) {
        boost::json::array sizes;
        for (const ParameterInfo& size : scenario.parameters) {
            sizes.push_back(
                {{"name", size.name},
                 {"help", size.help},
                 {"standard", size.standard},
                 {"min", size.min},
                 {"max", size.max},
                 {"values", boost::json::array(size.value_names.begin(), size.value_names.end())}});
        }
        found.push_back({{"name", scenario.name},
                         {"summary", scenario.summary},
                         {"big", scenario.is_big},
                         {"sizes", std::move(sizes)}});
    }
    boost::json::array protocols;
    for (const cache::ProtocolPreset& preset : cache::protocol_presets()) {
        protocols.push_back({{"name", preset.name}, {"help", preset.help}});
    }
    return boost::json::serialize(boost::json::object{{"scenarios", std::move(found)},
                                                      {"protocols", std::move(protocols)}}) +
           "\n";
}

int list(const Arguments& arguments) {
    fmt::print("{}", arguments.output == OutputStyle::kJson ? list_json() : list_text());
    return kExitSafe;
}

// --- run, replay, minimise

int run_search(const Arguments& arguments) {
    const Result result = search(arguments);
    if (arguments.output == OutputStyle::kJson) {
        fmt::print("{}\n", boost::json::serialize(json_report(arguments.options, result)));
    } else {
        fmt::print("{}", text_report(arguments.options, result));
    }
    return exit_status(result);
}

int tell(const Arguments& arguments, const RunRecord& run) {
    fmt::print("{}",
               text_report(run, subtitle_of(arguments.options, run, nullptr),
                           arguments.steps == Steps::kEach ? Folding::kOneEach : Folding::kFold));
    return exit_status(run);
}

int replay_one(const Arguments& arguments) {
    const Options& options = arguments.options;
    return tell(arguments, arguments.replayer == Replayer::kThreads
                               ? replay_on_threads(options, arguments.schedule)
                               : replay(options, arguments.schedule));
}

// --- draw

// The run to draw: the given schedule's, or the first failure, or one that is right.
RunRecord run_to_draw(const Arguments& arguments, std::vector<std::string>& subtitle) {
    RunRecord run;
    if (!arguments.schedule.empty()) {
        run = replay(arguments.options, arguments.schedule);
        subtitle = subtitle_of(arguments.options, run, nullptr);
    } else {
        const Result result = search(arguments);
        run = result.failure ? *result.failure : replay(arguments.options, "");
        subtitle = subtitle_of(arguments.options, run, &result);
    }
    if (run.failure.verdict != Verdict::kOk) {
        run.inevitability = inevitability(arguments.options, run);
    }
    return run;
}

std::string drawn(const std::vector<Story>& stories, PictureFormat format) {
    switch (format) {
        case PictureFormat::kSvg:
            return svg_of(lay_out(stories));
        case PictureFormat::kHtml:
            return html_of(stories);
        case PictureFormat::kPerfetto:
            return perfetto_of(stories.front());
        case PictureFormat::kText:
            break;
    }
    std::string text;
    for (const Story& story : stories) {
        text += (text.empty() ? "" : "\n") + story.title + "\n\n" + text_lanes_of(story);
    }
    return text;
}

int draw(const Arguments& arguments) {
    const Folding folding = arguments.steps == Steps::kEach ? Folding::kOneEach : Folding::kFold;
    std::vector<std::string> subtitle;
    const RunRecord run = run_to_draw(arguments, subtitle);
    std::vector<Story> stories = {story_of(run, subtitle, folding)};
    for (const std::string& protocol : arguments.compare) {
        Options options = arguments.options;
        options.protocol = protocol;
        RunRecord other = replay(options, run.schedule);
        if (other.failure.verdict != Verdict::kOk) {
            other.inevitability = inevitability(options, other);
        }
        stories.push_back(story_of(other, subtitle_of(options, other, nullptr), folding));
    }
    write_out(arguments.file, drawn(stories, arguments.format));
    return exit_status(run);
}

// --- matrix, recipe

int matrix(const Arguments& arguments) {
    const bool page = !arguments.html_file.empty();
    const Matrix found = explore_matrix(arguments, page ? Pictures::kDraw : Pictures::kNone);
    if (page) {
        write_out(arguments.html_file, html_of(found));
    }
    fmt::print("{}", arguments.output == OutputStyle::kJson ? json_of(found) : text_of(found));
    return exit_status(found);
}

int recipe(const Arguments& arguments) {
    RunRecord failure;
    if (!arguments.schedule.empty()) {
        failure = replay(arguments.options, arguments.schedule);
    } else {
        const Result result = search(arguments);
        if (!result.failure) {
            fmt::print("{}", text_report(arguments.options, result));
            return exit_status(result);
        }
        failure = *result.failure;
    }
    ProgressLine progress(fmt::format("recipe for {}", title_of(arguments.options)),
                          arguments.progress);
    Options options = arguments.options;
    options.progress = progress.callback();
    const Recipe made = make_recipe(options, failure);
    if (arguments.output == OutputStyle::kJson) {
        fmt::print("{}\n", boost::json::serialize(json_of(made, arguments.give_up)));
    } else {
        fmt::print("{}", text_of(made, arguments.give_up));
    }
    return made.forces ? kExitViolation : kExitUnfinished;
}

int run(const Arguments& arguments) {
    switch (arguments.verb) {
        case Verb::kList:
            return list(arguments);
        case Verb::kRun:
            return run_search(arguments);
        case Verb::kReplay:
            return replay_one(arguments);
        case Verb::kMinimise:
            return tell(arguments, minimise(arguments.options, arguments.schedule));
        case Verb::kDraw:
            return draw(arguments);
        case Verb::kMatrix:
            return matrix(arguments);
        case Verb::kRecipe:
            return recipe(arguments);
    }
    return kExitUsage;
}

}  // namespace

}  // namespace wbfat::explore

int main(int argc, char** argv) {
    using namespace wbfat::explore;  // NOLINT(google-build-using-namespace): this is the program
    try {
        const auto parsed = parse_arguments(argc, argv);
        if (const int* const status = std::get_if<int>(&parsed)) {
            return *status;
        }
        return run(std::get<Arguments>(parsed));
    } catch (const std::exception& error) {
        fmt::print(stderr, "wbfat-explore: {}\n", error.what());
        return kExitUsage;
    }
}
