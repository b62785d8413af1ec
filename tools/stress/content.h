// What the stress writes: bytes from which their origin can be read back.
//
// Every aligned 8-byte word of a file is a bijection of (file, generation, offset), keyed by the
// seed. So the expected content of a byte needs no copy in memory, and a wrong word found on the
// disk says which write it came from: another offset, another file, an older generation, or nobody.
//
// Invariants
//   C1. Generation 0 is "never written": its content is zeros. A write carries a generation >= 1.
//   C2. origin(word(o)) == o for every origin within the limits below.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace wbfat::tools {

inline constexpr unsigned kGenerationBits = 24;
inline constexpr unsigned kWordIndexBits = 30;
inline constexpr unsigned kFileBits = 10;
inline constexpr std::uint32_t kMaxGeneration = (1U << kGenerationBits) - 1;
inline constexpr std::uint32_t kMaxFiles = 1U << kFileBits;
inline constexpr std::uint64_t kMaxFileSize = std::uint64_t{8} << kWordIndexBits;

// Where an aligned word was meant to be, and by which write.
struct Origin {
    std::uint32_t file = 0;
    std::uint32_t generation = 0;
    std::uint64_t offset_bytes = 0;

    friend bool operator==(const Origin&, const Origin&) = default;
};

class Content {
public:
    explicit Content(std::uint64_t seed);

    // The word that `origin` puts at its (8-byte aligned) offset; 0 for generation 0.
    [[nodiscard]] std::uint64_t word(const Origin& origin) const;
    // The inverse; meaningless for a word that no write of this seed made.
    [[nodiscard]] Origin origin(std::uint64_t word) const;

    // The bytes of one write from any offset on.
    void fill(std::uint32_t file, std::uint32_t generation, std::uint64_t offset,
              std::span<std::byte> out) const;
    // Index of the first byte that differs from what fill() would give, or data.size().
    [[nodiscard]] std::size_t first_mismatch(std::uint32_t file, std::uint32_t generation,
                                             std::uint64_t offset,
                                             std::span<const std::byte> data) const;

private:
    std::uint64_t key_;
};

}  // namespace wbfat::tools
