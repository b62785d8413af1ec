// Command line parsing with CLI11, and its inverse for the replay line.
#include "tools/stress/options.h"

#include <fmt/format.h>

#include <random>

#include "tools/stress/content.h"
#include <CLI/CLI.hpp>

namespace wbfat::tools {
namespace {

constexpr const char* kVersion = "wbfat-stress 0.1.0";

void add_truncate(CLI::App& app, StressOptions& options) {
    auto* cmd = app.add_subcommand(
        "truncate", "grow, shrink, write, map and sync files; check every byte read back");
    cmd->add_option("DIR", options.directory, "directory on the filesystem under test")
        ->required()
        ->check(CLI::ExistingDirectory);
    cmd->add_option("-t,--threads", options.threads, "threads")
        ->capture_default_str()
        ->check(CLI::Range(1, 256));
    cmd->add_option("-m,--files", options.files,
                    "files of each thread (with --shared: of all threads)")
        ->capture_default_str()
        ->check(CLI::Range(1U, kMaxFiles));
    cmd->add_option("--seed", options.seed, "seed of all choices; default: a random one, printed");
    auto* ops =
        cmd->add_option("-n,--ops", options.ops, "end after this many operations of each thread");
    cmd->add_option("-s,--seconds", options.seconds, "end after this time")
        ->capture_default_str()
        ->check(CLI::PositiveNumber)
        ->excludes(ops);
    cmd->add_option("--max-size", options.max_size, "largest file, bytes or with K, M, G")
        ->capture_default_str()
        ->transform(CLI::AsSizeValue(false))
        ->check(CLI::Range(std::uint64_t{8192}, kMaxFileSize));
    cmd->add_option("--max-write", options.max_write, "longest single write, bytes or with K, M")
        ->capture_default_str()
        ->transform(CLI::AsSizeValue(false))
        ->check(CLI::Range(std::uint64_t{64}, std::uint64_t{64} << 20));
    cmd->add_option("--cluster", options.cluster,
                    "unit whose boundaries sizes keep near; default: ask statvfs")
        ->transform(CLI::AsSizeValue(false));
    cmd->add_flag("--shared", options.shared,
                  "all threads work on every file, each on its own byte ranges");
    cmd->add_flag("--names", options.names, "rename and unlink files too");
    cmd->add_flag("--four-gib", options.four_gib,
                  "sizes around 4 GiB too (slow: FAT writes the zeros)");
    cmd->add_flag("--no-mmap", options.no_mmap, "no mapped reads and stores");
    const std::map<std::string, Mix> mixes{{"everything", Mix::kEverything}, {"grow", Mix::kGrow}};
    cmd->add_option("--mix", options.mix,
                    "everything; grow: mostly odd steps inside a page and across its edges")
        ->transform(CLI::CheckedTransformer(mixes));
    cmd->add_flag("--sync", options.sync,
                  "O_SYNC, and fsync after every change of size: as a sync mount does");
    cmd->add_option("--waiters", options.bystanders.waiters,
                    "threads that only wait for writeback (sync_file_range)")
        ->check(CLI::Range(0, 64));
    cmd->add_option("--flushers", options.bystanders.flushers,
                    "threads that only start writeback (sync_file_range)")
        ->check(CLI::Range(0, 64));
    cmd->add_option("--syncers", options.bystanders.syncers, "threads that call syncfs and sync")
        ->check(CLI::Range(0, 64));
    cmd->add_flag("--strict-full", options.strict_full,
                  "a refused growth must leave the size as it was");
    cmd->add_flag("--keep", options.keep, "leave the files");
    cmd->add_flag("--overwrite", options.overwrite, "take over files of an earlier run");
    cmd->add_option("--manifest", options.manifest,
                    "write `xxh3 size name` of every file here; implies --keep");
    cmd->add_flag("--json", options.json, "final report as JSON on standard output");
    const std::map<std::string, Progress> progress{
        {"auto", Progress::kAuto}, {"always", Progress::kAlways}, {"never", Progress::kNever}};
    cmd->add_option("--progress", options.progress,
                    "live progress on standard error: auto, always, never")
        ->transform(CLI::CheckedTransformer(progress));
}

void add_verify(CLI::App& app, VerifyOptions& options) {
    auto* cmd = app.add_subcommand("verify", "compare the files of DIR with a manifest");
    cmd->add_option("MANIFEST", options.manifest, "manifest of a truncate run")
        ->required()
        ->check(CLI::ExistingFile);
    cmd->add_option("DIR", options.directory, "where the files are now")
        ->required()
        ->check(CLI::ExistingDirectory);
}

}  // namespace

Command parse_command_line(int argc, const char* const* argv) {
    CLI::App app{"Stress for filesystems: many threads, every byte checked.", "wbfat-stress"};
    app.set_version_flag("-V,--version", kVersion);
    app.require_subcommand(1);
    StressOptions stress;
    VerifyOptions verify;
    add_truncate(app, stress);
    add_verify(app, verify);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? kExitPass : kExitEnvironment;
    }
    if (app.got_subcommand("verify")) {
        return verify;
    }
    const auto* cmd = app.get_subcommand("truncate");
    if (cmd->count("--seed") == 0) {
        // Short enough to be typed.
        stress.seed = std::random_device{}();
    }
    stress.keep = stress.keep || !stress.manifest.empty();
    const std::uint64_t nr_files =
        std::uint64_t{stress.files} * (stress.shared ? 1 : stress.threads);
    if (nr_files > kMaxFiles) {
        fmt::print(stderr, "wbfat-stress: {} files are more than {}\n", nr_files, kMaxFiles);
        return kExitEnvironment;
    }
    return stress;
}

std::string replay_command(const StressOptions& options, std::uint64_t ops) {
    const StressOptions defaults;
    std::string line =
        fmt::format("wbfat-stress truncate {} --seed {} --threads {} --files {} --ops {}",
                    options.directory, options.seed, options.threads, options.files, ops);
    if (options.max_size != defaults.max_size) {
        line += fmt::format(" --max-size {}", options.max_size);
    }
    if (options.max_write != defaults.max_write) {
        line += fmt::format(" --max-write {}", options.max_write);
    }
    if (options.cluster != 0) {
        line += fmt::format(" --cluster {}", options.cluster);
    }
    line += options.shared ? " --shared" : "";
    line += options.names ? " --names" : "";
    line += options.four_gib ? " --four-gib" : "";
    line += options.no_mmap ? " --no-mmap" : "";
    line += options.mix == Mix::kGrow ? " --mix grow" : "";
    line += options.sync ? " --sync" : "";
    const BystanderCounts& bystanders = options.bystanders;
    line += bystanders.waiters != 0 ? fmt::format(" --waiters {}", bystanders.waiters) : "";
    line += bystanders.flushers != 0 ? fmt::format(" --flushers {}", bystanders.flushers) : "";
    line += bystanders.syncers != 0 ? fmt::format(" --syncers {}", bystanders.syncers) : "";
    line += options.strict_full ? " --strict-full" : "";
    return line;
}

}  // namespace wbfat::tools
