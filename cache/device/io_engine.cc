// Transfer: what remains of a Bio, in pieces that one system call can take.
#include "cache/device/io_engine.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace wbfat::cache::inline WBFAT_RT {

namespace {

// A Bio of 1 MiB in pages.
constexpr std::size_t kCommonBuffers = 256;

bool is_aligned(const BioSegment& segment, std::uint32_t alignment) {
    return reinterpret_cast<std::uintptr_t>(segment.data) % alignment == 0 &&
           segment.length_bytes % alignment == 0;
}

bool is_transient(int error) {
    // ECANCELED: io_uring drops queued work of a thread that exits; nobody asked for that here.
    return error == EINTR || error == EAGAIN || error == ECANCELED;
}

}  // namespace

void Transfer::FreeDeleter::operator()(std::byte* memory) const {
    ::operator delete (memory, std::align_val_t{4096});
}

Transfer::Transfer() {
    buffers_.reserve(kCommonBuffers);
}

void Transfer::begin(Bio& bio, std::uint64_t base_bytes, std::uint32_t alignment) {
    bio_ = &bio;
    base_bytes_ = base_bytes;
    total_bytes_ = bio.size_bytes();
    done_bytes_ = 0;
    alignment_ = alignment;
    stalls_ = 0;
    error_ = 0;
    segment_ = 0;
    within_segment_ = 0;
    bounced_ = !std::ranges::all_of(
        bio.segments, [alignment](const BioSegment& s) { return is_aligned(s, alignment); });
    if ((bio.offset_bytes + base_bytes) % alignment != 0 || total_bytes_ % alignment != 0) {
        error_ = EINVAL;
    }
}

Transfer::Piece Transfer::next_piece() {
    buffers_.clear();
    if (bounced_) {
        gather_bounce();
    } else {
        gather_segments();
    }
    return {buffers_, base_bytes_ + bio_->offset_bytes + done_bytes_};
}

void Transfer::gather_segments() {
    std::uint64_t length = 0;
    std::uint64_t skip = within_segment_;
    for (std::size_t i = segment_; i < bio_->segments.size(); i++) {
        const BioSegment& segment = bio_->segments[i];
        std::byte* data = segment.data + skip;
        const std::size_t size = segment.length_bytes - skip;
        skip = 0;
        if (size == 0) {
            continue;
        }
        if (length + size > kMaxPieceBytes && length > 0) {
            return;
        }
        // Frames that happen to be neighbours in memory need one buffer.
        const bool joins =
            !buffers_.empty() &&
            static_cast<std::byte*>(buffers_.back().iov_base) + buffers_.back().iov_len == data;
        if (joins) {
            buffers_.back().iov_len += size;
        } else if (buffers_.size() < kMaxBuffers) {
            buffers_.push_back({data, size});
        } else {
            return;
        }
        length += size;
    }
}

void Transfer::gather_bounce() {
    if (bounce_ == nullptr) {
        bounce_.reset(
            static_cast<std::byte*>(::operator new (kBounceBytes, std::align_val_t{4096})));
    }
    const std::uint64_t length = std::min(total_bytes_ - done_bytes_, kBounceBytes);
    if (bio_->op == BioOp::kWrite) {
        copy_bounce(CopyDirection::kToBounce, length);
    }
    buffers_.push_back({bounce_.get(), length});
}

void Transfer::copy_bounce(CopyDirection direction, std::uint64_t length) {
    std::byte* bounce = bounce_.get();
    std::uint64_t skip = within_segment_;
    for (std::size_t i = segment_; length > 0; i++) {
        const BioSegment& segment = bio_->segments[i];
        const std::uint64_t size = std::min(segment.length_bytes - skip, length);
        std::byte* data = segment.data + skip;
        const bool writing = direction == CopyDirection::kToBounce;
        std::memcpy(writing ? bounce : data, writing ? data : bounce, size);
        bounce += size;
        length -= size;
        skip = 0;
    }
}

Transfer::Verdict Transfer::account(std::int64_t result) {
    if (result < 0) {
        const int error = static_cast<int>(-result);
        if (is_transient(error) && ++stalls_ < kMaxStalls) {
            return Verdict::kMore;
        }
        error_ = error;
        return Verdict::kDone;
    }
    // O_DIRECT must go on from an aligned place: the part of a block that was moved is moved again.
    const std::uint64_t moved = static_cast<std::uint64_t>(result) / alignment_ * alignment_;
    if (moved == 0) {
        // The file ends here although it was longer when it was opened.
        error_ = EIO;
        return Verdict::kDone;
    }
    stalls_ = 0;
    if (bounced_ && bio_->op == BioOp::kRead) {
        copy_bounce(CopyDirection::kFromBounce, moved);
    }
    advance(moved);
    return done() ? Verdict::kDone : Verdict::kMore;
}

void Transfer::advance(std::uint64_t length) {
    done_bytes_ += length;
    within_segment_ += length;
    while (segment_ < bio_->segments.size() &&
           within_segment_ >= bio_->segments[segment_].length_bytes) {
        within_segment_ -= bio_->segments[segment_].length_bytes;
        segment_++;
    }
}

void Transfer::fail(int error) {
    error_ = error;
}

void run_blocking(int fd, Transfer& transfer) {
    while (!transfer.done()) {
        const Transfer::Piece piece = transfer.next_piece();
        const int nr_buffers = static_cast<int>(piece.buffers.size());
        const auto offset = static_cast<off_t>(piece.offset_bytes);
        const ssize_t result = transfer.bio().op == BioOp::kRead
                                   ? ::preadv(fd, piece.buffers.data(), nr_buffers, offset)
                                   : ::pwritev(fd, piece.buffers.data(), nr_buffers, offset);
        transfer.account(result < 0 ? -errno : result);
    }
}

}  // namespace wbfat::cache::inline WBFAT_RT
