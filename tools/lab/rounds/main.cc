// wbfat-lab-rounds: plays a scenario on the real page cache with real threads, round after round,
// and counts the rounds that hit an assertion or hang. wbfat-lab runs it and shows the figures.
//
// Rounds run in a child process. A hit ends the child, since what the cache does after a failed
// assertion is nobody's business here, and the parent starts another for the rounds that are left;
// so does a child that makes no progress for a while. Parent and child share one page of counters.
// Both end with whoever started them: who is stopped in the middle leaves no million rounds behind.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include <boost/json.hpp>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "cache/base/check.h"
#include "cache/protocol.h"
#include "cache/sync/point_rules.h"

#include "tools/lab/rounds/fight.h"
#include "tools/lab/rounds/scenarios.h"
#include <CLI/CLI.hpp>

namespace wbfat::tools {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxRules = 16;
constexpr int kExitUsage = 2;

struct Options {
    std::string scenario;
    std::string protocol = cache::kDefaultPreset;
    std::uint64_t rounds = 1000;
    double hang_seconds = 2;  // without progress
    bool recipe = false;
    std::vector<std::string> rules;
    bool show_report = false;  // of the first hit, on stderr
    double fight_seconds = 0;  // instead of a scenario
    unsigned fighters = 4;
};

// What the child tells; it may end at any moment.
struct Shared {
    std::atomic<std::uint64_t> rounds{0};
    std::atomic<std::uint64_t> rounds_hit{0};
    std::atomic<std::uint64_t> met[kMaxRules]{};
    std::atomic<std::uint64_t> given_up[kMaxRules]{};
    std::atomic<bool> report_shown{false};
    std::atomic<bool> has_title{false};
    char title[256] = "";
};
Shared* shared = nullptr;

void keep_title(const cache::BugReport& report) {
    if (!shared->has_title.exchange(true)) {
        const std::string title = report.title();
        std::strncpy(shared->title, title.c_str(), sizeof(shared->title) - 1);
    }
}

// Several threads may come here at once; the first one ends the process.
[[noreturn]] void end_of_round(const cache::BugReport& report) {
    static std::atomic<bool> is_first{true};
    if (is_first.exchange(false)) {
        keep_title(report);
        shared->rounds_hit.fetch_add(1);
        shared->rounds.fetch_add(1);
        ::_exit(0);
    }
    for (;;) {
        ::pause();
    }
}

void say_nothing(const cache::BugReport& report) {
    // A warning does not end the round, but it is what was looked for as much as a bug is.
    if (report.severity == cache::BugSeverity::kWarning) {
        end_of_round(report);
    }
}

void add_counters() {
    const std::vector<sync::PointRuleStatus> rules = sync::point_rules();
    for (std::size_t i = 0; i < std::min(rules.size(), kMaxRules); ++i) {
        shared->met[i].fetch_add(rules[i].met);
        shared->given_up[i].fetch_add(rules[i].given_up);
    }
}

// Context: the child. Plays until all is played or something is hit.
void play(const Options& options, const ScenarioInfo& info, const std::string& rules,
          std::uint64_t rounds) {
    if (!options.show_report || shared->report_shown.exchange(true)) {
        cache::set_bug_reporter(say_nothing);
    }
    cache::set_bug_handler([](const cache::BugReport& report) { end_of_round(report); });
    Scene scene;
    const std::unique_ptr<Scenario> scenario = info.make(scene);
    for (std::uint64_t i = 0; i < rounds; ++i) {
        // Armed anew for each round: no hit is counted and no ordering is met by what the last
        // round left.
        if (!rules.empty()) {
            static_cast<void>(sync::set_point_rules(rules));
        }
        scenario->play();
        add_counters();
        sync::clear_point_rules();
        shared->rounds.fetch_add(1);
    }
}

// Context: `parent` was the parent when the caller began, and may have ended since.
void end_with_parent(pid_t parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) {
        ::_exit(1);
    }
}

enum class ChildEnd : std::uint8_t { kPlayed, kHung, kDied };

