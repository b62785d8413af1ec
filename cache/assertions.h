// Every assertion about pages that can be switched: its name, what it checks, its state, its hits.
//
// These are the BUG_ONs and VM_BUG_ONs of the kernel's functions, the invariants of
// writeback-protocol.md 17.6, and detectors the kernel does not have. Each is `off`, `warn` (report
// and go on) or `bug` (report, then what the mount's bug= says; see check.h). What nobody would
// ever want to switch stays a plain BUG_ON.
//
// A check is written where the kernel has it:
//
//   PAGE_ASSERT(page, Assertion::kBugOnWriteback, !page_test(page, PG_writeback), "still set");
//
// and costs one predictable branch on its condition while that holds; the state is looked up only
// when it does not. What costs more than a few loads stands behind assertion_enabled() and is off
// unless somebody asks for it. A failed assertion returns: the code behind it must stay memory-safe
// with the assertion off, so that the consequences can be watched (writeback-protocol.md 9.2). A
// mount that shuts down instead must still be unmounted: where going on would leave a page locked
// or under writeback for ever, PAGE_ASSERT_ELSE says what is done then.
//
// Invariants
//   - A1. An assertion that failed counts a hit in every state but `off`.
//
// Locking: none. States may be changed at any time by anybody; a check sees the change soon.
// Context of PAGE_ASSERT: any, completions and sections under a spin lock too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "cache/base/check.h"
#include "cache/page.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

enum class Assertion : std::uint8_t {
    // The kernel's.
    kBugOnWriteback,
    kSetWritebackTwice,
    kSetWritebackUnlocked,
    kEndWritebackClear,
    kEndWritebackTruncated,
    kRemoveWriteback,
    kPageNotLocked,
    kUnlockUnlocked,
    kDirtyNotUptodate,
    kDirtyBlocks,
    kFreeState,
    kReferenceCount,
    // Of section 17.6, where the kernel has none.
    kWaitStale,
    kWritebackMark,
    kDirtyMark,
    kWaitersFlag,
    kWaitEntryLeft,
    kTwoWrites,
    kIntegritySync,
    kFreedBlocks,
    // Detectors.
    kLateTouch,
    kStablePage,
    kLostWakeup,
    kHungWait,
    kReferenceLeak,
    kPageLockOrder,
    kLockRank,
};
inline constexpr std::size_t kNrAssertions = static_cast<std::size_t>(Assertion::kLockRank) + 1;

enum class AssertionState : std::uint8_t { kOff, kWarn, kBug };
std::string_view state_name(AssertionState state);

enum class AssertionCost : std::uint8_t { kCheap, kCostly };

struct AssertionInfo {
    Assertion id;
    const char* name;       // "bug_on_writeback"
    const char* invariant;  // "P1", "17.6 I10" or "": where the rule is written down
    const char* help;       // one line: what holds
    AssertionCost cost;
    AssertionState default_state;
};

// The table, in the order of the ids.
std::span<const AssertionInfo> all_assertions();
const AssertionInfo& assertion_info(Assertion id);
std::optional<Assertion> find_assertion(std::string_view name);

AssertionState assertion_state(Assertion id);
void set_assertion(Assertion id, AssertionState state);
// How often it failed, since the process started or reset_assertions().
std::uint64_t assertion_hits(Assertion id);
// Default states, no hits.
void reset_assertions();

// Parses and sets "NAME:STATE", or several with commas between them; `all` and `costly` name every
// assertion and every costly one. Returns "", or one sentence that says what was wrong and what
// would be right; nothing is set then.
std::string set_assertions(std::string_view text);
// "" or the same sentence; sets nothing.
std::string check_assertions(std::string_view text);

// For what costs more than a few loads: whether it is worth evaluating.
inline bool assertion_enabled(Assertion id);

// Counts, reports and, in state `bug`, does what bug= says. `page` may be null.
[[gnu::cold]] AfterBug assertion_failed(const CheckSite& site, Assertion id, const Page* page,
                                        const char* message);
[[gnu::cold]] AfterBug assertion_failed(const CheckSite& site, Assertion id, const Page* page,
                                        const std::string& message);

// --- details

struct AssertionSwitch {
    sync::Relaxed<AssertionState> state{AssertionState::kOff};
    sync::Relaxed<std::uint64_t> hits{0};
};
extern AssertionSwitch assertion_switches[kNrAssertions];

inline bool assertion_enabled(Assertion id) {
    return assertion_switches[static_cast<std::size_t>(id)].state.load() != AssertionState::kOff;
}

}  // namespace wbfat::cache::inline WBFAT_RT

// `holds` is what must be true.
#define PAGE_ASSERT(page, id, holds, message)                                                   \
    do {                                                                                        \
        if (!(holds)) [[unlikely]]                                                              \
            ::wbfat::cache::assertion_failed(WBFAT_CHECK_SITE(#holds), id, &(page), (message)); \
    } while (false)

// The same; the statement behind it is done if the operation is to be given up (AfterBug).
#define PAGE_ASSERT_ELSE(page, id, holds, message, ...)                                           \
    do {                                                                                          \
        if (!(holds) &&                                                                           \
            ::wbfat::cache::assertion_failed(WBFAT_CHECK_SITE(#holds), id, &(page), (message)) == \
                ::wbfat::cache::AfterBug::kGiveUp) [[unlikely]]                                   \
            __VA_ARGS__;                                                                          \
    } while (false)

// The same about no page in particular.
#define CACHE_ASSERT(id, holds, message)                                                        \
    do {                                                                                        \
        if (!(holds)) [[unlikely]]                                                              \
            ::wbfat::cache::assertion_failed(WBFAT_CHECK_SITE(#holds), id, nullptr, (message)); \
    } while (false)
