// Goal: the radix tree is a map with three marks per page, whatever its shape, and its summaries
// never lie. Method: single cases at the borders of nodes, and seeded random operations against a
// std::map.
#include "cache/page_index.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cache/base/check.h"

namespace wbfat::cache::inline WBFAT_RT {
namespace {

constexpr std::array<PageTag, kNrPageTags> kTags{PAGECACHE_TAG_DIRTY, PAGECACHE_TAG_WRITEBACK,
                                                 PAGECACHE_TAG_TOWRITE};
constexpr pgoff_t kLastIndex = ~pgoff_t{0};

class PageIndexTest : public ::testing::Test {
protected:
    bool insert(pgoff_t index) {
        Page& page = pages_.emplace_back();
        page.index = index;
        page.refcount.store(1);
        bool out_of_memory = false;
        const sync::SpinLockGuard guard(tree_.lock());
        return tree_.insert_locked(index, page, out_of_memory);
    }
    void erase(pgoff_t index) {
        const sync::SpinLockGuard guard(tree_.lock());
        tree_.erase_locked(index);
    }
    void set_tag(pgoff_t index, PageTag tag) {
        const sync::SpinLockGuard guard(tree_.lock());
        tree_.set_tag_locked(index, tag);
    }
    void clear_tag(pgoff_t index, PageTag tag) {
        const sync::SpinLockGuard guard(tree_.lock());
        tree_.clear_tag_locked(index, tag);
    }
    bool get_tag(pgoff_t index, PageTag tag) {
        const sync::SpinLockGuard guard(tree_.lock());
        return tree_.get_tag_locked(index, tag);
    }
    static std::vector<pgoff_t> indices(std::span<Page* const> pages) {
        std::vector<pgoff_t> result;
        for (Page* page : pages) {
            result.push_back(page->index);
            put_page(*page);
        }
        return result;
    }
    std::vector<pgoff_t> range(pgoff_t start, pgoff_t end, std::size_t limit = 10000) {
        std::vector<Page*> out(limit);
        out.resize(tree_.find_get_range(start, end, out));
        return indices(out);
    }
    std::vector<pgoff_t> range_tag(pgoff_t start, pgoff_t end, PageTag tag,
                                   std::size_t limit = 10000) {
        std::vector<Page*> out(limit);
        out.resize(tree_.find_get_range_tag(start, end, tag, out));
        return indices(out);
    }

