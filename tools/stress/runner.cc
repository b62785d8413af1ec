// Threads, slots and barriers of a run.
#include "tools/stress/runner.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include <sys/statvfs.h>
#include <xxhash.h>

#include "tools/stress/bystanders.h"
#include "tools/stress/progress.h"
#include "tools/stress/target_file.h"

namespace wbfat::tools {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Operations of each thread between two barriers of a shared run.
constexpr std::uint64_t kEpochOps = 64;
constexpr auto kProgressInterval = std::chrono::milliseconds(250);
// Streams of Random beside those of the threads.
constexpr std::uint64_t kEpochStream = 1U << 20;

std::atomic<bool> interrupted{false};

void on_interrupt(int) {
    interrupted.store(true);
}

class DirectoryFd {
public:
    explicit DirectoryFd(const std::string& path)
        : fd_(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
        if (fd_ < 0) {
            throw std::system_error(errno, std::generic_category(),
                                    "cannot open directory " + path);
        }
    }
    ~DirectoryFd() {
        ::close(fd_);
    }
    DirectoryFd(const DirectoryFd&) = delete;
    DirectoryFd& operator=(const DirectoryFd&) = delete;
    int get() const {
        return fd_;
    }

private:
    int fd_;
};

std::uint64_t cluster_size_of(int directory_fd, const StressOptions& options) {
    if (options.cluster != 0) {
        return options.cluster;
    }
    struct statvfs status {};
    if (::fstatvfs(directory_fd, &status) != 0) {
        throw std::system_error(errno, std::generic_category(), "cannot stat the filesystem");
    }
    return std::clamp<std::uint64_t>(status.f_bsize, 512, 1U << 20);
}

class Run {
public:
    explicit Run(const StressOptions& options)
        : options_(options),
          directory_(options.directory),
          context_(options, directory_.get(), cluster_size_of(directory_.get(), options)),
          counters_(options.threads),
          start_(SteadyClock::now()) {}

    Outcome execute();

private:
    void create_files();
    void drop_files(std::size_t nr_created);
    void run_owned(unsigned thread);
    void run_shared(unsigned thread, std::barrier<>& barrier);
    void epoch(unsigned thread, std::vector<std::unique_ptr<FileHandle>>& handles,
               std::uint64_t first_op);
    void shared_op(unsigned thread, FileHandle& handle, Random& random, std::uint64_t op_index);
    void new_epoch_of(FileHandle& handle, std::uint64_t op_index);

    bool should_stop(std::uint64_t ops_done) const;
    void record_failure(const Failure& failure);
    void record_error();
    PlanLimits limits(const TargetFile& file) const;
    // Shared runs: the ranges of `file` that belong to `thread`; the growing thread has the tail as
    // well.
    std::vector<Range> owned_ranges(TargetFile& file, unsigned thread) const;
    std::uint64_t slot_bytes(const TargetFile& file) const;
    unsigned grower_of(const TargetFile& file) const {
        return file.growing_thread(options_);
    }
    double elapsed() const {
        return std::chrono::duration<double>(SteadyClock::now() - start_).count();
    }
    Totals totals() const;
    void watch(std::vector<std::thread>& threads);
    void summarise_files(Outcome& outcome);

    const StressOptions& options_;
    DirectoryFd directory_;
    RunContext context_;
    std::deque<TargetFile> files_;
    std::vector<Counters> counters_;
    const SteadyClock::time_point start_;

    // Set by whoever finds it first.
    std::mutex outcome_mutex_;
    std::condition_variable finished_;
    std::optional<Failure> failure_;
    std::exception_ptr error_;
    unsigned nr_finished_ = 0;
    std::uint64_t ops_per_thread_ = 0;

