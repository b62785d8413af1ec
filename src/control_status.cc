// Counters and flags -> JSON.
#include "src/control_status.h"

#include <fmt/core.h>
#include <unistd.h>

#include <chrono>
#include <string_view>

#include <boost/json.hpp>

#include "cache/assertions.h"
#include "cache/flusher.h"
#include "cache/oops.h"
#include "cache/page_frames.h"
#include "cache/page_wait.h"
#include "cache/protocol.h"
#include "cache/sync/point_rules.h"
#include "cache/trace.h"
#include "fs/allocator.h"
#include "fs/inode_cache.h"
#include "fs/names.h"
#include "src/stats.h"

namespace wbfat::daemon {

namespace {

namespace json = boost::json;

std::string label_of(const fs::Volume& volume) {
    const auto& label = volume.geometry().label;
    std::string_view text(label.data(), label.size());
    text = text.substr(0, text.find_last_not_of(std::string_view(" \0", 2)) + 1);
    return fs::units_to_utf8(volume.codepage().decode(text), volume.options());
}

json::object volume_status(ControlContext& context) {
    fs::Volume& volume = context.volume;
    const fs::Geometry& geometry = volume.geometry();
    json::object status{
        {"device", context.device},
        {"mountpoint", context.mountpoint},
        {"fat", static_cast<unsigned>(geometry.type)},
        {"volume_id",
         fmt::format("{:04X}-{:04X}", geometry.volume_id >> 16, geometry.volume_id & 0xFFFF)},
        {"label", label_of(volume)},
        {"cluster_bytes", geometry.cluster_bytes},
        {"nr_clusters", geometry.nr_clusters},
        {"read_only", volume.is_read_only()},
        {"sync", volume.is_sync()},
        {"was_dirty_at_mount", volume.was_dirty_at_mount()},
        {"nr_inodes", volume.inodes().nr_inodes()},
        {"nr_inodes_in_use", volume.inodes().nr_in_use()},
    };
    // Counting for the first time reads the table.
    constexpr std::uint32_t kUnknown = ~std::uint32_t{0};
    const std::uint32_t free = volume.allocator().free_count_if_known();
    status["nr_free_clusters"] = free == kUnknown ? json::value() : json::value(free);
    return status;
}

json::object pages_status(ControlContext& context) {
    const cache::PageCensus census = context.cache.frames().census();
    return {{"clean", census.nr_clean},         {"dirty", census.nr_dirty},
            {"writeback", census.nr_writeback}, {"redirtied", census.nr_redirtied},
            {"locked", census.nr_locked},       {"waited_for", census.nr_waited_for},
            {"read_errors", census.nr_error}};
}

// How many are in which state, and those that have failed.
json::object assertion_counts() {
    std::uint64_t nr_off = 0;
    json::object hits;
    for (const cache::AssertionInfo& info : cache::all_assertions()) {
        nr_off += cache::assertion_enabled(info.id) ? 0 : 1;
        if (const std::uint64_t count = cache::assertion_hits(info.id); count != 0) {
            hits[info.name] = count;
        }
    }
    return {{"on", cache::kNrAssertions - nr_off}, {"off", nr_off}, {"hits", hits}};
}

json::object counters_status(ControlContext& context) {
    json::object counters;
    for (const StatsField& field : fields_of(context.cache.stats())) {
        counters[field.name] = field.value;
    }
    return counters;
}

json::array waiting_status() {
    json::array list;
    const auto now = sync::monotonic_now();
    for (const cache::PageWaiter& waiter : cache::page_waiters()) {
        list.push_back({{"task", waiter.task},
                        {"for", cache::page_flags_to_string(waiter.bit)},
                        {"seconds", std::chrono::duration<double>(now - waiter.since).count()}});
    }
    return list;
}

}  // namespace

json::object flusher_status(ControlContext& context) {
    const cache::FlusherStatus status = context.cache.flusher().status();
    return {{"paused", status.paused},
            {"busy", status.busy},
            {"dirty_writeback_centisecs", status.dirty_writeback_centisecs},
            {"background_pages", status.background_pages},
            {"limit_pages", status.limit_pages},
            {"nr_dirty_inodes", status.nr_dirty_inodes},
            {"backoff_ms", status.backoff_ms}};
}

json::object protocol_status() {
    const cache::Protocol protocol = cache::current_protocol();
    json::object switches;
    for (const cache::ProtocolSwitch& one : cache::protocol_switches()) {
        switches[one.name] = cache::switch_value(protocol, one);
    }
    return {{"protocol", cache::to_string(protocol)}, {"switches", switches}};
}

json::object protocol_list() {
    json::array presets;
    for (const cache::ProtocolPreset& preset : cache::protocol_presets()) {
        presets.push_back({{"name", preset.name}, {"help", preset.help}});
    }
    return {{"presets", presets}};
}

json::object assertions_status() {
    json::array list;
    for (const cache::AssertionInfo& info : cache::all_assertions()) {
        list.push_back({{"name", info.name},
                        {"state", cache::state_name(cache::assertion_state(info.id))},
                        {"hits", cache::assertion_hits(info.id)},
                        {"costly", info.cost == cache::AssertionCost::kCostly},
                        {"invariant", info.invariant},
                        {"help", info.help}});
    }
    return {{"assertions", list}};
}

json::object points_status() {
    return {{"points", points_to_json(sync::point_rules())}};
}

json::object status_of(ControlContext& context) {
    const auto up = sync::monotonic_now() - context.started;
    return {
        {"version", WBFAT_VERSION},
        {"pid", ::getpid()},
        {"seconds_mounted", std::chrono::duration<double>(up).count()},
        {"volume", volume_status(context)},
        {"pages", pages_status(context)},
        {"waiting", waiting_status()},
        {"counters", counters_status(context)},
        {"flusher", flusher_status(context)},
        {"protocol", cache::to_string(cache::current_protocol())},
        {"assertions", assertion_counts()},
        {"last_report", cache::last_oops_number()},
        {"trace", cache::trace_enabled()},
        {"point_rules", sync::point_rules().size()},
    };
}

}  // namespace wbfat::daemon
