// The flusher thread, its lists, and the brake on writers.
#include "cache/flusher.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "cache/base/check.h"
#include "cache/counters.h"
#include "cache/filemap.h"
#include "cache/page_cache.h"
#include "cache/page_frames.h"
#include "cache/page_io.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

using std::chrono::milliseconds;
using sync::Nanoseconds;

constexpr std::uint32_t kDirty = I_DIRTY_INODE | I_DIRTY_PAGES;

// Pages one inode may write before the next has its turn: 4 MiB. Source: MIN_WRITEBACK_PAGES.
constexpr std::int64_t kWritebackChunkPages = 1024;
// Inodes sync_inodes starts before it waits for the first of them.
constexpr std::size_t kSyncBatch = 1024;
// Longest sleep of a throttled writer before it looks again. Source: MAX_PAUSE.
constexpr milliseconds kMaxPause{200};
// What must have been written while a writer slept, per sleeping writer, to let it go although
// dirty pages still exceed the limit: as much as the largest request dirties.
constexpr std::uint64_t kProgressPages = 256;
// Background writeback starts at so much however large the cache is: a stream is written while it
// comes, and what an fsync finds to do is bounded.
constexpr std::uint64_t kBackgroundMaxBytes = 32ULL << 20;
// Between passes that wrote nothing: the dirty pages belong to a commit in progress, or to a dead
// device.
constexpr milliseconds kIdlePause{20};
constexpr milliseconds kFirstBackoff{100};
constexpr milliseconds kLastBackoff{30000};

std::uint64_t to_ns(Nanoseconds duration) {
    return static_cast<std::uint64_t>(duration.count());
}
Nanoseconds from_centisecs(unsigned centisecs) {
    return milliseconds(std::uint64_t{centisecs} * 10);
}

// AddressSpace::wb_list.
enum ListId : int { kNone = 0, kBDirty = 1, kBIo = 2, kBMoreIo = 3, kBWriteback = 4 };

// Intrusive; head is the newest.
class InodeList {
public:
    explicit InodeList(ListId id) : id_(id) {}
    [[nodiscard]] bool empty() const {
        return head_ == nullptr;
    }
    [[nodiscard]] AddressSpace* tail() const {
        return tail_;
    }
    [[nodiscard]] std::uint64_t size() const {
        return size_;
    }
    void push_head(AddressSpace& mapping) {
        ++size_;
        mapping.wb_list = id_;
        mapping.wb_prev = nullptr;
        mapping.wb_next = head_;
        (head_ != nullptr ? head_->wb_prev : tail_) = &mapping;
        head_ = &mapping;
    }
    void remove(AddressSpace& mapping) {
        --size_;
        (mapping.wb_prev != nullptr ? mapping.wb_prev->wb_next : head_) = mapping.wb_next;
        (mapping.wb_next != nullptr ? mapping.wb_next->wb_prev : tail_) = mapping.wb_prev;
        mapping.wb_prev = mapping.wb_next = nullptr;
        mapping.wb_list = kNone;
    }

private:
    const ListId id_;
    AddressSpace* head_ = nullptr;
    AddressSpace* tail_ = nullptr;
    std::uint64_t size_ = 0;
};

// One request to the flusher thread. Source: struct wb_writeback_work.
struct Work {
    bool for_kupdate = false;
    bool for_background = false;
    std::uint64_t older_than_ns = 0;  // only inodes dirtied at or before
};

}  // namespace

