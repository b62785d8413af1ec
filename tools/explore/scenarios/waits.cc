// Two waiters, page lock hand-off, killable waits, redirtying, two integrity writers.
#include <algorithm>
#include <iterator>

#include "cache/filemap.h"
#include "cache/page_lock.h"

#include "tools/explore/scenarios/catalogue.h"
#include "tools/explore/scenarios/page_bed.h"
#include "tools/explore/scenarios/second_writeback.h"

namespace wbfat::explore {

namespace {

std::string nth(const char* name, unsigned n) {
    return name + std::to_string(n);
}

// The mail with a second sleeper: one that waits for PG_writeback without the page lock, as
// fdatawait does. Its place in the queue has PG_waiters set before CPU1 clears. With second=0 there
// is one writeback only and CPU3 does no more than wait: few enough traces to see all.
class TwoWaiters final : public SecondWriteback {
public:
    explicit TwoWaiters(const Parameters& parameters) : second_(parameters["second"] != 0) {}

    void set_up() override {
        make_cache();
        add_page(0, Start::kWritebackAndDirty);
        task("CPU1", sync::Role::kCompletion, "ends the first writeback",
             [this] { cache::end_page_writeback(page()); });
        if (second_) {
            task("CPU2", sync::Role::kFlusher, "starts the second writeback",
                 [this] { write_again(); });
        } else {
            unlocked_.unpark();
        }
        task("CPU3", sync::Role::kSyncWriter, "writes and waits for integrity", [this] {
            unlocked_.park();
            if (second_) {
                write_pages(cache::WB_SYNC_ALL);
            } else {
                wait_under_lock(page());
            }
        });
        task("CPU4", sync::Role::kSyncWriter, "waits for what is in flight",
             [this] { cache::wait_on_page_writeback(page()); });
        if (second_) {
            add_io_task();
        }
    }

private:
    const bool second_;
};

// Several lock one page a few times. Each counts under the lock; a lost count is a lock held twice.
class LockFairness final : public PageBed {
public:
    explicit LockFairness(const Parameters& parameters)
        : cpus_(parameters["cpus"]), rounds_(parameters["rounds"]) {}

    void set_up() override {
        make_cache();
        add_page(0, Start::kClean);
        for (unsigned i = 1; i <= cpus_; ++i) {
            task(nth("CPU", i), sync::Role::kRequest, "locks and unlocks the page", [this] {
                for (unsigned round = 0; round < rounds_; ++round) {
                    cache::lock_page(page());
                    ++count_;
                    cache::unlock_page(page());
                }
            });
        }
    }
    std::string check() override {
        return count_ == cpus_ * rounds_ ? "" : "a turn with the page lock was lost";
    }

private:
    const unsigned cpus_, rounds_;
    unsigned count_ = 0;
};

// A killable sleeper for the page lock is interrupted while the lock may be on its way to it.
class KillableWait final : public PageBed {
public:
    explicit KillableWait(const Parameters& parameters) : others_(parameters["cpus"] - 2) {}

    void set_up() override {
        make_cache();
        add_page(0, Start::kClean);
        task("CPU1", sync::Role::kRequest, "waits for the page lock, and may be killed", [this] {
            victim_ = &sync::current_task();
            named_.unpark();
            lock_if_not_killed();
        });
        task("CPU2", sync::Role::kOther, "kills it", [this] {
            named_.park();
            victim_->interrupt();
        });
        for (unsigned i = 0; i < others_; ++i) {
            task(nth("CPU", 3 + i), sync::Role::kRequest, "locks and unlocks the page", [this] {
                cache::lock_page(page());
                cache::unlock_page(page());
            });
        }
    }
    std::string check() override {
        return cache::page_test(page(), cache::PG_locked) ? "the page lock was handed to the dead"
                                                          : "";
    }

private:
    // Held only if there is a value, which the analysis cannot see.
    void lock_if_not_killed() NO_THREAD_SAFETY_ANALYSIS {
        if (cache::lock_page_killable(page()).has_value()) {
            cache::unlock_page(page());
        }
    }

    const unsigned others_;
    sync::Task* victim_ = nullptr;
    sync::Parker named_;
};

// Pages are dirtied while they are written, and synced at the end: what was written last must be on
// the disk, or the page still dirty.
class Redirty final : public PageBed {
public:
    explicit Redirty(const Parameters& parameters)
        : pages_(parameters["pages"]),
          writes_(parameters["writes"]),
          flusher_(parameters["flusher"] != 0) {}

