// Terms, orderings and chaos.
#include "cache/sync/point_actions.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string_view>
#include <utility>

namespace wbfat::sync::inline WBFAT_RT {

namespace {

// How often chaos acts where it may, and how long one thread stays the victim of the long delays.
constexpr unsigned kShortOneIn = 4;
constexpr unsigned kLongOneIn = 16;
constexpr Nanoseconds kVictimWindow = std::chrono::milliseconds(100);

struct Printer {
    Mutex mutex;
    std::function<void(const std::string&)> print GUARDED_BY(mutex);
};

Printer& printer() {
    // Never destroyed: detached device threads may pass points while the process exits.
    static auto* const kPrinter = new Printer;
    return *kPrinter;
}

void print_hit(const PointHit& hit, const std::string& text) {
    const Task& task = current_task();
    std::string line =
        fmt::format("point {} {} '{}'", hit.name, role_name(task.role()), task.name());
    if (hit.subject.page != PointSubject::kNoPage) {
        line += fmt::format(" page {}", hit.subject.page);
    }
    if (!text.empty()) {
        line += ": " + text;
    }
    Printer& out = printer();
    const MutexLock lock(out.mutex);
    if (out.print) {
        out.print(line);
    } else {
        fmt::print(stderr, "{}\n", line);
    }
}

void sleep_or_account(const PointHit& hit, Nanoseconds time) {
    if (hit.latency != nullptr) {
        *hit.latency += time;
    } else {
        sleep_for(time);
    }
}

// Keeps the CPU, as a slow instruction would.
void spin_for(Nanoseconds time) {
    const Nanoseconds end = monotonic_now() + time;
    while (monotonic_now() < end) {
    }
}

// A name's effect on a seed.
std::uint64_t mixed(std::uint64_t seed, std::string_view name) {
    return PointRandom(seed ^ (std::uint64_t{point_tag(name)} << 20)).next();
}

class ArmedTerms final : public ArmedPointRule {
public:
    explicit ArmedTerms(const ParsedPointRule& rule)
        : text_(rule.text), terms_(rule.terms), random_(mixed(1, rule.text)) {
        PointRule selection = rule.site.selection;
        selection.action = [this](const PointHit& hit) { act(hit); };
        id_ = arm_point(rule.site.point, std::move(selection));
    }
    ~ArmedTerms() override {
        {
            const MutexLock lock(mutex_);
            let_go_ = true;
            changed_.notify_all();
        }
        disarm_point(id_);
    }
    ArmedTerms(const ArmedTerms&) = delete;
    ArmedTerms& operator=(const ArmedTerms&) = delete;

    PointRuleStatus status() const override {
        const MutexLock lock(mutex_);
        return {.text = text_, .hits = rule_hits(id_), .acted = acted_};
    }

private:
    // The first term that has hits left and is lucky.
    const PointTerm* choose(Nanoseconds& time) EXCLUDES(mutex_) {
        const MutexLock lock(mutex_);
        for (PointTerm& term : terms_) {
            if (term.count == 0 || random_.unit() * 100 >= term.percent) {
                continue;
            }
            term.count -= term.count == UINT64_MAX ? 0 : 1;
            if (term.action == PointAction::kOff) {
                return nullptr;
            }
            ++acted_;
            time = random_.draw(term.time);
            return &term;
        }
        return nullptr;
    }

    void act(const PointHit& hit) EXCLUDES(mutex_) {
        Nanoseconds time{0};
        const PointTerm* const term = choose(time);
        if (term == nullptr) {
            return;
        }
        switch (term->action) {
            case PointAction::kOff:
            case PointAction::kCount:
                break;
            case PointAction::kYield:
                yield_now();
                break;
            case PointAction::kPause:
                pause();
                break;
            case PointAction::kPrint:
                print_hit(hit, term->print);
                break;
            case PointAction::kSleep:
                sleep_or_account(hit, time);
                break;
            case PointAction::kDelay:
                hit.latency != nullptr ? sleep_or_account(hit, time) : spin_for(time);
                break;
        }
    }

