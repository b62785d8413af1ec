// Opening an image or a /dev node.
#include "cache/device/device_node.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>
#include <string_view>
#include <utility>

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

namespace wbfat::cache::inline WBFAT_RT {

namespace {

constexpr std::uint32_t kImageBlockBytes = 512;
// The largest logical block size of any device this program can meet.
constexpr std::size_t kBlockBytesMax = 4096;

OpenError error_for(int code, const std::string& path, std::string_view reason) {
    return {code, path + " " + std::string(reason) + "."};
}

OpenError system_error(int code, const std::string& path, std::string_view verb) {
    return {code,
            "Cannot " + std::string(verb) + " " + path + ": " + ::strerrordesc_np(code) + "."};
}

OpenError in_use(const std::string& path) {
    return error_for(EBUSY, path, "is in use: it is mounted, or another program holds it");
}

std::string_view kind_of(mode_t mode) {
    if (S_ISDIR(mode)) {
        return "is a directory, not an image file or a block device";
    }
    if (S_ISCHR(mode)) {
        return "is a character device, not an image file or a block device";
    }
    return "is neither an image file nor a block device";
}

int open_flags(const FileDeviceOptions& options) {
    return O_CLOEXEC | (options.read_only ? O_RDONLY : O_RDWR) | (options.direct_io ? O_DIRECT : 0);
}

OpenError explain_open(int code, const std::string& path, const FileDeviceOptions& options) {
    if (code == EBUSY) {
        return in_use(path);
    }
    if (code == EROFS) {
        return error_for(code, path,
                         "is on a read-only filesystem; it can only be opened read-only");
    }
    if (code == EINVAL && options.direct_io) {
        return error_for(code, path, "is on a filesystem without direct I/O");
    }
    return system_error(code, path, "open");
}

// OFD locks belong to the open file, so they survive a fork into the background and end with the
// last descriptor.
int lock_whole_file(int fd, bool read_only) {
    struct flock lock {};
    lock.l_type = static_cast<short>(read_only ? F_RDLCK : F_WRLCK);
    lock.l_whence = SEEK_SET;
    return ::fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}

// One number out of a file of /sys; 0 when there is none.
std::uint64_t sysfs_number(dev_t device, std::string_view attribute) {
    const std::string base = "/sys/dev/block/" + std::to_string(major(device)) + ":" +
                             std::to_string(minor(device)) + "/";
    // A partition has the attributes of the disk around it.
    for (const std::string_view parent : {"", "../"}) {
        std::ifstream file(base + std::string(parent) + std::string(attribute));
        std::uint64_t value = 0;
        if (file >> value) {
            return value;
        }
    }
    return 0;
}

// The filesystem does not tell (STATX_DIOALIGN is newer than what we support), so it is tried.
std::uint32_t direct_alignment_of_image(int fd) {
    struct Free {
        void operator()(std::byte* memory) const {
            ::operator delete (memory, std::align_val_t{2 * kBlockBytesMax});
        }
    };
    const std::unique_ptr<std::byte, Free> memory(static_cast<std::byte*>(
        ::operator new (2 * kBlockBytesMax, std::align_val_t{2 * kBlockBytesMax})));
    for (std::uint32_t size = kImageBlockBytes; size < kBlockBytesMax; size *= 2) {
        // Aligned to `size` and to nothing more.
        if (::pread(fd, memory.get() + size, size, size) >= 0) {
            return size;
        }
    }
    return kBlockBytesMax;
}

// Punching behind the end changes nothing, and says whether punching is known.
bool can_punch(int fd, off_t size) {
    return ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, size, kBlockBytesMax) == 0;
}

void describe_image(DeviceNode& node, const struct stat& status, const FileDeviceOptions& options) {
    DeviceGeometry& geometry = node.geometry;
    geometry.size_bytes = static_cast<std::uint64_t>(status.st_size);
    geometry.logical_block_bytes =
        options.direct_io ? direct_alignment_of_image(node.fd.get()) : kImageBlockBytes;
    geometry.can_discard = !options.read_only && can_punch(node.fd.get(), status.st_size);
}

// Returns 0 or an errno.
int describe_block_device(DeviceNode& node, const struct stat& status,
                          const FileDeviceOptions& options) {
    DeviceGeometry& geometry = node.geometry;
    const int fd = node.fd.get();
    int block_bytes = 0;
    int read_only = 0;
    if (::ioctl(fd, BLKGETSIZE64, &geometry.size_bytes) != 0 ||
        ::ioctl(fd, BLKSSZGET, &block_bytes) != 0 || ::ioctl(fd, BLKROGET, &read_only) != 0) {
        return errno;
    }
    // open(O_RDWR) of a write-protected device succeeds; only this tells.
    if (read_only != 0 && !options.read_only) {
        return EROFS;
    }
    geometry.logical_block_bytes = static_cast<std::uint32_t>(block_bytes);
    geometry.removable = sysfs_number(status.st_rdev, "removable") != 0;
    geometry.can_discard =
        !options.read_only && sysfs_number(status.st_rdev, "queue/discard_max_bytes") != 0;
    return 0;
}

// The part from offset_bytes on, in whole blocks.
boost::system::result<void, OpenError> cut_geometry(DeviceNode& node, const std::string& path,
                                                    const FileDeviceOptions& options) {
    DeviceGeometry& geometry = node.geometry;
    const std::uint64_t block = geometry.logical_block_bytes;
    if (geometry.size_bytes == 0) {
        return node.is_block_device ? error_for(ENOMEDIUM, path, "has no medium in it")
                                    : error_for(EINVAL, path, "is empty");
    }
    if (options.direct_io && options.offset_bytes % block != 0) {
        return error_for(EINVAL, path,
                         "needs an offset that is a multiple of " + std::to_string(block) +
                             " bytes for direct I/O");
    }
    if (geometry.size_bytes < block) {
        return error_for(EINVAL, path,
                         "has only " + std::to_string(geometry.size_bytes) + " bytes");
    }
    if (options.offset_bytes > geometry.size_bytes ||
        geometry.size_bytes - options.offset_bytes < block) {
        return error_for(EINVAL, path,
                         "ends before byte " + std::to_string(options.offset_bytes) +
                             ", where the volume should begin");
    }
    geometry.size_bytes = (geometry.size_bytes - options.offset_bytes) / block * block;
    geometry.read_only = options.read_only;
    node.alignment = options.direct_io ? geometry.logical_block_bytes : 1;
    return {};
}

}  // namespace

