// Where vfat may differ from a plain directory, in one table; everything else must be equal.
//
//   what                         vfat                                        plain directory
//   names                        case and trailing dots do not matter        (the tree translates)
//   refused names                EINVAL, ENAMETOOLONG; lookup ENOENT         -
//   change of case only          left to the kernel, which sees one inode    a rename
//   symlink, link, mkfifo        EPERM                                       work
//   sizes above 4 GiB - 1        EFBIG                                       work
//   chmod                        all w or none, else ignored; others EPERM   works
//   chown                        to the owner of the mount, else EPERM       works
//   times                        2 s, 1980 to 2107; none on the root         ns
//   truncate to the same size    a change                                    none for truncate(2)
//   fallocate                    mode 0, KEEP_SIZE; the time is open         more modes
//   SEEK_DATA, SEEK_HOLE         all is data                                 holes
//   size and blocks of a directory, inode numbers, ctime, atime              not compared
//   ENOSPC                       if the volume is as good as full            never
// Source: kernel-vfat-answers of the specification; fat.md 3.3.
#pragma once

#include <string>

#include "tests/mount/model/op.h"
#include "tests/mount/model/side.h"
#include "tests/mount/model/tree.h"

namespace wbfat::model {

// What happens in the plain directory, and what the directory under test must answer.
struct Plan {
    Op reference_op;
    bool run_reference = true;
    std::optional<Outcome> answer;  // none: what the plain directory answers
};

Plan plan_reference(const Op& op, const Resolved& first, const Resolved& second,
                    const Side& reference);

// The time as it will be on the disk.
std::uint64_t on_disk_seconds(std::uint64_t seconds);

// What of a stat counts besides type, mode, links and size.
struct StatChecks {
    bool times = true;
    bool blocks = true;
};

// "" or what differs between two answers to stat.
std::string compare_stat(const struct stat& under_test, const struct stat& reference,
                         StatChecks checks);

// Whether an answer of ENOSPC, or a short count, may be true: `growth` bytes were asked for.
bool may_be_full(int root, std::uint64_t growth);

}  // namespace wbfat::model
