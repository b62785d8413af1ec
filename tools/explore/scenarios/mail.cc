// The mail: a wake-up that belongs to an earlier writeback of the same page.
//
//   CPU1 ends the first writeback of the page. CPU2 writes the page again as soon as that has
//   ended, and dirties it once more while the second write is in flight. CPU3 is an integrity
//   writer: it waits for the page under the page lock, and asserts that it is not under writeback.
//   IO ends what CPU2 started. On a mount CPU2 is a file that grows and is synced (`wbfat-lab
//   mail`), so it passes the point that such a request passes.
//
// With lock_contention=0 CPU3 comes after CPU2 has unlocked the page, as in the mail, so that
// nobody ever waits for the page lock. With 1 it may come at any time; a sleeper for the page lock
// sets PG_waiters too, which is a second way to the same end. With writer=0 CPU3 does no more than
// wait and assert.
//
// Source: Linux c2407cf7d22d; writeback-protocol.md 9.1 and 13.
#include "cache/page_lock.h"

#include "tools/explore/scenarios/catalogue.h"
#include "tools/explore/scenarios/second_writeback.h"

namespace wbfat::explore {

namespace {

class Mail final : public SecondWriteback {
public:
    explicit Mail(const Parameters& parameters)
        : extra_writers_(parameters["cpus"] - 3),
          lock_contention_(parameters["lock_contention"] != 0),
          is_writer_(parameters["writer"] != 0) {}

    void set_up() override {
        make_cache();
        add_page(0, Start::kWritebackAndDirty);
        task("CPU1", sync::Role::kCompletion, "ends the first writeback",
             [this] { cache::end_page_writeback(page()); });
        begun_.unpark();
        task("CPU2", sync::Role::kRequest, "starts the second writeback", [this] {
            begun_.park();
            WBFAT_POINT("sync_expansion:written");
            write_again();
        });
        task("CPU3", sync::Role::kSyncWriter, "writes and waits for integrity", [this] {
            if (!lock_contention_) {
                unlocked_.park();
            }
            if (is_writer_) {
                write_pages(cache::WB_SYNC_ALL);
            } else {
                wait_under_lock(page());
            }
        });
        add_io_task();
        for (unsigned i = 0; i < extra_writers_; ++i) {
            task("CPU" + std::to_string(4 + i), sync::Role::kSyncWriter,
                 "writes and waits for integrity too", [this] { write_pages(cache::WB_SYNC_ALL); });
        }
    }

private:
    const unsigned extra_writers_;
    const bool lock_contention_, is_writer_;
    sync::Parker begun_;
};

}  // namespace

ScenarioEntry mail_scenario() {
    return {
        .info = {.name = "mail",
                 .summary = "a late wake-up of the first writeback meets the second",
                 .parameters = {{"cpus", "with one more integrity writer each beyond 3", 3, 3, 6},
                                {"lock_contention", "whether CPU3 may wait for the page lock", 0, 0,
                                 1},
                                {"writer", "whether CPU3 writes what it waited for", 1, 0, 1}},
                 .is_big = false},
        .make = &make<Mail>};
}

}  // namespace wbfat::explore
