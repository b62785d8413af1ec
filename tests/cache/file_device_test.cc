// Image files and block devices: both engines, O_DIRECT, claims and locks, errors, and B1 at
// destruction. Method: every transfer test runs for each engine, buffered and direct, on an image
// and on a loop device; content is a function of the offset, and is checked through a descriptor of
// the test's own.
#include "cache/device/file_device.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <fstream>
#include <memory>
#include <random>
#include <thread>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "cache/device/io_engine.h"

#include "tests/cache/device_test_util.h"

namespace wbfat::cache {
namespace {

using Engine = FileDeviceOptions::Engine;
using test::TestBio;

constexpr std::uint64_t kSize = 8 << 20;

std::unique_ptr<FileDevice> open_device(const std::string& path,
                                        const FileDeviceOptions& options = {}) {
    auto device = FileDevice::open(path, options);
    if (device.has_error()) {
        ADD_FAILURE() << device.error().sentence;
        return nullptr;
    }
    return *std::move(device);
}

int open_error(const std::string& path, const FileDeviceOptions& options,
               std::string* sentence = nullptr) {
    const auto device = FileDevice::open(path, options);
    if (device.has_value()) {
        return 0;
    }
    if (sentence != nullptr) {
        *sentence = device.error().sentence;
    }
    EXPECT_NE(device.error().sentence.find(path), std::string::npos) << device.error().sentence;
    EXPECT_EQ(device.error().sentence.back(), '.') << device.error().sentence;
    return device.error().code;
}

// Memory at an address that is a multiple of 4096 plus `skew`.
class SkewedMemory {
public:
    SkewedMemory(std::size_t size, std::size_t skew) : block_(size + 8192), start_(skew) {
        start_ += (4096 - reinterpret_cast<std::uintptr_t>(block_.data()) % 4096) % 4096;
        size_ = size;
    }
    std::span<std::byte> bytes() {
        return std::span(block_).subspan(start_, size_);
    }

private:
    std::vector<std::byte> block_;
    std::size_t start_;
    std::size_t size_ = 0;
};

// ---------------------------------------------------------------------------------------------------------------
// Transfer: the arithmetic of pieces, without a file.

class TransferTest : public testing::Test {
protected:
    Bio& bio(const std::vector<std::uint32_t>& lengths, BioOp op = BioOp::kRead) {
        bio_.op = op;
        bio_.offset_bytes = 4096;
        bio_.segments.clear();
        std::size_t at = 0;
        for (const std::uint32_t length : lengths) {
            // Every second 512 bytes stay free, so that no two segments join.
            bio_.segments.push_back({memory_.bytes().data() + at, length});
            at += length + 512;
        }
        return bio_;
    }

