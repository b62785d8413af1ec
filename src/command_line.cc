// The command line.
#include "src/command_line.h"

#include <fmt/core.h>

#include <cstdlib>
#include <vector>

#include "src/fuse.h"
#include "src/log.h"

#include <CLI/CLI.hpp>

namespace wbfat::daemon {

namespace {

constexpr const char* kVersion = WBFAT_VERSION;

void print_help(const CLI::App& app) {
    fmt::print("{}\nMount options (-o a,b=c,..):\n{}", app.help(), options_help());
}

}  // namespace

std::optional<CommandLine> parse_command_line(int argc, char** argv, int& exit_code) {
    CommandLine line;
    std::vector<std::string> options;
    bool help = false;
    bool version = false;
    bool ignored = false;

    CLI::App app{"Mount a FAT12, FAT16 or FAT32 volume.", "wbfat"};
    app.set_help_flag();
    app.add_option("DEVICE", line.device, "image file or block device");
    app.add_option("MOUNTPOINT", line.mountpoint, "an existing directory");
    app.add_option("-o", options, "mount options, separated by commas")
        ->take_all()
        ->allow_extra_args(false);
    app.add_flag("-f,--foreground", line.foreground, "stay in the foreground");
    app.add_flag("-d,--debug", line.debug, "print every request; implies -f");
    app.add_flag("-h,--help", help, "print this");
    app.add_flag("-V,--version", version, "print the version");
    app.add_flag("-n,-v,-s", ignored, "accepted for mount(8), without effect");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        complain(fmt::format("{} (wbfat -h shows the usage)", error.what()));
        exit_code = kExitUsage;
        return std::nullopt;
    }
    if (help) {
        print_help(app);
        exit_code = kExitOk;
        return std::nullopt;
    }
    if (version) {
        fmt::print("wbfat {} (libfuse {})\n", kVersion, fuse_pkgversion());
        exit_code = kExitOk;
        return std::nullopt;
    }
    exit_code = kExitUsage;
    if (line.device.empty() || line.mountpoint.empty()) {
        complain("a device and a mount point are needed: wbfat DEVICE MOUNTPOINT [-o OPTIONS]");
        return std::nullopt;
    }
    line.options = default_options();
    for (const std::string& text : options) {
        if (const std::string sentence = parse_options(text, line.options); !sentence.empty()) {
            complain(sentence);
            return std::nullopt;
        }
    }
    if (line.options.remount) {
        complain(
            "'remount' cannot reach a running daemon through mount(8); unmount and mount again");
        return std::nullopt;
    }
    line.foreground |= line.debug;
    return line;
}

}  // namespace wbfat::daemon
