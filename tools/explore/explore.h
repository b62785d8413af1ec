// The explorer: scenarios, searches, results. What a command line or a test needs, and no more.
//
//   for (const ScenarioInfo& s : scenarios()) ...
//   Options options{.scenario = "mail", .protocol = "5.10"};
//   Result result = explore(options);              // several searches in turn, see Method::kAuto
//   if (result.failure) print(result.failure->schedule);
//   RunRecord run = replay(options, "A1 B3 C5 A3 C2");
//
// Everything runs in the calling thread, one exploration of a process at a time.
//
// Errors: UsageError for a name, parameter or schedule that does not exist or does not fit; its
// text is one sentence that says what would be right.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "tools/explore/run_record.h"

namespace wbfat::explore {

class UsageError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

struct ParameterInfo {
    std::string name;  // "cpus"
    std::string help;
    unsigned standard = 0, min = 0, max = 0;
    // The names of 0 to max, where numbers say nothing: of protocols.
    std::vector<std::string> value_names{};
};
// "5.10", or "3" where a value has no name.
std::string value_text(const ParameterInfo& parameter, unsigned value);

struct ScenarioInfo {
    std::string name;     // "mail"
    std::string summary;  // one line
    std::vector<ParameterInfo> parameters;
    bool is_big = false;  // no search finishes it: only the random methods make sense
    unsigned weight = 1;  // the matrix makes so many times fewer runs of it: they are long
};
const std::vector<ScenarioInfo>& scenarios();

enum class Method : std::uint8_t {
    // Preemption bounds 0, 1, 2; then the stateful search; a big scenario gets kPos.
    kAuto,
    kBound,     // all schedules with at most `bound` preemptions, for 0, 1, .. max_bound
    kStateful,  // all states, once each
    kDpor,      // all traces, once each: needs no state hash and so checks kStateful
    kDfs,       // all interleavings: a yardstick
    kPos,       // partial order sampling
    kPct,       // priorities with change points, depth 2, 3, 4, 5, 2, ..
    kRandom,    // a random walk
};
// "auto", "bound", "stateful", "dpor", "dfs", "pos", "pct", "random".
const char* to_string(Method method);
std::optional<Method> method_from(const std::string& name);

// A place in a schedule: the nth time (from 1) that a task comes to a named point.
struct PointRef {
    std::string point;
    std::string task;  // name; "" any
    unsigned nth = 1;
};
// Nobody goes on from `held` before somebody has come to `first`. As on a live mount, who is held
// at a point has come to it.
struct OrderEdge {
    PointRef first;
    PointRef held;
};

struct Progress {
    Method method = Method::kAuto;
    unsigned bound = 0;  // kBound
    std::uint64_t executions = 0, states = 0;
    double estimate = 0;  // share of the search that is done, 0..1; 0 where nothing is known
    std::chrono::nanoseconds elapsed{0};
    std::uint64_t memory_bytes = 0;
    bool found = false;
};

struct Options {
    std::string scenario;
    std::map<std::string, unsigned> parameters;  // what is not named has its standard value
    std::string protocol;                        // preset and switches; "" is the newest
    Method method = Method::kAuto;
    unsigned max_bound = 4;
    std::uint64_t seed = 1;
    std::uint64_t max_executions = UINT64_MAX;
    std::chrono::nanoseconds time_limit = std::chrono::hours(24);
    std::uint64_t memory_limit_bytes = 1ULL << 30;
    unsigned jobs = 1;  // processes; the matrix alone uses them, a cell each
    // Where a search goes on after a counterexample: counts then say how many there are.
    bool stop_at_first = true;
    std::vector<OrderEdge> order;  // only schedules that keep these
    // Called a few times a second; returning false ends the search.
    std::function<bool(const Progress&)> progress;
};

// One method's share of an exploration.
struct SearchResult {
    Method method = Method::kAuto;
    unsigned bound = 0;
    bool complete = false;  // everything was seen that the method promises
    std::uint64_t executions = 0;
    std::uint64_t failures = 0;  // executions with a verdict that is not kOk
    std::uint64_t states = 0;    // kStateful: states; kDpor: traces; else 0
    // kStateful, kDpor: different states in which all tasks had come to their end and nothing was
    // wrong. A complete search of either kind sees all of them.
    std::uint64_t final_states = 0;
    std::uint64_t steps = 0;
    std::uint64_t memory_bytes = 0;
    std::chrono::nanoseconds elapsed{0};
    std::string stopped_by;  // "", "time", "memory", "executions", "user", "found"
    // kPct: probability of finding a bug of that depth in one run, at least; as text with n, k, d.
    std::string guarantee;
};

struct Result {
    // kOk only together with `complete`, or it means "not found".
    Verdict verdict = Verdict::kOk;
    bool complete = false;  // no schedule was left out
    std::optional<RunRecord> failure;
    // Fewest preemptions of any failing schedule, when a bounded search proved it.
    std::optional<unsigned> minimal_preemptions;
    std::vector<SearchResult> searches;
    // Every way a run can end, as text with how often it was met: what two methods must agree on.
    std::map<std::string, std::uint64_t> outcomes;
};

Result explore(const Options& options);

// Runs one schedule and writes it down. `schedule` may stop early: the rest is run without
// preemption; a turn that its task cannot take is left out. Uses options.scenario, .parameters,
// .protocol and .order.
RunRecord replay(const Options& options, const std::string& schedule);
// The same schedule on one OS thread per task, gated one at a time: for a debugger. The last
// exploration of a process: its threads stay where they stopped.
RunRecord replay_on_threads(const Options& options, const std::string& schedule);
// The share of continuations that fail, before the first step and after each of the run; exact.
// Empty when the scenario is too big for the limits of `options`.
std::vector<double> inevitability(const Options& options, const RunRecord& run);
// The same failure with as few preemptions as can be found from this schedule.
RunRecord minimise(const Options& options, const std::string& schedule);

}  // namespace wbfat::explore
