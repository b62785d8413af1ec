// The verdict on one crash image: what fsck.fat says, what our second reader finds, what the
// history of the workload allows.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/crash_history.h"
#include "tests/support/crash_image.h"
#include "tests/support/crash_reader.h"

namespace wbfat::fs::inline WBFAT_RT {

// What a cut may leave.
enum class Leftover : unsigned {
    kDirtyMark,        // the volume was not unmounted
    kBackupDiffers,    // the state byte of the boot sector and its backup
    kFatsDiffer,       // the second copy is older or newer
    kLostClusters,     // marked in use, in no chain
    kLongChain,        // a chain longer than its file: lost clusters with an owner
    kFreeCount,        // FSINFO
    kTwoNames,         // of a rename in flight
    kOrphanLongSlots,  // slots of a long name without their entry
    kCount,
};
std::string_view to_string(Leftover leftover);

struct CrashVerdict {
    std::array<bool, static_cast<std::size_t>(Leftover::kCount)> leftovers{};
    std::vector<std::string> failures;
    bool fsck_was_asked = false;
};

// Sorts the lines of fsck.fat. A line nobody knows is a failure.
void judge_fsck(const std::vector<std::string>& lines, const CrashHistory& history,
                CrashHistory::Position cut, CrashVerdict& verdict);

CrashVerdict judge(const CrashImage& image, const CrashHistory& history, CrashHistory::Position cut,
                   bool ask_fsck);

}  // namespace wbfat::fs::inline WBFAT_RT
