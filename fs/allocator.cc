// The free-cluster bitmap and the search in it.
#include "fs/allocator.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <optional>

#include "cache/base/check.h"
#include "cache/block_use.h"
#include "fs/layout.h"
#include "fs/run_set.h"

namespace wbfat::fs::inline WBFAT_RT {
namespace {

constexpr std::uint32_t kGroupShift = 15;
constexpr std::uint32_t kGroupClusters = 1U << kGroupShift;
constexpr std::uint32_t kWordBits = 64;

// Groups looked at before a search for one long run is given up, and how many of them it may read
// from the disk.
constexpr std::uint32_t kSearchGroups = 16;
constexpr std::uint32_t kSearchLoads = 2;
// Groups read at once by a full scan.
constexpr std::uint32_t kScanGroups = 8;
// Clusters left to each of several files that grow in turns.
constexpr std::uint32_t kSpreadClusters = 64;

}  // namespace

// Positions count from 0: cluster number - 2.
struct Allocator::Group {
    std::array<std::uint64_t, kGroupClusters / kWordBits> bits{};  // set: free (A1)
    std::uint32_t nr_free = 0;
    std::uint32_t longest =
        kGroupClusters;  // no free run inside is longer; may be too large, never too small

    bool is_free(std::uint32_t i) const {
        return ((bits.at(i / kWordBits) >> (i % kWordBits)) & 1U) != 0;
    }
    // The first position in [i, end) that is free (or used); end if there is none.
    std::uint32_t find(std::uint32_t i, std::uint32_t end, bool free) const {
        while (i < end) {
            const std::uint64_t word = free ? bits.at(i / kWordBits) : ~bits.at(i / kWordBits);
            const std::uint64_t rest = word >> (i % kWordBits);
            if (rest != 0) {
                return std::min(end, i + static_cast<std::uint32_t>(std::countr_zero(rest)));
            }
            i = (i / kWordBits + 1) * kWordBits;
        }
        return end;
    }
    void assign(std::uint32_t first, std::uint32_t end, bool free) {
        for (std::uint32_t i = first; i < end;) {
            const std::uint32_t stop = std::min(end, (i / kWordBits + 1) * kWordBits);
            const std::uint32_t width = stop - i;
            const std::uint64_t mask = (width == kWordBits ? ~0ULL : (1ULL << width) - 1)
                                       << (i % kWordBits);
            std::uint64_t& word = bits.at(i / kWordBits);
            word = free ? word | mask : word & ~mask;
            i = stop;
        }
    }
};

class Allocator::Impl {
public:
    Impl(const Geometry& geometry, FatTable& fat, const FsInfo& hint, bool trust_free_count);

    Result<std::vector<ClusterRun>> allocate(std::uint32_t count, cluster_t goal,
                                             bool& pending_would_do) EXCLUDES(lock_);
    void cancel(const ClusterRun& run) EXCLUDES(lock_);
    bool free_later(const ClusterRun& run) EXCLUDES(lock_);
    std::vector<ClusterRun> pending_runs() const EXCLUDES(lock_);
    void release_pending() EXCLUDES(lock_);
    Result<std::uint32_t> free_count() EXCLUDES(lock_);
    std::uint32_t free_count_if_known() const EXCLUDES(lock_);
    cluster_t next_free_hint() const EXCLUDES(lock_);
    Result<> for_each_free_run(const ClusterRun& range, std::uint32_t minimum,
                               const std::function<Result<>(const ClusterRun&)>& visit)
        EXCLUDES(lock_);

private:
    // How hard a pass of the search tries.
    struct Effort {
        std::uint32_t minimum;  // shorter runs are left alone (unless nothing more is needed)
        std::uint32_t groups;
        std::uint32_t loads;
    };
    struct Request {
        std::uint32_t need;
        std::vector<ClusterRun> runs;
    };

    std::uint32_t nr_groups() const {
        return nr_groups_;
    }
    std::uint32_t group_size(std::uint32_t group) const {
        return std::min(kGroupClusters, nr_positions_ - (group << kGroupShift));
    }
    bool is_position(std::uint32_t position) const {
        return position < nr_positions_;
    }
    void check_run(const ClusterRun& run) const;

