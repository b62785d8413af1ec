// BUG_ON: what must never be, checked in release builds too.
//
//   BUG_ON(cond)                              the text of the condition is the message
//   BUG_ON(cond, "why")
//   BUG_ON(cond, "P1", "why")                 "P1" names the invariant of a header, for people and
//   for death tests PAGE_BUG_ON(page, cond, ...)              the same, and the report shows
//   to_string(page)
//
// A failed check prints a title in the kernel's manner,
//   BUG at cache/page_lock.cc:123 end_page_writeback(): P2: PageWriteback not set
// and the object, then calls the bug handler, which by default aborts. A handler that returns lets
// the caller go on with the broken state: a mount with bug=shutdown, which nobody can write to any
// more, or a laboratory.
//
// Checks that can be switched off have names: cache/assertions.h.
//
// Context: any, completions and sections under a spin lock too.
// Source: Linux include/asm-generic/bug.h, include/linux/mmdebug.h VM_BUG_ON_FOLIO. Differs:
// __FILE__ and __LINE__ instead of std::source_location, which clang 14 cannot compile.
#pragma once

#include <cstdint>
#include <string>

#include "cache/base/runtime.h"

namespace wbfat::cache::inline WBFAT_RT {

struct Page;

enum class BugSeverity : std::uint8_t {
    kWarning,  // reported, and that is all
    kBug,      // reported, then the handler decides
};

struct BugReport {
    BugSeverity severity = BugSeverity::kBug;
    const char* file = "";  // from the root of the tree: "cache/page_lock.cc"
    int line = 0;
    const char* function = "";
    const char* condition = "";  // source text
    const char* assertion = "";  // name in cache/assertions.h, or "" for a plain BUG_ON
    const char* invariant = "";  // "P1", or "" when the check names none
    const char* message = "";    // "" when the check gives none
    const Page* page = nullptr;  // may be freed or another's by now: only good to look at
    std::string object;          // what it happened to, or ""

    // "BUG at cache/page_lock.cc:123 end_page_writeback(): P2: PageWriteback not set"
    [[nodiscard]] std::string title() const;
};

// Makes the failure known; the default prints title and object to stderr. Several threads may be in
// it at once.
using BugReporter = void (*)(const BugReport& report);
// Returns the reporter that was set before. nullptr restores the default.
BugReporter set_bug_reporter(BugReporter reporter);

// Called after the report was made, but not for warnings. Several threads may be in it at once.
using BugHandler = void (*)(const BugReport& report);
// Returns the handler that was set before. nullptr restores the default: abort().
BugHandler set_bug_handler(BugHandler handler);

// What an operation does whose check has failed, once the handler has returned.
enum class AfterBug : std::uint8_t {
    kGoOn,    // as if it had not been checked: the consequences can be watched
    kGiveUp,  // where going on would wedge the volume, it leaves the page alone and fails with EIO
};
// kGoOn until somebody sets it. Warnings always go on.
void set_after_bug(AfterBug after);

// Where a check stands. The macros below make it.
struct CheckSite {
    const char* file;
    int line;
    const char* function;
    const char* condition;
};

// What happened to whom.
struct BugSubject {
    const Page* page = nullptr;
    std::string text;
};
[[gnu::cold]] void bug(const CheckSite& site, BugSubject subject = {});
[[gnu::cold]] void bug(const CheckSite& site, BugSubject subject, const char* message);
[[gnu::cold]] void bug(const CheckSite& site, BugSubject subject, const char* invariant,
                       const char* message);
// The way of all failed checks: fills in the place, reports, and calls the handler.
[[gnu::cold]] AfterBug report_bug(const CheckSite& site, BugReport report);

}  // namespace wbfat::cache::inline WBFAT_RT

#define WBFAT_CHECK_SITE(text) \
    (::wbfat::cache::CheckSite{__FILE__, __LINE__, static_cast<const char*>(__func__), text})

#define BUG_ON(cond, ...)                                                                \
    do {                                                                                 \
        if (cond) [[unlikely]]                                                           \
            ::wbfat::cache::bug(WBFAT_CHECK_SITE(#cond), {} __VA_OPT__(, ) __VA_ARGS__); \
    } while (false)

#define PAGE_BUG_ON(page, cond, ...)                                                    \
    do {                                                                                \
        if (cond) [[unlikely]]                                                          \
            ::wbfat::cache::bug(WBFAT_CHECK_SITE(#cond),                                \
                                {&(page), to_string(page)} __VA_OPT__(, ) __VA_ARGS__); \
    } while (false)
