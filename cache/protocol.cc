// Names of the protocol's versions and switches: parsing and printing.
#include "cache/protocol.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <optional>

namespace wbfat::cache::inline WBFAT_RT {

namespace {

constexpr Protocol kLinux58{
    .waiter = Waiter::kRecheck,
    .wake = SharedWake::kTest,
    .wait = OuterWait::kIf,
    .end = EndClear::kSplit,
    .ref = EndReference::kNone,
    .handoff = kHandoffNever,
    .unlink = Unlink::kPlain,
    .walk = WakeWalk::kBroken,
};

constexpr Protocol linux_59_rc() {
    Protocol p = kLinux58;
    p.waiter = Waiter::kTrust;
    p.wake = SharedWake::kBlind;
    p.handoff = kHandoffAlways;
    return p;
}

constexpr Protocol linux_59() {
    Protocol p = linux_59_rc();
    p.handoff = kPageLockUnfairness;
    p.unlink = Unlink::kCareful;
    return p;
}

constexpr Protocol linux_510() {
    Protocol p = linux_59();
    p.ref = EndReference::kHeld;
    return p;
}

constexpr Protocol linux_511() {
    Protocol p = linux_510();
    p.wait = OuterWait::kWhile;
    return p;
}

constexpr Protocol recheck_on_wake() {
    Protocol p = linux_510();
    p.wake = SharedWake::kTest;
    return p;
}

// A walk that lets go of the queue would wake, after the break, who came for the next writeback.
constexpr Protocol wake_clears() {
    Protocol p = linux_510();
    p.end = EndClear::kQueueLock;
    p.walk = WakeWalk::kOneHold;
    return p;
}

// Truncation waits without setting, so its wait has to loop all the same.
constexpr Protocol wait_to_set() {
    Protocol p = linux_511();
    p.set = SetWriteback::kWithWait;
    return p;
}

constexpr Protocol lock_in_end() {
    Protocol p = linux_510();
    p.end_lock = EndLock::kYes;
    return p;
}

constexpr std::array kPresets{
    ProtocolPreset{"5.8", kLinux58, "sleepers and wakers both look at the bit again; unfair"},
    ProtocolPreset{"5.9-rc", linux_59_rc(), "the waker decides, and always hands the lock over"},
    ProtocolPreset{"5.9", linux_59(), "the waker decides; hand-off after five stolen rounds"},
    ProtocolPreset{"5.10", linux_510(), "5.9 with a reference across the end of writeback"},
    ProtocolPreset{"5.11", linux_511(), "5.10 with a loop around the wait for writeback"},
    ProtocolPreset{"6.8", Protocol{}, "5.11 with one atomic operation that clears and looks"},
    ProtocolPreset{"recheck-on-wake", recheck_on_wake(),
                   "5.10, but the waker refuses when the bit is set again"},
    ProtocolPreset{"wake-clears", wake_clears(),
                   "5.10, but the bit is cleared inside the wake-up, under the queue lock"},
    ProtocolPreset{"wait-to-set", wait_to_set(),
                   "5.11, but a writer takes the writeback bit as one takes a lock"},
    ProtocolPreset{"lock-in-end", lock_in_end(),
                   "5.10, but the end of writeback takes the page lock: deadlocks"},
};

template <typename E>
constexpr ProtocolSwitchValue value(const char* name, E e, const char* help) {
    return {name, static_cast<std::uint8_t>(e), help};
}

constexpr std::array kWaiterValues{
    value("recheck", Waiter::kRecheck, "a woken sleeper looks at the bit again (to 5.8)"),
    value("trust", Waiter::kTrust, "a woken sleeper believes the waker (from 5.9)"),
};
constexpr std::array kWakeValues{
    value("test", SharedWake::kTest, "no wake-up when the bit is set again (to 5.8)"),
    value("blind", SharedWake::kBlind, "wakes without a look (from 5.9)"),
};
constexpr std::array kWaitValues{
    value("if", OuterWait::kIf, "one wait (to 5.10)"),
    value("while", OuterWait::kWhile, "waits until the bit is seen clear (from 5.11)"),
};
constexpr std::array kEndValues{
    value("split", EndClear::kSplit, "clears, then reads PG_waiters (to 5.19)"),
    value("xor", EndClear::kXor, "both in one atomic operation (from 6.8)"),
    value("queue-lock", EndClear::kQueueLock, "clears under the queue lock (mail of Nov 2020)"),
};
constexpr std::array kRefValues{
    value("none", EndReference::kNone, "the page may be freed before the wake-up (to 5.9)"),
    value("held", EndReference::kHeld, "a reference of its own (from 5.10)"),
};
constexpr std::array kHandoffValues{
    value("never", kHandoffNever, "every woken sleeper competes (to 5.8)"),
    value("always", kHandoffAlways, "strictly first come, first served (5.9-rc)"),
    value("5", kPageLockUnfairness, "after five stolen rounds (from 5.9); any number to 254"),
};
constexpr std::array kOrderValues{
    value("wake-unlink", WakeOrder::kWakeThenUnlink, "the sleeper's task outlives the call (all)"),
    value("unlink-wake", WakeOrder::kUnlinkThenWake, "the sleeper may be gone when it is woken"),
};
constexpr std::array kUnlinkValues{
    value("plain", Unlink::kPlain, "two stores, and the sleeper looks at both (to 5.9-rc)"),
    value("careful", Unlink::kCareful, "the last store says it all (from 5.9)"),
};
constexpr std::array kWalkValues{
    value("broken", WakeWalk::kBroken, "lets go of the queue every 64 entries (to 5.19)"),
    value("one-hold", WakeWalk::kOneHold, "one hold of the queue lock (from 6.8)"),
};
constexpr std::array kSetValues{
    value("after-wait", SetWriteback::kAfterWait, "waits until it is clear, sets it later (all)"),
    value("with-wait", SetWriteback::kWithWait, "one atomic act (mail of Jan 2021)"),
};
constexpr std::array kEndLockValues{
    value("no", EndLock::kNo, "takes no lock (all)"),
    value("yes", EndLock::kYes, "takes the page lock: deadlocks with whoever waits under it"),
};

constexpr std::array kSwitches{
    ProtocolSwitch{"waiter", "what a woken sleeper does", kWaiterValues,
                   protocol_word::kWaiterShift},
    ProtocolSwitch{"wake", "whether the waker looks at the bit for a shared sleeper", kWakeValues,
                   protocol_word::kWakeShift},
    ProtocolSwitch{"wait", "how wait_on_page_writeback asks", kWaitValues,
                   protocol_word::kWaitShift},
    ProtocolSwitch{"end", "how the bit is cleared and sleepers are noticed", kEndValues,
                   protocol_word::kEndShift},
    ProtocolSwitch{"ref", "the reference across end_page_writeback", kRefValues,
                   protocol_word::kRefShift},
    ProtocolSwitch{"handoff", "when the page lock is handed to a sleeper", kHandoffValues,
                   protocol_word::kHandoffShift},
    ProtocolSwitch{"order", "whether a sleeper is woken or unlinked first", kOrderValues,
                   protocol_word::kOrderShift},
    ProtocolSwitch{"unlink", "how the waker lets go of an entry", kUnlinkValues,
                   protocol_word::kUnlinkShift},
    ProtocolSwitch{"walk", "how long a wake-up holds the queue lock", kWalkValues,
                   protocol_word::kWalkShift},
    ProtocolSwitch{"set", "how an integrity writer gets PG_writeback", kSetValues,
                   protocol_word::kSetShift},
    ProtocolSwitch{"end-lock", "whether end_page_writeback takes the page lock", kEndLockValues,
                   protocol_word::kEndLockShift},
};

// "a, b or c".
template <typename Items>
std::string one_of(const Items& items) {
    std::string text;
    std::size_t left = items.size();
    for (const auto& item : items) {
        text += item.name;
        --left;
        text += left > 1 ? ", " : left == 1 ? " or " : "";
    }
    return text;
}

const ProtocolPreset* find_preset(std::string_view name) {
    for (const ProtocolPreset& preset : kPresets) {
        if (preset.name == name) {
            return &preset;
        }
    }
    return nullptr;
}

const ProtocolSwitch* find_switch(std::string_view name) {
    for (const ProtocolSwitch& which : kSwitches) {
        if (which.name == name) {
            return &which;
        }
    }
    return nullptr;
}

bool is_handoff(const ProtocolSwitch& which) {
    return which.shift == protocol_word::kHandoffShift;
}

std::optional<std::uint8_t> find_value(const ProtocolSwitch& which, std::string_view name) {
    for (const ProtocolSwitchValue& candidate : which.values) {
        if (candidate.name == name) {
            return candidate.value;
        }
    }
    if (!is_handoff(which)) {
        return std::nullopt;
    }
    std::uint8_t rounds = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), rounds);
    const bool good = error == std::errc{} && end == name.data() + name.size() && rounds > 0 &&
                      rounds < kHandoffNever;
    return good ? std::optional(rounds) : std::nullopt;
}

