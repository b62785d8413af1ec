// The set of rules in force.
#include "cache/sync/point_rules.h"

#include <fmt/core.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <sstream>
#include <utility>

#include "cache/sync/point_actions.h"
#include "cache/sync/point_grammar.h"

namespace wbfat::sync::inline WBFAT_RT {

namespace {

struct RuleInForce {
    std::string key;  // a rule with the same key takes its place
    std::unique_ptr<ArmedPointRule> rule;
};

struct RuleSet {
    Mutex mutex;
    std::vector<RuleInForce> rules GUARDED_BY(mutex);
};

RuleSet& rule_set() {
    // Never destroyed: detached device threads may pass points while the process exits.
    static auto* const kRules = new RuleSet;
    return *kRules;
}

std::string key_of(const ParsedPointRule& rule) {
    switch (rule.kind) {
        case ParsedPointRule::Kind::kTerms:
            return rule.site.text;
        case ParsedPointRule::Kind::kOrdering:
            return rule.site.text + " after " + rule.after.text;
        case ParsedPointRule::Kind::kChaos:
            return "chaos";
        case ParsedPointRule::Kind::kClearAll:
            break;
    }
    return "";
}

bool only_removes(const ParsedPointRule& rule) {
    return rule.kind == ParsedPointRule::Kind::kTerms && rule.terms.size() == 1 &&
           rule.terms.front().action == PointAction::kOff;
}

// Removed rules are destroyed by the caller, without the lock: their destructors wait.
std::vector<RuleInForce> remove_locked(RuleSet& set, const std::string& key) REQUIRES(set.mutex) {
    std::vector<RuleInForce> removed;
    for (RuleInForce& entry : set.rules) {
        if (entry.key == key) {
            removed.push_back(std::move(entry));
        }
    }
    std::erase_if(set.rules, [](const RuleInForce& entry) { return entry.rule == nullptr; });
    return removed;
}

void apply(const ParsedPointRule& rule) {
    if (rule.kind == ParsedPointRule::Kind::kClearAll) {
        clear_point_rules();
        return;
    }
    RuleSet& set = rule_set();
    const std::string key = key_of(rule);
    std::vector<RuleInForce> removed;
    {
        const MutexLock lock(set.mutex);
        removed = remove_locked(set, key);
    }
    removed.clear();
    if (!only_removes(rule)) {
        std::unique_ptr<ArmedPointRule> armed = make_armed_rule(rule);
        const MutexLock lock(set.mutex);
        set.rules.push_back({key, std::move(armed)});
    }
}

std::string parse_all(std::string_view text, std::vector<ParsedPointRule>& rules) {
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        const std::size_t first = line.find_first_not_of(" \t\r");
        if (first == std::string_view::npos || line[first] == '#') {
            continue;
        }
        ParsedPointRule rule;
        if (std::string sentence = parse_point_rule(line, rule); !sentence.empty()) {
            return sentence;
        }
        rules.push_back(std::move(rule));
    }
    return {};
}

}  // namespace

std::string set_point_rules(std::string_view text) {
    std::vector<ParsedPointRule> rules;
    if (std::string sentence = parse_all(text, rules); !sentence.empty()) {
        return sentence;
    }
    for (const ParsedPointRule& rule : rules) {
        apply(rule);
    }
    return {};
}

std::string check_point_rules(std::string_view text) {
    std::vector<ParsedPointRule> rules;
    return parse_all(text, rules);
}

std::string read_point_rules(const std::string& path, std::string& text) {
    std::ifstream file(path);
    std::stringstream content;
    if (!file || !(content << file.rdbuf())) {
        return fmt::format("cannot read the point rules in '{}'; give a file with one rule a line",
                           path);
    }
    text = content.str();
    if (std::string sentence = check_point_rules(text); !sentence.empty()) {
        return fmt::format("{}: {}", path, sentence);
    }
    return {};
}

void clear_point_rules() {
    RuleSet& set = rule_set();
    std::vector<RuleInForce> removed;
    {
        const MutexLock lock(set.mutex);
        removed.swap(set.rules);
    }
    removed.clear();
}

std::vector<PointRuleStatus> point_rules() {
    RuleSet& set = rule_set();
    const MutexLock lock(set.mutex);
    std::vector<PointRuleStatus> statuses;
    for (const RuleInForce& entry : set.rules) {
        statuses.push_back(entry.rule->status());
    }
    return statuses;
}

}  // namespace wbfat::sync::inline WBFAT_RT
