// The table of commands, and those that change something.
#include "src/control_commands.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include <boost/json.hpp>

#include "cache/assertions.h"
#include "cache/flusher.h"
#include "cache/freeze.h"
#include "cache/trace.h"
#include "cache/trace_export.h"
#include "src/control_protocol.h"
#include "src/control_reports.h"
#include "src/control_status.h"
#include "src/live_feed.h"

namespace wbfat::daemon {

namespace {

namespace json = boost::json;

[[noreturn]] void usage(std::string_view name) {
    const control::CommandHelp* const help = control::find_command(name);
    throw ControlError(
        fmt::format("usage: {}{}{}", name, help->words.empty() ? "" : " ", help->words));
}

void expect_no_words(std::string_view name, ControlWords words) {
    if (!words.empty()) {
        usage(name);
    }
}

// --- the commands

json::object run_status(ControlCommands& commands, ControlWords words) {
    expect_no_words("status", words);
    return status_of(commands.context());
}

json::object run_sync(ControlCommands& commands, ControlWords words) {
    expect_no_words("sync", words);
    const cache::FreezeGate::Pass pass(cache::operations_gate());
    const Result<> synced = commands.context().volume.sync_fs();
    if (!synced.has_value()) {
        throw ControlError(fmt::format("not everything could be written: {}",
                                       std::generic_category().message(synced.code())));
    }
    return {};
}

json::object run_drop_caches(ControlCommands& commands, ControlWords words) {
    expect_no_words("drop-caches", words);
    const cache::FreezeGate::Pass pass(cache::operations_gate());
    return {{"pages_dropped", commands.context().cache.drop_caches()}};
}

// Seconds with a fraction -> hundredths.
std::optional<unsigned> parse_centisecs(const std::string& text) {
    constexpr double kMostSeconds = 3600;
    double seconds = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, seconds);
    if (error != std::errc{} || stop != end || !(seconds >= 0 && seconds <= kMostSeconds)) {
        return std::nullopt;
    }
    return static_cast<unsigned>(std::lround(seconds * 100));
}

json::object run_flusher(ControlCommands& commands, ControlWords words) {
    cache::Flusher& flusher = commands.context().cache.flusher();
    const std::string verb = words.empty() ? "" : words[0];
    if (words.size() > (verb == "interval" ? 2U : 1U)) {
        usage("flusher");
    }
    if (verb == "pause") {
        commands.pause_flusher();
    } else if (verb == "resume") {
        commands.resume_flusher();
    } else if (verb == "kick") {
        flusher.kick();
    } else if (verb == "interval") {
        const auto centisecs = parse_centisecs(words.size() == 2 ? words[1] : "");
        if (!centisecs) {
            throw ControlError("flusher interval: give seconds from 0 to 3600, such as 5 or 0.5");
        }
        flusher.set_dirty_writeback_centisecs(*centisecs);
    } else if (!verb.empty()) {
        usage("flusher");
    }
    return flusher_status(commands.context());
}

// Not inside the gate: the switch closes it.
void set_protocol(ControlContext& context, ControlWords words) {
    cache::Protocol protocol;
    const std::string sentence =
        cache::Protocol::parse(fmt::format("{}", fmt::join(words, ",")), protocol);
    if (!sentence.empty()) {
        throw ControlError(sentence);
    }
    if (!cache::switch_protocol(context.cache, protocol).has_value()) {
        throw ControlError(fmt::format(
            "the cache did not come to rest within {} s, so the protocol is still {}",
            std::chrono::duration_cast<std::chrono::seconds>(cache::kFreezePatience).count(),
            cache::to_string(cache::current_protocol())));
    }
}

json::object run_protocol(ControlCommands& commands, ControlWords words) {
    const std::string verb = words.empty() ? "get" : words[0];
    if (verb == "list" && words.size() == 1) {
        return protocol_list();
    }
    if (verb == "set" && words.size() > 1) {
        set_protocol(commands.context(), words.subspan(1));
    } else if (verb != "get" || words.size() > 1) {
        usage("protocol");
    }
    return protocol_status();
}

json::object run_assert(ControlCommands&, ControlWords words) {
    const std::string verb = words.empty() ? "list" : words[0];
    if (verb == "set" && words.size() > 1) {
        // All or none, also of several words.
        const std::string sentence =
            cache::set_assertions(fmt::format("{}", fmt::join(words.subspan(1), ",")));
        if (!sentence.empty()) {
            throw ControlError(sentence);
        }
    } else if (verb != "list" || words.size() > 1) {
        usage("assert");
    }
    return assertions_status();
}

json::object run_oops(ControlCommands&, ControlWords words) {
    if (words.empty() || (words.size() == 1 && words[0] == "list")) {
        return reports_list();
    }
    if (words.size() != 2 || words[0] != "show") {
        usage("oops");
    }
    return report(words[1]);
}

// A rule a word: words are joined by what separates the lines of a file of rules.
json::object run_point(ControlCommands& commands, ControlWords words) {
    const std::string verb = words.empty() ? "list" : words[0];
    if (verb == "set" && words.size() > 1) {
        const std::string sentence =
            commands.set_point_rules(fmt::format("{}", fmt::join(words.subspan(1), "\n")));
        if (!sentence.empty()) {
            throw ControlError(sentence);
        }
    } else if (verb == "clear" && words.size() == 1) {
        sync::clear_point_rules();
    } else if (verb != "list" || words.size() > 1) {
        usage("point");
    }
    return points_status();
}

// wbfatctl writes the file: it is the user's, and where he is.
json::object run_trace(ControlCommands&, ControlWords words) {
    const std::string verb = words.empty() ? "" : words[0];
    if (words.size() > 1) {
        usage("trace");
    }
    if (verb == "save") {
        const cache::Trace trace = cache::read_trace();
        return {{"nr_events", trace.events.size()}, {"trace", cache::to_chrome_json(trace)}};
    }
    if (verb == "on" || verb == "off") {
        cache::set_trace(verb == "on" ? cache::TraceState::kOn : cache::TraceState::kOff);
    } else if (!verb.empty()) {
        usage("trace");
    }
    return {{"on", cache::trace_enabled()}};
}

json::object run_web(ControlCommands& commands, ControlWords words) {
    if (!words.empty() && words[0] == "say") {
        commands.say(fmt::format("{}", fmt::join(words.subspan(1), " ")));
        return {{"says", commands.said()}};
    }
    if (words.size() > 1) {
        usage("web");
    }
    if (words.size() == 1 && words[0] == "stop") {
        commands.stop_web();
        return {{"url", nullptr}};
    }
    WebServer::Address address;
    if (words.size() == 1) {
        const std::string right = WebServer::parse_address(words[0], address);
        if (!right.empty()) {
            throw ControlError(fmt::format("web: '{}' is not valid; give {}", words[0], right));
        }
    }
    return {{"url", commands.start_web(address)}, {"says", commands.said()}};
}

// --- the table

struct Command {
    std::string_view name;
    json::object (*run)(ControlCommands&, ControlWords);
};

constexpr Command kCommands[] = {
    {"status", run_status},   {"sync", run_sync},         {"drop-caches", run_drop_caches},
    {"flusher", run_flusher}, {"protocol", run_protocol}, {"assert", run_assert},
    {"oops", run_oops},       {"trace", run_trace},       {"point", run_point},
    {"web", run_web},
};

struct Request {
    const Command* command = nullptr;
    std::vector<std::string> words;
};

Request parse_request(std::string_view line) {
    constexpr const char* kForm = R"(a request is {"command": NAME, "words": [TEXT, ..]})";
    boost::system::error_code error;
    const json::value parsed = json::parse(line, error);
    const json::object* const object = error ? nullptr : parsed.if_object();
    const json::value* const name = object == nullptr ? nullptr : object->if_contains("command");
    if (name == nullptr || !name->is_string()) {
        throw ControlError(kForm);
    }
    Request request;
    for (const Command& command : kCommands) {
        if (command.name == std::string_view(name->get_string())) {
            request.command = &command;
        }
    }
    if (request.command == nullptr) {
        std::string known;
        for (const Command& command : kCommands) {
            known += fmt::format("{}{}", known.empty() ? "" : ", ", command.name);
        }
        throw ControlError(fmt::format("there is no command '{}'; there are {}",
                                       std::string_view(name->get_string()), known));
    }
    if (const json::value* const words = object->if_contains("words")) {
        if (!words->is_array()) {
            throw ControlError(kForm);
        }
        for (const json::value& word : words->get_array()) {
            if (!word.is_string()) {
                throw ControlError(kForm);
            }
            request.words.emplace_back(word.get_string());
        }
    }
    return request;
}

}  // namespace