    Result<> load_locked(std::uint32_t first_group, std::uint32_t count) REQUIRES(lock_);
    Result<> ensure_loaded_locked(std::uint32_t group) REQUIRES(lock_);
    template <typename Visit>
    void for_each_part_locked(std::uint32_t position, std::uint32_t count, Visit&& visit)
        REQUIRES(lock_);
    void mark_locked(std::uint32_t position, std::uint32_t count, bool free) REQUIRES(lock_);
    std::uint32_t extent_locked(std::uint32_t position, std::uint32_t most) const REQUIRES(lock_);
    void take_locked(std::uint32_t position, std::uint32_t count, Request& request) REQUIRES(lock_);
    void give_back_locked(const std::vector<ClusterRun>& runs) REQUIRES(lock_);
    void search_group_locked(std::uint32_t from, std::uint32_t to, std::uint32_t minimum,
                             Request& request) REQUIRES(lock_);
    Result<> search_locked(std::uint32_t start, Effort effort, Request& request) REQUIRES(lock_);
    Result<> search_everywhere_locked(std::uint32_t start, Request& request) REQUIRES(lock_);
    Result<> extend_locked(std::uint32_t position, Request& request) REQUIRES(lock_);
    std::uint32_t place_next_piece_locked(std::uint32_t need) REQUIRES(lock_);
    std::optional<std::uint32_t> known_free_locked() const REQUIRES(lock_);

    // Constant after construction.
    const Geometry& geometry_;
    FatTable& fat_;
    const std::uint32_t nr_positions_;
    const std::uint32_t nr_groups_;

