// Reclaim against writeback: a page may go once it is on the disk, unless it was written to again.
//
//   CPU1 ends the writeback of the page. CPU2 wants a frame, and this page is the only one that can
//   be had. CPU3 writes into the page if it finds it.
//
// With pressure=0 CPU2 reclaims as it passes; with 1 every other frame is taken and it sleeps until
// it has one. Then CPU3 leaves the page alone: nothing would ever clean it.
//
// Source: Linux mm/vmscan.c __remove_mapping; writeback-protocol.md 12.2.
#include <vector>

#include "cache/page_cache.h"
#include "cache/page_frames.h"
#include "cache/page_lock.h"

#include "tools/explore/scenarios/catalogue.h"
#include "tools/explore/scenarios/page_bed.h"

namespace wbfat::explore {

namespace {

class Reclaim final : public PageBed {
public:
    explicit Reclaim(const Parameters& parameters) : pressure_(parameters["pressure"] != 0) {}
    ~Reclaim() override {
        for (cache::Page* page : taken_) {
            cache::put_page(*page);
        }
    }

    void set_up() override {
        make_cache();
        add_page(0, Start::kWriteback);
        task("CPU1", sync::Role::kCompletion, "ends the writeback",
             [this] { cache::end_page_writeback(page()); });
        if (pressure_) {
            take_all_frames();
            task("CPU2", sync::Role::kRequest, "allocates a frame",
                 [this] { cache::put_page(*cache().frames().alloc().value()); });
            return;
        }
        task("CPU2", sync::Role::kRequest, "reclaims a page",
             [this] { nr_freed_ = cache().frames().reclaim(1); });
        task("CPU3", sync::Role::kRequest, "writes into the page", [this] { write_if_there(); });
    }
    std::string check() override {
        if (was_written_ &&
            (mapping().i_pages.nr_pages() == 0 || !cache::page_test(page(), cache::PG_dirty))) {
            return "a page was reclaimed, and what was written into it is lost";
        }
        if (nr_freed_ != 1 - mapping().i_pages.nr_pages() && !pressure_) {
            return "reclaim freed another number of pages than it says";
        }
        return {};
    }

private:
    void take_all_frames() {
        while (cache().frames().nr_free() > 0) {
            taken_.push_back(cache().frames().alloc().value());
        }
    }
    // As write_begin and write_end do.
    void write_if_there() {
        cache::Page* const it = mapping().i_pages.find_get(0);
        if (it == nullptr) {
            return;
        }
        cache::lock_page(*it);
        if (it->mapping.load() == &mapping()) {
            was_written_ = true;
            cache::set_page_dirty(*it);
        }
        cache::unlock_page(*it);
        cache::put_page(*it);
    }

    const bool pressure_;
    bool was_written_ = false;
    std::uint64_t nr_freed_ = 0;
    std::vector<cache::Page*> taken_;
};

}  // namespace

ScenarioEntry reclaim_scenario() {
    return {.info = {.name = "reclaim",
                     .summary = "a page is reclaimed as soon as it is written, unless written to",
                     .parameters = {{"pressure", "whether it is the last frame", 0, 0, 1}},
                     .is_big = false},
            .make = &make<Reclaim>};
}

}  // namespace wbfat::explore
