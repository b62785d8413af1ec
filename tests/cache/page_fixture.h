// A cache with one mapping and no device worth the name, for tests of single pages.
//
// Nothing writes back behind the test's back: the periodic flusher is off, and the mapping's owner
// answers a kick by calling `on_writepages`, which does nothing unless a test sets it.
#pragma once

#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "cache/address_space.h"
#include "cache/base/check.h"
#include "cache/counters.h"
#include "cache/device/block_device.h"
#include "cache/flusher.h"
#include "cache/page_cache.h"
#include "cache/page_frames.h"
#include "cache/page_lock.h"
#include "cache/sync/points.h"
#include "cache/writeback.h"

namespace wbfat::cache::inline WBFAT_RT {

class NoDevice final : public BlockDevice {
public:
    const DeviceGeometry& geometry() const override {
        return geometry_;
    }
    const std::string& name() const override {
        return name_;
    }
    void submit(Bio& bio) override {
        bio.error = EIO;
        bio.end_io(bio);
    }
    Result<> flush() override {
        return {};
    }
    Result<> discard(std::uint64_t, std::uint64_t) override {
        return Errno{EOPNOTSUPP};
    }

private:
    DeviceGeometry geometry_;
    std::string name_ = "none";
};

class PassiveOps final : public AddressSpaceOps {
public:
    Result<MappedExtent> map_blocks(AddressSpace&, std::uint64_t, std::uint64_t) override {
        return Errno{EIO};
    }
    Result<> writepages(AddressSpace& mapping, WritebackControl&) override {
        if (on_writepages) {
            on_writepages(mapping);
        }
        return {};
    }
    Result<> write_inode(AddressSpace&, const WritebackControl&) override {
        return {};
    }
    bool grab_inode(AddressSpace&) override {
        return true;
    }
    void drop_inode(AddressSpace&) override {}

    std::function<void(AddressSpace&)> on_writepages;
};

class PageTest : public ::testing::Test {
protected:
    PageTest() {
        PageCacheOptions options;
        options.cache_size_bytes = 1U << 20;  // the least: 256 frames
        options.dirty_writeback_centisecs = 0;
        cache_ = PageCache::create(options).value();
        mapping_ = std::make_unique<AddressSpace>(*cache_, device_, ops_,
                                                  AddressSpace::StablePages::kYes, "subject");
    }
    ~PageTest() override {
        sync::reset_point_hits();
        remove_all();
        cache_->flusher().forget(*mapping_);
        mapping_.reset();
    }

    PageFrames& frames() {
        return cache_->frames();
    }
    PageCache::Counters& counters() {
        return cache_->counters();
    }

    // A new page at `index`: in the mapping and on the LRU, uptodate, unlocked; only the index
    // refers to it.
    Page& add_page(pgoff_t index) {
        Page& page = *frames().alloc().value();
        page.flags.fetch_or(PG_uptodate);
        insert(page, index);
        frames().lru_add(page);
        return page;
    }
    void insert(Page& page, pgoff_t index) {
        page.index = index;
        page.mapping.store(mapping_.get());
        bool out_of_memory = false;
        const sync::SpinLockGuard guard(mapping_->i_pages.lock());
        ASSERT_TRUE(mapping_->i_pages.insert_locked(index, page, out_of_memory));
    }
    // What truncation does to a locked page that is not under writeback. The index's reference is
    // dropped.
    void remove_locked_page(Page& page)
        NO_THREAD_SAFETY_ANALYSIS {  // its callers cross the lock between threads
        cancel_dirty_page(page);
        {
            const sync::SpinLockGuard guard(mapping_->i_pages.lock());
            mapping_->i_pages.erase_locked(page.index);
            page.mapping.store(nullptr);
        }
        frames().lru_remove(page);
        unlock_page(page);
        put_page(page);
    }
    void remove_all() NO_THREAD_SAFETY_ANALYSIS {  // pages a test left locked stay so until here
        for (;;) {
            Page* page = nullptr;
            if (mapping_->i_pages.find_get_range(0, ~pgoff_t{0}, {&page, 1}) == 0) {
                return;
            }
            if (page_test(*page, PG_writeback)) {
                end_page_writeback(*page);
            }
            if (!page_test(*page, PG_locked)) {
                lock_page(*page);
            }
            assert_page_locked(*page);
            remove_locked_page(*page);
            put_page(*page);
        }
    }
    bool tagged(const Page& page, PageTag tag) {
        const sync::SpinLockGuard guard(mapping_->i_pages.lock());
        return mapping_->i_pages.get_tag_locked(page.index, tag);
    }
    void dirty(Page& page, BlockMask blocks = kAllBlocks) {
        lock_page(page);
        set_page_dirty(page, blocks);
        unlock_page(page);
    }
    // Takes a clean or dirty page into writeback, as a writer does.
    void start_writeback(Page& page) {
        lock_page(page);
        clear_page_dirty_for_io(page);
        set_page_writeback(page);
        unlock_page(page);
    }

    NoDevice device_;
    PassiveOps ops_;
    std::unique_ptr<PageCache> cache_;
    std::unique_ptr<AddressSpace> mapping_;
};

// How often `point` was passed since reset_point_hits().
inline std::uint64_t hits(const std::string& point) {
    const auto all = sync::point_hits();
    const auto found = all.find(point);
    return found == all.end() ? 0 : found->second;
}

// A rule for one named task.
inline sync::PointRule only(std::string task, std::uint64_t count = UINT64_MAX) {
    sync::PointRule rule;
    rule.task = std::move(task);
    rule.count = count;
    return rule;
}

}  // namespace wbfat::cache::inline WBFAT_RT