    mutable sync::Mutex lock_;
    std::vector<std::unique_ptr<Group>> groups_ GUARDED_BY(lock_);  // null: not read yet
    std::uint32_t nr_loaded_ GUARDED_BY(lock_) = 0;
    std::uint32_t nr_free_ GUARDED_BY(lock_) = 0;  // in loaded groups
    RunSet pending_ GUARDED_BY(lock_);
    std::uint32_t cursor_ GUARDED_BY(lock_) = 0;  // where next-fit goes on
    std::uint32_t spread_ GUARDED_BY(lock_) =
        0;  // where the next piece of a file without room goes
    // FSINFO's count, kept up to date, pending ones included; counts until every group is loaded.
    std::optional<std::uint32_t> trusted_free_ GUARDED_BY(lock_);
};

Allocator::Impl::Impl(const Geometry& geometry, FatTable& fat, const FsInfo& hint,
                      bool trust_free_count)
    : geometry_(geometry),
      fat_(fat),
      nr_positions_(geometry.nr_clusters),
      nr_groups_(static_cast<std::uint32_t>(
          (std::uint64_t{geometry.nr_clusters} + kGroupClusters - 1) >> kGroupShift)),
      groups_(nr_groups_) {
    if (hint.valid && geometry.is_data_cluster(hint.next_free)) {
        cursor_ = hint.next_free - kFirstCluster;
    }
    if (hint.valid && trust_free_count && hint.free_clusters <= geometry.nr_clusters) {
        trusted_free_ = hint.free_clusters;
    }
}

void Allocator::Impl::check_run(const ClusterRun& run) const {
    BUG_ON(run.count == 0 || !geometry_.is_data_cluster(run.first) ||
               !geometry_.is_data_cluster(run.first + (run.count - 1)),
           "A2", "no such clusters");
}

// --- the bitmap
// --------------------------------------------------------------------------------------------------------

// Reads `count` groups, none of them loaded, from the table. Pending clusters may be free in its
// pages already.
Result<> Allocator::Impl::load_locked(std::uint32_t first_group, std::uint32_t count) {
    std::vector<std::unique_ptr<Group>> fresh(count);
    for (std::unique_ptr<Group>& group : fresh) {
        group = std::make_unique<Group>();
    }
    const std::uint32_t base = first_group << kGroupShift;
    const std::uint32_t size = (count - 1) * kGroupClusters + group_size(first_group + count - 1);
    const auto assign = [&fresh](std::uint32_t from, std::uint32_t length, bool free) {
        while (length != 0) {
            const std::uint32_t inside = from & (kGroupClusters - 1);
            const std::uint32_t part = std::min(length, kGroupClusters - inside);
            fresh[from >> kGroupShift]->assign(inside, inside + part, free);
            from += part;
            length -= part;
        }
    };
    const ClusterRun all{base + kFirstCluster, size};
    TRY_VOID(fat_.for_each_free_run(
        all.first, all.first + (size - 1),
        [&](cluster_t first, cluster_t length) { assign(first - all.first, length, true); }));
    pending_.for_each_in(
        all, [&](const ClusterRun& run) { assign(run.first - all.first, run.count, false); });
    for (std::uint32_t i = 0; i < count; ++i) {
        Group& group = *fresh[i];
        for (const std::uint64_t word : group.bits) {
            group.nr_free += static_cast<std::uint32_t>(std::popcount(word));
        }
        nr_free_ += group.nr_free;
        groups_[first_group + i] = std::move(fresh[i]);
    }
    nr_loaded_ += count;
    return {};
}

Result<> Allocator::Impl::ensure_loaded_locked(std::uint32_t group) {
    return groups_[group] != nullptr ? Result<>() : load_locked(group, 1);
}

// Calls visit(group, first, end) for the parts of the range in loaded groups.
template <typename Visit>
void Allocator::Impl::for_each_part_locked(std::uint32_t position, std::uint32_t count,
                                           Visit&& visit) {
    while (count != 0) {
        const std::uint32_t inside = position & (kGroupClusters - 1);
        const std::uint32_t part = std::min(count, kGroupClusters - inside);
        Group* const group = groups_[position >> kGroupShift].get();
        if (group != nullptr) {
            visit(*group, inside, inside + part);
        }
        position += part;
        count -= part;
    }
}

// Requires: the loaded part of the range is in the other state.
void Allocator::Impl::mark_locked(std::uint32_t position, std::uint32_t count, bool free) {
    std::uint32_t changed = 0;
    for_each_part_locked(position, count,
                         [&](Group& group, std::uint32_t first, std::uint32_t end) {
                             group.assign(first, end, free);
                             group.nr_free += free ? end - first : first - end;
                             group.longest = free ? kGroupClusters : group.longest;
                             changed += end - first;
                         });
    nr_free_ += free ? changed : 0U - changed;
}

// Length of the free run at `position`, up to `most`, as far as groups are loaded.
std::uint32_t Allocator::Impl::extent_locked(std::uint32_t position, std::uint32_t most) const {
    std::uint32_t length = 0;
    while (length < most && is_position(position + length)) {
        const Group* const group = groups_[(position + length) >> kGroupShift].get();
        if (group == nullptr) {
            break;
        }
        const std::uint32_t inside = (position + length) & (kGroupClusters - 1);
        const std::uint32_t end =
            std::min(kGroupClusters, inside + std::min(most - length, kGroupClusters));
        const std::uint32_t used = group->find(inside, end, false);
        length += used - inside;
        if (used < kGroupClusters) {
            break;
        }
    }
    return std::min(length, nr_positions_ - position);
}

// --- the search
// ----------------------------------------------------------------------------------------------------------

void Allocator::Impl::take_locked(std::uint32_t position, std::uint32_t count, Request& request) {
    mark_locked(position, count, false);
    request.need -= count;
    const cluster_t first = position + kFirstCluster;
    if (!request.runs.empty() && request.runs.back().first + request.runs.back().count == first) {
        request.runs.back().count += count;
    } else {
        request.runs.push_back({first, count});
    }
}

void Allocator::Impl::give_back_locked(const std::vector<ClusterRun>& runs) {
    for (const ClusterRun& run : runs) {
        mark_locked(run.first - kFirstCluster, run.count, true);
    }
}

// Takes runs that begin in [from, to) of one loaded group and are long enough; they may end in the
// next ones.
void Allocator::Impl::search_group_locked(std::uint32_t from, std::uint32_t to,
                                          std::uint32_t minimum, Request& request) {
    Group& group = *groups_[from >> kGroupShift];
    const std::uint32_t base = from & ~(kGroupClusters - 1);
    const bool whole = from == base && to == base + group_size(from >> kGroupShift);
    std::uint32_t longest = 0;
    std::uint32_t i = from - base;
    while (request.need != 0) {
        i = group.find(i, to - base, true);
        if (i == to - base) {
            break;
        }
        const std::uint32_t length = extent_locked(base + i, request.need);
        if (length >= std::min(minimum, request.need)) {
            take_locked(base + i, length, request);
        } else {
            longest = std::max(longest, length);
        }
        i = std::min(i + length, to - base);
    }
    if (whole && request.need != 0) {
        group.longest = longest;  // everything longer was just taken
    }
}

// One turn round the volume from `start`, or until the effort is spent or the need met.
Result<> Allocator::Impl::search_locked(std::uint32_t start, Effort effort, Request& request) {
    const std::uint32_t first_group = start >> kGroupShift;
    const std::uint32_t turns = std::min(nr_groups(), effort.groups);
    std::uint32_t loads = 0;
    // The group of `start` comes twice: from there to its end, and at last up to there.
    for (std::uint32_t turn = 0; turn <= turns && request.need != 0; ++turn) {
        const std::uint32_t number = (first_group + turn) % nr_groups();
        const bool is_last_part = turn == nr_groups();
        if (groups_[number] == nullptr) {
            if (loads == effort.loads) {
                continue;
            }
            ++loads;
            TRY_VOID(load_locked(number, 1));
        }
        const std::uint32_t wanted = std::min(effort.minimum, request.need);
        if (groups_[number]->nr_free == 0 || groups_[number]->longest < wanted) {
            continue;
        }
        const std::uint32_t base = number << kGroupShift;
        const std::uint32_t from = turn == 0 ? start : base;
        const std::uint32_t to = is_last_part ? start : base + group_size(number);
        if (from < to) {
            search_group_locked(from, to, effort.minimum, request);
        }
    }
    return {};
}

Result<> Allocator::Impl::search_everywhere_locked(std::uint32_t start, Request& request) {
    if (request.need > 1) {
        TRY_VOID(search_locked(start, {request.need, kSearchGroups, kSearchLoads}, request));
    }
    if (request.need > 4) {
        TRY_VOID(search_locked(start, {request.need / 4, kSearchGroups, 0}, request));
    }
    if (request.need != 0) {
        TRY_VOID(search_locked(start, {1, nr_groups(), nr_groups()}, request));
    }
    return {};
}

// As much as is free from `position` on.
Result<> Allocator::Impl::extend_locked(std::uint32_t position, Request& request) {
    while (request.need != 0 && is_position(position)) {
        TRY_VOID(ensure_loaded_locked(position >> kGroupShift));
        const std::uint32_t length = extent_locked(position, request.need);
        if (length == 0) {
            break;
        }
        take_locked(position, length, request);
        position += length;
    }
    return {};
}

// Where a file goes on whose goal is taken: ahead of the cursor, each time in a window of its own.
std::uint32_t Allocator::Impl::place_next_piece_locked(std::uint32_t need) {
    const std::uint64_t ahead = std::uint64_t{cursor_} + kSpreadClusters;
    std::uint64_t place = std::max<std::uint64_t>(spread_, ahead);
    if (place + need > nr_positions_) {
        place = ahead + need > nr_positions_ ? cursor_ : ahead;
    }
    spread_ = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(place + std::max(need, kSpreadClusters), nr_positions_));
    return static_cast<std::uint32_t>(place);
}

