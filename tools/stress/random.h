// The random numbers of one operation: a stream of its own, so that what one operation draws never
// shifts the next.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace wbfat::tools {

// A bijection of 64-bit words without fixed structure: every input bit reaches every output bit.
constexpr std::uint64_t kMixFactor1 = 0x9E3779B97F4A7C15ULL;
constexpr std::uint64_t kMixFactor2 = 0xD6E8FEB86659FD93ULL;

constexpr std::uint64_t mix64(std::uint64_t x) {
    x ^= x >> 32;
    x *= kMixFactor1;
    x ^= x >> 32;
    x *= kMixFactor2;
    x ^= x >> 32;
    return x;
}

class Random {
public:
    // Streams of different (seed, thread, op) are unrelated.
    Random(std::uint64_t seed, std::uint64_t thread, std::uint64_t op)
        : state_(mix64(mix64(mix64(seed) + thread) + op)) {}

    std::uint64_t next() {
        state_ += kMixFactor1;
        return mix64(state_);
    }
    // Uniform in [0, bound); 0 if that is empty.
    std::uint64_t below(std::uint64_t bound) {
        return bound == 0 ? 0 : next() % bound;
    }
    // Uniform in [low, high].
    std::uint64_t between(std::uint64_t low, std::uint64_t high) {
        return low + below(high - low + 1);
    }
    bool one_in(std::uint64_t n) {
        return below(n) == 0;
    }
    template <typename T>
    T pick(std::initializer_list<T> choices) {
        return choices.begin()[below(choices.size())];
    }

private:
    std::uint64_t state_;
};

}  // namespace wbfat::tools
