// A page leaves its file, and its frame becomes another page's, while its writeback ends.
//
//   CPU1 ends the writeback. CPU2 truncates the file and takes a frame for something else: the one
//   that was just freed, as frames are used again at once.
//
// What keeps the page alive under CPU1 is PG_writeback, until CPU1 clears it.
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
    void set_up() override {
        make_cache();
        add_page(0, Start::kWriteback);
        task("CPU1", sync::Role::kCompletion, "ends the writeback",
             [this] { cache::end_page_writeback(page()); });
        task("CPU2", sync::Role::kRequest, "truncates the file and uses the frame again", [this] {
            cache::truncate_pagecache(mapping(), 0);
            const auto frame = cache().frames().alloc();
            taken_ = frame.has_value() ? *frame : nullptr;
        });
    }
    std::string check() override {
        return taken_ != nullptr ? "" : "there was no frame to be had";
    }

private:
    cache::Page* taken_ = nullptr;
};

}  // namespace

ScenarioEntry page_reuse_scenario() {
    return {.info = {.name = "page-reuse",
                     .summary = "a page is truncated and its frame used again while its write ends",
                     .parameters = {},
                     .is_big = false},
            .make = [](const Parameters&) -> std::unique_ptr<Scenario> {
                return std::make_unique<PageReuse>();
            }};
}

}  // namespace wbfat::explore
