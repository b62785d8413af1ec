// The option table.
#include "src/mount_options.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <optional>
#include <string_view>

#include <sys/stat.h>
#include <sys/sysinfo.h>

#include "cache/assertions.h"
#include "cache/sync/point_rules.h"

namespace wbfat::daemon {

namespace {

constexpr std::uint64_t kMinCacheBytes = 1ULL << 20;
constexpr std::uint64_t kMaxDefaultCacheBytes = 1ULL << 30;
constexpr int kMaxTimeOffsetMinutes = 24 * 60;

// Applies a value; returns what would be right, or "" when it was accepted. `value` is empty for a
// bare option.
using Apply = std::function<std::string(DaemonOptions&, const std::string& value)>;

enum class Takes : std::uint8_t { kNothing, kValue, kOptionalValue };

// What an Apply that refuses a value returns: the end of a sentence, or a whole one.
enum class Refusal : std::uint8_t { kWhatIsRight, kSentence };

struct Option {
    const char* name;
    Takes takes;
    const char* value_name;
    const char* help;  // nullptr: accepted, not shown
    Apply apply;
    Refusal refusal = Refusal::kWhatIsRight;
};

template <typename T>
std::optional<T> parse_number(std::string_view text, int base) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (error != std::errc{} || end != text.data() + text.size() || text.empty()) {
        return std::nullopt;
    }
    return value;
}

// Where an option's value goes, by kind of value.
Apply flag(bool fs::MountOptions::*member, bool value = true) {
    return [=](DaemonOptions& o, const std::string&) {
        o.fs.*member = value;
        return std::string{};
    };
}

Apply boolean(bool fs::MountOptions::*member) {
    return [=](DaemonOptions& o, const std::string& value) -> std::string {
        static constexpr std::string_view kYes[] = {"", "1", "yes", "true"};
        static constexpr std::string_view kNo[] = {"0", "no", "false"};
        const bool yes = std::find(std::begin(kYes), std::end(kYes), value) != std::end(kYes);
        if (!yes && std::find(std::begin(kNo), std::end(kNo), value) == std::end(kNo)) {
            return "yes, true, 1, no, false or 0";
        }
        o.fs.*member = yes;
        return {};
    };
}

template <typename T>
Apply number(T fs::MountOptions::*member, int base, T max, const char* right) {
    return [=](DaemonOptions& o, const std::string& value) -> std::string {
        const std::optional<T> parsed = parse_number<T>(value, base);
        if (!parsed || *parsed > max) {
            return right;
        }
        o.fs.*member = *parsed;
        return {};
    };
}

template <typename T>
Apply cache_number(T cache::PageCacheOptions::*member, T max, const char* right) {
    return [=](DaemonOptions& o, const std::string& value) -> std::string {
        const std::optional<T> parsed = parse_number<T>(value, 10);
        if (!parsed || *parsed > max) {
            return right;
        }
        o.cache.*member = *parsed;
        return {};
    };
}

Apply percentage(unsigned cache::PageCacheOptions::*member) {
    return [=](DaemonOptions& o, const std::string& value) -> std::string {
        const std::optional<unsigned> parsed = parse_number<unsigned>(value, 10);
        if (!parsed || *parsed == 0 || *parsed > 100) {
            return "a percentage from 1 to 100";
        }
        o.cache.*member = *parsed;
        return {};
    };
}

template <typename E>
struct Choice {
    std::string_view text;
    E value;
};

template <typename E, typename Setter>
Apply choice(std::vector<Choice<E>> choices, Setter set) {
    return [=](DaemonOptions& o, const std::string& value) -> std::string {
        std::string right;
        for (const Choice<E>& c : choices) {
            if (c.text == value) {
                set(o, c.value);
                return {};
            }
            right += (right.empty() ? "" : ", ") + std::string(c.text);
        }
        return right;
    };
}

Apply ignore() {
    return [](DaemonOptions&, const std::string&) { return std::string{}; };
}

Apply to_kernel(const char* spelling) {
    return [=](DaemonOptions& o, const std::string& value) {
        o.kernel.push_back(value.empty() ? spelling : fmt::format("{}={}", spelling, value));
        return std::string{};
    };
}

Apply read_only(bool value) {
    return [=](DaemonOptions& o, const std::string&) {
        o.fs.read_only = value;
        return std::string{};
    };
}

Apply umask_option() {
    return [](DaemonOptions& o, const std::string& value) -> std::string {
        const std::optional<mode_t> mask = parse_number<mode_t>(value, 8);
        if (!mask || *mask > 0777) {
            return "an octal mask such as 022";
        }
        o.fs.fmask = *mask;
        o.fs.dmask = *mask;
        return {};
    };
}

Apply time_offset() {
    return [](DaemonOptions& o, const std::string& value) -> std::string {
        const std::optional<int> minutes = parse_number<int>(value, 10);
        if (!minutes || std::abs(*minutes) > kMaxTimeOffsetMinutes) {
            return "minutes between -1440 and 1440";
        }
        o.fs.time_offset_set = true;
        o.fs.time_offset_minutes = *minutes;
        return {};
    };
}

Apply time_zone() {
    return [](DaemonOptions& o, const std::string& value) -> std::string {
        if (value != "UTC") {
            return "UTC";
        }
        o.fs.time_offset_set = true;
        o.fs.time_offset_minutes = 0;
        return {};
    };
}

Apply io_charset() {
    return [](DaemonOptions& o, const std::string& value) -> std::string {
        if (value != "utf8" && value != "UTF-8" && value != "utf-8") {
            return "utf8 (names are always UTF-8 here)";
        }
        o.fs.iocharset = "utf8";
        return {};
    };
}

Apply size_option(std::uint64_t DaemonOptions::*member) {
    return [=](DaemonOptions& o, const std::string& value) -> std::string {
        const Result<std::uint64_t> bytes = parse_size(value);
        if (!bytes.has_value()) {
            return "a size such as 1048576, 512K, 64M or 1G";
        }
        o.*member = *bytes;
        return {};
    };
}

Apply point_rule() {
    return [](DaemonOptions& o, const std::string& value) -> std::string {
        std::string sentence = sync::check_point_rules(value);
        if (sentence.empty()) {
            o.point_rules += value + "\n";
        }
        return sentence;
    };
}

// Read at once: the daemon leaves its working directory.
Apply points_file() {
    return [](DaemonOptions& o, const std::string& value) -> std::string {
        std::string rules;
        std::string sentence = sync::read_point_rules(value, rules);
        if (sentence.empty()) {
            o.point_rules += rules + "\n";
        }
        return sentence;
    };
}

Apply cache_size() {
    return [](DaemonOptions& o, const std::string& value) -> std::string {
        const Result<std::uint64_t> bytes = parse_size(value);
        if (!bytes.has_value() || *bytes < kMinCacheBytes) {
            return "a size of at least 1M, such as 64M or 1G";
        }
        o.cache.cache_size_bytes = *bytes;
        return {};
    };
}

// "a, b, c": the names of presets or of a switch's values.
template <typename Items>
std::string names_of(const Items& items) {
    std::string names;
    for (const auto& item : items) {
        names += (names.empty() ? "" : ", ") + std::string(item.name);
    }
    return names;
}

// The switches of the page protocol, each an option of its own that is laid over the version before
// it.
std::vector<Option> protocol_options() {
    std::vector<Option> options = {
        {"protocol", Takes::kValue, "VERSION", "the kernel's page protocol to run (6.8); see below",
         [](DaemonOptions& o, const std::string& value) -> std::string {
             return cache::Protocol::parse(value, o.protocol).empty()
                        ? ""
                        : names_of(cache::protocol_presets());
         }},
    };
    for (const cache::ProtocolSwitch& which : cache::protocol_switches()) {
        options.push_back({which.name, Takes::kValue, "VALUE", nullptr,
                           [&which](DaemonOptions& o, const std::string& value) -> std::string {
                               const std::string text = fmt::format(
                                   "{},{}={}", cache::to_string(o.protocol), which.name, value);
                               return cache::Protocol::parse(text, o.protocol).empty()
                                          ? ""
                                          : names_of(which.values);
                           }});
    }
    return options;
}

Apply assertions() {
    return [](DaemonOptions& o, const std::string& value) -> std::string {
        if (!cache::check_assertions(value).empty()) {
            std::string names;
            for (const cache::AssertionInfo& info : cache::all_assertions()) {
                names += fmt::format("{}, ", info.name);
            }
            return fmt::format("NAME:off, NAME:warn or NAME:bug; names are {}all, costly", names);
        }
        o.assertions += o.assertions.empty() ? value : "," + value;
        return {};
    };
}

Apply trace_option() {
    return [](DaemonOptions& o, const std::string& value) -> std::string {
        if (value == "off" || value == "on") {
            o.trace = value == "on" ? cache::TraceState::kOn : cache::TraceState::kOff;
            return {};
        }
        const std::optional<std::size_t> events = parse_number<std::size_t>(value, 10);
        if (!events || *events < 2 || *events > cache::kMaxTraceEvents) {
            return fmt::format("off, on, or a number of events from 2 to {}",
                               cache::kMaxTraceEvents);
        }
        o.trace = cache::TraceState::kOn;
        o.trace_events = *events;
        return {};
    };
}

// vfat's options about owners and names.
std::vector<Option> vfat_name_options() {
    using fs::MountOptions;
    constexpr const char* kOctal = "an octal mask such as 022";
    constexpr const char* kId = "a number";
    constexpr mode_t kAllModes = 0777;
    return {
        {"uid", Takes::kValue, "N", "owner of every file (the caller)",
         number<uid_t>(&MountOptions::uid, 10, ~0U, kId)},
        {"gid", Takes::kValue, "N", "group of every file (the caller's)",
         number<gid_t>(&MountOptions::gid, 10, ~0U, kId)},
        {"umask", Takes::kValue, "OCTAL", "fmask and dmask at once", umask_option()},
        {"fmask", Takes::kValue, "OCTAL", "mode bits taken from files (the caller's umask)",
         number<mode_t>(&MountOptions::fmask, 8, kAllModes, kOctal)},
        {"dmask", Takes::kValue, "OCTAL", "mode bits taken from directories (the caller's umask)",
         number<mode_t>(&MountOptions::dmask, 8, kAllModes, kOctal)},
        {"allow_utime", Takes::kValue, "OCTAL",
         "who may set times besides the owner: 020, 002 (~dmask & 022)",
         number<mode_t>(&MountOptions::allow_utime, 8, 022, "020, 002 or 022")},
        {"codepage", Takes::kValue, "N", "code page of short names (437)",
         [](DaemonOptions& o, const std::string& value) {
             o.fs.codepage = value;
             return std::string{};
         }},
        {"iocharset", Takes::kValue, "NAME", "character set of names here: utf8", io_charset()},
        {"utf8", Takes::kOptionalValue, "BOOL", "names are UTF-8 (always)",
         boolean(&MountOptions::utf8)},
        {"uni_xlate", Takes::kOptionalValue, "BOOL", "show what has no character as :XXXX",
         boolean(&MountOptions::uni_xlate)},
        {"nonumtail", Takes::kOptionalValue, "BOOL", "short names without ~1 where possible",
         boolean(&MountOptions::nonumtail)},
        {"usefree", Takes::kNothing, "", "trust FSINFO's free count even on a dirty volume",
         flag(&MountOptions::usefree)},
        {"quiet", Takes::kNothing, "", "swallow errors of chown and chmod",
         flag(&MountOptions::quiet)},
        {"check", Takes::kValue, "LEVEL", "names: relaxed, normal (default), strict",
         choice<fs::NameCheck>({{"relaxed", fs::NameCheck::kRelaxed},
                                {"r", fs::NameCheck::kRelaxed},
                                {"normal", fs::NameCheck::kNormal},
                                {"n", fs::NameCheck::kNormal},
                                {"strict", fs::NameCheck::kStrict},
                                {"s", fs::NameCheck::kStrict}},
                               [](DaemonOptions& o, fs::NameCheck v) { o.fs.check = v; })},
        {"shortname", Takes::kValue, "MODE", "lower, win95, winnt, mixed (default)",
         choice<fs::ShortNameMode>(
             {{"lower", fs::ShortNameMode::kLower},
              {"win95", fs::ShortNameMode::kWin95},
              {"winnt", fs::ShortNameMode::kWinNt},
              {"mixed", fs::ShortNameMode::kMixed}},
             [](DaemonOptions& o, fs::ShortNameMode v) { o.fs.shortname = v; })},
        {"nocase", Takes::kNothing, "", "shortname=win95",
         [](DaemonOptions& o, const std::string&) {
             o.fs.shortname = fs::ShortNameMode::kWin95;
             return std::string{};
         }},
    };
}

// vfat's options about times, modes and the volume.
std::vector<Option> vfat_volume_options() {
    using fs::MountOptions;
    return {
        {"tz", Takes::kValue, "UTC", "times on the disk are UTC (the system's time zone)",
         time_zone()},
        {"time_offset", Takes::kValue, "MINUTES", "times on the disk are this far east of UTC",
         time_offset()},
        {"showexec", Takes::kNothing, "", "x only on .EXE .COM .BAT",
         flag(&MountOptions::showexec)},
        {"sys_immutable", Takes::kNothing, "", "the SYSTEM attribute needs a privilege to change",
         flag(&MountOptions::sys_immutable)},
        {"flush", Takes::kNothing, "", "a written file is on the disk when close() returns",
         flag(&MountOptions::flush)},
        {"rodir", Takes::kNothing, "", "the READ_ONLY attribute counts for directories too",
         flag(&MountOptions::rodir)},
        {"errors", Takes::kValue, "ACTION",
         "on a damaged volume: continue, remount-ro (default), panic",
         choice<fs::ErrorPolicy>({{"continue", fs::ErrorPolicy::kContinue},
                                  {"remount-ro", fs::ErrorPolicy::kRemountRo},
                                  {"panic", fs::ErrorPolicy::kPanic}},
                                 [](DaemonOptions& o, fs::ErrorPolicy v) { o.fs.errors = v; })},
        {"discard", Takes::kNothing, "", "tell the device about freed clusters at each commit",
         flag(&MountOptions::discard)},
        {"dos1xfloppy", Takes::kNothing, "", "assume a DOS 1.x floppy where there is no BPB",
         flag(&MountOptions::dos1xfloppy)},
        {"debug", Takes::kNothing, "", nullptr, ignore()},
        {"conv", Takes::kValue, "", nullptr, ignore()},
        {"fat", Takes::kValue, "", nullptr, ignore()},
        {"blocksize", Takes::kValue, "", nullptr, ignore()},
        {"posix", Takes::kNothing, "", nullptr, ignore()},
    };
}

std::vector<Option> own_options() {
    using cache::PageCacheOptions;
    using fs::MountOptions;
    constexpr const char* kCentisecs = "hundredths of a second, up to 360000";
    constexpr unsigned kMaxCentisecs = 360000;
    return {
        {"cache_size", Takes::kValue, "SIZE", "memory for pages (a tenth of the RAM, at most 1G)",
         cache_size()},
        {"cache", Takes::kValue, "MODE",
         "the kernel's cache before ours: none, auto, writeback (default)",
         choice<KernelCache>({{"none", KernelCache::kNone},
                              {"auto", KernelCache::kAuto},
                              {"writeback", KernelCache::kWriteback}},
                             [](DaemonOptions& o, KernelCache v) { o.kernel_cache = v; })},
        {"direct_io_device", Takes::kNothing, "",
         "open the device with O_DIRECT (default for a block device)",
         [](DaemonOptions& o, const std::string&) {
             o.direct_io_device = true;
             return std::string{};
         }},
        {"nodirect_io_device", Takes::kNothing, "", "open it without (default for an image)",
         [](DaemonOptions& o, const std::string&) {
             o.direct_io_device = false;
             return std::string{};
         }},
        {"offset", Takes::kValue, "BYTES", "where the volume begins in the device",
         size_option(&DaemonOptions::offset_bytes)},
        {"threads", Takes::kValue, "N", "threads that serve requests (from the number of CPUs)",
         [](DaemonOptions& o, const std::string& value) -> std::string {
             const std::optional<unsigned> n = parse_number<unsigned>(value, 10);
             if (!n || *n == 0 || *n > 256) {
                 return "a number from 1 to 256";
             }
             o.threads = *n;
             return {};
         }},
        {"windows_names", Takes::kNothing, "", "refuse names that Windows cannot open",
         flag(&MountOptions::windows_names)},
        {"nobarrier", Takes::kNothing, "", "no device flush: a power cut may damage the volume",
         flag(&MountOptions::nobarrier)},
        {"commit", Takes::kValue, "SECONDS", "group commit at least this often (5)",
         number<unsigned>(&MountOptions::commit_seconds, 10, 3600U, "seconds from 0 to 3600")},
        {"dirty_ratio", Takes::kValue, "PERCENT",
         "writers wait above this share of dirty pages (40)",
         percentage(&PageCacheOptions::dirty_ratio)},
        {"dirty_background_ratio", Takes::kValue, "PERCENT",
         "background writeback above this share (10)",
         percentage(&PageCacheOptions::dirty_background_ratio)},
        {"dirty_writeback_centisecs", Takes::kValue, "N",
         "how often the flusher looks for old pages (500)",
         cache_number<unsigned>(&PageCacheOptions::dirty_writeback_centisecs, kMaxCentisecs,
                                kCentisecs)},
        {"dirty_expire_centisecs", Takes::kValue, "N", "how old a dirty page may get (500)",
         cache_number<unsigned>(&PageCacheOptions::dirty_expire_centisecs, kMaxCentisecs,
                                kCentisecs)},
    };
}

// What is checked and recorded, and what becomes of it.
std::vector<Option> report_options() {
    return {
        {"bug", Takes::kValue, "ACTION",
         "on a failed assertion: panic, shutdown (default), continue",
         choice<BugAction>({{"panic", BugAction::kPanic},
                            {"shutdown", BugAction::kShutdown},
                            {"continue", BugAction::kContinue}},
                           [](DaemonOptions& o, BugAction v) { o.bug = v; })},
        {"assert", Takes::kValue, "NAME:STATE,..", "switch assertions: off, warn or bug (README)",
         assertions()},
        {"trace", Takes::kValue, "STATE",
         "events of pages for reports: off, on (default), N a thread", trace_option()},
        {"stats", Takes::kValue, "FILE",
         "write the page cache's counters there at unmount, as JSON",
         [](DaemonOptions& o, const std::string& value) {
             o.stats_file = value;
             return std::string{};
         }},
    };
}

std::vector<Option> point_options() {
    return {
        {"point", Takes::kValue, "RULE",
         "act at a named point: wake:flagged=sleep(1ms); may be given again", point_rule(),
         Refusal::kSentence},
        {"points_file", Takes::kValue, "FILE", "the same, one rule a line", points_file(),
         Refusal::kSentence},
    };
}

// How the daemon is watched and steered.
std::vector<Option> control_options() {
    return {
        {"control", Takes::kValue, "PATH",
         "the socket of wbfatctl, where it is not found by itself; none",
         [](DaemonOptions& o, const std::string& value) -> std::string {
             if (value != DaemonOptions::kNoControl && !value.starts_with('/')) {
                 return "an absolute path, or none";
             }
             o.control_path = value;
             return {};
         }},
        {"http", Takes::kValue, "ADDRESS:PORT", "serve the live page there, on this machine only",
         [](DaemonOptions& o, const std::string& value) {
             return WebServer::parse_address(value, o.http.emplace());
         }},
    };
}

std::vector<Option> generic_options() {
    using fs::MountOptions;
    std::vector<Option> options = {
        {"ro", Takes::kNothing, "", "read-only", read_only(true)},
        {"rw", Takes::kNothing, "", "read-write (default)", read_only(false)},
        {"sync", Takes::kNothing, "", "every change is on the disk when its call returns",
         flag(&MountOptions::sync)},
        {"async", Takes::kNothing, "", nullptr, flag(&MountOptions::sync, false)},
        {"dirsync", Takes::kNothing, "", "the same for directory operations",
         flag(&MountOptions::dirsync)},
        {"remount", Takes::kNothing, "", nullptr,
         [](DaemonOptions& o, const std::string&) {
             o.remount = true;
             return std::string{};
         }},
        {"fsname", Takes::kValue, "", nullptr, ignore()},
        {"subtype", Takes::kValue, "", nullptr, ignore()},
    };
    for (const char* name : {"allow_other", "allow_root", "auto_unmount", "nosuid", "suid", "nodev",
                             "dev", "noexec", "exec", "noatime", "atime", "nodiratime"}) {
        options.push_back({name, Takes::kNothing, "", nullptr, to_kernel(name)});
    }
    // fstab's own words, which mount(8) passes on to a helper.
    for (const char* name : {"auto", "noauto", "user", "nouser", "users", "group", "owner",
                             "defaults", "nofail", "_netdev", "default_permissions", "relatime",
                             "strictatime", "lazytime", "loud", "silent"}) {
        options.push_back({name, Takes::kNothing, "", nullptr, ignore()});
    }
    return options;
}

const std::vector<Option>& all_options() {
    static const std::vector<Option> kOptions = [] {
        std::vector<Option> options;
        for (const auto& group :
             {own_options(), report_options(), point_options(), protocol_options(),
              control_options(), vfat_name_options(), vfat_volume_options(), generic_options()}) {
            options.insert(options.end(), group.begin(), group.end());
        }
        return options;
    }();
    return kOptions;
}

// One option. Returns "" or the sentence.
std::string parse_one(const std::string& text, DaemonOptions& options) {
    const std::size_t equals = text.find('=');
    const std::string name = text.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : text.substr(equals + 1);
    if (name.starts_with("x-") || name.starts_with("comment")) {
        return {};
    }
    const auto& table = all_options();
    const auto option =
        std::find_if(table.begin(), table.end(), [&](const Option& o) { return o.name == name; });
    if (option == table.end()) {
        return fmt::format("unknown mount option '{}'; wbfat -h lists them all", name);
    }
    const bool has_value = equals != std::string::npos;
    if (has_value && option->takes == Takes::kNothing) {
        return fmt::format("mount option '{}' takes no value, but got '{}'", name, value);
    }
    if (!has_value && option->takes == Takes::kValue) {
        return fmt::format("mount option '{0}' needs a value: {0}={1}", name, option->value_name);
    }
    const std::string right = option->apply(options, value);
    if (!right.empty() && option->refusal == Refusal::kSentence) {
        return right;
    }
    if (!right.empty()) {
        return fmt::format("mount option '{}': '{}' is not valid; give {}", name, value, right);
    }
    return {};
}

}  // namespace

