// Finding, building and evicting inodes.
#include "fs/inode_cache.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cache/base/check.h"
#include "cache/filemap.h"
#include "cache/flusher.h"
#include "cache/page_cache.h"
#include "fs/truncate.h"
#include "fs/volume.h"

namespace wbfat::fs::inline WBFAT_RT {

namespace {

// Source: MSDOS_ROOT_INO.
constexpr std::uint64_t kRootIno = 1;
// A number that is taken is tried again this far up: beyond every position on any volume.
constexpr unsigned kInoConflictShift = 48;
// Unreferenced inodes evicted by one put that finds too many.
constexpr std::size_t kShrinkBatch = 64;

// Source: is_exec of fs/fat/inode.c.
bool is_program(const ShortEntry& entry) {
    static constexpr std::array<std::string_view, 3> kExtensions{"EXE", "COM", "BAT"};
    return std::any_of(kExtensions.begin(), kExtensions.end(), [&](std::string_view extension) {
        return std::equal(extension.begin(), extension.end(), entry.name.begin() + 8);
    });
}

}  // namespace

class InodeCache::Impl {
public:
    explicit Impl(Volume& volume) : volume_(volume) {}

    Result<InodeRef> iget(Inode& parent, const DirRecord& record);
    Result<InodeRef> root();
    void rehash(Inode& inode, std::uint64_t i_pos);
    void rehash_start(Inode& directory);
    InodeRef find(std::uint64_t i_pos);
    InodeRef find_start(cluster_t start);
    std::uint64_t ino_at(std::uint64_t i_pos, cluster_t directory_start);
    void shrink(std::size_t keep);
    std::size_t nr_inodes() const;
    std::size_t nr_in_use() const;
    void for_each_file(const std::function<void(Inode&)>& visit) EXCLUDES(lock_);
    void with_file(std::uint64_t ino, const std::function<void(Inode&)>& visit) EXCLUDES(lock_);
    bool pin(Inode& inode);
    void unpin(Inode& inode);
    void evict_deferred();
    void close();
    void drop_everything();
    void last_reference_dropped(Inode& inode);

private:
    struct Slot {
        std::unique_ptr<Inode> inode;
        cluster_t start = 0;  // as in by_start_; 0: not there
        bool on_lru = false;
        std::list<Inode*>::iterator lru{};
    };

    Slot& slot_locked(Inode& inode) REQUIRES(lock_);
    InodeRef ref_locked(Inode& inode) REQUIRES(lock_);
    std::uint64_t free_ino_locked(std::uint64_t natural) const REQUIRES(lock_);
    std::uint64_t natural_ino(std::uint64_t i_pos, cluster_t directory_start) const;
    void hash_start_locked(Inode& directory) REQUIRES(lock_);
    void unhash_locked(Inode& inode) REQUIRES(lock_);
    void leave_lru_locked(Slot& slot) REQUIRES(lock_);
    std::unique_ptr<Inode> remove_locked(Inode& inode) REQUIRES(lock_);
    Inode* take_victim(std::size_t keep, std::size_t& tries);

    Result<std::unique_ptr<Inode>> build(Inode& parent, const DirRecord& record,
                                         const ShortEntry& entry);
    Result<> load_directory_chain(Inode& directory);
    InodeRef insert(std::unique_ptr<Inode> inode, std::uint64_t natural);
    void take_from_flusher(Inode& inode) EXCLUDES(lock_);
    void evict_unlinked(Inode& inode);
    bool evict_linked(Inode& inode);
    void destroy(std::unique_ptr<Inode> inode);

