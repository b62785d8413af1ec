// The session loop.
#include "src/session.h"

#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <utility>

#include <linux/fuse.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "cache/sync/sync.h"

namespace wbfat::daemon {

namespace {

// FUSE_SYNCFS of linux/fuse.h 7.34, for headers that are older.
constexpr std::uint32_t kOpcodeSyncfs = 50;

// Interrupts a worker's read of /dev/fuse; the handler has nothing to do.
constexpr int kWakeSignal = SIGUSR1;

void install_wake_handler() {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    // No SA_RESTART: the read must return.
    ::sigaction(kWakeSignal, &action, nullptr);
}

// Adds "-o text" to libfuse's arguments.
void add_option(fuse_args& args, const std::string& text) {
    static_cast<void>(fuse_opt_add_arg(&args, "-o"));
    static_cast<void>(fuse_opt_add_arg(&args, text.c_str()));
}

// A comma in a device's name would end the option; libfuse takes a backslash before it.
std::string escaped(const std::string& text) {
    std::string result;
    for (const char c : text) {
        if (c == ',' || c == '\\') {
            result += '\\';
        }
        result += c;
    }
    return result;
}

// Why nothing can be mounted on `path`, or "". On a file the kernel would mount our directory, and
// nobody could enter.
std::string why_no_mountpoint(const std::string& path) {
    struct stat found {};
    if (::stat(path.c_str(), &found) != 0) {
        return fmt::format("cannot mount on '{}': {}", path, std::system_category().message(errno));
    }
    return S_ISDIR(found.st_mode)
               ? ""
               : fmt::format("cannot mount on '{}': it is not a directory", path);
}

}  // namespace

std::unique_ptr<Session> Session::mount(const Options& options, const fuse_lowlevel_ops& ops,
                                        void* user_data, std::function<int()> sync_fs,
                                        std::string& why) {
    if (::access("/dev/fuse", F_OK) != 0) {
        why =
            "there is no /dev/fuse: load the kernel module 'fuse' or give the container that "
            "device";
        return nullptr;
    }
    why = why_no_mountpoint(options.mountpoint);
    if (!why.empty()) {
        return nullptr;
    }
    fuse_args args = FUSE_ARGS_INIT(0, nullptr);
    static_cast<void>(fuse_opt_add_arg(&args, "wbfat"));
    add_option(args, "fsname=" + escaped(options.device));
    add_option(args, "subtype=wbfat");
    add_option(args, "default_permissions");
    add_option(args, options.read_only ? "ro" : "rw");
    if (options.sync) {
        add_option(args, "sync");
    }
    add_option(args, fmt::format("max_read={}", options.max_read_bytes));
    if (options.block_device) {
        add_option(args, "blkdev");
        add_option(args, fmt::format("blksize={}", options.block_bytes));
    }
    if (options.debug) {
        static_cast<void>(fuse_opt_add_arg(&args, "-d"));
    }
    for (const std::string& option : options.kernel) {
        add_option(args, option);
    }
    fuse_session* session = fuse_session_new(&args, &ops, sizeof(ops), user_data);
    fuse_opt_free_args(&args);
    if (session == nullptr) {
        why = "libfuse refused a mount option; its message is above";
        return nullptr;
    }
    if (fuse_session_mount(session, options.mountpoint.c_str()) != 0) {
        fuse_session_destroy(session);
        why = fmt::format("cannot mount on '{}'; libfuse's message is above", options.mountpoint);
        return nullptr;
    }
    return std::unique_ptr<Session>(new Session(session, options, std::move(sync_fs)));
}

Session::Session(fuse_session* session, const Options& options, std::function<int()> sync_fs)
    : session_(session), options_(options), sync_fs_(std::move(sync_fs)) {}

Session::~Session() {
    fuse_session_unmount(session_);
    fuse_session_destroy(session_);
}

bool Session::answer_syncfs(const fuse_buf& request) {
    if (request.size < sizeof(fuse_in_header) || (request.flags & FUSE_BUF_IS_FD) != 0) {
        return false;
    }
    fuse_in_header in;
    std::memcpy(&in, request.mem, sizeof(in));
    if (in.opcode != kOpcodeSyncfs) {
        return false;
    }
    fuse_out_header out{};
    out.len = sizeof(out);
    out.error = -sync_fs_();
    out.unique = in.unique;
    // Fails only when nobody waits any more.
    static_cast<void>(::write(fuse_session_fd(session_), &out, sizeof(out)));
    return true;
}

void Session::worker() {
    sync::adopt_current_task("wbfat-request", sync::Role::kRequest);
    fuse_buf buffer{};
    while (!fuse_session_exited(session_)) {
        const int got = fuse_session_receive_buf(session_, &buffer);
        if (got == -EINTR) {
            continue;
        }
        if (got <= 0) {
            break;
        }
        if (!answer_syncfs(buffer)) {
            fuse_session_process_buf(session_, &buffer);
        }
    }
    // One worker that sees the end ends them all.
    fuse_session_exit(session_);
    std::free(buffer.mem);  // NOLINT(cppcoreguidelines-no-malloc): libfuse allocated it with malloc
    running_.fetch_sub(1);
    ::kill(::getpid(), SIGHUP);
}

void Session::stop_workers(std::vector<std::thread>& workers) {
    // A signal that arrives between a worker's test of the exit flag and its read is lost: repeat
    // until all are out.
    while (running_.load() != 0) {
        for (std::thread& thread : workers) {
            ::pthread_kill(thread.native_handle(), kWakeSignal);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    for (std::thread& thread : workers) {
        thread.join();
    }
}

sigset_t Session::ending_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
        sigaddset(&set, signal);
    }
    return set;
}

int Session::serve(const std::function<void()>& ending) {
    install_wake_handler();
    running_.store(options_.threads);
    std::vector<std::thread> workers;
    for (unsigned i = 0; i < options_.threads; ++i) {
        workers.emplace_back([this] { worker(); });
    }
    const sigset_t signals = ending_signals();
    int received = 0;
    sigwait(&signals, &received);
    ending();
    const bool ended_by_kernel = fuse_session_exited(session_) != 0;
    fuse_session_exit(session_);
    stop_workers(workers);
    return ended_by_kernel ? 0 : received;
}

}  // namespace wbfat::daemon