    void pause() EXCLUDES(mutex_) {
        MutexLock lock(mutex_);
        while (!let_go_) {
            changed_.wait(lock);
        }
    }

    const std::string text_;
    PointRuleId id_ = 0;

    mutable Mutex mutex_;
    CondVar changed_;
    // The counts are guarded; everything else of a term is constant.
    std::vector<PointTerm> terms_;
    PointRandom random_ GUARDED_BY(mutex_);
    std::uint64_t acted_ GUARDED_BY(mutex_) = 0;
    bool let_go_ GUARDED_BY(mutex_) = false;
};

class ArmedOrdering final : public ArmedPointRule {
public:
    explicit ArmedOrdering(const ParsedPointRule& rule) : text_(rule.text), give_up_(rule.give_up) {
        PointRule announce = rule.after.selection;
        announce.turn = PointRule::Turn::kAnnounces;
        announce.hook = [this] { announced(); };
        announced_id_ = arm_point(rule.after.point, std::move(announce));
        if (!rule.since.point.empty()) {
            PointRule forget = rule.since.selection;
            forget.turn = PointRule::Turn::kAnnounces;
            forget.hook = [this] { forget_token(); };
            since_id_ = arm_point(rule.since.point, std::move(forget));
        }
        PointRule hold = rule.site.selection;
        hold.hook = [this] { wait_for_token(); };
        held_id_ = arm_point(rule.site.point, std::move(hold));
    }
    ~ArmedOrdering() override {
        {
            const MutexLock lock(mutex_);
            let_go_ = true;
            changed_.notify_all();
        }
        disarm_point(held_id_);
        disarm_point(announced_id_);
        disarm_point(since_id_);
    }
    ArmedOrdering(const ArmedOrdering&) = delete;
    ArmedOrdering& operator=(const ArmedOrdering&) = delete;

    PointRuleStatus status() const override {
        const MutexLock lock(mutex_);
        return {.text = text_,
                .hits = rule_hits(held_id_),
                .acted = met_ + given_up_,
                .met = met_,
                .given_up = given_up_};
    }

private:
    void announced() EXCLUDES(mutex_) {
        const MutexLock lock(mutex_);
        token_ = true;
        changed_.notify_all();
    }

    void forget_token() EXCLUDES(mutex_) {
        const MutexLock lock(mutex_);
        token_ = false;
    }

    void wait_for_token() EXCLUDES(mutex_) {
        const Nanoseconds deadline = monotonic_now() + give_up_;
        MutexLock lock(mutex_);
        while (!token_ && !let_go_) {
            const Nanoseconds left = deadline - monotonic_now();
            if (left <= Nanoseconds::zero()) {
                ++given_up_;
                return;
            }
            changed_.wait_for(lock, left);
        }
        if (token_) {
            token_ = false;
            ++met_;
        }
    }

    const std::string text_;
    const Nanoseconds give_up_;
    PointRuleId announced_id_ = 0;
    PointRuleId held_id_ = 0;
    PointRuleId since_id_ = 0;  // 0: none

    mutable Mutex mutex_;
    CondVar changed_;
    bool token_ GUARDED_BY(mutex_) = false;
    bool let_go_ GUARDED_BY(mutex_) = false;
    std::uint64_t met_ GUARDED_BY(mutex_) = 0;
    std::uint64_t given_up_ GUARDED_BY(mutex_) = 0;
};

class ArmedChaos final : public ArmedPointRule {
public:
    explicit ArmedChaos(const ParsedPointRule& rule)
        : text_(rule.text), settings_(rule.chaos), start_(monotonic_now()) {
        PointRule everywhere;
        everywhere.action = [this](const PointHit& hit) { act(hit); };
        id_ = arm_point("", std::move(everywhere));
    }
    ~ArmedChaos() override {
        disarm_point(id_);
    }
    ArmedChaos(const ArmedChaos&) = delete;
    ArmedChaos& operator=(const ArmedChaos&) = delete;

