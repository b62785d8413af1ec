// The io_uring engine: a liburing ring that an Asio loop waits on.
//
// Why not Asio's own files: measured beside this (performance.md section 4), one random_access_file
// moves 123 k cached and 5-6 k direct reads a second because it serialises them, a pool of them
// 234 k and 34-60 k, a plain ring 320 k and 41-50 k at half the latency; and an Asio operation
// takes 64 buffers where merged writeback has 256.
//
// Submission happens in the submitting thread, so a transfer that the host's page cache can serve
// is done when io_uring_enter returns; handing it to the loop first would cost one more wake-up.
// Completions are reaped by one thread that runs the loop: Asio tells it that the ring's descriptor
// is readable, then it takes all there is.
//
// Locking: sq_lock_ serialises the submission queue. It is never held across end_io. The completion
// queue belongs to the loop's thread alone.
#include <liburing.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include "cache/device/io_engine.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

namespace asio = boost::asio;

// How soon the kernel is asked again after it could not take a submission for lack of memory.
constexpr std::chrono::milliseconds kKickDelay{1};

class UringEngine final : public IoEngine {
public:
    // Takes over `ring`.
    UringEngine(TransferSink& sink, int fd, const io_uring& ring);
    UringEngine(const UringEngine&) = delete;
    UringEngine& operator=(const UringEngine&) = delete;
    ~UringEngine() override;

    void start(Transfer& transfer) override EXCLUDES(sq_lock_);
    [[nodiscard]] const char* name() const override {
        return "io_uring";
    }

private:
    void enqueue_locked(Transfer& transfer, io_uring_sqe& entry) const REQUIRES(sq_lock_);
    void submit_locked() REQUIRES(sq_lock_);
    void kick_later();
    void abandon_ring_locked() REQUIRES(sq_lock_);
    void kick() EXCLUDES(sq_lock_);
    void wait_for_completions();
    void reap();
    void completed(Transfer& transfer, int result);
    void run_in_loop(Transfer& transfer);

    TransferSink& sink_;
    const int fd_;

    // Submission side of ring_: sq_lock_. Completion side: the loop's thread.
    sync::Mutex sq_lock_;
    io_uring ring_;
    // The kernel refuses io_uring_enter since the ring was made (a sandbox came later).
    bool ring_is_dead_ GUARDED_BY(sq_lock_) = false;

    asio::io_context loop_{1};
    asio::posix::stream_descriptor completions_{loop_};
    asio::steady_timer kick_timer_{loop_};
    std::optional<sync::Thread> thread_;
};

UringEngine::UringEngine(TransferSink& sink, int fd, const io_uring& ring)
    : sink_(sink), fd_(fd), ring_(ring) {
    completions_.assign(ring_.ring_fd);
    wait_for_completions();
    thread_.emplace("wbfat-io", sync::Role::kCompletion, [this] { loop_.run(); });
}

UringEngine::~UringEngine() {
    loop_.stop();
    thread_.reset();
    completions_.release();
    io_uring_queue_exit(&ring_);
}

void UringEngine::start(Transfer& transfer) {
    if (transfer.done()) {
        run_in_loop(transfer);
        return;
    }
    const sync::MutexLock lock(sq_lock_);
    io_uring_sqe* entry = ring_is_dead_ ? nullptr : io_uring_get_sqe(&ring_);
    if (entry == nullptr) {
        run_in_loop(transfer);
        return;
    }
    enqueue_locked(transfer, *entry);
    submit_locked();
}

void UringEngine::enqueue_locked(Transfer& transfer, io_uring_sqe& entry) const {
    const Transfer::Piece piece = transfer.next_piece();
    const auto nr_buffers = static_cast<unsigned>(piece.buffers.size());
    if (transfer.bio().op == BioOp::kRead) {
        io_uring_prep_readv(&entry, fd_, piece.buffers.data(), nr_buffers, piece.offset_bytes);
    } else {
        io_uring_prep_writev(&entry, fd_, piece.buffers.data(), nr_buffers, piece.offset_bytes);
    }
    io_uring_sqe_set_data(&entry, &transfer);
    // A: pairs with B in completed(). The rings order these threads through the kernel; the pair
    // says so to anything that reasons about this process alone.
    transfer.handed_over.store(1, std::memory_order_release);
}

