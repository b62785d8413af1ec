// Random operations.
#include "tests/mount/model/generator.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <iterator>
#include <vector>

#include <linux/falloc.h>

namespace wbfat::model {
namespace {

// Paths stay well below PATH_MAX: what is moved below them adds to it.
constexpr std::size_t kMaxPathBytes = 1500;
constexpr unsigned kMaxDepth = 6;

struct Weight {
    Kind kind;
    unsigned weight;
};

constexpr std::array kWeights = {
    Weight{Kind::kOpen, 110},     Weight{Kind::kClose, 30},     Weight{Kind::kWrite, 60},
    Weight{Kind::kPwrite, 90},    Weight{Kind::kWritev, 20},    Weight{Kind::kRead, 40},
    Weight{Kind::kPread, 60},     Weight{Kind::kLseek, 25},     Weight{Kind::kTruncate, 25},
    Weight{Kind::kFtruncate, 50}, Weight{Kind::kFallocate, 20}, Weight{Kind::kFsync, 6},
    Weight{Kind::kFdatasync, 6},  Weight{Kind::kCopyRange, 20}, Weight{Kind::kStore, 50},
    Weight{Kind::kLoad, 40},      Weight{Kind::kMsync, 5},      Weight{Kind::kUnmap, 12},
    Weight{Kind::kEvict, 8},      Weight{Kind::kFstat, 25},     Weight{Kind::kFutimens, 8},
    Weight{Kind::kUnlink, 45},    Weight{Kind::kMkdir, 22},     Weight{Kind::kRmdir, 20},
    Weight{Kind::kRename, 60},    Weight{Kind::kReaddir, 12},   Weight{Kind::kStat, 50},
    Weight{Kind::kUtimens, 15},   Weight{Kind::kChmod, 12},     Weight{Kind::kChown, 4},
    Weight{Kind::kAccess, 15},    Weight{Kind::kReadFile, 30},  Weight{Kind::kReplace, 15},
    Weight{Kind::kLink, 3},       Weight{Kind::kSymlink, 3},    Weight{Kind::kMkfifo, 3},
    Weight{Kind::kMknod, 8},      Weight{Kind::kFsyncDir, 3},   Weight{Kind::kStatfs, 6}};

constexpr unsigned total_weight() {
    unsigned total = 0;
    for (const Weight& weight : kWeights) {
        total += weight.weight;
    }
    return total;
}

Kind pick_kind(tools::Random& random) {
    std::uint64_t at = random.below(total_weight());
    for (const Weight& weight : kWeights) {
        if (at < weight.weight) {
            return weight.kind;
        }
        at -= weight.weight;
    }
    return Kind::kStatfs;
}

class Generator {
public:
    Generator(const Session& session, tools::Random& random) : session_(session), random_(random) {}

    Op make();

private:
    bool is_crowded() const {
        return session_.tree().nr_nodes() >= session_.limits().max_nodes;
    }
    const Node& pick_directory();
    Name pick_child(const Node& directory);
    Name pick_new(const Node& directory);
    // Mostly something that exists.
    Path pick_path(bool wants_new);
    std::uint64_t pick_size();
    std::uint64_t pick_length();
    std::uint64_t pick_seconds();
    unsigned pick_slot(bool open);
    void fill_open(Op& op);
    void fill_rename(Op& op);
    void fill_slot_op(Op& op);
    void fill_path_op(Op& op);
    int pick_chmod();