std::string ControlCommands::answer(std::string_view line, Caller caller) {
    try {
        const Request request = parse_request(line);
        // A page that stops its own server would wait for itself.
        if (caller == Caller::kPage && request.command->name == "web") {
            throw ControlError("the page cannot start or stop itself; use wbfatctl");
        }
        return json::serialize(
            json::object{{"ok", true}, {"result", request.command->run(*this, request.words)}});
    } catch (const ControlError& error) {
        return control::refusal(error.what());
    }
}

ControlCommands::~ControlCommands() {
    close();
}

void ControlCommands::close() {
    static_cast<void>(end_point_rules());
    stop_web();
    resume_flusher();
}

std::string ControlCommands::start_web(const WebServer::Address& address) {
    const sync::MutexLock lock(web_lock_);
    if (web_ == nullptr) {
        std::string why;
        web_ = WebServer::start(
            address,
            [this]() -> WebServer::Feed {
                return [feed = std::make_shared<LiveFeed>(context_, [this] { return said(); })] {
                    return feed->update();
                };
            },
            [this](const std::string& line) { return answer(line, Caller::kPage); }, why);
        if (web_ == nullptr) {
            throw ControlError(why);
        }
    }
    return web_->url();
}

void ControlCommands::stop_web() {
    std::unique_ptr<WebServer> stopped;
    const sync::MutexLock lock(web_lock_);
    stopped = std::move(web_);
}

