// Mapping and the escape from SIGBUS.
#include "tools/stress/mapped_window.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <cstring>

#include <sys/mman.h>

namespace wbfat::tools {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kWindow = 1U << 20;

// Where this thread goes on when a mapped access faults; null outside such an access.
thread_local sigjmp_buf* sigbus_escape = nullptr;

void on_sigbus(int) {
    if (sigbus_escape != nullptr) {
        siglongjmp(*sigbus_escape, 1);
    }
    // Not ours: let the access fault again, and kill.
    static_cast<void>(std::signal(SIGBUS, SIG_DFL));
}

// Copies within one page; false if it faulted. Not inlined: nothing of the caller lives in a
// register that the jump would lose.
[[gnu::noinline]] bool copy_page(std::byte* to, const std::byte* from, std::size_t count) {
    sigjmp_buf escape;
    // The jump crosses no destructor: memcpy has none.
    if (sigsetjmp(escape, 0) != 0) {  // NOLINT(cert-err52-cpp)
        sigbus_escape = nullptr;
        return false;
    }
    sigbus_escape = &escape;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    std::memcpy(to, from, count);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    sigbus_escape = nullptr;
    return true;
}

}  // namespace

void install_sigbus_handler() {
    struct sigaction action {};
    action.sa_handler = on_sigbus;
    // The handler leaves by a jump, so the signal must not stay blocked.
    action.sa_flags = SA_NODEFER;
    sigaction(SIGBUS, &action, nullptr);
}

MappedWindow::~MappedWindow() {
    drop();
}

int MappedWindow::cover(int fd, std::uint64_t offset, std::uint64_t length) {
    if (base_ != nullptr && offset >= begin_ && offset + length <= begin_ + length_) {
        return 0;
    }
    drop();
    const std::uint64_t begin = offset / kPage * kPage;
    const std::uint64_t bytes =
        std::max((offset + length - begin + kPage - 1) / kPage * kPage, kWindow);
    void* base =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(begin));
    if (base == MAP_FAILED) {
        return errno;
    }
    base_ = static_cast<std::byte*>(base);
    begin_ = begin;
    length_ = bytes;
    return 0;
}

void MappedWindow::drop() {
    if (base_ != nullptr) {
        ::munmap(base_, length_);
        base_ = nullptr;
    }
}

std::size_t MappedWindow::store(std::uint64_t offset, std::span<const std::byte> data) {
    std::size_t done = 0;
    while (done < data.size()) {
        const std::size_t count =
            std::min<std::size_t>(kPage - (offset + done) % kPage, data.size() - done);
        if (!copy_page(at(offset + done), data.data() + done, count)) {
            break;
        }
        done += count;
    }
    return done;
}

std::size_t MappedWindow::load(std::uint64_t offset, std::span<std::byte> data) {
    std::size_t done = 0;
    while (done < data.size()) {
        const std::size_t count =
            std::min<std::size_t>(kPage - (offset + done) % kPage, data.size() - done);
        if (!copy_page(data.data() + done, at(offset + done), count)) {
            break;
        }
        done += count;
    }
    return done;
}

int MappedWindow::sync(std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t begin = offset / kPage * kPage;
    return ::msync(at(begin), offset + length - begin, MS_SYNC) == 0 ? 0 : errno;
}

}  // namespace wbfat::tools