class Flusher::Impl {
public:
    explicit Impl(PageCache& cache);
    ~Impl();
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    void mark_inode_dirty(AddressSpace& mapping, std::uint32_t flags) EXCLUDES(list_lock_);
    void forget(AddressSpace& mapping) EXCLUDES(list_lock_);
    Result<> sync_inodes() EXCLUDES(list_lock_, sync_mutex_);
    Result<> write_inode_now(AddressSpace& mapping, SyncMode mode) EXCLUDES(list_lock_);
    void set_periodic(std::function<void()> work) EXCLUDES(list_lock_);
    void kick() EXCLUDES(list_lock_);
    void start_background() EXCLUDES(list_lock_);
    bool pause_within(Nanoseconds patience) EXCLUDES(list_lock_);
    void resume() EXCLUDES(list_lock_);
    void set_dirty_writeback_centisecs(unsigned centisecs) EXCLUDES(list_lock_);
    FlusherStatus status() const EXCLUDES(list_lock_);
    void balance_dirty_pages() EXCLUDES(throttle_lock_);
    void note_writeback_ended() EXCLUDES(throttle_lock_);

private:
    // --- lists
    InodeList& list_of(int id);
    void move_to(AddressSpace& mapping, ListId id) REQUIRES(list_lock_);
    void requeue(AddressSpace& mapping, const WritebackControl& wbc) REQUIRES(list_lock_);
    void redirty_tail(AddressSpace& mapping) REQUIRES(list_lock_);
    std::uint64_t now_ns() REQUIRES(list_lock_);

    // --- one inode
    void begin_sync(AddressSpace& mapping) REQUIRES(list_lock_);
    void end_sync(AddressSpace& mapping) REQUIRES(list_lock_);
    Result<> writeback_single(AddressSpace& mapping, WritebackControl& wbc) EXCLUDES(list_lock_);

    // --- the thread
    void run() EXCLUDES(list_lock_);
    void wait_for_work() EXCLUDES(list_lock_);
    bool period_due_locked(Nanoseconds now) const REQUIRES(list_lock_);
    bool work_due_locked() REQUIRES(list_lock_);
    Nanoseconds time_to_next_locked() REQUIRES(list_lock_);
    void do_round() EXCLUDES(list_lock_);
    void wb_writeback(const Work& work) EXCLUDES(list_lock_);
    void queue_io(const Work& work) REQUIRES(list_lock_);
    bool writeback_b_io(const Work& work) EXCLUDES(list_lock_);
    bool must_yield() const REQUIRES(list_lock_);
    void update_backoff() EXCLUDES(list_lock_);

    // --- sync
    AddressSpace* next_to_sync(std::uint64_t start_ns) REQUIRES(list_lock_);
    int sync_batch(std::uint64_t start_ns, bool& more) EXCLUDES(list_lock_);

    // --- limits, pages
    std::uint64_t dirty_pages() const;
    bool over_background() const;

    PageCache& cache_;
    std::uint64_t limit_pages_;
    std::uint64_t background_pages_;

    mutable sync::Mutex list_lock_{sync::LockRank::kFlusherList};
    sync::CondVar wake_;     // the thread
    sync::CondVar changed_;  // I_SYNC cleared, the thread went idle, a sync ended
    InodeList b_dirty_ GUARDED_BY(list_lock_){kBDirty};
    InodeList b_io_ GUARDED_BY(list_lock_){kBIo};
    InodeList b_more_io_ GUARDED_BY(list_lock_){kBMoreIo};
    // Clean, but with pages in flight: sync_inodes waits for these too. Source: sb->s_inodes_wb.
    InodeList b_writeback_ GUARDED_BY(list_lock_){kBWriteback};
    std::uint64_t last_stamp_ns_ GUARDED_BY(list_lock_) = 0;
    std::function<void()> periodic_ GUARDED_BY(list_lock_);
    bool stopping_ GUARDED_BY(list_lock_) = false;
    bool kicked_ GUARDED_BY(list_lock_) = false;
    bool background_ GUARDED_BY(list_lock_) = false;
    bool busy_ GUARDED_BY(list_lock_) = false;
    int paused_ GUARDED_BY(list_lock_) = 0;
    int syncs_ GUARDED_BY(list_lock_) = 0;
    // Zero: never.
    Nanoseconds period_ GUARDED_BY(list_lock_){};
    Nanoseconds next_period_ GUARDED_BY(list_lock_){};
    // Background work before then would be in vain.
    Nanoseconds not_before_ GUARDED_BY(list_lock_){};
    Nanoseconds backoff_ GUARDED_BY(list_lock_){};
    std::uint64_t failures_seen_ GUARDED_BY(list_lock_) = 0;

    // One sync_inodes at a time: each relies on inodes it has written looking younger than its
    // start.
    sync::Mutex sync_mutex_;