    PageIndex tree_;
    std::deque<Page> pages_;
};

TEST_F(PageIndexTest, FindsWhatWasInsertedAtEveryBorderOfANode) {
    const std::vector<pgoff_t> borders{
        0,         1, 63, 64, 4095, 4096, 262143, 262144, (pgoff_t{1} << 52) - 1, pgoff_t{1} << 60,
        kLastIndex};
    for (const pgoff_t index : borders) {
        EXPECT_TRUE(insert(index)) << index;
        tree_.assert_consistent();
    }
    EXPECT_EQ(tree_.nr_pages(), borders.size());
    for (const pgoff_t index : borders) {
        Page* page = tree_.find_get(index);
        ASSERT_NE(page, nullptr) << index;
        EXPECT_EQ(page->index, index);
        EXPECT_EQ(page->refcount.load(), 2);
        put_page(*page);
    }
    EXPECT_EQ(tree_.find_get(2), nullptr);
    EXPECT_EQ(tree_.find_get(kLastIndex - 1), nullptr);
    EXPECT_EQ(range(0, kLastIndex), borders);
    for (const pgoff_t index : borders) {
        erase(index);
        tree_.assert_consistent();
    }
    EXPECT_EQ(tree_.nr_pages(), 0U);
    EXPECT_TRUE(range(0, kLastIndex).empty());
}

TEST_F(PageIndexTest, RefusesATakenSlotAndKeepsItsPage) {
    ASSERT_TRUE(insert(5));
    EXPECT_FALSE(insert(5));
    Page* page = tree_.find_get(5);
    EXPECT_EQ(page, &pages_.front());
    put_page(*page);
    EXPECT_EQ(tree_.nr_pages(), 1U);
}

TEST_F(PageIndexTest, RangeIsInclusiveAscendingAndStopsWhenTheSpanIsFull) {
    for (pgoff_t index = 0; index < 300; index += 3) {
        ASSERT_TRUE(insert(index));
    }
    EXPECT_EQ(range(3, 9), (std::vector<pgoff_t>{3, 6, 9}));
    EXPECT_EQ(range(4, 8), (std::vector<pgoff_t>{6}));
    EXPECT_EQ(range(60, 300, 3), (std::vector<pgoff_t>{60, 63, 66}));
    EXPECT_TRUE(range(298, kLastIndex).empty());
    EXPECT_TRUE(range(9, 3).empty());
}

TEST_F(PageIndexTest, MarksAreSeenAtTheRootUntilTheLastIsCleared) {
    for (const pgoff_t index : {pgoff_t{1}, pgoff_t{100}, pgoff_t{70000}}) {
        ASSERT_TRUE(insert(index));
        set_tag(index, PAGECACHE_TAG_DIRTY);
        tree_.assert_consistent();
    }
    EXPECT_TRUE(tree_.tagged(PAGECACHE_TAG_DIRTY));
    EXPECT_FALSE(tree_.tagged(PAGECACHE_TAG_WRITEBACK));
    clear_tag(1, PAGECACHE_TAG_DIRTY);
    erase(100);
    EXPECT_TRUE(tree_.tagged(PAGECACHE_TAG_DIRTY));
    clear_tag(70000, PAGECACHE_TAG_DIRTY);
    EXPECT_FALSE(tree_.tagged(PAGECACHE_TAG_DIRTY));
    tree_.assert_consistent();
}

TEST_F(PageIndexTest, MarksSurviveTheGrowthOfTheTree) {
    ASSERT_TRUE(insert(3));
    set_tag(3, PAGECACHE_TAG_WRITEBACK);
    ASSERT_TRUE(insert(pgoff_t{1} << 40));
    tree_.assert_consistent();
    EXPECT_EQ(range_tag(0, kLastIndex, PAGECACHE_TAG_WRITEBACK), (std::vector<pgoff_t>{3}));
    erase(pgoff_t{1} << 40);
    tree_.assert_consistent();
    EXPECT_TRUE(get_tag(3, PAGECACHE_TAG_WRITEBACK));
}

TEST_F(PageIndexTest, ANewPageInAnOldSlotIsUnmarked) {
    ASSERT_TRUE(insert(9));
    set_tag(9, PAGECACHE_TAG_TOWRITE);
    erase(9);
    ASSERT_TRUE(insert(9));
    EXPECT_FALSE(get_tag(9, PAGECACHE_TAG_TOWRITE));
    EXPECT_FALSE(tree_.tagged(PAGECACHE_TAG_TOWRITE));
}

TEST_F(PageIndexTest, MarkingAnEmptySlotDoesNothing) {
    set_tag(7, PAGECACHE_TAG_DIRTY);
    ASSERT_TRUE(insert(6));
    set_tag(7, PAGECACHE_TAG_DIRTY);
    EXPECT_FALSE(tree_.tagged(PAGECACHE_TAG_DIRTY));
    tree_.assert_consistent();
}

TEST_F(PageIndexTest, TagsForWritebackExactlyTheDirtyPagesOfTheRangeAcrossLockBreaks) {
    constexpr pgoff_t kPages = 3 * 4096 + 17;
    for (pgoff_t index = 0; index < kPages; ++index) {
        ASSERT_TRUE(insert(index));
        if (index % 5 != 0) {
            set_tag(index, PAGECACHE_TAG_DIRTY);
        }
    }
    constexpr pgoff_t kStart = 30;
    constexpr pgoff_t kEnd = kPages - 40;
    tree_.tag_pages_for_writeback(kStart, kEnd);
    tree_.assert_consistent();
    for (pgoff_t index = 0; index < kPages; ++index) {
        ASSERT_EQ(get_tag(index, PAGECACHE_TAG_TOWRITE),
                  index >= kStart && index <= kEnd && index % 5 != 0)
            << index;
    }
}

// --- against a model

struct ModelPage {
    Page* page = nullptr;
    std::array<bool, kNrPageTags> tags{};
};
using Model = std::map<pgoff_t, ModelPage>;

class PageIndexModelTest : public PageIndexTest, public ::testing::WithParamInterface<unsigned> {
protected:
    pgoff_t random_index() {
        // Mostly near each other, so that slots collide; now and then far away, so that the tree
        // grows and shrinks.
        switch (random() % 8) {
            case 0:
                return random() & ((pgoff_t{1} << 52) - 1);
            case 1:
                return 262000 + random() % 300;
            default:
                return random() % 400;
        }
    }
    std::uint64_t random() {
        return engine_();
    }
    PageTag random_tag() {
        return kTags[random() % kTags.size()];
    }

