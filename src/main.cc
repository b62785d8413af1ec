// wbfat DEVICE MOUNTPOINT: from the command line to the exit code.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <sys/stat.h>

#include "cache/assertions.h"
#include "cache/base/check.h"
#include "cache/counters.h"
#include "cache/device/file_device.h"
#include "cache/device/latency_device.h"
#include "cache/filemap.h"
#include "cache/oops.h"
#include "cache/page_cache.h"
#include "cache/sync/point_actions.h"
#include "cache/sync/point_rules.h"
#include "cache/trace.h"
#include "cache/watchdog.h"
#include "fs/volume.h"
#include "src/command_line.h"
#include "src/control_commands.h"
#include "src/control_protocol.h"
#include "src/control_socket.h"
#include "src/daemonize.h"
#include "src/fuse_ops.h"
#include "src/log.h"
#include "src/session.h"
#include "src/spoiled_requests.h"
#include "src/stats.h"

namespace wbfat::daemon {

namespace {

// What bug=shutdown stops; set once before the first request.
fs::Volume* volume_to_stop = nullptr;

void stop_volume(const cache::BugReport& report) {
    note_failed_assertion();
    if (volume_to_stop != nullptr) {
        volume_to_stop->shutdown(report.title());
    }
}

void ignore_bug(const cache::BugReport&) {}

void set_bug_action(BugAction action, fs::Volume& volume) {
    volume_to_stop = &volume;
    switch (action) {
        case BugAction::kPanic:
            cache::set_bug_handler(nullptr);
            break;
        case BugAction::kShutdown:
            cache::set_bug_handler(stop_volume);
            cache::set_after_bug(cache::AfterBug::kGiveUp);
            break;
        case BugAction::kContinue:
            cache::set_bug_handler(ignore_bug);
            break;
    }
}

// For reports: takes no lock, which the thread that failed may hold.
std::string volume_state(const fs::Volume& volume, cache::PageCache& cache) {
    const cache::PageCache::Counters& counters = cache.counters();
    return fmt::format("{}, {} pages cached, {} dirty, {} under writeback",
                       volume.is_read_only() ? "read-only" : "read-write",
                       counters.nr_cached.value(), counters.nr_dirty.value(),
                       counters.nr_writeback.value());
}

void block_ending_signals() {
    const sigset_t set = Session::ending_signals();
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
}

// Requests may sleep in a flush or in the brake on writers, so there are more threads than CPUs.
unsigned serving_threads(const DaemonOptions& options) {
    constexpr unsigned kLeast = 4;
    return options.threads != 0 ? options.threads
                                : std::max(kLeast, 2 * std::thread::hardware_concurrency());
}

// What one read request may ask for: the pages of a reply are pinned until it is sent, and those of
// all threads together must leave the cache room to breathe.
std::uint32_t max_read_bytes(const DaemonOptions& options, cache::PageCache& cache) {
    constexpr std::uint64_t kLeast = 16U << 10;
    constexpr std::uint64_t kMost = 1U << 20;
    const std::uint64_t share = cache::max_pinned_read_bytes(cache) / serving_threads(options);
    return static_cast<std::uint32_t>(std::bit_floor(std::clamp(share, kLeast, kMost)));
}

bool is_block_device(const std::string& path) {
    struct stat status {};
    return ::stat(path.c_str(), &status) == 0 && S_ISBLK(status.st_mode);
}

// A block device past the kernel's cache of it, unless it cannot or the user wants otherwise: our
// cache is the one that counts, and each page would be in memory, and be copied, twice.
cache::FileDevice::OpenResult open_as_wanted(const CommandLine& line,
                                             cache::FileDeviceOptions options) {
    const std::optional<bool>& wanted = line.options.direct_io_device;
    options.direct_io = wanted.value_or(is_block_device(line.device));
    auto opened = cache::FileDevice::open(line.device, options);
    if (!opened.has_value() && opened.error().code == EINVAL && options.direct_io && !wanted) {
        options.direct_io = false;
        return cache::FileDevice::open(line.device, options);
    }
    return opened;
}

// Opens the device; a device that only takes reads makes the mount read-only, as mount(8) does.
std::unique_ptr<cache::FileDevice> open_device(CommandLine& line) {
    cache::FileDeviceOptions options;
    options.read_only = line.options.fs.read_only;
    options.offset_bytes = line.options.offset_bytes;
    auto opened = open_as_wanted(line, options);
    const bool refuses_writes =
        !opened.has_value() && (opened.error().code == EROFS || opened.error().code == EACCES);
    if (refuses_writes && !options.read_only) {
        options.read_only = true;
        auto again = open_as_wanted(line, options);
        if (again.has_value()) {
            complain(fmt::format("{} is write-protected, mounting read-only", line.device));
            line.options.fs.read_only = true;
            return std::move(*again);
        }
    }
    if (!opened.has_value()) {
        complain(opened.error().sentence);
        return nullptr;
    }
    return std::move(*opened);
}

// One mount from open device to unmounted volume. Members are destroyed in reverse: the device goes
// last.
class Mount {
public:
    Mount(CommandLine& line, std::string device_path)
        : line_(line), device_path_(std::move(device_path)), log_(line.device) {}
    // Until the cache is gone its assertions report to the log.
    ~Mount() {
        watchdog_.reset();
        control_.reset();
        commands_.reset();
        server_.reset();
        volume_to_stop = nullptr;
        volume_.reset();
        cache_.reset();
        cache::remove_oops_reports();
    }
    Mount(const Mount&) = delete;
    Mount& operator=(const Mount&) = delete;