    SkewedMemory memory_{4 << 20, 0};
    Bio bio_;
    Transfer transfer_;
};

TEST_F(TransferTest, OffersAllOfASmallBioAtOnce) {
    transfer_.begin(bio({512, 4096, 1024}), 1 << 20, 1);
    const Transfer::Piece piece = transfer_.next_piece();
    EXPECT_EQ(piece.buffers.size(), 3U);
    EXPECT_EQ(piece.offset_bytes, (1U << 20) + 4096U);
    EXPECT_EQ(transfer_.account(5632), Transfer::Verdict::kDone);
    EXPECT_EQ(transfer_.error(), 0);
}

TEST_F(TransferTest, GoesOnAfterAShortTransferAtTheRightByte) {
    transfer_.begin(bio({512, 4096, 1024}), 0, 1);
    transfer_.next_piece();
    EXPECT_EQ(transfer_.account(700), Transfer::Verdict::kMore);
    Transfer::Piece piece = transfer_.next_piece();
    EXPECT_EQ(piece.offset_bytes, 4096U + 700);
    ASSERT_EQ(piece.buffers.size(), 2U);
    EXPECT_EQ(piece.buffers[0].iov_base, bio_.segments[1].data + 188);
    EXPECT_EQ(piece.buffers[0].iov_len, 4096U - 188);
    EXPECT_EQ(transfer_.account(4096 - 188), Transfer::Verdict::kMore);
    piece = transfer_.next_piece();
    ASSERT_EQ(piece.buffers.size(), 1U);
    EXPECT_EQ(piece.buffers[0].iov_base, bio_.segments[2].data);
    EXPECT_EQ(transfer_.account(1024), Transfer::Verdict::kDone);
}

TEST_F(TransferTest, SplitsMoreBuffersThanTheKernelTakes) {
    transfer_.begin(bio(std::vector<std::uint32_t>(2500, 512)), 0, 1);
    std::vector<std::size_t> sizes;
    do {
        sizes.push_back(transfer_.next_piece().buffers.size());
    } while (transfer_.account(static_cast<std::int64_t>(sizes.back()) * 512) ==
             Transfer::Verdict::kMore);
    EXPECT_EQ(sizes, (std::vector<std::size_t>{1024, 1024, 452}));
}

TEST_F(TransferTest, JoinsNeighboursInMemory) {
    Bio& joined = bio({512});
    std::byte* memory = joined.segments[0].data;
    joined.segments = {{memory, 4096},
                       {memory + 4096, 512},
                       {memory + 8192, 512},
                       {memory + 8704, 0},
                       {memory + 8704, 512}};
    transfer_.begin(joined, 0, 1);
    const Transfer::Piece piece = transfer_.next_piece();
    ASSERT_EQ(piece.buffers.size(), 2U);
    EXPECT_EQ(piece.buffers[0].iov_len, 4608U);
    EXPECT_EQ(piece.buffers[1].iov_len, 1024U);
}

TEST_F(TransferTest, RepeatsWhatWasInterruptedButNotForEver) {
    transfer_.begin(bio({512}), 0, 1);
    for (const int error : {EINTR, EAGAIN, ECANCELED}) {
        EXPECT_EQ(transfer_.account(-error), Transfer::Verdict::kMore);
    }
    Transfer::Verdict verdict = Transfer::Verdict::kMore;
    for (unsigned i = 0; i < Transfer::kMaxStalls && verdict == Transfer::Verdict::kMore; i++) {
        verdict = transfer_.account(-EAGAIN);
    }
    EXPECT_EQ(verdict, Transfer::Verdict::kDone);
    EXPECT_EQ(transfer_.error(), EAGAIN);
}

TEST_F(TransferTest, KeepsTheErrnoAndTakesAnEarlyEndForAnIoError) {
    transfer_.begin(bio({512}), 0, 1);
    EXPECT_EQ(transfer_.account(-ENOSPC), Transfer::Verdict::kDone);
    EXPECT_EQ(transfer_.error(), ENOSPC);
    transfer_.begin(bio({512}), 0, 1);
    EXPECT_EQ(transfer_.account(0), Transfer::Verdict::kDone);
    EXPECT_EQ(transfer_.error(), EIO);
}

TEST_F(TransferTest, DirectTransfersGoOnFromAnAlignedByte) {
    transfer_.begin(bio({4096}), 0, 512);
    EXPECT_EQ(transfer_.account(700), Transfer::Verdict::kMore);
    EXPECT_EQ(transfer_.next_piece().offset_bytes, 4096U + 512);
    EXPECT_EQ(transfer_.account(100), Transfer::Verdict::kDone);
    EXPECT_EQ(transfer_.error(), EIO);
}

TEST_F(TransferTest, BouncesOnlyWhatIsNotAligned) {
    Bio& aligned = bio({4096});
    transfer_.begin(aligned, 0, 512);
    EXPECT_EQ(transfer_.next_piece().buffers[0].iov_base, aligned.segments[0].data);
    aligned.segments[0].data += 8;
    transfer_.begin(aligned, 0, 512);
    const Transfer::Piece piece = transfer_.next_piece();
    EXPECT_NE(piece.buffers[0].iov_base, aligned.segments[0].data);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(piece.buffers[0].iov_base) % 4096, 0U);
    aligned.offset_bytes = 100;
    transfer_.begin(aligned, 0, 512);
    EXPECT_EQ(transfer_.error(), EINVAL);
}

// ---------------------------------------------------------------------------------------------------------------
// Opening.

class FileDeviceOpenTest : public testing::Test {
protected:
    test::TempDir dir_;
};

TEST_F(FileDeviceOpenTest, TakesTheGeometryOfAnImage) {
    const std::string path = dir_.image("a.img", 1000000);
    const auto device = open_device(path);
    ASSERT_NE(device, nullptr);
    EXPECT_EQ(device->geometry().size_bytes, 1000000U / 512 * 512);
    EXPECT_EQ(device->geometry().logical_block_bytes, 512U);
    EXPECT_FALSE(device->geometry().read_only);
    EXPECT_FALSE(device->geometry().removable);
    EXPECT_FALSE(device->is_block_device());
    EXPECT_EQ(device->name(), path);
    EXPECT_EQ(device->engine_name(), "none");
    EXPECT_TRUE(device->release_claim());
}

TEST_F(FileDeviceOpenTest, AnOffsetCutsTheFront) {
    const std::string path = dir_.image("a.img", 65536);
    const auto device = open_device(path, {.offset_bytes = 4096});
    ASSERT_NE(device, nullptr);
    EXPECT_EQ(device->geometry().size_bytes, 61440U);
    ASSERT_TRUE(write_device(*device, 0, test::pattern(0, 512)));
    std::vector<std::byte> memory(512);
    EXPECT_EQ(read_device(*device, 61440, memory).code(), EINVAL);
    std::ifstream file(path, std::ios::binary);
    file.seekg(4096);
    file.read(reinterpret_cast<char*>(memory.data()), 512);
    EXPECT_EQ(memory, test::pattern(0, 512));
}

TEST_F(FileDeviceOpenTest, SaysInASentenceWhyNot) {
    const std::string fifo = dir_.file("fifo");
    ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
    std::string sentence;
    EXPECT_EQ(open_error(dir_.path() + "/nothing", {}, &sentence), ENOENT);
    EXPECT_NE(sentence.find("No such file"), std::string::npos) << sentence;
    EXPECT_EQ(open_error(dir_.path(), {}, &sentence), ENOTBLK);
    EXPECT_NE(sentence.find("directory"), std::string::npos) << sentence;
    EXPECT_EQ(open_error("/dev/null", {}), ENOTBLK);
    EXPECT_EQ(open_error(fifo, {}), ENOTBLK);
    EXPECT_EQ(open_error(dir_.image("empty.img", 0), {}), EINVAL);
    const std::string image = dir_.image("a.img", 65536);
    EXPECT_EQ(open_error(image, {.offset_bytes = 65536}, &sentence), EINVAL);
    EXPECT_NE(sentence.find("65536"), std::string::npos) << sentence;
    EXPECT_EQ(open_error(image, {.offset_bytes = UINT64_MAX}), EINVAL);
    EXPECT_EQ(open_error(image, {.direct_io = true, .offset_bytes = 100}), EINVAL);
}

TEST_F(FileDeviceOpenTest, LocksAnImageForItsLife) {
    const std::string path = dir_.image("a.img", 65536);
    auto writer = open_device(path);
    std::string sentence;
    EXPECT_EQ(open_error(path, {}, &sentence), EBUSY);
    EXPECT_NE(sentence.find("in use"), std::string::npos) << sentence;
    EXPECT_EQ(open_error(path, {.read_only = true}), EBUSY);
    EXPECT_EQ(open_error(path, {.exclusive = false}), 0);
    // A second open and close by the same process must not drop the lock, as it would a POSIX lock.
    EXPECT_EQ(open_error(path, {}), EBUSY);
    writer.reset();
    auto reader = open_device(path, {.read_only = true});
    const auto second = open_device(path, {.read_only = true});
    EXPECT_EQ(open_error(path, {}), EBUSY);
}

TEST_F(FileDeviceOpenTest, AReadOnlyDeviceRefusesWrites) {
    const std::string path = dir_.image("a.img", 65536);
    ASSERT_EQ(::chmod(path.c_str(), 0400), 0);
    const auto device = open_device(path, {.read_only = true});
    ASSERT_NE(device, nullptr);
    EXPECT_TRUE(device->geometry().read_only);
    EXPECT_FALSE(device->geometry().can_discard);
    std::vector<std::byte> data(512);
    EXPECT_EQ(write_device(*device, 0, data).code(), EROFS);
    TestBio bio(BioOp::kWrite, 0, data);
    device->submit(bio.bio());
    EXPECT_EQ(bio.wait(), EROFS);
    EXPECT_EQ(device->discard(0, 512).code(), EOPNOTSUPP);
    EXPECT_TRUE(device->flush());
}

// ---------------------------------------------------------------------------------------------------------------
// Transfers, on each engine and each kind of file.

struct Setup {
    const char* name;
    Engine engine;
    bool direct_io;
    bool on_loop;
};

class FileDeviceTest : public testing::TestWithParam<Setup> {
protected:
    void SetUp() override {
        image_ = dir_.image("disk.img", kSize + 4096);
        path_ = image_;
        if (GetParam().on_loop) {
            if (::geteuid() != 0) {
                SKIP_UNLESS_CI("only root can attach loop devices");
            }
            loop_ = std::make_unique<test::LoopDevice>(image_, 512);
            if (!loop_->attached()) {
                SKIP_UNLESS_CI("no loop device can be attached here");
            }
            path_ = loop_->path();
        }
        // The offset must reach every transfer, so it is never 0 here.
        device_ = open_device(path_, options());
        ASSERT_NE(device_, nullptr);
    }

