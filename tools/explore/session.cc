// Setting up a scenario, and judging its runs.
#include "tools/explore/session.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <random>
#include <utility>

#include "cache/base/check.h"
#include "cache/trace.h"

namespace wbfat::explore {

namespace {

using sync::sched::Failure;
using sync::sched::OpKind;

const ScenarioEntry& find_entry(const std::string& name) {
    std::vector<std::string> names;
    for (const ScenarioEntry& entry : scenario_entries()) {
        if (entry.info.name == name) {
            return entry;
        }
        names.push_back(entry.info.name);
    }
    throw UsageError(
        fmt::format("there is no scenario '{}'; there are: {}", name, fmt::join(names, ", ")));
}

Parameters complete_parameters(const ScenarioInfo& info,
                               const std::map<std::string, unsigned>& given) {
    std::map<std::string, unsigned> values;
    std::vector<std::string> names;
    for (const ParameterInfo& parameter : info.parameters) {
        values[parameter.name] = parameter.standard;
        names.push_back(parameter.name);
    }
    for (const auto& [name, value] : given) {
        const auto known =
            std::find_if(info.parameters.begin(), info.parameters.end(),
                         [&name = name](const ParameterInfo& it) { return it.name == name; });
        if (known == info.parameters.end()) {
            throw UsageError(
                fmt::format("scenario '{}' has no parameter '{}'; it has: {}", info.name, name,
                            names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))));
        }
        if (value < known->min || value > known->max) {
            throw UsageError(fmt::format("parameter '{}' of scenario '{}' must be {} to {}, not {}",
                                         name, info.name, known->min, known->max, value));
        }
        values[name] = value;
    }
    return Parameters(std::move(values));
}

cache::Protocol parse_protocol(const std::string& text) {
    cache::Protocol protocol;
    if (text.empty()) {
        return protocol;
    }
    const std::string error = cache::Protocol::parse(text, protocol);
    if (!error.empty()) {
        throw UsageError(error);
    }
    return protocol;
}

void on_bug(const cache::BugReport& report) {
    auto& scheduler = sync::sched::scheduler();
    Failure failure;
    failure.kind = Failure::Kind::kBug;
    failure.title = report.title();
    failure.condition = report.condition;
    failure.object = report.object;
    failure.file = report.file;
    failure.line = report.line;
    scheduler.fail(failure);
}

}  // namespace

// The order that Options::order asks for.
class Session::Rules final : public sync::sched::PointRules {
public:
    Rules(const sync::sched::Scheduler& scheduler, const std::vector<OrderEdge>& edges)
        : scheduler_(scheduler) {
        for (const OrderEdge& edge : edges) {
            edges_.push_back({.edge = edge});
        }
    }

    void begin() {
        for (State& state : edges_) {
            state.first_arrivals = state.held_passes = 0;
        }
    }
    bool holds(const char* point, int task) override {
        return std::any_of(edges_.begin(), edges_.end(),
                           [&](const State& state) { return waits(state, point, task); });
    }
    bool is_open(const char* point, int task) override {
        return !holds(point, task);
    }
    void arrived(const char* point, int task) override {
        for (State& state : edges_) {
            state.first_arrivals += matches(state.edge.first, point, task) ? 1 : 0;
        }
    }
    void passed(const char* point, int task) override {
        for (State& state : edges_) {
            state.held_passes += matches(state.edge.held, point, task) ? 1 : 0;
        }
    }
    std::uint64_t state() const override {
        std::uint64_t mixed = 0;
        for (const State& it : edges_) {
            mixed = mixed * kOdd + std::min(it.first_arrivals, it.edge.first.nth);
            mixed = mixed * kOdd + std::min(it.held_passes, it.edge.held.nth);
        }
        return mixed;
    }

private:
    static constexpr std::uint64_t kOdd = 0x9E37'79B9'7F4A'7C15ULL;

    struct State {
        OrderEdge edge;
        unsigned first_arrivals = 0, held_passes = 0;
    };
    bool matches(const PointRef& ref, const char* point, int task) const {
        return ref.point == point && (ref.task.empty() || ref.task == scheduler_.name(task));
    }
    bool waits(const State& state, const char* point, int task) const {
        return state.first_arrivals < state.edge.first.nth &&
               state.held_passes + 1 == state.edge.held.nth &&
               matches(state.edge.held, point, task);
    }

    const sync::sched::Scheduler& scheduler_;
    std::vector<State> edges_;
};

Session::Session(const Options& options)
    : options_(options),
      entry_(find_entry(options.scenario)),
      parameters_(complete_parameters(entry_.info, options.parameters)),
      scheduler_(sync::sched::scheduler()) {
    const cache::Protocol protocol = parse_protocol(options.protocol);
    cache::set_bug_handler(on_bug);
    cache::set_bug_reporter([](const cache::BugReport&) {});
    cache::set_trace(cache::TraceState::kOff);
    scheduler_.set_up([&] {
        cache::set_protocol_while_idle(protocol);
        scenario_ = entry_.make(parameters_);
        scenario_->set_up();
    });
    if (scheduler_.failure().kind != Failure::Kind::kNone) {
        const std::string why = scheduler_.failure().title;
        scheduler_.tear_down([this] { scenario_.reset(); });
        throw UsageError(fmt::format("scenario '{}' cannot be set up under this protocol: {}",
                                     entry_.info.name, why));
    }
    if (!options_.order.empty()) {
        rules_ = std::make_unique<Rules>(scheduler_, options_.order);
        scheduler_.set_point_rules(rules_.get());
    }
}

