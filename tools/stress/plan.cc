// The mix of operations, and the sizes that hurt.
#include "tools/stress/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace wbfat::tools {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kBlock = 512;
constexpr std::uint64_t kFourGib = std::uint64_t{1} << 32;

// Chances of each operation, out of the sum of all weights.
using Weights = std::array<std::pair<OpKind, unsigned>, 11>;
constexpr Weights kGrowWeights{{{OpKind::kTruncate, 46},
                                {OpKind::kWrite, 14},
                                {OpKind::kStore, 10},
                                {OpKind::kRead, 8},
                                {OpKind::kLoad, 2},
                                {OpKind::kFsync, 8},
                                {OpKind::kFdatasync, 8},
                                {OpKind::kEvict, 1},
                                {OpKind::kReopen, 2},
                                {OpKind::kRename, 1},
                                {OpKind::kReplace, 0}}};
constexpr Weights kOwnedWeights{{{OpKind::kTruncate, 30},
                                 {OpKind::kWrite, 24},
                                 {OpKind::kStore, 10},
                                 {OpKind::kRead, 16},
                                 {OpKind::kLoad, 4},
                                 {OpKind::kFsync, 3},
                                 {OpKind::kFdatasync, 3},
                                 {OpKind::kEvict, 3},
                                 {OpKind::kReopen, 4},
                                 {OpKind::kRename, 2},
                                 {OpKind::kReplace, 1}}};

bool is_possible(OpKind kind, const PlanLimits& limits, std::uint64_t size) {
    switch (kind) {
        case OpKind::kStore:
        case OpKind::kLoad:
            return limits.mmap && size > limits.floor;
        case OpKind::kRead:
        case OpKind::kSpy:
            return size > limits.floor;
        case OpKind::kRename:
        case OpKind::kReplace:
            return limits.names;
        default:
            return true;
    }
}

OpKind pick_kind(Random& random, const PlanLimits& limits, std::uint64_t size) {
    const Weights& weights = limits.mix == Mix::kGrow ? kGrowWeights : kOwnedWeights;
    unsigned sum = 0;
    for (const auto& [kind, weight] : weights) {
        sum += is_possible(kind, limits, size) ? weight : 0;
    }
    std::uint64_t ticket = random.below(sum);
    for (const auto& [kind, weight] : weights) {
        if (!is_possible(kind, limits, size)) {
            continue;
        }
        if (ticket < weight) {
            return kind;
        }
        ticket -= weight;
    }
    return OpKind::kTruncate;
}

std::uint64_t pick_length(Random& random, std::uint64_t max) {
    const std::uint64_t scale = random.pick({std::uint64_t{16}, kBlock, kPage, 4 * kPage, max});
    return random.between(1, std::min(max, scale));
}

std::uint64_t near_boundary(Random& random, std::uint64_t unit, std::uint64_t low,
                            std::uint64_t high) {
    const std::uint64_t boundary = random.between(low / unit, high / unit) * unit;
    const std::uint64_t delta =
        random.pick({std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{3}, kBlock - 1, kBlock});
    return random.one_in(2) && boundary >= delta ? boundary - delta : boundary + delta;
}

// Mostly a step up that ends inside a block; one in twelve goes back.
std::uint64_t pick_grown_size(Random& random, const PlanLimits& limits, std::uint64_t size) {
    if (size > limits.floor && (size >= limits.max_size || random.one_in(12))) {
        return random.one_in(3) ? limits.floor
                                : pick_odd_size(random, limits, limits.floor, size, size);
    }
    const std::uint64_t step =
        random.one_in(4) ? random.between(kPage, 3 * kPage) : random.between(1, kPage - 1);
    const std::uint64_t grown = std::max(size, limits.floor) + step;
    return std::min(grown % kBlock == 0 ? grown + 1 : grown, limits.max_size);
}

// A new size: often a small step, sometimes to the floor, sometimes anywhere.
std::uint64_t pick_new_size(Random& random, const PlanLimits& limits, std::uint64_t size) {
    if (limits.four_gib && random.one_in(16)) {
        return random.pick({kFourGib - 2, kFourGib - 1, kFourGib, kFourGib + 1, kFourGib - kPage,
                            kFourGib + kPage - 1});
    }
    if (size > limits.floor && random.one_in(8)) {
        return limits.floor;
    }
    // Files that crossed 4 GiB come down soon: each is very long to check.
    if (size > limits.max_size || random.one_in(2)) {
        return pick_odd_size(random, limits, limits.floor, std::min(size, limits.max_size), size);
    }
    return pick_odd_size(random, limits, std::max(size, limits.floor), limits.max_size, size);
}