boost::system::result<DeviceNode, OpenError> open_device_node(const std::string& path,
                                                              const FileDeviceOptions& options) {
    struct stat status {};
    // Asked before open(), which would hang on a FIFO and rewind a tape.
    if (::stat(path.c_str(), &status) != 0) {
        return system_error(errno, path, "open");
    }
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
        return error_for(ENOTBLK, path, kind_of(status.st_mode));
    }
    // O_EXCL means something without O_CREAT for block devices only.
    const bool claim = options.exclusive && S_ISBLK(status.st_mode);
    DeviceNode node;
    node.fd = UniqueFd(::open(path.c_str(), open_flags(options) | (claim ? O_EXCL : 0)));
    if (node.fd.get() < 0) {
        return explain_open(errno, path, options);
    }
    if (::fstat(node.fd.get(), &status) != 0) {
        return system_error(errno, path, "examine");
    }
    node.is_block_device = S_ISBLK(status.st_mode);
    if (!node.is_block_device && !S_ISREG(status.st_mode)) {
        return error_for(ENOTBLK, path, kind_of(status.st_mode));
    }
    if (options.exclusive) {
        const int error = lock_whole_file(node.fd.get(), options.read_only);
        if (error == EAGAIN || error == EACCES) {
            return in_use(path);
        }
        if (error != 0) {
            return system_error(error, path, "lock");
        }
    }
    if (!node.is_block_device) {
        describe_image(node, status, options);
    } else if (const int error = describe_block_device(node, status, options); error != 0) {
        return error == EROFS
                   ? error_for(EROFS, path, "is write-protected; it can only be opened read-only")
                   : system_error(error, path, "examine");
    }
    if (const auto cut = cut_geometry(node, path, options); cut.has_error()) {
        return cut.error();
    }
    return node;
}

Result<> reopen_without_claim(DeviceNode& node, const FileDeviceOptions& options) {
    if (!node.is_block_device || !options.exclusive) {
        return {};
    }
    // Through /proc, so that it is the same device whatever the path means by now.
    const std::string self = "/proc/self/fd/" + std::to_string(node.fd.get());
    const UniqueFd fresh(::open(self.c_str(), open_flags(options)));
    if (fresh.get() < 0 || ::dup3(fresh.get(), node.fd.get(), O_CLOEXEC) < 0) {
        return Errno{errno};
    }
    // The claim and the old lock went with the old open file.
    if (const int error = lock_whole_file(node.fd.get(), options.read_only); error != 0) {
        return Errno{error == EAGAIN ? EBUSY : error};
    }
    return {};
}

}  // namespace wbfat::cache::inline WBFAT_RT
