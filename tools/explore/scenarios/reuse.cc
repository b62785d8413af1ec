// A page leaves its file, and its frame becomes another page's, while its writeback ends.
//
//   CPU1 ends the writeback. CPU2 truncates the file and takes a frame for something else: the one
//   that was just freed, as frames are used again at once.
//
// What keeps the page alive under CPU1 is PG_writeback, until CPU1 clears it. With written=1 the
// frame is that of a page which CPU2 writes at once and waits for, and IO ends that: a late wake-up
// by CPU1 would be taken for one by IO.
//
// Source: Linux 073861ed77b6; writeback-protocol.md 6.
#include "cache/filemap.h"
#include "cache/page_frames.h"
#include "cache/page_lock.h"

#include "tools/explore/scenarios/catalogue.h"
#include "tools/explore/scenarios/page_bed.h"

namespace wbfat::explore {

namespace {

class PageReuse final : public PageBed {
public:
    explicit PageReuse(const Parameters& parameters) : is_written_(parameters["written"] != 0) {}

    void set_up() override {
        make_cache();
        add_page(0, Start::kWriteback);
        task("CPU1", sync::Role::kCompletion, "ends the writeback",
             [this] { cache::end_page_writeback(page()); });
        task("CPU2", sync::Role::kRequest, "truncates the file and uses the frame again", [this] {
            cache::truncate_pagecache(mapping(), 0);
            if (is_written_) {
                write_new_page();
            } else {
                taken_ = cache().frames().alloc().value();
            }
        });
        if (is_written_) {
            task("IO", sync::Role::kCompletion, "ends the writeback of the new page", [this] {
                submitted_.park();
                cache::end_page_writeback(*taken_);
            });
        }
    }

private:
    void write_new_page() {
        taken_ = &add_page(1, Start::kWritebackAndDirty);
        submitted_.unpark();
        write_pages(cache::WB_SYNC_ALL);
    }

    const bool is_written_;
    cache::Page* taken_ = nullptr;
    sync::Parker submitted_;
};

}  // namespace

ScenarioEntry page_reuse_scenario() {
    return {.info = {.name = "page-reuse",
                     .summary = "a page is truncated and its frame used again while its write ends",
                     .parameters = {{"written", "whether the new page is written", 0, 0, 1}},
                     .is_big = false},
            .make = &make<PageReuse>};
}

}  // namespace wbfat::explore
