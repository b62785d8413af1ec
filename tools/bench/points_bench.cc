// What named points cost: nothing worth measuring while nothing is armed, one look-up under a mutex
// while something is.
//
//   build/tools/bench/points_bench
//
// Pairs to compare: Baseline with DisarmedPoint, a loop of two instructions without and with a
// point; AtomicPair with AtomicPairWithDisarmedPoint, the uncontended lock and unlock of a page
// with the points beside them.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>

#include "cache/sync/point_rules.h"
#include "cache/sync/sync.h"

namespace wbfat {
namespace {

void BM_Baseline(benchmark::State& state) {
    std::uint64_t work = 1;
    for (auto _ : state) {
        work = work * 6364136223846793005ULL + 1442695040888963407ULL;
        benchmark::DoNotOptimize(work);
    }
}
BENCHMARK(BM_Baseline);

void BM_DisarmedPoint(benchmark::State& state) {
    std::uint64_t work = 1;
    for (auto _ : state) {
        work = work * 6364136223846793005ULL + 1442695040888963407ULL;
        benchmark::DoNotOptimize(work);
        WBFAT_POINT("bench:here");
    }
}
BENCHMARK(BM_DisarmedPoint);

void BM_OtherPointArmed(benchmark::State& state) {
    const std::string set = sync::set_point_rules("bench:elsewhere=count");
    for (auto _ : state) {
        WBFAT_POINT("bench:here");
    }
    sync::clear_point_rules();
}
BENCHMARK(BM_OtherPointArmed);

void BM_ThisPointCounted(benchmark::State& state) {
    const std::string set = sync::set_point_rules("bench:here=count");
    for (auto _ : state) {
        WBFAT_POINT("bench:here");
    }
    sync::clear_point_rules();
}
BENCHMARK(BM_ThisPointCounted);

// One atomic exchange and its release: what a point usually stands beside.
void BM_AtomicPair(benchmark::State& state) {
    sync::Atomic<std::uint64_t> word{0};
    for (auto _ : state) {
        benchmark::DoNotOptimize(word.fetch_or(1, std::memory_order_acquire));
        benchmark::DoNotOptimize(word.fetch_xor(1, std::memory_order_release));
    }
}
BENCHMARK(BM_AtomicPair);

void BM_AtomicPairWithDisarmedPoint(benchmark::State& state) {
    sync::Atomic<std::uint64_t> word{0};
    for (auto _ : state) {
        benchmark::DoNotOptimize(word.fetch_or(1, std::memory_order_acquire));
        WBFAT_POINT("bench:between");
        benchmark::DoNotOptimize(word.fetch_xor(1, std::memory_order_release));
        WBFAT_POINT("bench:after");
    }
}
BENCHMARK(BM_AtomicPairWithDisarmedPoint);

}  // namespace
}  // namespace wbfat

BENCHMARK_MAIN();
