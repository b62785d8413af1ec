// Every -o option: its spelling, its meaning, its help line. vfat's, ours, and what goes on to the
// kernel.
//
// One table (mount_options.cc) is the parser, the help text and the list in the error message.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cache/base/result.h"
#include "cache/page_cache.h"
#include "cache/protocol.h"
#include "cache/trace.h"
#include "fs/mount_options.h"
#include "src/web_server.h"

namespace wbfat::daemon {

// How much of the kernel's page cache stands in front of ours.
enum class KernelCache : std::uint8_t {
    kNone,       // every read and write reaches us: the laboratory
    kAuto,       // the kernel keeps what it read
    kWriteback,  // and gathers writes
};

enum class BugAction : std::uint8_t { kPanic, kShutdown, kContinue };

struct DaemonOptions {
    fs::MountOptions fs;
    cache::PageCacheOptions cache;
    std::optional<KernelCache> kernel_cache;  // as asked for
    BugAction bug = BugAction::kShutdown;
    cache::Protocol protocol;
    std::string assertions;  // "NAME:STATE,..", for cache::set_assertions
    cache::TraceState trace = cache::TraceState::kOn;
    std::size_t trace_events = cache::kDefaultTraceEvents;  // a thread
    std::optional<bool> direct_io_device;                   // unset: with a block device that can
    std::uint64_t offset_bytes = 0;
    unsigned threads = 0;     // serving requests; 0: chosen from the number of CPUs
    std::string stats_file;   // counters are written here at unmount; empty: nowhere
    std::string point_rules;  // one a line, checked (sync/point_rules.h)
    // Where wbfatctl reaches the mount; empty: where it looks by itself; kNoControl: nowhere.
    std::string control_path;
    static constexpr const char* kNoControl = "none";
    std::optional<WebServer::Address> http;  // serve the live page there from the start
    bool remount = false;
    std::vector<std::string> kernel;  // for mount(2) and fusermount3, as given

    // Gathered writes are 3-4 times as fast when they are small. With -o sync the kernel gathers
    // those of one call, and they are on the disk before it returns (session.h).
    KernelCache kernel_cache_mode() const {
        return kernel_cache.value_or(KernelCache::kWriteback);
    }
};

// uid, gid and the masks of the caller; a tenth of the memory for the cache, 1 GiB at most.
DaemonOptions default_options();

// Parses "a,b=c,...", later options winning. What follows assert=NAME:STATE behind a comma and is
// of the same form goes on with it. Returns "" or one sentence that names the option, what was
// given and what would be right.
std::string parse_options(const std::string& text, DaemonOptions& options);

// The table as text, for -h.
std::string options_help();

// "64M", "1G", "4096": bytes. Errors: EINVAL.
Result<std::uint64_t> parse_size(const std::string& text);

}  // namespace wbfat::daemon
