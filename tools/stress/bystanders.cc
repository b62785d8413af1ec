// Waiters, flushers and syncers.
#include "tools/stress/bystanders.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>

namespace wbfat::tools {
namespace {

// Between two rounds: the users of the files are the load, not these.
constexpr auto kPause = std::chrono::milliseconds(2);
// Every so many calls of syncfs one of sync, which waits for the whole machine.
constexpr unsigned kSyncEvery = 64;

// Said to whoever wrote, who judges it; here it tells nothing new.
bool is_want_of_space(int error) {
    return error == ENOSPC || error == EDQUOT;
}

}  // namespace

Bystanders::Bystanders(int directory_fd, const BystanderCounts& counts,
                       std::vector<std::string> names)
    : directory_fd_(directory_fd), names_(std::move(names)) {
    for (unsigned i = 0; i < counts.waiters; ++i) {
        threads_.emplace_back([this] {
            walk_files({"sync_file_range, waiting only", SYNC_FILE_RANGE_WAIT_BEFORE});
        });
    }
    for (unsigned i = 0; i < counts.flushers; ++i) {
        threads_.emplace_back([this] {
            walk_files({"sync_file_range, writing only", SYNC_FILE_RANGE_WRITE});
        });
    }
    for (unsigned i = 0; i < counts.syncers; ++i) {
        threads_.emplace_back([this] { sync_all(); });
    }
}

Bystanders::~Bystanders() {
    static_cast<void>(finish());
}

std::optional<Failure> Bystanders::finish() {
    stop_.store(true);
    for (std::thread& thread : threads_) {
        thread.join();
    }
    threads_.clear();
    return failure_;
}

void Bystanders::walk_files(const Job& job) {
    while (!stop_.load()) {
        for (const std::string& name : names_) {
            const int fd = ::openat(directory_fd_, name.c_str(), O_RDONLY | O_CLOEXEC);
            if (fd < 0) {
                continue;  // renamed, or unlinked and not yet made again
            }
            // The whole file, whatever its length.
            const int result = ::sync_file_range(fd, 0, 0, job.flags);
            const int error = result == 0 ? 0 : errno;
            ::close(fd);
            note(job.call, name, error);
        }
        pause();
    }
}

void Bystanders::sync_all() {
    for (unsigned round = 1; !stop_.load(); ++round) {
        note("syncfs", ".", ::syncfs(directory_fd_) == 0 ? 0 : errno);
        if (round % kSyncEvery == 0) {
            ::sync();
        }
        pause();
    }
}

void Bystanders::note(const char* call, const std::string& file, int error) {
    const bool is_answer =
        error == 0 || error == EINTR || error == ENOSYS || is_want_of_space(error);
    if (is_answer || has_failure_.test_and_set()) {
        return;
    }
    failure_ = Failure{.what = fmt::format("{} failed", call),
                       .file = file,
                       .facts = {{"error", std::system_category().message(error)}},
                       .last_ops = {}};
}

void Bystanders::pause() const {
    std::this_thread::sleep_for(kPause);
}

}  // namespace wbfat::tools
