// What the operations on names share: transactions with a retry, checks, timestamps. For namei.cc
// and rename.cc.
#pragma once

#include <string_view>
#include <utility>

#include "cache/base/result.h"
#include "fs/dir.h"
#include "fs/inode.h"
#include "fs/ordering.h"
#include "fs/volume.h"

namespace wbfat::fs::inline WBFAT_RT {

// Commits that may free what an operation lacks: one for clusters, one for the slots of names held
// back.
inline constexpr unsigned kMaxCommitRetries = 2;

// Runs `change(pending_would_do)` in a Transaction; again after a commit when ENOSPC is all that
// stands in the way (O4). A failed change must have left nothing behind.
// Locks: inode locks may be held; the commit takes none.
template <typename Change>
auto run_in_transaction(Volume& volume, const Change& change)
    -> decltype(change(std::declval<bool&>())) {
    for (unsigned attempt = 0;; ++attempt) {
        bool pending_would_do = false;
        {
            const Transaction transaction(volume);
            TRY_VOID(transaction.status());
            auto result = change(pending_would_do);
            if (result.code() != ENOSPC || !pending_would_do || attempt == kMaxCommitRetries) {
                return result;
            }
        }
        TRY_VOID(volume.ordering().commit());
    }
}

// ENOENT in a removed directory, ENOTDIR in a file.
Result<> check_directory(const Inode& dir);
// Names that cannot exist are simply not there: only creating one says what is wrong with it.
// Errors: ENOENT, ENOTDIR, EIO.
Result<const DirRecord*> find_existing(Inode& dir, std::string_view name);
// The name as it may be created in `dir`; names held back are committed first (O3).
// Errors: as parse_name; of the commit.
Result<ParsedName> prepare_new_name(Inode& dir, std::string_view name);
// The inode of a record of `dir`, as something that may be removed or moved.
// Errors: EUCLEAN for a directory that is (by damage) reachable from another parent too.
Result<InodeRef> get_child(Inode& dir, const DirRecord& record);
// What a change of names does to the directory itself: mtime, link count. Inside a Transaction.
void touch_directory(Inode& dir);
// The inode lost its name. Inside a Transaction, with its i_rwsem held exclusively.
void mark_unlinked(Inode& inode);
// On a sync or dirsync mount a change of names is durable when the call returns.
// Locks: not inside a Transaction.
Result<> commit_if_sync(Volume& volume);

}  // namespace wbfat::fs::inline WBFAT_RT
