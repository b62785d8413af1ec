// Oops -> JSON.
#include "src/control_reports.h"

#include <fmt/core.h>

#include <chrono>

#include <boost/json.hpp>

#include "cache/oops.h"
#include "src/control_commands.h"

namespace wbfat::daemon {

namespace {

namespace json = boost::json;

std::string severity_name(cache::BugSeverity severity) {
    return severity == cache::BugSeverity::kWarning ? "warning" : "bug";
}

double seconds(std::chrono::nanoseconds time) {
    return std::chrono::duration<double>(time).count();
}

json::object in_a_line(const cache::Oops& oops) {
    const auto since_epoch = oops.time.time_since_epoch();
    return {{"number", oops.number},
            {"title", oops.title},
            {"severity", severity_name(oops.severity)},
            {"assertion", oops.assertion},
            {"task", oops.task},
            {"protocol", oops.protocol},
            {"unix_time", seconds(since_epoch)}};
}

json::object page_of(const cache::OopsPage& page) {
    json::array waiters;
    for (const cache::OopsWaiter& waiter : page.waiters) {
        waiters.push_back(
            {{"task", waiter.task}, {"for", waiter.bit}, {"seconds", seconds(waiter.waited)}});
    }
    json::array events;
    for (const cache::TraceEvent& event : page.history.events) {
        events.push_back({{"seconds", seconds(event.time)},
                          {"task", event.task_id},
                          {"what", cache::describe(event, page.history.tasks)}});
    }
    json::object tasks;
    for (const cache::TraceTask& task : page.history.tasks) {
        tasks[std::to_string(task.id)] = task.name;
    }
    return {{"index", page.index},
            {"file", page.mapping},
            {"flags", page.flags},
            {"references", page.refcount},
            {"generation", page.generation},
            {"locked_by", page.locked_by},
            {"waiters", waiters},
            {"tasks", tasks},
            {"events", events}};
}

}  // namespace

json::object reports_list() {
    json::array list;
    for (const cache::Oops& oops : cache::kept_oopses()) {
        list.push_back(in_a_line(oops));
    }
    return {{"reports", list}};
}

json::object report(const std::string& number) {
    for (const cache::Oops& oops : cache::kept_oopses()) {
        if (std::to_string(oops.number) != number) {
            continue;
        }
        json::object all = in_a_line(oops);
        all["condition"] = oops.condition;
        all["file"] = oops.file;
        all["line"] = oops.line;
        all["function"] = oops.function;
        all["role"] = oops.role;
        all["object"] = oops.object;
        all["page"] = oops.page ? json::value(page_of(*oops.page)) : json::value();
        all["stack"] = json::array(oops.stack.begin(), oops.stack.end());
        all["assertions"] = oops.assertions;
        all["volume"] = oops.volume;
        json::array explanation;
        for (const cache::StorySentence& sentence : cache::explain(oops)) {
            explanation.push_back({{"event", sentence.place}, {"text", sentence.text}});
        }
        all["explanation"] = explanation;
        all["lanes"] = cache::draw_history(oops);
        all["text"] = cache::to_string(oops);
        return all;
    }
    throw ControlError(fmt::format("no report '{}' is kept; oops list tells which are", number));
}

}  // namespace wbfat::daemon
