// The page's second writeback, as the mail has it: one task starts it, and dirties the page once
// more while it is in flight; another ends it.
#pragma once

#include "cache/page_lock.h"

#include "tools/explore/scenarios/page_bed.h"

namespace wbfat::explore {

class SecondWriteback : public PageBed {
protected:
    void write_again() {
        cache::lock_page(page());
        started_ = start_writeback_and_redirty(page());
        cache::unlock_page(page());
        submitted_.unpark();
        unlocked_.unpark();
    }
    void add_io_task() {
        task("IO", sync::Role::kCompletion, "ends the second writeback", [this] {
            submitted_.park();
            if (started_) {
                cache::end_page_writeback(page());
            }
        });
    }

    sync::Parker unlocked_;  // the page, by write_again

private:
    bool started_ = false;
    sync::Parker submitted_;
};

}  // namespace wbfat::explore