Result<std::vector<ClusterRun>> Allocator::Impl::allocate(std::uint32_t count, cluster_t goal,
                                                          bool& pending_would_do) {
    BUG_ON(count == 0, "nothing to allocate");
    sync::MutexLock lock(lock_);
    pending_would_do = false;
    Request request{count, {}};
    const bool has_goal = geometry_.is_data_cluster(goal);
    Result<> result;
    if (count <= nr_positions_) {
        result = has_goal ? extend_locked(goal - kFirstCluster + 1, request) : Result<>();
        const bool spread = has_goal && request.need == count && count < kSpreadClusters;
        if (result.has_value() && request.need != 0) {
            result = search_everywhere_locked(spread ? place_next_piece_locked(count) : cursor_,
                                              request);
        }
        if (!spread && result.has_value() && request.need == 0) {
            const ClusterRun& last = request.runs.back();
            const std::uint32_t end = last.first - kFirstCluster + last.count;
            cursor_ = is_position(end) ? end : 0;
        }
    }
    if (result.has_value() && request.need == 0) {
        if (trusted_free_.has_value()) {
            trusted_free_ = *trusted_free_ - std::min(count, *trusted_free_);
        }
        return std::move(request.runs);
    }
    give_back_locked(request.runs);
    if (!result.has_value()) {
        return result.error();
    }
    pending_would_do = std::uint64_t{nr_free_} + pending_.size() >= count;
    return Errno{ENOSPC};
}

