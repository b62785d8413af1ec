// Where bytes go: the one door to storage.
//
// A BlockDevice takes Bios and completes them later on a thread of its own. Every device of the
// project stands behind this interface: the image file or /dev node (file_device), RAM
// (memory_device), and the two wrappers tests need, faulty_device (errors, torn writes, delays,
// removal, by rule) and recording_device (a log of writes and flushes).
//
// Invariants
//   - B1. A submitted Bio is completed exactly once, by calling end_io(bio) with bio.error set;
//     also when the device failed, vanished, or is being destroyed.
//   - B2. end_io runs on a completion thread of the device (CompletionContext::kInSubmit apart). It
//     never takes a page lock, an inode lock or a mutex that is held across submit(): that is how
//     interrupt context behaves, and what makes the writeback race of the mail possible.
//   - B3. After end_io returned the device touches neither the Bio nor its segments.
//   - B4. flush() returns success only when every write completed before flush() was called is on
//     stable storage.
//
// Locking: submit() may block for a free slot, so it is called with no spin lock held; page locks
// are allowed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cache/base/result.h"
#include "cache/base/runtime.h"

namespace wbfat::cache::inline WBFAT_RT {

enum class BioOp : std::uint8_t { kRead, kWrite };

// A piece of memory of a Bio. In order, the segments cover [offset_bytes, offset_bytes + size) of
// the device.
struct BioSegment {
    std::byte* data = nullptr;
    std::uint32_t length_bytes = 0;
    void* owner = nullptr;  // for end_io: the Page this segment belongs to, or null
};

// One contiguous transfer, scattered in memory.
struct Bio {
    using EndIo = void (*)(Bio&);

    BioOp op = BioOp::kRead;
    std::uint64_t offset_bytes = 0;  // multiple of the device's logical block size
    std::vector<BioSegment> segments{};
    EndIo end_io = nullptr;
    void* context = nullptr;  // the submitter's
    int error = 0;            // set before end_io: 0 or a positive errno

    [[nodiscard]] std::uint64_t size_bytes() const;
    // B1 in one call: sets the error and calls end_io. The Bio may be gone when it returns (B3).
    void complete(int with_error) {
        error = with_error;
        end_io(*this);
    }
};

struct DeviceGeometry {
    std::uint64_t size_bytes = 0;
    std::uint32_t logical_block_bytes = 512;
    bool read_only = false;
    bool removable = false;
    bool can_discard = false;
};

// Where a device without hardware calls end_io: in submit() itself, B2's exception, or on a thread
// of its own.
enum class CompletionContext : std::uint8_t { kInSubmit, kOnThread };

class BlockDevice {
public:
    BlockDevice() = default;
    BlockDevice(const BlockDevice&) = delete;
    BlockDevice& operator=(const BlockDevice&) = delete;
    virtual ~BlockDevice() = default;

    [[nodiscard]] virtual const DeviceGeometry& geometry() const = 0;
    // For messages: the path as the user gave it, or "memory".
    [[nodiscard]] virtual const std::string& name() const = 0;

    // Starts `bio`, which must stay alive until end_io.
    // Errors: none here; every failure arrives through end_io (B1).
    virtual void submit(Bio& bio) = 0;

    // Makes completed writes durable (B4). Context: sleeps.
    // Errors: the device's errno. What was unflushed may be lost; the caller must treat it as
    // unwritten.
    virtual Result<> flush() = 0;

    // Tells the device that the range holds nothing worth keeping. A hint.
    // Errors: EOPNOTSUPP where geometry().can_discard is false.
    virtual Result<> discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) = 0;

    // One transfer, waited for. The default submits a Bio, which is what a wrapper wants: its rules
    // and its log see the transfer. file_device overrides it to do the transfer in the calling
    // thread, where it costs no wake-up. Context: sleeps, never from a completion thread. Errors:
    // as read_device below.
    virtual Result<> transfer(BioOp op, std::uint64_t offset_bytes, std::span<std::byte> memory);
};

// The checks every device makes before it touches a byte.
// Returns 0, EINVAL (the range leaves the device) or EROFS (a write to a read-only device).
int check_bio(const DeviceGeometry& geometry, const Bio& bio);
// Returns 0, EOPNOTSUPP, EROFS or EINVAL.
int check_discard(const DeviceGeometry& geometry, std::uint64_t offset_bytes,
                  std::uint64_t length_bytes);

// Synchronous transfers for mount, mkfs and tests: submit and wait. Context: sleeps, never from a
// completion thread. Errors: EIO and what the device reported; EINVAL when the range leaves the
// device.
Result<> read_device(BlockDevice& device, std::uint64_t offset_bytes, std::span<std::byte> into);
Result<> write_device(BlockDevice& device, std::uint64_t offset_bytes,
                      std::span<const std::byte> from);

}  // namespace wbfat::cache::inline WBFAT_RT
