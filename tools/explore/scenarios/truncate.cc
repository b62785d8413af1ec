// Truncation against writeback: a page is cut off while it is written, and written again.
//
//   CPU1 ends the first writeback of the page. CPU2 is an integrity writer and starts the second,
//   which IO ends. CPU3 truncates: it waits for the page under the page lock, and asserts that no
//   page under writeback leaves its mapping. What comes after is the freeing of its blocks, so a
//   wait that is fooled lets a write go to blocks that are another file's.
//
// It is the mail with a truncater for its integrity writer. With race=0 CPU2 writes this page
// alone, as sync_dirty_blocks does, and CPU3 comes after that has unlocked it. With 1 CPU2 walks
// over the mapping and CPU3 may come at any time, which makes more states than a matrix has time
// for. The page is referenced by somebody else all the time, so that the answer is not that of
// `page-reuse`.
//
// Source: Linux mm/truncate.c truncate_inode_pages_range; writeback-protocol.md 12.1.
#include "cache/filemap.h"
#include "cache/page_cache.h"
#include "cache/page_lock.h"

#include "tools/explore/scenarios/catalogue.h"
#include "tools/explore/scenarios/page_bed.h"

namespace wbfat::explore {

namespace {

class Truncate final : public PageBed {
public:
    explicit Truncate(const Parameters& parameters)
        : kept_(parameters["kept"]),
          is_referenced_(parameters["referenced"] != 0),
          is_first_(parameters["first"] != 0),
          is_race_(parameters["race"] != 0) {}
    ~Truncate() override {
        if (cut_ != nullptr && is_referenced_) {
            cache::put_page(*cut_);
        }
    }

    void set_up() override {
        make_cache();
        for (unsigned i = 0; i < kept_; ++i) {
            add_page(i, Start::kDirty);
        }
        cut_ = &add_page(kept_, is_first_ ? Start::kWritebackAndDirty : Start::kDirty);
        if (is_referenced_) {
            cache::get_page(*cut_);
        }
        if (is_first_) {
            task("CPU1", sync::Role::kCompletion, "ends the first writeback",
                 [this] { cache::end_page_writeback(*cut_); });
        }
        task("CPU2", sync::Role::kSyncWriter, "writes for integrity", [this] {
            if (is_race_) {
                walk();
            } else {
                write_one();
            }
            submitted_.unpark();
        });
        task("CPU3", sync::Role::kRequest, "truncates the file", [this] {
            if (!is_race_) {
                unlocked_.park();
            }
            cache::truncate_setsize(mapping(), kept_ * cache::kPageSize);
        });
        task("IO", sync::Role::kCompletion, "ends the second writeback", [this] {
            submitted_.park();
            if (started_) {
                cache::end_page_writeback(*cut_);
            }
        });
    }
    std::string check() override {
        if (mapping().i_pages.nr_pages() != kept_) {
            return "the mapping does not hold the pages that were kept, and those alone";
        }
        const cache::PageCacheStats stats = cache().stats();
        if (stats.nr_dirty != (is_race_ ? 0 : kept_) || stats.nr_writeback != 0) {
            return "a page was kept and not written, or cut off and is still counted";
        }
        return {};
    }

private:
    void walk() {
        write_pages(cache::WB_SYNC_ALL, [this](cache::Page& it, cache::BlockMask dirty) {
            return &it == cut_ ? submit(it) : write_at_once(it, dirty);
        });
    }
    void write_one() NO_THREAD_SAFETY_ANALYSIS {  // submit() unlocks
        cache::lock_page(*cut_);
        cache::prepare_page_writeback(*cut_);
        cache::clear_page_dirty_for_io(*cut_);
        static_cast<void>(submit(*cut_));
    }
    // The walk has locked the page, which the analysis cannot see through a WritePage.
    wbfat::Result<> submit(cache::Page& it) NO_THREAD_SAFETY_ANALYSIS {
        cache::set_page_writeback(it);
        started_ = true;
        cache::unlock_page(it);
        submitted_.unpark();
        unlocked_.unpark();
        return {};
    }

    const unsigned kept_;
    const bool is_referenced_, is_first_, is_race_;
    cache::Page* cut_ = nullptr;
    bool started_ = false;
    sync::Parker submitted_, unlocked_;
};

}  // namespace

ScenarioEntry truncate_scenario() {
    return {
        .info = {.name = "truncate",
                 .summary = "a page is cut off while an integrity writer writes it again",
                 .parameters = {{"kept", "dirty pages before it, which stay", 0, 0, 2},
                                {"referenced", "whether somebody holds the page", 1, 0, 1},
                                {"first", "whether the page is under writeback already", 1, 0, 1},
                                {"race", "whether CPU3 may be first", 0, 0, 1}},
                 .is_big = false},
        .make = &make<Truncate>};
}

}  // namespace wbfat::explore
