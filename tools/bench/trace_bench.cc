// What the trace costs: an event, and the page lock with the trace off and on.
//
//   trace_bench --benchmark_filter=. --benchmark_min_time=0.2
#include <benchmark/benchmark.h>

#include "cache/page.h"
#include "cache/page_lock.h"
#include "cache/trace.h"

namespace {

using namespace wbfat::cache;  // NOLINT(google-build-using-namespace): a program, and of one page

void event(benchmark::State& state) {
    set_trace(state.range(0) != 0 ? TraceState::kOn : TraceState::kOff);
    Page page;
    for (auto _ : state) {
        trace_page(TraceKind::kLock, page);
        benchmark::ClobberMemory();
    }
}
BENCHMARK(event)->ArgName("on")->Arg(0)->Arg(1);

void lock_and_unlock(benchmark::State& state) {
    set_trace(state.range(0) != 0 ? TraceState::kOn : TraceState::kOff);
    Page page;
    for (auto _ : state) {
        lock_page(page);
        unlock_page(page);
    }
}
BENCHMARK(lock_and_unlock)->ArgName("on")->Arg(0)->Arg(1);

}  // namespace

BENCHMARK_MAIN();
