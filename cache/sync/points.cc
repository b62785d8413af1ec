// Named points: the registry, the rules and the gate.
#include "cache/sync/points.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace wbfat::sync::inline WBFAT_RT {

std::atomic<bool> points_armed{false};

namespace {

struct ArmedRule {
    PointRuleId id = 0;
    std::string name;
    PointRule rule;
    std::uint64_t matched = 0;    // guarded by Registry::mutex
    std::uint64_t nr_inside = 0;  // threads acting on the rule; guarded by Registry::mutex
};

bool selects(const ArmedRule& armed, const PointHit& hit, const Task& task) {
    const PointRule& rule = armed.rule;
    const PointSubject& subject = hit.subject;
    const bool about_any_page = rule.first_page == 0 && rule.last_page == UINT64_MAX;
    return (armed.name.empty() || armed.name == hit.name) &&
           (!rule.role.has_value() || *rule.role == task.role()) &&
           (rule.task.empty() || rule.task == task.name()) &&
           (rule.file == 0 || rule.file == subject.file) &&
           (rule.what.empty() || rule.what == subject.what) &&
           (about_any_page || (subject.page != PointSubject::kNoPage &&
                               subject.page >= rule.first_page && subject.page <= rule.last_page));
}

class Registry {
public:
    PointRuleId arm(std::string_view name, PointRule rule);
    void disarm(PointRuleId id);
    void hit(const PointHit& hit);
    std::uint64_t hits_of(PointRuleId id);
    std::map<std::string, std::uint64_t> hits();
    void reset_hits();

private:
    void count_locked(const char* name) REQUIRES(mutex_);
    std::vector<std::shared_ptr<ArmedRule>> matching_locked(const PointHit& hit) REQUIRES(mutex_);

    Mutex mutex_;
    CondVar left_;
    std::vector<std::shared_ptr<ArmedRule>> rules_ GUARDED_BY(mutex_);
    std::map<std::string, std::uint64_t, std::less<>> hits_ GUARDED_BY(mutex_);
    PointRuleId next_id_ GUARDED_BY(mutex_) = 1;
};

Registry& registry() {
    // Never destroyed: detached device threads may pass points while the process exits.
    static auto* const kRegistry = new Registry;
    return *kRegistry;
}

PointRuleId Registry::arm(std::string_view name, PointRule rule) {
    const MutexLock lock(mutex_);
    auto armed = std::make_shared<ArmedRule>();
    armed->id = next_id_++;
    armed->name = name;
    armed->rule = std::move(rule);
    const bool first = armed->rule.turn == PointRule::Turn::kAnnounces;
    rules_.insert(first ? rules_.begin() : rules_.end(), armed);
    points_armed.store(true, std::memory_order_relaxed);
    return armed->id;
}

void Registry::disarm(PointRuleId id) {
    MutexLock lock(mutex_);
    const auto found = std::find_if(rules_.begin(), rules_.end(),
                                    [id](const auto& armed) { return armed->id == id; });
    if (found == rules_.end()) {
        return;
    }
    const std::shared_ptr<ArmedRule> armed = *found;
    rules_.erase(found);
    points_armed.store(!rules_.empty(), std::memory_order_relaxed);
    while (armed->nr_inside > 0) {
        left_.wait(lock);
    }
}

void Registry::count_locked(const char* name) {
    const auto known = hits_.find(std::string_view(name));
    if (known != hits_.end()) {
        ++known->second;
    } else {
        hits_.emplace(name, 1);
    }
}

std::vector<std::shared_ptr<ArmedRule>> Registry::matching_locked(const PointHit& hit) {
    const Task& task = current_task();
    std::vector<std::shared_ptr<ArmedRule>> matching;
    for (const auto& armed : rules_) {
        if (!selects(*armed, hit, task)) {
            continue;
        }
        const std::uint64_t nth = armed->matched++;
        if (nth >= armed->rule.skip && nth - armed->rule.skip < armed->rule.count) {
            ++armed->nr_inside;
            matching.push_back(armed);
        }
    }
    return matching;
}

void Registry::hit(const PointHit& hit) {
    std::vector<std::shared_ptr<ArmedRule>> matching;
    {
        const MutexLock lock(mutex_);
        count_locked(hit.name);
        matching = matching_locked(hit);
    }
    for (const auto& armed : matching) {
        if (armed->rule.delay > Nanoseconds::zero()) {
            sleep_for(armed->rule.delay);
        }
        if (armed->rule.hook) {
            armed->rule.hook();
        }
        if (armed->rule.action) {
            armed->rule.action(hit);
        }
    }
    if (!matching.empty()) {
        const MutexLock lock(mutex_);
        for (const auto& armed : matching) {
            --armed->nr_inside;
        }
        left_.notify_all();
    }
}

std::uint64_t Registry::hits_of(PointRuleId id) {
    const MutexLock lock(mutex_);
    const auto found = std::find_if(rules_.begin(), rules_.end(),
                                    [id](const auto& armed) { return armed->id == id; });
    return found == rules_.end() ? 0 : (*found)->matched;
}

std::map<std::string, std::uint64_t> Registry::hits() {
    const MutexLock lock(mutex_);
    return {hits_.begin(), hits_.end()};
}

void Registry::reset_hits() {
    const MutexLock lock(mutex_);
    hits_.clear();
}

}  // namespace

void hit_point(const char* name, const PointSubject& subject) {
    registry().hit({.name = name, .subject = subject});
}

Nanoseconds point_latency(const char* name) {
    Nanoseconds latency{0};
    if (points_armed.load(std::memory_order_relaxed)) {
        registry().hit({.name = name, .subject = {}, .latency = &latency});
    }
    return latency;
}

std::uint64_t rule_hits(PointRuleId id) {
    return registry().hits_of(id);
}

PointRuleId arm_point(std::string_view name, PointRule rule) {
    return registry().arm(name, std::move(rule));
}

void disarm_point(PointRuleId id) {
    registry().disarm(id);
}

std::map<std::string, std::uint64_t> point_hits() {
    return registry().hits();
}

void reset_point_hits() {
    registry().reset_hits();
}

struct PointGate::State {
    mutable Mutex mutex;
    CondVar changed;
    std::uint64_t arrivals GUARDED_BY(mutex) = 0;
    bool is_open GUARDED_BY(mutex) = false;

    void pass() {
        MutexLock lock(mutex);
        ++arrivals;
        changed.notify_all();
        while (!is_open) {
            changed.wait(lock);
        }
    }
};

PointGate::PointGate(std::string_view name, PointRule selection)
    : state_(std::make_shared<State>()) {
    selection.hook = [state = state_] { state->pass(); };
    rule_ = arm_point(name, std::move(selection));
}

PointGate::~PointGate() {
    open();
    disarm_point(rule_);
}

void PointGate::wait_for_arrivals(std::uint64_t nr_threads) {
    MutexLock lock(state_->mutex);
    while (state_->arrivals < nr_threads) {
        state_->changed.wait(lock);
    }
}

std::uint64_t PointGate::arrivals() const {
    const MutexLock lock(state_->mutex);
    return state_->arrivals;
}

void PointGate::open() {
    const MutexLock lock(state_->mutex);
    state_->is_open = true;
    state_->changed.notify_all();
}

}  // namespace wbfat::sync::inline WBFAT_RT
