// The parser of point rules: recursive descent over a few separators. Every function returns "" or
// the sentence.
#include "cache/sync/point_grammar.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

namespace wbfat::sync::inline WBFAT_RT {

namespace {

constexpr std::string_view kBlanks = " \t\r";
constexpr Nanoseconds kTimeMax = std::chrono::hours(1);

std::string_view trimmed(std::string_view text) {
    const std::size_t begin = std::min(text.find_first_not_of(kBlanks), text.size());
    const std::size_t end = text.find_last_not_of(kBlanks);
    return text.substr(begin, end == std::string_view::npos ? 0 : end + 1 - begin);
}

// The part before `separator`, trimmed; `text` keeps the rest. All of it when there is none.
std::string_view take_until(std::string_view& text, std::string_view separator) {
    const std::size_t at = text.find(separator);
    const std::string_view part = trimmed(text.substr(0, at));
    text = at == std::string_view::npos ? std::string_view{} : text.substr(at + separator.size());
    return part;
}

std::optional<std::uint64_t> parse_number(std::string_view text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) {
        return std::nullopt;
    }
    return value;
}

std::optional<double> parse_percent(std::string_view text) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < 0 || value > 100) {
        return std::nullopt;
    }
    return value;
}

// "N", "N..M" or "N..".
struct NumberRange {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
};
std::optional<NumberRange> parse_range(std::string_view text) {
    const std::size_t dots = text.find("..");
    const std::optional<std::uint64_t> low = parse_number(text.substr(0, dots));
    if (dots == std::string_view::npos) {
        return low ? std::optional<NumberRange>({*low, *low}) : std::nullopt;
    }
    const std::string_view after = text.substr(dots + 2);
    const std::optional<std::uint64_t> high = after.empty() ? UINT64_MAX : parse_number(after);
    if (!low || !high || *high < *low) {
        return std::nullopt;
    }
    return NumberRange{*low, *high};
}

std::optional<Nanoseconds> parse_one_time(std::string_view text) {
    struct Unit {
        std::string_view name;
        Nanoseconds length;
    };
    static constexpr std::array<Unit, 5> kUnits{{{"ns", std::chrono::nanoseconds(1)},
                                                 {"us", std::chrono::microseconds(1)},
                                                 {"ms", std::chrono::milliseconds(1)},
                                                 {"s", std::chrono::seconds(1)},
                                                 {"h", std::chrono::hours(1)}}};
    for (const Unit& unit : kUnits) {
        if (!text.ends_with(unit.name)) {
            continue;
        }
        const auto number = parse_number(text.substr(0, text.size() - unit.name.size()));
        if (!number) {
            continue;  // "5ms" also ends with "s"
        }
        if (*number > static_cast<std::uint64_t>(kTimeMax / unit.length)) {
            return std::nullopt;
        }
        return unit.length * static_cast<std::int64_t>(*number);
    }
    return std::nullopt;
}

// A drawing on a logarithmic scale needs a lower end above zero.
std::optional<TimeRange> parse_time(std::string_view text) {
    const std::size_t dots = text.find("..");
    const std::optional<Nanoseconds> low = parse_one_time(text.substr(0, dots));
    if (dots == std::string_view::npos) {
        return low ? std::optional<TimeRange>({*low, *low}) : std::nullopt;
    }
    const std::optional<Nanoseconds> high = parse_one_time(text.substr(dots + 2));
    if (!low || !high || *high < *low || *low <= Nanoseconds::zero()) {
        return std::nullopt;
    }
    return TimeRange{*low, *high};
}

std::string wrong(std::string_view what, std::string_view given, std::string_view right) {
    return fmt::format("{} '{}' is not valid; give {}", what, given, right);
}

constexpr std::string_view kRightTime = "a time up to an hour such as 20us, 5ms, 1s or 1ms..20ms";

std::string parse_role(std::string_view text, PointRule& selection) {
    static constexpr std::array<std::pair<std::string_view, Role>, 5> kRoles{
        {{"completion", Role::kCompletion},
         {"flusher", Role::kFlusher},
         {"request", Role::kRequest},
         {"sync", Role::kSyncWriter},
         {"other", Role::kOther}}};
    const auto* const found =
        std::find_if(kRoles.begin(), kRoles.end(), [&](const auto& r) { return r.first == text; });
    if (found == kRoles.end()) {
        return wrong("role", text, "completion, flusher, request, sync or other");
    }
    selection.role = found->second;
    return {};
}

std::string parse_hits(std::string_view value, PointRule& selection) {
    const std::optional<NumberRange> hits = parse_range(value);
    if (!hits || hits->low == 0) {
        return wrong("selector hit", value, "N, N..M or N.., counted from 1");
    }
    selection.skip = hits->low - 1;
    selection.count = hits->high == UINT64_MAX ? UINT64_MAX : hits->high - hits->low + 1;
    return {};
}

