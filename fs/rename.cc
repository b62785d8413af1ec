// Rename and exchange.
//
// Order on disk (reliability.md R6): the new name is complete in kEntry, the old one goes in
// kUnlink; within one sector both change in one write. Everything that will be changed is pinned
// first, so that after the first change nothing can fail: a rename happens or does not.
//
// Two names in different sectors are exchanged in three commits, by way of a third name:
//
//        before      third added    second given      exchanged
//        a: X        a: X           a: Y              a: Y
//        b: Y        b: Y           b: Y              b: X
//                    third: X       third: X          third: X until kUnlink
//
// so each file has a name at any power cut. Somebody who finds a third name may remove it.
//
// Locking: rename_mutex whenever two directories, or a directory's place, are involved; then the
// parents, an ancestor first, else by address; then the children, directories before files. Only
// the holder of rename_mutex locks directories that are not each other's ancestors, so waits for
// directories go down the tree and cannot form a ring; files are the leaves of the order, by
// address among themselves.
//
// Source: Linux fs/namei.c vfs_rename, lock_rename; filesystems/directory-locking.rst.
#include <array>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "cache/sync/sync.h"
#include "fs/dir.h"
#include "fs/dir_pages.h"
#include "fs/namei.h"
#include "fs/namei_support.h"

namespace wbfat::fs::inline WBFAT_RT {

namespace {

struct Request {
    Inode& old_dir;
    std::string_view old_name;
    Inode& new_dir;
    std::string_view new_name;
    unsigned flags;

    bool has(RenameFlags flag) const {
        return (flags & flag) != 0;
    }
    bool changes_parent() const {
        return &old_dir != &new_dir;
    }
};

// One of the two names involved. The reference is dropped after all locks: it may be the last one.
struct Side {
    std::optional<DirRecord> record;
    InodeRef inode;

