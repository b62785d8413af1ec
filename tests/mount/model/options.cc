// Command line parsing with CLI11, and its inverse for the replay line.
#include "tests/mount/model/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

namespace wbfat::model {

std::variant<Options, int> parse_command_line(int argc, const char* const* argv) {
    CLI::App app{
        "Random operations on a mounted FAT volume and on a plain directory, with equal results.",
        "wbfat-model"};
    Options options;
    Limits& limits = options.limits;
    app.add_option("--dir", options.directory, "directory on the volume under test")
        ->required()
        ->check(CLI::ExistingDirectory);
    app.add_option("--reference", options.reference, "plain, case-sensitive directory: tmpfs, ext4")
        ->required()
        ->check(CLI::ExistingDirectory);
    app.add_option("--seed", options.seed, "seed of all choices")->capture_default_str();
    app.add_option("--round", options.round, "another sequence of the same seed, for --continue")
        ->capture_default_str();
    app.add_option("-n,--ops", options.ops, "operations; 0 with --continue only compares")
        ->capture_default_str();
    app.add_flag("--continue", options.resume,
                 "compare with what the last run left, and go on from there");
    app.add_option("--max-size", limits.max_size, "largest file, bytes or with K, M")
        ->capture_default_str()
        ->transform(CLI::AsSizeValue(false))
        ->check(CLI::Range(std::uint64_t{8192}, std::uint64_t{64} << 20));
    app.add_option("--max-nodes", limits.max_nodes, "files and directories")
        ->capture_default_str()
        ->check(CLI::Range(10U, 100'000U));
    app.add_flag("--may-fill", limits.may_fill,
                 "the volume may become full; ENOSPC is then an answer");
    app.add_flag("!--no-four-gib", limits.four_gib, "nothing beyond 4 GiB");
    app.add_flag("!--no-mmap", limits.use_mmap, "no shared mappings");
    app.add_flag("!--no-direct", limits.use_direct, "no O_DIRECT");
    app.add_flag("--kernel-gathers", limits.kernel_gathers, "mounted with cache=writeback");
    app.add_option("--replay", options.replay, "run the operations of this trace")
        ->check(CLI::ExistingFile);
    app.add_option("--trace", options.trace,
                   "where the shortest failing list of operations is written");
    app.add_flag("--no-shrink", options.no_shrink, "do not look for a shorter list");
    app.add_flag("--json", options.json, "report as JSON on standard output");
    app.add_flag("--progress", options.progress, "live progress on standard error");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? kExitPass : kExitEnvironment;
    }
    return options;
}

std::string replay_command(const Options& options, std::uint64_t ops) {
    const Options defaults;
    std::string line =
        fmt::format("wbfat-model --dir {} --reference {} --seed {} --round {} --ops {}",
                    options.directory, options.reference, options.seed, options.round, ops);
    if (options.limits.max_size != defaults.limits.max_size) {
        line += fmt::format(" --max-size {}", options.limits.max_size);
    }
    if (options.limits.max_nodes != defaults.limits.max_nodes) {
        line += fmt::format(" --max-nodes {}", options.limits.max_nodes);
    }
    line += options.limits.may_fill ? " --may-fill" : "";
    line += options.limits.four_gib ? "" : " --no-four-gib";
    line += options.limits.use_mmap ? "" : " --no-mmap";
    line += options.limits.use_direct ? "" : " --no-direct";
    line += options.limits.kernel_gathers ? " --kernel-gathers" : "";
    line += options.resume ? " --continue" : "";
    return line;
}

}  // namespace wbfat::model