std::string parse_pages(std::string_view value, PointRule& selection) {
    const std::optional<NumberRange> pages = parse_range(value);
    if (!pages) {
        return wrong("selector page", value, "N or N..M, pages of 4096 bytes from 0");
    }
    selection.first_page = pages->low;
    // UINT64_MAX would mean that the point need not be about a page.
    selection.last_page = std::min(pages->high, UINT64_MAX - 1);
    return {};
}

std::string parse_selector(std::string_view text, PointRule& selection) {
    std::string_view rest = text;
    const std::string_view name = take_until(rest, "=");
    const std::string_view value = trimmed(rest);
    if (value.empty()) {
        return wrong("selector", text, "hit=, page=, file=, task= or what= with a value");
    }
    if (name == "hit") {
        return parse_hits(value, selection);
    }
    if (name == "page") {
        return parse_pages(value, selection);
    }
    if (name == "file") {
        selection.file = point_tag(value);
        return {};
    }
    if (name == "task") {
        selection.task = value;
        return {};
    }
    if (name == "what") {
        if (value != "locked" && value != "writeback") {
            return wrong("selector what", value, "locked or writeback");
        }
        selection.what = value;
        return {};
    }
    return wrong("selector", text, "hit=, page=, file=, task= or what= with a value");
}

// POINT[@ROLE][[SELECTOR;..]]
std::string parse_site(std::string_view text, PointSite& site) {
    site = {};
    site.text = text;
    std::string_view rest = text;
    std::string_view selectors;
    if (const std::size_t bracket = rest.find('['); bracket != std::string_view::npos) {
        if (!rest.ends_with(']')) {
            return wrong("point", text, "the selectors in brackets: POINT[page=0;hit=3]");
        }
        selectors = rest.substr(bracket + 1, rest.size() - bracket - 2);
        rest = trimmed(rest.substr(0, bracket));
    }
    const bool has_role = rest.find('@') != std::string_view::npos;
    site.point = take_until(rest, "@");
    static constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789_:";
    if (site.point.empty() || site.point.find(':') == std::string::npos ||
        site.point.find_first_not_of(kLetters) != std::string::npos) {
        return wrong("point", text, "a name such as end_writeback:cleared");
    }
    if (has_role) {
        if (std::string sentence = parse_role(trimmed(rest), site.selection); !sentence.empty()) {
            return sentence;
        }
    }
    while (!selectors.empty()) {
        const std::string_view one = take_until(selectors, ";");
        if (std::string sentence = parse_selector(one, site.selection); !sentence.empty()) {
            return sentence;
        }
    }
    return {};
}

struct ActionName {
    std::string_view name;
    PointAction action;
};
constexpr std::array<ActionName, 7> kActions{{{"off", PointAction::kOff},
                                              {"count", PointAction::kCount},
                                              {"yield", PointAction::kYield},
                                              {"pause", PointAction::kPause},
                                              {"print", PointAction::kPrint},
                                              {"sleep", PointAction::kSleep},
                                              {"delay", PointAction::kDelay}}};

// ACTION or ACTION(ARGUMENT)
std::string parse_action(std::string_view text, PointTerm& term) {
    std::string_view argument;
    std::string_view name = text;
    const std::size_t parenthesis = text.find('(');
    if (parenthesis != std::string_view::npos && text.ends_with(')')) {
        name = trimmed(text.substr(0, parenthesis));
        argument = trimmed(text.substr(parenthesis + 1, text.size() - parenthesis - 2));
    }
    const auto* const found = std::find_if(kActions.begin(), kActions.end(),
                                           [&](const ActionName& a) { return a.name == name; });
    if (found == kActions.end()) {
        return wrong("action", text, "off, count, yield, pause, print, sleep(TIME) or delay(TIME)");
    }
    term.action = found->action;
    if (term.action == PointAction::kSleep || term.action == PointAction::kDelay) {
        const std::optional<TimeRange> time = parse_time(argument);
        if (!time) {
            return wrong(name, argument, kRightTime);
        }
        term.time = *time;
        return {};
    }
    if (term.action != PointAction::kPrint && parenthesis != std::string_view::npos) {
        return fmt::format("action '{}' takes no argument, but got '{}'", name, argument);
    }
    term.print = argument;
    return {};
}

// [P%][N*]ACTION
std::string parse_term(std::string_view text, PointTerm& term) {
    std::string_view rest = text;
    const auto before_argument = [&rest](char c) {
        const std::size_t at = rest.find(c);
        return at != std::string_view::npos && at < std::min(rest.find('('), rest.size());
    };
    if (before_argument('%')) {
        const std::string_view given = take_until(rest, "%");
        const std::optional<double> percent = parse_percent(given);
        if (!percent) {
            return wrong("probability", given, "a percentage from 0 to 100: 20%sleep(1ms)");
        }
        term.percent = *percent;
    }
    if (before_argument('*')) {
        const std::string_view given = take_until(rest, "*");
        const std::optional<std::uint64_t> count = parse_number(given);
        if (!count) {
            return wrong("count", given, "a number: 3*sleep(1ms)");
        }
        term.count = *count;
    }
    return parse_action(trimmed(rest), term);
}

