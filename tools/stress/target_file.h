// One file of the run, and one thread's way to it.
//
// TargetFile is what all threads share: name, model, history. FileHandle is one thread's descriptor
// and mapping, and performs operations: do it, update the model, compare what can be compared.
//
// Invariants
//   T1. Between two operations of its owner the model of a byte range says exactly what the file
//   must contain there. T2. Below `floor` every byte has one writing thread (the owner of its
//   slot); from `floor` on, and for the size,
//       the growing thread is the only one.
//
// Locking: TargetFile::mutex guards model and journal, and is never held across a system call that
// changes the file.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tools/stress/content.h"
#include "tools/stress/counters.h"
#include "tools/stress/failure.h"
#include "tools/stress/file_model.h"
#include "tools/stress/mapped_window.h"
#include "tools/stress/options.h"
#include "tools/stress/plan.h"

namespace wbfat::tools {

// The run, as seen by every thread: constant, but for the last two.
struct RunContext {
    RunContext(const StressOptions& options_in, int directory_fd_in, std::uint64_t cluster_in)
        : options(options_in),
          content(options_in.seed),
          directory_fd(directory_fd_in),
          cluster(cluster_in) {}
    const StressOptions& options;
    const Content content;
    const int directory_fd;
    const std::uint64_t cluster;  // bytes
    std::atomic<bool> stop{false};
    std::atomic<bool> cannot_map{
        false};  // mmap said ENODEV: shared mappings are not to be had here
};

struct JournalEntry {
    unsigned thread = 0;
    std::uint64_t op_index = 0;
    Op op;
};

struct TargetFile {
    TargetFile(std::uint32_t id_in, std::string name_in) : id(id_in), name(std::move(name_in)) {}
    void note(const JournalEntry& entry);
    std::uint64_t size();
    // Shared runs: the thread that T2 calls the growing one.
    unsigned growing_thread(const StressOptions& options) const {
        return id % options.threads;
    }

    const std::uint32_t id;
    std::string name;         // changed by kRename, in runs where one thread owns the file
    std::uint64_t floor = 0;  // constant while several threads work

    std::mutex mutex;
    FileModel model;
    std::array<JournalEntry, 24> journal;
    std::uint64_t nr_journaled = 0;
};

// A byte range, [begin, end).
struct Range {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
};

class FileHandle {
public:
    // `thread` and `counters` are the caller's.
    FileHandle(RunContext& run, TargetFile& file, unsigned thread, Counters& counters);
    ~FileHandle();
    FileHandle(const FileHandle&) = delete;
    FileHandle& operator=(const FileHandle&) = delete;

    // Opens the file; `flags` beside O_RDWR. Throws std::system_error: an environment error.
    void open(int flags);

    // Performs one operation. `owned` is where this thread may compare everything (kEvict,
    // kReplace). Throws StressFailed.
    void perform(const Op& op, std::uint64_t op_index, std::span<const Range> owned);

    // Reads and compares. Throws StressFailed.
    void check(Range range);
    void check_size();
    // Makes the data durable, asks the kernel to forget its copy, compares.
    void evict_and_check(std::span<const Range> owned);

    TargetFile& file() {
        return file_;
    }

private:
    // What a comparison found wrong, before it becomes a Failure.
    struct Mismatch {
        std::uint64_t offset = 0;
        std::uint32_t expected = 0;  // generation
    };

    int sync_flag() const;  // O_SYNC or nothing
    void truncate(const Op& op);
    void write(const Op& op);
    void store(const Op& op);
    void load(const Op& op);
    void spy(const Op& op);
    void sync(int (*sync_call)(int), const char* call);
    void reopen();
    void rename();
    void replace(std::span<const Range> owned);

    // Returns whether `error` means "no room" or "too big for this filesystem" for a file of `end`
    // bytes; anything else is a failure of `call`.
    void expect_refusal(int error, const char* call, std::uint64_t end);
    void adopt_size_after_refusal(std::uint64_t asked, const char* call);
    // A write of [begin, end), which is not all below the floor, was refused.
    void settle_refused_write(std::uint64_t begin, std::uint64_t end);
    // A sync was refused: by reason of this thread's bytes, or of another's.
    void forget_what_did_not_fit();
    // Space ran out during writeback: what reached the disk is unknown, so the file starts again
    // from its floor.
    void start_again();
    // A mapped access met SIGBUS: right only where no room is left for the page.
    void excuse_sigbus(std::uint64_t offset);
    bool cover(const Op& op);
    std::span<std::byte> buffer(std::uint64_t length);
    std::size_t read_fully(std::uint64_t offset, std::span<std::byte> out, const char* call);
    void compare(std::uint64_t offset, std::span<const std::byte> data, const char* how);
    bool find_mismatch(std::uint64_t offset, std::span<const std::byte> data, Mismatch& mismatch);
    bool belongs(std::uint64_t word, std::uint64_t offset);

    [[noreturn]] void fail(std::string what, std::uint64_t offset,
                           std::vector<std::pair<std::string, std::string>> facts = {});
    [[noreturn]] void fail_errno(const char* call, int error, std::uint64_t offset);
    [[noreturn]] void fail_mismatch(const Mismatch& mismatch, std::uint64_t offset,
                                    std::span<const std::byte> data, const char* how);
    std::string describe_word(std::uint64_t offset);

    RunContext& run_;
    TargetFile& file_;
    const unsigned thread_;
    Counters& counters_;
    int fd_ = -1;
    MappedWindow window_;
    std::vector<std::byte> buffer_;
    std::uint64_t op_index_ = 0;
};

}  // namespace wbfat::tools
