// Every assertion about pages that can be switched: the table and the switches.
#include "cache/assertions.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "cache/trace.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

using enum Assertion;
constexpr AssertionCost kCheap = AssertionCost::kCheap;
constexpr AssertionCost kCostly = AssertionCost::kCostly;
constexpr AssertionState kOff = AssertionState::kOff;
constexpr AssertionState kWarn = AssertionState::kWarn;
constexpr AssertionState kBug = AssertionState::kBug;

constexpr std::array<AssertionInfo, kNrAssertions> kTable = {{
    {kBugOnWriteback, "bug_on_writeback", "P1",
     "write_cache_pages: PG_writeback is clear after the wait under the page lock", kCheap, kBug},
    {kSetWritebackTwice, "set_writeback_twice", "P1", "set_page_writeback: PG_writeback was clear",
     kCheap, kBug},
    {kSetWritebackUnlocked, "set_writeback_unlocked", "P1",
     "set_page_writeback: the page is locked", kCheap, kBug},
    {kEndWritebackClear, "end_writeback_clear", "P2", "end_page_writeback: PG_writeback was set",
     kCheap, kBug},
    {kEndWritebackTruncated, "end_writeback_truncated", "P2",
     "end_page_writeback: the page is still in its mapping", kCheap, kBug},
    {kRemoveWriteback, "remove_writeback", "P2",
     "a page that leaves its mapping is not under writeback", kCheap, kBug},
    {kPageNotLocked, "page_not_locked", "P1", "whoever changes a page's state has locked it",
     kCheap, kBug},
    {kUnlockUnlocked, "unlock_unlocked", "P1", "unlock_page: the page was locked", kCheap, kBug},
    {kDirtyNotUptodate, "dirty_not_uptodate", "", "a page that is written is uptodate", kCheap,
     kBug},
    {kDirtyBlocks, "dirty_blocks", "P5", "PG_dirty and the mask of dirty blocks agree", kCheap,
     kBug},
    {kFreeState, "free_state", "P4",
     "a page that is freed is unlocked, clean, in no mapping and unreferenced", kCheap, kBug},
    {kReferenceCount, "reference_count", "P3", "put_page: somebody held the reference", kCheap,
     kBug},
    // Off: under the protocols that break it, it would hide the kernel's own BUG_ON one line later.
    {kWaitStale, "wait_stale", "17.6 I3",
     "wait_on_page_writeback under the page lock returns with PG_writeback clear", kCheap, kOff},
    {kWritebackMark, "writeback_mark", "X2", "the WRITEBACK mark is set exactly with PG_writeback",
     kCostly, kOff},
    {kDirtyMark, "dirty_mark", "X3", "a dirty page has the DIRTY mark", kCostly, kOff},
    {kWaitersFlag, "waiters_flag", "W1", "PG_waiters is set while a waiter is queued", kCheap,
     kBug},
    {kWaitEntryLeft, "wait_entry_left", "17.6 I7", "a waiter that returns has left its queue",
     kCheap, kBug},
    {kTwoWrites, "two_writes", "17.6 I10", "at most one write of a page is in flight", kCheap,
     kBug},
    {kIntegritySync, "integrity_sync", "17.6 I9",
     "a sync that succeeds has written every page that was dirty when it began", kCostly, kOff},
    {kFreedBlocks, "freed_blocks", "17.6 I11", "no write is under way to blocks that are free",
     kCostly, kOff},
    {kLateTouch, "late_touch", "",
     "a waker finds the page whose bit it cleared, not the next one in its frame", kCheap, kBug},
    {kStablePage, "stable_page", "",
     "metadata keeps its bytes while it is written (xxh3 before and after)", kCostly, kOff},
    {kLostWakeup, "lost_wakeup", "", "nobody sleeps on for a bit that is clear", kCheap, kBug},
    {kHungWait, "hung_wait", "", "nobody waits for a page longer than two minutes", kCheap, kWarn},
    {kReferenceLeak, "reference_leak", "F1", "at unmount every frame is free again", kCheap, kBug},
    {kPageLockOrder, "page_lock_order", "", "who holds pages of a mapping locks only higher ones",
     kCostly, kOff},
    {kLockRank, "lock_rank", "S2", "ranked locks are taken in ascending rank (cache/LOCKING.md)",
     kCheap, kBug},
}};

constexpr bool table_is_in_order() {
    for (std::size_t i = 0; i < kTable.size(); ++i) {
        if (static_cast<std::size_t>(kTable[i].id) != i) {
            return false;
        }
    }
    return true;
}
static_assert(table_is_in_order());

AssertionSwitch& switch_of(Assertion id) {
    return assertion_switches[static_cast<std::size_t>(id)];
}