Result<std::uint64_t> parse_size(const std::string& text) {
    std::string_view digits = text;
    unsigned shift = 0;
    if (!digits.empty()) {
        switch (digits.back()) {
            case 'k':
            case 'K':
                shift = 10;
                break;
            case 'm':
            case 'M':
                shift = 20;
                break;
            case 'g':
            case 'G':
                shift = 30;
                break;
            default:
                break;
        }
        digits.remove_suffix(shift != 0 ? 1 : 0);
    }
    const std::optional<std::uint64_t> number = parse_number<std::uint64_t>(digits, 10);
    if (!number || *number > (~std::uint64_t{0} >> shift)) {
        return Errno{EINVAL};
    }
    return *number << shift;
}

DaemonOptions default_options() {
    DaemonOptions options;
    options.fs.uid = ::getuid();
    options.fs.gid = ::getgid();
    const mode_t mask = ::umask(0);
    ::umask(mask);
    options.fs.fmask = mask;
    options.fs.dmask = mask;
    options.fs.allow_utime = ~mask & 022;
    struct sysinfo memory {};
    if (::sysinfo(&memory) == 0) {
        const std::uint64_t tenth = std::uint64_t{memory.totalram} * memory.mem_unit / 10;
        options.cache.cache_size_bytes = std::clamp(tenth, kMinCacheBytes, kMaxDefaultCacheBytes);
    }
    return options;
}

