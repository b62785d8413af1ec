// Lookup, create, mkdir, unlink, rmdir, readdir. Rename is in rename.cc.
#include "fs/namei.h"

#include <optional>
#include <utility>

#include "cache/sync/sync.h"
#include "fs/dir.h"
#include "fs/fat_time.h"
#include "fs/namei_support.h"
#include "fs/truncate.h"

namespace wbfat::fs::inline WBFAT_RT {

namespace {

ShortEntry new_entry(Volume& volume, const timespec& now, std::uint8_t attr) {
    const FatTimestamp stamp = to_fat_time(now, volume.options());
    ShortEntry entry;
    entry.attr = attr;
    entry.set_created(stamp);
    entry.set_written(stamp);
    entry.set_accessed(stamp);
    return entry;
}

// A cluster that fat_alloc_new_dir made and nothing points at.
void cancel_new_dir(Volume& volume, cluster_t cluster) {
    // If the FAT sector cannot be written now the cluster is lost until fsck, as after a power cut.
    if (volume.fat().set(cluster, FatValue::free()).has_value()) {
        volume.allocator().cancel({cluster, 1});
    }
}

Result<DirRecord> add_file(Inode& dir, const ParsedName& name, bool& pending_would_do) {
    Volume& volume = dir.volume();
    return dir.directory().add(name, new_entry(volume, volume.now(), kAttrArchive),
                               pending_would_do);
}

Result<DirRecord> add_directory(Inode& dir, const ParsedName& name, bool& pending_would_do) {
    Volume& volume = dir.volume();
    const timespec now = volume.now();
    const cluster_t cluster = TRY(fat_alloc_new_dir(dir, now, pending_would_do));
    ShortEntry entry = new_entry(volume, now, kAttrDirectory);
    entry.set_first_cluster(volume.geometry().type, cluster);
    Result<DirRecord> record = dir.directory().add(name, entry, pending_would_do);
    if (!record.has_value()) {
        cancel_new_dir(volume, cluster);
    }
    return record;
}

using AddFunction = Result<DirRecord> (*)(Inode&, const ParsedName&, bool&);

Result<InodeRef> create_locked(Inode& dir, std::string_view name, AddFunction add) {
    Volume& volume = dir.volume();
    TRY_VOID(check_directory(dir));
    const ParsedName parsed = TRY(prepare_new_name(dir, name));
    const Result<const DirRecord*> existing = dir.directory().find(name);
    if (existing.has_value()) {
        return Errno{EEXIST};
    }
    if (existing.code() != ENOENT) {
        return existing.error();
    }
    const DirRecord record = TRY(run_in_transaction(volume, [&](bool& pending_would_do) {
        Result<DirRecord> added = add(dir, parsed, pending_would_do);
        if (added.has_value()) {
            touch_directory(dir);
        }
        return added;
    }));
    // After the Transaction: making an inode may evict others, which needs one of its own.
    Result<InodeRef> inode = volume.inodes().iget(dir, record);
    if (!inode.has_value()) {
        // Only memory can be short here: the page of the entry was just written. The name goes; a
        // new directory's cluster is found by fsck.
        const Transaction transaction(volume);
        if (transaction.status().has_value()) {
            static_cast<void>(dir.directory().erase(record, Phase::kEntry).has_value());
            touch_directory(dir);
        }
    }
    return inode;
}

Result<InodeRef> create_with(Inode& dir, std::string_view name, AddFunction add) {
    InodeRef inode;
    {
        const sync::WriteGuard guard(dir.i_rwsem);
        inode = TRY(create_locked(dir, name, add));
    }
    TRY_VOID(commit_if_sync(dir.volume()));
    return inode;
}

// Takes the name away. `inode` must outlive the caller's locks: its last reference frees the
// clusters.
Result<> remove_locked(Inode& dir, const DirRecord& record, Inode& inode) {
    // A file renamed out of a directory has its old name in there until the new one is durable.
    const bool leads_to_old_names = inode.is_directory() && inode.directory().anything_held_back();
    const Phase phase = leads_to_old_names ? Phase::kUnlink : Phase::kEntry;
    return run_in_transaction(dir.volume(), [&](bool&) -> Result<> {
        TRY_VOID(dir.directory().erase(record, phase));
        mark_unlinked(inode);
        touch_directory(dir);
        return {};
    });
}

Result<> unlink_locked(Inode& dir, std::string_view name, InodeRef& victim) {
    const DirRecord* record = TRY(find_existing(dir, name));
    if ((record->attr & kAttrDirectory) != 0) {
        return Errno{EISDIR};
    }
    victim = TRY(get_child(dir, *record));
    const sync::WriteGuard guard(victim->i_rwsem);
    return remove_locked(dir, *record, *victim);
}

Result<> rmdir_locked(Inode& dir, std::string_view name, InodeRef& victim) {
    const DirRecord* record = TRY(find_existing(dir, name));
    if ((record->attr & kAttrDirectory) == 0) {
        return Errno{ENOTDIR};
    }
    victim = TRY(get_child(dir, *record));
    const sync::WriteGuard guard(victim->i_rwsem);
    TRY_VOID(victim->directory().load());
    if (!victim->directory().is_empty()) {
        return Errno{ENOTEMPTY};
    }
    TRY_VOID(remove_locked(dir, *record, *victim));
    victim->directory().forget();
    return {};
}

}  // namespace

Result<> check_directory(const Inode& dir) {
    if (!dir.is_directory()) {
        return Errno{ENOTDIR};
    }
    return dir.nlink == 0 ? Result<>(Errno{ENOENT}) : Result<>();
}

Result<const DirRecord*> find_existing(Inode& dir, std::string_view name) {
    TRY_VOID(check_directory(dir));
    Result<const DirRecord*> record = dir.directory().find(name);
    if (record.code() == ENAMETOOLONG || record.code() == EINVAL) {
        return Errno{ENOENT};
    }
    return record;
}

Result<ParsedName> prepare_new_name(Inode& dir, std::string_view name) {
    ParsedName parsed = TRY(parse_name(name, dir.volume().options()));
    if (dir.directory().is_held_back(name)) {
        // The caller holds i_rwsem, so nobody can erase this name again in the meantime.
        TRY_VOID(dir.volume().ordering().commit());
    }
    return parsed;
}

Result<InodeRef> get_child(Inode& dir, const DirRecord& record) {
    InodeRef inode = TRY(dir.volume().inodes().iget(dir, record));
    const bool is_directory = (record.attr & kAttrDirectory) != 0;
    if (inode->is_directory() != is_directory ||
        (is_directory && (!inode->parent || &*inode->parent != &dir))) {
        dir.volume().fs_error("'" + record.name +
                              "' is a directory that is part of another one too");
        return Errno{EUCLEAN};
    }
    return inode;
}

void touch_directory(Inode& dir) {
    dir.nlink = 2 + dir.directory().nr_subdirectories();
    if (!dir.is_root()) {  // the root has no entry to keep a time in
        dir.attributes.mtime = truncate_mtime(dir.volume().now(), dir.volume().options());
        dir.mark_dirty();
    }
}

void mark_unlinked(Inode& inode) {
    inode.nlink = 0;
    inode.volume().inodes().rehash(inode, Inode::kNoEntry);
}

Result<> commit_if_sync(Volume& volume) {
    return volume.is_sync() || volume.is_dirsync() ? volume.ordering().commit() : Result<>();
}

Result<LookupResult> lookup(Inode& dir, std::string_view name) {
    const sync::ReadGuard guard(dir.i_rwsem);
    const DirRecord* record = TRY(find_existing(dir, name));
    LookupResult result;
    result.canonical = record->name == name;
    result.name = record->name;
    result.inode = TRY(dir.volume().inodes().iget(dir, *record));
    return result;
}

Result<InodeRef> create(Inode& dir, std::string_view name) {
    return create_with(dir, name, add_file);
}

Result<InodeRef> mkdir(Inode& dir, std::string_view name) {
    return create_with(dir, name, add_directory);
}

Result<> unlink(Inode& dir, std::string_view name) {
    InodeRef victim;
    {
        const sync::WriteGuard guard(dir.i_rwsem);
        TRY_VOID(unlink_locked(dir, name, victim));
    }
    victim = {};  // after the lock and before the commit: the last reference frees the clusters
    return commit_if_sync(dir.volume());
}

Result<> rmdir(Inode& dir, std::string_view name) {
    InodeRef victim;
    {
        const sync::WriteGuard guard(dir.i_rwsem);
        TRY_VOID(rmdir_locked(dir, name, victim));
    }
    victim = {};
    return commit_if_sync(dir.volume());
}

Result<> readdir(Inode& dir, std::uint64_t cookie,
                 const std::function<bool(const DirEntryView&)>& visit) {
    constexpr std::uint64_t kDots = 2;
    const sync::ReadGuard guard(dir.i_rwsem);
    TRY_VOID(check_directory(dir));
    TRY_VOID(dir.directory().load());
    if (cookie < 1 && !visit(DirEntryView{".", ".", dir.ino(), true, 1})) {
        return {};
    }
    const std::uint64_t parent_ino = dir.parent ? dir.parent->ino() : dir.ino();
    if (cookie < kDots && !visit(DirEntryView{"..", "..", parent_ino, true, kDots})) {
        return {};
    }
    return dir.directory().for_each(
        cookie < kDots ? 0 : cookie - kDots, [&](const DirRecord& record, std::uint64_t next) {
            DirEntryView view;
            view.name = record.name;
            view.short_name =
                units_to_utf8(short_name_to_units(record.short_name, dir.volume().codepage()),
                              dir.volume().options());
            view.is_directory = (record.attr & kAttrDirectory) != 0;
            view.ino = dir.volume().inodes().ino_at(record.i_pos, record.directory_start);
            view.next_cookie = next + kDots;
            return visit(view);
        });
}

}  // namespace wbfat::fs::inline WBFAT_RT
