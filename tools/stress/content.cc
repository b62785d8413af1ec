// The keyed bijection behind the stress' bytes.
#include "tools/stress/content.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "tools/stress/random.h"

namespace wbfat::tools {
namespace {

static_assert(kGenerationBits + kWordIndexBits + kFileBits == 64);
static_assert(std::endian::native == std::endian::little,
              "origins are read back from little-endian words");

// Newton's iteration: each step doubles the number of right bits, from 3 to 96.
constexpr std::uint64_t inverse_of_odd(std::uint64_t a) {
    std::uint64_t x = a;
    for (int step = 0; step < 5; ++step) {
        x *= 2 - a * x;
    }
    return x;
}

constexpr std::uint64_t unmix64(std::uint64_t x) {
    x ^= x >> 32;
    x *= inverse_of_odd(kMixFactor2);
    x ^= x >> 32;
    x *= inverse_of_odd(kMixFactor1);
    x ^= x >> 32;
    return x;
}
static_assert(unmix64(mix64(0x0123456789ABCDEFULL)) == 0x0123456789ABCDEFULL);

constexpr std::uint64_t kWordBytes = sizeof(std::uint64_t);

}  // namespace

Content::Content(std::uint64_t seed) : key_(mix64(seed + 1)) {}

std::uint64_t Content::word(const Origin& origin) const {
    if (origin.generation == 0) {
        return 0;
    }
    const std::uint64_t packed =
        (std::uint64_t{origin.file} << (kGenerationBits + kWordIndexBits)) |
        (std::uint64_t{origin.generation} << kWordIndexBits) | (origin.offset_bytes / kWordBytes);
    return mix64(packed ^ key_);
}

Origin Content::origin(std::uint64_t word) const {
    const std::uint64_t packed = unmix64(word) ^ key_;
    return {.file = static_cast<std::uint32_t>(packed >> (kGenerationBits + kWordIndexBits)),
            .generation = static_cast<std::uint32_t>(packed >> kWordIndexBits) & kMaxGeneration,
            .offset_bytes = (packed & ((std::uint64_t{1} << kWordIndexBits) - 1)) * kWordBytes};
}

void Content::fill(std::uint32_t file, std::uint32_t generation, std::uint64_t offset,
                   std::span<std::byte> out) const {
    if (generation == 0) {
        std::ranges::fill(out, std::byte{0});
        return;
    }
    std::size_t done = 0;
    while (done < out.size()) {
        const std::uint64_t position = offset + done;
        const std::size_t skip = position % kWordBytes;
        const std::size_t count = std::min<std::size_t>(kWordBytes - skip, out.size() - done);
        const std::uint64_t value =
            word({.file = file, .generation = generation, .offset_bytes = position - skip}) >>
            (8 * skip);
        std::memcpy(out.data() + done, &value, count);
        done += count;
    }
}

std::size_t Content::first_mismatch(std::uint32_t file, std::uint32_t generation,
                                    std::uint64_t offset, std::span<const std::byte> data) const {
    std::byte expected[4096];
    for (std::size_t done = 0; done < data.size();) {
        const std::size_t count = std::min(sizeof expected, data.size() - done);
        fill(file, generation, offset + done, {expected, count});
        if (std::memcmp(expected, data.data() + done, count) != 0) {
            const auto differ = std::mismatch(expected, expected + count, data.data() + done);
            return done + static_cast<std::size_t>(differ.first - expected);
        }
        done += count;
    }
    return data.size();
}

}  // namespace wbfat::tools