    bool is_directory() const {
        return record.has_value() && (record->attr & kAttrDirectory) != 0;
    }
};

// i_rwsem of both children, exclusively.
class ChildLocks {
public:
    // Not analysed: how many locks there are is known at run time.
    ChildLocks(const Side& source, const Side& target) NO_THREAD_SAFETY_ANALYSIS {
        first_ = &*source.inode;
        if (target.inode) {
            second_ = &*target.inode == first_ ? nullptr : &*target.inode;
        }
        const bool swap =
            second_ != nullptr && (first_->is_directory() != second_->is_directory()
                                       ? second_->is_directory()
                                       : !first_->is_directory() && std::less<>()(second_, first_));
        if (swap) {
            std::swap(first_, second_);
        }
        first_->i_rwsem.lock();
        if (second_ != nullptr) {
            second_->i_rwsem.lock();
        }
    }
    // Not analysed: see the constructor.
    ~ChildLocks() NO_THREAD_SAFETY_ANALYSIS {
        if (second_ != nullptr) {
            second_->i_rwsem.unlock();
        }
        first_->i_rwsem.unlock();
    }
    ChildLocks(const ChildLocks&) = delete;
    ChildLocks& operator=(const ChildLocks&) = delete;

private:
    Inode* first_ = nullptr;
    Inode* second_ = nullptr;  // null: there is but one
};

// Requires rename_mutex: it keeps the parents where they are.
bool is_self_or_ancestor(const Inode& inode, const Inode& of) {
    for (const Inode* at = &of; at != nullptr; at = at->parent ? &*at->parent : nullptr) {
        if (at == &inode) {
            return true;
        }
    }
    return false;
}

Result<Side> find_side(Inode& dir, std::string_view name) {
    const DirRecord* record = TRY(find_existing(dir, name));
    Side side;
    side.record = *record;
    side.inode = TRY(get_child(dir, *record));
    return side;
}

// Is it allowed at all? Before the children are locked. The order of the checks is that of
// vfs_rename.
Result<> check_rename(const Request& request, const Side& source, const Side& target) {
    if (request.changes_parent()) {
        if (source.is_directory() && is_self_or_ancestor(*source.inode, request.new_dir)) {
            return Errno{EINVAL};
        }
        if (target.is_directory() && is_self_or_ancestor(*target.inode, request.old_dir)) {
            return Errno{request.has(kRenameExchange) ? EINVAL : ENOTEMPTY};
        }
    }
    if (!target.record.has_value() || request.has(kRenameExchange)) {
        return {};
    }
    if (source.is_directory() && !target.is_directory()) {
        return Errno{ENOTDIR};
    }
    if (!source.is_directory() && target.is_directory()) {
        return Errno{EISDIR};
    }
    return {};
}

Result<> pin_entry(PinnedBytes& pins, std::uint64_t i_pos) {
    return pins.pin(i_pos, static_cast<std::uint32_t>(kDirEntryBytes));
}

// Pins ".." of a directory that gets another parent.
Result<> pin_dotdot(PinnedBytes& pins, const Side& side) {
    if (!side.is_directory()) {
        return {};
    }
    return pin_entry(pins, TRY(side.inode->directory().dotdot_i_pos()));
}

// Pins all that the request will write into entries that exist.
Result<> pin_sides(PinnedBytes& pins, const Request& request, const Side& source,
                   const Side& target) {
    TRY_VOID(pin_entry(pins, source.record->i_pos));
    if (target.record.has_value()) {
        TRY_VOID(pin_entry(pins, target.record->i_pos));
    }
    if (request.changes_parent()) {
        TRY_VOID(pin_dotdot(pins, source));
        if (request.has(kRenameExchange)) {
            TRY_VOID(pin_dotdot(pins, target));
        }
    }
    return {};
}

// Requires pin_sides.
Result<> set_parent(const Side& side, Inode& parent) {
    if (!side.is_directory()) {
        return {};
    }
    Volume& volume = parent.volume();
    const cluster_t start = parent.is_root() ? 0 : parent.i_start;
    const std::uint64_t dotdot = TRY(side.inode->directory().dotdot_i_pos());
    TRY_VOID(write_short_entry(volume, dotdot, [&](ShortEntry& entry) {
        entry.set_first_cluster(volume.geometry().type, start);
    }));
    side.inode->parent = InodeRef(parent);
    return {};
}

// The inode is now found at another entry, whose case bits go with the name there. The commit
// refreshes that entry if the inode has changes of its own pending.
void settle(Inode& inode, const DirRecord& entry) {
    inode.attributes.nt_case = static_cast<std::uint8_t>((inode.attributes.nt_case & ~kNtCaseMask) |
                                                         (entry.nt_case & kNtCaseMask));
    inode.volume().inodes().rehash(inode, entry.i_pos);
    if (!inode.is_directory()) {
        inode.mapping().rename(entry.name);
    }
    inode.mark_dirty();
}

void touch_both(const Request& request) {
    touch_directory(request.old_dir);
    if (request.changes_parent()) {
        touch_directory(request.new_dir);
    }
}

// Another name in the same directory; nothing is in the way. Returns how readdir shows it.
Result<std::string> rename_here(const Request& request, const Side& source) {
    Inode& dir = request.old_dir;
    const ParsedName name = TRY(prepare_new_name(dir, request.new_name));
    return run_in_transaction(dir.volume(), [&](bool& pending_would_do) -> Result<std::string> {
        const DirRecord moved = TRY(dir.directory().rename(*source.record, name, pending_would_do));
        settle(*source.inode, moved);
        touch_both(request);
        return moved.name;
    });
}

// Another directory; nothing is in the way. Returns how readdir shows the name there.
Result<std::string> move_away(const Request& request, const Side& source) {
    Volume& volume = request.old_dir.volume();
    const ParsedName name = TRY(prepare_new_name(request.new_dir, request.new_name));
    return run_in_transaction(volume, [&](bool& pending_would_do) -> Result<std::string> {
        PinnedBytes pins(volume);
        TRY_VOID(pin_sides(pins, request, source, {}));
        const ShortEntry entry = TRY(read_short_entry(volume, source.record->i_pos));
        const DirRecord added = TRY(request.new_dir.directory().add(name, entry, pending_would_do));
        TRY_VOID(set_parent(source, request.new_dir));
        TRY_VOID(request.old_dir.directory().erase(*source.record, Phase::kUnlink));
        settle(*source.inode, added);
        touch_both(request);
        return added.name;
    });
}

// The target's entry becomes the source's; the target's name stays as it is spelled.
Result<> replace_target(const Request& request, const Side& source, const Side& target) {
    Volume& volume = request.old_dir.volume();
    return run_in_transaction(volume, [&](bool&) -> Result<> {
        PinnedBytes pins(volume);
        TRY_VOID(pin_sides(pins, request, source, target));
        const ShortEntry entry = TRY(read_short_entry(volume, source.record->i_pos));
        TRY_VOID(request.new_dir.directory().replace(*target.record, entry));
        if (request.changes_parent()) {
            TRY_VOID(set_parent(source, request.new_dir));
        }
        Directory& old_directory = request.old_dir.directory();
        const bool one_write =
            !request.changes_parent() && old_directory.same_sector(*source.record, *target.record);
        TRY_VOID(old_directory.erase(*source.record, one_write ? Phase::kEntry : Phase::kUnlink));
        mark_unlinked(*target.inode);
        settle(*source.inode, *target.record);
        touch_both(request);
        return {};
    });
}

// --- exchange

// What the two entries say before any of them changes.
struct Entries {
    ShortEntry source;
    ShortEntry target;
};

Result<Entries> read_entries(Volume& volume, const Side& source, const Side& target) {
    return Entries{TRY(read_short_entry(volume, source.record->i_pos)),
                   TRY(read_short_entry(volume, target.record->i_pos))};
}

// Inside a Transaction, with pin_sides.
Result<> swap_entries(const Request& request, const Side& source, const Side& target,
                      const Entries& entries) {
    TRY_VOID(request.new_dir.directory().replace(*target.record, entries.source));
    TRY_VOID(request.old_dir.directory().replace(*source.record, entries.target));
    if (request.changes_parent()) {
        TRY_VOID(set_parent(source, request.new_dir));
        TRY_VOID(set_parent(target, request.old_dir));
    }
    settle(*source.inode, *target.record);
    settle(*target.inode, *source.record);
    touch_both(request);
    return {};
}

struct ThirdName {
    Directory* directory;
    DirRecord record;
};

// Errors: ENOSPC when all are taken.
Result<ParsedName> free_third_name(Inode& dir) {
    constexpr unsigned kNrNames = 1000;
    for (unsigned number = 0; number < kNrNames; ++number) {
        std::array<char, sizeof("EXCHANGE.000")> name{};
        std::snprintf(name.data(), name.size(), "EXCHANGE.%03u", number);
        if (find_existing(dir, name.data()).code() == ENOENT &&
            !dir.directory().is_held_back(name.data())) {
            return parse_name(name.data(), dir.volume().options());
        }
    }
    return Errno{ENOSPC};
}

// A name more for the source, in whichever directory has room. Errors: ENOSPC when neither has.
Result<ThirdName> add_third_name(const Request& request, const Side& source) {
    Volume& volume = request.old_dir.volume();
    const auto add_to = [&](Inode& dir) -> Result<ThirdName> {
        const ParsedName name = TRY(free_third_name(dir));
        return run_in_transaction(volume, [&](bool& pending_would_do) -> Result<ThirdName> {
            const ShortEntry entry = TRY(read_short_entry(volume, source.record->i_pos));
            return ThirdName{&dir.directory(),
                             TRY(dir.directory().add(name, entry, pending_would_do))};
        });
    };
    Result<ThirdName> third = add_to(request.new_dir);
    return third.code() == ENOSPC && request.changes_parent() ? add_to(request.old_dir) : third;
}

// The picture at the top of the file. Requires: nothing pending of either inode, so that its entry
// may be copied; pin_sides.
Result<> exchange_by_way_of(const ThirdName& third, const Request& request, const Side& source,
                            const Side& target) {
    Volume& volume = request.old_dir.volume();
    const Entries entries = TRY(read_entries(volume, source, target));
    Directory& old_directory = request.old_dir.directory();
    const auto give_second_name = [&](bool&) {
        return old_directory.replace(*source.record, entries.target);
    };
    Result<> status = volume.ordering().commit();
    if (status.has_value()) {
        status = run_in_transaction(volume, give_second_name);
    }
    if (status.has_value()) {
        status = volume.ordering().commit();
    }
    const Result<> ended = run_in_transaction(volume, [&](bool&) -> Result<> {
        // After an error all is as before; on the disk the third name goes after the first is back.
        TRY_VOID(status.has_value() ? swap_entries(request, source, target, entries)
                                    : old_directory.replace(*source.record, entries.source));
        return third.directory->erase(third.record, Phase::kUnlink);
    });
    return status.has_value() ? ended : status;
}

Result<> exchange(const Request& request, const Side& source, const Side& target) {
    Volume& volume = request.old_dir.volume();
    PinnedBytes pins(volume);
    TRY_VOID(pin_sides(pins, request, source, target));
    const std::uint32_t sector_bytes = volume.geometry().sector_bytes;
    if (source.record->i_pos / sector_bytes != target.record->i_pos / sector_bytes) {
        TRY_VOID(volume.ordering().commit());
        const Result<ThirdName> third = add_third_name(request, source);
        if (third.has_value()) {
            return exchange_by_way_of(*third, request, source, target);
        }
        if (third.code() != ENOSPC) {
            return third.error();
        }
        // No room for a third name: exchanged all the same, but not safe from a power cut.
    }
    return run_in_transaction(volume, [&](bool&) -> Result<> {
        return swap_entries(request, source, target, TRY(read_entries(volume, source, target)));
    });
}

Result<> rename_over(const Request& request, const Side& source, const Side& target) {
    if (target.is_directory()) {
        TRY_VOID(target.inode->directory().load());
        if (!target.inode->directory().is_empty()) {
            return Errno{ENOTEMPTY};
        }
        if (target.inode->directory().anything_held_back()) {
            // What was renamed out of it may have no other name on the disk yet.
            TRY_VOID(request.old_dir.volume().ordering().commit());
        }
    }
    TRY_VOID(replace_target(request, source, target));
    if (target.is_directory()) {
        target.inode->directory().forget();
    }
    return {};
}

// Requires: both parents exclusively; rename_mutex unless no directory moves.
Result<RenameSpellings> rename_locked(const Request& request, Side& source, Side& target) {
    source = TRY(find_side(request.old_dir, request.old_name));
    Result<Side> found = find_side(request.new_dir, request.new_name);
    if (found.has_value()) {
        target = *std::move(found);
    } else if (found.code() != ENOENT || request.has(kRenameExchange)) {
        return found.error();
    }
    TRY_VOID(check_directory(request.new_dir));
    const bool same_entry = target.record.has_value() && !request.changes_parent() &&
                            target.record->slot == source.record->slot;
    const bool same_spelling = same_entry && source.record->name == request.new_name;
    if (request.has(kRenameNoReplace) && target.record.has_value() &&
        (!same_entry || same_spelling)) {
        return Errno{EEXIST};
    }
    const bool same_inode = target.inode && &*target.inode == &*source.inode;
    RenameSpellings spellings;
    spellings.old_before = source.record->name;
    spellings.new_before = target.record.has_value() ? target.record->name : std::string();
    spellings.old_after = spellings.old_before;
    spellings.new_after = spellings.new_before;
    if (same_spelling || (same_inode && !same_entry) ||
        (same_entry && request.has(kRenameExchange))) {
        return spellings;  // "source == target" in vfs_rename
    }
    TRY_VOID(check_rename(request, source, target));
    const ChildLocks locks(source, target);
    if (request.has(kRenameExchange)) {
        TRY_VOID(exchange(request, source, target));
        return spellings;
    }
    if (target.record.has_value() && !same_entry) {
        TRY_VOID(rename_over(request, source, target));
    } else {
        spellings.new_after = TRY(request.changes_parent() ? move_away(request, source)
                                                           : rename_here(request, source));
    }
    spellings.old_after = same_entry ? spellings.new_after : std::string();
    return spellings;
}

bool is_directory_at(Inode& dir, std::string_view name) {
    const Result<const DirRecord*> record = find_existing(dir, name);
    return record.has_value() && ((*record)->attr & kAttrDirectory) != 0;
}

Result<RenameSpellings> rename_in_one_directory(const Request& request, Side& source,
                                                Side& target) {
    Inode& dir = request.old_dir;
    {
        const sync::WriteGuard guard(dir.i_rwsem);
        if (!is_directory_at(dir, request.old_name) && !is_directory_at(dir, request.new_name)) {
            return rename_locked(request, source, target);
        }
    }
    const sync::MutexLock rename_lock(dir.volume().rename_mutex);
    const sync::WriteGuard guard(dir.i_rwsem);
    return rename_locked(request, source, target);
}

Result<RenameSpellings> rename_between_directories(const Request& request, Side& source,
                                                   Side& target) {
    Inode* first = &request.old_dir;
    Inode* second = &request.new_dir;
    const sync::MutexLock rename_lock(first->volume().rename_mutex);
    if (is_self_or_ancestor(*second, *first) ||
        (!is_self_or_ancestor(*first, *second) && std::less<>()(second, first))) {
        std::swap(first, second);
    }
    const sync::WriteGuard first_guard(first->i_rwsem);
    const sync::WriteGuard second_guard(second->i_rwsem);
    return rename_locked(request, source, target);
}

}  // namespace

Result<RenameSpellings> rename(Inode& old_dir, std::string_view old_name, Inode& new_dir,
                               std::string_view new_name, unsigned flags) {
    constexpr unsigned kKnown = kRenameNoReplace | kRenameExchange;
    if ((flags & ~kKnown) != 0 || flags == kKnown) {
        return Errno{EINVAL};
    }
    if (!old_dir.is_directory() || !new_dir.is_directory()) {
        return Errno{ENOTDIR};
    }
    const Request request{old_dir, old_name, new_dir, new_name, flags};
    Side source;
    Side target;
    RenameSpellings spellings =
        TRY(request.changes_parent() ? rename_between_directories(request, source, target)
                                     : rename_in_one_directory(request, source, target));
    target = {};  // a replaced file's clusters are freed before the commit
    TRY_VOID(commit_if_sync(old_dir.volume()));
    return spellings;
}

}  // namespace wbfat::fs::inline WBFAT_RT