    // Shared runs: decided by one thread between two barriers, read by all after the second.
    bool last_epoch_ = false;
};

Outcome Run::execute() {
    create_files();
    std::vector<std::string> names;
    for (const TargetFile& file : files_) {
        names.push_back(file.name);
    }
    Bystanders bystanders(directory_.get(), options_.bystanders, std::move(names));
    std::vector<std::thread> threads;
    std::barrier<> barrier(options_.threads);
    for (unsigned thread = 0; thread < options_.threads; ++thread) {
        threads.emplace_back([this, thread, &barrier] {
            try {
                options_.shared ? run_shared(thread, barrier) : run_owned(thread);
            } catch (const StressFailed& failed) {
                record_failure(failed.failure());
            } catch (...) {
                record_error();
            }
            const std::lock_guard lock(outcome_mutex_);
            ++nr_finished_;
            finished_.notify_all();
        });
    }
    watch(threads);
    if (const std::optional<Failure> failure = bystanders.finish()) {
        record_failure(*failure);
    }
    Outcome outcome{.failure = failure_,
                    .interrupted = interrupted.load(),
                    .cannot_map = context_.cannot_map.load(),
                    .seconds = elapsed(),
                    .ops_per_thread = ops_per_thread_,
                    .totals = totals(),
                    .files = {}};
    if (error_ != nullptr) {
        std::rethrow_exception(error_);
    }
    summarise_files(outcome);
    if (!outcome.failure && !options_.keep) {
        drop_files(files_.size());
    }
    return outcome;
}

void Run::create_files() {
    const unsigned owners = options_.shared ? 1 : options_.threads;
    for (unsigned owner = 0; owner < owners; ++owner) {
        for (unsigned i = 0; i < options_.files; ++i) {
            const auto id = static_cast<std::uint32_t>(files_.size());
            files_.emplace_back(id, options_.shared
                                        ? fmt::format("stress-shared-{:02}.dat", i)
                                        : fmt::format("stress-{:02}-{:02}.dat", owner, i));
        }
    }
    std::size_t nr_created = 0;
    for (const TargetFile& file : files_) {
        const int flags = O_CREAT | O_RDWR | O_CLOEXEC | (options_.overwrite ? O_TRUNC : O_EXCL);
        const int fd = ::openat(directory_.get(), file.name.c_str(), flags, 0644);
        if (fd < 0) {
            const int error = errno;
            drop_files(nr_created);
            throw std::system_error(
                error, std::generic_category(),
                fmt::format("cannot create {}/{}{}", options_.directory, file.name,
                            error == EEXIST ? " (of an earlier run? see --overwrite)" : ""));
        }
        ::close(fd);
        ++nr_created;
    }
}

void Run::drop_files(std::size_t nr_created) {
    for (std::size_t i = 0; i < nr_created; ++i) {
        ::unlinkat(directory_.get(), files_[i].name.c_str(), 0);
    }
}

// Every thread has its files for itself.
void Run::run_owned(unsigned thread) {
    Counters& counters = counters_[thread];
    std::vector<std::unique_ptr<FileHandle>> handles;
    for (unsigned i = 0; i < options_.files; ++i) {
        handles.push_back(std::make_unique<FileHandle>(
            context_, files_[thread * options_.files + i], thread, counters));
        handles.back()->open(0);
    }
    const Range everything{.begin = 0, .end = ~std::uint64_t{0}};
    std::uint64_t op_index = 0;
    for (; !should_stop(op_index); ++op_index) {
        Random random(options_.seed, thread, op_index);
        FileHandle& handle = *handles[random.below(handles.size())];
        const Op op = plan_owned(random, limits(handle.file()), handle.file().size());
        handle.perform(op, op_index, {&everything, 1});
    }
    for (const auto& handle : handles) {
        if (context_.stop.load()) {
            break;
        }
        handle->check_size();
        handle->evict_and_check({&everything, 1});
    }
    const std::lock_guard lock(outcome_mutex_);
    ops_per_thread_ = std::max(ops_per_thread_, op_index);
}

// All threads work on every file. Below its floor a file is divided into slots of odd length, so
// that two threads meet in one page; slot i belongs to thread i modulo threads. From the floor on,
// and in length, the file belongs to its growing thread. Between epochs all files are compared
// whole and get a new floor.
void Run::run_shared(unsigned thread, std::barrier<>& barrier) {
    std::vector<std::unique_ptr<FileHandle>> handles;
    // A thread that fails must go on meeting the others at the barriers.
    const auto guarded = [&](auto&& work) {
        try {
            if (!context_.stop.load()) {
                work();
            }
        } catch (const StressFailed& failed) {
            record_failure(failed.failure());
        } catch (...) {
            record_error();
        }
    };
    guarded([&] {
        for (TargetFile& file : files_) {
            handles.push_back(
                std::make_unique<FileHandle>(context_, file, thread, counters_[thread]));
            handles.back()->open(0);
        }
    });
    std::uint64_t op_index = 0;
    for (bool last = false; !last;) {
        barrier.arrive_and_wait();
        guarded([&] {
            for (const auto& handle : handles) {
                if (grower_of(handle->file()) == thread) {
                    new_epoch_of(*handle, op_index);
                }
            }
        });
        if (thread == 0) {
            last_epoch_ = should_stop(op_index);
        }
        barrier.arrive_and_wait();
        last = last_epoch_;
        if (!last) {
            guarded([&] { epoch(thread, handles, op_index); });
            op_index +=
                options_.ops == 0 ? kEpochOps : std::min(kEpochOps, options_.ops - op_index);
        }
    }
    const std::lock_guard lock(outcome_mutex_);
    ops_per_thread_ = std::max(ops_per_thread_, op_index);
}

void Run::epoch(unsigned thread, std::vector<std::unique_ptr<FileHandle>>& handles,
                std::uint64_t first_op) {
    const std::uint64_t nr_ops =
        options_.ops == 0 ? kEpochOps : std::min(kEpochOps, options_.ops - first_op);
    for (std::uint64_t op_index = first_op; op_index < first_op + nr_ops && !context_.stop.load();
         ++op_index) {
        Random random(options_.seed, thread, op_index);
        shared_op(thread, *handles[random.below(handles.size())], random, op_index);
    }
}

void Run::shared_op(unsigned thread, FileHandle& handle, Random& random, std::uint64_t op_index) {
    TargetFile& file = handle.file();
    const std::vector<Range> owned = owned_ranges(file, thread);
    const bool grows = grower_of(file) == thread;
    if (owned.empty() || (grows && random.one_in(2))) {
        if (grows) {
            handle.perform(plan_owned(random, limits(file), file.size()), op_index, owned);
        }
        return;
    }
    const std::uint64_t slot = slot_bytes(file);
    // The tail is no slot.
    const std::uint64_t nr_slots = owned.size() - (grows ? 1 : 0);
    if (nr_slots == 0) {
        return;
    }
    const Range range = owned[random.below(nr_slots)];
    Op op = plan_in_range(random, limits(file), range.begin, range.end - range.begin);
    if (op.kind == OpKind::kSpy) {
        // Somebody else's: the neighbouring slots.
        op.offset = range.begin >= slot ? range.begin - slot : 0;
        op.length = std::min({file.floor - op.offset, 3 * slot, options_.max_write});
    }
    handle.perform(op, op_index, owned);
}

// The growing thread alone, all others waiting: compare the whole file, then give it a new stable
// part.
void Run::new_epoch_of(FileHandle& handle, std::uint64_t op_index) {
    TargetFile& file = handle.file();
    const Range everything{.begin = 0, .end = ~std::uint64_t{0}};
    handle.check_size();
    handle.evict_and_check({&everything, 1});
    Random random(options_.seed, kEpochStream + file.id, op_index);
    file.floor = 0;
    if (random.one_in(4)) {
        handle.perform({.kind = OpKind::kTruncate, .offset = 0}, op_index, {&everything, 1});
    }
    const std::uint64_t stable =
        pick_odd_size(random, limits(file), 4096, options_.max_size / 2, options_.max_size / 4) /
        8 * 8;
    if (file.size() < stable) {
        handle.perform({.kind = OpKind::kTruncate, .offset = stable}, op_index, {&everything, 1});
    }
    file.floor = std::min(stable, file.size() / 8 * 8);
}

bool Run::should_stop(std::uint64_t ops_done) const {
    if (context_.stop.load(std::memory_order_relaxed) ||
        interrupted.load(std::memory_order_relaxed)) {
        return true;
    }
    return options_.ops != 0 ? ops_done >= options_.ops : elapsed() >= options_.seconds;
}

void Run::record_failure(const Failure& failure) {
    const std::lock_guard lock(outcome_mutex_);
    if (!failure_) {
        failure_ = failure;
        ops_per_thread_ = std::max(ops_per_thread_, failure.op_index + 1);
    }
    context_.stop.store(true);
}

void Run::record_error() {
    const std::lock_guard lock(outcome_mutex_);
    if (error_ == nullptr) {
        error_ = std::current_exception();
    }
    context_.stop.store(true);
}

PlanLimits Run::limits(const TargetFile& file) const {
    return {.floor = file.floor,
            .max_size = options_.max_size,
            .max_write = options_.max_write,
            .cluster = context_.cluster,
            .names = options_.names && !options_.shared,
            .four_gib = options_.four_gib,
            .mmap = !options_.no_mmap,
            .mix = options_.mix};
}

std::uint64_t Run::slot_bytes(const TargetFile& file) const {
    return 8 * Random(options_.seed, kEpochStream, file.id).between(65, 1500);
}

std::vector<Range> Run::owned_ranges(TargetFile& file, unsigned thread) const {
    const std::uint64_t slot = slot_bytes(file);
    std::vector<Range> ranges;
    for (std::uint64_t begin = thread * slot; begin < file.floor;
         begin += options_.threads * slot) {
        ranges.push_back({.begin = begin, .end = std::min(begin + slot, file.floor)});
    }
    if (grower_of(file) == thread) {
        ranges.push_back({.begin = file.floor, .end = ~std::uint64_t{0}});
    }
    return ranges;
}

Totals Run::totals() const {
    Totals sum;
    for (const Counters& counters : counters_) {
        for (unsigned kind = 0; kind < kNrOpKinds; ++kind) {
            const std::uint64_t ops = counters.ops[kind].load(std::memory_order_relaxed);
            sum.ops[kind] += ops;
            sum.nr_ops += ops;
        }
        sum.bytes_written += counters.bytes_written.load(std::memory_order_relaxed);
        sum.bytes_checked += counters.bytes_checked.load(std::memory_order_relaxed);
        sum.refused_full += counters.refused_full.load(std::memory_order_relaxed);
        sum.refused_too_big += counters.refused_too_big.load(std::memory_order_relaxed);
        sum.skipped += counters.skipped.load(std::memory_order_relaxed);
    }
    return sum;
}

// Draws the progress until every thread is done.
void Run::watch(std::vector<std::thread>& threads) {
    ProgressLine progress(options_);
    {
        std::unique_lock lock(outcome_mutex_);
        while (!finished_.wait_for(lock, kProgressInterval,
                                   [&] { return nr_finished_ == options_.threads; })) {
            progress.update(totals(), elapsed());
        }
    }
    progress.finish();
    for (std::thread& thread : threads) {
        thread.join();
    }
}

void Run::summarise_files(Outcome& outcome) {
    if (options_.manifest.empty() || outcome.failure) {
        return;
    }
    std::vector<std::byte> chunk(256U << 10);
    const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(),
                                                                         &XXH3_freeState);
    for (TargetFile& file : files_) {
        XXH3_64bits_reset(state.get());
        file.model.for_each_run(
            0, file.model.size(), [&](std::uint64_t offset, std::uint64_t length, auto generation) {
                for (std::uint64_t done = 0; done < length; done += chunk.size()) {
                    const std::size_t count = std::min<std::uint64_t>(chunk.size(), length - done);
                    context_.content.fill(file.id, generation, offset + done,
                                          {chunk.data(), count});
                    XXH3_64bits_update(state.get(), chunk.data(), count);
                }
                return true;
            });
        outcome.files.push_back({.name = file.name,
                                 .size = file.model.size(),
                                 .xxh3 = XXH3_64bits_digest(state.get())});
    }
}

}  // namespace

Outcome run_truncate_stress(const StressOptions& options) {
    return Run(options).execute();
}

void install_interrupt_handler() {
    struct sigaction action {};
    action.sa_handler = on_interrupt;
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
}

}  // namespace wbfat::tools
