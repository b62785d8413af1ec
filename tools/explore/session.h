// One scenario under one protocol, set up in the scheduler, and the runs made of it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cache/protocol.h"
#include "cache/sync/scheduler.h"

#include "tools/explore/scenario.h"

namespace wbfat::explore {

// A run as the tasks that had a turn, with how many visible operations each turn did.
struct Turn {
    std::uint8_t task = 0;
    std::uint16_t operations = 1;
};

class Session {
public:
    // Errors: UsageError.
    explicit Session(const Options& options);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    sync::sched::Scheduler& scheduler() {
        return scheduler_;
    }
    Scenario& scenario() {
        return *scenario_;
    }
    const Options& options() const {
        return options_;
    }
    const ScenarioInfo& info() const {
        return entry_.info;
    }
    const Parameters& parameters() const {
        return parameters_;
    }

    void begin();
    // Why the run ended, after the last turn.
    Verdict verdict();
    // The verdict in words, with the assertion or the sentence of the check; and the outcome.
    std::string outcome(Verdict verdict);
    const std::string& lost() const {
        return lost_;
    }

    // Runs made until the world stops growing; then true states are compared.
    void warm_up();
    // Whether what was learned still holds. Called at the end of a search, which starts again if
    // not.
    bool learned_enough();

    // Visible operations after which a run counts as a livelock.
    static constexpr std::uint64_t kMaxOperations = 20'000;

    char letter(int task) const;
    std::string schedule_text(const std::vector<Turn>& turns) const;
    // Errors: UsageError.
    std::vector<Turn> parse_schedule(const std::string& text) const;

private:
    class Rules;
    enum class LearnAt : std::uint8_t { kEnd, kEveryStep };
    void random_run(std::uint64_t seed, LearnAt when);

    const Options options_;
    const ScenarioEntry& entry_;
    const Parameters parameters_;
    sync::sched::Scheduler& scheduler_;
    std::unique_ptr<Scenario> scenario_;
    std::unique_ptr<Rules> rules_;
    std::string lost_;
};

}  // namespace wbfat::explore
