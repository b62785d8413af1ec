// Operations as text.
#include "tests/mount/model/op.h"

#include <fmt/format.h>

#include <array>
#include <sstream>

namespace wbfat::model {
namespace {

constexpr std::size_t kNrKinds = static_cast<std::size_t>(Kind::kNrKinds);

constexpr std::array<std::string_view, kNrKinds> kNames = {
    "open",     "close",     "write",     "pwrite",  "writev",    "read",     "pread",  "lseek",
    "truncate", "ftruncate", "fallocate", "fsync",   "fdatasync", "copy",     "store",  "load",
    "msync",    "unmap",     "evict",     "fstat",   "futimens",  "unlink",   "mkdir",  "rmdir",
    "rename",   "readdir",   "stat",      "utimens", "chmod",     "chown",    "access", "readfile",
    "replace",  "link",      "symlink",   "mkfifo",  "mknod",     "fsyncdir", "statfs"};

}  // namespace

std::string_view kind_name(Kind kind) {
    return kNames[static_cast<std::size_t>(kind)];
}

bool uses_slot(Kind kind) {
    return kind >= Kind::kClose && kind <= Kind::kFutimens && kind != Kind::kTruncate;
}

std::string to_text(const Op& op) {
    return fmt::format("{} {} {} {} {} {:#o} {} {} {} {:#x}", kind_name(op.kind),
                       path_text(op.path), path_text(op.path2), op.slot, op.slot2, op.flags,
                       op.offset, op.offset2, op.length, op.value);
}

std::optional<Op> parse_op(const std::string& line) {
    std::istringstream in(line);
    std::string kind;
    std::string path;
    std::string path2;
    std::string flags;
    std::string value;
    Op op;
    if (!(in >> kind >> path >> path2 >> op.slot >> op.slot2 >> flags >> op.offset >> op.offset2 >>
          op.length >> value)) {
        return std::nullopt;
    }
    const std::optional<Path> first = parse_path(path);
    const std::optional<Path> second = parse_path(path2);
    for (std::size_t i = 0; i < kNrKinds && first && second; ++i) {
        if (kNames[i] == kind) {
            op.kind = static_cast<Kind>(i);
            op.path = *first;
            op.path2 = *second;
            op.flags = static_cast<int>(std::stol(flags, nullptr, 0));
            op.value = std::stoull(value, nullptr, 0);
            return op;
        }
    }
    return std::nullopt;
}

}  // namespace wbfat::model
