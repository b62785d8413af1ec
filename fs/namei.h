// Operations on names: lookup, create, mkdir, unlink, rmdir, rename, exchange.
//
// Locking: each takes the i_rwsem of the directories it changes (two: Volume::rename_mutex first,
// then by address, the parent before a child), then those of the inodes it changes, then a
// Transaction. Callers hold nothing. An ENOSPC that a commit would cure is retried after one.
// Source: Linux fs/fat/namei_vfat.c; kernel-vfat-answers.txt has every error number.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "cache/base/result.h"
#include "fs/inode.h"

namespace wbfat::fs::inline WBFAT_RT {

struct LookupResult {
    InodeRef inode;
    // The name was spelled as readdir shows it. Other spellings must not be cached by the caller:
    // they go stale.
    bool canonical = true;
    std::string name;  // as readdir shows it
};

// Errors: ENOENT, ENOTDIR, EINVAL, ENAMETOOLONG, EIO, EUCLEAN.
Result<LookupResult> lookup(Inode& dir, std::string_view name);
// Creates an empty regular file. `mode` counts only as vfat lets it: no w bit for anyone of 0222 &
// ~fmask does nothing. Errors: EEXIST, ENOSPC, EROFS, ENOENT in a removed directory.
Result<InodeRef> create(Inode& dir, std::string_view name);
Result<InodeRef> mkdir(Inode& dir, std::string_view name);
Result<> unlink(Inode& dir, std::string_view name);
Result<> rmdir(Inode& dir, std::string_view name);

// How readdir shows the two names of a rename; empty: there is no such name.
struct RenameSpellings {
    std::string old_before;
    std::string new_before;
    std::string old_after;
    std::string new_after;
};

enum RenameFlags : unsigned {
    kRenameNoReplace = 1,
    kRenameExchange = 2
};  // RENAME_* of renameat2; others EINVAL
// Errors: ENOENT, EEXIST, ENOTEMPTY, ENOTDIR, EISDIR, EINVAL (directory into itself, unknown
// flags), ENOSPC, EROFS. A rename that changes only the case of a name changes it. An exchange is
// one step for a power cut, unless both directories are full and the names in different sectors.
Result<RenameSpellings> rename(Inode& old_dir, std::string_view old_name, Inode& new_dir,
                               std::string_view new_name, unsigned flags);

// Lists a directory: ".", "..", then the names. `visit` gets the inode number, type and the cookie
// to resume behind it.
struct DirEntryView {
    std::string_view name;
    std::string short_name;  // the 8.3 alias, "FOO~1.TXT"; ".", ".." for these
    std::uint64_t ino = 0;
    bool is_directory = false;
    std::uint64_t next_cookie = 0;
};
Result<> readdir(Inode& dir, std::uint64_t cookie,
                 const std::function<bool(const DirEntryView&)>& visit);

}  // namespace wbfat::fs::inline WBFAT_RT
