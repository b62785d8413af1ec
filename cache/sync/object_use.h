// Who touches which object, under which locks: what the scheduler need not ask about.
//
// An operation is a both-mover (Lipton) when it commutes with whatever another task does next: on
// an object that one task alone touches, that nobody writes, or that is touched under one lock by
// everybody. Such an operation is no step of its own with merging on; a step less of each task
// divides the number of states.
//
// Which objects these are is seen, not declared: note() is told of every operation, decide() takes
// what was seen so far for the rule, and is_sound() says whether anything seen since broke it. A
// search whose rule broke starts again. If the rule held in all runs of a complete search it holds
// in all runs: the shortest run that breaks it would end with the breaking operation, all before
// that keeps to the rule, so the search has made that run or one that differs by movers only.
//
// A use is noted when it is announced, before anything of it is done; so the breaking one is seen
// even where it would fail. That an object dies counts as a write of whoever destroys it. Left out:
// objects on another task's stack, whose frame goes away without a word.
//
// The same holds for what Scheduler merges with taking and letting go of a lock: nobody can look in
// between, but for one who only tries the lock and sees it taken. Locks that are tried are noted.
//
// Source: Lipton, "Reduction", CACM 1975; the states of an object are those of Savage et al.,
// "Eraser", TOCS 1997, section 3.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "cache/base/runtime.h"

namespace wbfat::sync::inline WBFAT_RT::sched {

// Locks by number, as bits. A lock beyond the 64th has none and protects nothing.
using LockSet = std::uint64_t;

class ObjectUses {
public:
    struct Use {
        const void* object = nullptr;
        LockSet locks = ~LockSet{0};  // held at every operation
        std::uint32_t tasks = 0;      // as bits
        bool is_written = false;
        bool is_tried = false;  // a lock, by somebody who does not wait for it
        // As decided.
        bool is_mover = false;
        bool may_be_tried = false;
    };

    // Of an object. One that finds no room is nobody's mover.
    Use& at(const void* object);
    static void note(Use& use, int task, bool writes, LockSet held) {
        use.tasks |= 1U << static_cast<unsigned>(task);
        use.is_written = use.is_written || writes;
        use.locks &= held;
    }
    LockSet lock_bit(const void* lock);

    void decide();
    [[nodiscard]] bool is_sound() const;
    void clear();

private:
    static bool commutes(const Use& use) {
        return (use.tasks & (use.tasks - 1)) == 0 || !use.is_written || use.locks != 0;
    }

    static constexpr std::size_t kPlaces = 4096;
    static constexpr std::size_t kMaxUsed = kPlaces / 4 * 3;
    std::array<Use, kPlaces> places_{};
    std::size_t nr_used_ = 0;
    Use no_room_;
    std::array<const void*, 64> locks_{};
    std::size_t nr_locks_ = 0;
};

}  // namespace wbfat::sync::inline WBFAT_RT::sched
