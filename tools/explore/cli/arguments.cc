// The command line with CLI11, and its inverse for the replay line.
#include "tools/explore/cli/arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include <CLI/CLI.hpp>

namespace wbfat::explore {

namespace {

constexpr const char* kVersion = "wbfat-explore 0.1.0";

// What CLI11 writes into and what then becomes Arguments.
struct Raw {
    Arguments arguments;
    std::vector<std::string> settings;
    std::string method = "auto";
    double seconds = 0;
    bool json = false;
    bool threads = false;
    bool every_step = false;
    bool all = false;
};

void add_scenario(CLI::App* cmd, Raw& raw) {
    cmd->add_option("SCENARIO", raw.arguments.options.scenario, "name, see `wbfat-explore list`")
        ->required();
    cmd->add_option("-p,--protocol", raw.arguments.options.protocol,
                    "preset, with switches: 5.10, 6.8,wait=if; default: the newest");
    cmd->add_option("--set", raw.settings, "size of the scenario: NAME=VALUE; may be repeated")
        ->allow_extra_args(false);
}

void add_limits(CLI::App* cmd, Raw& raw) {
    Options& options = raw.arguments.options;
    cmd->add_option("-s,--strategy", raw.method,
                    "auto, bound, stateful, dpor, dfs, pos, pct or random")
        ->capture_default_str();
    cmd->add_option("-b,--bound", options.max_bound, "most preemptions that `bound` tries")
        ->capture_default_str();
    cmd->add_option("-t,--time", raw.seconds, "end after so many seconds")
        ->check(CLI::PositiveNumber);
    cmd->add_option("-m,--memory", options.memory_limit_bytes, "most memory, bytes or with K, M, G")
        ->transform(CLI::AsSizeValue(false));
    cmd->add_option("-n,--executions", options.max_executions, "end after so many executions")
        ->check(CLI::PositiveNumber);
    cmd->add_option("-j,--jobs", options.jobs, "processes, of the matrix only")
        ->capture_default_str()
        ->check(CLI::Range(1U, 256U));
    cmd->add_option("--seed", options.seed, "seed of pos, pct and random")->capture_default_str();
}

void add_progress(CLI::App* cmd, Raw& raw) {
    const std::map<std::string, ShowProgress> values{{"auto", ShowProgress::kAuto},
                                                     {"always", ShowProgress::kAlways},
                                                     {"never", ShowProgress::kNever}};
    cmd->add_option("--progress", raw.arguments.progress,
                    "live progress on standard error: auto, always, never")
        ->transform(CLI::CheckedTransformer(values));
}

void add_output(CLI::App* cmd, Raw& raw) {
    cmd->add_flag("--json", raw.json, "results as JSON on standard output");
}

CLI::App* verb(CLI::App& app, Raw& raw, Verb verb, const char* name, const char* help) {
    CLI::App* const cmd = app.add_subcommand(name, help);
    cmd->callback([&raw, verb] { raw.arguments.verb = verb; });
    return cmd;
}

void add_draw(CLI::App& app, Raw& raw) {
    CLI::App* const cmd =
        verb(app, raw, Verb::kDraw, "draw", "draw a schedule, or the first failing one");
    add_scenario(cmd, raw);
    cmd->add_option("--schedule", raw.arguments.schedule,
                    "what to draw, as `run` prints it; default: search for a failing one");
    const std::map<std::string, PictureFormat> formats{{"text", PictureFormat::kText},
                                                       {"svg", PictureFormat::kSvg},
                                                       {"html", PictureFormat::kHtml},
                                                       {"perfetto", PictureFormat::kPerfetto}};
    cmd->add_option("-f,--format", raw.arguments.format, "svg, html, perfetto or text")
        ->transform(CLI::CheckedTransformer(formats));
    cmd->add_option("-o,--output", raw.arguments.file, "file; default: standard output");
    cmd->add_option("--compare", raw.arguments.compare,
                    "the same schedule under this protocol too, below; may be repeated")
        ->allow_extra_args(false);
    cmd->add_flag("--every-step", raw.every_step, "a box for each step, none folded");
    add_limits(cmd, raw);
    add_progress(cmd, raw);
}

void add_matrix(CLI::App& app, Raw& raw) {
    CLI::App* const cmd =
        verb(app, raw, Verb::kMatrix, "matrix", "every protocol in every scenario");
    cmd->add_option("--protocols", raw.arguments.protocols, "only these; default: all presets");
    cmd->add_option("--scenarios", raw.arguments.scenario_names, "only these; default: all");
    cmd->add_option("--html", raw.arguments.html_file,
                    "write a page here, in which a cell opens its picture");
    add_output(cmd, raw);
    add_limits(cmd, raw);
    add_progress(cmd, raw);
}

void add_commands(CLI::App& app, Raw& raw) {
    add_output(verb(app, raw, Verb::kList, "list", "scenarios, their sizes, and protocols"), raw);

    CLI::App* const run = verb(app, raw, Verb::kRun, "run", "search one scenario");
    add_scenario(run, raw);
    add_limits(run, raw);
    run->add_flag("--all", raw.all, "count every failure instead of stopping at the first");
    add_output(run, raw);
    add_progress(run, raw);

    CLI::App* const replay =
        verb(app, raw, Verb::kReplay, "replay", "run one schedule and tell what happened");
    add_scenario(replay, raw);
    replay->add_option("--schedule", raw.arguments.schedule, "as `run` prints it: \"A1 B3 C5\"")
        ->required();
    replay->add_flag("--replay-threads", raw.threads,
                     "on one thread per task, one at a time: for a debugger");
    replay->add_flag("--every-step", raw.every_step, "a row for each step, none folded");

    CLI::App* const minimise = verb(app, raw, Verb::kMinimise, "minimise",
                                    "the same failure with as few preemptions as can be found");
    add_scenario(minimise, raw);
    minimise->add_option("--schedule", raw.arguments.schedule, "a failing one")->required();

    add_draw(app, raw);
    add_matrix(app, raw);

    CLI::App* const recipe = verb(app, raw, Verb::kRecipe, "recipe",
                                  "the fewest ordering rules that force a failure, proved");
    add_scenario(recipe, raw);
    recipe->add_option("--schedule", raw.arguments.schedule,
                       "a failing one; default: search for it");
    recipe
        ->add_option("--give-up", raw.arguments.give_up,
                     "how long the live mount holds a thread at most")
        ->default_str("2ms");
    add_limits(recipe, raw);
    add_output(recipe, raw);
    add_progress(recipe, raw);
}

// Null: there is no such scenario or parameter, which the explorer says better.
const ParameterInfo* find_parameter(const std::string& scenario, const std::string& name) {
    for (const ScenarioInfo& known : scenarios()) {
        for (const ParameterInfo& parameter : known.parameters) {
            if (known.name == scenario && parameter.name == name) {
                return &parameter;
            }
        }
    }
    return nullptr;
}

// "cpus=4", "to=5.10"
void apply_setting(const std::string& setting, Options& options) {
    const std::size_t equals = setting.find('=');
    if (equals == std::string::npos || equals == 0) {
        throw UsageError(
            fmt::format("--set {}: NAME=VALUE is wanted, as in --set cpus=3.", setting));
    }
    const std::string name = setting.substr(0, equals);
    const std::string text = setting.substr(equals + 1);
    const ParameterInfo* const parameter = find_parameter(options.scenario, name);
    if (parameter != nullptr && !parameter->value_names.empty()) {
        const std::vector<std::string>& names = parameter->value_names;
        const auto found = std::find(names.begin(), names.end(), text);
        if (found == names.end()) {
            throw UsageError(
                fmt::format("--set {}: {} is one of {}.", setting, name, fmt::join(names, ", ")));
        }
        options.parameters[name] = static_cast<unsigned>(found - names.begin());
        return;
    }
    unsigned value = 0;
    const char* const end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, value);
    if (parsed.ec != std::errc{} || parsed.ptr != end) {
        throw UsageError(
            fmt::format("--set {}: NAME=NUMBER is wanted, as in --set cpus=3.", setting));
    }
    options.parameters[name] = value;
}

Arguments cooked(Raw& raw) {
    Arguments arguments = std::move(raw.arguments);
    for (const std::string& setting : raw.settings) {
        apply_setting(setting, arguments.options);
    }
    const std::optional<Method> method = method_from(raw.method);
    if (!method) {
        throw UsageError(
            fmt::format("--strategy {}: auto, bound, stateful, dpor, dfs, pos, pct or "
                        "random is wanted.",
                        raw.method));
    }
    arguments.options.method = *method;
    if (raw.seconds > 0) {
        constexpr double kLongest = 1e9;
        arguments.options.time_limit =
            std::chrono::nanoseconds(std::llround(std::min(raw.seconds, kLongest) * 1e9));
    }
    arguments.options.stop_at_first = !raw.all;
    arguments.output = raw.json ? OutputStyle::kJson : OutputStyle::kText;
    arguments.replayer = raw.threads ? Replayer::kThreads : Replayer::kFibers;
    arguments.steps = raw.every_step ? Steps::kEach : Steps::kFolded;
    if (arguments.give_up.empty()) {
        arguments.give_up = "2ms";
    }
    return arguments;
}

}  // namespace

std::variant<Arguments, int> parse_arguments(int argc, char** argv) {
    CLI::App app{
        "wbfat-explore: runs the page cache under a scheduler, through every interleaving of a "
        "scenario: can this protocol fail, how, and is that proved?"};
    app.set_help_all_flag("--help-all", "print the usage of all commands");
    app.set_version_flag("-V,--version", kVersion);
    app.require_subcommand(1);
    app.footer("Exit status: 0 safe, 1 a schedule fails, 2 wrong usage, 3 not finished.");
    Raw raw;
    add_commands(app, raw);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? kExitSafe : kExitUsage;
    }
    return cooked(raw);
}

std::string replay_command(const Options& options, const std::string& schedule) {
    std::string command = fmt::format("wbfat-explore replay {}", options.scenario);
    if (!options.protocol.empty()) {
        command += fmt::format(" --protocol {}", options.protocol);
    }
    for (const auto& [name, value] : options.parameters) {
        const ParameterInfo* const parameter = find_parameter(options.scenario, name);
        command += fmt::format(
            " --set {}={}", name,
            parameter != nullptr ? value_text(*parameter, value) : std::to_string(value));
    }
    return command + fmt::format(" --schedule \"{}\"", schedule);
}

}  // namespace wbfat::explore
