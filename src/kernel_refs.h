// What the kernel holds of us: lookup counts of inodes, open files, open directories.
//
// FORGET and RELEASE give them back one by one; but when the connection ends (umount -l, a killed
// mount, a busy plain umount) the kernel forgets without telling. drop_all() then gives back
// whatever is left, so that unlinked files are freed and the volume can be closed clean.
//
// Locking: one mutex, a leaf: references and handles are dropped outside it, since the last one may
// free clusters.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "fs/file.h"
#include "fs/inode.h"
#include "src/fat_ioctl.h"

namespace wbfat::daemon {

// An open directory.
struct DirHandle {
    fs::InodeRef inode;
    IoctlPosition ioctl_position;
};

class KernelReferences {
public:
    // Passes one reference to the kernel. Returns its nodeid: the inode's address.
    std::uint64_t add_lookup(fs::InodeRef inode);
    // Gives `count` references back.
    void forget(std::uint64_t nodeid, std::uint64_t count);
    // What the kernel knows of an inode is wrong and stays so until it forgets the inode.
    void note_mistaken(std::uint64_t nodeid);
    bool is_mistaken(std::uint64_t nodeid) const;

    // Keeps the handle until release; returns what goes into fuse_file_info::fh, its address.
    std::uint64_t add(std::unique_ptr<fs::File> file);
    std::uint64_t add(std::unique_ptr<DirHandle> dir);
    void release_file(std::uint64_t handle);
    void release_dir(std::uint64_t handle);

    // The connection is gone: handles first, then lookups. No request may be running.
    void drop_all();

private:
    mutable std::mutex mutex_;
    std::unordered_map<std::uint64_t, std::uint64_t> lookups_;  // guarded by mutex_
    std::unordered_set<std::uint64_t> mistaken_;  // guarded by mutex_; each is in lookups_
    std::unordered_map<std::uint64_t, std::unique_ptr<fs::File>> files_;  // guarded by mutex_
    std::unordered_map<std::uint64_t, std::unique_ptr<DirHandle>>
        directories_;  // guarded by mutex_
};

}  // namespace wbfat::daemon
