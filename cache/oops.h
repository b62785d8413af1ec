// The report of a failed assertion: what a kernel's BUG leaves one to guess.
//
//   BUG at cache/writeback.cc:141 prepare(): bug_on_writeback: P1: PageWriteback after the wait
//     page       index 0 of 'file', locked|uptodate|writeback, refs 2, generation 1
//     locked by  'sync writer', since 81.2 us
//     ...
//     in plain words:
//
//       (1)    -97.0  completion ends a writeback: it clears PG_writeback. Then it is delayed, ..
//     ...
//     what happened to this page, in microseconds before the failure:
//
//              completion        flusher           sync writer
//              ----------        -------           -----------
//
//       -97.0  clear writeback
//
//       -90.1                    lock
//       -88.3                    set writeback
//     ...
//
// Everything is copied when the report is made; an Oops holds no pointer that may be followed into
// the cache. The last kMaxOopses are kept.
//
// Who holds the lock and who waits is read from the trace, and not from the wait table: its locks
// may be held by the very thread that failed. With the trace off both are unknown.
//
// Locking: a mutex of its own, with nothing taken below it but the trace's. Context: any, several
// threads at once, under spin locks too. Allocates; a failure inside the memory allocator is not
// what this is for. The callbacks of OopsOptions must be as undemanding: no lock of the cache.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cache/base/check.h"
#include "cache/failure_story.h"
#include "cache/sync/sync.h"
#include "cache/trace.h"

namespace wbfat::cache::inline WBFAT_RT {

struct OopsWaiter {
    std::string task;
    std::string bit;  // "writeback"
    sync::Nanoseconds waited{0};
};

struct OopsPage {
    pgoff_t index = 0;
    std::string mapping;                          // name of the file; "" in none
    const AddressSpace* address_space = nullptr;  // to compare with: it may be another's by now
    std::string flags;                            // "locked|dirty"
    std::int32_t refcount = 0;
    std::uint32_t generation = 0;
    std::string locked_by;  // "" if nobody, or nobody the trace knows of
    sync::Nanoseconds locked_for{0};
    std::vector<OopsWaiter> waiters;  // longest first
    // The last events of the page across all threads, oldest first, and the threads they name.
    Trace history;
};

struct Oops {
    std::uint64_t number = 0;  // from 1, in the order in which they were made
    std::chrono::system_clock::time_point time;
    sync::Nanoseconds monotonic_time{0};
    BugSeverity severity = BugSeverity::kBug;
    std::string title;
    std::string assertion;  // "" for a plain BUG_ON
    std::string condition;
    std::string file;
    std::string function;
    int line = 0;
    std::string task;
    std::string role;
    std::string object;  // of a check about something that is no page
    std::optional<OopsPage> page;
    std::vector<std::string> stack;
    std::string protocol;
    std::string assertions;  // the settings that differ from the default, "NAME:STATE,.."
    std::string volume;
};

// All of it, as text of many lines.
std::string to_string(const Oops& oops);
// Why bug_on_writeback failed, the places being those in the history of the page. Tells what the
// history proves: all five sentences of the late wake-up, or only whose writeback was found; none
// of another assertion, or if the trace has not enough.
std::vector<StorySentence> explain(const Oops& oops);
// The history of the page as lanes; "" without one.
std::string draw_history(const Oops& oops);

inline constexpr std::size_t kMaxOopses = 16;
inline constexpr std::size_t kMaxOopsBurst = 8;
inline constexpr std::chrono::seconds kOopsInterval{5};

struct OopsOptions {
    // Where reports go; empty: stderr. Called one at a time.
    std::function<void(const Oops&)> sink;
    // The state of the volume in a line.
    std::function<std::string()> volume_state;
    // So many are reported in kOopsInterval; the assertions count all.
    std::size_t max_burst = kMaxOopsBurst;
};
// From now on every failed check makes an Oops.
void install_oops_reports(OopsOptions options);
// Back to the short message of check.h; waits until no report is being made. What was kept stays.
void remove_oops_reports();

// The last ones, oldest first.
std::vector<Oops> kept_oopses();
// The number of the last one made; 0: none.
std::uint64_t last_oops_number();
void forget_oopses();

// Describes without reporting or keeping.
Oops make_oops(const BugReport& report);

}  // namespace wbfat::cache::inline WBFAT_RT
