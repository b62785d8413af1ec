// FAT dates and times <-> Unix time.
//
// The disk holds local time. Which local time is the mount's choice: a fixed offset (tz=UTC,
// time_offset=) or the system's zone with the rules of each date, so that a summer file keeps its
// hour in winter.
//
// Source: Linux fs/fat/misc.c fat_time_fat2unix / fat_time_unix2fat; fat.md 3.3 and 7.17.
// Differs: the kernel has one offset for all dates; nonsense on the disk is clamped field by field,
// not carried over.
#pragma once

#include <ctime>

#include "fs/layout.h"
#include "fs/mount_options.h"

namespace wbfat::fs::inline WBFAT_RT {

// Clamped to 1980-01-01 00:00:00 .. 2107-12-31 23:59:58 local time.
FatTimestamp to_fat_time(const timespec& time, const MountOptions& options);
// Day or month 0 count as 1; other nonsense is clamped to the nearest real time, field by field.
timespec from_fat_time(const FatTimestamp& stamp, const MountOptions& options);

// What survives a round trip: what stat must answer right after utimens.
timespec truncate_mtime(const timespec& time, const MountOptions& options);  // 2 s
timespec truncate_atime(const timespec& time, const MountOptions& options);  // day, local
timespec truncate_btime(const timespec& time, const MountOptions& options);  // 10 ms

}  // namespace wbfat::fs::inline WBFAT_RT
