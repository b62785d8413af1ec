// The last records of every task: the rings and their list.
#include "cache/sync/task_ring.h"

#include <algorithm>
#include <bit>
#include <mutex>
#include <utility>

#include "cache/sync/sync.h"

namespace wbfat::sync::inline WBFAT_RT {

namespace {

// Rings of tasks that have ended; beyond these the oldest goes.
constexpr std::size_t kMaxRetired = 32;

struct Entry {
    std::shared_ptr<TaskRing> ring;
    std::uint32_t task_id;
    std::string task_name;
    Role task_role;
    bool retired = false;
};

struct Rings {
    std::mutex mutex;
    std::vector<Entry> entries;
    std::atomic<std::size_t> capacity{kDefaultTaskRingCapacity};
};

Rings& rings() {
    // Never destroyed: detached device threads may write records while the process exits.
    static auto* const kRings = new Rings;
    return *kRings;
}

Entry* find_locked(Rings& all, const std::shared_ptr<TaskRing>& ring) {
    const auto found = std::find_if(all.entries.begin(), all.entries.end(),
                                    [&](const Entry& entry) { return entry.ring == ring; });
    return found != all.entries.end() ? &*found : nullptr;
}

}  // namespace

TaskRing::TaskRing(std::size_t capacity)
    : mask_(capacity - 1), words_(new std::atomic<std::uint64_t>[capacity * kRecordWords] {}) {}

std::vector<TaskRing::Record> TaskRing::copy(std::size_t most) const {
    const std::uint64_t end = head_.load(std::memory_order_acquire);
    const std::uint64_t oldest_kept = end > mask_ ? end - mask_ : 0;
    const std::uint64_t oldest_wanted = end > most ? end - most : 0;
    const std::uint64_t start =
        std::max({oldest_kept, oldest_wanted, floor_.load(std::memory_order_relaxed)});
    std::vector<Record> records;
    records.reserve(end - std::min(start, end));
    for (std::uint64_t number = start; number < end; ++number) {
        const std::atomic<std::uint64_t>* const place = &words_[(number & mask_) * kRecordWords];
        Record& record = records.emplace_back();
        for (std::size_t i = 0; i < kRecordWords; ++i) {
            record[i] = place[i].load(std::memory_order_acquire);
        }
    }
    // R1: the place of number `n` is being written again once head_ says n + capacity.
    const std::uint64_t head = head_.load(std::memory_order_relaxed);
    const std::uint64_t first_whole = head > mask_ ? head - mask_ : 0;
    if (first_whole > start) {
        const std::uint64_t lost = std::min<std::uint64_t>(first_whole - start, records.size());
        records.erase(records.begin(), records.begin() + static_cast<std::ptrdiff_t>(lost));
    }
    return records;
}

void TaskRing::forget() noexcept {
    floor_.store(head_.load(std::memory_order_acquire), std::memory_order_relaxed);
}

TaskRingHandle::~TaskRingHandle() {
    if (ring_ == nullptr) {
        return;
    }
    Rings& all = rings();
    const std::lock_guard guard(all.mutex);
    if (Entry* entry = find_locked(all, ring_)) {
        entry->retired = true;
    }
    const auto is_retired = [](const Entry& entry) { return entry.retired; };
    if (std::count_if(all.entries.begin(), all.entries.end(), is_retired) >
        static_cast<std::ptrdiff_t>(kMaxRetired)) {
        all.entries.erase(std::find_if(all.entries.begin(), all.entries.end(), is_retired));
    }
}

void TaskRingHandle::rename(const std::string& name, Role role) {
    if (ring_ == nullptr) {
        return;
    }
    Rings& all = rings();
    const std::lock_guard guard(all.mutex);
    if (Entry* entry = find_locked(all, ring_)) {
        entry->task_name = name;
        entry->task_role = role;
    }
}

TaskRing& current_task_ring() {
    Task& task = current_task();
    std::shared_ptr<TaskRing>& ring = task.ring_handle().ring_;
    Rings& all = rings();
    const std::size_t capacity = all.capacity.load(std::memory_order_relaxed);
    if (ring != nullptr && ring->capacity() == capacity) [[likely]] {
        return *ring;
    }
    auto made = std::make_shared<TaskRing>(capacity);
    const std::lock_guard guard(all.mutex);
    if (Entry* entry = find_locked(all, ring)) {
        entry->ring = made;
    } else {
        all.entries.push_back({made, task.id(), task.name(), task.role()});
    }
    ring = std::move(made);
    return *ring;
}

void set_task_ring_capacity(std::size_t records) {
    rings().capacity.store(std::bit_ceil(records), std::memory_order_relaxed);
}

std::vector<TaskRecords> copy_task_rings(std::size_t most) {
    std::vector<Entry> entries;
    {
        Rings& all = rings();
        const std::lock_guard guard(all.mutex);
        entries = all.entries;
    }
    std::vector<TaskRecords> copies;
    for (const Entry& entry : entries) {
        std::vector<TaskRing::Record> records = entry.ring->copy(most);
        if (!records.empty()) {
            copies.push_back({entry.task_id, entry.task_name, entry.task_role, std::move(records)});
        }
    }
    std::sort(copies.begin(), copies.end(),
              [](const TaskRecords& a, const TaskRecords& b) { return a.task_id < b.task_id; });
    return copies;
}

void forget_task_rings() {
    Rings& all = rings();
    const std::lock_guard guard(all.mutex);
    for (const Entry& entry : all.entries) {
        entry.ring->forget();
    }
}

}  // namespace wbfat::sync::inline WBFAT_RT
