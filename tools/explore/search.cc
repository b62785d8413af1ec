// What all searches share.
#include "tools/explore/search.h"

#include <algorithm>

namespace wbfat::explore {

namespace {

// The first hundred of something, then ever more rarely: a look costs as much as many runs.
bool looks_at_the_world(std::uint64_t nth) {
    constexpr std::uint64_t kEach = 100;
    return nth <= kEach || (nth & (nth - 1)) == 0;
}

// Those that see every final state, with hashing on.
bool counts_final_states(Method method) {
    return method == Method::kStateful || method == Method::kDpor;
}

// Runs between two looks at the clock.
constexpr std::uint64_t kRunsPerLook = 64;
constexpr std::chrono::milliseconds kReportEvery{200};

}  // namespace

bool is_limit(const std::string& stopped_by) {
    return stopped_by == "time" || stopped_by == "user" || stopped_by == "executions" ||
           stopped_by == "memory";
}

Search::Search(Session& in, Method method, std::chrono::steady_clock::time_point deadline)
    : session(in), deadline_(deadline), next_report_(start_ + kReportEvery) {
    result.method = method;
}

bool Search::may_go_on() {
    if (!result.stopped_by.empty()) {
        return false;
    }
    if (result.executions >= session.options().max_executions) {
        result.stopped_by = "executions";
    }
    if (result.memory_bytes > session.options().memory_limit_bytes) {
        result.stopped_by = "memory";
    }
    if (runs_++ % kRunsPerLook != 0) {
        return result.stopped_by.empty();
    }
    const auto now = std::chrono::steady_clock::now();
    result.elapsed = now - start_;
    if (now >= deadline_) {
        result.stopped_by = "time";
    } else if (now >= next_report_ && session.options().progress) {
        next_report_ = now + kReportEvery;
        const Progress progress{.method = result.method,
                                .bound = result.bound,
                                .executions = result.executions,
                                .states = result.states,
                                .estimate = estimate,
                                .elapsed = result.elapsed,
                                .memory_bytes = result.memory_bytes,
                                .found = found.has_value()};
        if (!session.options().progress(progress)) {
            result.stopped_by = "user";
        }
    }
    return result.stopped_by.empty();
}

bool Search::knows_the_world() {
    const std::uint64_t n = runs_;
    constexpr std::uint64_t kEvery = 4096;
    const bool looks = (n & (n - 1)) == 0 || n % kEvery == 0;
    if (looks && result.stopped_by.empty()) {
        const bool movers_are_sound =
            result.method != Method::kStateful || session.scheduler().uses().is_sound();
        if (!session.learned_enough() || !movers_are_sound) {
            result.stopped_by = kStoppedToLearn;
        }
    }
    return result.stopped_by.empty();
}

Verdict Search::ended(const std::vector<Turn>& turns, bool merged) {
    ++result.executions;
    const Verdict verdict = session.verdict();
    if (verdict == Verdict::kOk && counts_final_states(result.method)) {
        final_states_.insert(session.scheduler().state_hash());
        result.final_states = final_states_.size();
        note_memory(final_states_.memory_bytes());
    }
    ++outcomes[session.outcome(verdict)];
    if (verdict == Verdict::kOk) {
        return verdict;
    }
    ++result.failures;
    if (!found.has_value()) {
        found = Counterexample{.verdict = verdict,
                               .turns = turns,
                               .merged = merged,
                               .execution = result.executions,
                               .preemptions = 0};
    }
    if (session.options().stop_at_first) {
        result.stopped_by = "found";
    } else if (looks_at_the_world(result.failures) && !session.learned_enough()) {
        // A run that is broken off where it fails leaves things half done, as no other does.
        result.stopped_by = kStoppedToLearn;
    }
    return verdict;
}

void Search::nondeterministic(const std::vector<Turn>& turns, std::size_t step) {
    if (!session.learned_enough()) {
        result.stopped_by = kStoppedToLearn;
        return;
    }
    ++result.failures;
    found = Counterexample{.verdict = Verdict::kNondeterminism,
                           .turns = turns,
                           .merged = true,
                           .execution = result.executions,
                           .preemptions = static_cast<unsigned>(step)};
    result.stopped_by = "nondeterminism";
}

}  // namespace wbfat::explore