unsigned nr_differences(const Protocol& a, const Protocol& b) {
    unsigned count = 0;
    for (const ProtocolSwitch& which : kSwitches) {
        count += protocol_word::field(protocol_word::pack(a), which.shift) !=
                         protocol_word::field(protocol_word::pack(b), which.shift)
                     ? 1
                     : 0;
    }
    return count;
}

// Lays "end=xor" over the word. Returns "" or the sentence.
std::string apply_switch(std::string_view text, std::uint32_t& word) {
    const std::size_t equals = text.find('=');
    const ProtocolSwitch* which = find_switch(text.substr(0, equals));
    if (which == nullptr || equals == std::string_view::npos) {
        return fmt::format(
            "protocol: '{}' is neither a version ({}) nor a switch with a value (SWITCH=VALUE with "
            "SWITCH {})",
            text, one_of(kPresets), one_of(kSwitches));
    }
    const std::optional<std::uint8_t> wanted = find_value(*which, text.substr(equals + 1));
    if (!wanted) {
        return fmt::format("protocol: '{}' is no value of {}; it takes {}{}",
                           text.substr(equals + 1), which->name, one_of(which->values),
                           is_handoff(*which) ? ", or another number from 1 to 254" : "");
    }
    word &= ~(protocol_word::width_mask(which->shift) << which->shift);
    word |= std::uint32_t{*wanted} << which->shift;
    return {};
}

}  // namespace

