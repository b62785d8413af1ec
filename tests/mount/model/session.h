// A run on two directories: applies operations to both and says where they part.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "tests/mount/model/rules.h"
#include "tests/mount/model/side.h"
#include "tests/mount/model/tree.h"
#include "tests/mount/model/verify.h"

namespace wbfat::model {

struct Limits {
    std::uint64_t max_size = 256 * 1024;  // largest file, bytes
    unsigned max_nodes = 300;             // files and directories
    bool may_fill = false;                // ENOSPC is an answer
    bool four_gib = true;                 // sizes beyond 4 GiB are tried
    bool use_mmap = true;
    bool use_direct = true;  // O_DIRECT
    // The kernel gathers writes: blocks are allocated late, and it keeps times that FAT cannot
    // hold.
    bool kernel_gathers = false;
};

class Session {
public:
    // Throws std::system_error.
    Session(const std::string& directory, const std::string& reference, const Limits& limits);

    // "" or what differs. `op` becomes what was really done: cut to the limits.
    std::string apply(Op& op);
    // Ends open times and files, then compares everything. "" or what differs.
    std::string verify(TreeTotals& totals);
    // Takes over what an earlier run left. "" or why not.
    std::string load() {
        return load_tree(reference_, tree_);
    }
    // "" or how the free clusters that statfs names contradict the tree. Needs a verify() before.
    std::string check_free_count(const TreeTotals& totals);

    const Tree& tree() const {
        return tree_;
    }
    const Limits& limits() const {
        return limits_;
    }
    bool is_open(unsigned slot) const {
        return slots_[slot] != nullptr;
    }
    // What the last operation was about, to pick its history; may be gone.
    const void* last_node() const {
        return last_node_;
    }
    std::uint64_t refused_no_space() const {
        return refused_no_space_;
    }

private:
    void fit(Op& op) const;
    void fit_write(Op& op) const;
    void fit_rename(Op& op) const;
    std::string compare(const Op& op, const Outcome& found, const Outcome& expected,
                        const Resolved& target) const;
    // ENOSPC: nothing may have changed, or only as much as a short count says.
    std::string take_refusal(const Op& op, const Outcome& found, const Resolved& first,
                             const Resolved& second);
    std::uint64_t growth_of(const Op& op, const Resolved& first) const;
    void update(const Op& op, const Outcome& outcome, const Resolved& first,
                const Resolved& second);
    void update_rename(const Op& op, const Resolved& from, const Resolved& to);
    void update_times(const Op& op, const Outcome& outcome, const Resolved& first);
    void note_stored(const Op& op);
    void close_slot(unsigned slot);
    Resolved of_slot(unsigned slot) const;
    void both(const Op& op, const Resolved& target);

    Limits limits_;
    Tree tree_;
    Side under_test_;
    Side reference_;
    std::array<NodeRef, kNrSlots> slots_{};
    std::array<bool, kNrSlots> stored_{};  // through the mapping of this slot
    const void* last_node_ = nullptr;
    std::uint64_t refused_no_space_ = 0;
    bool preallocated_ = false;
    bool has_base_ = false;
    std::int64_t base_clusters_ = 0;  // in use, but not by the tree
};

}  // namespace wbfat::model
