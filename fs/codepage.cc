// Code page tables, asked from iconv once when the volume is mounted.
#include "fs/codepage.h"

#include <iconv.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <optional>
#include <vector>

namespace wbfat::fs::inline WBFAT_RT {
namespace {

constexpr std::size_t kNrBytes = 256;
constexpr std::size_t kNrUnits = 65536;
constexpr std::size_t kMaxNameLength = 16;  // of a code page's name: longer ones are not looked at
constexpr char16_t kReplacement = 0xFFFD;

char16_t keep_in_bmp(utf8proc_int32_t mapped, char16_t unit) {
    return mapped >= 0 && mapped < static_cast<utf8proc_int32_t>(kNrUnits)
               ? static_cast<char16_t>(mapped)
               : unit;
}

// One iconv descriptor from the code page to UTF-16LE.
class Decoder {
public:
    explicit Decoder(const std::string& charset)
        : descriptor_(iconv_open("UTF-16LE", charset.c_str())) {}
    ~Decoder() {
        if (is_open()) {
            iconv_close(descriptor_);
        }
    }
    Decoder(const Decoder&) = delete;
    Decoder& operator=(const Decoder&) = delete;

    bool is_open() const {
        return descriptor_ != invalid();
    }

    struct Answer {
        std::optional<char16_t> unit;
        bool incomplete = false;  // a lead byte: more is needed
    };
    // What `bytes` mean, if they are exactly one UTF-16 unit.
    Answer decode(std::string_view bytes) {
        std::array<char, 2> in{};
        std::copy(bytes.begin(), bytes.end(), in.begin());
        std::array<char, 8> out{};
        char* from = in.data();
        char* to = out.data();
        std::size_t from_left = bytes.size();
        std::size_t to_left = out.size();
        iconv(descriptor_, nullptr, nullptr, nullptr, nullptr);
        if (iconv(descriptor_, &from, &from_left, &to, &to_left) != 0) {
            return {std::nullopt, errno == EINVAL};
        }
        if (from_left != 0 || out.size() - to_left != sizeof(char16_t)) {
            return {};
        }
        const unsigned low = static_cast<unsigned char>(out[0]);
        const unsigned high = static_cast<unsigned char>(out[1]);
        return {static_cast<char16_t>(low | (high << 8)), false};
    }

private:
    static iconv_t invalid() {
        // The value iconv_open documents for failure.
        return reinterpret_cast<iconv_t>(
            static_cast<std::intptr_t>(-1));  // NOLINT(performance-no-int-to-ptr)
    }

    iconv_t descriptor_;
};

struct Encoded {
    std::uint8_t length = 0;
    std::array<char, 2> bytes{};
};

class TableCodepage final : public Codepage {
public:
    explicit TableCodepage(Decoder& decoder) : from_unit_(kNrUnits), upper_from_unit_(kNrUnits) {
        for (std::size_t first = 0; first < kNrBytes; ++first) {
            const std::array<char, 1> one = {static_cast<char>(first)};
            const Decoder::Answer answer = decoder.decode({one.data(), one.size()});
            single_.at(first) = answer.unit;
            if (answer.unit.has_value()) {
                remember(*answer.unit, {one.data(), one.size()});
            } else if (answer.incomplete) {
                add_double_bytes(decoder, first);
            }
        }
        fill_upper_case();
    }

    std::string_view upper_bytes(char16_t unit) const override {
        return view(upper_from_unit_[unit]);
    }
    std::string_view bytes(char16_t unit) const override {
        return view(from_unit_[unit]);
    }
    std::u16string decode(std::string_view bytes) const override {
        std::u16string units;
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            const auto first = static_cast<std::uint8_t>(bytes[i]);
            std::optional<char16_t> unit = single_.at(first);
            if (!double_.at(first).empty() && i + 1 < bytes.size()) {
                unit = double_.at(first)[static_cast<std::uint8_t>(bytes[i + 1])];
                i += unit.has_value() ? 1U : 0U;
            }
            units.push_back(unit.value_or(kReplacement));
        }
        return units;
    }
    unsigned char_length(std::uint8_t first) const override {
        return double_.at(first).empty() ? 1 : 2;
    }

private:
    static std::string_view view(const Encoded& encoded) {
        return {encoded.bytes.data(), encoded.length};
    }

    // The first spelling of a character that has two is the one that is written.
    void remember(char16_t unit, std::string_view bytes) {
        Encoded& encoded = from_unit_[unit];
        if (encoded.length == 0) {
            encoded.length = static_cast<std::uint8_t>(bytes.size());
            std::copy(bytes.begin(), bytes.end(), encoded.bytes.begin());
        }
    }

    void add_double_bytes(Decoder& decoder, std::size_t first) {
        std::vector<std::optional<char16_t>>& row = double_.at(first);
        row.resize(kNrBytes);
        for (std::size_t second = 0; second < kNrBytes; ++second) {
            const std::array<char, 2> both = {static_cast<char>(first), static_cast<char>(second)};
            row[second] = decoder.decode({both.data(), both.size()}).unit;
            if (row[second].has_value()) {
                remember(*row[second], {both.data(), both.size()});
            }
        }
    }

    void fill_upper_case() {
        upper_from_unit_ = from_unit_;
        for (std::size_t unit = 0; unit < kNrUnits; ++unit) {
            const Encoded& upper = from_unit_[upper_unit(static_cast<char16_t>(unit))];
            if (from_unit_[unit].length == 1 && upper.length == 1) {
                upper_from_unit_[unit] = upper;
            }
        }
    }

    std::array<std::optional<char16_t>, kNrBytes> single_;
    std::array<std::vector<std::optional<char16_t>>, kNrBytes> double_;  // empty: not a lead byte
    std::vector<Encoded> from_unit_;
    std::vector<Encoded> upper_from_unit_;
};

bool is_plain_name(const std::string& name) {
    return !name.empty() && name.size() <= kMaxNameLength &&
           std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

char16_t upper_unit(char16_t unit) {
    return keep_in_bmp(utf8proc_toupper(unit), unit);
}

char16_t lower_unit(char16_t unit) {
    return keep_in_bmp(utf8proc_tolower(unit), unit);
}

Result<std::unique_ptr<Codepage>> Codepage::open(const std::string& name) {
    if (!is_plain_name(name)) {
        return Errno{EINVAL};
    }
    Decoder decoder("CP" + name);
    // Only a code page in which ASCII is ASCII can hold short names (no EBCDIC).
    if (!decoder.is_open() || decoder.decode("A").unit != u'A' ||
        decoder.decode("~").unit != u'~') {
        return Errno{EINVAL};
    }
    return std::unique_ptr<Codepage>(std::make_unique<TableCodepage>(decoder));
}

}  // namespace wbfat::fs::inline WBFAT_RT
