// What the device tests share: Bios that can be waited for, temporary images, loop devices,
// patterns.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <linux/loop.h>
#include <sys/ioctl.h>

#include <gtest/gtest.h>

#include "cache/device/block_device.h"
#include "cache/sync/sync.h"

// A test that this machine cannot run is skipped with a reason; the machine that guards the tree
// must be able to.
#define SKIP_UNLESS_CI(reason)                                                  \
    do {                                                                        \
        const char* ci = std::getenv("CI"); /* NOLINT(concurrency-mt-unsafe) */ \
        if (ci != nullptr && std::string(ci) == "true") {                       \
            FAIL() << "CI=true, but " << (reason);                              \
        }                                                                       \
        GTEST_SKIP() << (reason);                                               \
    } while (false)

namespace wbfat::test {

// The byte at `offset` of generation `generation`: any piece of any write can be recognised.
inline std::byte pattern_byte(std::uint64_t offset, std::uint64_t generation) {
    std::uint64_t z = (offset >> 3) * 0x9E3779B97F4A7C15 + generation * 0xD1B54A32D192ED03;
    z = (z ^ (z >> 29)) * 0xBF58476D1CE4E5B9;
    return static_cast<std::byte>(z >> (8 * (offset & 7)));
}

inline std::vector<std::byte> pattern(std::uint64_t offset, std::size_t length,
                                      std::uint64_t generation = 0) {
    std::vector<std::byte> data(length);
    for (std::size_t i = 0; i < length; i++) {
        data[i] = pattern_byte(offset + i, generation);
    }
    return data;
}

// A Bio, and the wait for it.
class TestBio {
public:
    TestBio(cache::BioOp op, std::uint64_t offset, std::span<std::byte> memory)
        : TestBio(op, offset, std::vector{memory}) {}
    TestBio(cache::BioOp op, std::uint64_t offset,
            const std::vector<std::span<std::byte>>& pieces) {
        bio_.op = op;
        bio_.offset_bytes = offset;
        for (const std::span<std::byte> piece : pieces) {
            bio_.segments.push_back({piece.data(), static_cast<std::uint32_t>(piece.size())});
        }
        bio_.context = this;
        bio_.end_io = [](cache::Bio& bio) { static_cast<TestBio*>(bio.context)->completed(); };
    }
    TestBio(const TestBio&) = delete;
    TestBio& operator=(const TestBio&) = delete;
    ~TestBio() = default;

    cache::Bio& bio() {
        return bio_;
    }
    // Returns the error.
    int wait() {
        std::unique_lock lock(lock_);
        done_.wait(lock, [this] { return nr_completions_ > 0; });
        return bio_.error;
    }
    int nr_completions() {
        const std::lock_guard lock(lock_);
        return nr_completions_;
    }
    sync::Role completed_by() {
        const std::lock_guard lock(lock_);
        return completed_by_;
    }

private:
    void completed() {
        const std::lock_guard lock(lock_);
        nr_completions_++;
        completed_by_ = sync::current_task().role();
        done_.notify_all();
    }

    cache::Bio bio_;
    std::mutex lock_;
    std::condition_variable done_;
    int nr_completions_ = 0;
    sync::Role completed_by_ = sync::Role::kOther;
};

class TempDir {
public:
    TempDir() : path_(testing::TempDir() + "wbfat-device-XXXXXX") {
        if (::mkdtemp(path_.data()) == nullptr) {
            std::abort();
        }
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    ~TempDir() {
        remove();
    }

    // For processes that end without destructors.
    void remove() {
        for (const std::string& file : files_) {
            ::unlink(file.c_str());
        }
        ::rmdir(path_.c_str());
    }

    const std::string& path() const {
        return path_;
    }
    std::string file(const std::string& name) {
        files_.push_back(path_ + "/" + name);
        return files_.back();
    }
    std::string image(const std::string& name, std::uint64_t size_bytes) {
        std::string path = file(name);
        const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        EXPECT_GE(fd, 0);
        EXPECT_EQ(::ftruncate(fd, static_cast<off_t>(size_bytes)), 0);
        ::close(fd);
        return path;
    }

private:
    std::string path_;
    std::deque<std::string> files_;
};

// A loop device on an image, detached at the end of its life; also by the kernel if the test dies.
class LoopDevice {
public:
    LoopDevice(const std::string& image, unsigned block_bytes, unsigned flags = 0) {
        const bool read_only = (flags & LO_FLAGS_READ_ONLY) != 0;
        const int backing = ::open(image.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
        const int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
        // Others may take the free number between the two calls.
        for (int attempt = 0; attempt < 32 && control >= 0 && fd_ < 0; attempt++) {
            attach(control, backing, block_bytes, flags);
        }
        ::close(control);
        ::close(backing);
    }
    LoopDevice(const LoopDevice&) = delete;
    LoopDevice& operator=(const LoopDevice&) = delete;
    ~LoopDevice() {
        if (fd_ >= 0) {
            ::ioctl(fd_, LOOP_CLR_FD, 0);
            ::close(fd_);
        }
    }

    bool attached() const {
        return fd_ >= 0;
    }
    const std::string& path() const {
        return path_;
    }

private:
    void attach(int control, int backing, unsigned block_bytes, unsigned flags) {
        const int number = ::ioctl(control, LOOP_CTL_GET_FREE);
        path_ = "/dev/loop" + std::to_string(number);
        const int fd = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
        if (number < 0 || fd < 0) {
            return;
        }
        loop_config config{};
        config.fd = static_cast<unsigned>(backing);
        config.block_size = block_bytes;
        config.info.lo_flags = flags | LO_FLAGS_AUTOCLEAR;
        if (::ioctl(fd, LOOP_CONFIGURE, &config) == 0) {
            fd_ = fd;
        } else {
            ::close(fd);
        }
    }

    std::string path_;
    int fd_ = -1;
};

}  // namespace wbfat::test
