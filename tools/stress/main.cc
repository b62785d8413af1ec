// wbfat-stress: does a filesystem keep what many threads put into it?
#include <fmt/format.h>

#include <exception>
#include <variant>

#include "tools/stress/mapped_window.h"
#include "tools/stress/options.h"
#include "tools/stress/report.h"
#include "tools/stress/runner.h"

namespace {

using namespace wbfat::tools;  // NOLINT(google-build-using-namespace): this file is the program

int run(const StressOptions& options) {
    install_sigbus_handler();
    install_interrupt_handler();
    const Outcome outcome = run_truncate_stress(options);
    if (!options.manifest.empty() && !outcome.failure) {
        write_manifest(options.manifest, outcome);
    }
    if (options.json) {
        fmt::print("{}\n", json_report(options, outcome));
    }
    // With --json the words go where they disturb no reader of the JSON.
    fmt::print(options.json || outcome.failure ? stderr : stdout, "{}",
               text_report(options, outcome));
    return outcome.failure ? kExitMismatch : kExitPass;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        const Command command = parse_command_line(argc, argv);
        if (const auto* stress = std::get_if<StressOptions>(&command)) {
            return run(*stress);
        }
        if (const auto* verify = std::get_if<VerifyOptions>(&command)) {
            return verify_manifest(*verify);
        }
        return std::get<int>(command);
    } catch (const std::exception& error) {
        fmt::print(stderr, "wbfat-stress: {}\n", error.what());
        return kExitEnvironment;
    }
}
