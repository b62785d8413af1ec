// Goal: mkfs.wbfat -c finds exactly the unreadable blocks, and -l reads exactly what a list says.
// Method: a reader that fails on chosen blocks, and lists in strings.
#include "tools/mkfs/bad_blocks.h"

#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tools/mkfs/usage_error.h"

namespace wbfat::tools {
namespace {

using Blocks = std::vector<std::uint64_t>;

Blocks find(std::uint64_t volume_bytes, const std::set<std::uint64_t>& unreadable) {
    Progress progress("Test");
    const ReadAt read = [&](std::uint64_t at, std::span<std::byte> into) {
        EXPECT_LE(at + into.size(), volume_bytes);
        const auto hit = unreadable.lower_bound(at / kBadBlockBytes);
        return hit == unreadable.end() || *hit * kBadBlockBytes >= at + into.size();
    };
    return find_bad_blocks(read, volume_bytes, progress);
}

Blocks read_list(const std::string& text) {
    std::istringstream list(text);
    return read_bad_block_list(list, "the list");
}

TEST(FindBadBlocksTest, FindsNothingOnAGoodDevice) {
    EXPECT_EQ(find(5'000'000, {}), Blocks{});
}

TEST(FindBadBlocksTest, FindsTheFirstTheLastAndNeighbours) {
    // 5000 blocks, and half a block at the end.
    EXPECT_EQ(find(5000 * kBadBlockBytes + 512, {0, 1, 1023, 1024, 4000, 5000}),
              (Blocks{0, 1, 1023, 1024, 4000, 5000}));
}

TEST(BadBlockListTest, TakesOneNumberALine) {
    EXPECT_EQ(read_list("5\n\n  17 \r\n3"), (Blocks{5, 17, 3}));
    EXPECT_EQ(read_list(""), Blocks{});
}

TEST(BadBlockListTest, NamesTheLineItCannotRead) {
    for (const char* const text :
         {"1\nx\n", "1\n2 3\n", "1\n-4\n", "1\n0x10\n", "1\n99999999999999999999999\n"}) {
        SCOPED_TRACE(text);
        try {
            read_list(text);
            ADD_FAILURE() << "was read";
        } catch (const UsageError& error) {
            EXPECT_NE(std::string(error.what()).find("line 2 of the list"), std::string::npos)
                << error.what();
        }
    }
}

}  // namespace
}  // namespace wbfat::tools