    Volume& volume_;
    mutable sync::Mutex lock_;
    std::unordered_map<const Inode*, Slot> slots_ GUARDED_BY(lock_);
    std::unordered_map<std::uint64_t, Inode*> by_pos_ GUARDED_BY(lock_);
    std::unordered_map<cluster_t, Inode*> by_start_ GUARDED_BY(lock_);  // directories only
    std::unordered_map<std::uint64_t, Inode*> by_ino_ GUARDED_BY(lock_);
    std::list<Inode*> lru_ GUARDED_BY(lock_);  // newest first
    std::vector<Inode*> deferred_ GUARDED_BY(lock_);
    sync::CondVar unpinned_;                   // an inode that is going away lost its last pin
    Inode* root_ GUARDED_BY(lock_) = nullptr;  // holds one reference for good
    bool closed_ GUARDED_BY(lock_) = false;
    sync::Atomic<bool> have_deferred_{false};
};

// --- the indexes ---

InodeCache::Impl::Slot& InodeCache::Impl::slot_locked(Inode& inode) {
    const auto found = slots_.find(&inode);
    BUG_ON(found == slots_.end(), "an inode that the cache does not know");
    return found->second;
}

void InodeCache::Impl::leave_lru_locked(Slot& slot) {
    if (slot.on_lru) {
        lru_.erase(slot.lru);
        slot.on_lru = false;
    }
}

InodeRef InodeCache::Impl::ref_locked(Inode& inode) {
    leave_lru_locked(slot_locked(inode));
    return InodeRef(inode);
}

// Directories are numbered by where their first cluster lies, files by where their entry does. The
// first slot of a directory's cluster is its ".", so the two never meet on a sound volume.
std::uint64_t InodeCache::Impl::natural_ino(std::uint64_t i_pos, cluster_t directory_start) const {
    const Geometry& geometry = volume_.geometry();
    if (geometry.is_data_cluster(directory_start)) {
        return geometry.cluster_offset_bytes(directory_start) / kDirEntryBytes;
    }
    return i_pos / kDirEntryBytes;
}

std::uint64_t InodeCache::Impl::free_ino_locked(std::uint64_t natural) const {
    std::uint64_t ino = natural;
    for (std::uint64_t turn = 1; by_ino_.contains(ino); ++turn) {
        ino = natural | (turn << kInoConflictShift);
    }
    return ino;
}

void InodeCache::Impl::hash_start_locked(Inode& directory) {
    Slot& slot = slot_locked(directory);
    if (slot.start != 0) {
        by_start_.erase(slot.start);
        slot.start = 0;
    }
    if (directory.i_start != 0 && by_start_.try_emplace(directory.i_start, &directory).second) {
        slot.start = directory.i_start;
    }
}

// What is left is the slot and the number.
void InodeCache::Impl::unhash_locked(Inode& inode) {
    const auto at_pos = by_pos_.find(inode.i_pos);
    if (at_pos != by_pos_.end() && at_pos->second == &inode) {
        by_pos_.erase(at_pos);
    }
    Slot& slot = slot_locked(inode);
    if (slot.start != 0) {
        by_start_.erase(slot.start);
        slot.start = 0;
    }
}

std::unique_ptr<Inode> InodeCache::Impl::remove_locked(Inode& inode) {
    unhash_locked(inode);
    by_ino_.erase(inode.ino_);
    const auto found = slots_.find(&inode);
    std::unique_ptr<Inode> owned = std::move(found->second.inode);
    slots_.erase(found);
    return owned;
}

InodeRef InodeCache::Impl::find(std::uint64_t i_pos) {
    const sync::MutexLock lock(lock_);
    const auto found = by_pos_.find(i_pos);
    return found == by_pos_.end() ? InodeRef() : ref_locked(*found->second);
}

InodeRef InodeCache::Impl::find_start(cluster_t start) {
    const sync::MutexLock lock(lock_);
    const auto found = by_start_.find(start);
    return found == by_start_.end() ? InodeRef() : ref_locked(*found->second);
}

std::uint64_t InodeCache::Impl::ino_at(std::uint64_t i_pos, cluster_t directory_start) {
    const sync::MutexLock lock(lock_);
    const auto at_pos = by_pos_.find(i_pos);
    if (at_pos != by_pos_.end()) {
        return at_pos->second->ino_;
    }
    if (directory_start != 0) {
        const auto at_start = by_start_.find(directory_start);
        if (at_start != by_start_.end()) {
            return at_start->second->ino_;
        }
    }
    return free_ino_locked(natural_ino(i_pos, directory_start));
}

void InodeCache::Impl::rehash(Inode& inode, std::uint64_t i_pos) {
    {
        const sync::MutexLock lock(lock_);
        const auto at_pos = by_pos_.find(inode.i_pos);
        // An exchange has put the other inode there already.
        if (at_pos != by_pos_.end() && at_pos->second == &inode) {
            by_pos_.erase(at_pos);
        }
        inode.i_pos = i_pos;
        if (i_pos != Inode::kNoEntry) {
            by_pos_[i_pos] = &inode;
        } else {
            unhash_locked(inode);
        }
    }
    if (i_pos == Inode::kNoEntry) {
        volume_.ordering().forget_inode(inode);
    }
}

void InodeCache::Impl::rehash_start(Inode& directory) {
    const sync::MutexLock lock(lock_);
    hash_start_locked(directory);
}

std::size_t InodeCache::Impl::nr_inodes() const {
    const sync::MutexLock lock(lock_);
    return slots_.size();
}

std::size_t InodeCache::Impl::nr_in_use() const {
    const sync::MutexLock lock(lock_);
    std::size_t in_use = 0;
    for (const auto& [inode, slot] : slots_) {
        const std::int64_t own = inode == root_ ? 1 : 0;
        in_use += inode->refcount_.load() > own ? 1 : 0;
    }
    return in_use;
}

void InodeCache::Impl::for_each_file(const std::function<void(Inode&)>& visit) {
    const sync::MutexLock lock(lock_);
    for (const auto& [ino, inode] : by_ino_) {
        if (!inode->is_directory() && !inode->going_away_) {
            visit(*inode);
        }
    }
}

void InodeCache::Impl::with_file(std::uint64_t ino, const std::function<void(Inode&)>& visit) {
    Inode* inode = nullptr;
    {
        const sync::MutexLock lock(lock_);
        const auto found = by_ino_.find(ino);
        if (found == by_ino_.end() || found->second->is_directory() || found->second->going_away_) {
            return;
        }
        inode = found->second;
        ++inode->pins_;
    }
    visit(*inode);
    unpin(*inode);
}

// --- building ---

// A directory's size is its chain; so the chain is walked when the directory is met.
// Source: fat_calc_dir_size.
Result<> InodeCache::Impl::load_directory_chain(Inode& directory) {
    directory.clusters.reset(directory.i_start);
    const auto length = directory.clusters.length(volume_.fat());
    if (!length.has_value() && directory.clusters.damaged()) {
        volume_.fs_error("the chain of directory " + std::to_string(directory.i_start) +
                         " is broken at cluster " + std::to_string(*directory.clusters.damaged()));
    }
    directory.physical_size = directory.i_size();
    return length.has_value() ? Result<>{} : Result<>{length.error()};
}

Result<std::unique_ptr<Inode>> InodeCache::Impl::build(Inode& parent, const DirRecord& record,
                                                       const ShortEntry& entry) {
    const Geometry& geometry = volume_.geometry();
    const cluster_t start = entry.first_cluster(geometry.type);
    const bool is_directory = entry.is_directory();
    const bool start_fits = geometry.is_data_cluster(start) || (start == 0 && !is_directory);
    if (!start_fits) {
        volume_.fs_error("'" + record.name + "' starts at cluster " + std::to_string(start) +
                         ", which cannot be");
        return Errno{EIO};
    }
    auto inode = std::make_unique<Inode>(
        volume_, is_directory ? Inode::Type::kDirectory : Inode::Type::kFile, 0);
    const MountOptions& options = volume_.options();
    inode->i_pos = record.i_pos;
    inode->i_start = start;
    // The entry itself may be younger than the last commit: fsync of what was only created relies
    // on this.
    inode->dirty_sequence.store(volume_.ordering().current_sequence());
    inode->size_sequence.store(volume_.ordering().current_sequence());
    inode->is_program_ = is_program(entry);
    inode->attributes.attr = entry.attr;
    inode->attributes.nt_case = entry.nt_reserved;
    inode->attributes.mtime = from_fat_time(entry.written(), options);
    inode->attributes.atime = from_fat_time(entry.accessed(), options);
    inode->attributes.btime = from_fat_time(entry.created(), options);
    if (is_directory) {
        inode->parent = InodeRef(parent);
        TRY_VOID(load_directory_chain(*inode));
    } else {
        inode->clusters.reset(start);
        inode->physical_size = entry.size.get();
        inode->mapping().i_size_write(entry.size.get());
        inode->mapping().rename(record.name);
    }
    return inode;
}

// Puts the inode where it can be found, unless somebody was faster; then his is the one.
InodeRef InodeCache::Impl::insert(std::unique_ptr<Inode> inode, std::uint64_t natural) {
    const sync::MutexLock lock(lock_);
    if (const auto found = by_pos_.find(inode->i_pos); found != by_pos_.end()) {
        return ref_locked(*found->second);
    }
    if (inode->is_directory()) {
        if (const auto found = by_start_.find(inode->i_start); found != by_start_.end()) {
            return ref_locked(*found->second);
        }
    }
    Inode& added = *inode;
    added.ino_ = free_ino_locked(natural);
    by_ino_.emplace(added.ino_, &added);
    slots_[&added].inode = std::move(inode);
    if (added.i_pos != Inode::kNoEntry) {
        by_pos_.emplace(added.i_pos, &added);
    }
    if (added.is_directory()) {
        hash_start_locked(added);
    }
    return InodeRef::adopt(added);
}

Result<InodeRef> InodeCache::Impl::iget(Inode& parent, const DirRecord& record) {
    if (InodeRef found = find(record.i_pos)) {
        return found;
    }
    const ShortEntry entry = TRY(read_short_entry(volume_, record.i_pos));
    const cluster_t start = entry.first_cluster(volume_.geometry().type);
    if (entry.is_directory()) {
        // A directory that contains itself, or its parent, or the root, is met as the same inode.
        if (InodeRef found = find_start(start)) {
            return found;
        }
    }
    std::unique_ptr<Inode> inode = TRY(build(parent, record, entry));
    const std::uint64_t natural =
        natural_ino(record.i_pos, inode->is_directory() ? start : cluster_t{0});
    return insert(std::move(inode), natural);
}

Result<InodeRef> InodeCache::Impl::root() {
    {
        const sync::MutexLock lock(lock_);
        if (root_ != nullptr) {
            return InodeRef(*root_);
        }
    }
    const Geometry& geometry = volume_.geometry();
    auto inode = std::make_unique<Inode>(volume_, Inode::Type::kDirectory, kRootIno);
    inode->is_root_ = true;
    inode->attributes.attr = kAttrDirectory;
    inode->physical_size = geometry.root_dir_bytes();
    if (geometry.type == FatType::kFat32) {
        inode->i_start = geometry.root_cluster;
        if (!geometry.is_data_cluster(inode->i_start)) {
            volume_.fs_error("the root starts at cluster " + std::to_string(inode->i_start) +
                             ", which cannot be");
            return Errno{EIO};
        }
        const Result<> loaded = load_directory_chain(*inode);
        if (!loaded.has_value() && !inode->clusters.damaged()) {
            return loaded.error();
        }
    }
    InodeRef made = insert(std::move(inode), kRootIno);
    const sync::MutexLock lock(lock_);
    if (root_ == nullptr) {
        root_ = &*made;
        root_->get_ref();
    }
    return made;
}

// --- leaving ---

void InodeCache::Impl::last_reference_dropped(Inode& inode) {
    bool too_many = false;
    bool is_unlinked = false;
    {
        const sync::MutexLock lock(lock_);
        if (inode.refcount_.fetch_sub(1) != 1 || closed_) {
            return;
        }
        is_unlinked = inode.nlink == 0;
        if (!is_unlinked) {
            Slot& slot = slot_locked(inode);
            slot.lru = lru_.insert(lru_.begin(), &inode);
            slot.on_lru = true;
            too_many = lru_.size() > kKeepInodes;
        } else {
            // Nobody finds it any more, so nobody can take a reference again.
            unhash_locked(inode);
            if (volume_.ordering().in_transaction()) {
                deferred_.push_back(&inode);
                have_deferred_.store(true);
                return;
            }
        }
    }
    // A linked one may be gone by now.
    if (is_unlinked) {
        evict_unlinked(inode);
    } else if (too_many && !volume_.ordering().in_transaction()) {
        shrink(kKeepInodes - kShrinkBatch);
    }
}

void InodeCache::Impl::evict_deferred() {
    if (!have_deferred_.load()) {
        return;
    }
    std::vector<Inode*> inodes;
    {
        const sync::MutexLock lock(lock_);
        inodes.swap(deferred_);
        have_deferred_.store(false);
    }
    for (Inode* inode : inodes) {
        evict_unlinked(*inode);
    }
}

// Its pages owe the disk nothing, its clusters are freed.
void InodeCache::Impl::evict_unlinked(Inode& inode) {
    take_from_flusher(inode);
    {
        const sync::WriteGuard guard(inode.i_rwsem);
        fat_evict_inode(inode);
    }
    std::unique_ptr<Inode> owned;
    {
        const sync::MutexLock lock(lock_);
        owned = remove_locked(inode);
    }
    destroy(std::move(owned));
}

// Nobody writes its pages any more when this returns.
void InodeCache::Impl::take_from_flusher(Inode& inode) {
    if (inode.is_directory()) {
        return;
    }
    {
        const sync::MutexLock lock(lock_);
        inode.going_away_ = true;
    }
    volume_.cache().flusher().forget(inode.mapping());
    sync::MutexLock lock(lock_);
    while (inode.pins_ != 0) {
        unpinned_.wait(lock);
    }
}

bool InodeCache::Impl::pin(Inode& inode) {
    const sync::MutexLock lock(lock_);
    if (inode.going_away_) {
        return false;
    }
    ++inode.pins_;
    return true;
}

void InodeCache::Impl::unpin(Inode& inode) {
    const sync::MutexLock lock(lock_);
    if (--inode.pins_ == 0 && inode.going_away_) {
        unpinned_.notify_all();
    }
}

// Returns false when the inode turned out to be wanted, or to owe the disk something; it is then
// back in the cache. Requires: the caller holds the only reference, and the inode is off the LRU.
bool InodeCache::Impl::evict_linked(Inode& inode) {
    if (!inode.is_directory()) {
        if (inode.preallocated) {
            const sync::WriteGuard guard(inode.i_rwsem);
            fat_evict_inode(inode);
        }
        cache::filemap_fdatawait_range(inode.mapping(), 0, cache::kLastByte);
    }
    std::unique_ptr<Inode> owned;
    {
        const sync::MutexLock lock(lock_);
        const bool owes = !inode.is_directory() &&
                          (inode.mapping_->i_pages.tagged(cache::PAGECACHE_TAG_DIRTY) ||
                           inode.mapping_->i_pages.tagged(cache::PAGECACHE_TAG_WRITEBACK));
        if (inode.refcount_.load() == 1 && inode.pins_ == 0 && !owes) {
            owned = remove_locked(inode);
        }
    }
    if (owned == nullptr) {
        inode.put_ref();
        return false;
    }
    if (!owned->is_directory()) {
        volume_.note_unreported_error(owned->mapping().wb_err);
    }
    destroy(std::move(owned));
    return true;
}

void InodeCache::Impl::destroy(std::unique_ptr<Inode> inode) {
    take_from_flusher(*inode);
    if (!inode->is_directory()) {
        cache::truncate_setsize(inode->mapping(), 0);
    }
    // The parent may be the next to go; by then this one is no more.
    const InodeRef parent = std::exchange(inode->parent, InodeRef());
    inode.reset();
}

// The oldest unreferenced inode that the flusher does not hold, with a reference; null when there
// are not more than `keep`, or the `tries` are used up.
Inode* InodeCache::Impl::take_victim(std::size_t keep, std::size_t& tries) {
    const sync::MutexLock lock(lock_);
    for (auto at = lru_.rbegin(); at != lru_.rend() && tries > 0 && lru_.size() > keep; ++at) {
        --tries;
        Inode& inode = **at;
        if (inode.pins_ == 0) {
            leave_lru_locked(slot_locked(inode));
            inode.get_ref();
            return &inode;
        }
    }
    return nullptr;
}

void InodeCache::Impl::shrink(std::size_t keep) {
    // Evicting a directory lets go of its parent, which may then be the next: so not all victims
    // are on the list yet.
    std::size_t tries = 2 * nr_inodes();
    while (Inode* victim = take_victim(keep, tries)) {
        evict_linked(*victim);
    }
}

void InodeCache::Impl::close() {
    const sync::MutexLock lock(lock_);
    closed_ = true;
}

void InodeCache::Impl::drop_everything() {
    std::vector<std::unique_ptr<Inode>> all;
    {
        const sync::MutexLock lock(lock_);
        closed_ = true;
        for (auto& [inode, slot] : slots_) {
            all.push_back(std::move(slot.inode));
        }
    }
    // References to parents go first, while every inode still exists.
    for (const auto& inode : all) {
        const InodeRef parent = std::exchange(inode->parent, InodeRef());
    }
    for (auto& inode : all) {
        BUG_ON(inode->refcount_.load() > (inode->is_root_ ? 1 : 0), "I4",
               "an inode outlives its volume");
        destroy(std::move(inode));
    }
    const sync::MutexLock lock(lock_);
    slots_.clear();
    by_pos_.clear();
    by_start_.clear();
    by_ino_.clear();
    lru_.clear();
    deferred_.clear();
    root_ = nullptr;
}

// --- the public face ---

InodeCache::InodeCache(Volume& volume) : impl_(std::make_unique<Impl>(volume)) {}

InodeCache::~InodeCache() {
    drop_everything();
}

Result<InodeRef> InodeCache::iget(Inode& parent, const DirRecord& record) {
    return impl_->iget(parent, record);
}

Result<InodeRef> InodeCache::root() {
    return impl_->root();
}

void InodeCache::rehash(Inode& inode, std::uint64_t i_pos) {
    impl_->rehash(inode, i_pos);
}

void InodeCache::rehash_start(Inode& directory) {
    impl_->rehash_start(directory);
}

InodeRef InodeCache::find(std::uint64_t i_pos) {
    return impl_->find(i_pos);
}

std::uint64_t InodeCache::ino_at(std::uint64_t i_pos, cluster_t directory_start) {
    return impl_->ino_at(i_pos, directory_start);
}

void InodeCache::shrink(std::size_t keep) {
    impl_->shrink(keep);
}

std::size_t InodeCache::nr_inodes() const {
    return impl_->nr_inodes();
}

std::size_t InodeCache::nr_in_use() const {
    return impl_->nr_in_use();
}

void InodeCache::for_each_file(const std::function<void(Inode&)>& visit) {
    impl_->for_each_file(visit);
}

void InodeCache::with_file(std::uint64_t ino, const std::function<void(Inode&)>& visit) {
    impl_->with_file(ino, visit);
}

bool InodeCache::pin(Inode& inode) {
    return impl_->pin(inode);
}

void InodeCache::unpin(Inode& inode) {
    impl_->unpin(inode);
}

void InodeCache::evict_deferred() {
    impl_->evict_deferred();
}

void InodeCache::close() {
    impl_->close();
}

void InodeCache::drop_everything() {
    impl_->drop_everything();
}

void InodeCache::last_reference_dropped(Inode& inode) {
    impl_->last_reference_dropped(inode);
}

}  // namespace wbfat::fs::inline WBFAT_RT