    void step() {
        const pgoff_t index = random_index();
        const bool there = model_.contains(index);
        switch (random() % 8) {
            case 0:
            case 1:
                ASSERT_EQ(insert(index), !there);
                if (!there) {
                    model_[index].page = &pages_.back();
                }
                break;
            case 2:
                if (there) {
                    erase(index);
                    model_.erase(index);
                }
                break;
            case 3:
            case 4:
                change_tag(index, there, true);
                break;
            case 5:
                change_tag(index, there, false);
                break;
            case 6:
                tag_for_writeback(index);
                break;
            default:
                look(index);
        }
    }
    void change_tag(pgoff_t index, bool there, bool value) {
        const PageTag tag = random_tag();
        value ? set_tag(index, tag) : clear_tag(index, tag);
        if (there) {
            model_[index].tags[tag] = value;
        }
    }
    void tag_for_writeback(pgoff_t start) {
        const pgoff_t end = start + random() % 500;
        tree_.tag_pages_for_writeback(start, end);
        for (auto at = model_.lower_bound(start); at != model_.end() && at->first <= end; ++at) {
            at->second.tags[PAGECACHE_TAG_TOWRITE] |= at->second.tags[PAGECACHE_TAG_DIRTY];
        }
    }
    void look(pgoff_t start) {
        const pgoff_t end = start + random() % 1000;
        const std::size_t limit = 1 + random() % 40;
        std::vector<pgoff_t> present;
        std::array<std::vector<pgoff_t>, kNrPageTags> marked;
        for (auto at = model_.lower_bound(start); at != model_.end() && at->first <= end; ++at) {
            present.push_back(at->first);
            for (const PageTag tag : kTags) {
                if (at->second.tags[tag]) {
                    marked[tag].push_back(at->first);
                }
            }
        }
        present.resize(std::min(present.size(), limit));
        ASSERT_EQ(range(start, end, limit), present);
        for (const PageTag tag : kTags) {
            marked[tag].resize(std::min(marked[tag].size(), limit));
            ASSERT_EQ(range_tag(start, end, tag, limit), marked[tag]);
        }
    }
    void compare_all() {
        tree_.assert_consistent();
        ASSERT_EQ(tree_.nr_pages(), model_.size());
        for (const PageTag tag : kTags) {
            const bool any = std::any_of(model_.begin(), model_.end(),
                                         [tag](const auto& at) { return at.second.tags[tag]; });
            ASSERT_EQ(tree_.tagged(tag), any);
        }
        for (const auto& [index, expected] : model_) {
            Page* page = tree_.find_get(index);
            ASSERT_EQ(page, expected.page);
            put_page(*page);
            ASSERT_EQ(page->refcount.load(), 1);
            for (const PageTag tag : kTags) {
                ASSERT_EQ(get_tag(index, tag), expected.tags[tag]) << index;
            }
        }
    }

