// How a FileDevice keeps transfers in flight: one interface, two engines. Internal to cache/device.
//
// A Transfer is one Bio on its way: it knows what remains and offers it piece by piece, as iovecs
// one system call can take. An engine moves pieces until the Transfer is done and then hands it to
// the sink, on a completion thread. Everything about short transfers, interruptions, splitting and
// bounce buffers is in Transfer, so both engines and the synchronous path behave alike.
//
// Invariants
//   - E1. A started Transfer reaches TransferSink::finished exactly once, on a thread with
//     Role::kCompletion.
//   - E2. Between start() and finished() only the engine touches the Transfer.
//   - E3. An engine is destroyed only when nothing is in flight; its threads are joined then.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <sys/uio.h>

#include "cache/device/block_device.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

class Transfer {
public:
    // What one system call is given: as many buffers as the kernel's UIO_MAXIOV, below its 2 GiB
    // limit.
    static constexpr std::size_t kMaxBuffers = 1024;
    static constexpr std::uint64_t kMaxPieceBytes = std::uint64_t{1} << 30;
    static constexpr std::uint64_t kBounceBytes = std::uint64_t{1} << 20;
    // Attempts in a row that moved nothing (EINTR, EAGAIN, ECANCELED) before the errno is believed.
    static constexpr unsigned kMaxStalls = 1000;

    struct Piece {
        std::span<const iovec> buffers;
        std::uint64_t offset_bytes = 0;  // in the file
    };
    enum class Verdict : std::uint8_t { kDone, kMore };

    // Room for a common Bio, so that completing writeback allocates nothing.
    Transfer();

    // Starts over with `bio`. `alignment` is what O_DIRECT demands of addresses, lengths and
    // offsets; 1 without it.
    void begin(Bio& bio, std::uint64_t base_bytes, std::uint32_t alignment);
    // The next piece. Valid until account().
    Piece next_piece();
    // Takes the result of moving it: bytes, or a negative errno.
    Verdict account(std::int64_t result);
    // Ends it without I/O.
    void fail(int error);

    [[nodiscard]] bool done() const {
        return error_ != 0 || done_bytes_ == total_bytes_;
    }
    [[nodiscard]] int error() const {
        return error_;
    }
    [[nodiscard]] Bio& bio() const {
        return *bio_;
    }

    // E: the engine's hand-over between the submitting and the completing thread.
    sync::Atomic<std::uint32_t> handed_over{0};

private:
    struct FreeDeleter {
        void operator()(std::byte* memory) const;
    };
    enum class CopyDirection : std::uint8_t { kToBounce, kFromBounce };

    void gather_segments();
    void gather_bounce();
    void copy_bounce(CopyDirection direction, std::uint64_t length);
    void advance(std::uint64_t length);

    Bio* bio_ = nullptr;
    std::uint64_t base_bytes_ = 0;
    std::uint64_t total_bytes_ = 0;
    std::uint64_t done_bytes_ = 0;
    std::uint32_t alignment_ = 1;
    unsigned stalls_ = 0;
    int error_ = 0;
    bool bounced_ = false;
    // The first segment that is not finished, and how much of it is.
    std::size_t segment_ = 0;
    std::uint64_t within_segment_ = 0;

    std::vector<iovec> buffers_;
    std::unique_ptr<std::byte, FreeDeleter> bounce_;  // allocated at first need, then kept
};

class TransferSink {
public:
    virtual void finished(Transfer& transfer) = 0;

protected:
    ~TransferSink() = default;
};

class IoEngine {
public:
    IoEngine() = default;
    IoEngine(const IoEngine&) = delete;
    IoEngine& operator=(const IoEngine&) = delete;
    virtual ~IoEngine() = default;

    // Moves what remains of `transfer`, if anything does.
    virtual void start(Transfer& transfer) = 0;
    [[nodiscard]] virtual const char* name() const = 0;
};

// Moves all of it in the calling thread.
void run_blocking(int fd, Transfer& transfer);

// Null when the kernel refuses a ring (too old, disabled, forbidden by a sandbox).
std::unique_ptr<IoEngine> make_uring_engine(TransferSink& sink, int fd, unsigned depth);
std::unique_ptr<IoEngine> make_pool_engine(TransferSink& sink, int fd, unsigned nr_threads);

}  // namespace wbfat::cache::inline WBFAT_RT
