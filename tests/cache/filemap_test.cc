// Reading, writing and truncating through the cache: every byte against the device and against a
// model. Small cases first, each naming one rule; then seeded random operations beside a running
// flusher.
#include "cache/filemap.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "cache/flusher.h"
#include "cache/page_io.h"
#include "cache/page_lock.h"

#include "tests/support/test_mapping.h"

namespace wbfat::cache::inline WBFAT_RT {
namespace {

using Bytes = std::vector<std::byte>;

Layout scattered(std::uint64_t cluster_bytes, std::uint64_t size_bytes = 1U << 20) {
    return {.kind = Layout::Kind::kScattered,
            .size_bytes = size_bytes,
            .cluster_bytes = cluster_bytes,
            .seed = 7};
}

Bytes zeros(std::size_t length) {
    return Bytes(length);
}

// --- reading

TEST(FilemapReadTest, ReadsWhatTheDeviceHolds) {
    for (const Layout& layout : {Layout{}, scattered(512), scattered(2048), scattered(16384)}) {
        TestBed bed({.layout = layout});
        bed.fill_disk(300'001, 3);
        EXPECT_EQ(bed.read(0, 300'001), pattern(0, 300'001, 3));
        EXPECT_EQ(bed.read(4095, 2), pattern(4095, 2, 3));
        EXPECT_EQ(bed.read(299'000, 5000), pattern(299'000, 1001, 3));
        EXPECT_TRUE(bed.read(300'001, 10).empty());
    }
}

TEST(FilemapReadTest, BytesBeyondTheEndOfFileAreZeroedInTheLastPage) {
    TestBed bed;
    bed.fill_disk(5000, 1);
    const Result<Page*> page = read_mapping_page(bed.mapping(), 1);
    ASSERT_TRUE(page.has_value());
    const Bytes tail((*page)->data + 904, (*page)->data + kPageSize);
    EXPECT_EQ(tail, zeros(tail.size()));
    EXPECT_EQ(Bytes((*page)->data, (*page)->data + 904), pattern(4096, 904, 1));
    put_page(**page);
}

TEST(FilemapReadTest, HolesReadAsZerosWithoutIo) {
    TestBed bed;
    bed.fill_disk(8 * kPageSize, 1);
    bed.file().on_map = [](std::uint64_t offset, MappedExtent answer) -> Result<MappedExtent> {
        if (offset < 3 * kPageSize + 1024) {
            return MappedExtent{.length_bytes = 3 * kPageSize + 1024 - offset};
        }
        return answer;
    };
    Bytes expected = pattern(0, 8 * kPageSize, 1);
    std::fill_n(expected.begin(), 3 * kPageSize + 1024, std::byte{0});
    EXPECT_EQ(bed.read(0, 8 * kPageSize), expected);
    EXPECT_EQ(bed.cache().stats().bios_read, 1U);
    EXPECT_EQ(bed.cache().stats().pages_read, 5U);
}

TEST(FilemapReadTest, HitsAreTheVeryPagesOfTheCache) {
    TestBed bed;
    bed.fill_disk(10 * kPageSize, 1);
    bed.read(0, 10 * kPageSize);
    const std::uint64_t bios = bed.cache().stats().bios_read;
    PageVec pages;
    ASSERT_TRUE(filemap_read_pages(bed.mapping(), bed.ra, 100, 3 * kPageSize, pages).has_value());
    EXPECT_EQ(bed.cache().stats().bios_read, bios);
    EXPECT_EQ(pages.size_bytes(), 3 * kPageSize);
    ASSERT_EQ(pages.pieces().size(), 4U);
    EXPECT_EQ(pages.pieces()[0].offset_bytes, 100U);
    EXPECT_EQ(pages.pieces()[3].length_bytes, 100U);
    Page* page = bed.mapping().i_pages.find_get(2);
    EXPECT_EQ(page, pages.pieces()[2].page);
    put_page(*page);
    // Referenced, so not to be dropped.
    EXPECT_EQ(invalidate_mapping_pages(bed.mapping(), 0, 9), 6U);
}

TEST(FilemapReadTest, OneLookupAndOneBioServeAContiguousRequest) {
    TestBed bed;
    bed.fill_disk(1U << 20, 1);
    bed.ra.prev_index = 1000;
    bed.read(kPageSize * 32, kPageSize * 64);
    EXPECT_EQ(bed.cache().stats().bios_read, 1U);
    EXPECT_EQ(bed.cache().stats().pages_read, 64U);
    EXPECT_EQ(bed.file().nr_maps.load(), 1U);
}

TEST(FilemapReadTest, RandomReadsReadOnlyWhatTheyNeed) {
    TestBed bed({.layout = {.size_bytes = 8U << 20}});
    bed.fill_disk(8U << 20, 1);
    std::mt19937_64 random(5);
    std::vector<bool> seen(2048);
    std::uint64_t distinct = 0;
    for (int i = 0; i < 200; ++i) {
        const std::uint64_t index = 1 + random() % 2047;
        // No two neighbours, else a run would look like a sequence.
        if (seen[index] || seen[index - 1] || (index + 1 < seen.size() && seen[index + 1])) {
            continue;
        }
        seen[index] = true;
        ++distinct;
        EXPECT_EQ(bed.read(index * kPageSize, 100), pattern(index * kPageSize, 100, 1));
    }
    EXPECT_EQ(bed.cache().stats().pages_read, distinct);
}

TEST(FilemapReadTest, SequentialReadsGrowTheWindowUpToTheLimit) {
    TestBed bed({.cache = {.cache_size_bytes = 32U << 20, .dirty_writeback_centisecs = 0},
                 .layout = {.size_bytes = 8U << 20}});
    bed.fill_disk(8U << 20, 1);
    std::vector<std::uint64_t> read_ahead;  // pages in the cache when each new window appears
    for (std::uint64_t index = 0; index < 2048; ++index) {
        bed.read(index * kPageSize, kPageSize);
        const std::uint64_t cached = bed.mapping().i_pages.nr_pages();
        if (read_ahead.empty() || cached != read_ahead.back()) {
            read_ahead.push_back(cached);
        }
    }
    ASSERT_GE(read_ahead.size(), 6U);
    std::uint64_t largest = read_ahead[0];
    EXPECT_EQ(read_ahead[0], 4U);
    for (std::size_t i = 1; i + 1 < read_ahead.size(); ++i) {
        const std::uint64_t window = read_ahead[i] - read_ahead[i - 1];
        EXPECT_GE(window, i > 1 ? read_ahead[i - 1] - read_ahead[i - 2] : read_ahead[0]);
        largest = std::max(largest, window);
    }
    EXPECT_EQ(largest, 256U);
    EXPECT_LT(bed.cache().stats().bios_read, 20U);
    EXPECT_EQ(bed.cache().stats().pages_read, 2048U);
}

TEST(FilemapReadTest, WithoutReadaheadSequentialReadsReadWhatTheyAskFor) {
    TestBed bed({.cache = {.cache_size_bytes = 8U << 20,
                           .dirty_writeback_centisecs = 0,
                           .readahead_max_bytes = 0}});
    bed.fill_disk(1U << 20, 1);
    bed.read(0, 3 * kPageSize);
    bed.read(3 * kPageSize, kPageSize);
    EXPECT_EQ(bed.cache().stats().pages_read, 4U);
}

TEST(FilemapReadTest, AnUnreadableBlockFailsItsOwnPageOnly) {
    TestBed bed;
    bed.fill_disk(64 * kPageSize, 1);
    bed.faults().add_rule({.ops = kFaultReads,
                           .begin_bytes = 20 * kPageSize,
                           .end_bytes = 20 * kPageSize + 512,
                           .nr_hits = FaultRule::kSticky});
    EXPECT_EQ(bed.read(0, 64 * kPageSize), pattern(0, 20 * kPageSize, 1));
    Bytes buffer(100);
    EXPECT_EQ(filemap_read(bed.mapping(), bed.ra, 20 * kPageSize, buffer).code(), EIO);
    EXPECT_EQ(read_mapping_page(bed.mapping(), 20).code(), EIO);
    EXPECT_EQ(bed.read(21 * kPageSize, 43 * kPageSize), pattern(21 * kPageSize, 43 * kPageSize, 1));
    bed.faults().clear_rules();
    EXPECT_EQ(bed.read(20 * kPageSize, kPageSize), pattern(20 * kPageSize, kPageSize, 1));
}

TEST(FilemapReadTest, AMapThatFailsGivesItsOwnErrno) {
    TestBed bed;
    bed.fill_disk(8 * kPageSize, 1);
    bed.file().on_map = [](std::uint64_t offset, MappedExtent answer) -> Result<MappedExtent> {
        if (offset >= 2 * kPageSize) {
            return Errno{EUCLEAN};
        }
        answer.length_bytes = std::min(answer.length_bytes, 2 * kPageSize - offset);
        return answer;
    };
    EXPECT_EQ(bed.read(0, 8 * kPageSize), pattern(0, 2 * kPageSize, 1));
    Bytes buffer(10);
    EXPECT_EQ(filemap_read(bed.mapping(), bed.ra, 2 * kPageSize, buffer).code(), EUCLEAN);
}

// --- writing

TEST(FilemapWriteTest, OverwritingWholePagesNeverReads) {
    TestBed bed;
    bed.fill_disk(16 * kPageSize, 1);
    bed.write(4 * kPageSize, pattern(4 * kPageSize, 8 * kPageSize, 2));
    EXPECT_EQ(bed.faults().operations(kFaultReads), 0U);
    EXPECT_EQ(bed.read(4 * kPageSize, 8 * kPageSize), pattern(4 * kPageSize, 8 * kPageSize, 2));
}

TEST(FilemapWriteTest, WritingBehindTheEndNeverReads) {
    TestBed bed;
    bed.fill_disk(kPageSize, 1);
    bed.write(3 * kPageSize + 100, pattern(0, 200, 2));
    EXPECT_EQ(bed.faults().operations(kFaultReads), 0U);
    EXPECT_EQ(bed.mapping().i_size(), 3 * kPageSize + 300);
    EXPECT_EQ(bed.read(3 * kPageSize, 100), zeros(100));
}

TEST(FilemapWriteTest, OverwritingAllThatIsValidOfTheLastPageNeverReads) {
    TestBed bed;
    bed.fill_disk(kPageSize + 700, 1);
    bed.write(kPageSize, pattern(kPageSize, 800, 2));
    EXPECT_EQ(bed.faults().operations(kFaultReads), 0U);
    EXPECT_EQ(bed.read(kPageSize, 5000), pattern(kPageSize, 800, 2));
    Page* page = bed.mapping().i_pages.find_get(1);
    ASSERT_NE(page, nullptr);
    EXPECT_EQ(Bytes(page->data + 800, page->data + kPageSize), zeros(kPageSize - 800));
    put_page(*page);
}

TEST(FilemapWriteTest, APartialWriteReadsItsPageOnceAndKeepsTheRest) {
    TestBed bed;
    bed.fill_disk(4 * kPageSize, 1);
    bed.write(kPageSize + 1000, pattern(0, 10, 2));
    bed.write(kPageSize + 3000, pattern(0, 10, 2));
    EXPECT_EQ(bed.faults().operations(kFaultReads), 1U);
    Bytes expected = pattern(kPageSize, kPageSize, 1);
    std::ranges::copy(pattern(0, 10, 2), expected.begin() + 1000);
    std::ranges::copy(pattern(0, 10, 2), expected.begin() + 3000);
    EXPECT_EQ(bed.read(kPageSize, kPageSize), expected);
}

TEST(FilemapWriteTest, OnlyTheTouchedBlocksAreDirty) {
    TestBed bed;
    bed.fill_disk(4 * kPageSize, 1);
    bed.write(kPageSize + 1000, pattern(0, 100, 2));
    Page* page = bed.mapping().i_pages.find_get(1);
    ASSERT_NE(page, nullptr);
    EXPECT_EQ(page->dirty_blocks, 0b0000'0110);
    put_page(*page);
}

TEST(FilemapWriteTest, AWriteCycleOfNoBytesDirtiesItsBlockUnlessAligned) {
    TestBed bed;
    bed.fill_disk(kPageSize, 1);
    const Result<Page*> aligned = write_begin(bed.mapping(), 2 * kPageSize, 0);
    ASSERT_TRUE(aligned.has_value());
    write_end(bed.mapping(), **aligned, 2 * kPageSize, 0);
    EXPECT_EQ(bed.mapping().i_size(), 2 * kPageSize);
    EXPECT_EQ(bed.cache().stats().nr_dirty, 0U);
    const Result<Page*> odd = write_begin(bed.mapping(), 2 * kPageSize + 700, 0);
    ASSERT_TRUE(odd.has_value());
    write_end(bed.mapping(), **odd, 2 * kPageSize + 700, 0);
    EXPECT_EQ(bed.mapping().i_size(), 2 * kPageSize + 700);
    EXPECT_EQ(bed.cache().stats().nr_dirty, 1U);
    Page* page = bed.mapping().i_pages.find_get(2);
    EXPECT_EQ(page->dirty_blocks, 0b10);
    put_page(*page);
}

TEST(FilemapWriteTest, AShortCopyIntoAPageThatWasNotReadIsDropped) {
    TestBed bed;
    bed.fill_disk(2 * kPageSize, 1);
    const Result<Page*> page = write_begin(bed.mapping(), 0, kPageSize);
    ASSERT_TRUE(page.has_value());
    std::memset((*page)->data, 0xEE, 10);
    write_end(bed.mapping(), **page, 0, 10);
    EXPECT_EQ(bed.cache().stats().nr_dirty, 0U);
    EXPECT_EQ(bed.read(0, 2 * kPageSize), pattern(0, 2 * kPageSize, 1));
}

TEST(FilemapWriteTest, ACopyThatFailsEndsTheWriteAndLeavesZerosBehindTheEnd) {
    TestBed bed;
    bed.fill_disk(100, 1);
    bed.read(0, 100);
    int pieces = 0;
    const CopyIn copy = [&](std::span<std::byte> piece) -> Result<> {
        std::memset(piece.data(), 0xEE, piece.size());
        return ++pieces == 3 ? Result<>(Errno{EFAULT}) : Result<>();
    };
    const Result<std::size_t> written =
        generic_perform_write(bed.mapping(), 50, 4 * kPageSize, copy);
    ASSERT_TRUE(written.has_value());
    EXPECT_EQ(*written, 2 * kPageSize - 50);
    EXPECT_EQ(bed.mapping().i_size(), 2 * kPageSize);
    pieces = 2;
    bed.mapping().i_size_write(2 * kPageSize);
    EXPECT_EQ(generic_perform_write(bed.mapping(), kPageSize + 5, 20, copy).code(), EFAULT);
    pieces = 2;
    ASSERT_TRUE(block_truncate_page(bed.mapping(), kPageSize + 100).has_value());
    truncate_setsize(bed.mapping(), kPageSize + 100);
    EXPECT_EQ(generic_perform_write(bed.mapping(), kPageSize + 90, 20, copy).code(), EFAULT);
    Page* page = bed.mapping().i_pages.find_get(1);
    EXPECT_EQ(Bytes(page->data + 100, page->data + kPageSize), zeros(kPageSize - 100));
    put_page(*page);
}

TEST(FilemapWriteTest, ZeroRangeZeroesExactlyTheRange) {
    TestBed bed;
    bed.fill_disk(8 * kPageSize, 1);
    ASSERT_TRUE(zero_range(bed.mapping(), 1000, 5 * kPageSize + 77).has_value());
    Bytes expected = pattern(0, 8 * kPageSize, 1);
    std::fill(expected.begin() + 1000, expected.begin() + 5 * kPageSize + 77, std::byte{0});
    EXPECT_EQ(bed.read(0, 8 * kPageSize), expected);
    ASSERT_TRUE(bed.fsync().has_value());
    EXPECT_EQ(bed.on_disk(0, 8 * kPageSize), expected);
}

TEST(FilemapWriteTest, AWriteFailsWithTheErrorOfTheReadItNeeds) {
    TestBed bed;
    bed.fill_disk(4 * kPageSize, 1);
    bed.faults().add_rule({.ops = kFaultReads, .nr_hits = FaultRule::kSticky});
    const CopyIn copy = [](std::span<std::byte>) -> Result<> { return {}; };
    EXPECT_EQ(generic_perform_write(bed.mapping(), kPageSize + 1, 10, copy).code(), EIO);
    EXPECT_EQ(bed.cache().stats().nr_dirty, 0U);
}

// --- truncating

TEST(TruncateTest, RemovesThePagesBehindAndZeroesTheTail) {
    TestBed bed;
    bed.fill_disk(64 * kPageSize, 1);
    bed.read(0, 64 * kPageSize);
    bed.write(30 * kPageSize, pattern(0, 20 * kPageSize, 2));
    truncate_setsize(bed.mapping(), 10 * kPageSize + 100);
    EXPECT_EQ(bed.mapping().i_pages.nr_pages(), 11U);
    EXPECT_EQ(bed.cache().stats().nr_dirty, 0U);
    EXPECT_EQ(bed.cache().stats().nr_cached, 11U);
    EXPECT_FALSE(bed.mapping().i_pages.tagged(PAGECACHE_TAG_DIRTY));
    bed.mapping().i_size_write(11 * kPageSize);
    Bytes expected = pattern(10 * kPageSize, kPageSize, 1);
    std::fill(expected.begin() + 100, expected.end(), std::byte{0});
    EXPECT_EQ(bed.read(10 * kPageSize, kPageSize), expected);
}

TEST(TruncateTest, TheTailOfTheLastBlockIsZeroOnTheDiskToo) {
    TestBed bed;
    bed.fill_disk(4 * kPageSize, 1);
    ASSERT_TRUE(block_truncate_page(bed.mapping(), kPageSize + 700).has_value());
    truncate_setsize(bed.mapping(), kPageSize + 700);
    ASSERT_TRUE(bed.fsync().has_value());
    Bytes expected = pattern(kPageSize, 1024, 1);
    std::fill(expected.begin() + 700, expected.end(), std::byte{0});
    EXPECT_EQ(bed.on_disk(kPageSize, 1024), expected);
    // The block behind belongs to nobody any more and is not written.
    EXPECT_EQ(bed.on_disk(kPageSize + 1024, 512), pattern(kPageSize + 1024, 512, 1));
}

TEST(TruncateTest, WaitsForWritebackOfAPageItRemoves) {
    TestBed bed;
    bed.write(0, pattern(0, 4 * kPageSize, 1));
    bed.faults().add_rule({.ops = kFaultWrites, .nr_hits = 1, .effect = FaultEffect::kHold});
    ASSERT_TRUE(filemap_fdatawrite_range(bed.mapping(), 0, kLastByte).has_value());
    bed.faults().wait_until_held(1);
    sync::Atomic<bool> removed{false};
    TestThread truncater([&] {
        truncate_setsize(bed.mapping(), 0);
        removed.store(true);
    });
    eventually([&] { return bed.cache().stats().writeback_waits > 0; },
               "truncate to wait for writeback");
    EXPECT_FALSE(removed.load());
    EXPECT_EQ(bed.mapping().i_pages.nr_pages(), 4U);
    bed.faults().release();
    truncater.join();
    EXPECT_EQ(bed.mapping().i_pages.nr_pages(), 0U);
    EXPECT_EQ(bed.on_disk(0, 4 * kPageSize), pattern(0, 4 * kPageSize, 1));
}

TEST(TruncateTest, WaitsForAReadInFlight) {
    TestBed bed;
    bed.fill_disk(4 * kPageSize, 1);
    bed.faults().add_rule({.ops = kFaultReads, .nr_hits = 1, .effect = FaultEffect::kHold});
    TestThread reader([&] {
        Bytes bytes(4 * kPageSize);
        ReadaheadState ra;
        EXPECT_TRUE(filemap_read(bed.mapping(), ra, 0, bytes).has_value());
    });
    bed.faults().wait_until_held(1);
    const std::uint64_t waits = bed.cache().stats().lock_waits;
    TestThread truncater([&] { truncate_setsize(bed.mapping(), 0); });
    eventually(
        [&] { return bed.cache().stats().lock_waits > waits + 1 || bed.mapping().i_size() == 0; },
        "truncate to run");
    EXPECT_EQ(bed.mapping().i_pages.nr_pages(), 4U);
    bed.faults().release();
    reader.join();
    truncater.join();
    EXPECT_EQ(bed.mapping().i_pages.nr_pages(), 0U);
}

TEST(TruncateTest, InvalidationKeepsWhatIsDirtyInFlightOrInUse) {
    TestBed bed;
    bed.fill_disk(8 * kPageSize, 1);
    bed.read(0, 8 * kPageSize);
    bed.write(2 * kPageSize, pattern(0, 10, 2));
    Page* used = bed.mapping().i_pages.find_get(4);
    EXPECT_EQ(invalidate_mapping_pages(bed.mapping(), 1, 5), 3U);
    EXPECT_EQ(bed.mapping().i_pages.nr_pages(), 5U);
    put_page(*used);
    EXPECT_EQ(bed.cache().drop_caches(), 4U);
    EXPECT_TRUE(bed.page_is(2, PG_dirty));
}

// --- against a model

struct ModelCase {
    std::string name;
    Layout layout;
    std::uint64_t cache_bytes;
    AddressSpace::StablePages stable;
    std::uint32_t logical_block_bytes = 512;
};

class FilemapModelTest : public ::testing::TestWithParam<ModelCase> {};

// What a filesystem does around the cache: no bytes of the device become visible that were not
// written.
class ModelFile {
public:
    ModelFile(const ModelCase& c, std::uint64_t seed)
        : bed_({.cache = {.cache_size_bytes = c.cache_bytes,
                          .dirty_writeback_centisecs = 1,
                          .dirty_expire_centisecs = 0},
                .layout = c.layout,
                .logical_block_bytes = c.logical_block_bytes,
                .stable = c.stable}),
          max_bytes_(c.layout.size_bytes),
          random_(seed) {}

    void run(int steps) {
        for (int i = 0; i < steps && !::testing::Test::HasFatalFailure(); ++i) {
            step();
            bed_.flusher().balance_dirty_pages(bed_.mapping());
        }
        sync_and_compare();
    }

private:
    std::uint64_t below(std::uint64_t limit) {
        return limit == 0 ? 0 : random_() % limit;
    }

    void step() {
        switch (below(12)) {
            case 0:
                truncate(below(max_bytes_));
                break;
            case 1:
                truncate(model_.size() - std::min<std::uint64_t>(model_.size(), below(10'000)));
                break;
            case 2:
                sync_and_compare();
                break;
            case 3:
                invalidate_mapping_pages(bed_.mapping(), below(100), 1000);
                break;
            case 4:
                bed_.cache().drop_caches();
                break;
            case 5:
            case 6:
            case 7:
                read(below(model_.size() + 100), below(below(4) == 0 ? 200'000 : 5000));
                break;
            default:
                write(below(std::min<std::uint64_t>(model_.size() + 20'000, max_bytes_)),
                      1 + below(below(4) == 0 ? 150'000 : 6000));
        }
    }

    void grow_to(std::uint64_t size) {
        if (size > model_.size()) {
            ASSERT_TRUE(zero_range(bed_.mapping(), model_.size(), size).has_value());
            model_.resize(size);
        }
    }

    void truncate(std::uint64_t size) {
        if (size > model_.size()) {
            grow_to(size);
            return;
        }
        ASSERT_TRUE(block_truncate_page(bed_.mapping(), size).has_value());
        truncate_setsize(bed_.mapping(), size);
        model_.resize(size);
    }

    void write(std::uint64_t offset, std::uint64_t length) {
        length = std::min(length, max_bytes_ - offset);
        grow_to(offset);
        const Bytes bytes = pattern(offset, length, ++tag_);
        bed_.write(offset, bytes);
        model_.resize(std::max<std::size_t>(model_.size(), offset + length));
        std::ranges::copy(bytes, model_.begin() + static_cast<std::ptrdiff_t>(offset));
        ASSERT_EQ(bed_.mapping().i_size(), model_.size());
    }

    void read(std::uint64_t offset, std::uint64_t length) {
        const Bytes got = bed_.read(offset, length);
        const std::uint64_t end = std::min<std::uint64_t>(offset + length, model_.size());
        const Bytes expected = offset < end
                                   ? Bytes(model_.begin() + static_cast<std::ptrdiff_t>(offset),
                                           model_.begin() + static_cast<std::ptrdiff_t>(end))
                                   : Bytes();
        ASSERT_TRUE(got == expected) << "read of " << length << " at " << offset << " differs";
    }

    void sync_and_compare() {
        ASSERT_TRUE(bed_.fsync().has_value());
        ASSERT_TRUE(bed_.on_disk(0, model_.size()) == model_) << "the device differs after fsync";
    }

    TestBed bed_;
    const std::uint64_t max_bytes_;
    std::mt19937_64 random_;
    Bytes model_;
    unsigned tag_ = 0;
};

TEST_P(FilemapModelTest, AnySequenceReadsBackWhatWasWritten) {
    for (const std::uint64_t seed : {1, 2, 3, 4}) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        ModelFile(GetParam(), seed).run(250);
        if (HasFatalFailure()) {
            return;
        }
    }
}

// Pages that are not stable are modified while the device copies them, as in the kernel. That is no
// bug, but TSan cannot know; it runs the stable cases.
#if defined(__SANITIZE_THREAD__)
constexpr auto kUnstable = AddressSpace::StablePages::kYes;
#else
constexpr auto kUnstable = AddressSpace::StablePages::kNo;
#endif

INSTANTIATE_TEST_SUITE_P(
    Cases, FilemapModelTest,
    ::testing::Values(ModelCase{"Contiguous", {}, 8U << 20, kUnstable},
                      ModelCase{"ContiguousStable", {}, 8U << 20, AddressSpace::StablePages::kYes},
                      ModelCase{"ScatteredSectors", scattered(512), 8U << 20, kUnstable},
                      ModelCase{"ScatteredPages", scattered(4096), 8U << 20, kUnstable},
                      ModelCase{"ScatteredClusters", scattered(16384), 4U << 20, kUnstable},
                      ModelCase{"BigSectors", scattered(4096), 4U << 20, kUnstable, 4096},
                      ModelCase{"TinyCache", {.size_bytes = 4U << 20}, 1U << 20, kUnstable},
                      ModelCase{"TinyCacheScattered", scattered(1024, 4U << 20), 1U << 20,
                                kUnstable}),
    [](const ::testing::TestParamInfo<ModelCase>& a_case) { return a_case.param.name; });

#if !defined(__SANITIZE_THREAD__)  // for the same reason: reads do not exclude writes
// Several readers, one writer, the flusher: a reader sees nothing that was never written.
TEST(FilemapConcurrencyTest, ReadersBesideWriterAndTruncaterNeverSeeForeignBytes) {
    TestBed bed({.cache = {.cache_size_bytes = 1U << 20,
                           .dirty_writeback_centisecs = 1,
                           .dirty_expire_centisecs = 0},
                 .layout = scattered(2048, 2U << 20),
                 .stable = AddressSpace::StablePages::kYes});
    // Every byte of the file is 7 or 0 (grown, not yet written), whatever the interleaving; the
    // device holds 99.
    std::memset(bed.disk().bytes().data(), 99, bed.disk().bytes().size());
    sync::Atomic<bool> stop{false};
    const auto reader = [&](unsigned seed) {
        std::mt19937_64 random(seed);
        ReadaheadState ra;
        Bytes bytes(64 * 1024);
        while (!stop.load()) {
            const Result<std::size_t> got =
                filemap_read(bed.mapping(), ra, random() % (2U << 20), bytes);
            ASSERT_TRUE(got.has_value());
            for (std::size_t i = 0; i < *got; ++i) {
                ASSERT_TRUE(bytes[i] == std::byte{7} || bytes[i] == std::byte{0})
                    << static_cast<int>(bytes[i]);
            }
        }
    };
    TestThread first(reader, 1);
    TestThread second(reader, 2);
    std::mt19937_64 random(3);
    const Bytes sevens(70'000, std::byte{7});
    for (int i = 0; i < 400; ++i) {
        const std::uint64_t size = bed.mapping().i_size();
        if (i % 5 == 4) {
            const std::uint64_t smaller = random() % (size + 1);
            ASSERT_TRUE(block_truncate_page(bed.mapping(), smaller).has_value());
            truncate_setsize(bed.mapping(), smaller);
        } else {
            const std::uint64_t offset = random() % ((2U << 20) - sevens.size());
            if (offset > size) {
                ASSERT_TRUE(zero_range(bed.mapping(), size, offset).has_value());
            }
            bed.write(offset, sevens);
            bed.flusher().balance_dirty_pages(bed.mapping());
        }
    }
    stop.store(true);
}
#endif

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
