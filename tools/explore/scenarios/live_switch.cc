// The protocol is switched while everybody is at work.
//
//   The page is under writeback, on a device that completes on a thread of its own once CPU2 lets
//   it. CPU2 is a request that starts the next writeback (with flusher=1 it tells the real flusher
//   to), writes into the page and syncs it; with apart=1 CPU3 is the one who syncs, with
//   written_back=0 nobody does. CPU4 switches the protocol of the process to another.
//
// With gated=1 that is switch_protocol: requests pass the gate, the flusher is paused, the device
// drains. With 0 the word is just stored, and what began under one protocol ends under the other:
// a sleeper that believes its waker meets a waker that promises nothing.
//
// What fails under `to`, or under the protocol at the start, fails here too.
//
// Source: cache/freeze.h; writeback-protocol.md 17.2.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "cache/filemap.h"
#include "cache/flusher.h"
#include "cache/freeze.h"
#include "cache/page_io.h"
#include "cache/page_lock.h"
#include "cache/protocol.h"
#include "cache/sync/scheduler.h"

#include "tools/explore/scenarios/catalogue.h"
#include "tools/explore/scenarios/page_bed.h"
#include "tools/explore/scenarios/world_device.h"

namespace wbfat::explore {

namespace {

class LiveSwitch final : public PageBed {
public:
    explicit LiveSwitch(const Parameters& parameters)
        : to_(cache::protocol_presets()[parameters["to"]].protocol),
          gated_(parameters["gated"] != 0),
          flusher_(parameters["flusher"] != 0),
          is_apart_(parameters["apart"] != 0),
          is_written_back_(parameters["written_back"] != 0) {}
    ~LiveSwitch() override {
        disk_->release();
        cache().io().wait_until_idle();
    }

    void set_up() override {
        auto device = std::make_unique<WorldDevice>(cache::kPageSize);
        disk_ = device.get();
        make_cache(std::move(device));
        add_page(0, Start::kDirty);
        disk_->hold();
        static_cast<void>(cache::filemap_fdatawrite_range(mapping(), 0, cache::kLastByte));
        write_into_page();
        task("CPU2", sync::Role::kRequest, is_apart_ ? "writes into the page" : "writes and syncs",
             [this] {
                 disk_->release();
                 const cache::FreezeGate::Pass pass(cache::operations_gate());
                 if (is_written_back_) {
                     start_second_writeback();
                 }
                 write_into_page();
                 if (!is_apart_ && is_written_back_) {
                     sync_file();
                 }
             });
        if (is_apart_) {
            task("CPU3", sync::Role::kSyncWriter, "syncs the file", [this] {
                const cache::FreezeGate::Pass pass(cache::operations_gate());
                sync_file();
            });
        }
        task("CPU4", sync::Role::kOther, "switches the protocol", [this] { switch_to(); });
    }
    std::string check() override {
        if (cache::current_protocol() != to_) {
            return "the protocol was not switched";
        }
        const bool is_written = page().data[0] == disk_->bytes()[0];
        return is_written || cache::page_test(page(), cache::PG_dirty)
                   ? ""
                   : "a page is clean and its last write is not on the disk";
    }
    std::vector<NamedObject> objects() override {
        std::vector<NamedObject> all = PageBed::objects();
        all.push_back({&cache::protocol_word::current, sizeof(cache::protocol_word::current),
                       "the protocol"});
        all.push_back({&cache::operations_gate(), sizeof(cache::FreezeGate), "the gate"});
        return all;
    }

private:
    void write_into_page() {
        cache::lock_page(page());
        page().data[0] = static_cast<std::byte>(std::to_integer<unsigned>(page().data[0]) + 1);
        cache::set_page_dirty(page());
        cache::unlock_page(page());
    }
    void start_second_writeback() {
        if (flusher_) {
            cache().flusher().kick();
        } else {
            static_cast<void>(cache::filemap_fdatawrite_range(mapping(), 0, cache::kLastByte));
        }
    }
    // Without the wait at the end, so that the request may leave while its write is in flight.
    void sync_file() {
        static_cast<void>(cache::filemap_fdatawrite_range(mapping(), 0, cache::kLastByte));
    }
    void switch_to() {
        if (gated_) {
            static_cast<void>(cache::switch_protocol(cache(), to_));
        } else {
            cache::set_protocol_while_idle(to_);
        }
    }

    const cache::Protocol to_;
    const bool gated_, flusher_, is_apart_, is_written_back_;
    const sync::sched::SettingsMatter settings_matter_;
    WorldDevice* disk_ = nullptr;
};

std::vector<std::string> preset_names() {
    std::vector<std::string> names;
    for (const cache::ProtocolPreset& preset : cache::protocol_presets()) {
        names.emplace_back(preset.name);
    }
    return names;
}

unsigned number_of(const std::vector<std::string>& names, const std::string& name) {
    return static_cast<unsigned>(std::find(names.begin(), names.end(), name) - names.begin());
}

}  // namespace

ScenarioEntry live_switch_scenario() {
    const std::vector<std::string> names = preset_names();
    const auto last = static_cast<unsigned>(names.size() - 1);
    return {.info = {.name = "live-switch",
                     .summary = "the protocol is switched while everybody is at work",
                     .parameters = {{"to", "what it is switched to",
                                     number_of(names, cache::kDefaultPreset), 0, last, names},
                                    {"gated", "whether requests pass the gate", 1, 0, 1},
                                    {"flusher", "whether it starts the second writeback", 0, 0, 1},
                                    {"apart", "whether another request syncs", 0, 0, 1},
                                    {"written_back", "whether CPU2 does more than write", 1, 0, 1}},
                     .is_big = false},
            .make = &make<LiveSwitch>};
}

}  // namespace wbfat::explore