    // The brake. nr_throttled_ spares completions the mutex while nobody sleeps.
    sync::Mutex throttle_lock_{sync::LockRank::kLeaf};
    sync::CondVar unthrottle_;
    sync::Atomic<std::uint32_t> nr_throttled_{0};
    // Set with kicked_ and background_: spares writers list_lock while the thread is told already.
    sync::Atomic<bool> kick_pending_{false};
    sync::Atomic<bool> background_pending_{false};

    sync::Task* thread_task_ GUARDED_BY(list_lock_) = nullptr;
    sync::Thread thread_;  // last: joined before the rest goes
};

Flusher::Impl::Impl(PageCache& cache) : cache_(cache) {
    const PageCacheOptions& options = cache.options();
    const std::uint64_t frames = cache.frames().nr_frames();
    const unsigned ratio = std::clamp(options.dirty_ratio, 1U, 95U);
    unsigned background = options.dirty_background_ratio;
    if (background >= ratio) {
        background = ratio / 2;
    }
    limit_pages_ = std::max<std::uint64_t>(frames * ratio / 100, 1);
    background_pages_ =
        std::min<std::uint64_t>(frames * background / 100, kBackgroundMaxBytes >> kPageShift);
    {
        const sync::MutexLock lock(list_lock_);
        period_ = from_centisecs(options.dirty_writeback_centisecs);
        next_period_ = sync::monotonic_now() + period_;
    }
    thread_ = sync::Thread("wbfat-flusher", sync::Role::kFlusher, [this] { run(); });
}

Flusher::Impl::~Impl() {
    {
        const sync::MutexLock lock(list_lock_);
        stopping_ = true;
        wake_.notify_all();
    }
    thread_.join();
}

// --- lists

InodeList& Flusher::Impl::list_of(int id) NO_THREAD_SAFETY_ANALYSIS {  // callers hold list_lock_
    switch (id) {
        case kBDirty:
            return b_dirty_;
        case kBIo:
            return b_io_;
        case kBMoreIo:
            return b_more_io_;
        default:
            return b_writeback_;
    }
}

void Flusher::Impl::move_to(AddressSpace& mapping, ListId id) {
    if (mapping.wb_list != kNone) {
        list_of(mapping.wb_list).remove(mapping);
    }
    if (id != kNone) {
        list_of(id).push_head(mapping);
    }
}

// Strictly increasing, so that "dirtied after the start of this sync" can be told from stamps
// alone.
std::uint64_t Flusher::Impl::now_ns() {
    last_stamp_ns_ = std::max(last_stamp_ns_ + 1, to_ns(sync::monotonic_now()));
    return last_stamp_ns_;
}

// Back to b_dirty as if dirtied now: tried again when it expires. Under L3 it keeps its age.
void Flusher::Impl::redirty_tail(AddressSpace& mapping) {
    if (syncs_ == 0) {
        mapping.dirtied_when_ns = now_ns();
    }
    move_to(mapping, kBDirty);
}

// Where an inode goes after it was written. Source: requeue_inode.
void Flusher::Impl::requeue(AddressSpace& mapping, const WritebackControl& wbc) {
    if ((mapping.i_state & I_FREEING) != 0) {
        move_to(mapping, kNone);
    } else if ((mapping.i_state & kDirty) == 0) {
        move_to(mapping, mapping.i_pages.tagged(PAGECACHE_TAG_WRITEBACK) ? kBWriteback : kNone);
    } else if (wbc.sync_mode == WB_SYNC_ALL) {
        mapping.dirtied_when_ns = now_ns();
        move_to(mapping, kBDirty);
    } else if (wbc.pages_skipped == 0 && wbc.nr_to_write <= 0 &&
               mapping.i_pages.tagged(PAGECACHE_TAG_DIRTY)) {
        move_to(mapping, kBMoreIo);
    } else {
        redirty_tail(mapping);
    }
}

