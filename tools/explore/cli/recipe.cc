// Deletion of one ordering after the other, while the failure stays forced.
#include "tools/explore/cli/recipe.h"

#include <fmt/format.h>

#include <algorithm>

#include "tools/explore/cli/report.h"
#include "tools/explore/edges.h"

namespace wbfat::explore {

namespace {

struct Trial {
    bool forces = false;
    bool complete = false;
    std::uint64_t schedules = 0;
    std::uint64_t failures = 0;
};

// All states of the schedules that keep the edges; a schedule that an edge stops for ever is one
// that does not fail as `failure` did.
Trial try_edges(const Options& options, const RunRecord& failure,
                const std::vector<OrderEdge>& edges) {
    Options all = options;
    all.method = Method::kStateful;
    all.order = edges;
    all.stop_at_first = false;
    const Result result = explore(all);
    const std::string same = std::string(to_string(failure.failure.verdict)) + ":";
    Trial trial;
    trial.complete = result.complete;
    for (const auto& [outcome, count] : result.outcomes) {
        trial.schedules += count;
        trial.failures += outcome.compare(0, same.size(), same) == 0 ? count : 0;
    }
    trial.forces = trial.complete && trial.schedules > 0 && trial.failures == trial.schedules;
    return trial;
}

// Deletes in halves, quarters, .. and single edges; what is left has none that can be spared.
std::vector<OrderEdge> reduced(const Options& options, const RunRecord& failure,
                               std::vector<OrderEdge> edges) {
    for (std::size_t chunk = std::max<std::size_t>(edges.size() / 2, 1); !edges.empty();) {
        bool deleted = false;
        for (std::size_t i = 0; i < edges.size();) {
            std::vector<OrderEdge> fewer(edges.begin(),
                                         edges.begin() + static_cast<std::ptrdiff_t>(i));
            const std::size_t after = std::min(i + chunk, edges.size());
            fewer.insert(fewer.end(), edges.begin() + static_cast<std::ptrdiff_t>(after),
                         edges.end());
            if (try_edges(options, failure, fewer).forces) {
                edges = std::move(fewer);
                deleted = true;
            } else {
                i += chunk;
            }
        }
        if (chunk == 1 && !deleted) {
            break;
        }
        chunk = std::max<std::size_t>(chunk / 2, 1);
    }
    return edges;
}

}  // namespace

Recipe make_recipe(const Options& options, const RunRecord& failure) {
    if (failure.failure.verdict == Verdict::kOk) {
        throw UsageError(
            fmt::format("The schedule \"{}\" of {} does not fail under {}: a recipe "
                        "needs a failing one.",
                        failure.schedule, options.scenario, options.protocol));
    }
    Recipe recipe;
    recipe.run = failure;
    std::vector<OrderEdge> edges = candidate_edges(failure);
    for (const OrderEdge& edge : edges_of_the_idle(failure, replay(options, ""))) {
        edges.push_back(edge);
    }
    const Trial all = try_edges(options, failure, edges);
    if (all.forces) {
        edges = reduced(options, failure, edges);
    }
    const Trial trial = try_edges(options, failure, edges);
    recipe.edges = std::move(edges);
    recipe.forces = trial.forces;
    recipe.proved = trial.complete;
    recipe.schedules = trial.schedules;
    recipe.failures = trial.failures;
    const Trial without = try_edges(options, failure, {});
    if (without.complete) {
        recipe.unforced = without.schedules;
        recipe.unforced_failures = without.failures;
    }
    return recipe;
}

std::string text_of(const Recipe& recipe, const std::string& give_up) {
    std::string text;
    if (recipe.forces) {
        text += fmt::format(
            "{} the failure: all {} that keep {} fail (complete; one for each state before the "
            "last "
            "step).\n",
            recipe.edges.size() == 1 ? "1 ordering forces"
                                     : fmt::format("{} orderings force", recipe.edges.size()),
            count_of(recipe.schedules, "schedule"), recipe.edges.size() == 1 ? "it" : "them");
    } else {
        text += fmt::format(
            "Orderings between named points do not force this failure: {} of {} that "
            "keep all of them fail{}.\n",
            recipe.failures, count_of(recipe.schedules, "schedule"),
            recipe.proved ? "" : ", and not all were tried");
    }
    if (!recipe.forces) {
        return text;
    }
    for (const OrderEdge& edge : recipe.edges) {
        text += "  " + edge_text(edge) + "\n";
    }
    text += "\nFor a live mount:\n";
    for (const OrderEdge& edge : recipe.edges) {
        text += rule_text(edge, recipe.run, give_up) + "\n";
    }
    return text;
}

boost::json::object json_of(const Recipe& recipe, const std::string& give_up) {
    boost::json::array rules;
    for (const OrderEdge& edge : recipe.edges) {
        rules.push_back(boost::json::string(rule_text(edge, recipe.run, give_up)));
    }
    return {{"scenario", recipe.run.scenario},
            {"protocol", recipe.run.protocol},
            {"schedule", recipe.run.schedule},
            {"forces", recipe.forces},
            {"complete", recipe.proved},
            {"schedules", recipe.schedules},
            {"failures", recipe.failures},
            {"schedules_without", recipe.unforced},
            {"failures_without", recipe.unforced_failures},
            {"rules", std::move(rules)}};
}

}  // namespace wbfat::explore
