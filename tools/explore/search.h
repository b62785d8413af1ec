// What all searches share: limits, counting, the counterexample found first.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tools/explore/session.h"
#include "tools/explore/state_set.h"

namespace wbfat::explore {

// A failing run.
struct Counterexample {
    Verdict verdict = Verdict::kOk;
    std::vector<Turn> turns;
    bool merged = true;  // each turn was one with merging on
    std::uint64_t execution = 0;
    unsigned preemptions = 0;
};

// Clock, limits and progress of one search.
class Search {
public:
    Search(Session& session, Method method, std::chrono::steady_clock::time_point deadline);

    // --- for the loops below
    // False: stop. Called for every run.
    bool may_go_on();
    // Whether this run is made from its start, though a state on its way was kept.
    [[nodiscard]] bool repeats_from_start() const {
        constexpr std::uint64_t kEvery = 256;
        return runs_ % kEvery == 0;
    }
    // A run that is broken off, or goes on where another was, leaves things half done. Whether all
    // of them are put back is looked at, often at first. False: they are not, and the search is
    // over. Called for every run.
    bool knows_the_world();
    // A run has come to its end: judges and counts it.
    Verdict ended(const std::vector<Turn>& turns, bool merged);
    void note_memory(std::uint64_t bytes) {
        result.memory_bytes = std::max(result.memory_bytes, bytes);
    }
    void nondeterministic(const std::vector<Turn>& turns, std::size_t step);

    Session& session;
    SearchResult result;
    std::map<std::string, std::uint64_t> outcomes;
    std::optional<Counterexample> found;
    double estimate = 0;

private:
    std::uint64_t runs_ = 0;  // with those that end where nothing new can come
    StateSet final_states_;
    const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
    const std::chrono::steady_clock::time_point deadline_;
    std::chrono::steady_clock::time_point next_report_;
};

// SearchResult::stopped_by of a search that found out that it compared too little; it is made
// again.
inline constexpr const char* kStoppedToLearn = "learning";
// Another try would come no further.
bool is_limit(const std::string& stopped_by);

// How many of the turns preempted a task that could have gone on; needs the tasks able at each
// turn.
inline bool is_preemption(std::uint32_t able, int before, int now) {
    return before >= 0 && before != now && (able >> before & 1U) != 0;
}

enum class Reduction : std::uint8_t { kNone, kMerging };

// All schedules, or all with at most `bound` preemptions.
void search_paths(Search& search, std::optional<unsigned> bound, Reduction reduction);
// All states.
void search_states(Search& search);
// All traces.
void search_traces(Search& search);
// The share of all continuations that fail, before the first turn and after each operation of
// `turns`. Empty when a limit was reached.
std::vector<double> share_of_failures(Session& session, const std::vector<Turn>& turns);
// kPos, kPct, kRandom.
void search_randomly(Search& search, Method method);

}  // namespace wbfat::explore