void Flusher::Impl::mark_inode_dirty(AddressSpace& mapping, std::uint32_t flags) {
    const sync::MutexLock lock(list_lock_);
    if ((mapping.i_state & flags) == flags || (mapping.i_state & I_FREEING) != 0) {
        return;
    }
    const bool was_dirty = (mapping.i_state & kDirty) != 0;
    mapping.i_state |= flags & kDirty;
    // Whoever has I_SYNC puts it where it belongs when done.
    if (!was_dirty && (mapping.i_state & I_SYNC) == 0) {
        mapping.dirtied_when_ns = now_ns();
        move_to(mapping, kBDirty);
    }
}

void Flusher::Impl::forget(AddressSpace& mapping) {
    sync::MutexLock lock(list_lock_);
    mapping.i_state |= I_FREEING;
    while ((mapping.i_state & I_SYNC) != 0) {
        changed_.wait(lock);
    }
    mapping.i_state &= ~kDirty;
    move_to(mapping, kNone);
}

// --- one inode

void Flusher::Impl::begin_sync(AddressSpace& mapping) {
    mapping.i_state |= I_SYNC;
}

void Flusher::Impl::end_sync(AddressSpace& mapping) {
    mapping.i_state &= ~std::uint32_t{I_SYNC};
    changed_.notify_all();
}

// Source: __writeback_single_inode. Requires: I_SYNC is ours.
Result<> Flusher::Impl::writeback_single(AddressSpace& mapping, WritebackControl& wbc) {
    bool is_dirty = mapping.i_pages.tagged(PAGECACHE_TAG_DIRTY);
    {
        const sync::MutexLock lock(list_lock_);
        is_dirty = is_dirty || (mapping.i_state & kDirty) != 0;
    }
    Result<> result = is_dirty ? do_writepages(mapping, wbc) : Result<>();
    if (wbc.sync_mode == WB_SYNC_ALL && !wbc.for_sync) {
        filemap_fdatawait_range(mapping, 0, kLastByte);
    }
    std::uint32_t dirty = 0;
    {
        const sync::MutexLock lock(list_lock_);
        dirty = mapping.i_state & kDirty;
        mapping.i_state &= ~kDirty;
        // A page dirtied after this look will find I_DIRTY_PAGES clear and set it.
        if (mapping.i_pages.tagged(PAGECACHE_TAG_DIRTY)) {
            mapping.i_state |= I_DIRTY_PAGES;
        }
    }
    if ((dirty & I_DIRTY_INODE) != 0) {
        const Result<> written = mapping.ops().write_inode(mapping, wbc);
        if (!written.has_value()) {
            const sync::MutexLock lock(list_lock_);
            mapping.i_state |= I_DIRTY_INODE;
            result = result.has_value() ? written : result;
        }
    }
    return result;
}

Result<> Flusher::Impl::write_inode_now(AddressSpace& mapping, SyncMode mode) {
    const bool wait = mode == WB_SYNC_ALL;
    if (wait) {
        cache_.io().redirty_failed_pages(PageIo::Redirty::kWait);
    }
    const std::uint64_t errors_before = cache_.counters().write_errors.value();
    const ErrSeq::Cursor cursor = mapping.wb_err.sample();
    sync::MutexLock lock(list_lock_);
    while ((mapping.i_state & I_SYNC) != 0) {
        if (!wait) {
            return {};
        }
        changed_.wait(lock);
    }
    const bool in_flight = wait && mapping.i_pages.tagged(PAGECACHE_TAG_WRITEBACK);
    if ((mapping.i_state & kDirty) == 0 && !in_flight) {
        return {};
    }
    begin_sync(mapping);
    lock.unlock();

    WritebackControl wbc;
    wbc.sync_mode = mode;
    Result<> result = writeback_single(mapping, wbc);
    if (result.has_value() && wait && cache_.counters().write_errors.value() != errors_before) {
        const int error = mapping.wb_err.check(cursor);
        result = error != 0 ? Result<>(Errno{error}) : result;
    }

    lock.lock();
    if ((mapping.i_state & kDirty) == 0) {
        move_to(mapping, mapping.i_pages.tagged(PAGECACHE_TAG_WRITEBACK) ? kBWriteback : kNone);
    } else if (mapping.wb_list == kNone || mapping.wb_list == kBWriteback) {
        mapping.dirtied_when_ns = now_ns();
        move_to(mapping, kBDirty);
    }
    end_sync(mapping);
    return result;
}