void UringEngine::submit_locked() {
    int result = 0;
    do {
        result = io_uring_submit(&ring_);
    } while (result == -EINTR);
    if (result == -EAGAIN || result == -EBUSY || result == -ENOMEM) {
        kick_later();
    } else if (result < 0) {
        abandon_ring_locked();
    }
}

// The entries stay in the queue. The loop asks again, so that they do not wait for somebody's next
// submission.
void UringEngine::kick_later() {
    asio::post(loop_, [this] {
        kick_timer_.expires_after(kKickDelay);
        kick_timer_.async_wait([this](const boost::system::error_code& error) {
            if (!error) {
                kick();
            }
        });
    });
}

// What the kernel has not taken it will never see: those transfers go the slow way. What it took
// still completes.
void UringEngine::abandon_ring_locked() {
    ring_is_dead_ = true;
    const unsigned end = ring_.sq.sqe_tail;
    for (unsigned i = end - io_uring_sq_ready(&ring_); i != end; i++) {
        const io_uring_sqe& entry = ring_.sq.sqes[i & ring_.sq.ring_mask];
        // NOLINTNEXTLINE(performance-no-int-to-ptr): the ring keeps our pointer in a 64-bit field.
        run_in_loop(*reinterpret_cast<Transfer*>(entry.user_data));
    }
}

void UringEngine::kick() {
    const sync::MutexLock lock(sq_lock_);
    if (!ring_is_dead_ && io_uring_sq_ready(&ring_) > 0) {
        submit_locked();
    }
}

void UringEngine::wait_for_completions() {
    completions_.async_wait(asio::posix::stream_descriptor::wait_read,
                            [this](const boost::system::error_code& error) {
                                if (!error) {
                                    reap();
                                    wait_for_completions();
                                }
                            });
}

void UringEngine::reap() {
    struct Completion {
        Transfer* transfer = nullptr;
        int result = 0;
    };
    std::array<io_uring_cqe*, 32> entries{};
    std::array<Completion, 32> batch{};
    for (;;) {
        const unsigned nr = io_uring_peek_batch_cqe(&ring_, entries.data(), entries.size());
        if (nr == 0) {
            return;
        }
        for (unsigned i = 0; i < nr; i++) {
            batch[i] = {static_cast<Transfer*>(io_uring_cqe_get_data(entries[i])), entries[i]->res};
        }
        // The queue is given back before end_io runs, which may be slow.
        io_uring_cq_advance(&ring_, nr);
        for (unsigned i = 0; i < nr; i++) {
            completed(*batch[i].transfer, batch[i].result);
        }
    }
}

void UringEngine::completed(Transfer& transfer, int result) {
    // B: pairs with A in enqueue_locked().
    static_cast<void>(transfer.handed_over.load(std::memory_order_acquire));
    if (transfer.account(result) == Transfer::Verdict::kDone) {
        sink_.finished(transfer);
    } else {
        start(transfer);
    }
}

void UringEngine::run_in_loop(Transfer& transfer) {
    asio::post(loop_, [this, &transfer] {
        run_blocking(fd_, transfer);
        sink_.finished(transfer);
    });
}

}  // namespace

std::unique_ptr<IoEngine> make_uring_engine(TransferSink& sink, int fd, unsigned depth) {
    io_uring ring{};
    if (io_uring_queue_init(depth, &ring, IORING_SETUP_CLAMP) < 0) {
        return nullptr;
    }
    return std::make_unique<UringEngine>(sink, fd, ring);
}

}  // namespace wbfat::cache::inline WBFAT_RT
