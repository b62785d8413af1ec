// System calls, one per operation.
#include "tests/mount/model/side.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include <sys/mman.h>
#include <sys/statfs.h>
#include <sys/uio.h>

#include "tools/stress/random.h"

namespace wbfat::model {
namespace {

constexpr mode_t kMode = 0755;
constexpr const char* kReplacement = "replacement.tmp";

Outcome answer(std::int64_t result) {
    return result < 0 ? Outcome::failed(errno) : Outcome{result, 0, std::nullopt};
}

}  // namespace

void fill_pattern(std::span<std::byte> out, std::uint64_t value) {
    std::uint64_t state = tools::mix64(value);
    std::size_t at = 0;
    while (at < out.size()) {
        state += tools::kMixFactor1;
        const std::uint64_t word = state ^ (state >> 29);
        const std::size_t length = std::min(sizeof(word), out.size() - at);
        std::memcpy(out.data() + at, &word, length);
        at += length;
    }
}

timespec seconds_to_timespec(std::uint64_t seconds) {
    return {static_cast<time_t>(seconds), 0};
}

std::string to_text(const Outcome& outcome) {
    if (!outcome.ok()) {
        return fmt::format("{} ({})", strerrorname_np(outcome.error), outcome.value);
    }
    std::string text = fmt::format("{}", outcome.value);
    if (outcome.stat) {
        const struct stat& s = *outcome.stat;
        text +=
            fmt::format(" mode {:o} nlink {} size {} blocks {} mtime {}.{:09}", s.st_mode,
                        s.st_nlink, s.st_size, s.st_blocks, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
    }
    return text;
}

Side::Side(const std::string& directory, std::size_t max_io, std::size_t max_map)
    : root_(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)),
      max_map_(max_map),
      buffer_(max_io) {
    if (root_ < 0) {
        throw std::system_error(errno, std::generic_category(), directory);
    }
}

Side::~Side() {
    for (Slot& slot : slots_) {
        static_cast<void>(close(slot));
    }
    ::close(root_);
}

Outcome Side::run(const Op& op, const std::string& path, const std::string& path2) {
    data_bytes_ = 0;
    if (op.kind == Kind::kOpen) {
        return open(op, path);
    }
    return uses_slot(op.kind) ? run_on_slot(op) : run_on_path(op, path, path2);
}

Outcome Side::run_on_slot(const Op& op) {
    Slot& slot = slots_[op.slot];
    switch (op.kind) {
        case Kind::kClose:
            return close(slot);
        case Kind::kWrite:
        case Kind::kPwrite:
        case Kind::kWritev:
            return write(op, slot.fd);
        case Kind::kRead:
        case Kind::kPread:
            return read(op, slot.fd);
        case Kind::kLseek:
            return answer(lseek(slot.fd, static_cast<off_t>(op.offset), op.flags));
        case Kind::kFtruncate:
            return answer(ftruncate(slot.fd, static_cast<off_t>(op.offset)));
        case Kind::kFallocate:
            return answer(fallocate(slot.fd, op.flags, static_cast<off_t>(op.offset),
                                    static_cast<off_t>(op.length)));
        case Kind::kFsync:
            return answer(fsync(slot.fd));
        case Kind::kFdatasync:
            return answer(fdatasync(slot.fd));
        case Kind::kCopyRange:
            return copy_range(op);
        case Kind::kStore:
        case Kind::kLoad:
            return touch_map(op, slot);
        case Kind::kMsync:
            return slot.map == nullptr ? Outcome{} : answer(msync(slot.map, max_map_, MS_SYNC));
        case Kind::kUnmap:
            return unmap(slot);
        case Kind::kEvict:
            return answer(-posix_fadvise(slot.fd, 0, 0, POSIX_FADV_DONTNEED));
        case Kind::kFstat:
            return fstat_outcome(slot.fd);
        case Kind::kFutimens: {
            const timespec times[2] = {seconds_to_timespec(op.value),
                                       seconds_to_timespec(op.value)};
            return answer(futimens(slot.fd, times));
        }
        default:
            return Outcome::failed(EINVAL);
    }
}

Outcome Side::run_on_path(const Op& op, const std::string& path, const std::string& path2) {
    const char* const name = path.c_str();
    switch (op.kind) {
        case Kind::kTruncate: {
            // There is no truncateat: by way of the directory that the process is in.
            if (fchdir(root_) != 0) {
                return Outcome::failed(errno);
            }
            return answer(truncate(name, static_cast<off_t>(op.offset)));
        }
        case Kind::kUnlink:
            return answer(unlinkat(root_, name, 0));
        case Kind::kMkdir:
            return answer(mkdirat(root_, name, kMode));
        case Kind::kRmdir:
            return answer(unlinkat(root_, name, AT_REMOVEDIR));
        case Kind::kRename:
            return answer(
                renameat2(root_, name, root_, path2.c_str(), static_cast<unsigned>(op.flags)));
        case Kind::kStat: {
            struct stat got {};
            const Outcome outcome = answer(fstatat(root_, name, &got, AT_SYMLINK_NOFOLLOW));
            return outcome.ok() ? Outcome{0, 0, got} : outcome;
        }
        case Kind::kUtimens: {
            const timespec times[2] = {seconds_to_timespec(op.value),
                                       seconds_to_timespec(op.value)};
            return answer(utimensat(root_, name, times, 0));
        }
        case Kind::kChmod:
            return answer(fchmodat(root_, name, static_cast<mode_t>(op.flags), 0));
        case Kind::kChown:
            return answer(
                fchownat(root_, name, static_cast<uid_t>(op.value), static_cast<gid_t>(-1), 0));
        case Kind::kAccess:
            return answer(faccessat(root_, name, F_OK, 0));
        case Kind::kReadFile:
            return read_file(path);
        case Kind::kReplace:
            return replace(op, path);
        case Kind::kLink:
            return answer(linkat(root_, name, root_, path2.c_str(), 0));
        case Kind::kSymlink:
            return answer(symlinkat("target", root_, name));
        case Kind::kMkfifo:
            return answer(mkfifoat(root_, name, kMode));
        case Kind::kMknod:
            return answer(mknodat(root_, name, S_IFREG | kMode, 0));
        case Kind::kFsyncDir:
            return fsync_dir(path);
        default:
            return Outcome::failed(EINVAL);
    }
}

Outcome Side::open(const Op& op, const std::string& path) {
    Slot& slot = slots_[op.slot];
    static_cast<void>(close(slot));
    const int flags = direct_ ? op.flags : op.flags & ~O_DIRECT;
    const int fd = openat(root_, path.c_str(), flags | O_CLOEXEC, kMode);
    if (fd < 0) {
        return Outcome::failed(errno);
    }
    slot.fd = fd;
    slot.flags = op.flags;
    return {};
}

Outcome Side::close(Slot& slot) {
    if (slot.fd < 0) {
        return {};
    }
    static_cast<void>(unmap(slot));
    const Outcome outcome = answer(::close(slot.fd));
    slot = Slot{};
    return outcome;
}

Outcome Side::write(const Op& op, int fd) {
    const std::span<std::byte> bytes(buffer_.data(),
                                     std::min<std::size_t>(op.length, buffer_.size()));
    fill_pattern(bytes, op.value);
    if (op.kind == Kind::kWrite) {
        return answer(::write(fd, bytes.data(), bytes.size()));
    }
    if (op.kind == Kind::kPwrite) {
        return answer(pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(op.offset)));
    }
    const std::size_t first = bytes.size() / 3;
    const std::size_t second = bytes.size() / 5;
    const iovec pieces[3] = {{bytes.data(), first},
                             {bytes.data() + first, second},
                             {bytes.data() + first + second, bytes.size() - first - second}};
    return answer(writev(fd, pieces, 3));
}

