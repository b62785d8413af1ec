// The table as code.
#include "tests/mount/model/rules.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include <linux/falloc.h>
#include <sys/statfs.h>

namespace wbfat::model {
namespace {

constexpr std::uint64_t kMaxFileBytes = 0xFFFFFFFF;
constexpr std::uint64_t kOldest = 315532800;   // 1980-01-01
constexpr std::uint64_t kNewest = 4354819198;  // 2107-12-31 23:59:58
constexpr int kFullMode = 0755;                // fmask=022
constexpr int kReadOnlyMode = 0555;
// Times given by the clock may be this far apart: the two calls are made one after the other, on a
// busy machine.
constexpr std::int64_t kClockSlackSeconds = 60;
// utimens never gives a time of these years, so a time within them came from the clock.
constexpr std::int64_t kClockBegins = 1'700'000'000;
constexpr std::int64_t kClockEnds = 2'500'000'000;

Plan answered(const Op& op, Outcome answer) {
    return {op, false, answer};
}

bool creates(const Op& op) {
    switch (op.kind) {
        case Kind::kOpen:
            return (op.flags & O_CREAT) != 0;
        case Kind::kMkdir:
        case Kind::kMknod:
        case Kind::kReplace:
            return true;
        default:
            return false;
    }
}

bool is_writable(const Side& side, unsigned slot) {
    // Both sides opened it alike; the flags of the descriptor say how.
    return side.access_mode(slot) != O_RDONLY;
}

Plan plan_rename(const Op& op, const Resolved& from, const Resolved& to) {
    if (from.node == nullptr) {
        return {op, true, std::nullopt};
    }
    if (from.node == to.node) {
        const bool refused = (op.flags & RENAME_NOREPLACE) != 0;
        return answered(op, refused ? Outcome::failed(EEXIST) : Outcome{});
    }
    const bool trapped = is_ancestor_or_self(*from.node, to.parent.get());
    if (to.parent != nullptr && !trapped && is_bad(op.path2.back()) &&
        (op.flags & RENAME_EXCHANGE) == 0) {
        return answered(op, Outcome::failed(bad_name_errno(op.path2.back())));
    }
    return {op, true, std::nullopt};
}

Plan plan_seek(const Op& op, const Side& reference) {
    if (op.flags != SEEK_DATA && op.flags != SEEK_HOLE) {
        return {op, true, std::nullopt};
    }
    const auto size = static_cast<std::uint64_t>(reference.fstat(op.slot).st_size);
    if (op.offset >= size) {
        return answered(op, Outcome::failed(ENXIO));
    }
    Plan plan{op, true, std::nullopt};
    plan.reference_op.flags = SEEK_SET;
    plan.reference_op.offset = op.flags == SEEK_DATA ? op.offset : size;
    return plan;
}

Plan plan_chmod(const Op& op, const Resolved& target, const Side& reference) {
    if (target.node == nullptr) {
        return {op, true, std::nullopt};
    }
    if ((op.flags & ~0777) != 0) {
        return answered(op, Outcome::failed(EPERM));
    }
    struct stat now {};
    static_cast<void>(fstatat(reference.root(), target.reference.c_str(), &now, 0));
    int mode = static_cast<int>(now.st_mode & 0777);
    const bool keeps_read_and_execute = (op.flags & kReadOnlyMode) == kReadOnlyMode;
    if (!target.node->is_dir && keeps_read_and_execute) {
        mode = (op.flags & 0200) != 0 ? kFullMode : kReadOnlyMode;
    }
    Plan plan{op, true, std::nullopt};
    plan.reference_op.flags = mode;
    return plan;
}

Plan plan_special(const Op& op, const Resolved& first, const Resolved& second) {
    const bool is_link = op.kind == Kind::kLink;
    const Resolved& made = is_link ? second : first;
    const bool would_work =
        made.node == nullptr && made.parent != nullptr && (!is_link || first.node != nullptr);
    return would_work ? answered(op, Outcome::failed(EPERM)) : Plan{op, true, std::nullopt};
}

bool is_too_large(const Op& op, const Resolved& target, const Side& reference) {
    switch (op.kind) {
        case Kind::kTruncate:
            return op.offset > kMaxFileBytes && target.node != nullptr && !target.node->is_dir;
        case Kind::kFtruncate:
            return op.offset > kMaxFileBytes && is_writable(reference, op.slot);
        case Kind::kFallocate:
            return op.offset + op.length > kMaxFileBytes && is_writable(reference, op.slot);
        case Kind::kPwrite:
            return op.offset >= kMaxFileBytes && op.length > 0 && is_writable(reference, op.slot) &&
                   !reference.is_append(op.slot);
        default:
            return false;
    }
}

Plan plan_other(const Op& op, const Resolved& first, const Side& reference) {
    Plan plan{op, true, std::nullopt};
    if (op.kind == Kind::kFallocate && (op.flags & ~FALLOC_FL_KEEP_SIZE) != 0 &&
        is_writable(reference, op.slot)) {
        return answered(op, Outcome::failed(EOPNOTSUPP));
    }
    if (is_too_large(op, first, reference)) {
        return answered(op, Outcome::failed(EFBIG));
    }
    if (op.kind == Kind::kUtimens || op.kind == Kind::kFutimens) {
        plan.reference_op.value = on_disk_seconds(op.value);
    }
    if (op.kind == Kind::kChown && op.value != geteuid() && first.node != nullptr) {
        return answered(op, Outcome::failed(EPERM));
    }
    return plan;
}

}  // namespace

Plan plan_reference(const Op& op, const Resolved& first, const Resolved& second,
                    const Side& reference) {
    if (creates(op) && first.parent != nullptr && is_bad(op.path.back())) {
        return answered(op, Outcome::failed(bad_name_errno(op.path.back())));
    }
    switch (op.kind) {
        case Kind::kRename:
            return plan_rename(op, first, second);
        case Kind::kLseek:
            return plan_seek(op, reference);
        case Kind::kChmod:
            return plan_chmod(op, first, reference);
        case Kind::kLink:
        case Kind::kSymlink:
        case Kind::kMkfifo:
            return plan_special(op, first, second);
        default:
            return plan_other(op, first, reference);
    }
}

std::uint64_t on_disk_seconds(std::uint64_t seconds) {
    return std::clamp(seconds, kOldest, kNewest) & ~std::uint64_t{1};
}

std::string compare_stat(const struct stat& under_test, const struct stat& reference,
                         StatChecks checks) {
    if (under_test.st_mode != reference.st_mode) {
        return fmt::format("mode is {:o}, not {:o}", under_test.st_mode, reference.st_mode);
    }
    if (under_test.st_nlink != reference.st_nlink) {
        return fmt::format("link count is {}, not {}", under_test.st_nlink, reference.st_nlink);
    }
    if (!S_ISDIR(reference.st_mode)) {
        if (under_test.st_size != reference.st_size) {
            return fmt::format("size is {}, not {}", under_test.st_size, reference.st_size);
        }
        if (checks.blocks && under_test.st_blocks * 512 < under_test.st_size) {
            return fmt::format("{} blocks are too few for {} bytes", under_test.st_blocks,
                               under_test.st_size);
        }
    }
    if (!checks.times) {
        return "";
    }
    const std::int64_t expected = reference.st_mtim.tv_sec & ~std::int64_t{1};
    const std::int64_t found = under_test.st_mtim.tv_sec & ~std::int64_t{1};
    const bool by_clock = expected >= kClockBegins && expected < kClockEnds;
    const std::int64_t difference = expected > found ? expected - found : found - expected;
    if (difference > (by_clock ? kClockSlackSeconds : 0)) {
        return fmt::format("time of the last change is {}, not {}", under_test.st_mtim.tv_sec,
                           expected);
    }
    return "";
}

bool may_be_full(int root, std::uint64_t growth) {
    struct statfs now {};
    if (fstatfs(root, &now) != 0) {
        return false;
    }
    // A name takes up to 21 slots, a new directory a cluster, and a file's last one is there
    // already.
    const auto cluster = static_cast<std::uint64_t>(now.f_bsize);
    return now.f_bavail * cluster < growth + 3 * cluster;
}

}  // namespace wbfat::model