Session::~Session() {
    scheduler_.set_point_rules(nullptr);
    scheduler_.tear_down([this] { scenario_.reset(); });
    cache::set_bug_handler(nullptr);
    cache::set_bug_reporter(nullptr);
}

void Session::begin() {
    if (rules_ != nullptr) {
        rules_->begin();
    }
    scheduler_.begin();
}

Verdict Session::verdict() {
    lost_.clear();
    switch (scheduler_.failure().kind) {
        case Failure::Kind::kBug:
            return Verdict::kAssertion;
        case Failure::Kind::kNondeterminism:
            return Verdict::kNondeterminism;
        case Failure::Kind::kNone:
            break;
    }
    for (int i = 0; i < scheduler_.nr_tasks(); ++i) {
        if (!scheduler_.finished(i) && !scheduler_.is_daemon(i)) {
            return scheduler_.enabled() != 0 ? Verdict::kLivelock : Verdict::kDeadlock;
        }
    }
    std::string lost;
    scheduler_.directly([&] {
        scenario_->assert_at_end();
        lost = scenario_->check();
    });
    if (scheduler_.failure().kind == Failure::Kind::kBug) {
        return Verdict::kAssertion;
    }
    lost_.assign(lost.data(), lost.size());
    return lost_.empty() ? Verdict::kOk : Verdict::kLostData;
}

std::string Session::outcome(Verdict verdict) {
    switch (verdict) {
        case Verdict::kAssertion:
            return "assertion: " + scheduler_.failure().title;
        case Verdict::kDeadlock: {
            std::string who = "deadlock:";
            for (int i = 0; i < scheduler_.nr_tasks(); ++i) {
                if (!scheduler_.finished(i) && !scheduler_.is_daemon(i)) {
                    who += " " + scheduler_.name(i);
                }
            }
            return who;
        }
        case Verdict::kLostData:
            return "lost data: " + lost_;
        case Verdict::kOk: {
            std::string text;
            scheduler_.directly([&] { text = scenario_->outcome(); });
            return {text.data(), text.size()};
        }
        default:
            return to_string(verdict);
    }
}

// A run that stays with a task for a while, so that it comes to places where steady change of tasks
// does not lead.
void Session::random_run(std::uint64_t seed, LearnAt when) {
    std::mt19937_64 random(seed);
    const std::uint64_t stay = 1 + random() % 16;
    int task = -1;
    begin();
    while (scheduler_.nr_operations() < kMaxOperations) {
        std::uint32_t able = scheduler_.enabled();
        if (able == 0) {
            break;
        }
        if (task < 0 || (able >> task & 1U) == 0 || random() % stay == 0) {
            for (auto skip = random() % static_cast<unsigned>(std::popcount(able)); skip > 0;
                 --skip) {
                able &= able - 1;
            }
            task = std::countr_zero(able);
        }
        scheduler_.step(task);
        if (when == LearnAt::kEveryStep) {
            scheduler_.world().learn();
        }
    }
    static_cast<void>(outcome(verdict()));
    scheduler_.world().learn();
}

void Session::warm_up() {
    // What is changed and changed back within a run, as locks are, shows only on the way.
    constexpr std::uint64_t kRunsInSteps = 24;
    constexpr std::uint64_t kRuns = 128;
    for (std::uint64_t i = 0; i < kRuns; ++i) {
        random_run(i, i < kRunsInSteps ? LearnAt::kEveryStep : LearnAt::kEnd);
    }
}

bool Session::learned_enough() {
    return !scheduler_.world().learn();
}

char Session::letter(int task) const {
    int before = 0;
    for (int i = 0; i < task; ++i) {
        before += scheduler_.is_daemon(i) == scheduler_.is_daemon(task) ? 1 : 0;
    }
    return static_cast<char>((scheduler_.is_daemon(task) ? 'a' : 'A') + before);
}

std::string Session::schedule_text(const std::vector<Turn>& turns) const {
    std::string text;
    for (std::size_t i = 0; i < turns.size();) {
        const std::uint8_t task = turns[i].task;
        unsigned operations = 0;
        for (; i < turns.size() && turns[i].task == task; ++i) {
            operations += turns[i].operations;
        }
        text += fmt::format("{}{}{}", text.empty() ? "" : " ", letter(task), operations);
    }
    return text;
}

std::vector<Turn> Session::parse_schedule(const std::string& text) const {
    std::vector<Turn> turns;
    const auto wrong = [&](const std::string& word) {
        return UsageError(fmt::format(
            "'{}' is no part of a schedule; it is a task's letter and a count, as in 'A1 B3 C5'",
            word));
    };
    for (std::size_t at = 0; at < text.size();) {
        if (std::isspace(static_cast<unsigned char>(text[at])) != 0) {
            ++at;
            continue;
        }
        const std::size_t end = std::min(text.find(' ', at), text.size());
        const std::string word = text.substr(at, end - at);
        at = end;
        constexpr std::size_t kMaxDigits = 5;
        const std::string digits = word.substr(1);
        if (digits.empty() || digits.size() > kMaxDigits ||
            digits.find_first_not_of("0123456789") != std::string::npos) {
            throw wrong(word);
        }
        int task = 0;
        while (task < scheduler_.nr_tasks() && letter(task) != word[0]) {
            ++task;
        }
        if (task == scheduler_.nr_tasks()) {
            throw wrong(word);
        }
        for (int i = std::stoi(digits); i > 0; --i) {
            turns.push_back({static_cast<std::uint8_t>(task), 1});
        }
    }
    return turns;
}

}  // namespace wbfat::explore