    FileDeviceOptions options() const {
        return {.direct_io = GetParam().direct_io,
                .offset_bytes = 4096,
                .engine = GetParam().engine,
                .queue_depth = 16,
                .nr_threads = 3};
    }
    // What the file holds, seen by others.
    std::vector<std::byte> stored(std::uint64_t offset, std::size_t length) {
        const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
        std::vector<std::byte> data(length);
        EXPECT_EQ(::pread(fd, data.data(), length, static_cast<off_t>(offset + 4096)),
                  static_cast<ssize_t>(length));
        ::close(fd);
        return data;
    }
    int submit_and_wait(BioOp op, std::uint64_t offset,
                        const std::vector<std::span<std::byte>>& pieces) {
        TestBio bio(op, offset, pieces);
        device_->submit(bio.bio());
        const int error = bio.wait();
        EXPECT_EQ(bio.nr_completions(), 1);
        EXPECT_EQ(bio.completed_by(), sync::Role::kCompletion);
        return error;
    }

    test::TempDir dir_;
    std::string image_;
    std::string path_;
    std::unique_ptr<test::LoopDevice> loop_;
    std::unique_ptr<FileDevice> device_;
};

INSTANTIATE_TEST_SUITE_P(Engines, FileDeviceTest,
                         testing::Values(Setup{"UringBufferedImage", Engine::kUring, false, false},
                                         Setup{"UringDirectImage", Engine::kUring, true, false},
                                         Setup{"UringBufferedLoop", Engine::kUring, false, true},
                                         Setup{"UringDirectLoop", Engine::kUring, true, true},
                                         Setup{"PoolBufferedImage", Engine::kPool, false, false},
                                         Setup{"PoolDirectImage", Engine::kPool, true, false},
                                         Setup{"PoolBufferedLoop", Engine::kPool, false, true},
                                         Setup{"PoolDirectLoop", Engine::kPool, true, true}),
                         [](const testing::TestParamInfo<Setup>& setup) {
                             return setup.param.name;
                         });

TEST_P(FileDeviceTest, RunsOnTheEngineItWasAskedFor) {
    std::vector<std::byte> data(512);
    EXPECT_EQ(submit_and_wait(BioOp::kRead, 0, {data}), 0);
    const std::string name = device_->engine_name();
    if (GetParam().engine == Engine::kUring && name != "io_uring") {
        SKIP_UNLESS_CI("the kernel offers no io_uring here; the pool stood in");
    }
    EXPECT_EQ(name, GetParam().engine == Engine::kUring ? "io_uring" : "thread pool");
}

TEST_P(FileDeviceTest, WritesReachTheFileAndReadsComeBack) {
    SkewedMemory a(8192, 0);
    SkewedMemory b(4096, 0);
    std::ranges::copy(test::pattern(8192, 8192), a.bytes().begin());
    std::ranges::copy(test::pattern(16384, 4096), b.bytes().begin());
    EXPECT_EQ(submit_and_wait(BioOp::kWrite, 8192, {a.bytes(), b.bytes()}), 0);
    EXPECT_TRUE(device_->flush());
    EXPECT_EQ(stored(8192, 12288), test::pattern(8192, 12288));
    SkewedMemory c(12288, 0);
    EXPECT_EQ(submit_and_wait(BioOp::kRead, 8192, {c.bytes().last(4096), c.bytes().first(8192)}),
              0);
    EXPECT_TRUE(std::ranges::equal(c.bytes().last(4096), test::pattern(8192, 4096)));
    EXPECT_TRUE(std::ranges::equal(c.bytes().first(8192), test::pattern(12288, 8192)));
}

TEST_P(FileDeviceTest, TakesMoreBuffersThanOneSystemCall) {
    constexpr unsigned kPieces = 3000;
    SkewedMemory memory(kPieces * 1024, 0);
    std::vector<std::span<std::byte>> pieces;
    for (unsigned i = 0; i < kPieces; i++) {
        // Backwards and with gaps, so that no two buffers join.
        pieces.push_back(memory.bytes().subspan((kPieces - 1 - i) * 1024, 512));
        std::ranges::copy(test::pattern(i * 512, 512), pieces.back().begin());
    }
    EXPECT_EQ(submit_and_wait(BioOp::kWrite, 0, pieces), 0);
    EXPECT_EQ(stored(0, kPieces * 512), test::pattern(0, kPieces * 512));
    std::ranges::fill(memory.bytes(), std::byte{0});
    EXPECT_EQ(submit_and_wait(BioOp::kRead, 0, pieces), 0);
    for (unsigned i = 0; i < kPieces; i++) {
        ASSERT_TRUE(std::ranges::equal(pieces[i], test::pattern(i * 512, 512))) << i;
    }
}

TEST_P(FileDeviceTest, MemoryNeedsNoAlignment) {
    // Larger than a bounce buffer, in pieces of odd length at odd addresses.
    constexpr std::size_t kLength = (5 << 20) / 2;
    SkewedMemory memory(kLength, 13);
    std::ranges::copy(test::pattern(512, kLength), memory.bytes().begin());
    std::vector<std::span<std::byte>> pieces;
    for (std::size_t at = 0; at < kLength;) {
        const std::size_t length = std::min<std::size_t>(kLength - at, 77777);
        pieces.push_back(memory.bytes().subspan(at, length));
        at += length;
    }
    EXPECT_EQ(submit_and_wait(BioOp::kWrite, 512, pieces), 0);
    EXPECT_EQ(stored(512, kLength), test::pattern(512, kLength));
    std::ranges::fill(memory.bytes(), std::byte{0});
    EXPECT_EQ(submit_and_wait(BioOp::kRead, 512, pieces), 0);
    EXPECT_TRUE(std::ranges::equal(memory.bytes(), test::pattern(512, kLength)));
}

TEST_P(FileDeviceTest, SynchronousTransfersNeedNoEngine) {
    const std::vector<std::byte> data = test::pattern(1024, 1 << 20);
    ASSERT_TRUE(write_device(*device_, 1024, data));
    std::vector<std::byte> read(data.size());
    ASSERT_TRUE(read_device(*device_, 1024, read));
    EXPECT_EQ(read, data);
    EXPECT_EQ(device_->engine_name(), "none");
    std::vector<std::byte> tail(1024);
    EXPECT_EQ(read_device(*device_, kSize - 512, tail).code(), EINVAL);
}

TEST_P(FileDeviceTest, FailsWhatLeavesTheDevice) {
    SkewedMemory memory(1024, 0);
    EXPECT_EQ(submit_and_wait(BioOp::kRead, kSize - 512, {memory.bytes()}), EINVAL);
    EXPECT_EQ(submit_and_wait(BioOp::kWrite, kSize, {memory.bytes()}), EINVAL);
    EXPECT_EQ(submit_and_wait(BioOp::kRead, kSize, {}), 0) << "an empty transfer";
}

TEST_P(FileDeviceTest, ADirectTransferIsInWholeBlocks) {
    SkewedMemory memory(512, 0);
    const int expected = GetParam().direct_io ? EINVAL : 0;
    EXPECT_EQ(submit_and_wait(BioOp::kRead, 100, {memory.bytes()}), expected);
    EXPECT_EQ(submit_and_wait(BioOp::kRead, 0, {memory.bytes().first(100)}), expected);
}

TEST_P(FileDeviceTest, DiscardedRangesReadAsZeros) {
    if (!device_->geometry().can_discard) {
        SKIP_UNLESS_CI("the filesystem below punches no holes");
    }
    ASSERT_TRUE(write_device(*device_, 0, test::pattern(0, 65536)));
    ASSERT_TRUE(device_->flush());
    ASSERT_TRUE(device_->discard(8192, 16384));
    ASSERT_TRUE(device_->discard(0, 0));
    EXPECT_EQ(device_->discard(kSize - 4096, 8192).code(), EINVAL);
    std::vector<std::byte> expected = test::pattern(0, 65536);
    std::fill_n(expected.begin() + 8192, 16384, std::byte{0});
    std::vector<std::byte> read(65536);
    ASSERT_TRUE(read_device(*device_, 0, read));
    EXPECT_EQ(read, expected);
}

// Each thread owns every fourth block of 8 KiB; all of them are in flight together.
TEST_P(FileDeviceTest, ConcurrentTransfersDoNotMix) {
    constexpr unsigned kThreads = 4;
    constexpr unsigned kBlock = 8192;
    constexpr unsigned kBlocks = kSize / kBlock / 4;
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < kThreads; t++) {
        threads.emplace_back([this, t] {
            std::mt19937 random(t);
            SkewedMemory memory(std::size_t{kBlock} * 8, 0);
            std::vector<unsigned> generations(kBlocks, 0);
            for (unsigned round = 1; round <= 12; round++) {
                std::deque<TestBio> bios;
                std::vector<std::pair<unsigned, bool>> plan;
                for (unsigned i = 0; i < 8; i++) {
                    const auto group = static_cast<unsigned>(random() % (kBlocks / kThreads / 8));
                    const unsigned block = (group * 8 + i) * kThreads + t;
                    const bool writing = random() % 2 == 0;
                    plan.emplace_back(block, writing);
                    const auto piece = memory.bytes().subspan(std::size_t{i} * kBlock, kBlock);
                    if (writing) {
                        generations[block] = round;
                        std::ranges::copy(
                            test::pattern(std::uint64_t{block} * kBlock, kBlock, round),
                            piece.begin());
                    }
                    bios.emplace_back(writing ? BioOp::kWrite : BioOp::kRead,
                                      std::uint64_t{block} * kBlock, piece);
                    device_->submit(bios.back().bio());
                }
                for (unsigned i = 0; i < 8; i++) {
                    EXPECT_EQ(bios[i].wait(), 0);
                    const auto [block, writing] = plan[i];
                    const std::vector<std::byte> expected =
                        generations[block] == 0 ? std::vector<std::byte>(kBlock)
                                                : test::pattern(std::uint64_t{block} * kBlock,
                                                                kBlock, generations[block]);
                    EXPECT_TRUE(std::ranges::equal(
                        memory.bytes().subspan(std::size_t{i} * kBlock, kBlock), expected))
                        << "block " << block << (writing ? " written" : " read") << " in round "
                        << round;
                }
                if (round % 4 == 0) {
                    EXPECT_TRUE(device_->flush());
                }
            }
            for (unsigned block = t; block < kBlocks; block += kThreads) {
                if (generations[block] != 0) {
                    EXPECT_EQ(
                        stored(std::uint64_t{block} * kBlock, kBlock),
                        test::pattern(std::uint64_t{block} * kBlock, kBlock, generations[block]));
                }
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
}

TEST_P(FileDeviceTest, DestructionWaitsForWhatIsInFlight) {
    constexpr unsigned kBios = 64;
    SkewedMemory memory(std::size_t{kBios} * 4096, 0);
    std::ranges::copy(test::pattern(0, std::size_t{kBios} * 4096), memory.bytes().begin());
    std::deque<TestBio> bios;
    for (unsigned i = 0; i < kBios; i++) {
        bios.emplace_back(BioOp::kWrite, i * 4096,
                          memory.bytes().subspan(std::size_t{i} * 4096, 4096));
        device_->submit(bios.back().bio());
    }
    device_.reset();
    for (TestBio& bio : bios) {
        EXPECT_EQ(bio.nr_completions(), 1);
        EXPECT_EQ(bio.bio().error, 0);
    }
    EXPECT_EQ(stored(0, std::size_t{kBios} * 4096), test::pattern(0, std::size_t{kBios} * 4096));
}

// Threads that submit and end at once: the ring cancels what it had queued for them, which must not
// show.
TEST_P(FileDeviceTest, TransfersOutliveTheThreadThatSubmittedThem) {
    constexpr unsigned kThreads = 40;
    SkewedMemory memory(std::size_t{kThreads} * 65536, 0);
    std::ranges::copy(test::pattern(0, memory.bytes().size()), memory.bytes().begin());
    std::deque<TestBio> bios;
    for (unsigned i = 0; i < kThreads; i++) {
        bios.emplace_back(BioOp::kWrite, i * 65536,
                          memory.bytes().subspan(std::size_t{i} * 65536, 65536));
        std::thread([this, &bios] { device_->submit(bios.back().bio()); }).join();
    }
    for (TestBio& bio : bios) {
        EXPECT_EQ(bio.wait(), 0);
    }
    EXPECT_EQ(stored(0, memory.bytes().size()), test::pattern(0, memory.bytes().size()));
}

TEST_P(FileDeviceTest, SubmitWaitsForAFreePlace) {
    FileDeviceOptions narrow = options();
    narrow.queue_depth = 2;
    device_.reset();
    device_ = open_device(path_, narrow);
    ASSERT_NE(device_, nullptr);
    struct Gate {
        std::mutex lock;
        std::condition_variable changed;
        bool open = false;
        unsigned returned = 0;
    };
    Gate gate;
    std::atomic<unsigned> completed = 0;
    struct Context {
        Gate& gate;
        std::atomic<unsigned>& completed;
    } context{gate, completed};
    SkewedMemory memory(3 * 512, 0);
    std::vector<Bio> bios(3);
    for (unsigned i = 0; i < 3; i++) {
        bios[i].offset_bytes = i * 512;
        bios[i].segments = {{memory.bytes().data() + std::size_t{i} * 512, 512}};
        bios[i].context = &context;
        bios[i].end_io = [](Bio& bio) {
            auto& [g, nr] = *static_cast<Context*>(bio.context);
            std::unique_lock lock(g.lock);
            g.changed.wait(lock, [&g = g] { return g.open; });
            nr++;
        };
    }
    std::thread submitter([&] {
        for (Bio& bio : bios) {
            device_->submit(bio);
            const std::lock_guard lock(gate.lock);
            gate.returned++;
            // The third place is the first one, used again.
            EXPECT_TRUE(gate.returned < 3 || completed > 0);
            gate.changed.notify_all();
        }
    });
    {
        std::unique_lock lock(gate.lock);
        gate.changed.wait(lock, [&gate] { return gate.returned == 2; });
        gate.open = true;
        gate.changed.notify_all();
    }
    submitter.join();
    device_.reset();
    EXPECT_EQ(completed, 3U);
}

TEST_P(FileDeviceTest, AFileThatShrankGivesAnIoError) {
    if (GetParam().on_loop) {
        return;
    }
    ASSERT_EQ(::truncate(image_.c_str(), 65536), 0);
    SkewedMemory memory(4096, 0);
    EXPECT_EQ(submit_and_wait(BioOp::kRead, 1 << 20, {memory.bytes()}), EIO);
    EXPECT_EQ(submit_and_wait(BioOp::kRead, 8192, {memory.bytes()}), 0);
    EXPECT_EQ(read_device(*device_, 1 << 20, memory.bytes()).code(), EIO);
}

// ---------------------------------------------------------------------------------------------------------------
// What only a block device or a small filesystem can show.

class BlockNodeTest : public testing::Test {
protected:
    void SetUp() override {
        if (::geteuid() != 0) {
            SKIP_UNLESS_CI("only root can attach loop devices and mount");
        }
    }

    test::TempDir dir_;
    const std::string image_ = dir_.image("disk.img", 4 << 20);
};

TEST_F(BlockNodeTest, TakesSizeAndBlockSizeFromTheDevice) {
    for (const unsigned block : {512U, 4096U}) {
        const test::LoopDevice loop(image_, block);
        if (!loop.attached()) {
            SKIP_UNLESS_CI("no loop device can be attached here");
        }
        const auto device = open_device(loop.path(), {.direct_io = true});
        ASSERT_NE(device, nullptr);
        EXPECT_TRUE(device->is_block_device());
        EXPECT_EQ(device->geometry().size_bytes, 4U << 20);
        EXPECT_EQ(device->geometry().logical_block_bytes, block);
        EXPECT_FALSE(device->geometry().read_only);
        EXPECT_FALSE(device->geometry().removable);
        SkewedMemory memory(block, 0);
        EXPECT_EQ(read_device(*device, block, memory.bytes()).code(), 0);
        EXPECT_EQ(read_device(*device, 256, memory.bytes()).code(), EINVAL);
    }
}

TEST_F(BlockNodeTest, ASecondExclusiveOpenIsRefused) {
    const test::LoopDevice loop(image_, 512);
    if (!loop.attached()) {
        SKIP_UNLESS_CI("no loop device can be attached here");
    }
    const auto device = open_device(loop.path());
    ASSERT_NE(device, nullptr);
    std::string sentence;
    EXPECT_EQ(open_error(loop.path(), {}, &sentence), EBUSY);
    EXPECT_NE(sentence.find("in use"), std::string::npos) << sentence;
    EXPECT_EQ(open_error(loop.path(), {.read_only = true}), EBUSY);

    // Without the claim others can claim it, as fuseblk will; our own programs are still kept out
    // by the lock.
    std::vector<std::byte> data(512);
    ASSERT_TRUE(device->release_claim());
    const int claimed = ::open(loop.path().c_str(), O_RDWR | O_EXCL | O_CLOEXEC);
    EXPECT_GE(claimed, 0);
    ::close(claimed);
    EXPECT_EQ(open_error(loop.path(), {}), EBUSY);
    EXPECT_TRUE(write_device(*device, 0, data));
    TestBio bio(BioOp::kWrite, 512, data);
    device->submit(bio.bio());
    EXPECT_EQ(bio.wait(), 0);
}

TEST_F(BlockNodeTest, AWriteProtectedDeviceIsOpenedReadOnlyOrNotAtAll) {
    const test::LoopDevice loop(image_, 512, LO_FLAGS_READ_ONLY);
    if (!loop.attached()) {
        SKIP_UNLESS_CI("no loop device can be attached here");
    }
    std::string sentence;
    EXPECT_EQ(open_error(loop.path(), {}, &sentence), EROFS);
    EXPECT_NE(sentence.find("write-protected"), std::string::npos) << sentence;
    const auto device = open_device(loop.path(), {.read_only = true});
    ASSERT_NE(device, nullptr);
    EXPECT_TRUE(device->geometry().read_only);
}

// A mount for the length of a test.
class Mount {
public:
    Mount(const std::string& source, const std::string& target, const char* type, const char* data)
        : target_(target),
          error_(::mount(source.c_str(), target.c_str(), type, 0, data) == 0 ? 0 : errno) {}
    Mount(const Mount&) = delete;
    Mount& operator=(const Mount&) = delete;
    ~Mount() {
        if (error_ == 0) {
            ::umount2(target_.c_str(), MNT_DETACH);
        }
    }
    int error() const {
        return error_;
    }

private:
    std::string target_;
    int error_;
};

TEST_F(BlockNodeTest, WhatTheKernelHasMountedIsRefused) {
    // NOLINTNEXTLINE(cert-env33-c,concurrency-mt-unsafe): a program of the base system, with a path
    // made here.
    if (std::system(("mkfs.ext4 -q -F " + image_ + " >/dev/null 2>&1").c_str()) != 0) {
        SKIP_UNLESS_CI("mkfs.ext4 is not installed");
    }
    const test::LoopDevice loop(image_, 512);
    if (!loop.attached()) {
        SKIP_UNLESS_CI("no loop device can be attached here");
    }
    const test::TempDir target;
    {
        const Mount mount(loop.path(), target.path(), "ext4", nullptr);
        if (mount.error() != 0) {
            SKIP_UNLESS_CI("mount(2) is not allowed here");
        }
        EXPECT_EQ(open_error(loop.path(), {}), EBUSY);
        EXPECT_EQ(open_error(loop.path(), {.read_only = true}), EBUSY);
    }
    EXPECT_EQ(open_error(loop.path(), {}), 0);
}

TEST_F(BlockNodeTest, AFullHostReportsItsErrno) {
    const test::TempDir target;
    const Mount mount("tmpfs", target.path(), "tmpfs", "size=256k");
    if (mount.error() != 0) {
        SKIP_UNLESS_CI("mount(2) is not allowed here");
    }
    const std::string path = target.path() + "/sparse.img";
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_EQ(::ftruncate(fd, 1 << 20), 0);
    ::close(fd);
    std::vector<std::byte> data = test::pattern(0, 512 << 10);
    for (const Engine engine : {Engine::kUring, Engine::kPool}) {
        const auto device = open_device(path, {.engine = engine});
        ASSERT_NE(device, nullptr);
        TestBio bio(BioOp::kWrite, 0, data);
        device->submit(bio.bio());
        EXPECT_EQ(bio.wait(), ENOSPC);
        EXPECT_EQ(write_device(*device, 512 << 10, data).code(), ENOSPC);
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Sandboxes that forbid io_uring, before and after the ring was made. Each runs in a process of its
// own.

bool forbid(std::initializer_list<long> calls) {
    std::vector<sock_filter> program{
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
    for (const long call : calls) {
        program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call), 0, 1));
        program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
    }
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter) == 0;
}

// Returns true when writes and reads through submit() work.
bool transfers_work(FileDevice& device) {
    constexpr unsigned kBios = 40;
    std::vector<std::byte> data = test::pattern(0, std::size_t{kBios} * 4096);
    for (const BioOp op : {BioOp::kWrite, BioOp::kRead}) {
        std::deque<TestBio> bios;
        for (unsigned i = 0; i < kBios; i++) {
            bios.emplace_back(op, i * 4096, std::span(data).subspan(std::size_t{i} * 4096, 4096));
            device.submit(bios.back().bio());
        }
        for (TestBio& bio : bios) {
            if (bio.wait() != 0) {
                return false;
            }
        }
        if (op == BioOp::kWrite) {
            std::ranges::fill(data, std::byte{0});
        }
    }
    return data == test::pattern(0, data.size());
}

class FileDeviceSandboxDeathTest : public testing::Test {
protected:
    void SetUp() override {
        GTEST_FLAG_SET(death_test_style, "threadsafe");
    }

    test::TempDir dir_;
    const std::string image_ = dir_.image("disk.img", kSize);
};

TEST_F(FileDeviceSandboxDeathTest, WithoutARingThePoolStandsIn) {
    EXPECT_EXIT(
        {
            auto device = FileDevice::open(image_, {});
            const bool good = forbid({SYS_io_uring_setup}) && transfers_work(**device) &&
                              (*device)->engine_name() == "thread pool";
            dir_.remove();
            ::_exit(good ? 0 : 1);
        },
        testing::ExitedWithCode(0), "");
}

TEST_F(FileDeviceSandboxDeathTest, ARingThatIsTakenAwayIsSurvived) {
    EXPECT_EXIT(
        {
            auto device = FileDevice::open(image_, {});
            bool good = transfers_work(**device);
            good = good && forbid({SYS_io_uring_enter, SYS_io_uring_setup}) &&
                   transfers_work(**device);
            device->reset();
            dir_.remove();
            ::_exit(good ? 0 : 1);
        },
        testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace wbfat::cache
