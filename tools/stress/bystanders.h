// Threads that write back and wait, and change nothing: on a filesystem that is right nobody
// notices them.
//
//   waiter   waits for what is under writeback (sync_file_range WAIT_BEFORE), starting nothing
//   flusher  starts writeback and waits for nothing (sync_file_range WRITE)
//   syncer   syncs the whole filesystem (syncfs, now and then sync)
//
// Files that are renamed or unlinked meanwhile are opened again by their new name, or not at all.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tools/stress/failure.h"

namespace wbfat::tools {

struct BystanderCounts {
    unsigned waiters = 0;
    unsigned flushers = 0;
    unsigned syncers = 0;
};

class Bystanders {
public:
    // `directory_fd` outlives this; `names` are files in it.
    Bystanders(int directory_fd, const BystanderCounts& counts, std::vector<std::string> names);
    // Joins.
    ~Bystanders();
    Bystanders(const Bystanders&) = delete;
    Bystanders& operator=(const Bystanders&) = delete;

    // Joins. The first call that failed for another reason than want of space, if one did.
    std::optional<Failure> finish();

private:
    struct Job {
        const char* call;
        unsigned flags;  // of sync_file_range
    };

    void walk_files(const Job& job);
    void sync_all();
    void note(const char* call, const std::string& file, int error);
    void pause() const;

    const int directory_fd_;
    const std::vector<std::string> names_;
    std::atomic<bool> stop_{false};
    std::atomic_flag has_failure_;
    std::optional<Failure> failure_;  // of whoever set has_failure_; read after all have ended
    std::vector<std::thread> threads_;
};

}  // namespace wbfat::tools