    void set_up() override {
        make_cache();
        for (unsigned i = 0; i < pages_; ++i) {
            add_page(i, Start::kClean);
        }
        task("CPU1", sync::Role::kRequest, "writes into the pages", [this] {
            for (unsigned n = 0; n < writes_; ++n) {
                cache::Page& it = page(n % pages_);
                cache::lock_page(it);
                ++memory_[n % pages_];
                cache::set_page_dirty(it);
                cache::unlock_page(it);
            }
        });
        if (flusher_) {
            task("CPU2", sync::Role::kFlusher, "writes them back",
                 [this] { write_pages(cache::WB_SYNC_NONE, write()); });
        }
        task("CPU3", sync::Role::kSyncWriter, "writes and waits for integrity",
             [this] { write_pages(cache::WB_SYNC_ALL, write()); });
    }
    std::string check() override {
        for (unsigned i = 0; i < pages_; ++i) {
            if (memory_[i] != disk_[i] && !cache::page_test(page(i), cache::PG_dirty)) {
                return "a page is clean and its last write is not on the disk";
            }
        }
        return {};
    }

private:
    static constexpr unsigned kMaxPages = 4;

    // The walk has locked the page, which the analysis cannot see through a WritePage.
    wbfat::Result<> write_one(cache::Page& it) NO_THREAD_SAFETY_ANALYSIS {
        cache::set_page_writeback(it);
        cache::unlock_page(it);
        device_reads(it);
        disk_[it.index] = memory_[it.index];
        cache::end_page_writeback(it);
        return {};
    }
    cache::WritePage write() {
        return [this](cache::Page& it, cache::BlockMask) { return write_one(it); };
    }

    const unsigned pages_, writes_;
    const bool flusher_;
    unsigned memory_[kMaxPages] = {};
    unsigned disk_[kMaxPages] = {};
};

// Two integrity writers of the same mapping.
class FsyncFsync final : public PageBed {
public:
    explicit FsyncFsync(const Parameters& parameters)
        : cpus_(parameters["cpus"]), pages_(parameters["pages"]), writers_(parameters["writers"]) {}

    void set_up() override {
        make_cache();
        for (unsigned i = 0; i < pages_; ++i) {
            add_page(i, Start::kDirty);
        }
        for (unsigned i = 1; i <= cpus_; ++i) {
            task(nth("CPU", i), sync::Role::kSyncWriter, "fsync",
                 [this, i, &early = early_[i - 1]] {
                     if (i <= writers_) {
                         write_pages(cache::WB_SYNC_ALL);
                     }
                     for (unsigned n = 0; n < pages_; ++n) {
                         cache::wait_on_page_writeback(page(n));
                         early = early || i > writers_ ? false
                                                       : cache::page_test(page(n), cache::PG_dirty);
                     }
                 });
        }
    }
    std::string check() override {
        return std::any_of(std::begin(early_), std::end(early_), [](bool early) { return early; })
                   ? "fsync returned while a page was dirty"
                   : "";
    }

private:
    const unsigned cpus_, pages_, writers_;
    static constexpr unsigned kMaxCpus = 4;
    bool early_[kMaxCpus] = {};
};

}  // namespace

ScenarioEntry two_waiters_scenario() {
    return {.info = {.name = "two-waiters",
                     .summary = "the mail, with somebody asleep on the page already",
                     .parameters = {{"second", "whether there is a second writeback", 1, 0, 1}},
                     .is_big = false},
            .make = &make<TwoWaiters>};
}

ScenarioEntry lock_fairness_scenario() {
    return {.info = {.name = "lock-handoff",
                     .summary = "the page lock is passed on and never held twice",
                     .parameters = {{"cpus", "that lock the page", 3, 2, 6},
                                    {"rounds", "how often each does", 1, 1, 8}},
                     .is_big = false},
            .make = &make<LockFairness>};
}

ScenarioEntry killable_scenario() {
    return {.info = {.name = "killable",
                     .summary = "a sleeper is killed while the page lock is handed to it",
                     .parameters = {{"cpus", "two, and those that lock the page too", 4, 3, 6}},
                     .is_big = false},
            .make = &make<KillableWait>};
}

ScenarioEntry redirty_scenario() {
    return {.info = {.name = "redirty",
                     .summary = "a page written to while it is written back is not lost",
                     .parameters = {{"pages", "in the mapping", 1, 1, 4},
                                    {"writes", "into them", 2, 1, 6},
                                    {"flusher", "whether a flusher passes too", 1, 0, 1}},
                     .is_big = false},
            .make = &make<Redirty>};
}

ScenarioEntry fsync_fsync_scenario() {
    return {.info = {.name = "fsync-fsync",
                     .summary = "two integrity writers of one file",
                     .parameters = {{"cpus", "that call fsync", 2, 2, 4},
                                    {"pages", "dirty at the start", 1, 1, 4},
                                    {"writers", "of them; the others only wait", 4, 1, 4}},
                     .is_big = false},
            .make = &make<FsyncFsync>};
}

}  // namespace wbfat::explore
