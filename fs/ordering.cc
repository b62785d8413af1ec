// The group commit: who shares it, what it writes in which phase, and what remains after a failure.
#include "fs/ordering.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <deque>
#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "cache/base/check.h"
#include "cache/filemap.h"
#include "cache/freeze.h"
#include "cache/page_cache.h"
#include "cache/page_frames.h"
#include "cache/page_lock.h"
#include "cache/writeback.h"
#include "fs/allocator.h"
#include "fs/inode.h"
#include "fs/volume.h"

namespace wbfat::fs::inline WBFAT_RT {

namespace {

using cache::Page;

constexpr std::size_t kNrPhases = 6;
// Commits that fail in a row before the volume is given up.
constexpr unsigned kMaxFailures = 8;
// Pending blocks, inodes or held-back changes that make a commit due at once.
constexpr std::size_t kMaxPending = 16384;
// Each pending block may keep a whole page dirty: no more than this share of the cache.
constexpr std::size_t kPendingShareOfCache = 16;
// Pages looked at in one go when data is made dirty again.
constexpr std::size_t kPageBatch = 64;

constexpr std::size_t index_of(Phase phase) {
    return static_cast<std::size_t>(phase);
}

bool device_is_gone(int error) {
    return error == ENODEV || error == ENXIO || error == ENOMEDIUM;
}

// Notices writeback errors of a mapping from now on, without taking them from whoever opens the
// file next: an error nobody has seen before is put back.
class DataErrorWatch {
public:
    explicit DataErrorWatch(cache::AddressSpace& mapping)
        : mapping_(mapping), since_(mapping.wb_err.sample()) {
        if (since_ == 0) {
            unseen_ = mapping_.wb_err.check_and_advance(since_);
        }
    }
    ~DataErrorWatch() {
        if (unseen_ != 0 && mapping_.wb_err.check(since_) == 0) {
            mapping_.wb_err.set(unseen_);
        }
    }
    DataErrorWatch(const DataErrorWatch&) = delete;
    DataErrorWatch& operator=(const DataErrorWatch&) = delete;

    int error() const {
        return mapping_.wb_err.check(since_);
    }

private:
    cache::AddressSpace& mapping_;
    cache::ErrSeq::Cursor since_;
    int unseen_ = 0;
};

// Blocks of the device mapping on their way to stable storage. Their pages are held, so that
// reclaim cannot drop a copy that a failed flush still needs.
class UnstableBlocks {
public:
    explicit UnstableBlocks(cache::AddressSpace& mapping) : mapping_(mapping) {}
    ~UnstableBlocks() {
        forget();
    }
    UnstableBlocks(const UnstableBlocks&) = delete;
    UnstableBlocks& operator=(const UnstableBlocks&) = delete;

    void add(std::span<const std::uint64_t> blocks) {
        for (const std::uint64_t block : blocks) {
            const std::uint64_t offset = block * cache::kBlockSize;
            Held& held = pages_[cache::page_index(offset)];
            held.blocks |= cache::blocks_covering(cache::offset_in_page(offset), cache::kBlockSize);
            if (held.page == nullptr) {
                held.page = mapping_.i_pages.find_get(cache::page_index(offset));
            }
        }
    }
    void make_dirty_again() {
        for (const auto& [index, held] : pages_) {
            if (held.page != nullptr) {
                Page& page = *held.page;
                cache::lock_page(page);
                if (page.mapping.load() == &mapping_) {
                    cache::set_page_dirty(page, held.blocks);
                }
                cache::unlock_page(page);
            }
        }
    }
    void forget() {
        for (const auto& [index, held] : pages_) {
            if (held.page != nullptr) {
                cache::put_page(*held.page);
            }
        }
        pages_.clear();
    }

private:
    struct Held {
        Page* page = nullptr;
        cache::BlockMask blocks = 0;
    };
    cache::AddressSpace& mapping_;
    std::map<cache::pgoff_t, Held> pages_;
};

// A flush failed: what was written since the one before may be lost, so all of it is due again.
void make_data_dirty_again(cache::AddressSpace& mapping, int error) {
    std::array<Page*, kPageBatch> pages{};
    const std::uint64_t size = mapping.i_size();
    for (cache::pgoff_t start = 0; start < cache::pages_for(size);) {
        const std::size_t found =
            mapping.i_pages.find_get_range(start, cache::pages_for(size) - 1, pages);
        if (found == 0) {
            break;
        }
        start = pages.at(found - 1)->index + 1;
        for (std::size_t i = 0; i < found; ++i) {
            Page& page = *pages.at(i);
            cache::lock_page(page);
            const std::uint64_t offset = cache::page_offset(page.index);
            if (page.mapping.load() == &mapping && cache::page_test(page, cache::PG_uptodate) &&
                offset < size) {
                const std::size_t length = std::min<std::uint64_t>(cache::kPageSize, size - offset);
                cache::set_page_dirty(page, cache::blocks_covering(0, length));
            }
            cache::unlock_page(page);
            cache::put_page(page);
        }
    }
    cache::mapping_set_error(mapping, error);
}

}  // namespace

class Ordering::Impl {
public:
    explicit Impl(Volume& volume);
    ~Impl();

