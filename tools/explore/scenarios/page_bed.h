// A cache with one mapping and a few pages, for scenarios of the page protocol.
//
// Without a device what a scenario calls I/O is a task of its own that ends a page's writeback. The
// flusher's thread is there and asleep; nothing wakes it as the limits are never reached.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cache/address_space.h"
#include "cache/device/block_device.h"
#include "cache/page_cache.h"
#include "cache/writeback.h"

#include "tools/explore/scenario.h"

namespace wbfat::explore {

class PageBed : public Scenario {
public:
    PageBed();
    ~PageBed() override;

    // The marks of the index say what the pages say.
    void assert_at_end() override;
    std::string outcome() override;
    std::vector<ObservedPage> pages() override;
    std::vector<NamedObject> objects() override;

protected:
    // How a page is when the run starts.
    enum class Start : std::uint8_t { kClean, kDirty, kWriteback, kWritebackAndDirty };

    // With a device the mapping's bytes lie on it as they lie in the file, and are written by
    // mpage_writepages; its Bios end before the scenario does.
    void make_cache(std::unique_ptr<cache::BlockDevice> device = nullptr);
    cache::Page& add_page(cache::pgoff_t index, Start start);
    int task(std::string name, sync::Role role, std::string purpose, std::function<void()> body);

    // As a background writer does, and somebody writes into the page at once. False if it is under
    // writeback already or clean. Whoever is told true ends the writeback.
    static bool start_writeback_and_redirty(cache::Page& page) REQUIRES(page);
    // What an integrity writer does before it writes a page: waits for it under the page lock, and
    // asserts that nobody writes it.
    static void wait_under_lock(cache::Page& page);
    // As mpage_writepages writes, with an I/O that ends at once.
    static wbfat::Result<> write_at_once(cache::Page& page, cache::BlockMask dirty);
    // write_cache_pages over the whole mapping.
    void write_pages(cache::SyncMode mode, const cache::WritePage& writepage = write_at_once);

    cache::PageCache& cache() {
        return *cache_;
    }
    cache::AddressSpace& mapping() {
        return *mapping_;
    }
    cache::Page& page(std::size_t n = 0) {
        return *pages_[n];
    }

private:
    std::string marks_of(const cache::Page& page);

    class NoDevice;
    class Owner;
    std::unique_ptr<cache::BlockDevice> device_;
    std::unique_ptr<Owner> owner_;
    std::unique_ptr<cache::PageCache> cache_;
    std::unique_ptr<cache::AddressSpace> mapping_;
    std::vector<cache::Page*> pages_;
};

}  // namespace wbfat::explore