// --- sync

// The next inode that was dirty, or in flight, when the sync began. Those being written are met in
// their turn.
AddressSpace* Flusher::Impl::next_to_sync(std::uint64_t start_ns) {
    for (InodeList* list : {&b_io_, &b_more_io_, &b_dirty_, &b_writeback_}) {
        for (AddressSpace* mapping = list->tail(); mapping != nullptr; mapping = mapping->wb_prev) {
            if (mapping->dirtied_when_ns <= start_ns && (mapping->i_state & I_FREEING) == 0) {
                return mapping;
            }
        }
    }
    return nullptr;
}

// Writes up to kSyncBatch inodes, then waits for them. Returns the first error.
int Flusher::Impl::sync_batch(std::uint64_t start_ns, bool& more) {
    std::vector<AddressSpace*> written;  // each with a reference from grab_inode
    written.reserve(kSyncBatch);
    int error = 0;
    sync::MutexLock lock(list_lock_);
    more = false;
    while (AddressSpace* mapping = next_to_sync(start_ns)) {
        if (written.size() == kSyncBatch) {
            more = true;
            break;
        }
        if ((mapping->i_state & I_SYNC) != 0) {
            changed_.wait(lock);
            continue;
        }
        begin_sync(*mapping);
        lock.unlock();
        const bool alive = mapping->ops().grab_inode(*mapping);
        WritebackControl wbc;
        wbc.sync_mode = WB_SYNC_ALL;
        wbc.for_sync = true;
        if (alive) {
            const int code = writeback_single(*mapping, wbc).code();
            error = error != 0 ? error : code;
            written.push_back(mapping);
        }
        lock.lock();
        if (alive) {
            requeue(*mapping, wbc);
        }
        // Clean ones in flight stay on b_writeback, dead ones where they are: neither is to be met
        // again.
        mapping->dirtied_when_ns = now_ns();
        end_sync(*mapping);
    }
    lock.unlock();
    for (AddressSpace* mapping : written) {
        filemap_fdatawait_range(*mapping, 0, kLastByte);
        {
            const sync::MutexLock again(list_lock_);
            if (mapping->wb_list == kBWriteback &&
                !mapping->i_pages.tagged(PAGECACHE_TAG_WRITEBACK)) {
                move_to(*mapping, kNone);
            }
        }
        mapping->ops().drop_inode(*mapping);
    }
    return error;
}

Result<> Flusher::Impl::sync_inodes() {
    const sync::MutexLock one_at_a_time(sync_mutex_);
    cache_.io().redirty_failed_pages(PageIo::Redirty::kWait);
    const std::uint64_t errors_before = cache_.counters().write_errors.value();
    const ErrSeq::Cursor cursor = cache_.s_wb_err.sample();
    std::uint64_t start_ns = 0;
    {
        const sync::MutexLock lock(list_lock_);
        ++syncs_;
        start_ns = now_ns();
    }
    int error = 0;
    for (bool more = true; more;) {
        const int code = sync_batch(start_ns, more);
        error = error != 0 ? error : code;
    }
    {
        const sync::MutexLock lock(list_lock_);
        --syncs_;
        wake_.notify_all();
    }
    if (error == 0 && cache_.counters().write_errors.value() != errors_before) {
        error = cache_.s_wb_err.check(cursor);
    }
    return error != 0 ? Result<>(Errno{error}) : Result<>();
}

// --- the thread

void Flusher::Impl::set_periodic(std::function<void()> work) {
    sync::MutexLock lock(list_lock_);
    periodic_ = std::move(work);
    // The old hook may be running, on behalf of something that is about to go away.
    while (busy_ && thread_task_ != &sync::current_task()) {
        changed_.wait(lock);
    }
}

void Flusher::Impl::kick() {
    // A: one kick is enough; the thread clears this before it looks at what is dirty, so a kick is
    // never lost.
    if (kick_pending_.exchange(true)) {
        return;
    }
    const sync::MutexLock lock(list_lock_);
    kicked_ = true;
    wake_.notify_one();
}

