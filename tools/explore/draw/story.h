// One execution, told: what the pictures, the text and the step-through show of it.
//
// A Story knows nothing of the explorer and nothing of pixels. story_of() makes one of a run
// record; picture.h lays it out.
//
// Invariants
//   T1. Boxes are in the order of execution; a box is one visible step, or several of one thread in
//       a row that changed nothing that is drawn.
//   T2. Chapters are numbered from 1 in the order of their boxes; every number stands on one box.
//   T3. `inevitability` is empty, or has one value for the state before each box and one for the
//   end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace wbfat::explore {

// What a box is, which decides its colour.
enum class Deed {
    kWrite,   // changes a page flag
    kRead,    // looks at one
    kLock,    // takes a lock
    kUnlock,  // drops one
    kWake,    // wakes another thread
    kSleep,   // goes to sleep
    kWoken,   // runs on after having slept
    kPlain,   // anything else, or several things
    kFail,    // the failing step
};

struct Box {
    std::size_t first_step = 0;  // of the record
    std::size_t nr_steps = 1;
    std::size_t thread = 0;
    Deed deed = Deed::kPlain;
    std::string verb = {};      // "clears"
    std::string object = {};    // "PG_writeback"
    std::string function = {};  // boxes of one function stand in one frame; empty: none
    std::string detail = {};    // the whole sentence
    std::size_t chapter = 0;
    std::vector<std::uint32_t> clock =
        {};  // steps of each thread that happened before or at this box
};

// A thread that does nothing between two of its boxes.
struct Pause {
    enum class Kind { kDelayed, kAsleep, kBlocked };
    Kind kind = Kind::kDelayed;
    std::size_t thread = 0;
    std::size_t from_box = 0;
    std::optional<std::size_t> to_box = {};  // none: for ever
    std::string text = {};
};

// Something that has a value at every moment.
struct Strip {
    enum class Kind {
        kLevel,  // a flag: set or clear
        kOwner,  // a lock: held by somebody, or free
    };
    struct Change {
        std::size_t box = 0;  // from this box on
        bool set = false;
        std::string text = {};  // drawn inside while set: "set by CPU 2", "CPU 3"
    };
    Kind kind = Kind::kLevel;
    std::string name = {};
    bool set_before = false;
    std::string text_before = {};
    std::vector<Change> changes = {};
    bool accused = false;  // the failing step looked at it
};

struct Arrow {
    enum class Kind {
        kWake,  // a wake-up and whom it woke
        kSaw,   // the write that the failing step saw
    };
    Kind kind = Kind::kWake;
    std::size_t from_box = 0;
    std::size_t to_box = 0;
    std::string text = {};
};

struct StoryThread {
    std::string name = {};  // "CPU 1"
    std::string role = {};  // "ends writeback no. 1"
};

// A stretch of the schedule: one thread, some boxes.
struct Segment {
    std::size_t first_box = 0;
    std::size_t nr_boxes = 0;
    std::string text = {};  // "A1"
};

enum class Mood { kSafe, kFailed };

struct Story {
    Mood mood = Mood::kSafe;
    std::string title;                  // "BUG_ON(PageWriteback(page))"
    std::vector<std::string> subtitle;  // scenario, protocol, preemptions; schedule
    std::vector<std::string> chapters;  // the explanation, sentence by sentence
    std::vector<StoryThread> threads;
    std::vector<Box> boxes;
    std::vector<Segment> segments;
    std::vector<Pause> pauses;
    std::vector<Strip> strips;
    std::vector<Arrow> arrows;
    std::vector<double> inevitability;  // share of continuations that fail, 0..1
};

}  // namespace wbfat::explore
