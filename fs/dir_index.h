// The two structures a Directory finds things with: names by hash, and free slots by length.
//
// Both know nothing of the disk. NameIndex maps a 64-bit name hash to a small id, leaving the
// comparison to the caller. SlotMap is a segment tree over sectors: each node knows the longest run
// of free slots at its ends, inside, and within a single sector, so "the leftmost place for n
// slots" is one descent, whatever the directory looks like.
//
// Invariants
//   - I1. NameIndex is at most three quarters full; from its home to a name no cell is empty.
//   - I2. SlotMap: a node is the combination of its children; slots past size() count as used.
//
// Locking: none; the owner's.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "cache/base/runtime.h"

namespace wbfat::fs::inline WBFAT_RT {

// Neighbouring slots.
struct SlotRun {
    std::uint32_t first = 0;
    std::uint32_t count = 0;

    std::uint32_t end() const {
        return first + count;
    }
    bool contains(std::uint32_t slot) const {
        return slot >= first && slot < end();
    }
};

class NameIndex {
public:
    // `salt` keeps an image's author from choosing names that fall into one cell.
    explicit NameIndex(std::uint64_t salt) : salt_(salt) {}

    void insert(std::uint64_t hash, std::uint32_t id);
    // Removes the pair if it is there.
    void erase(std::uint64_t hash, std::uint32_t id);
    // The first id with this hash that `matches` accepts.
    std::optional<std::uint32_t> find(std::uint64_t hash,
                                      const std::function<bool(std::uint32_t id)>& matches) const;
    void clear();
    std::size_t size() const {
        return size_;
    }
    // Cells looked at since construction: what a test counts instead of time.
    std::uint64_t nr_probes() const {
        return nr_probes_;
    }

private:
    struct Cell {
        std::uint32_t tag = 0;        // half of the mixed hash, never 0 in a used cell
        std::uint32_t id_plus_1 = 0;  // 0: empty
    };

    std::uint64_t mix(std::uint64_t hash) const;
    std::size_t home(std::uint32_t tag) const;
    void place(Cell cell);
    void resize(std::size_t nr_cells);

    std::uint64_t salt_;
    std::vector<Cell> cells_;  // a power of two of them, or none
    std::size_t size_ = 0;
    std::uint64_t nr_probes_ = 0;
};

class SlotMap {
public:
    explicit SlotMap(std::uint32_t slots_per_sector = 16) : per_sector_(slots_per_sector) {}

    // Starts over with `used[i]` telling whether slot i is taken. Requires a whole number of
    // sectors.
    void assign(std::vector<bool> used);
    // Adds free slots at the end. Requires a whole number of sectors.
    void grow(std::uint32_t nr_slots);
    void set_used(SlotRun run);
    void set_free(SlotRun run);

    // The leftmost `n` free neighbours within one sector. Requires n > 0.
    std::optional<std::uint32_t> find_in_sector(std::uint32_t n) const;
    // The same in the sector of `also_free`, whose slots count as free.
    std::optional<std::uint32_t> find_in_sector_of(SlotRun also_free, std::uint32_t n) const;
    // The leftmost `n` free neighbours anywhere.
    std::optional<std::uint32_t> find_anywhere(std::uint32_t n) const;

    bool is_used(std::uint32_t slot) const {
        return used_[slot];
    }
    bool in_one_sector(SlotRun run) const {
        return run.first / per_sector_ == (run.end() - 1) / per_sector_;
    }
    std::uint32_t size() const {
        return static_cast<std::uint32_t>(used_.size());
    }
    std::uint32_t slots_per_sector() const {
        return per_sector_;
    }

private:
    struct Node {
        std::uint32_t prefix = 0;          // free slots at the left end
        std::uint32_t suffix = 0;          // at the right end
        std::uint32_t best = 0;            // longest run
        std::uint32_t best_in_sector = 0;  // longest run that crosses no sector boundary
    };

    void set(SlotRun run, bool used);
    void rebuild();
    Node make_leaf(std::uint32_t sector) const;
    static Node combine(const Node& left, const Node& right, std::uint32_t child_slots);
    std::optional<std::uint32_t> scan(std::uint32_t first, std::uint32_t end, std::uint32_t n,
                                      SlotRun also_free) const;

    std::uint32_t per_sector_;
    std::vector<bool> used_;
    std::uint32_t nr_leaves_ = 0;  // a power of two, 0 while there are no slots
    std::vector<Node> nodes_;      // 1-based heap; leaves at [nr_leaves_, 2 * nr_leaves_)
};

}  // namespace wbfat::fs::inline WBFAT_RT
