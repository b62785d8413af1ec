// When the search of traces may leave an order out: whether operations that are said to commute do.
//
// Method: every pair of operations on a few bits of an atomic, from every value, done in both
// orders on a plain integer, by arithmetic of this file's own. Not those that see and write all of
// it and so commute with nothing.
#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "tools/explore/footprint.h"

namespace wbfat::explore {
namespace {

using sync::sched::kSeesAll;
using sync::sched::OpKind;
using sync::sched::Pending;

constexpr unsigned kBits = 3;
constexpr std::uint64_t kNrValues = 1U << kBits;

struct Operation {
    OpKind kind = OpKind::kLoad;
    std::uint64_t argument = 0;
    std::uint64_t seen = kSeesAll;
};

// On the value, as model.h does it. Returns what the caller gets to know.
std::uint64_t perform(const Operation& op, std::uint64_t& value) {
    const std::uint64_t old = value;
    switch (op.kind) {
        case OpKind::kLoad:
            return old & op.seen;
        case OpKind::kStore:
            value = op.argument;
            return 0;
        case OpKind::kExchange:
            value = op.argument;
            return old;
        case OpKind::kFetchAdd:
            value = old + op.argument;
            return old & op.seen;
        case OpKind::kSubAndSign: {
            value = old - op.argument;
            const auto left = static_cast<std::int64_t>(value);
            return left < 0 ? 2 : left > 0 ? 1 : 0;
        }
        case OpKind::kFetchOr:
            value = old | op.argument;
            return old & op.seen;
        case OpKind::kFetchAnd:
            value = old & op.argument;
            return old & op.seen;
        case OpKind::kFetchXor:
            value = old ^ op.argument;
            return old & op.seen;
        default:
            ADD_FAILURE() << "an operation that this test does not know";
            return 0;
    }
}

std::vector<Operation> all_operations() {
    std::vector<Operation> all;
    for (std::uint64_t bits = 0; bits < kNrValues; ++bits) {
        for (std::uint64_t seen = 0; seen < kNrValues; ++seen) {
            all.push_back({OpKind::kFetchOr, bits, seen});
            all.push_back({OpKind::kFetchAnd, ~bits, seen});
            all.push_back({OpKind::kFetchXor, bits, seen});
        }
        all.push_back({OpKind::kLoad, 0, bits});
        all.push_back({OpKind::kStore, bits});
        all.push_back({OpKind::kExchange, bits});
    }
    for (const std::uint64_t delta : {1U, 2U}) {
        all.push_back({OpKind::kFetchAdd, delta});
        all.push_back({OpKind::kFetchAdd, delta, 0});
        all.push_back({OpKind::kSubAndSign, delta, 0});
    }
    return all;
}

// What an operation that is about to be done looks like from here; the value is looked at.
Footprint footprint_at(const Operation& op, const std::uint64_t& value) {
    return footprint({.kind = op.kind,
                      .size_bytes = sizeof(value),
                      .object = &value,
                      .argument = op.argument,
                      .seen = op.seen});
}

bool same(const Footprint& a, const Footprint& b) {
    return a.kind == b.kind && a.written == b.written && a.changed == b.changed &&
           a.seen == b.seen && a.leaves_none == b.leaves_none;
}

// One order of two operations.
struct Order {
    std::uint64_t value = 0;
    std::uint64_t seen_first = 0, seen_second = 0;
    Footprint first, second;

