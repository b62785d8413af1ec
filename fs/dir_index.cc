// Names by hash and free slots by length; see dir_index.h.
#include "fs/dir_index.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "cache/base/check.h"

namespace wbfat::fs::inline WBFAT_RT {

namespace {

constexpr std::size_t kSmallestIndex = 16;

}  // namespace

// --- NameIndex

std::uint64_t NameIndex::mix(std::uint64_t hash) const {
    // Multiplication moves every input bit upwards; the high half is what is used.
    return (hash ^ salt_) * 0x9E3779B97F4A7C15ULL;
}

std::size_t NameIndex::home(std::uint32_t tag) const {
    return tag & (cells_.size() - 1);
}

void NameIndex::place(Cell cell) {
    std::size_t at = home(cell.tag);
    ++nr_probes_;
    while (cells_[at].id_plus_1 != 0) {
        at = (at + 1) & (cells_.size() - 1);
        ++nr_probes_;
    }
    cells_[at] = cell;
}

void NameIndex::resize(std::size_t nr_cells) {
    std::vector<Cell> old(nr_cells);
    old.swap(cells_);
    for (const Cell& cell : old) {
        if (cell.id_plus_1 != 0) {
            place(cell);
        }
    }
}

void NameIndex::insert(std::uint64_t hash, std::uint32_t id) {
    if ((size_ + 1) * 4 > cells_.size() * 3) {
        resize(std::max(kSmallestIndex, cells_.size() * 2));
    }
    place({static_cast<std::uint32_t>(mix(hash) >> 32), id + 1});
    ++size_;
}

void NameIndex::erase(std::uint64_t hash, std::uint32_t id) {
    if (cells_.empty()) {
        return;
    }
    const std::size_t mask = cells_.size() - 1;
    const auto tag = static_cast<std::uint32_t>(mix(hash) >> 32);
    std::size_t hole = home(tag);
    while (cells_[hole].tag != tag || cells_[hole].id_plus_1 != id + 1) {
        if (cells_[hole].id_plus_1 == 0) {
            return;
        }
        hole = (hole + 1) & mask;
    }
    // I1: whoever probed over the hole moves into it.
    for (std::size_t at = (hole + 1) & mask; cells_[at].id_plus_1 != 0; at = (at + 1) & mask) {
        const std::size_t distance = (at - home(cells_[at].tag)) & mask;
        if (distance >= ((at - hole) & mask)) {
            cells_[hole] = cells_[at];
            hole = at;
        }
    }
    cells_[hole] = {};
    --size_;
}

std::optional<std::uint32_t> NameIndex::find(
    std::uint64_t hash, const std::function<bool(std::uint32_t id)>& matches) const {
    if (cells_.empty()) {
        return std::nullopt;
    }
    const auto tag = static_cast<std::uint32_t>(mix(hash) >> 32);
    for (std::size_t at = home(tag); cells_[at].id_plus_1 != 0;
         at = (at + 1) & (cells_.size() - 1)) {
        if (cells_[at].tag == tag && matches(cells_[at].id_plus_1 - 1)) {
            return cells_[at].id_plus_1 - 1;
        }
    }
    return std::nullopt;
}

void NameIndex::clear() {
    cells_.clear();
    size_ = 0;
}

// --- SlotMap

void SlotMap::assign(std::vector<bool> used) {
    BUG_ON(used.size() % per_sector_ != 0);
    used_ = std::move(used);
    rebuild();
}

void SlotMap::grow(std::uint32_t nr_slots) {
    BUG_ON(nr_slots % per_sector_ != 0);
    const std::uint32_t first = size();
    used_.resize(used_.size() + nr_slots, true);
    if (size() / per_sector_ > nr_leaves_) {
        rebuild();
    }
    set({first, nr_slots}, false);
}

void SlotMap::set_used(SlotRun run) {
    set(run, true);
}

void SlotMap::set_free(SlotRun run) {
    set(run, false);
}

SlotMap::Node SlotMap::make_leaf(std::uint32_t sector) const {
    Node leaf;
    std::uint32_t run = 0;
    bool all_free = true;
    for (std::uint32_t i = 0; i < per_sector_; ++i) {
        if (used_[sector * per_sector_ + i]) {
            leaf.prefix = all_free ? run : leaf.prefix;
            all_free = false;
            run = 0;
        } else {
            leaf.best = std::max(leaf.best, ++run);
        }
    }
    leaf.prefix = all_free ? run : leaf.prefix;
    leaf.suffix = run;
    leaf.best_in_sector = leaf.best;
    return leaf;
}

SlotMap::Node SlotMap::combine(const Node& left, const Node& right, std::uint32_t child_slots) {
    Node node;
    node.prefix = left.prefix == child_slots ? child_slots + right.prefix : left.prefix;
    node.suffix = right.suffix == child_slots ? child_slots + left.suffix : right.suffix;
    node.best = std::max({left.best, right.best, left.suffix + right.prefix});
    node.best_in_sector = std::max(left.best_in_sector, right.best_in_sector);
    return node;
}

void SlotMap::rebuild() {
    const std::uint32_t sectors = size() / per_sector_;
    nr_leaves_ = std::bit_ceil(std::max<std::uint32_t>(sectors, 1));
    nodes_.assign(std::size_t{nr_leaves_} * 2, Node{});
    for (std::uint32_t sector = 0; sector < sectors; ++sector) {
        nodes_[nr_leaves_ + sector] = make_leaf(sector);
    }
    std::uint32_t child_slots = per_sector_;
    for (std::uint32_t level = nr_leaves_ / 2; level > 0; level /= 2) {
        for (std::uint32_t i = level; i < level * 2; ++i) {
            nodes_[i] = combine(nodes_[i * 2], nodes_[i * 2 + 1], child_slots);
        }
        child_slots *= 2;
    }
}

void SlotMap::set(SlotRun run, bool used) {
    if (run.count == 0) {
        return;
    }
    BUG_ON(run.end() > size());
    for (std::uint32_t slot = run.first; slot < run.end(); ++slot) {
        used_[slot] = used;
    }
    std::uint32_t first = nr_leaves_ + run.first / per_sector_;
    std::uint32_t last = nr_leaves_ + (run.end() - 1) / per_sector_;
    for (std::uint32_t i = first; i <= last; ++i) {
        nodes_[i] = make_leaf(i - nr_leaves_);
    }
    for (std::uint32_t child_slots = per_sector_; first > 1; child_slots *= 2) {
        first /= 2;
        last /= 2;
        for (std::uint32_t i = first; i <= last; ++i) {
            nodes_[i] = combine(nodes_[i * 2], nodes_[i * 2 + 1], child_slots);
        }
    }
}

std::optional<std::uint32_t> SlotMap::scan(std::uint32_t first, std::uint32_t end, std::uint32_t n,
                                           SlotRun also_free) const {
    std::uint32_t run = 0;
    for (std::uint32_t slot = first; slot < end; ++slot) {
        run = used_[slot] && !also_free.contains(slot) ? 0 : run + 1;
        if (run == n) {
            return slot + 1 - n;
        }
    }
    return std::nullopt;
}

std::optional<std::uint32_t> SlotMap::find_in_sector(std::uint32_t n) const {
    if (nodes_.empty() || nodes_[1].best_in_sector < n) {
        return std::nullopt;
    }
    std::uint32_t i = 1;
    while (i < nr_leaves_) {
        i = nodes_[i * 2].best_in_sector >= n ? i * 2 : i * 2 + 1;
    }
    const std::uint32_t first = (i - nr_leaves_) * per_sector_;
    return scan(first, first + per_sector_, n, {});
}

std::optional<std::uint32_t> SlotMap::find_in_sector_of(SlotRun also_free, std::uint32_t n) const {
    const std::uint32_t first = also_free.first / per_sector_ * per_sector_;
    return scan(first, first + per_sector_, n, also_free);
}

std::optional<std::uint32_t> SlotMap::find_anywhere(std::uint32_t n) const {
    if (nodes_.empty() || nodes_[1].best < n) {
        return std::nullopt;
    }
    std::uint32_t i = 1;
    std::uint32_t first = 0;
    std::uint32_t child_slots = nr_leaves_ * per_sector_ / 2;
    while (i < nr_leaves_) {
        const Node& left = nodes_[i * 2];
        if (left.best >= n) {
            i = i * 2;
        } else if (left.suffix + nodes_[i * 2 + 1].prefix >= n) {
            return first + child_slots - left.suffix;
        } else {
            i = i * 2 + 1;
            first += child_slots;
        }
        child_slots /= 2;
    }
    return scan(first, first + per_sector_, n, {});
}

}  // namespace wbfat::fs::inline WBFAT_RT