// Source: wb_start_background_writeback.
void Flusher::Impl::start_background() {
    if (background_pending_.exchange(true)) {
        return;
    }
    const sync::MutexLock lock(list_lock_);
    background_ = true;
    wake_.notify_one();
}

bool Flusher::Impl::pause_within(Nanoseconds patience) {
    const Nanoseconds deadline =
        patience == Nanoseconds::max() ? patience : sync::monotonic_now() + patience;
    sync::MutexLock lock(list_lock_);
    ++paused_;
    while (busy_ && thread_task_ != &sync::current_task()) {
        if (deadline == Nanoseconds::max()) {
            changed_.wait(lock);
        } else if (const Nanoseconds now = sync::monotonic_now(); now < deadline) {
            changed_.wait_for(lock, deadline - now);
        } else {
            --paused_;
            wake_.notify_one();
            return false;
        }
    }
    return true;
}

void Flusher::Impl::resume() {
    const sync::MutexLock lock(list_lock_);
    BUG_ON(paused_ == 0, "resume without pause");
    --paused_;
    wake_.notify_one();
}

std::uint64_t Flusher::Impl::dirty_pages() const {
    const PageCache::Counters& counters = cache_.counters();
    return counters.nr_dirty.value() + counters.nr_writeback.value();
}

bool Flusher::Impl::over_background() const {
    return cache_.counters().nr_dirty.value() > background_pages_;
}

void Flusher::Impl::set_dirty_writeback_centisecs(unsigned centisecs) {
    const sync::MutexLock lock(list_lock_);
    period_ = from_centisecs(centisecs);
    next_period_ = sync::monotonic_now() + period_;
    wake_.notify_one();
}

FlusherStatus Flusher::Impl::status() const {
    const sync::MutexLock lock(list_lock_);
    FlusherStatus status;
    status.paused = paused_ > 0;
    status.busy = busy_;
    status.dirty_writeback_centisecs = static_cast<unsigned>(period_ / milliseconds(10));
    status.limit_pages = limit_pages_;
    status.background_pages = background_pages_;
    status.nr_dirty_inodes = b_dirty_.size() + b_io_.size() + b_more_io_.size();
    status.backoff_ms = static_cast<std::uint64_t>(backoff_ / milliseconds(1));
    return status;
}

bool Flusher::Impl::period_due_locked(Nanoseconds now) const {
    return period_ != Nanoseconds::zero() && now >= next_period_;
}

bool Flusher::Impl::work_due_locked() {
    if (stopping_) {
        return true;
    }
    if (paused_ > 0 || syncs_ > 0) {
        return false;
    }
    const Nanoseconds now = sync::monotonic_now();
    return period_due_locked(now) || (now >= not_before_ && (kicked_ || background_));
}

Nanoseconds Flusher::Impl::time_to_next_locked() {
    const Nanoseconds now = sync::monotonic_now();
    Nanoseconds next = period_ != Nanoseconds::zero() ? next_period_ : Nanoseconds::max();
    if (kicked_ || background_) {
        next = std::min(next, std::max(not_before_, now));
    }
    return next == Nanoseconds::max() ? next : std::max(next - now, Nanoseconds(milliseconds(1)));
}

void Flusher::Impl::wait_for_work() {
    sync::MutexLock lock(list_lock_);
    busy_ = false;
    changed_.notify_all();
    while (!work_due_locked()) {
        const Nanoseconds timeout = time_to_next_locked();
        if (paused_ > 0 || syncs_ > 0 || timeout == Nanoseconds::max()) {
            wake_.wait(lock);
        } else {
            wake_.wait_for(lock, timeout);
        }
    }
    busy_ = !stopping_;
}

void Flusher::Impl::run() {
    {
        const sync::MutexLock lock(list_lock_);
        thread_task_ = &sync::current_task();
    }
    for (;;) {
        wait_for_work();
        {
            const sync::MutexLock lock(list_lock_);
            if (stopping_) {
                return;
            }
        }
        do_round();
    }
}