std::optional<AssertionState> find_state(std::string_view name) {
    for (const AssertionState state : {kOff, kWarn, kBug}) {
        if (state_name(state) == name) {
            return state;
        }
    }
    return std::nullopt;
}

std::string all_names() {
    std::string names;
    for (const AssertionInfo& info : kTable) {
        names += fmt::format("{}, ", info.name);
    }
    return names + "all, costly";
}

using Settings = std::vector<std::pair<Assertion, AssertionState>>;

// One "NAME:STATE". Returns "" or the sentence.
std::string parse_setting(std::string_view text, Settings& settings) {
    const std::size_t colon = text.find(':');
    const std::string_view name = text.substr(0, colon);
    if (colon == std::string_view::npos) {
        return fmt::format("assertion '{}' has no state; give {}:off, {}:warn or {}:bug", name,
                           name, name, name);
    }
    const std::optional<AssertionState> state = find_state(text.substr(colon + 1));
    if (!state) {
        return fmt::format("assertion '{}' knows no state '{}'; give off, warn or bug", name,
                           text.substr(colon + 1));
    }
    bool known = false;
    for (const AssertionInfo& info : kTable) {
        if (name == info.name || name == "all" ||
            (name == "costly" && info.cost == AssertionCost::kCostly)) {
            settings.emplace_back(info.id, *state);
            known = true;
        }
    }
    if (!known) {
        return fmt::format("there is no assertion '{}'; there are {}", name, all_names());
    }
    return {};
}

std::string parse_settings(std::string_view text, Settings& settings) {
    for (std::size_t at = 0; at <= text.size();) {
        const std::size_t comma = std::min(text.find(',', at), text.size());
        if (std::string sentence = parse_setting(text.substr(at, comma - at), settings);
            !sentence.empty()) {
            return sentence;
        }
        at = comma + 1;
    }
    return {};
}

void report_lock_rank() {
    CACHE_ASSERT(kLockRank, false, "a lock is taken under one of a higher rank");
}

// Sets the defaults before main(), so that the first check already has them.
const bool kDefaultsAreSet = [] {
    reset_assertions();
    sync::lock_rank_reporter.store(&report_lock_rank);
    return true;
}();

}  // namespace

constinit AssertionSwitch assertion_switches[kNrAssertions];

std::string_view state_name(AssertionState state) {
    switch (state) {
        case AssertionState::kOff:
            return "off";
        case AssertionState::kWarn:
            return "warn";
        case AssertionState::kBug:
            return "bug";
    }
    return "?";
}

std::span<const AssertionInfo> all_assertions() {
    return kTable;
}

const AssertionInfo& assertion_info(Assertion id) {
    return kTable[static_cast<std::size_t>(id)];
}

std::optional<Assertion> find_assertion(std::string_view name) {
    const auto* const found =
        std::find_if(kTable.begin(), kTable.end(),
                     [name](const AssertionInfo& info) { return name == info.name; });
    return found != kTable.end() ? std::optional(found->id) : std::nullopt;
}

AssertionState assertion_state(Assertion id) {
    return switch_of(id).state.load();
}

void set_assertion(Assertion id, AssertionState state) {
    switch_of(id).state.store(state);
}

std::uint64_t assertion_hits(Assertion id) {
    return switch_of(id).hits.load();
}

void reset_assertions() {
    for (const AssertionInfo& info : kTable) {
        switch_of(info.id).state.store(info.default_state);
        switch_of(info.id).hits.store(0);
    }
}

std::string set_assertions(std::string_view text) {
    Settings settings;
    std::string sentence = parse_settings(text, settings);
    if (sentence.empty()) {
        for (const auto& [id, state] : settings) {
            set_assertion(id, state);
        }
    }
    return sentence;
}

std::string check_assertions(std::string_view text) {
    Settings settings;
    return parse_settings(text, settings);
}

AfterBug assertion_failed(const CheckSite& site, Assertion id, const Page* page,
                          const char* message) {
    const AssertionState state = assertion_state(id);
    if (state == AssertionState::kOff) {
        return AfterBug::kGoOn;
    }
    switch_of(id).hits.fetch_add(1);
    if (page != nullptr) {
        trace_page_by_address(TraceKind::kBug, *page, static_cast<std::uint64_t>(id));
    }
    const AssertionInfo& info = assertion_info(id);
    BugReport report;
    report.severity = state == AssertionState::kWarn ? BugSeverity::kWarning : BugSeverity::kBug;
    report.assertion = info.name;
    report.invariant = info.invariant;
    report.message = message;
    if (page != nullptr) {
        report.page = page;
        report.object = to_string(*page);
    }
    return report_bug(site, std::move(report));
}

AfterBug assertion_failed(const CheckSite& site, Assertion id, const Page* page,
                          const std::string& message) {
    return assertion_failed(site, id, page, message.c_str());
}

}  // namespace wbfat::cache::inline WBFAT_RT
