// Which version of the page protocol runs: independent switches, and presets by name.
//
// The kernel changed page waiting and the end of writeback five times between 5.8 and 6.8, and a
// mail of January 2021 weighs more ways. Each difference is one switch here; a preset is a value of
// all of them. Every switch is looked at in one place of page_wait.cc, page_lock.cc or
// writeback.cc, marked `switch:`.
//
// The running protocol is one word for the whole process, because the wait table is: a sleeper of
// one mount and a waker of another may meet in a bucket. Each operation reads the word once, at its
// start, and keeps to what it read. The word is a Setting: nothing synchronises through it, and the
// explorer spends interleavings on it only in the scenario that switches. switch_protocol
// (freeze.h) changes it while no operation is under way; set_protocol_while_idle is for whoever can
// promise that otherwise.
//
// Source: writeback-protocol.md sections 3 to 9 and 17.2.
// Differs: with WBFAT_FIXED_PROTOCOL the word is a constant, for the benchmark that prices it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "cache/base/runtime.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

// What a woken sleeper does. Section 17.2 a.
enum class Waiter : std::uint8_t {
    kRecheck,  // looks at the bit again, and queues again at the tail: a wake-up is a hint
    kTrust,    // believes the waker's flag
};
// Whether the waker looks at the bit before it wakes a shared sleeper. 17.2 b.
enum class SharedWake : std::uint8_t {
    kTest,   // set again: stop the walk
    kBlind,  // it was clear a moment ago, that must do
};
// How wait_on_page_writeback asks. 17.2 c.
enum class OuterWait : std::uint8_t { kIf, kWhile };
// How a bit that others sleep on is cleared. 17.2 d.
enum class EndClear : std::uint8_t {
    kSplit,      // clear, then read PG_waiters
    kXor,        // both in one atomic operation
    kQueueLock,  // inside the wake-up, under the bucket lock; without it only while nobody waits
};
// Whether end_page_writeback holds a reference while it wakes. 17.2 e.
enum class EndReference : std::uint8_t { kNone, kHeld };
// What the waker does first with an entry it has flagged. 17.2 g.
enum class WakeOrder : std::uint8_t { kWakeThenUnlink, kUnlinkThenWake };
// How a woken entry leaves the queue. 17.2 h.
enum class Unlink : std::uint8_t { kPlain, kCareful };
// Whether one wake-up holds the bucket lock from its first entry to its last.
enum class WakeWalk : std::uint8_t {
    kBroken,   // lets go after 64 entries, behind a bookmark
    kOneHold,  // yes
};
// How a writer of an integrity walk gets PG_writeback. Section 9.3 (5).
enum class SetWriteback : std::uint8_t {
    kAfterWait,  // waits until it is clear, and sets it some steps later
    kWithWait,   // takes it as lock_page takes PG_locked
};
// Whether end_page_writeback takes the page lock. Section 9.3 (4).
enum class EndLock : std::uint8_t { kNo, kYes };

// After how many stolen rounds a sleeper for the page lock has it handed over. 17.2 f.
using Handoff = std::uint8_t;
inline constexpr Handoff kHandoffAlways = 0;
inline constexpr Handoff kHandoffNever = 255;
// Source: sysctl page_lock_unfairness.
inline constexpr Handoff kPageLockUnfairness = 5;

// One version of the protocol. The default is the newest kernel's.
struct Protocol {
    Waiter waiter = Waiter::kTrust;
    SharedWake wake = SharedWake::kBlind;
    OuterWait wait = OuterWait::kWhile;
    EndClear end = EndClear::kXor;
    EndReference ref = EndReference::kHeld;
    Handoff handoff = kPageLockUnfairness;
    WakeOrder order = WakeOrder::kWakeThenUnlink;
    Unlink unlink = Unlink::kCareful;
    WakeWalk walk = WakeWalk::kOneHold;
    SetWriteback set = SetWriteback::kAfterWait;
    EndLock end_lock = EndLock::kNo;

    friend constexpr bool operator==(const Protocol&, const Protocol&) = default;

    // "5.9", "5.9,end=xor", "end=xor": a preset (the newest when none is named), then switches laid
    // over it, the later ones winning. Returns "" or one sentence that says what would be right;
    // `into` is unchanged then.
    static std::string parse(std::string_view text, Protocol& into);
};

