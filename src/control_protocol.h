// What wbfat and wbfatctl agree on: where the control socket of a mount lies, what may be asked,
// and the lines that cross it.
//
// The socket is found from the mount point alone, with nobody's help: its name is the device number
// of the mount, which the kernel tells without asking the daemon (a daemon that hangs can still be
// looked at), which no two live mounts share, and which means the same in every container.
//
//   -> {"command": "flusher", "words": ["interval", "500"]}
//   <- {"ok": true, "result": {..}}
//   <- {"ok": false, "error": "one sentence"}
//
// One JSON object a line, both ways, as many as the client likes.
//
// Source: unix(7), statx(2), proc(5) mountinfo.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

namespace wbfat::control {

// A longer request ends the connection. Bytes, the newline included.
inline constexpr std::size_t kMaxRequestBytes = std::size_t{16} << 10;

// A command as both ends know it: the daemon binds a function to it, wbfatctl shows it.
struct CommandHelp {
    std::string_view name;
    std::string_view words;  // what may follow, as a usage line writes it
    std::string_view help;
};
std::span<const CommandHelp> command_table();
// The entry of `name`, or null.
const CommandHelp* find_command(std::string_view name);

// A reply that refuses.
std::string refusal(std::string_view sentence);

// The device number of a mount: st_dev of everything on it.
struct MountId {
    unsigned major_number = 0;
    unsigned minor_number = 0;
};
// Of whatever `path` is on; the filesystem itself is not asked. `path` may be relative or a
// symbolic link. Returns an errno, or 0 with `id` set.
int mount_id_of(const std::string& path, MountId& id);

// Who mounted it, as mountinfo's user_id= tells, and whether it is a mount of wbfat at all.
struct MountOwner {
    bool is_wbfat = false;
    uid_t uid = 0;
};
// Reads /proc/self/mountinfo; nothing is found out where that is missing.
MountOwner mount_owner(const MountId& id);
// The mount whose mount point is spelled `path`: for a caller whom the filesystem keeps out, root
// on somebody else's mount among them. Returns false if there is none.
bool find_mount_by_path(const std::string& path, MountId& id);

// Where a daemon of this user puts its socket, best first; wbfatctl looks in all of them. All but
// the last exist only where the system made their parent.
std::vector<std::string> socket_directories(uid_t uid);
// The socket's name in one of them.
std::string socket_name(const MountId& id);

}  // namespace wbfat::control
