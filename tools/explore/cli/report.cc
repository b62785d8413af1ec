// Sentences and numbers.
#include "tools/explore/cli/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "tools/explore/draw/text_lanes.h"

namespace wbfat::explore {

namespace {

const SearchResult* search_of(const Result& result, Method method) {
    for (const SearchResult& search : result.searches) {
        if (search.method == method && search.complete) {
            return &search;
        }
    }
    return nullptr;
}

std::uint64_t total_executions(const Result& result) {
    std::uint64_t total = 0;
    for (const SearchResult& search : result.searches) {
        total += search.executions;
    }
    return total;
}

double total_seconds(const Result& result) {
    std::chrono::nanoseconds total{0};
    for (const SearchResult& search : result.searches) {
        total += search.elapsed;
    }
    return std::chrono::duration<double>(total).count();
}

// Fewest preemptions of a failing schedule: all with fewer were tried.
std::optional<unsigned> fewest_preemptions(const Result& result) {
    if (result.minimal_preemptions || !result.failure) {
        return result.minimal_preemptions;
    }
    unsigned proved = 0;  // no schedule with fewer than this fails
    for (const SearchResult& search : result.searches) {
        if (search.method == Method::kBound && search.bound == proved && search.complete &&
            search.failures == 0) {
            ++proved;
        }
    }
    return proved == result.failure->preemptions ? std::optional(proved) : std::nullopt;
}

std::string preemptions_text(const Result& result) {
    const std::optional<unsigned> fewest = fewest_preemptions(result);
    const unsigned found = result.failure ? result.failure->preemptions : 0;
    return (fewest ? "" : "at most ") + count_of(fewest.value_or(found), "preemption");
}

// "fails with 1 preemption; no schedule with none does (complete)"
std::string minimality(const RunRecord& run, const Result* result) {
    std::string text = fmt::format("fails with {}", count_of(run.preemptions, "preemption"));
    if (result == nullptr || fewest_preemptions(*result) != run.preemptions) {
        return text;
    }
    if (run.preemptions == 0) {
        return text + ", the fewest there can be";
    }
    return text + fmt::format("; no schedule with {} does (complete)",
                              run.preemptions == 1
                                  ? "none"
                                  : fmt::format("{} or fewer", run.preemptions - 1));
}

std::string describe(const SearchResult& search) {
    std::string text = to_string(search.method);
    if (search.method == Method::kBound) {
        text += fmt::format(" {}", search.bound);
    }
    text = fmt::format("  {:<10} {}", text, count_of(search.executions, "execution"));
    if (search.states != 0) {
        text += fmt::format(", {} {}", search.states,
                            search.method == Method::kDpor ? "traces" : "states");
    }
    text += fmt::format(", {}", count_of(search.failures, "failure"));
    text += fmt::format(", {:.2f} s", std::chrono::duration<double>(search.elapsed).count());
    text += search.complete ? ", complete" : fmt::format(", ended by {}", search.stopped_by);
    if (!search.guarantee.empty()) {
        text += fmt::format(" ({})", search.guarantee);
    }
    return text + "\n";
}

std::string_view verdict_word(const Result& result) {
    switch (result.verdict) {
        case Verdict::kOk:
            return result.complete ? "safe" : "not finished";
        case Verdict::kAssertion:
            return "BUG";
        default:
            return to_string(result.verdict);
    }
}

}  // namespace

std::string count_of(std::uint64_t number, const std::string& noun) {
    return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

std::string cell_text(const Result& result) {
    if (result.verdict == Verdict::kAssertion) {
        return fmt::format("{} ({})", verdict_word(result), preemptions_text(result));
    }
    if (result.verdict != Verdict::kOk) {
        return std::string(verdict_word(result));
    }
    if (!result.complete) {
        return "not finished";
    }
    if (const SearchResult* const search = search_of(result, Method::kStateful)) {
        return fmt::format("safe ({})", count_of(search->states, "state"));
    }
    if (const SearchResult* const search = search_of(result, Method::kDpor)) {
        return fmt::format("safe ({})", count_of(search->states, "trace"));
    }
    return fmt::format("safe ({})", count_of(total_executions(result), "execution"));
}

int exit_status(const Result& result) {
    return result.verdict != Verdict::kOk ? kExitViolation
           : result.complete              ? kExitSafe
                                          : kExitUnfinished;
}

int exit_status(const RunRecord& run) {
    return run.failure.verdict == Verdict::kOk ? kExitSafe : kExitViolation;
}

std::string text_report(const Options& options, const Result& result) {
    std::string text = fmt::format(
        "{} under {}: {}\n", options.scenario,
        options.protocol.empty() ? "the newest protocol" : options.protocol, cell_text(result));
    for (const SearchResult& search : result.searches) {
        text += describe(search);
    }
    if (result.outcomes.size() > 1) {
        text += "  outcomes:\n";
        for (const auto& [outcome, count] : result.outcomes) {
            text += fmt::format("    {} x {}\n", count, outcome);
        }
    }
    if (result.failure) {
        text += "\n" + text_report(*result.failure, subtitle_of(options, *result.failure, &result),
                                   Folding::kFold);
    }
    return text;
}

std::string text_report(const RunRecord& run, const std::vector<std::string>& subtitle,
                        Folding folding) {
    const Story story = story_of(run, subtitle, folding);
    std::string text = story.title + "\n";
    for (const std::string& line : subtitle) {
        text += "  " + line + "\n";
    }
    for (std::size_t i = 0; i < story.chapters.size(); ++i) {
        text += fmt::format("  {}. {}\n", i + 1, story.chapters[i]);
    }
    if (run.failure.verdict != Verdict::kOk && !run.failure.title.empty() &&
        run.failure.title != story.title) {
        text += fmt::format("  {}\n", run.failure.title);
    }
    if (!run.failure.object.empty()) {
        text += fmt::format("  {}\n", run.failure.object);
    }
    return text + "\n" + text_lanes_of(story);
}

boost::json::object json_report(const Options& options, const Result& result) {
    boost::json::object out{
        {"protocol", options.protocol},    {"scenario", options.scenario},
        {"verdict", verdict_word(result)}, {"text", cell_text(result)},
        {"complete", result.complete},     {"executions", total_executions(result)},
        {"seconds", total_seconds(result)}};
    std::uint64_t states = 0;
    std::uint64_t memory_bytes = 0;
    boost::json::array searches;
    for (const SearchResult& search : result.searches) {
        states = search.method == Method::kStateful ? search.states : states;
        memory_bytes = std::max(memory_bytes, search.memory_bytes);
        searches.push_back({{"strategy", to_string(search.method)},
                            {"bound", search.bound},
                            {"complete", search.complete},
                            {"executions", search.executions},
                            {"failures", search.failures},
                            {"states", search.states},
                            {"final_states", search.final_states},
                            {"steps", search.steps},
                            {"seconds", std::chrono::duration<double>(search.elapsed).count()},
                            {"ended_by", search.stopped_by}});
    }
    out["states"] = states;
    out["memory_bytes"] = memory_bytes;
    out["preemptions"] = nullptr;
    out["minimal"] = fewest_preemptions(result).has_value();
    out["schedule"] = nullptr;
    out["title"] = nullptr;
    if (result.failure) {
        out["preemptions"] = result.failure->preemptions;
        out["schedule"] = result.failure->schedule;
        out["title"] = result.failure->failure.title;
    }
    boost::json::object outcomes;
    for (const auto& [outcome, count] : result.outcomes) {
        outcomes[outcome] = count;
    }
    out["outcomes"] = std::move(outcomes);
    out["searches"] = std::move(searches);
    return out;
}

std::vector<std::string> subtitle_of(const Options& options, const RunRecord& run,
                                     const Result* result) {
    std::string where =
        fmt::format("scenario {}, protocol {}", options.scenario,
                    options.protocol.empty() ? "of the newest kernel" : options.protocol);
    if (run.failure.verdict != Verdict::kOk) {
        where += ": " + minimality(run, result);
    }
    if (run.execution != 0) {
        where += fmt::format("; found by execution {}", run.execution);
    }
    return {where, replay_command(options, run.schedule)};
}

}  // namespace wbfat::explore
