// wbfat-model: random operations against a directory under test and a plain one, which must not
// differ.
//
// Exit: 0 they do not, 1 they do (the seed, the operation, the last ones before it and a short
// trace are printed), 2 wrong use or an environment that cannot carry the run.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <system_error>
#include <vector>

#include <boost/json.hpp>

#include "tests/mount/model/generator.h"
#include "tests/mount/model/options.h"
#include "tests/mount/model/session.h"
#include "tests/mount/model/shrink.h"

namespace wbfat::model {
namespace {

constexpr std::size_t kShownOps = 20;
constexpr unsigned kShrinkSeconds = 60;
constexpr std::uint64_t kProgressEvery = 1000;

struct Report {
    std::uint64_t ops = 0;
    double seconds = 0;
    std::string failure;
    std::vector<std::string> last_ops;
    std::vector<std::string> last_ops_on_file;
    std::vector<std::string> shrunk;
    std::string shrunk_failure;
    TreeTotals totals;
    std::uint64_t refused_no_space = 0;
    std::map<std::string, std::uint64_t> by_kind;
};

void print_json(const Options& options, const Report& report) {
    boost::json::object by_kind;
    for (const auto& [kind, count] : report.by_kind) {
        by_kind[kind] = count;
    }
    boost::json::object out{{"result", report.failure.empty() ? "pass" : "fail"},
                            {"seed", options.seed},
                            {"round", options.round},
                            {"ops", report.ops},
                            {"seconds", report.seconds},
                            {"files", report.totals.files},
                            {"directories", report.totals.directories},
                            {"bytes", report.totals.bytes},
                            {"refused_no_space", report.refused_no_space},
                            {"ops_by_kind", by_kind}};
    if (!report.failure.empty()) {
        out["failure"] = report.failure;
        out["last_ops"] = boost::json::value_from(report.last_ops);
        out["shrunk"] = boost::json::value_from(report.shrunk);
        out["replay"] = replay_command(options, report.ops);
    }
    fmt::print("{}\n", boost::json::serialize(out));
}

void print_failure(const Options& options, const Report& report) {
    fmt::print(stderr,
               "FAILED: seed {} round {}, operation {}: {}\nlast operations, oldest first:\n",
               options.seed, options.round, report.ops, report.failure);
    for (const std::string& line : report.last_ops) {
        fmt::print(stderr, "  {}\n", line);
    }
    fmt::print(stderr, "last operations on this file, by number:\n");
    for (const std::string& line : report.last_ops_on_file) {
        fmt::print(stderr, "  {}\n", line);
    }
    fmt::print(stderr, "replay: {}\n", replay_command(options, report.ops));
}

void print_shrunk(const Report& report) {
    if (report.shrunk_failure.empty()) {
        fmt::print(stderr, "in fresh directories the same operations do not fail\n");
        return;
    }
    fmt::print(stderr, "{} operations that fail as well ({}):\n", report.shrunk.size(),
               report.shrunk_failure);
    for (const std::string& line : report.shrunk) {
        fmt::print(stderr, "  {}\n", line);
    }
}

std::vector<std::string> as_text(const std::vector<Op>& ops, std::size_t last) {
    std::vector<std::string> lines;
    for (std::size_t i = ops.size() - std::min(ops.size(), last); i < ops.size(); ++i) {
        lines.push_back(to_text(ops[i]));
    }
    return lines;
}

void show_progress(const Options& options, std::uint64_t done, double seconds) {
    if (options.progress && done % kProgressEvery == 0) {
        fmt::print(stderr, "\rseed {} round {}: {} of {} operations, {:.0f} per second ",
                   options.seed, options.round, done, options.ops,
                   static_cast<double>(done) / seconds);
    }
}

// The last operations on what the last one was about.
std::vector<std::string> history(const std::vector<Op>& done,
                                 const std::vector<const void*>& nodes) {
    std::vector<std::string> lines;
    for (std::size_t i = nodes.size(); i-- > 0 && lines.size() < kShownOps;) {
        if (nodes[i] != nullptr && nodes[i] == nodes.back()) {
            lines.insert(lines.begin(), fmt::format("{}: {}", i, to_text(done[i])));
        }
    }
    return lines;
}

// The operations that were done, the last one being the one that failed.
std::string run_random(const Options& options, Session& session, std::vector<Op>& done,
                       Report& report) {
    std::vector<const void*> nodes;
    const auto start = std::chrono::steady_clock::now();
    for (std::uint64_t i = 0; i < options.ops; ++i) {
        tools::Random random(options.seed, options.round, i);
        Op op = generate(session, random);
        std::string failure = session.apply(op);
        done.push_back(std::move(op));
        nodes.push_back(session.last_node());
        if (!failure.empty()) {
            report.last_ops_on_file = history(done, nodes);
            return failure;
        }
        const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
        show_progress(options, i + 1, elapsed.count());
    }
    return "";
}

std::vector<Op> read_trace(const std::string& path) {
    std::ifstream file(path);
    std::vector<Op> ops;
    std::string line;
    while (std::getline(file, line)) {
        const std::optional<Op> op = parse_op(line);
        if (!op) {
            throw std::system_error(EINVAL, std::generic_category(),
                                    path + ": no operation: " + line);
        }
        ops.push_back(*op);
    }
    return ops;
}

// What was there before, if it is to be continued, and the free clusters at the start.
std::string prepare(const Options& options, Session& session) {
    if (options.resume) {
        if (std::string failure = session.load(); !failure.empty()) {
            return failure;
        }
    }
    TreeTotals totals;
    if (std::string difference = session.verify(totals); !difference.empty()) {
        return (options.resume ? "after the remount: " : "the directories are not empty: ") +
               difference;
    }
    return session.check_free_count(totals);
}

std::string run_all(const Options& options, Session& session, std::vector<Op>& done,
                    Report& report) {
    if (std::string failure = prepare(options, session); !failure.empty()) {
        return failure;
    }
    if (!options.replay.empty()) {
        done = read_trace(options.replay);
        return replay(session, done);
    }
    if (std::string failure = run_random(options, session, done, report); !failure.empty()) {
        return failure;
    }
    if (std::string difference = session.verify(report.totals); !difference.empty()) {
        return "trees differ: " + difference;
    }
    return session.check_free_count(report.totals);
}

void write_trace(const std::string& path, const std::vector<Op>& ops) {
    std::ofstream file(path);
    for (const Op& op : ops) {
        file << to_text(op) << '\n';
    }
}

void look_for_shorter(const Options& options, std::vector<Op> done, Report& report) {
    Shrunk shrunk = shrink(options.directory, options.reference, options.limits, std::move(done),
                           kShrinkSeconds);
    report.shrunk_failure = shrunk.failure;
    if (shrunk.failure.empty()) {
        return;
    }
    report.shrunk = as_text(shrunk.ops, shrunk.ops.size());
    if (!options.trace.empty()) {
        write_trace(options.trace, shrunk.ops);
    }
}

int run(const Options& options) {
    Report report;
    std::vector<Op> done;
    const auto start = std::chrono::steady_clock::now();
    {
        Session session(options.directory, options.reference, options.limits);
        report.failure = run_all(options, session, done, report);
        report.refused_no_space = session.refused_no_space();
    }
    report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    report.ops = done.size();
    for (const Op& op : done) {
        ++report.by_kind[std::string(kind_name(op.kind))];
    }
    if (!report.failure.empty()) {
        report.last_ops = as_text(done, kShownOps);
        print_failure(options, report);
        if (!options.no_shrink && !done.empty()) {
            try {
                look_for_shorter(options, done, report);
                print_shrunk(report);
            } catch (const std::exception& error) {
                fmt::print(stderr, "no shorter list was found: {}\n",
                           error.what());  // the mount may be gone
            }
        }
    }
    if (options.json) {
        print_json(options, report);
    } else if (report.failure.empty()) {
        fmt::print(
            "PASS: seed {} round {}: {} operations in {:.1f} s; {} files, {} directories, {} "
            "bytes\n",
            options.seed, options.round, report.ops, report.seconds, report.totals.files,
            report.totals.directories, report.totals.bytes);
    }
    return report.failure.empty() ? kExitPass : kExitFail;
}

}  // namespace
}  // namespace wbfat::model

int main(int argc, char** argv) {
    using namespace wbfat::model;
    const auto parsed = parse_command_line(argc, argv);
    if (const int* code = std::get_if<int>(&parsed)) {
        return *code;
    }
    try {
        return run(std::get<Options>(parsed));
    } catch (const std::exception& error) {
        fmt::print(stderr, "wbfat-model: {}\n", error.what());
        return kExitEnvironment;
    }
}