std::string Protocol::parse(std::string_view text, Protocol& into) {
    std::uint32_t word = protocol_word::pack(Protocol{});
    for (bool first = true;; first = false) {
        const std::size_t comma = text.find(',');
        const std::string_view part = text.substr(0, comma);
        const ProtocolPreset* preset = find_preset(part);
        if (preset != nullptr && !first) {
            return fmt::format(
                "protocol: the version '{}' stands behind something else; it comes "
                "first, as in {},end=xor",
                part, part);
        }
        if (preset != nullptr) {
            word = protocol_word::pack(preset->protocol);
        } else if (std::string sentence = apply_switch(part, word); !sentence.empty()) {
            return sentence;
        }
        if (comma == std::string_view::npos) {
            into = protocol_word::unpack(word);
            return {};
        }
        text.remove_prefix(comma + 1);
    }
}

std::string to_string(const Protocol& protocol) {
    const ProtocolPreset* nearest = find_preset(kDefaultPreset);
    for (const ProtocolPreset& preset : kPresets) {
        if (nr_differences(protocol, preset.protocol) <
            nr_differences(protocol, nearest->protocol)) {
            nearest = &preset;
        }
    }
    std::string text = nearest->name;
    for (const ProtocolSwitch& which : kSwitches) {
        const std::string ours = switch_value(protocol, which);
        if (ours != switch_value(nearest->protocol, which)) {
            text += fmt::format(",{}={}", which.name, ours);
        }
    }
    return text;
}

std::span<const ProtocolPreset> protocol_presets() {
    return kPresets;
}

std::span<const ProtocolSwitch> protocol_switches() {
    return kSwitches;
}

std::string switch_value(const Protocol& protocol, const ProtocolSwitch& which) {
    const std::uint8_t raw = protocol_word::field(protocol_word::pack(protocol), which.shift);
    for (const ProtocolSwitchValue& candidate : which.values) {
        if (candidate.value == raw) {
            return candidate.name;
        }
    }
    return std::to_string(raw);
}

}  // namespace wbfat::cache::inline WBFAT_RT
