// What can be asked of a live mount: one small function a command, from words to JSON.
//
// The commands are those of control::command_table(); this is where each gets its function. A
// function that cannot do what was asked throws ControlError with one sentence.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "cache/page_cache.h"
#include "cache/sync/point_rules.h"
#include "cache/sync/sync.h"
#include "fs/volume.h"
#include "src/mount_options.h"
#include "src/web_server.h"

namespace wbfat::daemon {

class ControlError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

// What the commands work on.
struct ControlContext {
    fs::Volume& volume;
    cache::PageCache& cache;
    const DaemonOptions& options;
    std::string device;
    std::string mountpoint;
    sync::Nanoseconds started = sync::monotonic_now();
};

class ControlCommands {
public:
    enum class Caller { kSocket, kPage };

    explicit ControlCommands(ControlContext context) : context_(std::move(context)) {}
    // As close().
    ~ControlCommands();
    ControlCommands(const ControlCommands&) = delete;
    ControlCommands& operator=(const ControlCommands&) = delete;

    // A line of the protocol. Answers everything: what is no request gets a refusal. Context: any
    // thread; sleeps if the command does.
    std::string answer(std::string_view line, Caller caller = Caller::kSocket);

    // Undoes what would outlive the commands: no live page, no rule for points, and the flusher
    // goes on if a command has stopped it. Requires: answer() is not called any more.
    void close();

    ControlContext& context() {
        return context_;
    }
    // Pauses do not nest here: two clients that both stop the flusher mean the same.
    void pause_flusher();
    void resume_flusher();
    // Returns "" or one sentence.
    std::string set_point_rules(std::string_view text);
    // No rule from now on, so that nothing holds the threads of an unmount. Returns what became of
    // those there were, also when called again.
    std::vector<sync::PointRuleStatus> end_point_rules();
    // Returns the URL; of the page that is served already, if one is. Throws ControlError.
    std::string start_web(const WebServer::Address& address);
    void stop_web();
    // A sentence for all who look at the live page, now or later: what the load is doing. "" takes
    // it back. Throws ControlError when it is longer than kMaxSaidBytes.
    void say(std::string sentence);
    std::string said() const;
    static constexpr std::size_t kMaxSaidBytes = 500;

private:
    ControlContext context_;
    sync::Mutex flusher_lock_;
    // Held while rules change, which waits for the threads that they held.
    sync::Mutex points_lock_;
    std::optional<std::vector<sync::PointRuleStatus>> ended_points_ GUARDED_BY(points_lock_);
    sync::Mutex web_lock_;
    std::unique_ptr<WebServer> web_ GUARDED_BY(web_lock_);
    // Its own: a page asks while web_lock_ is held for the server to end.
    mutable sync::Mutex said_lock_;
    std::string said_ GUARDED_BY(said_lock_);
    enum class Flushing {
        kGoesOn,
        kStopped
    } flushing_ GUARDED_BY(flusher_lock_) = Flushing::kGoesOn;
};

using ControlWords = std::span<const std::string>;

}  // namespace wbfat::daemon
