// The device in RAM: invariants D1 and D2, and B1 at its destruction.
// Method: patterns that are a function of the offset, written and read in pieces.
#include "cache/device/memory_device.h"

#include <algorithm>
#include <memory>
#include <thread>

#include "tests/cache/device_test_util.h"

namespace wbfat::cache {
namespace {

bool all_zero(std::span<const std::byte> bytes) {
    return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

TEST(MemoryDeviceTest, StartsWithZerosOrWithAnImage) {
    const MemoryDevice empty(65536);
    EXPECT_TRUE(all_zero(empty.bytes()));
    EXPECT_EQ(empty.name(), "memory");
    const std::vector<std::byte> image = test::pattern(0, 10000);
    const MemoryDevice device(image,
                              {.logical_block_bytes = 4096, .removable = true, .name = "ram"});
    EXPECT_EQ(device.geometry().size_bytes, 10000U);
    EXPECT_EQ(device.geometry().logical_block_bytes, 4096U);
    EXPECT_TRUE(device.geometry().removable);
    EXPECT_EQ(device.name(), "ram");
    EXPECT_TRUE(std::ranges::equal(device.bytes(), image));
}

TEST(MemoryDeviceTest, ScattersReadsAndGathersWrites) {
    MemoryDevice device(65536);
    std::vector<std::byte> a = test::pattern(4096, 512);
    std::vector<std::byte> b = test::pattern(4608, 4096);
    test::TestBio write(BioOp::kWrite, 4096, {a, b});
    device.submit(write.bio());
    EXPECT_EQ(write.nr_completions(), 1);
    EXPECT_EQ(write.wait(), 0);
    EXPECT_TRUE(all_zero(device.bytes().first(4096)));
    EXPECT_TRUE(std::ranges::equal(device.bytes().subspan(4096, 4608), test::pattern(4096, 4608)));
    EXPECT_TRUE(all_zero(device.bytes().subspan(8704)));

    std::vector<std::byte> c(1024);
    std::vector<std::byte> d(512);
    test::TestBio read(BioOp::kRead, 4608, {c, d});
    device.submit(read.bio());
    EXPECT_EQ(read.wait(), 0);
    EXPECT_EQ(c, test::pattern(4608, 1024));
    EXPECT_EQ(d, test::pattern(5632, 512));
}

TEST(MemoryDeviceTest, AWriteOutOfRangeChangesNothing) {
    MemoryDevice device(4096);
    std::vector<std::byte> data = test::pattern(0, 1024);
    test::TestBio bio(BioOp::kWrite, 3584, data);
    device.submit(bio.bio());
    EXPECT_EQ(bio.wait(), EINVAL);
    EXPECT_TRUE(all_zero(device.bytes()));
}

TEST(MemoryDeviceTest, CompletesInSubmitOrOnACompletionThread) {
    std::vector<std::byte> data(512);
    MemoryDevice here(4096);
    test::TestBio direct(BioOp::kRead, 0, data);
    here.submit(direct.bio());
    EXPECT_EQ(direct.nr_completions(), 1);

    MemoryDevice there(4096, {.completion = CompletionContext::kOnThread});
    test::TestBio posted(BioOp::kRead, 0, data);
    there.submit(posted.bio());
    EXPECT_EQ(posted.wait(), 0);
    EXPECT_EQ(posted.completed_by(), sync::Role::kCompletion);
}

TEST(MemoryDeviceTest, DestructionCompletesWhatWasSubmitted) {
    auto device = std::make_unique<MemoryDevice>(
        1 << 20, MemoryDevice::Options{.completion = CompletionContext::kOnThread});
    std::vector<std::byte> data(4096);
    std::deque<test::TestBio> bios;
    for (int i = 0; i < 200; i++) {
        bios.emplace_back(BioOp::kWrite, 4096U * static_cast<unsigned>(i), data);
        device->submit(bios.back().bio());
    }
    device.reset();
    for (test::TestBio& bio : bios) {
        EXPECT_EQ(bio.nr_completions(), 1);
        EXPECT_EQ(bio.bio().error, 0);
    }
}

TEST(MemoryDeviceTest, DiscardZeroesExactlyTheRange) {
    struct Range {
        std::uint64_t offset;
        std::uint64_t length;
    };
    const Range ranges[] = {{0, 65536},    {512, 512},    {4096, 4096}, {4095, 2},
                            {512, 8192},   {0, 4097},     {3584, 9216}, {65536, 0},
                            {1000, 40000}, {61440, 4096}, {8192, 0}};
    const std::vector<std::byte> image = test::pattern(0, 65536);
    for (const auto& [offset, length] : ranges) {
        SCOPED_TRACE(testing::Message() << offset << " + " << length);
        MemoryDevice device(image);
        ASSERT_TRUE(device.discard(offset, length));
        std::vector<std::byte> expected = image;
        std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(offset), length, std::byte{0});
        EXPECT_TRUE(std::ranges::equal(device.bytes(), expected));
    }
    MemoryDevice device(image);
    EXPECT_EQ(device.discard(65024, 1024).code(), EINVAL);
}

TEST(MemoryDeviceTest, ABigDeviceCostsOnlyWhatIsWritten) {
#if defined(__SANITIZE_THREAD__)
    // TSan leaves a program little address space in one piece.
    constexpr std::uint64_t kSize = std::uint64_t{64} << 30;
#else
    constexpr std::uint64_t kSize = std::uint64_t{2} << 40;
#endif
    MemoryDevice device(kSize);
    const std::vector<std::byte> data = test::pattern(7, 4096);
    ASSERT_TRUE(write_device(device, kSize - 4096, data));
    std::vector<std::byte> read(8192);
    ASSERT_TRUE(read_device(device, kSize - 8192, read));
    EXPECT_TRUE(all_zero(std::span(read).first(4096)));
    EXPECT_TRUE(std::ranges::equal(std::span(read).last(4096), data));
}

TEST(MemoryDeviceTest, DisjointTransfersRunInParallel) {
    MemoryDevice device(1 << 20);
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; t++) {
        threads.emplace_back([&device, t] {
            for (unsigned i = t; i < 256; i += 4) {
                ASSERT_TRUE(write_device(device, i * 4096U, test::pattern(i * 4096U, 4096)));
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_TRUE(std::ranges::equal(device.bytes(), test::pattern(0, 1 << 20)));
}

}  // namespace
}  // namespace wbfat::cache
