// Footprints of the operations of cache/sync/model.h.
#include "tools/explore/footprint.h"

#include <cstring>

namespace wbfat::explore {

namespace {

using sync::sched::OpKind;
using sync::sched::Pending;

constexpr std::uint64_t kAll = ~std::uint64_t{0};

std::uint64_t value_of(const Pending& op) {
    std::uint64_t value = 0;
    std::memcpy(&value, op.object, op.size_bytes);
    return value;
}

bool leaves_none(const Pending& op) {
    const unsigned unused_bits = 64U - op.size_bytes * 8U;
    const std::uint64_t left = (value_of(op) - op.argument) << unused_bits;
    return static_cast<std::int64_t>(left) <= 0;
}

#if defined(WBFAT_MODEL_TSAN)
bool is_atomic(OpKind kind) {
    switch (kind) {
        case OpKind::kLoad:
        case OpKind::kStore:
        case OpKind::kExchange:
        case OpKind::kCompareExchange:
        case OpKind::kFetchAdd:
        case OpKind::kFetchSub:
        case OpKind::kSubAndSign:
        case OpKind::kFetchOr:
        case OpKind::kFetchAnd:
        case OpKind::kFetchXor:
            return true;
        default:
            return false;
    }
}
#endif

// Those that leave the same behind whatever their order.
bool are_of_a_kind(OpKind a, OpKind b) {
    const auto is_shared = [](OpKind kind) {
        return kind == OpKind::kLockShared || kind == OpKind::kUnlockShared;
    };
    switch (a) {
        case OpKind::kFetchAdd:
        case OpKind::kSubAndSign:
        case OpKind::kFetchOr:
        case OpKind::kFetchAnd:
        case OpKind::kFetchXor:
        case OpKind::kUnpark:
            return a == b;
        default:
            return is_shared(a) && is_shared(b);
    }
}

}  // namespace

Footprint footprint(const Pending& op) {
    Footprint print{.kind = op.kind, .object = op.object, .seen = op.seen};
    if (op.object == nullptr) {
        return print;
    }
    switch (op.kind) {
        case OpKind::kLoad:
            break;
        case OpKind::kStore:
            print.seen = 0;
            [[fallthrough]];
        case OpKind::kExchange:
            print.written = kAll;
            print.changed = value_of(op) ^ op.argument;
            break;
        case OpKind::kFetchOr:
            print.written = op.argument;
            print.changed = op.argument & ~value_of(op);
            print.seen |= print.written & ~print.changed;
            break;
        case OpKind::kFetchAnd:
            print.written = ~op.argument;
            print.changed = ~op.argument & value_of(op);
            print.seen |= print.written & ~print.changed;
            break;
        case OpKind::kFetchXor:
            print.written = print.changed = op.argument;
            break;
        case OpKind::kSubAndSign:
            print.leaves_none = leaves_none(op);
            print.written = print.changed = kAll;
            break;
        case OpKind::kUnpark:
            print.seen = 0;
            print.written = kAll;
            print.changed = value_of(op) == 0 ? kAll : 0;
            break;
        case OpKind::kLockShared:
        case OpKind::kUnlockShared:
            print.seen = 0;
            [[fallthrough]];
        default:
            print.written = print.changed = kAll;
            break;
    }
#if defined(WBFAT_MODEL_TSAN)
    // To the detector the order of two operations on one atomic is an order of all around them,
    // whatever they see of it.
    if (is_atomic(op.kind)) {
        print.seen = kAll;
        print.written = print.changed = op.kind == OpKind::kLoad ? 0 : kAll;
    }
#endif
    return print;
}

bool commute(const Footprint& a, const Footprint& b) {
    if (a.object != b.object || a.object == nullptr) {
        return true;
    }
    if (a.leaves_none || b.leaves_none) {
        return false;
    }
    const bool one_sees_the_other = ((a.changed & b.seen) | (b.changed & a.seen)) != 0;
    const bool both_write = (a.written & b.written) != 0;
    return !one_sees_the_other && (!both_write || are_of_a_kind(a.kind, b.kind));
}

bool orders_all(const Footprint& print) {
    return (print.seen & print.written & print.changed) == kAll;
}

}  // namespace wbfat::explore
