// From options to results: which searches, in which order, and what they found together.
#include "tools/explore/explore.h"

#include <algorithm>
#include <array>

#include "tools/explore/recorder.h"
#include "tools/explore/search.h"

namespace wbfat::explore {

namespace {

using Deadline = std::chrono::steady_clock::time_point;

struct MethodName {
    Method method;
    const char* name;
};
constexpr std::array kMethodNames = {
    MethodName{Method::kAuto, "auto"},         MethodName{Method::kBound, "bound"},
    MethodName{Method::kStateful, "stateful"}, MethodName{Method::kDpor, "dpor"},
    MethodName{Method::kDfs, "dfs"},           MethodName{Method::kPos, "pos"},
    MethodName{Method::kPct, "pct"},           MethodName{Method::kRandom, "random"},
};

void run_search(Search& search, unsigned bound) {
    switch (search.result.method) {
        case Method::kBound:
            search.result.bound = bound;
            search_paths(search, bound, Reduction::kMerging);
            return;
        case Method::kStateful:
            search_states(search);
            return;
        case Method::kDpor:
            search_traces(search);
            return;
        case Method::kDfs:
            search_paths(search, std::nullopt, Reduction::kNone);
            return;
        default:
            search_randomly(search, search.result.method);
            return;
    }
}

// The searches of one exploration, and what they have found so far.
class Exploration {
public:
    Exploration(const Options& options, Session& session)
        : options_(options),
          session_(session),
          deadline_(
              std::chrono::steady_clock::now() +
              std::chrono::duration_cast<std::chrono::steady_clock::duration>(options.time_limit)) {
    }

    // True if there is nothing more to find out.
    bool run(Method method, unsigned bound = 0) {
        const auto start = std::chrono::steady_clock::now();
        // A search during which the world grew compared the wrong states, and one during which the
        // rule of the movers broke may have left schedules out: it is made again.
        constexpr int kMaxTries = 64;
        for (int tries = 1;; ++tries) {
            session_.scheduler().uses().decide();
            Search search(session_, method, deadline_);
            run_search(search, bound);
            const bool uses_movers = method == Method::kBound || method == Method::kStateful;
            const bool left_none_out =
                !uses_movers || session_.scheduler().uses().is_sound() || !search.result.complete;
            const bool sound = session_.learned_enough() && left_none_out &&
                               search.result.stopped_by != kStoppedToLearn;
            if (!sound) {
                search.result.complete = false;
            }
            if (!sound && tries == kMaxTries) {
                search.result.stopped_by = kStoppedToLearn;
            }
            if (sound || tries == kMaxTries || is_limit(search.result.stopped_by)) {
                search.result.elapsed = std::chrono::steady_clock::now() - start;
                take_over(search);
                break;
            }
        }
        const SearchResult& last = result_.searches.back();
        return is_over_ || last.stopped_by == "time" || last.stopped_by == "user";
    }

    void bounded() {
        for (unsigned bound = 0; bound <= options_.max_bound; ++bound) {
            if (run(Method::kBound, bound)) {
                return;
            }
        }
    }

    Result finish() {
        return std::move(result_);
    }

private:
    void take_over(Search& search) {
        result_.searches.push_back(search.result);
        for (const auto& [outcome, count] : search.outcomes) {
            result_.outcomes[outcome] += count;
        }
        const bool everything = search.result.method != Method::kBound;
        result_.complete = result_.complete || (search.result.complete && everything);
        if (search.found.has_value() && !result_.failure.has_value()) {
            result_.verdict = search.found->verdict;
            result_.failure = record_counterexample(session_, *search.found);
            // With every smaller bound looked through.
            const bool all_smaller = std::all_of(
                result_.searches.begin(), std::prev(result_.searches.end()),
                [](const SearchResult& it) { return it.complete || it.method != Method::kBound; });
            if (search.result.method == Method::kBound && all_smaller) {
                result_.minimal_preemptions = search.result.bound;
            }
        }
        is_over_ = result_.complete || (result_.failure.has_value() && options_.stop_at_first);
    }

    const Options& options_;
    Session& session_;
    const Deadline deadline_;
    Result result_;
    bool is_over_ = false;
};

}  // namespace

const char* to_string(Method method) {
    for (const MethodName& it : kMethodNames) {
        if (it.method == method) {
            return it.name;
        }
    }
    return "?";
}

std::string value_text(const ParameterInfo& parameter, unsigned value) {
    return value < parameter.value_names.size() ? parameter.value_names[value]
                                                : std::to_string(value);
}

std::optional<Method> method_from(const std::string& name) {
    for (const MethodName& it : kMethodNames) {
        if (name == it.name) {
            return it.method;
        }
    }
    return std::nullopt;
}

Result explore(const Options& options) {
    Session session(options);
    session.warm_up();
    Exploration exploration(options, session);
    switch (options.method) {
        case Method::kAuto: {
            constexpr unsigned kBoundsFirst = 2;
            if (session.info().is_big) {
                exploration.run(Method::kPos);
                break;
            }
            bool over = false;
            for (unsigned bound = 0; bound <= kBoundsFirst && !over; ++bound) {
                over = exploration.run(Method::kBound, bound);
            }
            if (!over) {
                exploration.run(Method::kStateful);
            }
            break;
        }
        case Method::kBound:
            exploration.bounded();
            break;
        default:
            exploration.run(options.method);
            break;
    }
    return exploration.finish();
}

RunRecord replay(const Options& options, const std::string& schedule) {
    Session session(options);
    return record_schedule(session, session.parse_schedule(schedule));
}

RunRecord replay_on_threads(const Options& options, const std::string& schedule) {
    using sync::sched::Scheduler;
    Scheduler& scheduler = sync::sched::scheduler();
    scheduler.set_back_end(Scheduler::BackEnd::kThreads);
    // Never torn down: its threads stay where they stopped.
    auto* const session = new Session(options);
    RunRecord record = record_schedule(*session, session->parse_schedule(schedule));
    return record;
}

RunRecord minimise(const Options& options, const std::string& schedule) {
    RunRecord best = replay(options, schedule);
    if (best.failure.verdict == Verdict::kOk) {
        return best;
    }
    Options bounded = options;
    bounded.method = Method::kBound;
    bounded.stop_at_first = true;
    if (best.preemptions == 0) {
        return best;
    }
    bounded.max_bound = best.preemptions - 1;
    const Result result = explore(bounded);
    if (result.failure.has_value() && result.failure->failure.verdict == best.failure.verdict) {
        return *result.failure;
    }
    return best;
}

std::vector<double> inevitability(const Options& options, const RunRecord& run) {
    Session session(options);
    session.warm_up();
    return share_of_failures(session, session.parse_schedule(run.schedule));
}

}  // namespace wbfat::explore
