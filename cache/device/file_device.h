// An image file or a /dev node as a device.
//
// Transfers run through one of two engines, chosen when the first Bio is submitted: an io_uring
// ring that an Asio loop waits on, or, where the kernel or a sandbox refuses rings, threads that
// run preadv and pwritev. Synchronous transfers (read_device, write_device) and flush run in the
// calling thread, where they cost no wake-up.
//
// Invariants
//   - F1. With `exclusive` no second program that asks the same way has the volume: a block device
//     is claimed with O_EXCL, which also refuses what the kernel has mounted; and image or node
//     carry an OFD lock for the device's life, a write lock, or a read lock for readers, so that
//     read-only mounts can share an image. Not detected: an image that is in use through a loop
//     device, which locks nothing.
//   - F2. At most `queue_depth` Bios are in flight; submit() sleeps for the next free place.
//   - F3. open() starts no thread. A program that forks into the background does so before its
//     first submit().
//
// Locking: the lock of the free places is a leaf. submit() is never called from end_io: with all
// places taken it would wait for the thread it runs on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <boost/system/result.hpp>

#include "cache/device/block_device.h"

namespace wbfat::cache::inline WBFAT_RT {

// Why a device could not be opened: the errno for the exit code, the sentence for the user.
struct OpenError {
    int code = 0;
    std::string sentence;
};

[[noreturn]] inline void throw_exception_from_error(const OpenError& error,
                                                    const boost::source_location&) {
    // NOLINTNEXTLINE(cert-err60-cpp): the sentence may be too long to copy, and then nothing helps.
    throw error;
}

struct FileDeviceOptions {
    enum class Engine : std::uint8_t { kAuto, kUring, kPool };

    bool read_only = false;
    bool exclusive = true;           // F1
    bool direct_io = false;          // past the host's page cache
    std::uint64_t offset_bytes = 0;  // where the volume begins in the file
    Engine engine = Engine::kAuto;   // kUring falls back to the pool as kAuto does
    unsigned queue_depth = 64;       // Bios in flight; 4 KiB of memory each
    unsigned nr_threads = 8;         // of the pool
};

class FileDevice final : public BlockDevice {
public:
    using Options = FileDeviceOptions;
    using OpenResult = boost::system::result<std::unique_ptr<FileDevice>, OpenError>;

    // Errors: EBUSY (F1), EROFS (a write-protected device asked for writing), ENOTBLK (neither file
    // nor block device), EINVAL (nothing behind offset_bytes, or direct I/O that the file cannot
    // do), ENOMEDIUM, and what open(2) gives.
    [[nodiscard]] static OpenResult open(const std::string& path, const Options& options);
    // Waits for what is in flight (B1).
    ~FileDevice() override;
    FileDevice(const FileDevice&) = delete;
    FileDevice& operator=(const FileDevice&) = delete;

    [[nodiscard]] const DeviceGeometry& geometry() const override;
    [[nodiscard]] const std::string& name() const override;
    // Errors through end_io: EINVAL also for a direct transfer that is no multiple of the logical
    // block size; memory may be aligned as it likes, at the price of a copy.
    void submit(Bio& bio) override;
    Result<> flush() override;
    Result<> discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;
    Result<> transfer(BioOp op, std::uint64_t offset_bytes, std::span<std::byte> memory) override;

    // Gives up the O_EXCL claim on a block device and keeps the rest: mount(2) of type fuseblk
    // takes that claim itself and fails while we hold it. For an image: nothing. Context: no
    // transfer in flight. Errors: EBUSY when somebody else locked the node meanwhile, and what
    // open(2) gives.
    Result<> release_claim();

    [[nodiscard]] bool is_block_device() const;
    // "io_uring" or "thread pool"; "none" before the first submit().
    [[nodiscard]] std::string engine_name() const;

private:
    class Impl;

    explicit FileDevice(std::unique_ptr<Impl> impl);

    std::unique_ptr<Impl> impl_;
};

}  // namespace wbfat::cache::inline WBFAT_RT
