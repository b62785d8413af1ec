// Reports of wbfat-stress.
#include "tools/stress/report.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstddef>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <system_error>
#include <vector>

#include <boost/json.hpp>
#include <xxhash.h>

namespace wbfat::tools {
namespace {

constexpr double kMiB = 1 << 20;

// The digest and size of a file on disk; nothing if it cannot be read.
struct Digest {
    std::uint64_t size = 0;
    std::uint64_t xxh3 = 0;
};

std::optional<Digest> digest_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) {
        return std::nullopt;
    }
    const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(),
                                                                         &XXH3_freeState);
    XXH3_64bits_reset(state.get());
    Digest digest;
    std::vector<char> chunk(256U << 10);
    while (in.read(chunk.data(), static_cast<std::streamsize>(chunk.size())) || in.gcount() > 0) {
        XXH3_64bits_update(state.get(), chunk.data(), static_cast<std::size_t>(in.gcount()));
        digest.size += static_cast<std::uint64_t>(in.gcount());
    }
    if (in.bad()) {
        return std::nullopt;
    }
    digest.xxh3 = XXH3_64bits_digest(state.get());
    return digest;
}

}  // namespace

std::string Failure::to_string() const {
    std::string text = fmt::format("FAILED: {}\n  {:<11}{}\n", what, "file", file);
    for (const auto& [label, value] : facts) {
        text += fmt::format("  {:<11}{}\n", label, value);
    }
    text += fmt::format("  {:<11}thread {}, op {}\n  last operations on this file:\n", "seen by",
                        thread, op_index);
    for (const std::string& line : last_ops) {
        text += "    " + line + "\n";
    }
    return text;
}

std::string text_report(const StressOptions& options, const Outcome& outcome) {
    const Totals& totals = outcome.totals;
    std::string text;
    if (outcome.failure) {
        text += outcome.failure->to_string();
        text += fmt::format("  the files are left in {}\n", options.directory);
        text += fmt::format("replay: {}\n", replay_command(options, outcome.ops_per_thread));
    }
    text += fmt::format(
        "{}: seed {}, {} threads, {} ops in {:.1f} s, {:.1f} MiB written, {:.1f} MiB checked\n",
        outcome.failure ? "FAIL" : "PASS", options.seed, options.threads, totals.nr_ops,
        outcome.seconds, static_cast<double>(totals.bytes_written) / kMiB,
        static_cast<double>(totals.bytes_checked) / kMiB);
    if (totals.refused_full + totals.refused_too_big > 0) {
        text += fmt::format("  refused and consistent: {} no space, {} too big\n",
                            totals.refused_full, totals.refused_too_big);
    }
    if (outcome.cannot_map) {
        text +=
            fmt::format("  shared mappings are not to be had here: {} mapped accesses skipped\n",
                        totals.skipped);
    }
    if (outcome.interrupted) {
        text += "  interrupted: the run ended early\n";
    }
    return text;
}

std::string json_report(const StressOptions& options, const Outcome& outcome) {
    const Totals& totals = outcome.totals;
    boost::json::object ops;
    for (unsigned kind = 0; kind < kNrOpKinds; ++kind) {
        ops[name_of(static_cast<OpKind>(kind))] = totals.ops[kind];
    }
    boost::json::object report{{"result", outcome.failure ? "fail" : "pass"},
                               {"seed", options.seed},
                               {"threads", options.threads},
                               {"files", options.files},
                               {"shared", options.shared},
                               {"seconds", outcome.seconds},
                               {"ops", totals.nr_ops},
                               {"ops_per_thread", outcome.ops_per_thread},
                               {"ops_by_kind", ops},
                               {"bytes_written", totals.bytes_written},
                               {"bytes_checked", totals.bytes_checked},
                               {"refused_no_space", totals.refused_full},
                               {"refused_too_big", totals.refused_too_big},
                               {"mmap_supported", !outcome.cannot_map},
                               {"interrupted", outcome.interrupted},
                               {"replay", replay_command(options, outcome.ops_per_thread)}};
    if (outcome.failure) {
        const Failure& failure = *outcome.failure;
        boost::json::object facts;
        for (const auto& [label, value] : failure.facts) {
            facts[label] = value;
        }
        report["failure"] = {{"what", failure.what},
                             {"file", failure.file},
                             {"offset", failure.offset_bytes},
                             {"thread", failure.thread},
                             {"op", failure.op_index},
                             {"facts", facts},
                             {"last_ops", boost::json::value_from(failure.last_ops)}};
    }
    return boost::json::serialize(report);
}

void write_manifest(const std::string& path, const Outcome& outcome) {
    std::ofstream out(path, std::ios::trunc);
    for (const FileSummary& file : outcome.files) {
        out << fmt::format("{:016x} {} {}\n", file.xxh3, file.size, file.name);
    }
    out.close();
    if (!out) {
        throw std::system_error(errno, std::generic_category(), "cannot write " + path);
    }
}

int verify_manifest(const VerifyOptions& options) {
    std::ifstream in(options.manifest);
    unsigned nr_files = 0;
    unsigned nr_wrong = 0;
    for (std::string line; std::getline(in, line); ++nr_files) {
        std::istringstream fields(line);
        FileSummary file;
        std::string digest_text;
        fields >> digest_text >> file.size;
        fields.ignore(1);
        if (!std::getline(fields, file.name) || digest_text.size() != 16) {
            fmt::print(stderr, "wbfat-stress: {}: line {} is not `xxh3 size name`\n",
                       options.manifest, nr_files + 1);
            return kExitEnvironment;
        }
        const auto found = digest_of(options.directory + "/" + file.name);
        if (!found) {
            fmt::print("{}: cannot be read\n", file.name);
            ++nr_wrong;
        } else if (found->size != file.size) {
            fmt::print("{}: {} bytes, expected {}\n", file.name, found->size, file.size);
            ++nr_wrong;
        } else if (fmt::format("{:016x}", found->xxh3) != digest_text) {
            fmt::print("{}: content differs\n", file.name);
            ++nr_wrong;
        }
    }
    if (nr_files == 0) {
        fmt::print(stderr, "wbfat-stress: {}: no files listed\n", options.manifest);
        return kExitEnvironment;
    }
    fmt::print("{}: {} files compared, {} differ\n", nr_wrong == 0 ? "PASS" : "FAIL", nr_files,
               nr_wrong);
    return nr_wrong == 0 ? kExitPass : kExitMismatch;
}

}  // namespace wbfat::tools
