// The options of a mount that the filesystem itself obeys: vfat's, with vfat's spellings and
// defaults.
//
// Parsing lives in src/mount_options; what an option means lives here and nowhere else. fat.md 3.1
// is the source.
#pragma once

#include <cstdint>
#include <string>

#include <sys/types.h>

#include "cache/base/runtime.h"

namespace wbfat::fs::inline WBFAT_RT {

enum class ErrorPolicy { kContinue, kRemountRo, kPanic };     // errors=
enum class ShortNameMode { kLower, kWin95, kWinNt, kMixed };  // shortname=
enum class NameCheck { kRelaxed, kNormal, kStrict };          // check=

struct MountOptions {
    uid_t uid = 0;  // the caller's
    gid_t gid = 0;
    mode_t fmask = 022;        // bits taken from files; the caller's umask
    mode_t dmask = 022;        // bits taken from directories
    mode_t allow_utime = 020;  // who besides the owner may set times; default ~dmask & 022
    std::string codepage = "437";
    std::string iocharset = "utf8";
    bool utf8 = true;
    bool uni_xlate = false;
    bool nonumtail = false;
    bool usefree = false;  // trust FSINFO's free count even on a dirty volume
    bool quiet = false;    // swallow chmod and chown errors
    NameCheck check = NameCheck::kNormal;
    ShortNameMode shortname = ShortNameMode::kMixed;
    // Minutes east of UTC that disk times are in. tz=UTC sets 0; unset: the system's time zone,
    // with its rules per date.
    bool time_offset_set = false;
    int time_offset_minutes = 0;
    bool showexec = false;
    bool sys_immutable = false;
    bool flush = false;
    bool rodir = false;
    ErrorPolicy errors = ErrorPolicy::kRemountRo;
    bool discard = false;
    bool dos1xfloppy = false;

    bool read_only = false;
    bool sync = false;           // SB_SYNCHRONOUS: every change is on disk when the call returns
    bool dirsync = false;        // the same for directory operations only
    bool windows_names = false;  // ours: refuse names that Windows cannot open
    bool nobarrier =
        false;  // ours: no device flush in a commit; a power cut may then damage the volume
    unsigned commit_seconds = 5;  // ours: group commit interval
};

}  // namespace wbfat::fs::inline WBFAT_RT
