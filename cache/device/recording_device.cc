// The remembering device: capture at submit, log at completion.
#include "cache/device/recording_device.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

namespace wbfat::cache::inline WBFAT_RT {

namespace {

constexpr std::uint64_t kSegmentBytesMax = std::uint64_t{1} << 30;

std::vector<std::byte> gather(const Bio& bio) {
    std::vector<std::byte> data;
    data.reserve(bio.size_bytes());
    for (const BioSegment& segment : bio.segments) {
        data.insert(data.end(), segment.data, segment.data + segment.length_bytes);
    }
    return data;
}

}  // namespace

// A write on its way: the copy that is written (L1), and whom to tell.
struct RecordingDevice::Recorded {
    Bio inner;
    Bio* outer = nullptr;
    RecordingDevice* device = nullptr;
    std::vector<std::byte> data;
};

RecordingDevice::RecordingDevice(BlockDevice& inner) : inner_(inner) {}

RecordingDevice::~RecordingDevice() {
    sync::MutexLock lock(lock_);
    while (nr_in_flight_ > 0) {
        idle_.wait(lock);
    }
}

void RecordingDevice::mark(std::string name) {
    append({.kind = LogEntry::Kind::kMark, .name = std::move(name)});
}

void RecordingDevice::append(LogEntry entry) {
    const sync::MutexLock lock(lock_);
    slots_.push_back({.entry = std::move(entry)});
}

std::size_t RecordingDevice::nr_entries() const {
    const sync::MutexLock lock(lock_);
    return static_cast<std::size_t>(std::ranges::count(slots_, 0U, &Slot::flush_ticket));
}

WriteLog RecordingDevice::log() const {
    const sync::MutexLock lock(lock_);
    WriteLog log;
    for (const Slot& slot : slots_) {
        if (slot.flush_ticket == 0) {
            log.push_back(slot.entry);
        }
    }
    return log;
}

WriteLog RecordingDevice::take_log() {
    const sync::MutexLock lock(lock_);
    WriteLog log;
    for (Slot& slot : slots_) {
        log.push_back(std::move(slot.entry));
    }
    slots_.clear();
    return log;
}

const DeviceGeometry& RecordingDevice::geometry() const {
    return inner_.geometry();
}

const std::string& RecordingDevice::name() const {
    return inner_.name();
}

void RecordingDevice::submit(Bio& bio) {
    if (bio.op == BioOp::kRead) {
        inner_.submit(bio);
        return;
    }
    auto recorded = std::make_unique<Recorded>();
    recorded->outer = &bio;
    recorded->device = this;
    recorded->data = gather(bio);
    Bio& inner = recorded->inner;
    inner.op = BioOp::kWrite;
    inner.offset_bytes = bio.offset_bytes;
    std::span<std::byte> rest(recorded->data);
    while (!rest.empty()) {
        const std::size_t length = std::min<std::uint64_t>(rest.size(), kSegmentBytesMax);
        inner.segments.push_back({rest.data(), static_cast<std::uint32_t>(length)});
        rest = rest.subspan(length);
    }
    inner.end_io = write_done;
    inner.context = recorded.get();
    {
        const sync::MutexLock lock(lock_);
        nr_in_flight_++;
    }
    inner_.submit(recorded.release()->inner);
}

void RecordingDevice::write_done(Bio& inner) {
    const std::unique_ptr<Recorded> recorded(static_cast<Recorded*>(inner.context));
    RecordingDevice& device = *recorded->device;
    const int error = inner.error;
    if (error == 0) {
        LogEntry entry{.kind = LogEntry::Kind::kWrite, .offset_bytes = inner.offset_bytes};
        entry.length_bytes = recorded->data.size();
        entry.data = std::move(recorded->data);
        device.append(std::move(entry));
    }
    recorded->outer->complete(error);
    // Notified with the lock held: the destructor may be the waiter.
    const sync::MutexLock lock(device.lock_);
    device.nr_in_flight_--;
    device.idle_.notify_all();
}

Result<> RecordingDevice::flush() {
    std::uint64_t ticket = 0;
    {
        const sync::MutexLock lock(lock_);
        ticket = ++last_ticket_;
        slots_.push_back({.entry = {.kind = LogEntry::Kind::kFlush}, .flush_ticket = ticket});
    }
    const Result<> result = inner_.flush();
    const sync::MutexLock lock(lock_);
    const auto slot = std::ranges::find(slots_, ticket, &Slot::flush_ticket);
    if (slot == slots_.end()) {
        return result;
    }
    slot->flush_ticket = 0;
    if (result.has_error()) {
        slot->entry = {.kind = LogEntry::Kind::kMark,
                       .name = "flush failed with errno " + std::to_string(result.code())};
    }
    return result;
}

Result<> RecordingDevice::discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    TRY_VOID(inner_.discard(offset_bytes, length_bytes));
    append({.kind = LogEntry::Kind::kDiscard,
            .offset_bytes = offset_bytes,
            .length_bytes = length_bytes});
    return {};
}

}  // namespace wbfat::cache::inline WBFAT_RT
