// The last records of every task: a ring a task, written by it alone, read by anybody.
//
// What a record means is the writer's business (cache/trace.h). Appending takes no lock and costs a
// few stores; reading takes a copy while the owner goes on writing. A ring outlives its task for a
// while, because the history of a page names threads that are gone.
//
// Invariants
//   - R1. A record is copied whole or not at all. The owner publishes `head_` before it writes into
//     the place of the record that is `capacity` older, and every word is a release store; so a
//     reader that met one word of the newer record finds, when it looks at `head_` afterwards, that
//     the older one is lost, and drops it.
//
// Locking: the list of rings has a mutex of its own, taken for the first record of a task, at its
// end, and by readers; nothing is taken below it. None of this is visible to the explorer: records
// decide nothing. So both back-ends share this file, and it may use what the rest may not.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cache/base/runtime.h"

namespace wbfat::sync::inline WBFAT_RT {

enum class Role : std::uint8_t;

class TaskRing {
public:
    static constexpr std::size_t kRecordWords = 6;
    using Record = std::array<std::uint64_t, kRecordWords>;

    // `capacity`: records kept; a power of two.
    explicit TaskRing(std::size_t capacity);

    // Only by the task that owns the ring.
    void append(const Record& record) noexcept {
        const std::uint64_t number = head_.load(std::memory_order_relaxed);
        std::atomic<std::uint64_t>* const place = &words_[(number & mask_) * kRecordWords];
        for (std::size_t i = 0; i < kRecordWords; ++i) {
            place[i].store(record[i], std::memory_order_release);
        }
        head_.store(number + 1, std::memory_order_release);
    }
    // Any task: the latest `most` of the records that are still there, oldest first.
    [[nodiscard]] std::vector<Record> copy(std::size_t most) const;
    // Any task: what was appended until now is not copied any more.
    void forget() noexcept;
    [[nodiscard]] std::size_t capacity() const noexcept {
        return mask_ + 1;
    }

private:
    const std::size_t mask_;
    const std::unique_ptr<std::atomic<std::uint64_t>[]> words_;
    std::atomic<std::uint64_t> head_{0};  // records ever appended
    std::atomic<std::uint64_t> floor_{0};
};

// A member of Task: its ring, if it has one. Gives the ring up when the task ends.
class TaskRingHandle {
public:
    TaskRingHandle() = default;
    ~TaskRingHandle();
    TaskRingHandle(const TaskRingHandle&) = delete;
    TaskRingHandle& operator=(const TaskRingHandle&) = delete;

    // The task has a new name, after the ring was made.
    void rename(const std::string& name, Role role);

private:
    friend TaskRing& current_task_ring();
    std::shared_ptr<TaskRing> ring_;
};

// The running task's ring; made on first use, and made anew when the capacity was changed.
TaskRing& current_task_ring();

inline constexpr std::size_t kDefaultTaskRingCapacity = 1024;
// For every ring, from its owner's next record on; the records of the old one are lost. Rounded up
// to a power of two.
void set_task_ring_capacity(std::size_t records);

struct TaskRecords {
    std::uint32_t task_id;
    std::string task_name;
    Role task_role;
    std::vector<TaskRing::Record> records;  // oldest first
};
// Of every task that has any, its latest `most` records; in the order of the tasks' ids. What is
// copied is fetched from the caches of those who wrote it: who looks often takes only what it
// shows.
inline constexpr std::size_t kWholeTaskRing = ~std::size_t{0};
std::vector<TaskRecords> copy_task_rings(std::size_t most = kWholeTaskRing);
void forget_task_rings();

}  // namespace wbfat::sync::inline WBFAT_RT