    Result<> commit(bool even_if_stopped) EXCLUDES(mutex_);
    Result<> try_commit() EXCLUDES(mutex_);
    void commit_if_large();
    void commit_if_due() EXCLUDES(mutex_);
    bool anything_pending() const EXCLUDES(mutex_);

    void note_blocks(Phase phase, std::uint64_t offset, std::uint64_t length) EXCLUDES(mutex_);
    void note_new_directory_cluster(cluster_t cluster) EXCLUDES(mutex_);
    void hold_back(Phase phase, std::function<Result<>()> apply) EXCLUDES(mutex_);
    void note_inode(Inode& inode) EXCLUDES(mutex_);
    void hold_inode(Inode& inode) EXCLUDES(mutex_);
    void forget_inode(Inode& inode) EXCLUDES(mutex_);

    Result<> begin_transaction();
    void end_transaction();
    bool in_transaction() const EXCLUDES(tasks_lock_);

    void stop() EXCLUDES(mutex_);
    Result<> with_transactions_stopped(const std::function<Result<>()>& work);
    Result<> flush_freed() EXCLUDES(mutex_);
    void state_is_clean() {
        marked_.store(false);
    }
    void drop_everything() EXCLUDES(mutex_);

    std::uint64_t sequence() const {
        return sequence_.load();
    }
    bool is_durable(std::uint64_t sequence) const {
        return sequence <= durable_.load();
    }

private:
    // One commit and those who wait for it.
    struct Run {
        bool sealed = false;   // no transaction can join any more
        bool barrier = false;  // somebody's data relies on a device flush
        bool done = false;
        Result<> result;
    };
    // An inode of the commit under way.
    struct Entry {
        Inode* inode = nullptr;
        std::uint64_t size = 0;  // of the file when its data began to be written
        bool is_final = true;    // false: the entry must be written once more, in kFree
    };

    Result<> lead(Run& run, sync::MutexLock& lock) REQUIRES(mutex_);
    Result<> run_commit(Run& run) EXCLUDES(mutex_);
    void write_data_early() EXCLUDES(mutex_);
    Result<> run_phases(bool barrier) EXCLUDES(mutex_);
    Result<> write_data(std::vector<Entry>& entries);
    Result<> write_entries(std::vector<Entry>& entries);
    Result<> apply_held_back(Phase phase) EXCLUDES(mutex_);
    Result<> write_phase(Phase phase) EXCLUDES(mutex_);
    Result<> flush() EXCLUDES(mutex_);
    Result<> flush_if_written() EXCLUDES(mutex_);
    Result<> free_phase(std::vector<Entry>& entries) EXCLUDES(mutex_);
    void settle(const std::vector<Entry>& entries) EXCLUDES(mutex_);
    void account(const Result<>& result) EXCLUDES(mutex_);
    std::vector<Entry> entries_of_commit() EXCLUDES(mutex_);
    void note_locked(Phase phase, std::uint64_t block) REQUIRES(mutex_);
    bool in_new_cluster_locked(std::uint64_t block) const REQUIRES(mutex_);
    bool pending_locked() const REQUIRES(mutex_);
    void update_large_locked() REQUIRES(mutex_);
    void enter_task() EXCLUDES(tasks_lock_);
    void leave_task() EXCLUDES(tasks_lock_);
    void committer() EXCLUDES(mutex_);
    void kick() EXCLUDES(mutex_);