    // Returns an exit code; kExitOk: the volume is ready to be served.
    int open();
    // Serves until unmounted. Returns the exit code.
    int serve(Verdict& verdict);

private:
    std::unique_ptr<Session> mount_session();
    // Reports to the log, and what bug=, assert= and trace= say.
    void report_bugs();
    // A mount without a control socket, or without a page, is still a mount: what fails is logged.
    void open_control();
    void listen_for_control();
    void serve_page();
    // Everything to disk, once. Later calls return what the first found.
    Result<> close_volume();

    CommandLine& line_;
    const std::string device_path_;
    Log log_;
    std::unique_ptr<cache::FileDevice> device_;
    std::unique_ptr<cache::LatencyDevice> slow_device_;  // device_, as slow as the points say
    std::unique_ptr<cache::PageCache> cache_;
    std::unique_ptr<fs::Volume> volume_;
    std::unique_ptr<Server> server_;
    std::unique_ptr<cache::Watchdog> watchdog_;
    std::unique_ptr<ControlCommands> commands_;  // from open_control() on
    std::unique_ptr<ControlSocket> control_;
    std::vector<sync::PointRuleStatus> points_;  // when they ended
    bool closed_ = false;
    Result<> close_result_;
};

int Mount::open() {
    device_ = open_device(line_);
    if (!device_) {
        return kExitMountFailed;
    }
    cache::set_protocol_while_idle(line_.options.protocol);
    slow_device_ = std::make_unique<cache::LatencyDevice>(*device_);
    auto cache = cache::PageCache::create(line_.options.cache);
    if (!cache.has_value()) {
        complain(fmt::format("no memory for a page cache of {} bytes; give a smaller cache_size=",
                             line_.options.cache.cache_size_bytes));
        return kExitSystem;
    }
    cache_ = std::move(*cache);
    std::string why;
    auto volume = fs::Volume::mount(
        *slow_device_, *cache_, line_.options.fs,
        [this](fs::LogLevel level, const std::string& sentence) { log_.write(level, sentence); },
        why);
    if (!volume.has_value()) {
        complain(fmt::format("{}: {}", line_.device, why));
        return kExitMountFailed;
    }
    volume_ = std::move(*volume);
    report_bugs();
    Result<fs::InodeRef> root = volume_->root();
    if (!root.has_value()) {
        complain(fmt::format("{}: the root directory cannot be read", line_.device));
        return kExitMountFailed;
    }
    server_ =
        std::unique_ptr<Server>(new Server{*volume_,
                                           line_.options,
                                           *std::move(root),
                                           max_read_bytes(line_.options, *cache_),
                                           {},
                                           {},
                                           [this] { static_cast<void>(close_volume().code()); }});
    return kExitOk;
}

void Mount::report_bugs() {
    cache::set_trace_events_per_thread(line_.options.trace_events);
    cache::set_trace(line_.options.trace);
    if (!line_.options.assertions.empty()) {
        cache::set_assertions(line_.options.assertions);
    }
    cache::OopsOptions options;
    options.sink = [this](const cache::Oops& oops) { log_.write_report(to_string(oops)); };
    options.volume_state = [this] {
        return volume_ && cache_ ? volume_state(*volume_, *cache_) : std::string("unmounted");
    };
    cache::install_oops_reports(std::move(options));
    set_bug_action(line_.options.bug, *volume_);
}

std::unique_ptr<Session> Mount::mount_session() {
    Session::Options options;
    options.device = device_path_;
    options.mountpoint = line_.mountpoint;
    options.block_device =
        device_->is_block_device() && ::geteuid() == 0 && line_.options.offset_bytes == 0;
    options.block_bytes = device_->geometry().logical_block_bytes;
    options.read_only = volume_->is_read_only();
    // Where the kernel does not gather, each write reaches us, and is durable when we have
    // answered.
    options.sync =
        volume_->is_sync() && line_.options.kernel_cache_mode() == KernelCache::kWriteback;
    options.debug = line_.debug;
    options.threads = serving_threads(line_.options);
    options.max_read_bytes = server_->max_read_bytes;
    options.kernel = line_.options.kernel;
    if (options.block_device) {
        // mount(2) of type fuseblk claims the device for itself.
        if (const Result<> released = device_->release_claim(); !released.has_value()) {
            complain(fmt::format("{} is in use", line_.device));
            return nullptr;
        }
    }
    const auto sync_fs = [this] {
        const RequestScope scope(Effect::kChanges);
        const int error = volume_->sync_fs().code();
        return request_is_spoiled() ? EIO : error;
    };
    std::string why;
    auto session = Session::mount(options, make_fuse_ops(), server_.get(), sync_fs, why);
    if (!session) {
        complain(why);
    }
    return session;
}

void Mount::open_control() {
    commands_ = std::make_unique<ControlCommands>(
        ControlContext{*volume_, *cache_, line_.options, line_.device, line_.mountpoint});
    if (line_.options.control_path != DaemonOptions::kNoControl) {
        listen_for_control();
    }
    if (line_.options.http) {
        serve_page();
    }
}

void Mount::listen_for_control() {
    ControlSocket::Options options;
    options.path = line_.options.control_path;
    options.owner = ::geteuid();
    std::string why;
    if (options.path.empty()) {
        control::MountId id;
        if (const int error = control::mount_id_of(line_.mountpoint, id); error != 0) {
            why = fmt::format("'{}': {}", line_.mountpoint, std::system_category().message(error));
        } else {
            options.path = prepare_socket_path(options.owner, control::socket_name(id), why);
        }
    }
    if (!options.path.empty()) {
        control_ = ControlSocket::listen(
            options, [this](const std::string& text) { return commands_->answer(text); }, why);
    }
    if (!control_) {
        log_.write(fs::LogLevel::kWarning, "wbfatctl will not reach this mount: " + why);
    }
}

void Mount::serve_page() {
    try {
        log_.write(fs::LogLevel::kInfo, fmt::format("the live page is at {}",
                                                    commands_->start_web(*line_.options.http)));
    } catch (const ControlError& error) {
        log_.write(fs::LogLevel::kWarning, fmt::format("there is no live page: {}", error.what()));
    }
}

int Mount::serve(Verdict& verdict) {
    std::unique_ptr<Session> session = mount_session();
    if (!session) {
        verdict.report(kExitMountFailed);
        return kExitMountFailed;
    }
    server_->invalidator.start(session->handle());
    watchdog_ = std::make_unique<cache::Watchdog>();
    if (!line_.foreground) {
        log_.to_syslog();
    }
    sync::set_point_printer(
        [this](const std::string& line) { log_.write(fs::LogLevel::kInfo, line); });
    open_control();
    verdict.report(kExitOk);
    // Checked when the options were read.
    static_cast<void>(sync::set_point_rules(line_.options.point_rules));
    // The kernel's last request closes the volume on another thread, perhaps before.
    session->serve([this] { static_cast<void>(commands_->end_point_rules()); });
    server_->invalidator.stop();
    session.reset();
    const Result<> closed = close_volume();
    if (!line_.options.stats_file.empty()) {
        const Result<> written =
            write_stats_file(line_.options.stats_file, cache_->stats(), points_);
        if (!written.has_value()) {
            log_.write(fs::LogLevel::kWarning,
                       fmt::format("cannot write '{}'", line_.options.stats_file));
        }
    }
    return closed.has_value() ? kExitOk : kExitSystem;
}

Result<> Mount::close_volume() {
    if (closed_) {
        return close_result_;
    }
    closed_ = true;
    // First: a rule may hold an answer that the socket waits for.
    if (commands_) {
        points_ = commands_->end_point_rules();
    }
    control_.reset();
    if (commands_) {
        commands_->close();
    }
    server_->references.drop_all();
    server_->root = {};
    close_result_ = volume_->unmount();
    if (!close_result_.has_value()) {
        log_.write(fs::LogLevel::kError, "not everything could be written; run fsck.fat");
    }
    return close_result_;
}

int run(int argc, char** argv) {
    int exit_code = kExitOk;
    std::optional<CommandLine> line = parse_command_line(argc, argv, exit_code);
    if (!line) {
        return exit_code;
    }
    // Both are looked up again after chdir("/").
    const auto absolute = [](const std::string& path) {
        const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr),
                                                               &std::free);
        return real ? std::string(real.get()) : path;
    };
    line->device = absolute(line->device);
    line->mountpoint = absolute(line->mountpoint);
    if (!line->options.stats_file.empty() && line->options.stats_file.front() != '/') {
        line->options.stats_file = absolute(".") + "/" + line->options.stats_file;
    }
    block_ending_signals();
    Verdict verdict(line->foreground);
    Mount mount(*line, line->device);
    if (const int code = mount.open(); code != kExitOk) {
        verdict.report(code);
        return code;
    }
    return mount.serve(verdict);
}

}  // namespace

}  // namespace wbfat::daemon

int main(int argc, char** argv) {
    return wbfat::daemon::run(argc, argv);
}