Outcome Side::read(const Op& op, int fd) {
    const std::size_t length = std::min<std::size_t>(op.length, buffer_.size());
    const Outcome outcome = answer(
        op.kind == Kind::kRead ? ::read(fd, buffer_.data(), length)
                               : pread(fd, buffer_.data(), length, static_cast<off_t>(op.offset)));
    data_bytes_ = outcome.ok() ? static_cast<std::size_t>(outcome.value) : 0;
    return outcome;
}

Outcome Side::copy_range(const Op& op) {
    off_t from = static_cast<off_t>(op.offset);
    off_t to = static_cast<off_t>(op.offset2);
    std::int64_t done = 0;
    while (done < static_cast<std::int64_t>(op.length)) {
        const ssize_t step = copy_file_range(slots_[op.slot].fd, &from, slots_[op.slot2].fd, &to,
                                             op.length - static_cast<std::uint64_t>(done), 0);
        if (step < 0 && done == 0) {
            return Outcome::failed(errno);
        }
        if (step <= 0) {
            break;
        }
        done += step;
    }
    return {done, 0, std::nullopt};
}

Outcome Side::map(Slot& slot) {
    const int protection =
        (slot.flags & O_ACCMODE) == O_RDONLY ? PROT_READ : PROT_READ | PROT_WRITE;
    void* const at = mmap(nullptr, max_map_, protection, MAP_SHARED, slot.fd, 0);
    if (at == MAP_FAILED) {
        return Outcome::failed(errno);
    }
    slot.map = static_cast<std::byte*>(at);
    return {};
}

