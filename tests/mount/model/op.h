// One operation of a run, complete in itself: a list of them is a trace that can be replayed, cut
// and shrunk.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tests/mount/model/names.h"

namespace wbfat::model {

enum class Kind : std::uint8_t {
    kOpen,       // path, slot, flags: O_*
    kClose,      // slot
    kWrite,      // slot, length, value
    kPwrite,     // slot, offset, length, value
    kWritev,     // slot, length, value: three pieces
    kRead,       // slot, length
    kPread,      // slot, offset, length
    kLseek,      // slot, offset, flags: whence
    kTruncate,   // path, offset
    kFtruncate,  // slot, offset
    kFallocate,  // slot, offset, length, flags: mode
    kFsync,      // slot
    kFdatasync,  // slot
    kCopyRange,  // slot, offset -> slot2, offset2, length
    kStore,      // slot, offset, length, value: through a shared mapping that lasts
    kLoad,       // slot, offset, length
    kMsync,      // slot
    kUnmap,      // slot
    kEvict,      // slot: POSIX_FADV_DONTNEED
    kFstat,      // slot
    kFutimens,   // slot, value: seconds
    kUnlink,     // path
    kMkdir,      // path
    kRmdir,      // path
    kRename,     // path, path2, flags
    kReaddir,    // path
    kStat,       // path
    kUtimens,    // path, value: seconds
    kChmod,      // path, flags: mode
    kChown,      // path, value: the owner
    kAccess,     // path
    kReadFile,   // path: the whole content
    kReplace,    // path, length, value: a new file, synced, renamed over it
    kLink,       // path, path2
    kSymlink,    // path
    kMkfifo,     // path
    kMknod,      // path: a regular file
    kFsyncDir,   // path
    kStatfs,
    kNrKinds,
};

struct Op {
    Kind kind = Kind::kStatfs;
    unsigned slot = 0;
    unsigned slot2 = 0;
    int flags = 0;
    std::uint64_t offset = 0;
    std::uint64_t offset2 = 0;
    std::uint64_t length = 0;
    std::uint64_t value = 0;
    Path path;
    Path path2;
};

std::string_view kind_name(Kind kind);
bool uses_slot(Kind kind);
// One line, which parse_op() reads back.
std::string to_text(const Op& op);
std::optional<Op> parse_op(const std::string& line);

}  // namespace wbfat::model
