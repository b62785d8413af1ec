// FUSE requests -> fs calls. No policy here: decode, call, reply.
//
// A nodeid is the address of an Inode; the kernel's lookup count is a count of references on it
// (kernel_refs.h). Only the root differs: nodeid 1.
//
// Names the kernel may keep: an entry spelled as readdir shows it, for as long as it likes, since
// only we change the volume. Another spelling (case, 8.3 alias, trailing dots) is answered with a
// timeout of 0, and a missing name is not cached at all, because it may come to exist under another
// spelling.
#pragma once

#include <functional>

#include "fs/volume.h"
#include "src/fuse.h"
#include "src/invalidator.h"
#include "src/kernel_refs.h"
#include "src/mount_options.h"

namespace wbfat::daemon {

// What every request can reach; fuse_req_userdata().
struct Server {
    fs::Volume& volume;
    const DaemonOptions& options;
    fs::InodeRef root;
    std::uint32_t max_read_bytes;  // of one request, as mounted
    Invalidator invalidator;
    KernelReferences references;
    // Runs at FUSE_DESTROY: everything to disk. umount of a fuseblk mount waits for it.
    std::function<void()> on_destroy;
};

fuse_lowlevel_ops make_fuse_ops();

}  // namespace wbfat::daemon