    Volume& volume_;
    const std::size_t large_;  // pending blocks

    // The transaction lock.
    sync::RwSem transactions_{sync::LockRank::kTransaction};

    mutable sync::SpinLock tasks_lock_;
    std::vector<const sync::Task*> tasks_ GUARDED_BY(tasks_lock_);

    sync::Mutex mark_mutex_;  // serialises writing the dirty mark
    sync::Atomic<bool> marked_{false};

    // What is pending. Changed inside transactions and by the commit; emptied phase by phase, so
    // that after a failure the rest simply is still here.
    mutable sync::Mutex mutex_;
    std::array<std::unordered_set<std::uint64_t>, kNrPhases> blocks_ GUARDED_BY(mutex_);
    std::array<std::deque<std::function<Result<>()>>, kNrPhases> held_ GUARDED_BY(mutex_);
    std::unordered_set<cluster_t> new_clusters_ GUARDED_BY(mutex_);
    std::unordered_map<Inode*, InodeRef> noted_ GUARDED_BY(mutex_);
    std::unordered_map<Inode*, InodeRef> kept_ GUARDED_BY(mutex_);
    bool unflushed_ GUARDED_BY(mutex_) = false;  // what the last commit freed is still in unstable_
    bool applying_ GUARDED_BY(mutex_) =
        false;  // the commit itself changes pages, for applying_phase_
    Phase applying_phase_ GUARDED_BY(mutex_) = Phase::kAllocate;

    std::shared_ptr<Run> running_ GUARDED_BY(mutex_);
    sync::CondVar run_done_;
    unsigned failures_ GUARDED_BY(mutex_) = 0;
    sync::Nanoseconds last_commit_ GUARDED_BY(mutex_){};

    // Not guarded: whoever stops the volume may hold any lock (a failed assertion).
    sync::Atomic<bool> stopped_{false};
    sync::Atomic<std::uint64_t> sequence_{1};
    sync::Atomic<std::uint64_t> durable_{0};
    sync::Atomic<bool> is_large_{false};

    // Written and not flushed: by the commit under way, and by kFree of the one before. Touched by
    // the leader of a commit only, with transactions_ held exclusively.
    UnstableBlocks unstable_;
    std::vector<std::pair<Phase, std::uint64_t>> unstable_blocks_;
    std::vector<cache::AddressSpace*> unstable_data_;
    // Of the commit under way.
    bool wrote_ = false;    // since its last flush
    bool flushed_ = false;  // at all

