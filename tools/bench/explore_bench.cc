// How fast the explorer is: executions a second, and what a complete proof costs.
//
//   ninja -C build tools/bench/explore_bench && build/tools/bench/explore_bench [SECONDS]
//
// Rates are of processor time, one core, so that a busy machine does not change them much.
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <ctime>

#include "tools/explore/explore.h"

namespace {

using wbfat::explore::Method;
using wbfat::explore::Options;
using wbfat::explore::Result;

double processor_seconds() {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

// Not to the end: as many executions as there is time for.
void rate(const char* what, Method method, double seconds) {
    Options options;
    options.scenario = "mail";
    options.method = method;
    options.stop_at_first = false;
    options.time_limit = std::chrono::nanoseconds(static_cast<std::int64_t>(seconds * 1e9));
    const double before = processor_seconds();
    const Result result = wbfat::explore::explore(options);
    const double took = processor_seconds() - before;
    const auto& search = result.searches.front();
    fmt::print("{:28} {:>9.0f} executions/s {:>6.0f} ns/step  ({} executions, {:.1f} steps each)\n",
               what, static_cast<double>(search.executions) / took,
               took * 1e9 / static_cast<double>(search.steps), search.executions,
               static_cast<double>(search.steps) / static_cast<double>(search.executions));
}

void proof(const char* what, unsigned cpus, unsigned lock_contention) {
    Options options;
    options.scenario = "mail";
    options.parameters = {{"cpus", cpus}, {"lock_contention", lock_contention}};
    options.method = Method::kStateful;
    options.time_limit = std::chrono::minutes(1);
    const double before = processor_seconds();
    const Result result = wbfat::explore::explore(options);
    const double took = processor_seconds() - before;
    const auto& search = result.searches.front();
    fmt::print("{:28} {:>9.2f} s {:>10} states {:>8.1f} MiB  {}\n", what, took, search.states,
               static_cast<double>(search.memory_bytes) / (1 << 20),
               result.complete ? "complete: " + std::string(to_string(result.verdict))
                               : "stopped by " + search.stopped_by);
}

}  // namespace

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 3;
    rate("mail, all interleavings", Method::kDfs, seconds);
    rate("mail, all traces", Method::kDpor, seconds);
    rate("mail, by chance", Method::kRandom, seconds);
    proof("mail 6.8, three CPUs", 3, 0);
    proof("mail 6.8, three, contended", 3, 1);
    proof("mail 6.8, four CPUs", 4, 0);
    proof("mail 6.8, four, contended", 4, 1);
    return 0;
}