    Model model_;
    std::mt19937_64 engine_{GetParam()};
};

TEST_P(PageIndexModelTest, AgreesWithAMapAfterEveryOperation) {
    for (int i = 0; i < 20000; ++i) {
        ASSERT_NO_FATAL_FAILURE(step()) << "seed " << GetParam() << " operation " << i;
        if (i % 500 == 0) {
            ASSERT_NO_FATAL_FAILURE(compare_all()) << "seed " << GetParam() << " operation " << i;
        }
    }
    ASSERT_NO_FATAL_FAILURE(compare_all());
    while (!model_.empty()) {
        erase(model_.begin()->first);
        model_.erase(model_.begin());
    }
    compare_all();
}

INSTANTIATE_TEST_SUITE_P(Seeds, PageIndexModelTest, ::testing::Values(1, 2, 3, 4));

TEST_F(PageIndexTest, LookupsRaceWithInsertionsAndMarksWithoutHarm) {
    constexpr pgoff_t kPages = 2000;
    std::deque<Page> pages(kPages);
    sync::Atomic<bool> done{false};
    std::uint64_t found = 0;
    {
        sync::Thread reader("reader", sync::Role::kOther, [this, &done, &found] {
            std::array<Page*, 16> out;
            bool last_round = false;
            while (!last_round) {
                last_round = done.load();
                const std::size_t nr =
                    tree_.find_get_range_tag(0, kLastIndex, PAGECACHE_TAG_DIRTY, out);
                for (std::size_t i = 0; i < nr; ++i) {
                    put_page(*out[i]);
                }
                found += nr;
            }
        });
        for (pgoff_t index = 0; index < kPages; ++index) {
            pages[index].index = index;
            pages[index].refcount.store(1);
            bool out_of_memory = false;
            const sync::SpinLockGuard guard(tree_.lock());
            ASSERT_TRUE(tree_.insert_locked(index, pages[index], out_of_memory));
            tree_.set_tag_locked(index, PAGECACHE_TAG_DIRTY);
        }
        done.store(true);
    }
    EXPECT_GE(found, 16U);
    for (pgoff_t index = 0; index < kPages; ++index) {
        ASSERT_EQ(pages[index].refcount.load(), 1);
        erase(index);
    }
}

TEST_F(PageIndexTest, ASampleTellsOfEveryPageAtEveryLevel) {
    std::mt19937_64 random(7);
    std::map<pgoff_t, std::array<bool, 2>> model;
    for (int i = 0; i < 300; ++i) {
        // Clusters of neighbours, near and far.
        const pgoff_t index = (random() % 4) * 70'000 + (random() % 3) * 5000 + random() % 200;
        if (!insert(index)) {
            continue;
        }
        const std::array<bool, 2> marks{random() % 3 == 0, random() % 5 == 0};
        model[index] = marks;
        if (marks[0]) {
            set_tag(index, PAGECACHE_TAG_DIRTY);
        }
        if (marks[1]) {
            set_tag(index, PAGECACHE_TAG_WRITEBACK);
        }
    }
    for (unsigned level = 0; level <= 4; ++level) {
        std::map<std::uint64_t, PageIndexWord> expected;
        for (const auto& [index, marks] : model) {
            const pgoff_t cell = index >> (6 * level);
            PageIndexWord& word = expected[cell / 64];
            const std::uint64_t bit = std::uint64_t{1} << (cell % 64);
            word.number = cell / 64;
            word.present |= bit;
            word.dirty |= marks[0] ? bit : 0;
            word.writeback |= marks[1] ? bit : 0;
        }
        std::vector<PageIndexWord> words;
        for (const auto& [number, word] : expected) {
            words.push_back(word);
        }
        std::vector<PageIndexWord> sampled;
        tree_.sample(level, sampled);
        EXPECT_EQ(sampled, words) << "level " << level;
    }
    for (const auto& [index, marks] : model) {
        erase(index);
    }
    std::vector<PageIndexWord> none;
    tree_.sample(0, none);
    EXPECT_TRUE(none.empty());
}

TEST_F(PageIndexTest, ASampleOfPagesTellsWhichMarkedOnesAreLockedOrWaitedFor) {
    for (const pgoff_t index : {0U, 1U, 2U, 3U}) {
        ASSERT_TRUE(insert(index));
        pages_[index].flags.fetch_or(PG_locked);
    }
    set_tag(1, PAGECACHE_TAG_DIRTY);
    set_tag(2, PAGECACHE_TAG_WRITEBACK);
    pages_[2].flags.fetch_or(PG_waiters);
    std::vector<PageIndexWord> words;
    tree_.sample(0, words);
    ASSERT_EQ(words.size(), 1U);
    EXPECT_EQ(words[0].locked, 0b0110U);
    EXPECT_EQ(words[0].waited_for, 0b0100U);
    for (const pgoff_t index : {0U, 1U, 2U, 3U}) {
        pages_[index].flags.store(0);
        erase(index);
    }
}

TEST(PageIndexDeathTest, RefusesToEraseAnEmptySlot) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    PageIndex tree;
    const sync::SpinLockGuard guard(tree.lock());
    EXPECT_DEATH(tree.erase_locked(4), "X4");
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
