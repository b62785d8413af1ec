// Opening a device or image for formatting, with every check that protects what is on it.
#include "tools/mkfs/target.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <system_error>
#include <utility>

#include <linux/fs.h>
#include <linux/hdreg.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "tools/mkfs/usage_error.h"

namespace wbfat::tools {

namespace {

namespace stdfs = std::filesystem;

std::string reason(int error) {
    return std::generic_category().message(error);
}

std::string device_number(dev_t device) {
    return fmt::format("{}:{}", major(device), minor(device));
}

stdfs::path sysfs_of(dev_t device) {
    std::error_code ignored;
    const stdfs::path link = "/sys/dev/block/" + device_number(device);
    const stdfs::path real = stdfs::canonical(link, ignored);
    return ignored ? link : real;
}

std::optional<std::uint64_t> read_number(const stdfs::path& path) {
    std::ifstream file(path);
    std::uint64_t value = 0;
    if (file >> value) {
        return value;
    }
    return std::nullopt;
}

// The mount point of a device, from mountinfo: id, parent, major:minor, root, mount point, ..
std::optional<std::string> mount_point_of(dev_t device) {
    std::ifstream mounts("/proc/self/mountinfo");
    const std::string wanted = device_number(device);
    for (std::string line; std::getline(mounts, line);) {
        std::istringstream fields(line);
        std::string id;
        std::string parent;
        std::string number;
        std::string root;
        std::string mount_point;
        if (fields >> id >> parent >> number >> root >> mount_point && number == wanted) {
            return mount_point;
        }
    }
    return std::nullopt;
}

// The mount point of a loop device that stands on this very file.
std::optional<std::string> mount_point_through_loop(const struct stat& image) {
    std::error_code ignored;
    for (const auto& entry : stdfs::directory_iterator("/sys/block", ignored)) {
        std::ifstream backing(entry.path() / "loop/backing_file");
        std::string path;
        struct stat found {};
        if (!std::getline(backing, path) || stat(path.c_str(), &found) != 0 ||
            found.st_dev != image.st_dev || found.st_ino != image.st_ino) {
            continue;
        }
        struct stat node {};
        if (stat(("/dev/" + entry.path().filename().string()).c_str(), &node) == 0) {
            if (auto mount_point = mount_point_of(node.st_rdev)) {
                return mount_point;
            }
        }
    }
    return std::nullopt;
}

bool has_partitions_or_holders(const stdfs::path& sysfs) {
    std::error_code ignored;
    for (const auto& entry : stdfs::directory_iterator(sysfs, ignored)) {
        if (stdfs::exists(entry.path() / "partition", ignored)) {
            return true;
        }
    }
    const stdfs::directory_iterator holders(sysfs / "holders", ignored);
    return !ignored && holders != stdfs::directory_iterator();
}

void check_block_device(const std::string& path, dev_t device, SafetyChecks checks) {
    if (const auto mount_point = mount_point_of(device)) {
        throw UsageError(fmt::format("{} is mounted on {}: unmount it first.", path, *mount_point));
    }
    if (checks == SafetyChecks::kObeyed && has_partitions_or_holders(sysfs_of(device))) {
        throw UsageError(fmt::format(
            "{} has partitions or is used by a mapping: format one of them, or give -I.", path));
    }
}

void lock_image(const std::string& path, int fd) {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0) {
        return;
    }
    if (errno == EAGAIN || errno == EACCES) {
        throw UsageError(fmt::format("{} is in use (locked): unmount it first.", path));
    }
    // Filesystems without locks: nothing can hold one either.
}

void ask_block_device(const std::string& path, Target& target, dev_t number) {
    const int fd = target.fd.get();
    fs::FormatDevice& device = target.device;
    std::uint64_t size_bytes = 0;
    if (ioctl(fd, BLKGETSIZE64, &size_bytes) != 0) {
        throw UsageError(
            fmt::format("The size of {} cannot be found out: {}.", path, reason(errno)));
    }
    device.size_bytes = size_bytes;
    int block_bytes = 0;
    if (ioctl(fd, BLKSSZGET, &block_bytes) == 0 && block_bytes >= 512) {
        device.logical_block_bytes = static_cast<std::uint32_t>(block_bytes);
    }
    hd_geometry disk{};
    if (ioctl(fd, HDIO_GETGEO, &disk) == 0 && disk.heads != 0 && disk.sectors != 0) {
        device.disk_geometry = fs::DiskGeometry{disk.heads, disk.sectors};
    }
    const stdfs::path sysfs = sysfs_of(number);
    std::error_code ignored;
    const bool is_partition = stdfs::exists(sysfs / "partition", ignored);
    if (is_partition) {
        device.partition_start_sectors =
            static_cast<std::uint32_t>(read_number(sysfs / "start").value_or(0));
    }
    const bool is_virtual = sysfs.string().starts_with("/sys/devices/virtual/");
    const bool is_removable = read_number(sysfs / "removable").value_or(0) != 0;
    target.wants_mbr =
        !is_partition && !is_virtual && !is_removable && !has_partitions_or_holders(sysfs);
}

}  // namespace

Target open_target(const std::string& path, SafetyChecks checks) {
    struct stat before {};
    if (stat(path.c_str(), &before) != 0) {
        throw UsageError(fmt::format("{} cannot be opened: {} (-C creates an image file).", path,
                                     reason(errno)));
    }
    const bool is_block = S_ISBLK(before.st_mode);
    if (!is_block && !S_ISREG(before.st_mode)) {
        throw UsageError(fmt::format("{} is neither a block device nor a file.", path));
    }
    if (is_block) {
        check_block_device(path, before.st_rdev, checks);
    } else if (const auto mount_point = mount_point_through_loop(before)) {
        throw UsageError(fmt::format("{} is mounted on {} through a loop device: unmount it first.",
                                     path, *mount_point));
    }
    Target target;
    // O_EXCL without O_CREAT means: fail if a block device is mounted or held.
    target.fd = UniqueFd(open(path.c_str(), O_RDWR | O_CLOEXEC | (is_block ? O_EXCL : 0)));
    if (target.fd.get() < 0) {
        throw UsageError(errno == EBUSY
                             ? fmt::format("{} is in use: unmount it first.", path)
                             : fmt::format("{} cannot be opened: {}.", path, reason(errno)));
    }
    lock_image(path, target.fd.get());
    if (is_block) {
        ask_block_device(path, target, before.st_rdev);
    } else {
        target.device.size_bytes = static_cast<std::uint64_t>(before.st_size);
    }
    return target;
}

UniqueFd create_image(const std::string& path, std::uint64_t size_bytes) {
    UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (fd.get() < 0) {
        throw UsageError(fmt::format("-C: {} cannot be created: {}.", path, reason(errno)));
    }
    lock_image(path, fd.get());
    if (ftruncate(fd.get(), static_cast<off_t>(size_bytes)) != 0) {
        const int error = errno;
        unlink(path.c_str());
        throw UsageError(fmt::format("-C: {} cannot be made {} bytes long: {}.", path, size_bytes,
                                     reason(error)));
    }
    return fd;
}

}  // namespace wbfat::tools
