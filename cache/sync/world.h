// The memory that a run may change, and how it is put back.
//
// While a scenario is set up and while its tasks run, operator new takes from an arena at a fixed
// address (world.cc replaces it for the whole program; everybody else gets malloc). So every object
// has the same address in every run, and a copy of the arena is a copy of the state: no object
// needs to know how to save, restore or hash itself.
//
// Copying all of it for every run would cost too much, so the world learns which blocks of 64 bytes
// runs change, and from then on puts back and hashes only these. What operations of model.h write
// it is told; the rest, plain memory, it finds by comparing everything with the copy. learn() is
// called while an exploration warms up, now and then, and at its end; an exploration during which
// it found something new starts again.
//
// Each task allocates from an arena of its own, so that addresses do not depend on the schedule.
//
// Differs from an allocator: nothing is thread safe; one OS thread runs at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

#include "cache/sync/model.h"

namespace wbfat::sync::inline WBFAT_RT::sched {

inline constexpr int kMaxTasks = 16;
inline constexpr int kMainTask = kMaxTasks;  // its number where arenas are counted

// Hashes of parts, in their order.
inline std::uint64_t mix(std::uint64_t hash, std::uint64_t part) {
    constexpr std::uint64_t kOdd = 0x9E37'79B9'7F4A'7C15ULL;
    const std::uint64_t mixed = (hash ^ part) * kOdd;
    return mixed ^ (mixed >> 32);
}

class World {
public:
    World();
    ~World() = default;
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    // Whose memory operator new gives out: a task, kMainTask, or -1: malloc's.
    static void allocate_for(int task);
    static int allocating_for();
    // Ignores what the world may be at: the scheduler's own containers.
    class Outside {
    public:
        Outside() : before_(allocating_for()) {
            allocate_for(-1);
        }
        ~Outside() {
            allocate_for(before_);
        }
        Outside(const Outside&) = delete;
        Outside& operator=(const Outside&) = delete;

    private:
        int before_;
    };

    // The stack of a task: [base, base + kStackBytes), growing down.
    static constexpr std::size_t kStackBytes = 256 << 10;
    [[nodiscard]] std::byte* stack(int task) const;
    // Whose stack it lies on, or -1.
    static int stack_owner(const void* object);

    // Whether it lies in static storage that runs change.
    static bool is_global(const void* object);
    // Statistics, a word or less: put back, but no part of the state.
    void will_write_statistic(const void* object) {
        const auto word = reinterpret_cast<std::uintptr_t>(object) / sizeof(std::uint64_t);
        std::uintptr_t& recent = recent_statistics_[word % recent_statistics_.size()];
        if (recent != word) [[unlikely]] {
            recent = word;
            note_statistic(word);
        }
    }
    // A part of a stack that belongs to the state at the snapshot: of a task that sleeps there.
    void add_stack_part(std::byte* from, std::byte* to);

    // What an announced operation is about to write: known from then on, without comparing.
    void will_write(const void* object, std::size_t size_bytes) {
        auto at = reinterpret_cast<std::uintptr_t>(object) / kBlock;
        const auto last = (reinterpret_cast<std::uintptr_t>(object) + size_bytes - 1) / kBlock;
        for (; at <= last; ++at) {
            if (std::uintptr_t& recent = recent_[at % recent_.size()]; recent != at) [[unlikely]] {
                recent = at;
                note(at * kBlock);
            }
        }
    }

    // What runs have changed, as it is now: to go on from here another time.
    struct Checkpoint {
        std::uint64_t version = 0;  // 0: none
        std::vector<std::byte> bytes;
        std::vector<std::byte*> free;  // for each arena its use, and each class that was touched
    };
    void save(Checkpoint& into);
    // False, and nothing done: more is known to change than when it was saved.
    bool load(const Checkpoint& from);

    // Empties the arenas. Whatever lay there is gone without being destroyed.
    void clear();
    void snapshot();
    // Compares everything with the snapshot. True if blocks were found changed that were not known.
    bool learn();
    void restore();
    [[nodiscard]] std::uint64_t hash() const;
    [[nodiscard]] std::size_t changing_bytes() const {
        return changing_bytes_;
    }

private:
    static constexpr std::size_t kBlock = 64;
    struct Range {
        std::byte* start;
        std::byte* end;
    };
    // A page of 4 KiB, or a part of one, as it was.
    struct Saved {
        std::byte* at;
        std::vector<std::byte> bytes;
    };
    [[nodiscard]] std::vector<Range> regions() const;
    void note(std::uintptr_t block);
    void note_statistic(std::uintptr_t word);
    void take_notes();
    void compare(std::byte* at, const std::byte* saved, std::size_t size_bytes);
    void rebuild();

    std::vector<Range> stack_parts_;
    std::vector<Saved> saved_;
    std::set<std::byte*> blocks_;   // known to change
    std::set<std::byte*> relaxed_;  // words, by address rounded down to 8
    struct Copy {
        std::byte* to;
        std::vector<std::byte> bytes;
    };
    std::vector<Copy> copies_;
    std::vector<Range> hashed_;
    bool found_new_ = false;
    bool must_rebuild_ = false;
    std::size_t changing_bytes_ = 0;
    std::uint64_t version_ = 1;                  // of the list of what changes
    std::array<std::uintptr_t, 1024> recent_{};  // numbers of blocks that are known or noted
    std::array<std::uintptr_t, 256> recent_statistics_{};  // of words
    // Tasks allocate nothing for the world, so that a detector sees nothing pass between them.
    struct Note {
        std::uintptr_t at;
        bool is_relaxed;
    };
    std::array<Note, 512> notes_{};
    std::size_t nr_notes_ = 0;
};

}  // namespace wbfat::sync::inline WBFAT_RT::sched