std::string parse_options(const std::string& text, DaemonOptions& options) {
    // allow_utime follows dmask unless it is given.
    const mode_t old_dmask = options.fs.dmask;
    const mode_t old_allow_utime = options.fs.allow_utime;
    bool last_is_assert = false;
    for (std::size_t at = 0; at <= text.size();) {
        const std::size_t comma = std::min(text.find(',', at), text.size());
        std::string one = text.substr(at, comma - at);
        if (last_is_assert && one.find(':') != std::string::npos &&
            one.find('=') == std::string::npos) {
            one = "assert=" + one;
        }
        last_is_assert = one.starts_with("assert=");
        if (!one.empty()) {
            if (std::string sentence = parse_one(one, options); !sentence.empty()) {
                return sentence;
            }
        }
        at = comma + 1;
    }
    if (options.fs.dmask != old_dmask && options.fs.allow_utime == old_allow_utime) {
        options.fs.allow_utime = ~options.fs.dmask & 022;
    }
    return {};
}

std::string options_help() {
    std::string help;
    for (const Option& option : all_options()) {
        if (option.help == nullptr) {
            continue;
        }
        std::string spelling = option.name;
        if (option.takes != Takes::kNothing) {
            spelling += option.takes == Takes::kValue ? fmt::format("={}", option.value_name)
                                                      : fmt::format("[={}]", option.value_name);
        }
        help += fmt::format("    {:<28} {}\n", spelling, option.help);
    }
    help += "\nVersions of the page protocol (protocol=VERSION):\n";
    for (const cache::ProtocolPreset& preset : cache::protocol_presets()) {
        help += fmt::format("      {:<26} {}\n", preset.name, preset.help);
    }
    help += "\nSwitches laid over a version (protocol=5.9,end=xor):\n";
    for (const cache::ProtocolSwitch& which : cache::protocol_switches()) {
        for (const cache::ProtocolSwitchValue& value : which.values) {
            help += fmt::format("      {:<26} {}\n", fmt::format("{}={}", which.name, value.name),
                                value.help);
        }
    }
    return help;
}

}  // namespace wbfat::daemon