// Waits for the child; kills it when it stands still.
ChildEnd watch(pid_t child, double hang_seconds) {
    std::uint64_t seen = shared->rounds.load();
    Clock::time_point moved = Clock::now();
    for (;;) {
        int status = 0;
        if (::waitpid(child, &status, WNOHANG) == child) {
            return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? ChildEnd::kPlayed
                                                                 : ChildEnd::kDied;
        }
        if (shared->rounds.load() != seen) {
            seen = shared->rounds.load();
            moved = Clock::now();
        } else if (Clock::now() - moved > std::chrono::duration<double>(hang_seconds)) {
            ::kill(child, SIGKILL);
            ::waitpid(child, &status, 0);
            return ChildEnd::kHung;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

struct Outcome {
    std::uint64_t hung = 0;
    std::uint64_t died = 0;
    double seconds = 0;
};

Outcome run_all(const Options& options, const ScenarioInfo& info, const std::string& rules) {
    Outcome outcome;
    const Clock::time_point start = Clock::now();
    while (shared->rounds.load() < options.rounds) {
        const std::uint64_t left = options.rounds - shared->rounds.load();
        std::fflush(nullptr);
        const pid_t parent = ::getpid();
        const pid_t child = ::fork();
        if (child == 0) {
            end_with_parent(parent);
            play(options, info, rules, left);
            ::_exit(0);
        }
        if (child < 0) {
            throw std::system_error(errno, std::generic_category(), "fork");
        }
        const ChildEnd end = watch(child, options.hang_seconds);
        if (end != ChildEnd::kPlayed) {
            (end == ChildEnd::kHung ? outcome.hung : outcome.died)++;
            shared->rounds.fetch_add(1);
        }
    }
    outcome.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    return outcome;
}

void print_outcome(const Options& options, const Outcome& outcome) {
    boost::json::array rules;
    const std::size_t nr_rules = std::min(options.rules.size(), kMaxRules);
    for (std::size_t i = 0; i < nr_rules; ++i) {
        rules.push_back({{"text", options.rules[i]},
                         {"met", shared->met[i].load()},
                         {"given_up", shared->given_up[i].load()}});
    }
    const boost::json::object json{{"scenario", options.scenario},
                                   {"protocol", options.protocol},
                                   {"rounds", shared->rounds.load()},
                                   {"hits", shared->rounds_hit.load()},
                                   {"hung", outcome.hung},
                                   {"died", outcome.died},
                                   {"seconds", outcome.seconds},
                                   {"title", shared->title},
                                   {"rules", rules}};
    fmt::print("{}\n", boost::json::serialize(json));
}

// Returns false, with a sentence on stderr, when an option is wrong.
bool prepare(Options& options, const ScenarioInfo*& info, std::string& rules) {
    info = find_scenario(options.scenario);
    std::string sentence;
    if (info == nullptr && options.fight_seconds == 0) {
        sentence = fmt::format("there is no scenario '{}'; give", options.scenario);
        for (const ScenarioInfo& known : all_scenarios()) {
            sentence +=
                fmt::format("{} {}", &known == all_scenarios().data() ? "" : ",", known.name);
        }
    }
    cache::Protocol protocol;
    if (sentence.empty()) {
        sentence = cache::Protocol::parse(options.protocol, protocol);
        cache::set_protocol_while_idle(protocol);
    }
    if (sentence.empty() && options.recipe) {
        std::string_view recipe = info->recipe;
        while (!recipe.empty()) {
            const std::size_t end = recipe.find('\n');
            options.rules.emplace_back(recipe.substr(0, end));
            recipe.remove_prefix(end + 1);
        }
    }
    for (const std::string& rule : options.rules) {
        rules += rule + "\n";
    }
    if (sentence.empty()) {
        sentence = sync::check_point_rules(rules);
    }
    if (!sentence.empty()) {
        fmt::print(stderr, "wbfat-lab-rounds: {}\n", sentence);
    }
    return sentence.empty();
}

void list_scenarios() {
    for (const ScenarioInfo& info : all_scenarios()) {
        fmt::print("{}: {}\n{}\n", info.name, info.question, info.recipe);
    }
}

int run(int argc, char** argv) {
    end_with_parent(::getppid());
    Options options;
    bool list = false;
    CLI::App app{"Plays a scenario on the page cache with real threads and counts what fails.",
                 "wbfat-lab-rounds"};
    app.add_option("SCENARIO", options.scenario, "see --list");
    app.add_flag("--list", list, "the scenarios with their questions and recipes");
    app.add_option("--protocol", options.protocol, "version of the page protocol")
        ->capture_default_str();
    app.add_option("-n,--rounds", options.rounds, "rounds to play")
        ->capture_default_str()
        ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 40));
    app.add_option("--hang", options.hang_seconds, "seconds without progress that count as a hang")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_flag("--recipe", options.recipe, "arm the scenario's orderings");
    app.add_option("--point", options.rules, "a rule for named points; may be given again");
    app.add_option("--fight", options.fight_seconds,
                   "instead of a scenario: threads want one page lock for so many seconds")
        ->check(CLI::PositiveNumber);
    app.add_option("--threads", options.fighters, "threads of --fight")
        ->capture_default_str()
        ->check(CLI::Range(2, 64));
    app.add_flag("--show-report", options.show_report, "print the report of the first hit");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : kExitUsage;
    }
    if (list) {
        list_scenarios();
        return 0;
    }
    const ScenarioInfo* info = nullptr;
    std::string rules;
    if (!prepare(options, info, rules)) {
        return kExitUsage;
    }
    if (options.fight_seconds > 0) {
        print_fight(fight_for_page_lock(options.fighters, options.fight_seconds));
        return 0;
    }
    void* const page =
        ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        throw std::system_error(errno, std::generic_category(), "mmap");
    }
    shared = new (page) Shared;
    print_outcome(options, run_all(options, *info, rules));
    return 0;
}

}  // namespace

}  // namespace wbfat::tools

int main(int argc, char** argv) {
    try {
        return wbfat::tools::run(argc, argv);
    } catch (const std::exception& error) {
        fmt::print(stderr, "wbfat-lab-rounds: {}\n", error.what());
        return wbfat::tools::kExitUsage;
    }
}
