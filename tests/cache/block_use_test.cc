// Goal: the assertion freed_blocks finds a write to free blocks whichever of the two came first.
// Method: transfers and freeings are announced by hand; the assertion warns.
#include "cache/block_use.h"

#include "tests/cache/page_fixture.h"
#include "tests/support/bugs.h"

namespace wbfat::cache::inline WBFAT_RT {
namespace {

class BlockUseTest : public PageTest {
protected:
    Bio write_of(std::uint64_t offset_bytes, Page& page) {
        Bio bio;
        bio.op = BioOp::kWrite;
        bio.offset_bytes = offset_bytes;
        bio.segments.push_back({.data = page.data, .length_bytes = kPageSize, .owner = &page});
        return bio;
    }
    static std::uint64_t found() {
        return Bugs::count(Assertion::kFreedBlocks);
    }
    const Bugs bugs_;
    BlockUse use_;
    Page& page_ = add_page(0);
    const Bio bio_ = write_of(8192, page_);
};

TEST_F(BlockUseTest, FreeingUnderAWriteIsFound) {
    use_.note_write_begins(bio_);
    use_.note_freed(4096, 4096);
    use_.note_freed(12288, 4096);
    EXPECT_EQ(found(), 0U);  // its neighbours
    use_.note_freed(8704, 512);
    EXPECT_EQ(found(), 1U);
    use_.note_write_ends(bio_);
    use_.note_freed(8192, 4096);
    EXPECT_EQ(found(), 1U);
}

TEST_F(BlockUseTest, AWriteToFreedBlocksIsFoundUntilTheyAreAllocatedAgain) {
    use_.note_freed(0, 65536);
    use_.note_write_begins(bio_);
    EXPECT_EQ(found(), 1U);
    use_.note_write_ends(bio_);
    use_.note_allocated(8192, 4096);
    use_.note_write_begins(bio_);
    EXPECT_EQ(found(), 1U);
}

TEST_F(BlockUseTest, WhatHappenedBeforeAPauseOfTheAssertionIsForgotten) {
    use_.note_freed(0, 65536);
    set_assertion(Assertion::kFreedBlocks, AssertionState::kOff);
    use_.note_allocated(0, 65536);
    set_assertion(Assertion::kFreedBlocks, AssertionState::kWarn);
    use_.note_write_begins(bio_);
    EXPECT_EQ(found(), 0U);
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