// After failures: wait longer each time, until a write succeeds.
void Flusher::Impl::update_backoff() {
    const std::uint64_t failures = cache_.io().failures_in_a_row();
    const sync::MutexLock lock(list_lock_);
    if (failures == 0) {
        backoff_ = Nanoseconds(0);
    } else if (failures != failures_seen_) {
        backoff_ = std::clamp<Nanoseconds>(backoff_ * 2, kFirstBackoff, kLastBackoff);
        not_before_ = sync::monotonic_now() + backoff_;
    }
    failures_seen_ = failures;
}

void Flusher::Impl::do_round() {
    cache_.io().redirty_failed_pages(PageIo::Redirty::kTry);
    update_backoff();
    bool period = false;
    bool kicked = false;
    bool held_back = false;
    std::uint64_t start_ns = 0;
    std::function<void()> periodic;
    {
        const sync::MutexLock lock(list_lock_);
        const Nanoseconds now = sync::monotonic_now();
        held_back = now < not_before_;
        period = period_due_locked(now);
        if (period) {
            next_period_ = now + period_;
            periodic = periodic_;
        }
        if (!held_back) {
            kicked = std::exchange(kicked_, false);
            background_ = false;
            // A: before anything is looked at.
            kick_pending_.store(false);
            background_pending_.store(false);
        }
        start_ns = now_ns();
    }
    const std::uint64_t submitted = cache_.io().pages_submitted();
    if (kicked) {
        wb_writeback({.older_than_ns = start_ns});
    } else if (period && !held_back) {
        const std::uint64_t expire = to_ns(from_centisecs(cache_.options().dirty_expire_centisecs));
        wb_writeback(
            {.for_kupdate = true, .older_than_ns = start_ns > expire ? start_ns - expire : 0});
    }
    if (!held_back && over_background()) {
        wb_writeback({.for_background = true, .older_than_ns = ~std::uint64_t{0}});
    }
    if (periodic) {
        periodic();
    }
    update_backoff();
    // Not after a round that was held back itself: its pause would never end.
    const bool in_vain = !held_back && cache_.io().pages_submitted() == submitted;
    if (in_vain && cache_.counters().nr_dirty.value() > 0) {
        const sync::MutexLock lock(list_lock_);
        not_before_ = std::max(not_before_, sync::monotonic_now() + kIdlePause);
    }
    note_writeback_ended();
}

bool Flusher::Impl::must_yield() const {
    return stopping_ || paused_ > 0 || syncs_ > 0;
}

// b_more_io, then what is old enough of b_dirty, oldest at the tail. Source: queue_io.
void Flusher::Impl::queue_io(const Work& work) {
    while (AddressSpace* mapping = b_more_io_.tail()) {
        move_to(*mapping, kBIo);
    }
    while (AddressSpace* mapping = b_dirty_.tail()) {
        if (mapping->dirtied_when_ns > work.older_than_ns) {
            break;
        }
        move_to(*mapping, kBIo);
    }
}

// Source: wb_writeback.
void Flusher::Impl::wb_writeback(const Work& work) {
    for (;;) {
        if (work.for_background && !over_background()) {
            return;
        }
        {
            const sync::MutexLock lock(list_lock_);
            if (must_yield()) {
                return;
            }
            if (b_io_.empty()) {
                queue_io(work);
            }
            if (b_io_.empty()) {
                return;
            }
        }
        const std::uint64_t submitted = cache_.io().pages_submitted();
        const std::uint64_t failures = cache_.io().failures_in_a_row();
        if (!writeback_b_io(work) || cache_.io().failures_in_a_row() > failures) {
            return;
        }
        if (cache_.io().pages_submitted() == submitted) {
            return;
        }
    }
}

