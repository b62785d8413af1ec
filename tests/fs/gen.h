// Seeded randomness for property tests: WBFAT_SEED replays a failure, and every failure prints it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>

namespace wbfat::fs::testing {

class Gen {
public:
    // `own_seed` tells apart the tests of one run.
    explicit Gen(std::uint64_t own_seed)
        : seed_(base_seed()), engine_(seed_ * 1000003 + own_seed) {}

    // 0 .. end - 1.
    std::uint64_t below(std::uint64_t end) {
        return engine_() % end;
    }
    std::uint64_t between(std::uint64_t first, std::uint64_t last) {
        return first + below(last - first + 1);
    }
    bool one_in(std::uint64_t n) {
        return below(n) == 0;
    }
    // For SCOPED_TRACE.
    std::string replay() const {
        return "replay with WBFAT_SEED=" + std::to_string(seed_);
    }

private:
    static std::uint64_t base_seed() {
        const char* const text =
            std::getenv("WBFAT_SEED");  // NOLINT(concurrency-mt-unsafe): read before any thread
        return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
    }

    std::uint64_t seed_;
    std::mt19937_64 engine_;
};

}  // namespace wbfat::fs::testing
