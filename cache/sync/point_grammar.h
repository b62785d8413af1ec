// The text of point rules, taken apart. point_rules.h has the grammar; nothing here acts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cache/base/runtime.h"
#include "cache/sync/points.h"

namespace wbfat::sync::inline WBFAT_RT {

// Drawn log-uniformly; fixed when both ends are equal.
struct TimeRange {
    Nanoseconds low{0};
    Nanoseconds high{0};
};

struct PointSite {
    std::string text;  // as it was written
    std::string point;
    PointRule selection;  // without any action
};

enum class PointAction : std::uint8_t { kOff, kCount, kYield, kPause, kPrint, kSleep, kDelay };

struct PointTerm {
    PointAction action = PointAction::kOff;
    double percent = 100;
    std::uint64_t count = UINT64_MAX;  // acts this often at most
    TimeRange time;                    // kSleep, kDelay
    std::string print;                 // kPrint
};

struct ChaosSettings {
    std::uint64_t seed = 1;
    double share_percent = 20;  // of its time a thread is held at most
    TimeRange short_delay{std::chrono::microseconds(1), std::chrono::microseconds(100)};
    TimeRange long_delay{std::chrono::milliseconds(1), std::chrono::milliseconds(20)};
};

struct ParsedPointRule {
    enum class Kind : std::uint8_t { kClearAll, kTerms, kOrdering, kChaos };

    Kind kind = Kind::kClearAll;
    std::string text;  // the rule without blanks around it
    PointSite site;    // kTerms; kOrdering: the one that is held
    std::vector<PointTerm> terms;
    PointSite after;  // kOrdering
    PointSite since;  // kOrdering; without a point: none
    Nanoseconds give_up{std::chrono::seconds(1)};
    ChaosSettings chaos;
};

// Parses one rule. Returns "" or a sentence.
std::string parse_point_rule(std::string_view text, ParsedPointRule& rule);

}  // namespace wbfat::sync::inline WBFAT_RT