// The shortest text that parses to this: a preset and the switches that differ from it.
std::string to_string(const Protocol& protocol);

struct ProtocolPreset {
    const char* name = nullptr;
    Protocol protocol;
    const char* help = nullptr;
};
// Oldest kernel first, then the proposals; the default is kDefaultPreset.
std::span<const ProtocolPreset> protocol_presets();
inline constexpr const char* kDefaultPreset = "6.8";

struct ProtocolSwitchValue {
    const char* name;
    std::uint8_t value;
    const char* help;
};
struct ProtocolSwitch {
    const char* name;
    const char* help;
    std::span<const ProtocolSwitchValue> values;
    unsigned shift;  // in the packed word
};
// In the order of Protocol's members. `handoff` takes a number too.
std::span<const ProtocolSwitch> protocol_switches();
// The name of the value that `protocol` has for the switch: "xor", "5".
std::string switch_value(const Protocol& protocol, const ProtocolSwitch& which);

// --- the packed word

namespace protocol_word {

inline constexpr unsigned kWaiterShift = 0;
inline constexpr unsigned kWakeShift = 1;
inline constexpr unsigned kWaitShift = 2;
inline constexpr unsigned kEndShift = 3;  // two bits
inline constexpr unsigned kRefShift = 5;
inline constexpr unsigned kOrderShift = 6;
inline constexpr unsigned kUnlinkShift = 7;
inline constexpr unsigned kWalkShift = 8;
inline constexpr unsigned kSetShift = 9;
inline constexpr unsigned kEndLockShift = 10;
inline constexpr unsigned kHandoffShift = 16;  // eight bits

constexpr std::uint32_t width_mask(unsigned shift) {
    return shift == kEndShift ? 3U : shift == kHandoffShift ? 255U : 1U;
}
constexpr std::uint8_t field(std::uint32_t word, unsigned shift) {
    return static_cast<std::uint8_t>((word >> shift) & width_mask(shift));
}

constexpr std::uint32_t pack(const Protocol& p) {
    const auto at = [](auto value, unsigned shift) {
        return static_cast<std::uint32_t>(value) << shift;
    };
    return at(p.waiter, kWaiterShift) | at(p.wake, kWakeShift) | at(p.wait, kWaitShift) |
           at(p.end, kEndShift) | at(p.ref, kRefShift) | at(p.order, kOrderShift) |
           at(p.unlink, kUnlinkShift) | at(p.walk, kWalkShift) | at(p.set, kSetShift) |
           at(p.end_lock, kEndLockShift) | at(p.handoff, kHandoffShift);
}

constexpr Protocol unpack(std::uint32_t word) {
    return {
        .waiter = static_cast<Waiter>(field(word, kWaiterShift)),
        .wake = static_cast<SharedWake>(field(word, kWakeShift)),
        .wait = static_cast<OuterWait>(field(word, kWaitShift)),
        .end = static_cast<EndClear>(field(word, kEndShift)),
        .ref = static_cast<EndReference>(field(word, kRefShift)),
        .handoff = field(word, kHandoffShift),
        .order = static_cast<WakeOrder>(field(word, kOrderShift)),
        .unlink = static_cast<Unlink>(field(word, kUnlinkShift)),
        .walk = static_cast<WakeWalk>(field(word, kWalkShift)),
        .set = static_cast<SetWriteback>(field(word, kSetShift)),
        .end_lock = static_cast<EndLock>(field(word, kEndLockShift)),
    };
}

#if !defined(WBFAT_FIXED_PROTOCOL)
struct Current {
    sync::Setting<std::uint32_t> word{pack(Protocol{})};
};
inline sync::Global<Current> current;
#endif

}  // namespace protocol_word

#if defined(WBFAT_FIXED_PROTOCOL)
constexpr Protocol current_protocol() {
    return {};
}
constexpr void set_protocol_while_idle(const Protocol& /*protocol*/) {}
#else
inline Protocol current_protocol() {
    return protocol_word::unpack(protocol_word::current->word.load());
}
// Requires: no page operation is under way in the process, and no page is under writeback. Tests,
// the explorer, and the start of a mount can promise that; a live mount calls switch_protocol.
inline void set_protocol_while_idle(const Protocol& protocol) {
    protocol_word::current->word.store(protocol_word::pack(protocol));
}
#endif

}  // namespace wbfat::cache::inline WBFAT_RT
