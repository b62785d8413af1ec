// What all devices share: the range checks and the synchronous transfers.
// Method: tables over the checks; transfers against a device in RAM that completes on another
// thread.
#include "cache/device/block_device.h"

#include "cache/device/memory_device.h"

#include "tests/cache/device_test_util.h"

namespace wbfat::cache {
namespace {

TEST(BioTest, SizeIsTheSumOfItsSegments) {
    std::vector<std::byte> memory(4096);
    Bio bio;
    EXPECT_EQ(bio.size_bytes(), 0U);
    bio.segments = {{memory.data(), 512}, {memory.data() + 1024, 1024}};
    EXPECT_EQ(bio.size_bytes(), 1536U);
}

struct CheckCase {
    const char* name;
    BioOp op;
    std::uint64_t offset;
    std::uint32_t length;
    bool read_only;
    int error;
};

TEST(BlockDeviceTest, ChecksRangeAndDirection) {
    constexpr std::uint64_t kSize = 8192;
    const CheckCase cases[] = {
        {"all of it", BioOp::kRead, 0, 8192, false, 0},
        {"the last block", BioOp::kWrite, 7680, 512, false, 0},
        {"nothing at the very end", BioOp::kRead, 8192, 0, false, 0},
        {"one block past the end", BioOp::kRead, 8192, 512, false, EINVAL},
        {"across the end", BioOp::kWrite, 7680, 1024, false, EINVAL},
        {"offset + length wraps around", BioOp::kRead, UINT64_MAX - 511, 512, false, EINVAL},
        {"reading what is read-only", BioOp::kRead, 0, 512, true, 0},
        {"writing what is read-only", BioOp::kWrite, 0, 512, true, EROFS},
    };
    std::vector<std::byte> memory(8192);
    for (const CheckCase& c : cases) {
        SCOPED_TRACE(c.name);
        const DeviceGeometry geometry{.size_bytes = kSize, .read_only = c.read_only};
        Bio bio{.op = c.op, .offset_bytes = c.offset};
        bio.segments = {{memory.data(), c.length}};
        EXPECT_EQ(check_bio(geometry, bio), c.error);
    }
}

TEST(BlockDeviceTest, ChecksDiscards) {
    DeviceGeometry geometry{.size_bytes = 8192, .can_discard = true};
    EXPECT_EQ(check_discard(geometry, 0, 8192), 0);
    EXPECT_EQ(check_discard(geometry, 4096, 4097), EINVAL);
    EXPECT_EQ(check_discard(geometry, 512, UINT64_MAX), EINVAL);
    geometry.read_only = true;
    EXPECT_EQ(check_discard(geometry, 0, 512), EROFS);
    geometry.can_discard = false;
    EXPECT_EQ(check_discard(geometry, 0, 512), EOPNOTSUPP);
}

TEST(BlockDeviceTest, SynchronousTransfersWaitForTheCompletionThread) {
    MemoryDevice device(1 << 20, {.completion = CompletionContext::kOnThread});
    const std::vector<std::byte> written = test::pattern(512, 100 * 512);
    ASSERT_TRUE(write_device(device, 512, written));
    std::vector<std::byte> read(written.size());
    ASSERT_TRUE(read_device(device, 512, read));
    EXPECT_EQ(read, written);
}

TEST(BlockDeviceTest, SynchronousTransfersReportErrors) {
    MemoryDevice device(4096);
    std::vector<std::byte> memory(512);
    EXPECT_EQ(read_device(device, 4096, memory).code(), EINVAL);
    EXPECT_EQ(write_device(device, 3968, memory).code(), EINVAL);
    MemoryDevice read_only(4096, {.read_only = true});
    EXPECT_EQ(write_device(read_only, 0, memory).code(), EROFS);
    EXPECT_EQ(read_device(read_only, 0, memory).code(), 0);
}

TEST(BlockDeviceTest, AnEmptyTransferSucceeds) {
    MemoryDevice device(4096, {.completion = CompletionContext::kOnThread});
    EXPECT_TRUE(read_device(device, 4096, {}));
}

}  // namespace
}  // namespace wbfat::cache
