// Label and boot message.
#include "tools/mkfs/text.h"

#include <fmt/format.h>
#include <iconv.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>

namespace wbfat::tools {

namespace {

struct IconvCloser {
    void operator()(void* handle) const {
        iconv_close(handle);
    }
};

bool is_forbidden_in_label(char c) {
    constexpr std::string_view kForbidden = "*?.,;:/\\|+=<>[]\"";
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7F ||
           kForbidden.find(c) != std::string_view::npos;
}

Result<std::string> utf8_to_codepage(std::string_view text, const std::string& codepage,
                                     std::string& why) {
    const std::string charset = "CP" + codepage;
    iconv_t const opened = iconv_open(charset.c_str(), "UTF-8");
    // iconv_open's error value is (iconv_t)-1.
    if (reinterpret_cast<std::intptr_t>(opened) == -1) {
        why = fmt::format("--codepage {}: this system does not know that code page.", codepage);
        return Errno{EINVAL};
    }
    const std::unique_ptr<void, IconvCloser> handle(opened);
    std::string input(text);
    std::string output(4 * input.size() + 16, '\0');
    char* in = input.data();
    char* out = output.data();
    std::size_t in_left = input.size();
    std::size_t out_left = output.size();
    if (iconv(handle.get(), &in, &in_left, &out, &out_left) == static_cast<std::size_t>(-1)) {
        why = fmt::format(
            "-n: the label cannot be written in code page {}; choose another with --codepage.",
            codepage);
        return Errno{EINVAL};
    }
    output.resize(output.size() - out_left);
    return output;
}

}  // namespace

Result<std::optional<std::array<char, 11>>> encode_label(std::string_view label,
                                                         const std::string& codepage,
                                                         std::vector<std::string>& warnings,
                                                         std::string& why) {
    using Label = std::optional<std::array<char, 11>>;
    const std::string bytes = TRY(utf8_to_codepage(label, codepage, why));
    if (bytes.find_first_not_of(' ') == std::string::npos || bytes == "NO NAME") {
        return Label{};
    }
    std::array<char, 11> padded{};
    padded.fill(' ');
    if (bytes.size() > padded.size()) {
        why = fmt::format("-n: the label has {} characters, and 11 is the most.", bytes.size());
        return Errno{EINVAL};
    }
    if (bytes.front() == ' ') {
        why = "-n: a label cannot start with a space.";
        return Errno{EINVAL};
    }
    if (const auto bad = std::ranges::find_if(label, is_forbidden_in_label); bad != label.end()) {
        why = "-n: a label cannot contain control characters or any of *?.,;:/\\|+=<>[]\".";
        return Errno{EINVAL};
    }
    if (std::ranges::any_of(label, [](char c) { return c >= 'a' && c <= 'z'; })) {
        warnings.emplace_back("Labels in lower case are not understood by every system.");
    }
    std::ranges::copy(bytes, padded.begin());
    return Label{padded};
}

std::string boot_message_from_text(std::string_view text) {
    constexpr std::size_t kTab = 8;
    std::string message;
    std::size_t column = 0;
    for (const char c : text) {
        if (c == '\n') {
            message += "\r\n";
            column = 0;
        } else if (c == '\t') {
            const std::size_t spaces = kTab - column % kTab;
            message.append(spaces, ' ');
            column += spaces;
        } else if (c != '\r' && c != '\0') {
            message += c;
            ++column;
        }
    }
    return message;
}

}  // namespace wbfat::tools
