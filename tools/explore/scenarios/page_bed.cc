// A cache with one mapping and a few pages.
#include "tools/explore/scenarios/page_bed.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <utility>

#include "cache/assertions.h"
#include "cache/base/check.h"
#include "cache/filemap.h"
#include "cache/flusher.h"
#include "cache/mark_check.h"
#include "cache/page_frames.h"
#include "cache/page_lock.h"
#include "cache/protocol.h"
#include "cache/sync/scheduler.h"

namespace wbfat::explore {

using cache::AddressSpace;
using cache::Page;

class PageBed::NoDevice final : public cache::BlockDevice {
public:
    const cache::DeviceGeometry& geometry() const override {
        return geometry_;
    }
    const std::string& name() const override {
        return name_;
    }
    void submit(cache::Bio& bio) override {
        bio.complete(EIO);
    }
    wbfat::Result<> flush() override {
        return {};
    }
    wbfat::Result<> discard(std::uint64_t, std::uint64_t) override {
        return Errno{EOPNOTSUPP};
    }

private:
    cache::DeviceGeometry geometry_;
    std::string name_ = "none";
};

class PageBed::Owner final : public cache::AddressSpaceOps {
public:
    explicit Owner(bool has_device) : has_device_(has_device) {}

    wbfat::Result<cache::MappedExtent> map_blocks(AddressSpace&, std::uint64_t offset_bytes,
                                                  std::uint64_t length_bytes) override {
        if (!has_device_) {
            return Errno{EIO};
        }
        return cache::MappedExtent{offset_bytes, length_bytes};
    }
    wbfat::Result<> writepages(AddressSpace& mapping, cache::WritebackControl& wbc) override {
        return has_device_ ? cache::mpage_writepages(mapping, wbc) : wbfat::Result<>();
    }
    wbfat::Result<> write_inode(AddressSpace&, const cache::WritebackControl&) override {
        return {};
    }
    bool grab_inode(AddressSpace&) override {
        return true;
    }
    void drop_inode(AddressSpace&) override {}

private:
    const bool has_device_;
};

PageBed::PageBed() = default;

PageBed::~PageBed() {
    // Taken down by the functions that are looked at: one that frees pages in a bad state has been
    // told of by now.
    cache::set_assertion(cache::Assertion::kFreeState, cache::AssertionState::kOff);
    for (Page* page : pages_) {
        if (cache::page_test(*page, cache::PG_writeback)) {
            cache::end_page_writeback(*page);
        }
    }
    if (mapping_ != nullptr) {
        cache_->flusher().forget(*mapping_);
        cache::truncate_pagecache(*mapping_, 0);
    }
    mapping_.reset();
    cache_.reset();
    cache::set_assertion(cache::Assertion::kFreeState, cache::AssertionState::kBug);
}

void PageBed::make_cache(std::unique_ptr<cache::BlockDevice> device) {
    cache::PageCacheOptions options;
    options.cache_size_bytes = 1U << 20;
    options.dirty_writeback_centisecs = 0;
    cache_ = cache::PageCache::create(options).value();
    owner_ = std::make_unique<Owner>(device != nullptr);
    device_ = device != nullptr ? std::move(device) : std::make_unique<NoDevice>();
    mapping_ = std::make_unique<AddressSpace>(*cache_, *device_, *owner_,
                                              AddressSpace::StablePages::kNo, "file");
    mapping_->i_size_write(1U << 20);
}

Page& PageBed::add_page(cache::pgoff_t index, Start start) {
    Page& page = *cache_->frames().alloc().value();
    page.index = index;
    page.flags.set(cache::PG_uptodate);
    page.mapping.store(mapping_.get());
    {
        bool out_of_memory = false;
        const sync::SpinLockGuard guard(mapping_->i_pages.lock());
        mapping_->i_pages.insert_locked(index, page, out_of_memory);
    }
    cache_->frames().lru_add(page);
    cache::lock_page(page);
    if (start != Start::kClean) {
        cache::set_page_dirty(page);
    }
    if (start == Start::kWriteback || start == Start::kWritebackAndDirty) {
        cache::prepare_page_writeback(page);
        cache::clear_page_dirty_for_io(page);
        cache::set_page_writeback(page);
    }
    if (start == Start::kWritebackAndDirty) {
        cache::set_page_dirty(page);
    }
    cache::unlock_page(page);
    pages_.push_back(&page);
    return page;
}

int PageBed::task(std::string name, sync::Role role, std::string purpose,
                  std::function<void()> body) {
    return sync::sched::scheduler().add_task(std::move(name), role, std::move(purpose),
                                             std::move(body));
}

bool PageBed::start_writeback_and_redirty(Page& page) {
    if (!cache::try_prepare_page_writeback(page)) {
        return false;
    }
    if (cache::clear_page_dirty_for_io(page) == 0) {
        // A bit that came with the question has to be given back.
        const bool is_ours = cache::current_protocol().set == cache::SetWriteback::kWithWait;
        if (is_ours) {
            cache::set_page_writeback(page);
        }
        return is_ours;
    }
    cache::set_page_writeback(page);
    cache::set_page_dirty(page);
    return true;
}

void PageBed::wait_under_lock(Page& page) {
    cache::lock_page(page);
    cache::prepare_page_writeback(page);
    const bool is_ours = cache::current_protocol().set == cache::SetWriteback::kWithWait;
    PAGE_ASSERT(page, cache::Assertion::kBugOnWriteback,
                cache::page_test(page, cache::PG_writeback) == is_ours,
                "PageWriteback after the wait under the page lock");
    if (is_ours) {
        cache::set_page_writeback(page);
    }
    cache::unlock_page(page);
    if (is_ours) {
        cache::end_page_writeback(page);
    }
}

wbfat::Result<> PageBed::write_at_once(Page& page,
                                       cache::BlockMask) NO_THREAD_SAFETY_ANALYSIS {  // as a walk's
    cache::set_page_writeback(page);
    cache::unlock_page(page);
    cache::end_page_writeback(page);
    return {};
}

void PageBed::write_pages(cache::SyncMode mode, const cache::WritePage& writepage) {
    cache::WritebackControl wbc;
    wbc.sync_mode = mode;
    static_cast<void>(cache::write_cache_pages(*mapping_, wbc, writepage));
}

std::string PageBed::marks_of(const Page& page) {
    if (page.mapping.load() == nullptr) {
        return {};
    }
    std::string text;
    const sync::SpinLockGuard guard(mapping_->i_pages.lock());
    for (const auto& [mark, letter] : {std::pair{cache::PAGECACHE_TAG_DIRTY, " D"},
                                       std::pair{cache::PAGECACHE_TAG_WRITEBACK, " W"},
                                       std::pair{cache::PAGECACHE_TAG_TOWRITE, " T"}}) {
        if (mapping_->i_pages.get_tag_locked(page.index, mark)) {
            text += letter;
        }
    }
    return text;
}

void PageBed::assert_at_end() {
    constexpr std::array kOfMarks{cache::Assertion::kWritebackMark, cache::Assertion::kDirtyMark};
    for (const cache::Assertion id : kOfMarks) {
        cache::set_assertion(id, cache::AssertionState::kBug);
    }
    cache::check_marks(*mapping_, 0, pages_.size());
    for (const cache::Assertion id : kOfMarks) {
        cache::set_assertion(id, cache::AssertionState::kOff);
    }
}

std::string PageBed::outcome() {
    std::string text;
    for (const Page* page : pages_) {
        text +=
            fmt::format("[{:#x} refs {}{}]", page->flags.load() & ~std::uint64_t{cache::PG_waiters},
                        page->refcount.load(), marks_of(*page));
    }
    return text;
}

std::vector<ObservedPage> PageBed::pages() {
    std::vector<ObservedPage> all;
    for (std::size_t i = 0; i < pages_.size(); ++i) {
        all.push_back({pages_.size() == 1 ? std::string("P") : fmt::format("P{}", i), pages_[i]});
    }
    return all;
}

std::vector<NamedObject> PageBed::objects() {
    std::vector<NamedObject> all;
    for (const ObservedPage& it : pages()) {
        all.push_back({&it.page->flags, sizeof(it.page->flags), it.name + ".flags"});
        all.push_back({&it.page->refcount, sizeof(it.page->refcount), it.name + ".refcount"});
        all.push_back({&it.page->mapping, sizeof(it.page->mapping), it.name + ".mapping"});
    }
    all.push_back({&mapping_->i_pages.lock(), sizeof(sync::SpinLock), "i_pages lock"});
    return all;
}

}  // namespace wbfat::explore