    Order(const Operation& a, const Operation& b, std::uint64_t start) : value(start) {
        first = footprint_at(a, value);
        seen_first = perform(a, value);
        second = footprint_at(b, value);
        seen_second = perform(b, value);
    }
};

std::string text(const Operation& op) {
    return fmt::format("kind {} argument {:#x} seen {:#x}", static_cast<int>(op.kind), op.argument,
                       op.seen);
}

TEST(ExploreFootprintTest, NeighboursThatCommuteMayComeInEitherOrder) {
    const std::vector<Operation> all = all_operations();
    std::uint64_t nr_commute = 0;
    for (std::uint64_t start = 0; start < kNrValues; ++start) {
        for (const Operation& a : all) {
            for (const Operation& b : all) {
                const Order there(a, b, start);
                if (!commute(there.first, there.second)) {
                    continue;
                }
                ++nr_commute;
                const Order back(b, a, start);
                ASSERT_TRUE(there.value == back.value && there.seen_first == back.seen_second &&
                            there.seen_second == back.seen_first)
                    << text(a) << " | " << text(b) << " | at " << start;
                // Or whoever comes later would be ordered otherwise in one of two runs that are
                // the same.
                ASSERT_TRUE(same(there.first, back.second) && same(there.second, back.first))
                    << text(a) << " | " << text(b) << " | at " << start;
            }
        }
    }
    // Were none said to commute, nothing would have been looked at.
    EXPECT_GT(nr_commute, all.size() * all.size());
}

TEST(ExploreFootprintTest, ACountOfHalfAWordEndsWhereItDoes) {
    const auto leaves_none = [](std::int32_t count, std::int32_t delta) {
        return footprint({.kind = OpKind::kSubAndSign,
                          .size_bytes = sizeof(count),
                          .object = &count,
                          .argument = static_cast<std::uint32_t>(delta),
                          .seen = 0})
            .leaves_none;
    };
    EXPECT_FALSE(leaves_none(2, 1));
    EXPECT_TRUE(leaves_none(1, 1));
    EXPECT_TRUE(leaves_none(0, 1));
    EXPECT_TRUE(leaves_none(1, 2));
    EXPECT_TRUE(leaves_none(-5, 1));
}

TEST(ExploreFootprintTest, WhatIsMeantToCommuteDoes) {
    std::uint64_t value = 0b010;
    const auto both = [&value](const Operation& a, const Operation& b) {
        return commute(footprint_at(a, value), footprint_at(b, value));
    };
    const Operation test_0{OpKind::kLoad, 0, 0b001};
    const Operation test_1{OpKind::kLoad, 0, 0b010};
    const Operation set_1{OpKind::kFetchOr, 0b010, 0};
    const Operation set_2{OpKind::kFetchOr, 0b100, 0};
    const Operation clear_1{OpKind::kFetchAnd, ~std::uint64_t{0b010}, 0};
    const Operation clear_2{OpKind::kFetchAnd, ~std::uint64_t{0b100}, 0};
    const Operation get{OpKind::kFetchAdd, 1, 0};
    const Operation put{OpKind::kSubAndSign, 1, 0};
    EXPECT_TRUE(both(test_0, set_1)) << "different flags";
    EXPECT_TRUE(both(set_2, clear_1)) << "different flags";
    EXPECT_TRUE(both(test_1, set_1)) << "set already";
    EXPECT_FALSE(both(test_1, clear_1));
    EXPECT_FALSE(both(set_2, clear_2));
    EXPECT_TRUE(both(get, get));
    EXPECT_FALSE(both(put, test_1)) << "who looks at a count sees all of it";
    EXPECT_FALSE(both(put, get));
    value = 3;
    EXPECT_TRUE(both(put, put)) << "one is left after both";
    value = 1;
    EXPECT_FALSE(both(put, put)) << "the last one";
}

TEST(ExploreFootprintTest, LocksParkersAndOtherObjects) {
    const std::array<std::uint64_t, 2> places{};
    const auto print = [&places](OpKind kind, std::size_t place) {
        return footprint({.kind = kind, .size_bytes = 8, .object = &places[place]});
    };
    EXPECT_TRUE(commute(print(OpKind::kLock, 0), print(OpKind::kLock, 1)));
    EXPECT_FALSE(commute(print(OpKind::kLock, 0), print(OpKind::kLock, 0)));
    EXPECT_TRUE(commute(print(OpKind::kLockShared, 0), print(OpKind::kUnlockShared, 0)));
    EXPECT_FALSE(commute(print(OpKind::kLockShared, 0), print(OpKind::kLock, 0)));
    EXPECT_TRUE(commute(print(OpKind::kUnpark, 0), print(OpKind::kUnpark, 0)));
    EXPECT_FALSE(commute(print(OpKind::kUnpark, 0), print(OpKind::kPark, 0)));
    EXPECT_TRUE(orders_all(print(OpKind::kLock, 0)));
    EXPECT_FALSE(orders_all(print(OpKind::kUnpark, 0)));
    EXPECT_FALSE(orders_all(print(OpKind::kLoad, 0)));
}

}  // namespace
}  // namespace wbfat::explore