// Gives each inode of b_io its share. Returns false when it was told to stop. Source:
// writeback_sb_inodes.
bool Flusher::Impl::writeback_b_io(const Work& work) {
    sync::MutexLock lock(list_lock_);
    while (AddressSpace* const mapping = b_io_.tail()) {
        if (must_yield()) {
            return false;
        }
        if ((mapping->i_state & I_FREEING) != 0) {
            move_to(*mapping, kNone);
            continue;
        }
        if ((mapping->i_state & I_SYNC) != 0) {
            // A third party writes it; no reason to wait for that.
            redirty_tail(*mapping);
            continue;
        }
        begin_sync(*mapping);
        lock.unlock();
        WritebackControl wbc;
        wbc.nr_to_write = kWritebackChunkPages;
        wbc.range_cyclic = true;
        wbc.for_kupdate = work.for_kupdate;
        wbc.for_background = work.for_background;
        const bool alive = mapping->ops().grab_inode(*mapping);
        // Its error is in wb_err, and its pages are dirty still.
        const bool failed = alive && !writeback_single(*mapping, wbc).has_value();
        lock.lock();
        if (alive && !failed) {
            requeue(*mapping, wbc);
        } else {
            redirty_tail(*mapping);
        }
        end_sync(*mapping);
        lock.unlock();
        if (alive) {
            mapping->ops().drop_inode(*mapping);  // may free it
        }
        if (work.for_background && !over_background()) {
            return true;
        }
        lock.lock();
    }
    return true;
}

// --- the brake

void Flusher::Impl::note_writeback_ended() {
    // B: a read-modify-write, so that it cannot pass the counters written before; pairs with the
    // one in balance_dirty_pages. Either we see the sleeper or it sees our counters; kMaxPause
    // bounds the rest.
    if (nr_throttled_.fetch_add(0, std::memory_order_seq_cst) == 0) {
        return;
    }
    const sync::MutexLock lock(throttle_lock_);
    unthrottle_.notify_all();
}

void Flusher::Impl::balance_dirty_pages() {
    if (over_background()) {
        start_background();
    }
    if (dirty_pages() <= limit_pages_) {
        return;
    }
    PageCache::Counters& counters = cache_.counters();
    const std::uint64_t written_before = counters.pages_written.value();
    bool slept = false;
    sync::MutexLock lock(throttle_lock_);
    nr_throttled_.fetch_add(1, std::memory_order_seq_cst);  // B
    while (dirty_pages() > limit_pages_) {
        const std::uint64_t enough = kProgressPages * nr_throttled_.load();
        const bool progress = counters.pages_written.value() - written_before >= enough;
        // Nothing that we could wait for: the device is dead. Frames bound the damage.
        const bool in_vain = slept && cache_.io().failures_in_a_row() > 0;
        if (progress || in_vain) {
            break;
        }
        if (!slept) {
            counters.throttle_waits.add();
            slept = true;
        }
        unthrottle_.wait_for(lock, kMaxPause);
        lock.unlock();
        kick();
        lock.lock();
    }
    nr_throttled_.fetch_sub(1);
}

// --- the public face

Flusher::Flusher(PageCache& cache) : impl_(std::make_unique<Impl>(cache)) {}

Flusher::~Flusher() = default;

void Flusher::mark_inode_dirty(AddressSpace& mapping, std::uint32_t i_dirty_flags) {
    impl_->mark_inode_dirty(mapping, i_dirty_flags);
}

void Flusher::forget(AddressSpace& mapping) {
    impl_->forget(mapping);
}

Result<> Flusher::sync_inodes() {
    return impl_->sync_inodes();
}

Result<> Flusher::write_inode_now(AddressSpace& mapping, SyncMode mode) {
    return impl_->write_inode_now(mapping, mode);
}

void Flusher::set_periodic(std::function<void()> work) {
    impl_->set_periodic(std::move(work));
}

void Flusher::kick() {
    impl_->kick();
}

void Flusher::pause() {
    static_cast<void>(impl_->pause_within(Nanoseconds::max()));
}

bool Flusher::pause_within(sync::Nanoseconds patience) {
    return impl_->pause_within(patience);
}

void Flusher::resume() {
    impl_->resume();
}

void Flusher::set_dirty_writeback_centisecs(unsigned centisecs) {
    impl_->set_dirty_writeback_centisecs(centisecs);
}

FlusherStatus Flusher::status() const {
    return impl_->status();
}

void Flusher::balance_dirty_pages(AddressSpace& /*mapping*/) {
    impl_->balance_dirty_pages();
}

void Flusher::note_writeback_ended() {
    impl_->note_writeback_ended();
}

}  // namespace wbfat::cache::inline WBFAT_RT
