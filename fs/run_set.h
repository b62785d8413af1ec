// A set of clusters kept as disjoint runs: what is freed but not yet allocatable, and what is to be
// freed.
//
// Locking: none; the owner's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>

#include "fs/geometry.h"

namespace wbfat::fs::inline WBFAT_RT {

class RunSet {
public:
    // Adds the run; clusters that are in the set already stay. Returns how many are new.
    std::uint32_t insert(const ClusterRun& run) {
        cluster_t first = run.first;
        cluster_t end = run.first + run.count;
        std::uint32_t known = 0;
        auto it = first_ending_at_or_after(first);
        while (it != runs_.end() && it->first <= end) {
            known += overlap(it->first, it->second, run);
            first = std::min(first, it->first);
            end = std::max(end, it->second);
            it = runs_.erase(it);
        }
        runs_.emplace_hint(it, first, end);
        size_ += run.count - known;
        return run.count - known;
    }

    // Removes what is in the set of the run. Returns how many that were.
    std::uint32_t erase(const ClusterRun& run) {
        const cluster_t end = run.first + run.count;
        std::uint32_t removed = 0;
        auto it = first_ending_at_or_after(run.first);
        while (it != runs_.end() && it->first < end) {
            const auto [old_first, old_end] = *it;
            removed += overlap(old_first, old_end, run);
            it = runs_.erase(it);
            if (old_first < run.first) {
                runs_.emplace_hint(it, old_first, std::min(old_end, run.first));
            }
            if (old_end > end) {
                it = runs_.emplace_hint(it, std::max(old_first, end), old_end);
                break;
            }
        }
        size_ -= removed;
        return removed;
    }

    [[nodiscard]] bool contains(cluster_t cluster) const {
        return count_in({cluster, 1}) != 0;
    }
    // How many clusters of `run` are in the set.
    [[nodiscard]] std::uint32_t count_in(const ClusterRun& run) const {
        std::uint32_t count = 0;
        for_each_in(run, [&count](const ClusterRun& part) { count += part.count; });
        return count;
    }
    // Calls visit(part) for the parts of `run` that are in the set, ascending.
    template <typename Visit>
    void for_each_in(const ClusterRun& run, Visit&& visit) const {
        const cluster_t end = run.first + run.count;
        for (auto it = runs_.upper_bound(run.first) == runs_.begin()
                           ? runs_.begin()
                           : std::prev(runs_.upper_bound(run.first));
             it != runs_.end() && it->first < end; ++it) {
            const std::uint32_t count = overlap(it->first, it->second, run);
            if (count != 0) {
                visit(ClusterRun{std::max(it->first, run.first), count});
            }
        }
    }
    template <typename Visit>
    void for_each(Visit&& visit) const {
        for (const auto& [first, end] : runs_) {
            visit(ClusterRun{first, end - first});
        }
    }

    [[nodiscard]] bool empty() const {
        return runs_.empty();
    }
    // Clusters, not runs.
    [[nodiscard]] std::uint32_t size() const {
        return size_;
    }
    void clear() {
        runs_.clear();
        size_ = 0;
    }
    void swap(RunSet& other) noexcept {
        runs_.swap(other.runs_);
        std::swap(size_, other.size_);
    }

private:
    using Runs = std::map<cluster_t, cluster_t>;  // first -> end, neither touching nor overlapping

    static std::uint32_t overlap(cluster_t first, cluster_t end, const ClusterRun& run) {
        const cluster_t from = std::max(first, run.first);
        const cluster_t to = std::min(end, run.first + run.count);
        return from < to ? to - from : 0;
    }
    Runs::iterator first_ending_at_or_after(cluster_t cluster) {
        auto it = runs_.upper_bound(cluster);
        if (it != runs_.begin() && std::prev(it)->second >= cluster) {
            --it;
        }
        return it;
    }

    Runs runs_;
    std::uint32_t size_ = 0;
};

}  // namespace wbfat::fs::inline WBFAT_RT
