// BUG_ON: the report and the handler.
#include "cache/base/check.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

sync::Atomic<BugHandler> bug_handler{nullptr};
sync::Atomic<BugReporter> bug_reporter{nullptr};
sync::Relaxed<AfterBug> after_bug{AfterBug::kGoOn};

// The build gives every file the same prefix ("../", an absolute path); ours is known, so it is
// everybody's.
const char* path_in_tree(const char* file) {
    constexpr std::string_view kThisFile = __FILE__;
    constexpr std::string_view kThisFileInTree = "cache/base/check.cc";
    static_assert(kThisFile.ends_with(kThisFileInTree));
    constexpr std::string_view kPrefix =
        kThisFile.substr(0, kThisFile.size() - kThisFileInTree.size());
    return std::string_view(file).starts_with(kPrefix) ? file + kPrefix.size() : file;
}

void print_briefly(const BugReport& report) {
    // One write, so that reports of several threads do not mix.
    std::string text = report.title();
    text += '\n';
    if (!report.object.empty()) {
        text += "  " + report.object + "\n";
    }
    const sync::Task& task = sync::current_task();
    text += fmt::format("  task '{}' ({})\n", task.name(), sync::role_name(task.role()));
    // A report that cannot be printed must not keep the handler from running.
    static_cast<void>(std::fwrite(text.data(), 1, text.size(), stderr));
    static_cast<void>(std::fflush(stderr));
}

}  // namespace

std::string BugReport::title() const {
    const char* const kind = severity == BugSeverity::kBug ? "BUG" : "WARNING";
    std::string text = fmt::format("{} at {}:{} {}(): ", kind, file, line, function);
    for (const char* part : {assertion, invariant}) {
        if (*part != '\0') {
            text += part;
            text += ": ";
        }
    }
    text += *message != '\0' ? message : condition;
    return text;
}

BugReporter set_bug_reporter(BugReporter reporter) {
    return bug_reporter.exchange(reporter, std::memory_order_acq_rel);
}

BugHandler set_bug_handler(BugHandler handler) {
    return bug_handler.exchange(handler, std::memory_order_acq_rel);
}

void set_after_bug(AfterBug after) {
    after_bug.store(after);
}

AfterBug report_bug(const CheckSite& site, BugReport report) {
    report.file = path_in_tree(site.file);
    report.line = site.line;
    report.function = site.function;
    report.condition = site.condition;
    const BugReporter reporter = bug_reporter.peek();
    (reporter != nullptr ? reporter : print_briefly)(report);
    if (report.severity == BugSeverity::kWarning) {
        return AfterBug::kGoOn;
    }
    const BugHandler handler = bug_handler.peek();
    if (handler == nullptr) {
        std::abort();
    }
    handler(report);
    return after_bug.load();
}

void bug(const CheckSite& site, BugSubject subject, const char* invariant, const char* message) {
    BugReport report;
    report.invariant = invariant;
    report.message = message;
    report.page = subject.page;
    report.object = std::move(subject.text);
    report_bug(site, std::move(report));
}

void bug(const CheckSite& site, BugSubject subject, const char* message) {
    bug(site, std::move(subject), "", message);
}

void bug(const CheckSite& site, BugSubject subject) {
    bug(site, std::move(subject), "", "");
}

}  // namespace wbfat::cache::inline WBFAT_RT
