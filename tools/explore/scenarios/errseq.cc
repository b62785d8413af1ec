// Errors seen once: a write fails while every opener of the file calls fsync, more than once.
//
// Each opener hears of the failure exactly once, whoever else has heard of it, and whoever opens
// the file after that hears nothing. That rests on an order: the error is recorded before the
// writeback ends. With late_error=1 it is not, and an fsync that comes between reports success.
//
// Source: Linux lib/errseq.c; writeback-protocol.md 10.12.
#include <algorithm>
#include <cerrno>
#include <span>

#include "cache/filemap.h"
#include "cache/page_lock.h"

#include "tools/explore/scenarios/catalogue.h"
#include "tools/explore/scenarios/page_bed.h"

namespace wbfat::explore {

namespace {

class SeenOnce final : public PageBed {
public:
    explicit SeenOnce(const Parameters& parameters)
        : nr_openers_(parameters["openers"]),
          nr_fsyncs_(parameters["fsyncs"]),
          is_late_(parameters["late_error"] != 0) {}

    void set_up() override {
        make_cache();
        add_page(0, Start::kWriteback);
        for (unsigned i = 0; i < nr_openers_; ++i) {
            openers_[i].cursor = mapping().wb_err.sample();
            task("CPU" + std::to_string(1 + i), sync::Role::kSyncWriter, "fsync",
                 [this, &opener = openers_[i]] { sync_all(opener); });
        }
        task("IO", sync::Role::kCompletion, "fails to write the page", [this] {
            if (!is_late_) {
                cache::mapping_set_error(mapping(), EIO);
            }
            cache::end_page_writeback(page());
            if (is_late_) {
                cache::mapping_set_error(mapping(), EIO);
            }
        });
    }
    std::string check() override {
        for (const Opener& opener : std::span(openers_).first(nr_openers_)) {
            if (opener.nr_errors != 1) {
                return opener.nr_errors == 0 ? "an opener's fsync hid that a write had failed"
                                             : "an opener was told twice of one failed write";
            }
        }
        return mapping().wb_err.check(mapping().wb_err.sample()) == 0
                   ? ""
                   : "a later opener is told of an error that was reported";
    }

private:
    static constexpr unsigned kMaxOpeners = 3;
    struct Opener {
        cache::ErrSeq::Cursor cursor = 0;
        unsigned nr_errors = 0;
    };

    void sync_all(Opener& opener) {
        for (unsigned n = 0; n < nr_fsyncs_; ++n) {
            opener.nr_errors +=
                cache::file_write_and_wait_range(mapping(), 0, cache::kLastByte, opener.cursor)
                        .has_value()
                    ? 0
                    : 1;
        }
    }

    const unsigned nr_openers_, nr_fsyncs_;
    const bool is_late_;
    Opener openers_[kMaxOpeners] = {};
};

}  // namespace

ScenarioEntry errseq_scenario() {
    return {
        .info = {.name = "errseq",
                 .summary = "every opener's fsync tells of a failed write once",
                 .parameters = {{"openers", "that call fsync", 2, 1, 3},
                                {"fsyncs", "of each", 2, 1, 3},
                                {"late_error", "whether it is recorded after the end", 0, 0, 1}},
                 .is_big = false},
        .make = &make<SeenOnce>};
}

}  // namespace wbfat::explore
