// The ioctls of the FAT driver: attributes, volume id, both names of an entry, FITRIM.
//
// Source: Linux fs/fat/file.c fat_generic_ioctl, fs/fat/dir.c fat_dir_ioctl; fat.md 3.2.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fs/inode.h"
#include "src/fuse.h"

namespace wbfat::daemon {

// The position of VFAT_IOCTL_READDIR_BOTH in an open directory: a cookie of fs::readdir.
struct IoctlPosition {
    std::uint64_t cookie = 0;
};

struct IoctlRequest {
    unsigned command;
    const void* in;
    std::size_t in_bytes;
    std::size_t out_bytes;
};

// Replies in any case. `position` is null for files.
void serve_fat_ioctl(fuse_req_t request, fs::Inode& inode, const IoctlRequest& ioctl,
                     IoctlPosition* position);

}  // namespace wbfat::daemon