Op plan_write(Random& random, const PlanLimits& limits, std::uint64_t size) {
    Op op{.kind = OpKind::kWrite};
    op.length = pick_length(random, std::min(limits.max_write, limits.max_size - limits.floor));
    const std::uint64_t last = limits.max_size - op.length;
    const std::uint64_t end = std::min(std::max(size, limits.floor), last);
    switch (random.below(4)) {
        case 0:  // append
            op.offset = end;
            break;
        case 1:  // leave a hole behind the end
            op.offset = pick_odd_size(random, limits, end, last, end);
            break;
        default:
            op.offset = pick_odd_size(random, limits, limits.floor, end, end);
    }
    if (limits.four_gib && random.one_in(32)) {
        op.offset =
            kFourGib - random.pick({op.length, op.length / 2, std::uint64_t{1}, std::uint64_t{0}});
    }
    return op;
}

// Places an access inside [begin, begin + length).
void place(Random& random, Op& op, std::uint64_t begin, std::uint64_t length, std::uint64_t max) {
    op.length = pick_length(random, std::min(max, length));
    op.offset = begin + random.between(0, length - op.length);
    op.sync_mapping = random.one_in(4);
    op.drop_mapping = random.one_in(4);
}

}  // namespace

const char* name_of(OpKind kind) {
    switch (kind) {
        case OpKind::kTruncate:
            return "truncate";
        case OpKind::kWrite:
            return "write";
        case OpKind::kStore:
            return "store";
        case OpKind::kRead:
            return "read";
        case OpKind::kLoad:
            return "load";
        case OpKind::kSpy:
            return "spy";
        case OpKind::kFsync:
            return "fsync";
        case OpKind::kFdatasync:
            return "fdatasync";
        case OpKind::kEvict:
            return "evict";
        case OpKind::kReopen:
            return "reopen";
        case OpKind::kRename:
            return "rename";
        case OpKind::kReplace:
            return "replace";
        case OpKind::kNrKinds:
            break;
    }
    return "?";
}

std::string Op::to_string() const {
    switch (kind) {
        case OpKind::kTruncate:
            return fmt::format("truncate to {}", offset);
        case OpKind::kWrite:
        case OpKind::kStore:
        case OpKind::kRead:
        case OpKind::kLoad:
        case OpKind::kSpy:
            return fmt::format("{} [{}, {}){}{}", name_of(kind), offset, offset + length,
                               kind == OpKind::kStore && sync_mapping ? " msync" : "",
                               drop_mapping ? " munmap" : "");
        default:
            return name_of(kind);
    }
}

std::uint64_t pick_odd_size(Random& random, const PlanLimits& limits, std::uint64_t low,
                            std::uint64_t high, std::uint64_t near) {
    if (low >= high) {
        return low;
    }
    std::uint64_t size = 0;
    switch (random.below(5)) {
        case 0: {  // within a page of where the file ends now
            const std::uint64_t from = near > kPage ? near - kPage : 0;
            size = random.between(from, near + kPage);
            break;
        }
        case 1:
            size = near_boundary(random, kPage, low, high);
            break;
        case 2:
            size = near_boundary(random, limits.cluster, low, high);
            break;
        case 3:  // small files are the common case
            size = low + random.below(std::min<std::uint64_t>(high - low, 4 * limits.cluster) + 1);
            break;
        default:
            size = random.between(low, high) | 1U;
    }
    return std::clamp(size, low, high);
}

Op plan_owned(Random& random, const PlanLimits& limits, std::uint64_t size) {
    Op op{.kind = pick_kind(random, limits, size)};
    switch (op.kind) {
        case OpKind::kTruncate:
            op.offset = limits.mix == Mix::kGrow ? pick_grown_size(random, limits, size)
                                                 : pick_new_size(random, limits, size);
            break;
        case OpKind::kWrite:
            return plan_write(random, limits, size);
        case OpKind::kStore:
        case OpKind::kRead:
        case OpKind::kLoad:
            place(random, op, limits.floor, size - limits.floor, limits.max_write);
            break;
        default:
            break;
    }
    return op;
}

Op plan_in_range(Random& random, const PlanLimits& limits, std::uint64_t begin,
                 std::uint64_t length) {
    Op op;
    const std::uint64_t ticket = random.below(64);
    if (ticket < 22) {
        op.kind = OpKind::kWrite;
    } else if (ticket < 36) {
        op.kind = limits.mmap ? OpKind::kStore : OpKind::kWrite;
    } else if (ticket < 50) {
        op.kind = OpKind::kRead;
    } else if (ticket < 56) {
        op.kind = limits.mmap ? OpKind::kLoad : OpKind::kRead;
    } else if (ticket < 60) {
        op.kind = OpKind::kSpy;
    } else {
        op.kind =
            random.pick({OpKind::kFsync, OpKind::kFdatasync, OpKind::kEvict, OpKind::kReopen});
    }
    place(random, op, begin, length, limits.max_write);
    // Whole words only: a spy could not judge a word that two writes share.
    const std::uint64_t end = std::min((op.offset + op.length + 7) / 8 * 8, begin + length);
    op.offset = op.offset / 8 * 8;
    op.length = end - op.offset;
    return op;
}

}  // namespace wbfat::tools
