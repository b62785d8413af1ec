// Reading bad block lists, and finding bad blocks.
#include "tools/mkfs/bad_blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "tools/mkfs/usage_error.h"

namespace wbfat::tools {

namespace {

constexpr std::size_t kPieceBytes = 1024 * 1024;

std::string_view trim(std::string_view text) {
    constexpr std::string_view kBlank = " \t\r";
    const std::size_t first = text.find_first_not_of(kBlank);
    if (first == std::string_view::npos) {
        return {};
    }
    return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

}  // namespace

std::vector<std::uint64_t> read_bad_block_list(std::istream& list, const std::string& name) {
    std::vector<std::uint64_t> blocks;
    std::uint64_t line_number = 0;
    for (std::string line; std::getline(list, line);) {
        ++line_number;
        const std::string_view text = trim(line);
        if (text.empty()) {
            continue;
        }
        std::uint64_t block = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), block);
        if (error != std::errc() || end != text.data() + text.size()) {
            throw UsageError(
                fmt::format("-l: line {} of {} is \"{}\", and one block number is wanted.",
                            line_number, name, text));
        }
        blocks.push_back(block);
    }
    if (list.bad()) {
        throw UsageError(fmt::format("-l: {} cannot be read.", name));
    }
    return blocks;
}

std::vector<std::uint64_t> find_bad_blocks(const ReadAt& read, std::uint64_t volume_bytes,
                                           Progress& progress) {
    std::vector<std::uint64_t> bad;
    std::vector<std::byte> buffer(kPieceBytes);
    for (std::uint64_t at = 0; at < volume_bytes; at += kPieceBytes) {
        const auto piece =
            std::span(buffer).first(std::min<std::uint64_t>(kPieceBytes, volume_bytes - at));
        if (!read(at, piece)) {
            for (std::uint64_t inner = 0; inner < piece.size(); inner += kBadBlockBytes) {
                const std::uint64_t length =
                    std::min<std::uint64_t>(kBadBlockBytes, piece.size() - inner);
                if (!read(at + inner, piece.first(length))) {
                    bad.push_back((at + inner) / kBadBlockBytes);
                }
            }
        }
        progress.update(at + piece.size(), volume_bytes);
    }
    return bad;
}

}  // namespace wbfat::tools
