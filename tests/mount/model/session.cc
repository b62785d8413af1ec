// A run on two directories.
#include "tests/mount/model/session.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include <linux/falloc.h>
#include <sys/statfs.h>

namespace wbfat::model {
namespace {

// Far from what the clock says, so that it is compared exactly.
constexpr std::uint64_t kSettledSeconds = 1'000'000'000;
constexpr std::size_t kMaxMovedPathBytes = 3000;
constexpr std::uint64_t kPageBytes = 4096;

bool writes(Kind kind) {
    return kind == Kind::kWrite || kind == Kind::kPwrite || kind == Kind::kWritev;
}

bool reads(Kind kind) {
    return kind == Kind::kRead || kind == Kind::kPread || kind == Kind::kLoad ||
           kind == Kind::kReadFile;
}

bool grows(Kind kind) {
    return writes(kind) || kind == Kind::kTruncate || kind == Kind::kFtruncate ||
           kind == Kind::kFallocate || kind == Kind::kCopyRange || kind == Kind::kReplace ||
           kind == Kind::kMkdir || kind == Kind::kOpen || kind == Kind::kMknod ||
           kind == Kind::kRename;
}

}  // namespace

Session::Session(const std::string& directory, const std::string& reference, const Limits& limits)
    : limits_(limits),
      under_test_(directory, limits.max_size + kPageBytes, limits.max_size + kPageBytes),
      reference_(reference, limits.max_size + kPageBytes, limits.max_size + kPageBytes) {
    under_test_.use_direct(limits.use_direct);
}

Resolved Session::of_slot(unsigned slot) const {
    Resolved resolved;
    resolved.node = slots_[slot];
    return resolved;
}

// Writes that would leave the largest size, and loads and stores beyond the end.
void Session::fit(Op& op) const {
    if (op.kind == Kind::kRename) {
        fit_rename(op);
    }
    if (!uses_slot(op.kind) || slots_[op.slot] == nullptr) {
        return;
    }
    if (op.kind == Kind::kStore || op.kind == Kind::kLoad) {
        const auto size = static_cast<std::uint64_t>(reference_.fstat(op.slot).st_size);
        const std::uint64_t reach = std::min(size, limits_.max_size);
        op.offset = reach == 0 ? 0 : op.offset % reach;
        op.length = std::min(op.length, reach - op.offset);
    }
    fit_write(op);
}

// A moved subtree must keep names that a path can hold.
void Session::fit_rename(Op& op) const {
    const Resolved from = tree_.resolve(op.path);
    const Resolved to = tree_.resolve(op.path2);
    const auto fits = [](const NodeRef& moved, const NodeRef& parent) {
        return moved == nullptr || parent == nullptr || !moved->is_dir ||
               path_bytes(*parent) + subtree_bytes(*moved) < kMaxMovedPathBytes;
    };
    const bool exchange = (op.flags & RENAME_EXCHANGE) != 0;
    if (!fits(from.node, to.parent) || (exchange && !fits(to.node, from.parent))) {
        op.kind = Kind::kStat;
    }
}

void Session::fit_write(Op& op) const {
    if (writes(op.kind)) {
        const bool absolute = op.kind == Kind::kPwrite && !reference_.is_append(op.slot);
        const std::uint64_t at = absolute ? op.offset
                                 : reference_.is_append(op.slot)
                                     ? static_cast<std::uint64_t>(reference_.fstat(op.slot).st_size)
                                     : reference_.position(op.slot);
        const bool four_gib = absolute && op.offset > limits_.max_size + kPageBytes;
        if (!four_gib && at + op.length > limits_.max_size) {
            op.kind = Kind::kFtruncate;
            op.offset = op.value % 3000;
        }
    }
}

std::string Session::apply(Op& op) {
    fit(op);
    if (uses_slot(op.kind) && slots_[op.slot] == nullptr) {
        return "";  // left over where shrinking took the open away
    }
    if (op.kind == Kind::kCopyRange && slots_[op.slot2] == nullptr) {
        return "";
    }
    const Resolved first = uses_slot(op.kind) ? of_slot(op.slot) : tree_.resolve(op.path);
    const Resolved second = tree_.resolve(op.path2);
    if (op.kind == Kind::kReaddir ||
        (op.kind == Kind::kOpen && first.node != nullptr && first.node->is_dir &&
         (op.flags & (O_ACCMODE | O_CREAT)) == 0)) {
        return first.node != nullptr && first.node->is_dir
                   ? compare_names(under_test_, first.under_test, *first.node)
                   : "";
    }
    if (op.kind == Kind::kStatfs) {
        struct statfs volume {};
        const bool sane = fstatfs(under_test_.root(), &volume) == 0 &&
                          volume.f_bfree <= volume.f_blocks && volume.f_bavail <= volume.f_bfree &&
                          volume.f_bsize > 0 && volume.f_namelen >= 255;
        return sane ? "" : "statfs contradicts itself";
    }
    if (op.kind == Kind::kOpen) {
        close_slot(op.slot);
    }
    last_node_ = first.node != nullptr ? first.node.get() : nullptr;
    Outcome found = under_test_.run(op, first.under_test, second.under_test);
    if (limits_.may_fill && found.error == ENOSPC &&
        !may_be_full(under_test_.root(), growth_of(op, first))) {
        // The clusters of a removed file come back after its last close(2): the kernel sends the
        // release later.
        found = under_test_.run(op, first.under_test, second.under_test);
    }
    const Plan plan = plan_reference(op, first, second, reference_);
    const bool writes_short =
        writes(op.kind) && found.ok() && found.value < static_cast<std::int64_t>(op.length);
    if (limits_.may_fill && grows(op.kind) && (found.error == ENOSPC || writes_short)) {
        return take_refusal(op, found, first, second);
    }
    Outcome expected;
    if (plan.run_reference) {
        expected = reference_.run(plan.reference_op, first.reference, second.reference);
    }
    expected = plan.answer.value_or(expected);
    if (std::string difference = compare(op, found, expected, first); !difference.empty()) {
        return difference;
    }
    // A kernel that gathers writes sets the time even for a mode that is refused; and after an
    // O_DIRECT write that failed it takes back what it had grown, by a truncate to the same size.
    if (op.kind == Kind::kFallocate || (writes(op.kind) && !found.ok())) {
        first.node->mtime_unsure = true;
    }
    if (found.ok()) {
        update(op, found, first, second);
    }
    return "";
}

std::string Session::compare(const Op& op, const Outcome& found, const Outcome& expected,
                             const Resolved& target) const {
    const bool mapping_refused = op.kind == Kind::kStore || op.kind == Kind::kLoad;
    if (found.error != expected.error || found.value != expected.value) {
        return fmt::format("{}: {}, not {}", mapping_refused ? "mapping" : "result", to_text(found),
                           to_text(expected));
    }
    if (found.stat && expected.stat) {
        const bool times =
            target.node != nullptr && !target.node->mtime_unsure && target.node != tree_.root();
        return compare_stat(*found.stat, *expected.stat, {times, !limits_.kernel_gathers});
    }
    if (!reads(op.kind)) {
        return "";
    }
    const auto left = under_test_.data();
    const auto right = reference_.data();
    if (!std::equal(left.begin(), left.end(), right.begin(), right.end())) {
        const auto where = std::mismatch(left.begin(), left.end(), right.begin(), right.end());
        const auto at = where.first - left.begin();
        const std::uint64_t start = op.kind == Kind::kRead
                                        ? reference_.position(op.slot) - left.size()
                                    : op.kind == Kind::kReadFile ? 0
                                                                 : op.offset;
        const auto last = std::mismatch(left.rbegin(), left.rend(), right.rbegin(), right.rend());
        const auto end = left.rend() - last.first;
        return fmt::format(
            "data differs from byte {} to {} of the file: {:#04x}, not {:#04x}",
            start + static_cast<std::uint64_t>(at), start + static_cast<std::uint64_t>(end) - 1,
            static_cast<unsigned>(*where.first), static_cast<unsigned>(*where.second));
    }
    return "";
}

std::uint64_t Session::growth_of(const Op& op, const Resolved& first) const {
    std::uint64_t size = 0;
    if (uses_slot(op.kind)) {
        const unsigned slot = op.kind == Kind::kCopyRange ? op.slot2 : op.slot;
        size = static_cast<std::uint64_t>(reference_.fstat(slot).st_size);
    } else if (op.kind == Kind::kTruncate && first.node != nullptr) {
        struct stat now {};
        static_cast<void>(fstatat(reference_.root(), first.reference.c_str(), &now, 0));
        size = static_cast<std::uint64_t>(now.st_size);
    }
    if (writes(op.kind) && reference_.is_append(op.slot)) {
        return op.length;
    }
    switch (op.kind) {
        case Kind::kTruncate:
        case Kind::kFtruncate:
            return op.offset > size ? op.offset - size : 0;
        case Kind::kPwrite:
        case Kind::kFallocate:
            return op.offset + op.length > size ? op.offset + op.length - size : 0;
        case Kind::kCopyRange:
            return op.offset2 + op.length > size ? op.offset2 + op.length - size : 0;
        case Kind::kWrite:
        case Kind::kWritev:
            return std::max(reference_.position(op.slot), size) + op.length - size;
        default:
            return op.length;
    }
}

std::string Session::take_refusal(const Op& op, const Outcome& found, const Resolved& first,
                                  const Resolved& second) {
    ++refused_no_space_;
    if (!may_be_full(under_test_.root(), growth_of(op, first))) {
        return fmt::format("result: {} on a volume with room for it", to_text(found));
    }
    if (found.ok()) {  // a short write
        Op cut = op;
        cut.length = static_cast<std::uint64_t>(found.value);
        Op full = op;
        // The bytes are a function of the place in the call, so the beginning of the same call is
        // the same data.
        full.length = cut.length;
        if (op.kind == Kind::kWritev) {
            full.kind = Kind::kWrite;
        }
        static_cast<void>(reference_.run(full, "", ""));
        update(op, found, first, second);
    }
    if (slots_[op.slot] != nullptr && uses_slot(op.kind)) {
        const unsigned slot = op.kind == Kind::kCopyRange ? op.slot2 : op.slot;
        const auto left = under_test_.fstat(slot).st_size;
        const auto right = reference_.fstat(slot).st_size;
        slots_[slot]->mtime_unsure = true;
        return left == right ? ""
                             : fmt::format("refused, and left a size of {}, not {}", left, right);
    }
    if (first.node != nullptr) {
        first.node->mtime_unsure = true;
    }
    // The directory may have grown before the rest was refused.
    for (const Resolved* resolved : {&first, &second}) {
        if (resolved->parent != nullptr) {
            resolved->parent->mtime_unsure = true;
        }
    }
    return "";
}

void Session::close_slot(unsigned slot) {
    if (slots_[slot] == nullptr) {
        return;
    }
    Op op;
    op.kind = Kind::kClose;
    op.slot = slot;
    both(op, of_slot(slot));
    slots_[slot] = nullptr;
    stored_[slot] = false;
}

void Session::both(const Op& op, const Resolved& target) {
    static_cast<void>(under_test_.run(op, target.under_test, ""));
    static_cast<void>(reference_.run(op, target.reference, ""));
}

void Session::update(const Op& op, const Outcome& outcome, const Resolved& first,
                     const Resolved& second) {
    switch (op.kind) {
        case Kind::kOpen:
            slots_[op.slot] = first.node != nullptr
                                  ? first.node
                                  : tree_.add(*first.parent, shown(op.path.back()), false);
            break;
        case Kind::kClose:
            slots_[op.slot] = nullptr;
            stored_[op.slot] = false;
            break;
        case Kind::kMkdir:
        case Kind::kMknod:
            tree_.add(*first.parent, shown(op.path.back()), op.kind == Kind::kMkdir);
            break;
        case Kind::kReplace: {
            const Name name = first.node != nullptr ? first.node->name : shown(op.path.back());
            if (first.node != nullptr) {
                tree_.remove(*first.node);
            }
            tree_.add(*first.parent, name, false);
            break;
        }
        case Kind::kUnlink:
        case Kind::kRmdir:
            tree_.remove(*first.node);
            break;
        case Kind::kRename:
            update_rename(op, first, second);
            break;
        default:
            update_times(op, outcome, first);
            break;
    }
}

void Session::update_rename(const Op& op, const Resolved& from, const Resolved& to) {
    if (from.node == to.node) {
        // A change of case only: which spelling is it now?
        Node& parent = *from.node->parent;
        const Name old_name = from.node->name;
        const Name new_name = shown(op.path2.back());
        from.node->name = new_name;
        const std::string difference = compare_names(
            under_test_, path_of(parent).empty() ? "." : tree_.resolve(path_of(parent)).under_test,
            parent);
        from.node->name = old_name;
        if (difference.empty() && old_name != new_name) {
            const std::string old_path = tree_.resolve(path_of(*from.node)).reference;
            from.node->name = new_name;
            const std::string new_path = tree_.resolve(path_of(*from.node)).reference;
            static_cast<void>(
                renameat(reference_.root(), old_path.c_str(), reference_.root(), new_path.c_str()));
        }
        parent.mtime_unsure = true;
        return;
    }
    if ((op.flags & RENAME_EXCHANGE) != 0) {
        Tree::exchange(from.node, to.node);
    } else {
        tree_.move(from.node, *to.parent, shown(op.path2.back()));
    }
}

void Session::update_times(const Op& op, const Outcome& outcome, const Resolved& first) {
    Node& node = *first.node;
    const bool mapped = [&] {
        for (unsigned slot = 0; slot < kNrSlots; ++slot) {
            if (stored_[slot] && slots_[slot].get() == &node) {
                return true;
            }
        }
        return false;
    }();
    switch (op.kind) {
        case Kind::kTruncate:
            // truncate(2) to the same size is no change for some.
            static_cast<void>(utimensat(reference_.root(), first.reference.c_str(), nullptr, 0));
            node.mtime_unsure |= limits_.kernel_gathers;
            break;
        case Kind::kFallocate:
            preallocated_ |= (op.flags & FALLOC_FL_KEEP_SIZE) != 0;
            break;
        case Kind::kStore:
            note_stored(op);
            break;
        case Kind::kUnmap:
            if (stored_[op.slot]) {
                stored_[op.slot] = false;
            }
            break;
        case Kind::kUtimens:
        case Kind::kFutimens:
            node.mtime_unsure = mapped;
            break;
        default:
            break;
    }
    static_cast<void>(outcome);
}

void Session::note_stored(const Op& op) {
    if (op.length != 0) {
        stored_[op.slot] = true;
        slots_[op.slot]->mtime_unsure = true;
    }
}

std::string Session::verify(TreeTotals& totals) {
    for (unsigned slot = 0; slot < kNrSlots; ++slot) {
        close_slot(slot);
    }
    std::vector<NodeRef> pending{tree_.root()};
    while (!pending.empty()) {
        const NodeRef node = pending.back();
        pending.pop_back();
        for (const auto& [group, child] : node->children) {
            pending.push_back(child);
        }
        if (node->mtime_unsure && node != tree_.root()) {
            Op op;
            op.kind = Kind::kUtimens;
            op.value = kSettledSeconds;
            both(op, tree_.resolve(path_of(*node)));
        }
        node->mtime_unsure = false;
    }
    return compare_trees(under_test_, reference_, tree_, totals);
}

std::string Session::check_free_count(const TreeTotals& totals) {
    if (fsync(under_test_.root()) != 0) {
        return "fsync of the directory fails";
    }
    const std::uint64_t used = clusters_used(under_test_);
    // Negative where the root is no chain of clusters.
    const auto base = static_cast<std::int64_t>(used) - static_cast<std::int64_t>(totals.clusters);
    if (has_base_ && (base < base_clusters_ || (base > base_clusters_ && !preallocated_))) {
        return fmt::format(
            "statfs says {} clusters are used; {} are the tree's, {} were others' before", used,
            totals.clusters, base_clusters_);
    }
    base_clusters_ = base;
    has_base_ = true;
    return "";
}

}  // namespace wbfat::model
