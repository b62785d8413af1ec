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

void report_bug(const BugReport& report) {
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

    const BugHandler handler = bug_handler.load(std::memory_order_acquire);
    if (handler == nullptr) {
        std::abort();
    }
    handler(report);
}

}  // namespace

std::string BugReport::title() const {
    std::string text = fmt::format("BUG at {}:{} {}(): ", file, line, function);
    if (*invariant != '\0') {
        text += invariant;
        text += ": ";
    }
    text += *message != '\0' ? message : condition;
    return text;
}

BugHandler set_bug_handler(BugHandler handler) {
    return bug_handler.exchange(handler, std::memory_order_acq_rel);
}

void bug(const CheckSite& site, std::string object, const char* invariant, const char* message) {
    report_bug(BugReport{.file = path_in_tree(site.file),
                         .line = site.line,
                         .function = site.function,
                         .condition = site.condition,
                         .invariant = invariant,
                         .message = message,
                         .object = std::move(object)});
}

void bug(const CheckSite& site, std::string object, const char* message) {
    bug(site, std::move(object), "", message);
}

void bug(const CheckSite& site, std::string object) {
    bug(site, std::move(object), "", "");
}

}  // namespace wbfat::cache::inline WBFAT_RT