    PointRuleStatus status() const override {
        const MutexLock lock(mutex_);
        return {.text = text_, .hits = rule_hits(id_), .acted = acted_};
    }

private:
    struct Victim {
        std::uint64_t number;  // in the order of appearance
        PointRandom random;
        Nanoseconds first_seen{0};
        Nanoseconds held{0};
    };

    Victim& victim_locked(Nanoseconds now) REQUIRES(mutex_) {
        const Task* const task = &current_task();
        const std::uint64_t number = victims_.size();
        const auto [entry, added] = victims_.try_emplace(
            task, Victim{number, PointRandom(mixed(settings_.seed, task->name()) + number), now});
        return entry->second;
    }

    // How long to hold the thread; zero: not at all.
    Nanoseconds decide(const PointHit& hit) EXCLUDES(mutex_) {
        const Nanoseconds now = monotonic_now();
        const MutexLock lock(mutex_);
        Victim& me = victim_locked(now);
        if (mixed(settings_.seed, hit.name) % 2 == 0) {
            return Nanoseconds::zero();  // this point takes no part in this run
        }
        const auto window = static_cast<std::uint64_t>((now - start_) / kVictimWindow);
        const std::uint64_t chosen = PointRandom(settings_.seed + window).next() % victims_.size();
        Nanoseconds time{0};
        if (me.number == chosen && me.random.one_in(kLongOneIn)) {
            time = me.random.draw(settings_.long_delay);
        } else if (me.random.one_in(kShortOneIn)) {
            time = me.random.draw(settings_.short_delay);
        }
        const auto allowed = std::chrono::duration_cast<Nanoseconds>(
            (now - me.first_seen) * (settings_.share_percent / 100));
        if (time == Nanoseconds::zero() || me.held + time > allowed) {
            return Nanoseconds::zero();
        }
        me.held += time;
        ++acted_;
        return time;
    }

    void act(const PointHit& hit) EXCLUDES(mutex_) {
        // Sleeping, not spinning: on few CPUs only a thread that leaves its CPU lets others pass.
        if (const Nanoseconds time = decide(hit); time > Nanoseconds::zero()) {
            sleep_or_account(hit, time);
        }
    }

    const std::string text_;
    const ChaosSettings settings_;
    const Nanoseconds start_;
    PointRuleId id_ = 0;

    mutable Mutex mutex_;
    std::map<const Task*, Victim> victims_ GUARDED_BY(mutex_);
    std::uint64_t acted_ GUARDED_BY(mutex_) = 0;
};

}  // namespace

std::uint64_t PointRandom::next() {
    state_ += 0x9E37'79B9'7F4A'7C15ULL;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58'476D'1CE4'E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D0'49BB'1331'11EBULL;
    return z ^ (z >> 31);
}

double PointRandom::unit() {
    constexpr double kScale = 0x1p-53;
    return static_cast<double>(next() >> 11) * kScale;
}

Nanoseconds PointRandom::draw(const TimeRange& range) {
    if (range.low >= range.high) {
        return range.low;
    }
    const auto low = static_cast<double>(range.low.count());
    const auto high = static_cast<double>(range.high.count());
    const double drawn = low * std::pow(high / low, unit());
    return Nanoseconds(
        std::clamp(static_cast<std::int64_t>(drawn), range.low.count(), range.high.count()));
}

void set_point_printer(std::function<void(const std::string&)> new_printer) {
    Printer& out = printer();
    const MutexLock lock(out.mutex);
    out.print = std::move(new_printer);
}

std::unique_ptr<ArmedPointRule> make_armed_rule(const ParsedPointRule& rule) {
    switch (rule.kind) {
        case ParsedPointRule::Kind::kTerms:
            return std::make_unique<ArmedTerms>(rule);
        case ParsedPointRule::Kind::kOrdering:
            return std::make_unique<ArmedOrdering>(rule);
        case ParsedPointRule::Kind::kChaos:
            return std::make_unique<ArmedChaos>(rule);
        case ParsedPointRule::Kind::kClearAll:
            break;
    }
    return nullptr;
}

}  // namespace wbfat::sync::inline WBFAT_RT
