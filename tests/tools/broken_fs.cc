// A filesystem that lies, for the tests of wbfat-stress: preloaded, it bends the system calls of
// that program.
//
// WBFAT_BROKEN names the lie. Each happens often enough to be met in a short run, and seldom enough
// that the run does not end at its first step. Only descriptors of regular files opened for writing
// are touched.
#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>

namespace {

std::string_view lie() {
    static const char* const name = std::getenv("WBFAT_BROKEN");
    return name != nullptr ? name : "";
}

bool every(std::atomic<unsigned>& counter, unsigned n) {
    return counter.fetch_add(1) % n == n - 1;
}

template <typename Function>
Function* next(const char* name) {
    return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

off_t size_of(int fd) {
    struct stat status {};
    return fstat(fd, &status) == 0 ? status.st_size : 0;
}

}  // namespace

extern "C" {

ssize_t pwrite64(int fd, const void* data, size_t count, off64_t offset) {
    static auto* const real = next<ssize_t(int, const void*, size_t, off64_t)>("pwrite64");
    static std::atomic<unsigned> calls{0};
    if (lie() == "lost-write" && offset + static_cast<off64_t>(count) <= size_of(fd) &&
        every(calls, 20)) {
        return static_cast<ssize_t>(count);
    }
    if (lie() == "misplaced-write" && offset >= 4096 && every(calls, 20)) {
        return real(fd, data, count, offset - 4096) == static_cast<ssize_t>(count) &&
                       ftruncate64(fd, size_of(fd)) == 0
                   ? static_cast<ssize_t>(count)
                   : -1;
    }
    if (lie() == "full" && offset + static_cast<off64_t>(count) > size_of(fd) && every(calls, 3)) {
        if (count == 1) {
            errno = ENOSPC;
            return -1;
        }
        return real(fd, data, count / 2, offset);
    }
    return real(fd, data, count, offset);
}

ssize_t pread64(int fd, void* data, size_t count, off64_t offset) {
    static auto* const real = next<ssize_t(int, void*, size_t, off64_t)>("pread64");
    static std::atomic<unsigned> calls{0};
    const ssize_t result = real(fd, data, count, offset);
    if (lie() == "bit-flip" && result > 100 && every(calls, 100)) {
        static_cast<char*>(data)[result / 2] ^= 4;
    }
    if (lie() == "short-read" && result > 100 && every(calls, 100)) {
        return 0;
    }
    return result;
}

int ftruncate64(int fd, off64_t length) {
    static auto* const real = next<int(int, off64_t)>("ftruncate64");
    static std::atomic<unsigned> calls{0};
    const off_t old = size_of(fd);
    if (lie() == "full" && length > old && every(calls, 3)) {
        // As vfat may: part of the way, then no room.
        static_cast<void>(real(fd, old + (length - old) / 2));
        errno = ENOSPC;
        return -1;
    }
    if (lie() == "full-shrinks" && length > old && old > 0 && every(calls, 10)) {
        static_cast<void>(real(fd, old - 1));
        errno = ENOSPC;
        return -1;
    }
    if (lie() == "wrong-size" && every(calls, 20)) {
        return real(fd, length + 1);
    }
    const int result = real(fd, length);
    if (lie() == "stale-tail" && result == 0 && length > old && every(calls, 10)) {
        static auto* const write_back =
            next<ssize_t(int, const void*, size_t, off64_t)>("pwrite64");
        write_back(fd, "!", 1, old);
    }
    if (lie() == "over-cut" && result == 0 && length < old && length > 0 && every(calls, 10)) {
        static_cast<void>(real(fd, length - 1));
        return real(fd, length);
    }
    return result;
}

int fsync(int fd) {
    static auto* const real = next<int(int)>("fsync");
    static std::atomic<unsigned> calls{0};
    if (lie() == "sync-error" && every(calls, 5)) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}

int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags) {
    static auto* const real = next<int(int, off64_t, off64_t, unsigned)>("sync_file_range");
    static std::atomic<unsigned> calls{0};
    if (lie() == "wait-error" && every(calls, 20)) {
        errno = EIO;
        return -1;
    }
    return real(fd, offset, length, flags);
}

void* mmap64(void* address, size_t length, int protection, int flags, int fd, off64_t offset) {
    static auto* const real = next<void*(void*, size_t, int, int, int, off64_t)>("mmap64");
    const bool is_window = fd >= 0 && (flags & MAP_SHARED) != 0 && (protection & PROT_WRITE) != 0;
    if (is_window && lie() == "no-mmap") {
        errno = ENODEV;
        return MAP_FAILED;
    }
    if (is_window && lie() == "lost-store") {
        flags = (flags & ~(MAP_SHARED | MAP_SHARED_VALIDATE)) | MAP_PRIVATE;
    }
    return real(address, length, protection, flags, fd, offset);
}

// Without large-file macros the program calls these names; on this architecture they are the same
// functions.
ssize_t pwrite(int fd, const void* data, size_t count, off_t offset) {
    return pwrite64(fd, data, count, offset);
}
ssize_t pread(int fd, void* data, size_t count, off_t offset) {
    return pread64(fd, data, count, offset);
}
int ftruncate(int fd, off_t length) noexcept {
    return ftruncate64(fd, length);
}
void* mmap(void* address, size_t length, int protection, int flags, int fd, off_t offset) noexcept {
    return mmap64(address, length, protection, flags, fd, offset);
}
}
