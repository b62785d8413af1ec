// What the rules of point_rules.h do where they act: terms, orderings, chaos. Each is armed for as
// long as it exists.
//
// Locking: each has a mutex of its own, a leaf, never held while a thread sleeps at a point.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cache/base/runtime.h"
#include "cache/base/thread_annotations.h"
#include "cache/sync/point_grammar.h"
#include "cache/sync/point_rules.h"
#include "cache/sync/points.h"

namespace wbfat::sync::inline WBFAT_RT {

// splitmix64: the same numbers from the same seed.
class PointRandom {
public:
    explicit PointRandom(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next();
    // In [0, 1).
    double unit();
    bool one_in(unsigned n) {
        return next() % n == 0;
    }
    Nanoseconds draw(const TimeRange& range);

private:
    std::uint64_t state_;
};

class ArmedPointRule {
public:
    ArmedPointRule() = default;
    ArmedPointRule(const ArmedPointRule&) = delete;
    ArmedPointRule& operator=(const ArmedPointRule&) = delete;
    // Lets go whom it holds, and returns when they have gone.
    virtual ~ArmedPointRule() = default;

    [[nodiscard]] virtual PointRuleStatus status() const = 0;
};

// Where print writes to; stderr unless set.
void set_point_printer(std::function<void(const std::string&)> printer);

// Requires: a rule of kind kTerms, kOrdering or kChaos.
std::unique_ptr<ArmedPointRule> make_armed_rule(const ParsedPointRule& rule);

}  // namespace wbfat::sync::inline WBFAT_RT
