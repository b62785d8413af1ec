// Finding the control socket, and the table of commands.
#include "src/control_protocol.h"

#include <fcntl.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include <boost/json.hpp>
#include <sys/stat.h>

namespace wbfat::control {

namespace {

constexpr std::array kCommands{
    CommandHelp{"status", "", "volume, cache, pages by state, waits, flusher"},
    CommandHelp{"sync", "", "write everything, and wait until the device has it"},
    CommandHelp{"drop-caches", "", "give up every clean page that nobody uses"},
    CommandHelp{"flusher", "[pause | resume | kick | interval SECONDS]",
                "show the flusher; stop it, let it go on, start it now, set its period"},
    CommandHelp{"protocol", "[get | list | set VERSION[,SWITCH=VALUE..]]",
                "the version of the page protocol that runs; all there are; switch to another"},
    CommandHelp{"assert", "[list | set NAME:STATE[,..]]",
                "list the assertions; make some off, warn or bug"},
    CommandHelp{"oops", "[list | show NUMBER]", "the reports of failed assertions that are kept"},
    CommandHelp{"trace", "[on | off | save FILE]",
                "record what happens to pages, or stop; save it for Perfetto"},
    CommandHelp{"point", "[list | set RULE .. | clear]",
                "the rules for named points and what became of them; set some; remove all"},
    CommandHelp{"web", "[ADDRESS:PORT | stop | say [TEXT]]",
                "serve the live page, on this machine only; stop; say on it what the load does"},
};

// The fields of one line of mountinfo that count here.
struct MountLine {
    MountId id;
    std::string mountpoint;
    std::string type;
    std::string super_options;
};

// Three octal digits stand for a blank, a tab, a newline and a backslash.
std::string unescaped(std::string_view text) {
    std::string plain;
    for (std::size_t at = 0; at < text.size(); ++at) {
        unsigned code = 0;
        if (text[at] == '\\' && at + 3 < text.size() &&
            std::from_chars(text.data() + at + 1, text.data() + at + 4, code, 8).ec ==
                std::errc{}) {
            plain += static_cast<char>(code);
            at += 3;
        } else {
            plain += text[at];
        }
    }
    return plain;
}

bool parse_id(std::string_view text, MountId& id) {
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos) {
        return false;
    }
    const char* const end = text.data() + text.size();
    return std::from_chars(text.data(), end, id.major_number).ec == std::errc{} &&
           std::from_chars(text.data() + colon + 1, end, id.minor_number).ec == std::errc{};
}

// ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAGS] - TYPE SOURCE SUPER_OPTIONS
bool parse_line(const std::string& text, MountLine& line) {
    std::istringstream words(text);
    std::string skipped;
    std::string id;
    std::string mountpoint;
    words >> skipped >> skipped >> id >> skipped >> mountpoint;
    while (words >> skipped && skipped != "-") {
    }
    words >> line.type >> skipped >> line.super_options;
    line.mountpoint = unescaped(mountpoint);
    return !words.fail() && parse_id(id, line.id);
}

template <typename Visit>
void for_each_mount(const Visit& visit) {
    std::ifstream table("/proc/self/mountinfo");
    for (std::string text; std::getline(table, text);) {
        MountLine line;
        if (parse_line(text, line)) {
            visit(line);
        }
    }
}

bool is_directory_of(const std::string& path, uid_t uid) {
    struct stat found {};
    return ::lstat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode) && found.st_uid == uid;
}

}  // namespace

std::span<const CommandHelp> command_table() {
    return kCommands;
}

const CommandHelp* find_command(std::string_view name) {
    const auto* const found = std::find_if(kCommands.begin(), kCommands.end(),
                                           [&](const CommandHelp& c) { return c.name == name; });
    return found == kCommands.end() ? nullptr : found;
}

std::string refusal(std::string_view sentence) {
    const boost::json::object reply{{"ok", false}, {"error", sentence}};
    return boost::json::serialize(reply);
}

int mount_id_of(const std::string& path, MountId& id) {
    struct statx found {};
    // AT_STATX_DONT_SYNC: a FUSE filesystem answers from what the kernel knows.
    if (::statx(AT_FDCWD, path.c_str(), AT_STATX_DONT_SYNC, STATX_TYPE, &found) != 0) {
        return errno;
    }
    id = {found.stx_dev_major, found.stx_dev_minor};
    return 0;
}

MountOwner mount_owner(const MountId& id) {
    MountOwner owner;
    for_each_mount([&](const MountLine& line) {
        if (line.id.major_number != id.major_number || line.id.minor_number != id.minor_number) {
            return;
        }
        owner.is_wbfat = line.type == "fuse.wbfat" || line.type == "fuseblk.wbfat";
        constexpr std::string_view kUserId = "user_id=";
        if (const std::size_t at = line.super_options.find(kUserId); at != std::string::npos) {
            const char* const digits = line.super_options.data() + at + kUserId.size();
            std::from_chars(digits, line.super_options.data() + line.super_options.size(),
                            owner.uid);
        }
    });
    return owner;
}

bool find_mount_by_path(const std::string& path, MountId& id) {
    bool found = false;
    // Mounts on top of others come later.
    for_each_mount([&](const MountLine& line) {
        if (line.mountpoint == path) {
            id = line.id;
            found = true;
        }
    });
    return found;
}

std::vector<std::string> socket_directories(uid_t uid) {
    std::vector<std::string> directories;
    // Nobody changes the environment of either program.
    const char* const given = std::getenv("XDG_RUNTIME_DIR");  // NOLINT(concurrency-mt-unsafe)
    if (given != nullptr && given[0] == '/' && is_directory_of(given, uid)) {
        directories.push_back(fmt::format("{}/wbfat", given));
    }
    if (const std::string usual = fmt::format("/run/user/{}", uid); is_directory_of(usual, uid)) {
        directories.push_back(usual + "/wbfat");
    }
    if (uid == 0) {
        directories.emplace_back("/run/wbfat");
    }
    directories.push_back(fmt::format("/tmp/wbfat-{}", uid));
    return directories;
}

std::string socket_name(const MountId& id) {
    return fmt::format("{}:{}.sock", id.major_number, id.minor_number);
}

}  // namespace wbfat::control
