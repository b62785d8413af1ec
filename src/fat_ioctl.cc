// The FAT ioctls.
#include "src/fat_ioctl.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include <linux/fs.h>
#include <linux/msdos_fs.h>

#include "fs/dir.h"
#include "fs/file.h"
#include "fs/namei.h"
#include "fs/volume.h"
#include "src/fuse_ops.h"
#include "src/reply.h"

namespace wbfat::daemon {

namespace {

// Two entries: the short name, then the long one or "". Source: struct __fat_dirent of
// linux/msdos_fs.h.
using BothNames = std::array<__fat_dirent, 2>;

fs::Volume& volume_of(fuse_req_t request) {
    return static_cast<Server*>(fuse_req_userdata(request))->volume;
}

void reply_number(fuse_req_t request, const IoctlRequest& ioctl, std::uint32_t value) {
    if (ioctl.out_bytes < sizeof(value)) {
        return reply_errno(request, EINVAL);
    }
    static_cast<void>(reply_with<fuse_reply_ioctl>(request, 0, &value, sizeof(value)));
}

void set_attributes(fuse_req_t request, fs::Inode& inode, const IoctlRequest& ioctl) {
    std::uint32_t attributes = 0;
    if (ioctl.in_bytes < sizeof(attributes)) {
        return reply_errno(request, EINVAL);
    }
    std::memcpy(&attributes, ioctl.in, sizeof(attributes));
    // CAP_LINUX_IMMUTABLE of the caller cannot be seen from here; root has it.
    const bool privileged = fuse_req_ctx(request)->uid == 0;
    const Result<> set = fs::set_fat_attributes(inode, attributes, privileged);
    if (!set.has_value()) {
        return reply_result(request, set);
    }
    // The read-only bit is the mode's w, which the kernel has cached.
    const fuse_ino_t ino = inode.is_root() ? FUSE_ROOT_ID : reinterpret_cast<fuse_ino_t>(&inode);
    static_cast<Server*>(fuse_req_userdata(request))->invalidator.invalidate_attributes(ino);
    static_cast<void>(reply_with<fuse_reply_ioctl>(request, 0, nullptr, 0));
}

void fill_name(__fat_dirent& entry, std::uint64_t ino, const std::string& name) {
    entry.d_ino = static_cast<__kernel_long_t>(ino);
    entry.d_reclen = static_cast<unsigned short>(std::min(name.size(), sizeof(entry.d_name) - 1));
    std::memcpy(static_cast<char*>(entry.d_name), name.data(), entry.d_reclen);
}

// The next entry behind the position. Returns false at the end.
Result<bool> next_names(fs::Inode& dir, IoctlPosition& position, BothNames& names) {
    bool found = false;
    TRY_VOID(fs::readdir(dir, position.cookie, [&](const fs::DirEntryView& view) {
        if (found) {
            return false;
        }
        found = true;
        position.cookie = view.next_cookie;
        fill_name(names[0], view.ino, view.short_name);
        if (view.name != view.short_name) {
            fill_name(names[1], view.ino, std::string(view.name));
        }
        return true;
    }));
    return found;
}

void read_both_names(fuse_req_t request, fs::Inode& dir, const IoctlRequest& ioctl,
                     IoctlPosition& position) {
    BothNames names{};
    if (ioctl.out_bytes < sizeof(names)) {
        return reply_errno(request, EINVAL);
    }
    const Result<bool> found = next_names(dir, position, names);
    if (!found.has_value()) {
        return reply_errno(request, found.error().value);
    }
    static_cast<void>(
        reply_with<fuse_reply_ioctl>(request, *found ? 1 : 0, names.data(), sizeof(names)));
}

void trim(fuse_req_t request, const IoctlRequest& ioctl) {
    fstrim_range range{};
    if (ioctl.in_bytes < sizeof(range) || ioctl.out_bytes < sizeof(range)) {
        return reply_errno(request, EINVAL);
    }
    if (fuse_req_ctx(request)->uid != 0) {
        return reply_errno(request, EPERM);
    }
    std::memcpy(&range, ioctl.in, sizeof(range));
    range.minlen = std::max<__u64>(range.minlen, volume_of(request).geometry().sector_bytes);
    const Result<std::uint64_t> trimmed =
        volume_of(request).trim(range.start, range.len, range.minlen);
    if (!trimmed.has_value()) {
        return reply_errno(request, trimmed.error().value);
    }
    range.len = *trimmed;
    static_cast<void>(reply_with<fuse_reply_ioctl>(request, 0, &range, sizeof(range)));
}

}  // namespace

void serve_fat_ioctl(fuse_req_t request, fs::Inode& inode, const IoctlRequest& ioctl,
                     IoctlPosition* position) {
    switch (ioctl.command) {
        case FAT_IOCTL_GET_ATTRIBUTES:
            return reply_number(request, ioctl, fs::get_fat_attributes(inode));
        case FAT_IOCTL_SET_ATTRIBUTES:
            return set_attributes(request, inode, ioctl);
        case FAT_IOCTL_GET_VOLUME_ID:
            return reply_number(request, ioctl, volume_of(request).geometry().volume_id);
        case VFAT_IOCTL_READDIR_BOTH:
        case VFAT_IOCTL_READDIR_SHORT:
            if (position == nullptr) {
                break;
            }
            return read_both_names(request, inode, ioctl, *position);
        case FITRIM:
            return trim(request, ioctl);
        default:
            break;
    }
    reply_errno(request, ENOTTY);
}

}  // namespace wbfat::daemon