void ControlCommands::say(std::string sentence) {
    if (sentence.size() > kMaxSaidBytes) {
        throw ControlError(fmt::format("web say: {} bytes are too many; the page has room for {}",
                                       sentence.size(), kMaxSaidBytes));
    }
    const sync::MutexLock lock(said_lock_);
    said_ = std::move(sentence);
}

std::string ControlCommands::said() const {
    const sync::MutexLock lock(said_lock_);
    return said_;
}

std::string ControlCommands::set_point_rules(std::string_view text) {
    const sync::MutexLock lock(points_lock_);
    return ended_points_ ? "the volume is being unmounted" : sync::set_point_rules(text);
}

std::vector<sync::PointRuleStatus> ControlCommands::end_point_rules() {
    const sync::MutexLock lock(points_lock_);
    if (!ended_points_) {
        ended_points_ = sync::point_rules();
        sync::clear_point_rules();
    }
    return *ended_points_;
}

void ControlCommands::pause_flusher() {
    const sync::MutexLock lock(flusher_lock_);
    if (std::exchange(flushing_, Flushing::kStopped) == Flushing::kGoesOn) {
        context_.cache.flusher().pause();
    }
}

void ControlCommands::resume_flusher() {
    const sync::MutexLock lock(flusher_lock_);
    if (std::exchange(flushing_, Flushing::kGoesOn) == Flushing::kStopped) {
        context_.cache.flusher().resume();
    }
}

}  // namespace wbfat::daemon