    // The committer thread.
    sync::CondVar kicked_;
    bool kick_ GUARDED_BY(mutex_) = false;
    bool quit_ GUARDED_BY(mutex_) = false;
    sync::Thread thread_;  // last: joined before the rest goes
};

Ordering::Impl::Impl(Volume& volume)
    : volume_(volume),
      large_(std::clamp<std::size_t>(volume.cache().frames().nr_frames() / kPendingShareOfCache, 16,
                                     kMaxPending)),
      last_commit_(sync::monotonic_now()),
      unstable_(volume.device_mapping()),
      thread_("wbfat-commit", sync::Role::kFlusher, [this] { committer(); }) {}

Ordering::Impl::~Impl() {
    {
        const sync::MutexLock lock(mutex_);
        quit_ = true;
        kicked_.notify_all();
    }
    thread_.join();
    drop_everything();
}

// --- what is pending ---

bool Ordering::Impl::in_new_cluster_locked(std::uint64_t block) const {
    const Geometry& geometry = volume_.geometry();
    const std::uint64_t data = geometry.data_sector * geometry.sector_bytes;
    const std::uint64_t offset = block * cache::kBlockSize;
    if (new_clusters_.empty() || offset < data) {
        return false;
    }
    const std::uint64_t cluster = ((offset - data) >> geometry.cluster_shift) + kFirstCluster;
    return new_clusters_.contains(static_cast<cluster_t>(cluster));
}

// O2: a directory sector stays in kAllocate if it was noted for that. What is due in kAllocate
// never waits: a sector of the FAT with a directory's link, left in kEntry by a commit that failed,
// may go earlier, for what the link leads to is durable since.
void Ordering::Impl::note_locked(Phase phase, std::uint64_t block) {
    if (applying_) {
        blocks_.at(index_of(applying_phase_)).insert(block);
        return;
    }
    if (phase == Phase::kEntry && in_new_cluster_locked(block)) {
        phase = Phase::kAllocate;
    }
    if (phase == Phase::kAllocate || !blocks_.at(index_of(Phase::kAllocate)).contains(block)) {
        blocks_.at(index_of(phase)).insert(block);
    }
}

void Ordering::Impl::note_blocks(Phase phase, std::uint64_t offset, std::uint64_t length) {
    if (length == 0) {
        return;
    }
    BUG_ON(phase != Phase::kAllocate && phase != Phase::kEntry, "O2",
           "only these phases may change pages at once");
    const sync::MutexLock lock(mutex_);
    const std::uint64_t last = (offset + length - 1) / cache::kBlockSize;
    for (std::uint64_t block = offset / cache::kBlockSize; block <= last; ++block) {
        note_locked(phase, block);
    }
    update_large_locked();
}

void Ordering::Impl::note_new_directory_cluster(cluster_t cluster) {
    const sync::MutexLock lock(mutex_);
    new_clusters_.insert(cluster);
}

void Ordering::Impl::hold_back(Phase phase, std::function<Result<>()> apply) {
    BUG_ON(phase == Phase::kAllocate, "O3", "changes for this phase are made at once");
    const sync::MutexLock lock(mutex_);
    held_.at(index_of(phase)).push_back(std::move(apply));
    update_large_locked();
}

void Ordering::Impl::note_inode(Inode& inode) {
    if (inode.i_pos == Inode::kNoEntry || inode.nlink == 0) {
        return;
    }
    const sync::MutexLock lock(mutex_);
    inode.dirty_sequence.store(sequence_.load());
    if (!noted_.contains(&inode)) {
        noted_.emplace(&inode, InodeRef(inode));
    }
    update_large_locked();
}

void Ordering::Impl::hold_inode(Inode& inode) {
    const sync::MutexLock lock(mutex_);
    if (!kept_.contains(&inode)) {
        kept_.emplace(&inode, InodeRef(inode));
    }
}

void Ordering::Impl::forget_inode(Inode& inode) {
    InodeRef dropped;
    const sync::MutexLock lock(mutex_);
    const auto found = noted_.find(&inode);
    if (found != noted_.end()) {
        // The caller has one of his own: this is not the last.
        dropped = std::move(found->second);
        noted_.erase(found);
    }
}

bool Ordering::Impl::pending_locked() const {
    const auto is_empty = [](const auto& set) { return set.empty(); };
    return unflushed_ || !noted_.empty() || !kept_.empty() ||
           !std::all_of(blocks_.begin(), blocks_.end(), is_empty) ||
           !std::all_of(held_.begin(), held_.end(), is_empty);
}

bool Ordering::Impl::anything_pending() const {
    const sync::MutexLock lock(mutex_);
    return pending_locked();
}

void Ordering::Impl::update_large_locked() {
    std::size_t blocks = 0;
    std::size_t held = 0;
    for (std::size_t phase = 0; phase < kNrPhases; ++phase) {
        blocks += blocks_.at(phase).size();
        held += held_.at(phase).size();
    }
    is_large_.store(blocks >= large_ || held >= kMaxPending || noted_.size() >= kMaxPending,
                    std::memory_order_relaxed);
}

// --- transactions ---

void Ordering::Impl::enter_task() {
    const sync::SpinLockGuard lock(tasks_lock_);
    tasks_.push_back(&sync::current_task());
}

void Ordering::Impl::leave_task() {
    const sync::SpinLockGuard lock(tasks_lock_);
    const auto found = std::find(tasks_.begin(), tasks_.end(), &sync::current_task());
    BUG_ON(found == tasks_.end(), "O7", "a transaction ends in another task");
    *found = tasks_.back();
    tasks_.pop_back();
}

bool Ordering::Impl::in_transaction() const {
    const sync::SpinLockGuard lock(tasks_lock_);
    return std::find(tasks_.begin(), tasks_.end(), &sync::current_task()) != tasks_.end();
}

Result<> Ordering::Impl::begin_transaction()
    NO_THREAD_SAFETY_ANALYSIS {  // end_transaction releases the lock
    BUG_ON(in_transaction(), "O7", "transactions nest");
    transactions_.lock_shared();
    enter_task();
    if (volume_.is_read_only()) {
        return Errno{EROFS};
    }
    if (!marked_.load()) {
        const sync::MutexLock lock(mark_mutex_);
        if (!marked_.load()) {
            TRY_VOID(volume_.write_state_mark(true));
            marked_.store(true);
        }
    }
    return {};
}

void Ordering::Impl::end_transaction()
    NO_THREAD_SAFETY_ANALYSIS {  // begin_transaction took the lock
    leave_task();
    transactions_.unlock_shared();
    volume_.inodes().evict_deferred();
    commit_if_large();
}

Result<> Ordering::Impl::with_transactions_stopped(const std::function<Result<>()>& work) {
    BUG_ON(in_transaction(), "O7", "stopping transactions inside one");
    Result<> result;
    {
        const sync::WriteGuard guard(transactions_);
        enter_task();
        result = work();
        leave_task();
    }
    volume_.inodes().evict_deferred();
    return result;
}

// --- who commits ---

Result<> Ordering::Impl::commit(bool even_if_stopped) {
    BUG_ON(in_transaction(), "O7", "a commit inside a transaction");
    sync::MutexLock lock(mutex_);
    while (running_ != nullptr) {
        const std::shared_ptr<Run> run = running_;
        const bool joined = !run->sealed;
        run->barrier = run->barrier || joined;
        while (!run->done) {
            run_done_.wait(lock);
        }
        if (joined || !run->result.has_value()) {
            return run->result;
        }
        // All changes made before the call are durable. But data that was written during that
        // commit may have missed its flush: one more commit, shared by all who came late, and most
        // often nothing but a flush.
    }
    if (stopped_.load() && !even_if_stopped) {
        return Errno{EROFS};
    }
    Run& run = *(running_ = std::make_shared<Run>());
    run.barrier = true;
    return lead(run, lock);
}

Result<> Ordering::Impl::try_commit() {
    sync::MutexLock lock(mutex_);
    if (running_ != nullptr || !pending_locked()) {
        return {};
    }
    if (stopped_.load()) {
        return Errno{EROFS};
    }
    return lead(*(running_ = std::make_shared<Run>()), lock);
}

Result<> Ordering::Impl::lead(Run& run, sync::MutexLock& lock) {
    const std::shared_ptr<Run> keep = running_;
    mutex_.unlock();
    const Result<> result = run_commit(run);
    mutex_.lock();
    run.result = result;
    run.done = true;
    running_.reset();
    last_commit_ = sync::monotonic_now();
    update_large_locked();
    run_done_.notify_all();
    static_cast<void>(lock);
    return result;
}

void Ordering::Impl::stop() {
    stopped_.store(true);
}

void Ordering::Impl::kick() {
    const sync::MutexLock lock(mutex_);
    kick_ = true;
    kicked_.notify_one();
}

void Ordering::Impl::commit_if_large() {
    // Relaxed: whoever makes it large calls this later in the same thread.
    if (is_large_.load(std::memory_order_relaxed)) {
        kick();
    }
}

void Ordering::Impl::commit_if_due() {
    // A tenth of the interval: the flusher's period and ours need not be in step.
    const auto interval = std::chrono::milliseconds(volume_.options().commit_seconds * 900ULL);
    {
        const sync::MutexLock lock(mutex_);
        if (!pending_locked() || sync::monotonic_now() - last_commit_ < interval) {
            return;
        }
    }
    kick();
}

void Ordering::Impl::committer() {
    sync::MutexLock lock(mutex_);
    while (!quit_) {
        if (!kick_) {
            kicked_.wait(lock);
            continue;
        }
        kick_ = false;
        lock.unlock();
        {
            const cache::FreezeGate::Pass pass(cache::background_gate());
            // What failed is logged, stays pending, and is tried again at the next period.
            static_cast<void>(try_commit().has_value());
        }
        lock.lock();
    }
}

// --- the commit ---

// Starts the data of noted inodes while transactions still run, to keep the exclusive section
// short.
void Ordering::Impl::write_data_early() {
    std::vector<InodeRef> files;
    {
        const sync::MutexLock lock(mutex_);
        for (const auto& [inode, ref] : noted_) {
            if (!inode->is_directory()) {
                files.push_back(ref);
            }
        }
    }
    for (const InodeRef& file : files) {
        // Errors: the pages are dirty again, and the exclusive section meets them.
        static_cast<void>(
            cache::filemap_fdatawrite_range(file->mapping(), 0, cache::kLastByte).has_value());
    }
}

Result<> Ordering::Impl::run_commit(Run& run) {
    write_data_early();
    Result<> result;
    {
        const sync::WriteGuard guard(transactions_);
        enter_task();
        bool barrier = false;
        std::uint64_t sealed = 0;
        {
            const sync::MutexLock lock(mutex_);
            run.sealed = true;
            barrier = run.barrier || unflushed_;
            sealed = sequence_.load();
            if (pending_locked()) {
                sequence_.store(sealed + 1);
            }
        }
        result = run_phases(barrier);
        if (result.has_value() && sequence_.load() != sealed) {
            durable_.store(sealed);
        }
        unstable_data_.clear();
        {
            const sync::MutexLock lock(mutex_);
            unflushed_ = !unstable_blocks_.empty();
        }
        leave_task();
    }
    account(result);
    volume_.inodes().evict_deferred();
    return result;
}

std::vector<Ordering::Impl::Entry> Ordering::Impl::entries_of_commit() {
    std::vector<Entry> entries;
    {
        const sync::MutexLock lock(mutex_);
        entries.reserve(noted_.size());
        for (const auto& [inode, ref] : noted_) {
            entries.push_back({inode, 0, true});
        }
    }
    // Data in the order of the disk.
    std::sort(entries.begin(), entries.end(),
              [](const Entry& a, const Entry& b) { return a.inode->i_start < b.inode->i_start; });
    return entries;
}

// The size is taken before the data is written: bytes below it are in pages that are dirty now, or
// under writeback, or written. All files are started before the first is waited for.
Result<> Ordering::Impl::write_data(std::vector<Entry>& entries) {
    struct Started {
        explicit Started(cache::AddressSpace& file) : mapping(file), watch(file) {}
        cache::AddressSpace& mapping;
        DataErrorWatch watch;
    };
    std::deque<Started> files;
    int error = 0;
    const auto fold = [&error](int another) { error = error != 0 ? error : another; };
    for (Entry& entry : entries) {
        if (entry.inode->is_directory()) {
            continue;
        }
        Started& file = files.emplace_back(entry.inode->mapping());
        entry.size = file.mapping.i_size();
        // Even if all of it was written long ago: nobody has flushed the device since.
        if (entry.size != 0) {
            unstable_data_.push_back(&file.mapping);
            wrote_ = true;
        }
        fold(cache::filemap_fdatawrite_range(file.mapping, 0, cache::kLastByte).code());
    }
    for (const Started& file : files) {
        cache::filemap_fdatawait_range(file.mapping, 0, cache::kLastByte);
        fold(file.watch.error());
    }
    return error == 0 ? Result<>{} : Result<>{Errno{error}};
}

Result<> Ordering::Impl::write_entries(std::vector<Entry>& entries) {
    for (Entry& entry : entries) {
        const std::uint64_t size = std::min(entry.size, entry.inode->low_water_size);
        entry.is_final = size == entry.size;
        TRY_VOID(entry.inode->commit_entry(size));
    }
    return {};
}

// FIFO. What was applied is in the pages and noted; what was not stays held back.
Result<> Ordering::Impl::apply_held_back(Phase phase) {
    for (;;) {
        std::function<Result<>()> apply;
        {
            const sync::MutexLock lock(mutex_);
            std::deque<std::function<Result<>()>>& queue = held_.at(index_of(phase));
            applying_ = !queue.empty();
            if (queue.empty()) {
                return {};
            }
            applying_phase_ = phase;
            apply = std::move(queue.front());
            queue.pop_front();
        }
        const Result<> applied = apply();
        const sync::MutexLock lock(mutex_);
        applying_ = false;
        if (!applied.has_value()) {
            held_.at(index_of(phase)).push_front(std::move(apply));
            return applied;
        }
    }
}

Result<> Ordering::Impl::write_phase(Phase phase) {
    std::vector<std::uint64_t> blocks;
    {
        const sync::MutexLock lock(mutex_);
        const auto& pending = blocks_.at(index_of(phase));
        blocks.assign(pending.begin(), pending.end());
    }
    if (blocks.empty()) {
        return {};
    }
    // O5: ascending order is also the order of the FATs.
    std::sort(blocks.begin(), blocks.end());
    wrote_ = true;
    unstable_.add(blocks);
    for (const std::uint64_t block : blocks) {
        unstable_blocks_.emplace_back(phase, block);
    }
    TRY_VOID(cache::sync_dirty_blocks(volume_.device_mapping(), blocks));
    const sync::MutexLock lock(mutex_);
    blocks_.at(index_of(phase)).clear();
    return {};
}

// Everything written so far becomes durable, or is due again.
Result<> Ordering::Impl::flush() {
    const Result<> flushed = volume_.options().nobarrier ? Result<>{} : volume_.device().flush();
    if (!flushed.has_value()) {
        unstable_.make_dirty_again();
        for (cache::AddressSpace* mapping : unstable_data_) {
            make_data_dirty_again(*mapping, flushed.code());
        }
        const sync::MutexLock lock(mutex_);
        for (const auto& [phase, block] : unstable_blocks_) {
            blocks_.at(index_of(phase)).insert(block);
        }
    }
    flushed_ = flushed.has_value();
    wrote_ = false;
    unstable_.forget();
    unstable_blocks_.clear();
    unstable_data_.clear();
    return flushed;
}

Result<> Ordering::Impl::flush_freed() {
    if (unstable_blocks_.empty()) {
        return {};
    }
    TRY_VOID(flush());
    const sync::MutexLock lock(mutex_);
    unflushed_ = false;
    return {};
}

Result<> Ordering::Impl::flush_if_written() {
    return wrote_ ? flush() : Result<>();
}

// The order of this function is the whole point of the file: see ordering.h.
Result<> Ordering::Impl::run_phases(bool barrier) {
    flushed_ = false;
    wrote_ = false;
    std::vector<Entry> entries = entries_of_commit();
    TRY_VOID(write_data(entries));
    TRY_VOID(write_entries(entries));

    TRY_VOID(write_phase(Phase::kAllocate));
    TRY_VOID(flush_if_written());
    {
        // From here on an entry may reach the disk that leads into them.
        const sync::MutexLock lock(mutex_);
        new_clusters_.clear();
    }
    for (const Phase phase : {Phase::kLink, Phase::kEntry, Phase::kUnlink, Phase::kCut}) {
        TRY_VOID(apply_held_back(phase));
        TRY_VOID(write_phase(phase));
        TRY_VOID(flush_if_written());
    }
    TRY_VOID(free_phase(entries));
    if (barrier && !flushed_) {
        TRY_VOID(flush());
    }
    settle(entries);
    return {};
}

// What is freed need not be durable to be used again (O4): no flush of its own, unless a size is
// promised, or so much is free that keeping its pages would be a burden.
Result<> Ordering::Impl::free_phase(std::vector<Entry>& entries) {
    TRY_VOID(apply_held_back(Phase::kFree));
    {
        const sync::MutexLock lock(mutex_);
        applying_ = true;
        applying_phase_ = Phase::kFree;
    }
    bool must_flush = false;
    Result<> noted;
    for (const Entry& entry : entries) {
        if (!entry.is_final && noted.has_value()) {
            noted = entry.inode->commit_entry(entry.size);
            must_flush = true;
        }
    }
    if (noted.has_value()) {
        noted = volume_.update_fsinfo();
    }
    {
        const sync::MutexLock lock(mutex_);
        applying_ = false;
    }
    TRY_VOID(noted);
    TRY_VOID(write_phase(Phase::kFree));
    if (must_flush || unstable_blocks_.size() >= large_) {
        TRY_VOID(flush());
    }
    volume_.discard_freed();
    volume_.allocator().release_pending();
    return {};
}

// Everything is on the disk: lets go of the inodes that have not changed since.
void Ordering::Impl::settle(const std::vector<Entry>& entries) {
    // Released after the lock: the last reference may evict.
    std::vector<InodeRef> released;
    const sync::MutexLock lock(mutex_);
    for (const Entry& entry : entries) {
        Inode& inode = *entry.inode;
        inode.low_water_size = ~std::uint64_t{0};
        if (!inode.is_directory() && inode.mapping().i_size() != entry.size) {
            inode.dirty_sequence.store(sequence_.load());
            inode.size_sequence.store(sequence_.load());
            continue;
        }
        const auto found = noted_.find(&inode);
        released.push_back(std::move(found->second));
        noted_.erase(found);
    }
    for (auto& [inode, ref] : kept_) {
        released.push_back(std::move(ref));
    }
    kept_.clear();
}

void Ordering::Impl::account(const Result<>& result) {
    unsigned failures = 0;
    {
        const sync::MutexLock lock(mutex_);
        failures_ = result.has_value() ? 0 : failures_ + 1;
        failures = failures_;
    }
    if (result.has_value()) {
        return;
    }
    volume_.log(LogLevel::kWarning, "a commit failed with error " + std::to_string(result.code()) +
                                        "; its changes wait for the next");
    if (failures >= kMaxFailures || device_is_gone(result.code())) {
        volume_.shutdown("changes cannot be written to the device");
    }
}

void Ordering::Impl::drop_everything() {
    std::unordered_map<Inode*, InodeRef> noted;
    std::unordered_map<Inode*, InodeRef> kept;
    sync::MutexLock lock(mutex_);
    stopped_.store(true);
    while (running_ != nullptr) {
        run_done_.wait(lock);
    }
    noted.swap(noted_);
    kept.swap(kept_);
    for (std::size_t phase = 0; phase < kNrPhases; ++phase) {
        blocks_.at(phase).clear();
        held_.at(phase).clear();
    }
    new_clusters_.clear();
    unflushed_ = false;
    unstable_.forget();
    unstable_blocks_.clear();
}

// --- the public face ---

Ordering::Ordering(Volume& volume) : impl_(std::make_unique<Impl>(volume)) {}

Ordering::~Ordering() = default;

Result<> Ordering::commit() {
    return impl_->commit(false);
}

Result<> Ordering::try_commit() {
    return impl_->try_commit();
}

void Ordering::commit_if_large() {
    impl_->commit_if_large();
}

void Ordering::commit_if_due() {
    impl_->commit_if_due();
}

bool Ordering::anything_pending() const {
    return impl_->anything_pending();
}

std::uint64_t Ordering::current_sequence() const {
    return impl_->sequence();
}

bool Ordering::is_durable(std::uint64_t sequence) const {
    return impl_->is_durable(sequence);
}

void Ordering::note_blocks(Phase phase, std::uint64_t device_offset_bytes,
                           std::uint64_t length_bytes) {
    impl_->note_blocks(phase, device_offset_bytes, length_bytes);
}

void Ordering::note_new_directory_cluster(cluster_t cluster) {
    impl_->note_new_directory_cluster(cluster);
}

void Ordering::hold_back(Phase phase, std::function<Result<>()> apply) {
    impl_->hold_back(phase, std::move(apply));
}

void Ordering::note_applied(std::uint64_t device_offset_bytes, std::uint64_t length_bytes) {
    impl_->note_blocks(Phase::kEntry, device_offset_bytes, length_bytes);
}

void Ordering::note_inode(Inode& inode) {
    impl_->note_inode(inode);
}

void Ordering::hold_inode(Inode& inode) {
    impl_->hold_inode(inode);
}

void Ordering::forget_inode(Inode& inode) {
    impl_->forget_inode(inode);
}

bool Ordering::in_transaction() const {
    return impl_->in_transaction();
}

Result<> Ordering::commit_stopped() {
    return impl_->commit(true);
}

void Ordering::stop() {
    impl_->stop();
}

Result<> Ordering::with_transactions_stopped(const std::function<Result<>()>& work) {
    return impl_->with_transactions_stopped(work);
}

Result<> Ordering::flush_freed() {
    return impl_->flush_freed();
}

void Ordering::state_is_clean() {
    impl_->state_is_clean();
}

void Ordering::drop_everything() {
    impl_->drop_everything();
}

Transaction::Transaction(Volume& volume)
    : volume_(volume), status_(volume.ordering().impl_->begin_transaction()) {}

Transaction::~Transaction() {
    volume_.ordering().impl_->end_transaction();
}

}  // namespace wbfat::fs::inline WBFAT_RT
