// A device in RAM, for tests and for the explorer.
//
// The memory is one anonymous mapping without reserved swap, so it is sparse by nature: a 2 TiB
// volume costs what was written to it, and discard gives whole pages back.
//
// Invariants
//   - D1. Bytes never written, and bytes discarded, read as zeros.
//   - D2. With CompletionContext::kInSubmit end_io has run when submit() returns, in the submitting
//     thread (B2's exception); with kOnThread it never runs there.
//
// Locking: none around the bytes. Transfers that overlap in range and time leave mixed bytes, as on
// a real disk, and are a data race that TSan will report: the page protocol above must not produce
// any.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "cache/device/block_device.h"

namespace wbfat::cache::inline WBFAT_RT {

class CompletionThread;

class MemoryDevice final : public BlockDevice {
public:
    struct Options {
        CompletionContext completion = CompletionContext::kInSubmit;
        std::uint32_t logical_block_bytes = 512;
        bool read_only = false;
        bool removable = false;
        std::string name = "memory";
    };

    // Errors: a size the address space cannot hold throws std::bad_alloc.
    explicit MemoryDevice(std::uint64_t size_bytes);
    MemoryDevice(std::uint64_t size_bytes, Options options);
    // A device that starts with a copy of `image`.
    explicit MemoryDevice(std::span<const std::byte> image);
    MemoryDevice(std::span<const std::byte> image, Options options);
    // Completes what was submitted (B1), then frees the memory.
    ~MemoryDevice() override;
    MemoryDevice(const MemoryDevice&) = delete;
    MemoryDevice& operator=(const MemoryDevice&) = delete;

    [[nodiscard]] const DeviceGeometry& geometry() const override;
    [[nodiscard]] const std::string& name() const override;
    void submit(Bio& bio) override;
    Result<> flush() override;
    Result<> discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;

    // The content itself, for tests to look at and to damage. The caller sees to it that no
    // transfer runs.
    std::span<std::byte> bytes();
    [[nodiscard]] std::span<const std::byte> bytes() const;

private:
    void copy(Bio& bio);

    // Constant after construction.
    const DeviceGeometry geometry_;
    const std::string name_;
    std::byte* memory_ = nullptr;
    // Null for kInSubmit.
    std::unique_ptr<CompletionThread> thread_;
};

}  // namespace wbfat::cache::inline WBFAT_RT