// The caller has cut the range at the end of the file: beyond it is SIGBUS.
Outcome Side::touch_map(const Op& op, Slot& slot) {
    if (op.kind == Kind::kStore && (slot.flags & O_ACCMODE) == O_RDONLY) {
        return Outcome::failed(EACCES);
    }
    if (slot.map == nullptr) {
        if (const Outcome mapped = map(slot); !mapped.ok()) {
            return mapped;
        }
    }
    if (op.kind == Kind::kStore) {
        fill_pattern({slot.map + op.offset, op.length}, op.value);
    } else {
        std::memcpy(buffer_.data(), slot.map + op.offset, op.length);
        data_bytes_ = op.length;
    }
    return {static_cast<std::int64_t>(op.length), 0, std::nullopt};
}

Outcome Side::unmap(Slot& slot) const {
    if (slot.map == nullptr) {
        return {};
    }
    const Outcome synced = answer(msync(slot.map, max_map_, MS_SYNC));
    const Outcome outcome = answer(munmap(slot.map, max_map_));
    slot.map = nullptr;
    return synced.ok() ? outcome : synced;
}

struct stat Side::fstat(unsigned slot) const {
    struct stat got {};
    static_cast<void>(::fstat(slots_[slot].fd, &got));
    return got;
}

std::uint64_t Side::position(unsigned slot) const {
    return static_cast<std::uint64_t>(std::max<off_t>(0, lseek(slots_[slot].fd, 0, SEEK_CUR)));
}

Outcome Side::fstat_outcome(int fd) const {
    struct stat got {};
    const Outcome outcome = answer(::fstat(fd, &got));
    return outcome.ok() ? Outcome{0, 0, got} : outcome;
}

Outcome Side::read_file(const std::string& path) {
    const int fd = openat(root_, path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return Outcome::failed(errno);
    }
    Outcome outcome;
    std::size_t done = 0;
    while (done < buffer_.size()) {
        const ssize_t step = ::read(fd, buffer_.data() + done, buffer_.size() - done);
        if (step < 0) {
            outcome = Outcome::failed(errno);
            break;
        }
        if (step == 0) {
            break;
        }
        done += static_cast<std::size_t>(step);
    }
    ::close(fd);
    if (outcome.ok()) {
        data_bytes_ = done;
        outcome.value = static_cast<std::int64_t>(done);
    }
    return outcome;
}

// What an editor does: the new content under a name of its own, synced, then renamed over the old.
Outcome Side::replace(const Op& op, const std::string& path) {
    const int fd = openat(root_, kReplacement, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kMode);
    if (fd < 0) {
        return Outcome::failed(errno);
    }
    Op content = op;
    content.kind = Kind::kWrite;
    Outcome outcome = write(content, fd);
    if (outcome.ok() && op.flags != 0) {
        const Outcome synced = answer(fsync(fd));
        outcome = synced.ok() ? outcome : synced;
    }
    ::close(fd);
    if (outcome.ok() && outcome.value == static_cast<std::int64_t>(op.length)) {
        const Outcome renamed = answer(renameat(root_, kReplacement, root_, path.c_str()));
        outcome = renamed.ok() ? outcome : renamed;
    } else if (outcome.ok()) {
        outcome = Outcome::failed(ENOSPC);
    }
    if (!outcome.ok()) {
        static_cast<void>(unlinkat(root_, kReplacement, 0));
    }
    return outcome;
}

Outcome Side::fsync_dir(const std::string& path) const {
    const int fd = openat(root_, path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return Outcome::failed(errno);
    }
    const Outcome outcome = answer(fsync(fd));
    ::close(fd);
    return outcome;
}

}  // namespace wbfat::model