// --- giving back
// -----------------------------------------------------------------------------------------------------------

void Allocator::Impl::cancel(const ClusterRun& run) {
    check_run(run);
    sync::MutexLock lock(lock_);
    const std::uint32_t position = run.first - kFirstCluster;
    std::uint32_t nr_used = 0;
    for_each_part_locked(position, run.count,
                         [&](Group& group, std::uint32_t first, std::uint32_t end) {
                             nr_used += group.find(first, end, true) == end ? end - first : 0;
                         });
    BUG_ON(nr_used != run.count || pending_.count_in(run) != 0, "A2",
           "a cluster is given back that was not handed out");
    mark_locked(position, run.count, true);
    if (trusted_free_.has_value()) {
        trusted_free_ = *trusted_free_ + run.count;
    }
}

bool Allocator::Impl::free_later(const ClusterRun& run) {
    check_run(run);
    sync::MutexLock lock(lock_);
    std::uint32_t added = 0;
    cluster_t cluster = run.first;
    const cluster_t end = run.first + run.count;
    while (cluster < end) {
        // Up to the next free cluster or the end of the group; the free ones are passed over.
        const std::uint32_t position = cluster - kFirstCluster;
        const std::uint32_t inside = position & (kGroupClusters - 1);
        const std::uint32_t part = std::min(end - cluster, kGroupClusters - inside);
        const Group* const group = groups_[position >> kGroupShift].get();
        const std::uint32_t used =
            group == nullptr ? part : group->find(inside, inside + part, true) - inside;
        if (used != 0) {
            added += pending_.insert({cluster, used});
        }
        const std::uint32_t skipped =
            group == nullptr ? 0
                             : group->find(inside + used, inside + part, false) - (inside + used);
        cluster += used + skipped;
    }
    if (trusted_free_.has_value()) {
        trusted_free_ = std::min(*trusted_free_ + added, nr_positions_);
    }
    return added == run.count;
}

std::vector<ClusterRun> Allocator::Impl::pending_runs() const {
    const sync::MutexLock lock(lock_);
    std::vector<ClusterRun> runs;
    pending_.for_each([&runs](const ClusterRun& run) { runs.push_back(run); });
    return runs;
}

void Allocator::Impl::release_pending() {
    sync::MutexLock lock(lock_);
    RunSet released;
    released.swap(pending_);
    // Groups not loaded yet will find these clusters free in the table.
    released.for_each([&](const ClusterRun& run) {
        lock_.assert_held();
        mark_locked(run.first - kFirstCluster, run.count, true);
    });
}

// --- counting
// --------------------------------------------------------------------------------------------------------------

std::optional<std::uint32_t> Allocator::Impl::known_free_locked() const {
    if (nr_loaded_ < nr_groups()) {
        return trusted_free_;
    }
    return nr_free_ + pending_.size();
}

Result<std::uint32_t> Allocator::Impl::free_count() {
    for (std::uint32_t number = 0;; number += kScanGroups) {
        sync::MutexLock lock(lock_);  // dropped between the pieces: others go on allocating
        const std::optional<std::uint32_t> known = known_free_locked();
        if (known.has_value()) {
            return *known;
        }
        const std::uint32_t end = std::min(number + kScanGroups, nr_groups());
        for (std::uint32_t i = number; i < end;) {
            std::uint32_t count = 0;
            while (i + count < end && groups_[i + count] == nullptr) {
                ++count;
            }
            if (count != 0) {
                TRY_VOID(load_locked(i, count));
            }
            i += count + 1;
        }
    }
}