    const Session& session_;
    tools::Random& random_;
};

const Node& Generator::pick_directory() {
    const Node* at = session_.tree().root().get();
    for (unsigned depth = 0; depth < kMaxDepth && !random_.one_in(3); ++depth) {
        std::vector<const Node*> below;
        for (const auto& [group, child] : at->children) {
            if (child->is_dir && path_bytes(*child) < kMaxPathBytes) {
                below.push_back(child.get());
            }
        }
        if (below.empty()) {
            break;
        }
        at = below[random_.below(below.size())];
    }
    return *at;
}

Name Generator::pick_child(const Node& directory) {
    auto child = directory.children.begin();
    std::advance(child, static_cast<std::ptrdiff_t>(random_.below(directory.children.size())));
    const Name name = child->second->name;
    // Often as it was created, else in any spelling.
    return random_.one_in(3)
               ? Name{name.group,
                      static_cast<std::uint8_t>(random_.below(nr_spellings(name.group)))}
               : name;
}

Name Generator::pick_new(const Node& directory) {
    if (random_.one_in(60)) {
        return bad_name(static_cast<std::uint16_t>(random_.below(nr_bad_groups())));
    }
    Name name;
    for (int attempt = 0; attempt < 4; ++attempt) {
        const std::uint16_t groups = random_.one_in(2) ? nr_pool_groups() : nr_good_groups();
        name.group = static_cast<std::uint16_t>(random_.below(groups));
        if (!directory.children.contains(name.group)) {
            break;
        }
    }
    name.spelling = static_cast<std::uint8_t>(random_.below(nr_spellings(name.group)));
    return name;
}

Path Generator::pick_path(bool wants_new) {
    const Node& directory = pick_directory();
    Path path = path_of(directory);
    if (random_.one_in(12) && !path.empty()) {
        // Another spelling on the way.
        Name& name = path[random_.below(path.size())];
        name.spelling = static_cast<std::uint8_t>(random_.below(nr_spellings(name.group)));
    }
    if (random_.one_in(150)) {
        path.push_back(pick_new(directory));  // through something that is not there, or a file
    }
    const bool existing =
        !directory.children.empty() && random_.one_in(wants_new ? 4 : 12) == wants_new;
    path.push_back(existing ? pick_child(directory) : pick_new(directory));
    return path;
}

std::uint64_t Generator::pick_size() {
    const std::uint64_t max = session_.limits().max_size;
    switch (random_.below(12)) {
        case 0:
            return 0;
        case 1:
            return random_.below(16);
        case 2:
        case 3: {
            const std::uint64_t edge = random_.pick({std::uint64_t{512}, std::uint64_t{2048},
                                                     std::uint64_t{4096}, std::uint64_t{32768}}) *
                                       random_.between(1, 8);
            return std::min(max, edge + random_.below(3) - 1);
        }
        case 4:
            return random_.below(max + 1);
        default:
            return random_.below(std::min<std::uint64_t>(max, 20000) + 1);
    }
}

std::uint64_t Generator::pick_length() {
    switch (random_.below(10)) {
        case 0:
            return random_.below(8);
        case 1:
            return 4096 * random_.between(1, 4);
        case 2:
            return random_.below(std::min<std::uint64_t>(session_.limits().max_size, 131072) + 1);
        default:
            return random_.below(6000);
    }
}

std::uint64_t Generator::pick_seconds() {
    const std::uint64_t kind = random_.below(8);
    switch (session_.limits().kernel_gathers ? 2 : kind) {
        case 0:
            return random_.pick({std::uint64_t{0}, std::uint64_t{315532799},
                                 std::uint64_t{315532800}, std::uint64_t{315532801},
                                 std::uint64_t{4354819199}, std::uint64_t{4354819200},
                                 std::uint64_t{9999999999}, std::uint64_t{4107542400}});
        case 1:
            return random_.between(2'600'000'000, 4'300'000'000);
        default:
            return random_.between(315'532'800, 1'600'000'000);
    }
}

unsigned Generator::pick_slot(bool open) {
    const auto start = static_cast<unsigned>(random_.below(kNrSlots));
    for (unsigned i = 0; i < kNrSlots; ++i) {
        const unsigned slot = (start + i) % kNrSlots;
        if (session_.is_open(slot) == open) {
            return slot;
        }
    }
    return start;
}

void Generator::fill_open(Op& op) {
    op.slot = pick_slot(random_.one_in(4));
    op.flags = random_.pick({O_RDWR, O_RDWR, O_RDWR, O_RDWR, O_RDONLY, O_WRONLY});
    const bool makes = random_.one_in(2) && !is_crowded();
    op.path = pick_path(makes);
    op.flags |= makes ? O_CREAT : 0;
    op.flags |= makes && random_.one_in(4) ? O_EXCL : 0;
    if ((op.flags & O_ACCMODE) != O_RDONLY) {
        op.flags |= random_.one_in(8) ? O_TRUNC : 0;
        op.flags |= random_.one_in(6) ? O_APPEND : 0;
        op.flags |= random_.one_in(40) ? O_SYNC : 0;
        op.flags |= random_.one_in(40) ? O_DSYNC : 0;
    }
    op.flags |= random_.one_in(12) ? O_DIRECT : 0;
}

void Generator::fill_rename(Op& op) {
    op.path = pick_path(false);
    op.path2 = pick_path(true);
    if (random_.one_in(3) && !op.path.empty()) {
        op.path2 = op.path;  // in the same directory
        op.path2.pop_back();
        const Resolved directory = session_.tree().resolve(op.path2);
        const bool existing =
            directory.node != nullptr && !directory.node->children.empty() && random_.one_in(2);
        op.path2.push_back(existing                    ? pick_child(*directory.node)
                           : directory.node != nullptr ? pick_new(*directory.node)
                                                       : op.path.back());
    }
    if (random_.one_in(15)) {
        op.path2 = op.path;  // another case
        Name& name = op.path2.back();
        name.spelling = static_cast<std::uint8_t>(random_.below(nr_spellings(name.group)));
    }
    op.flags = static_cast<int>(random_.pick({0U, 0U, 0U, static_cast<unsigned>(RENAME_NOREPLACE),
                                              static_cast<unsigned>(RENAME_EXCHANGE)}));
    if (op.flags == RENAME_EXCHANGE && random_.one_in(2)) {
        op.path2 = pick_path(false);
    }
}

void Generator::fill_slot_op(Op& op) {
    op.slot = pick_slot(true);
    op.slot2 = pick_slot(true);
    op.value = random_.next() >> 16;
    op.length = pick_length();
    op.offset = pick_size();
    op.offset2 = pick_size();
    const std::uint64_t max = session_.limits().max_size;
    const bool beyond = session_.limits().four_gib && random_.one_in(100);
    switch (op.kind) {
        case Kind::kLseek:
            op.flags = random_.pick(
                {SEEK_SET, SEEK_SET, SEEK_SET, SEEK_END, SEEK_CUR, SEEK_DATA, SEEK_HOLE});
            op.offset =
                op.flags == SEEK_END || op.flags == SEEK_CUR ? random_.below(10) : op.offset;
            break;
        case Kind::kFallocate:
            op.flags =
                random_.pick({0, 0, 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_KEEP_SIZE,
                              FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE});
            op.length = std::clamp<std::uint64_t>(op.length, 1, max - std::min(op.offset, max - 1));
            break;
        case Kind::kCopyRange:
            op.offset2 = std::min(op.offset2, max - std::min(op.length, max));
            break;
        case Kind::kFutimens:
            op.value = pick_seconds();
            break;
        default:
            break;
    }
    const bool can_be_beyond =
        op.kind == Kind::kPwrite || op.kind == Kind::kFtruncate || op.kind == Kind::kFallocate;
    if (beyond && can_be_beyond) {
        op.offset =
            std::uint64_t{0x100000000} - (op.kind == Kind::kPwrite ? 1 : 0) + random_.below(5000);
    }
}

int Generator::pick_chmod() {
    return random_.pick({0444, 0555, 0555, 0644, 0600, 0777, 0755, 0755, 0, 04755, 01777, 0222});
}

void Generator::fill_path_op(Op& op) {
    const bool makes = op.kind == Kind::kMkdir || op.kind == Kind::kMknod ||
                       op.kind == Kind::kReplace || op.kind == Kind::kSymlink ||
                       op.kind == Kind::kMkfifo;
    op.path = pick_path(makes);
    switch (op.kind) {
        case Kind::kTruncate:
            op.offset = pick_size();
            if (session_.limits().four_gib && random_.one_in(100)) {
                op.offset = 0x100000000 + random_.below(5000);
            }
            break;
        case Kind::kReaddir:
        case Kind::kFsyncDir:
            op.path = path_of(pick_directory());
            break;
        case Kind::kUtimens:
            op.value = pick_seconds();
            break;
        case Kind::kChmod:
            op.flags = pick_chmod();
            break;
        case Kind::kChown:
            op.value = random_.one_in(2) ? geteuid() : geteuid() + 1;
            break;
        case Kind::kReplace:
            op.length = std::min(pick_length(), session_.limits().max_size);
            op.value = random_.next() >> 16;
            op.flags = random_.one_in(6) ? 1 : 0;  // fsync
            break;
        case Kind::kLink:
            op.path2 = pick_path(true);
            break;
        default:
            break;
    }
}

Op Generator::make() {
    Op op;
    op.kind = pick_kind(random_);
    // Directories outlive files: only empty ones go.
    if (op.kind == Kind::kMkdir &&
        session_.tree().nr_directories() > session_.limits().max_nodes / 4) {
        op.kind = random_.one_in(2) ? Kind::kMknod : Kind::kRmdir;
    }
    const bool makes =
        op.kind == Kind::kMkdir || op.kind == Kind::kMknod || op.kind == Kind::kReplace;
    if (makes && is_crowded()) {
        op.kind = random_.one_in(5) ? Kind::kRmdir : Kind::kUnlink;
    }
    const bool maps = op.kind == Kind::kStore || op.kind == Kind::kLoad;
    if (maps && !session_.limits().use_mmap) {
        op.kind = op.kind == Kind::kStore ? Kind::kPwrite : Kind::kPread;
    }
    if (op.kind == Kind::kCopyRange && session_.limits().may_fill) {
        op.kind = Kind::kPwrite;  // a short copy would not say why
    }
    if (op.kind == Kind::kOpen) {
        fill_open(op);
    } else if (op.kind == Kind::kRename) {
        fill_rename(op);
    } else if (uses_slot(op.kind)) {
        fill_slot_op(op);
    } else if (op.kind != Kind::kStatfs) {
        fill_path_op(op);
    }
    return op;
}

}  // namespace

Op generate(const Session& session, tools::Random& random) {
    return Generator(session, random).make();
}

}  // namespace wbfat::model