// SITE=TERM[->TERM..]; `equals` is the first = outside brackets.
std::string parse_terms(std::string_view text, std::size_t equals, ParsedPointRule& rule) {
    rule.kind = ParsedPointRule::Kind::kTerms;
    if (std::string sentence = parse_site(trimmed(text.substr(0, equals)), rule.site);
        !sentence.empty()) {
        return sentence;
    }
    std::string_view rest = text.substr(equals + 1);
    do {
        PointTerm term;
        if (std::string sentence = parse_term(take_until(rest, "->"), term); !sentence.empty()) {
            return sentence;
        }
        rule.terms.push_back(term);
    } while (!rest.empty());
    return {};
}

// SITE after SITE [since SITE] [give up TIME]
std::string parse_ordering(std::string_view text, ParsedPointRule& rule) {
    rule.kind = ParsedPointRule::Kind::kOrdering;
    std::string_view rest = text;
    const std::string_view held = take_until(rest, " after ");
    const bool has_limit = rest.find(" give up ") != std::string_view::npos;
    std::string_view sites = take_until(rest, " give up ");
    const bool has_since = sites.find(" since ") != std::string_view::npos;
    const std::string_view after = take_until(sites, " since ");
    if (std::string sentence = parse_site(held, rule.site); !sentence.empty()) {
        return sentence;
    }
    if (std::string sentence = parse_site(after, rule.after); !sentence.empty()) {
        return sentence;
    }
    if (has_since) {
        if (std::string sentence = parse_site(trimmed(sites), rule.since); !sentence.empty()) {
            return sentence;
        }
    }
    if (has_limit) {
        const std::optional<Nanoseconds> limit = parse_one_time(trimmed(rest));
        if (!limit) {
            return wrong("give up", trimmed(rest), "a time up to an hour such as 50ms or 1s");
        }
        rule.give_up = *limit;
    }
    return {};
}

// chaos [seed N] [share P%] [short TIME] [long TIME]
std::string parse_chaos(std::string_view text, ChaosSettings& chaos) {
    std::string_view rest = trimmed(text);
    while (!rest.empty()) {
        const std::string_view name = take_until(rest, " ");
        rest = trimmed(rest);
        const std::string_view value = take_until(rest, " ");
        rest = trimmed(rest);
        if (name == "seed") {
            const std::optional<std::uint64_t> seed = parse_number(value);
            if (!seed) {
                return wrong("chaos seed", value, "a number");
            }
            chaos.seed = *seed;
        } else if (name == "share") {
            const auto share =
                parse_percent(value.substr(0, std::min(value.find('%'), value.size())));
            if (!share || !value.ends_with('%')) {
                return wrong("chaos share", value, "a percentage such as 20%");
            }
            chaos.share_percent = *share;
        } else if (name == "short" || name == "long") {
            const std::optional<TimeRange> time = parse_time(value);
            if (!time) {
                return wrong(fmt::format("chaos {}", name), value, kRightTime);
            }
            (name == "short" ? chaos.short_delay : chaos.long_delay) = *time;
        } else {
            return wrong("chaos setting", name, "seed N, share P%, short TIME or long TIME");
        }
    }
    return {};
}

// The first = that belongs to no selector.
std::size_t find_equals(std::string_view text) {
    bool in_brackets = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        in_brackets = text[i] == '[' || (in_brackets && text[i] != ']');
        if (text[i] == '=' && !in_brackets) {
            return i;
        }
    }
    return std::string_view::npos;
}

std::string parse_by_kind(std::string_view text, ParsedPointRule& rule) {
    if (text == "off") {
        rule.kind = ParsedPointRule::Kind::kClearAll;
        return {};
    }
    if (text == "chaos" || text.starts_with("chaos ")) {
        rule.kind = ParsedPointRule::Kind::kChaos;
        return parse_chaos(text.substr(5), rule.chaos);
    }
    if (text.find(" after ") != std::string_view::npos) {
        return parse_ordering(text, rule);
    }
    if (const std::size_t equals = find_equals(text); equals != std::string_view::npos) {
        return parse_terms(text, equals, rule);
    }
    return "it is none of: POINT=ACTION, POINT after POINT, chaos, off";
}

}  // namespace

std::string parse_point_rule(std::string_view text, ParsedPointRule& rule) {
    rule = {};
    rule.text = trimmed(text);
    const std::string sentence = parse_by_kind(rule.text, rule);
    return sentence.empty() ? "" : fmt::format("point rule '{}': {}", rule.text, sentence);
}

}  // namespace wbfat::sync::inline WBFAT_RT