std::uint32_t Allocator::Impl::free_count_if_known() const {
    sync::MutexLock lock(lock_);
    return known_free_locked().value_or(kFsInfoUnknown);
}

cluster_t Allocator::Impl::next_free_hint() const {
    sync::MutexLock lock(lock_);
    return cursor_ + kFirstCluster;
}

Result<> Allocator::Impl::for_each_free_run(
    const ClusterRun& range, std::uint32_t minimum,
    const std::function<Result<>(const ClusterRun&)>& visit) {
    check_run(range);
    sync::MutexLock lock(lock_);
    const std::uint32_t end = range.first - kFirstCluster + range.count;
    ClusterRun run;
    const auto end_run = [&]() -> Result<> {
        const ClusterRun ended = run;
        run.count = 0;
        return ended.count != 0 && ended.count >= minimum ? visit(ended) : Result<>();
    };
    for (std::uint32_t position = range.first - kFirstCluster; position < end;) {
        const std::uint32_t number = position >> kGroupShift;
        TRY_VOID(ensure_loaded_locked(number));
        const Group& group = *groups_[number];
        const std::uint32_t base = number << kGroupShift;
        const std::uint32_t stop = std::min(end - base, group_size(number));
        const std::uint32_t free = group.find(position - base, stop, true);
        if (free != position - base || free == stop) {
            TRY_VOID(end_run());
        }
        const std::uint32_t used = group.find(free, stop, false);
        run.first = run.count == 0 ? base + free + kFirstCluster : run.first;
        run.count += used - free;
        position = base + used;
    }
    return end_run();
}

// --- the door
// ----------------------------------------------------------------------------------------------------------------

Allocator::Allocator(const Geometry& geometry, FatTable& fat, cache::BlockUse& blocks,
                     const FsInfo& hint, bool trust_free_count)
    : impl_(std::make_unique<Impl>(geometry, fat, hint, trust_free_count)),
      geometry_(geometry),
      blocks_(blocks) {}

Allocator::~Allocator() = default;

std::uint64_t Allocator::bytes_of(const ClusterRun& run) const {
    return std::uint64_t{run.count} << geometry_.cluster_shift;
}

Result<std::vector<ClusterRun>> Allocator::allocate(std::uint32_t count, cluster_t goal,
                                                    bool& pending_would_do) {
    Result<std::vector<ClusterRun>> runs = impl_->allocate(count, goal, pending_would_do);
    if (runs.has_value()) {
        for (const ClusterRun& run : *runs) {
            blocks_.note_allocated(geometry_.cluster_offset_bytes(run.first), bytes_of(run));
        }
    }
    return runs;
}

void Allocator::cancel(const ClusterRun& run) {
    blocks_.note_freed(geometry_.cluster_offset_bytes(run.first), bytes_of(run));
    impl_->cancel(run);
}

bool Allocator::free_later(const ClusterRun& run) {
    blocks_.note_freed(geometry_.cluster_offset_bytes(run.first), bytes_of(run));
    return impl_->free_later(run);
}

std::vector<ClusterRun> Allocator::pending_runs() const {
    return impl_->pending_runs();
}

void Allocator::release_pending() {
    impl_->release_pending();
}

Result<std::uint32_t> Allocator::free_count() {
    return impl_->free_count();
}

std::uint32_t Allocator::free_count_if_known() const {
    return impl_->free_count_if_known();
}

cluster_t Allocator::next_free_hint() const {
    return impl_->next_free_hint();
}

Result<> Allocator::for_each_free_run(cluster_t first, cluster_t last, std::uint32_t minimum,
                                      const std::function<Result<>(const ClusterRun&)>& visit) {
    BUG_ON(last < first, "no such clusters");
    return impl_->for_each_free_run({first, last - first + 1}, minimum, visit);
}

}  // namespace wbfat::fs::inline WBFAT_RT
