// Names: decoding, rules, folding, and the alias a long name gets.
#include "fs/names.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include <xxhash.h>

#include "fs/layout.h"

namespace wbfat::fs::inline WBFAT_RT {
namespace {

constexpr char16_t kReplacement = 0xFFFD;
constexpr std::size_t kNrUnits = 65536;
constexpr std::size_t kBaseLength = 8;
constexpr std::size_t kExtensionLength = 3;

bool is_high_surrogate(char32_t unit) {
    return unit >= 0xD800 && unit <= 0xDBFF;
}
bool is_low_surrogate(char32_t unit) {
    return unit >= 0xDC00 && unit <= 0xDFFF;
}

// --- UTF-8
// -------------------------------------------------------------------------------------------------------------

// One code point from the front of `text`, which it shortens. Surrogates are let through (N1).
std::optional<char32_t> take_code_point(std::string_view& text) {
    const auto first = static_cast<std::uint8_t>(text.front());
    const std::size_t length = first < 0x80   ? 1
                               : first < 0xC2 ? 0
                               : first < 0xE0 ? 2
                               : first < 0xF0 ? 3
                               : first < 0xF5 ? 4
                                              : 0;
    if (length == 0 || length > text.size()) {
        return std::nullopt;
    }
    char32_t code_point = length == 1 ? first : first & (0x7FU >> length);
    for (std::size_t i = 1; i < length; ++i) {
        const auto next = static_cast<std::uint8_t>(text[i]);
        if ((next & 0xC0U) != 0x80U) {
            return std::nullopt;
        }
        code_point = (code_point << 6) | (next & 0x3FU);
    }
    constexpr std::array<char32_t, 5> kSmallest = {0, 0, 0x80, 0x800, 0x10000};
    if (code_point < kSmallest.at(length) || code_point > 0x10FFFF) {
        return std::nullopt;
    }
    text.remove_prefix(length);
    return code_point;
}

void append_code_point(std::string& text, char32_t code_point) {
    const auto tail = [&](unsigned shift) {
        text.push_back(static_cast<char>(0x80U | ((code_point >> shift) & 0x3FU)));
    };
    if (code_point < 0x80) {
        text.push_back(static_cast<char>(code_point));
    } else if (code_point < 0x800) {
        text.push_back(static_cast<char>(0xC0U | (code_point >> 6)));
        tail(0);
    } else if (code_point < 0x10000) {
        text.push_back(static_cast<char>(0xE0U | (code_point >> 12)));
        tail(6);
        tail(0);
    } else {
        text.push_back(static_cast<char>(0xF0U | (code_point >> 18)));
        tail(12);
        tail(6);
        tail(0);
    }
}

std::optional<unsigned> hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return static_cast<unsigned>(c - '0');
    }
    if (c >= 'a' && c <= 'f') {
        return static_cast<unsigned>(c - 'a' + 10);
    }
    if (c >= 'A' && c <= 'F') {
        return static_cast<unsigned>(c - 'A' + 10);
    }
    return std::nullopt;
}

// uni_xlate: ":XXXX" at the front of `text`, which it shortens.
std::optional<char16_t> take_escape(std::string_view& text) {
    constexpr std::size_t kDigits = 4;
    if (text.size() < kDigits + 1) {
        return std::nullopt;
    }
    unsigned unit = 0;
    for (std::size_t i = 1; i <= kDigits; ++i) {
        const std::optional<unsigned> digit = hex_digit(text[i]);
        if (!digit.has_value()) {
            return std::nullopt;
        }
        unit = (unit << 4) | *digit;
    }
    text.remove_prefix(kDigits + 1);
    return static_cast<char16_t>(unit);
}

// Errors: EINVAL for what is not UTF-8; ENAMETOOLONG.
Result<std::u16string> decode_utf8(std::string_view text, const MountOptions& options) {
    std::u16string units;
    while (!text.empty()) {
        if (options.uni_xlate && text.front() == ':') {
            const std::optional<char16_t> unit = take_escape(text);
            if (!unit.has_value()) {
                return Errno{EINVAL};
            }
            units.push_back(*unit);
        } else {
            const std::optional<char32_t> code_point = take_code_point(text);
            if (!code_point.has_value()) {
                return Errno{EINVAL};
            }
            if (*code_point >= 0x10000) {
                units.push_back(static_cast<char16_t>(0xD800 + ((*code_point - 0x10000) >> 10)));
                units.push_back(static_cast<char16_t>(0xDC00 + ((*code_point - 0x10000) & 0x3FF)));
            } else if (is_low_surrogate(*code_point) && !units.empty() &&
                       is_high_surrogate(units.back())) {
                return Errno{EINVAL};  // N1: a pair in disguise
            } else {
                units.push_back(static_cast<char16_t>(*code_point));
            }
        }
        if (units.size() > kMaxNameUnits) {
            return Errno{ENAMETOOLONG};
        }
    }
    return units;
}

std::string_view strip_trailing_dots(std::string_view name) {
    while (!name.empty() && name.back() == '.') {
        name.remove_suffix(1);
    }
    return name;
}

// --- what may be created
// -------------------------------------------------------------------------------------------------

bool is_forbidden(char16_t unit) {
    constexpr std::u16string_view kForbidden = u"*?<>|\":/\\";
    return unit < 0x20 || kForbidden.find(unit) != std::u16string_view::npos;
}

// CON, PRN, AUX, NUL, CONIN$, CONOUT$, COM1..9, LPT1..9 (also with superscript digits), with or
// without an extension.
bool is_windows_device(std::u16string_view units) {
    std::u16string base(units.substr(0, units.find(u'.')));
    while (!base.empty() && base.back() == u' ') {
        base.pop_back();
    }
    base = fold_name(base);
    constexpr std::array<std::u16string_view, 6> kDevices = {u"con", u"prn",    u"aux",
                                                             u"nul", u"conin$", u"conout$"};
    if (std::find(kDevices.begin(), kDevices.end(), base) != kDevices.end()) {
        return true;
    }
    constexpr std::u16string_view kDigits = u"123456789\u00B9\u00B2\u00B3";
    return base.size() == 4 && (base.starts_with(u"com") || base.starts_with(u"lpt")) &&
           kDigits.find(base.back()) != std::u16string_view::npos;
}

// --- folding
// -------------------------------------------------------------------------------------------------------------

// Simple case folding of a unit: upper, then lower, so that letters with several lower-case forms
// (s, sigma, mu) meet.
char16_t compute_fold(char16_t unit) {
    constexpr char16_t kDottedCapitalI = 0x0130;
    constexpr char16_t kDotlessSmallI = 0x0131;
    if (unit == kDottedCapitalI || unit == kDotlessSmallI) {
        return unit;
    }
    return lower_unit(upper_unit(unit));
}

// Not on the heap: it outlives every world of the explorer.
const std::array<char16_t, kNrUnits>& fold_table() {
    static const std::array<char16_t, kNrUnits> table = [] {
        std::array<char16_t, kNrUnits> folded{};
        for (std::size_t unit = 0; unit < kNrUnits; ++unit) {
            folded[unit] = compute_fold(static_cast<char16_t>(unit));
        }
        return folded;
    }();
    return table;
}

// --- aliases
// -------------------------------------------------------------------------------------------------------------

bool is_dropped_from_alias(char16_t unit) {
    return unit == u'.' || unit == u' ';
}
// Differs: the kernel keeps DEL in an alias, where fsck.fat then calls it a bad character.
bool is_replaced_in_alias(char16_t unit) {
    constexpr std::u16string_view kReplaced = u"[];,+=\x7F";
    return kReplaced.find(unit) != std::u16string_view::npos;
}
bool is_ascii_letter(char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

// The base or the extension of an alias in the making, and what the original said about its case.
struct AliasPart {
    explicit AliasPart(std::size_t part_capacity) : capacity(part_capacity) {}

    std::size_t capacity;
    std::string bytes;
    bool all_upper = true;  // no lower-case letter and nothing beyond ASCII
    bool all_lower = true;
    bool exact = true;  // nothing was dropped, replaced or cut off
    // Whole characters that fit before a tail of "~1", and of "XXXX~1".
    std::size_t length_within_6 = 0;
    std::size_t length_within_2 = 0;

    // Bytes for one unit of the name; empty: dropped.
    std::string encode(char16_t unit, const Codepage& codepage) {
        if (is_dropped_from_alias(unit)) {
            exact = false;
            return {};
        }
        if (is_replaced_in_alias(unit) || codepage.upper_bytes(unit).empty()) {
            exact = false;
            return "_";
        }
        std::string upper(codepage.upper_bytes(unit));
        note_case(codepage.bytes(unit), upper);
        return upper;
    }

    void fill(std::u16string_view units, const Codepage& codepage) {
        for (const char16_t unit : units) {
            if (bytes.size() == capacity) {
                exact = false;
                return;
            }
            const std::string encoded = encode(unit, codepage);
            if (bytes.size() + encoded.size() > capacity) {
                exact = false;
                return;
            }
            bytes += encoded;
            if (bytes.size() <= 6) {
                length_within_6 = bytes.size();
            }
            if (bytes.size() <= 2) {
                length_within_2 = bytes.size();
            }
        }
    }

private:
    void note_case(std::string_view original, std::string_view upper) {
        if (original.size() != 1 || static_cast<std::uint8_t>(original[0]) >= 0x7F) {
            all_upper = false;
            all_lower = false;
        }
        if (upper.size() == 1 && is_ascii_letter(upper[0])) {
            (original == upper ? all_lower : all_upper) = false;
        }
    }
};

ShortName join_alias(std::string_view base, std::string_view extension) {
    ShortName name;
    name.fill(' ');
    std::copy(base.begin(), base.end(), name.begin());
    std::copy(extension.begin(), extension.end(), name.begin() + kBaseLength);
    if (name[0] == kDirEntryDeleted) {
        name[0] = kDirEntryKanji;
    }
    return name;
}

// Where the extension starts: after the last dot, unless only dots and spaces precede it.
std::size_t extension_start(std::u16string_view units) {
    const std::size_t dot = units.rfind(u'.');
    if (dot == std::u16string_view::npos || dot + 1 == units.size() ||
        std::all_of(units.begin(), units.begin() + static_cast<std::ptrdiff_t>(dot),
                    is_dropped_from_alias)) {
        return units.size();
    }
    return dot + 1;
}

bool creates_as_winnt(const MountOptions& options) {
    return options.shortname == ShortNameMode::kWinNt;
}

// The name itself is an 8.3 name but for case: no tail.
ShortNameChoice choose_plain(const ShortName& name, const AliasPart& base,
                             const AliasPart& extension, const MountOptions& options) {
    ShortNameChoice choice;
    choice.name = name;
    if (!creates_as_winnt(options)) {
        choice.needs_long_slots = !(base.all_upper && extension.all_upper);
        return choice;
    }
    choice.needs_long_slots =
        !((base.all_upper || base.all_lower) && (extension.all_upper || extension.all_lower));
    if (!choice.needs_long_slots) {
        choice.nt_case = static_cast<std::uint8_t>((base.all_upper ? 0U : kNtLowerBase) |
                                                   (extension.all_upper ? 0U : kNtLowerExtension));
    }
    return choice;
}

std::string hex_tail(unsigned number, char digit) {
    constexpr std::string_view kHex = "0123456789ABCDEF";
    std::string tail;
    for (int shift = 12; shift >= 0; shift -= 4) {
        tail.push_back(kHex[(number >> shift) & 0xFU]);
    }
    tail.push_back('~');
    tail.push_back(digit);
    return tail;
}

// ~1 .. ~9, then two characters, four hex digits and ~1 .. ~8. The numbers start at the name's
// hash, so that thousands of similar names find a free one at once, and the same name gets the same
// alias on every volume.
Result<ShortNameChoice> choose_tail(const ParsedName& name, const AliasPart& base,
                                    const AliasPart& extension,
                                    const std::function<bool(const ShortName&)>& taken) {
    ShortNameChoice choice;
    const std::string_view whole = base.bytes;
    for (char digit = '1'; digit <= '9'; ++digit) {
        choice.name = join_alias(std::string(whole.substr(0, base.length_within_6)) + '~' + digit,
                                 extension.bytes);
        if (!taken(choice.name)) {
            return choice;
        }
    }
    constexpr unsigned kNrNumbers = 1U << 16;
    const std::uint64_t hash = name_hash(name.units);
    const char digit = static_cast<char>('1' + ((hash >> 16) & 7U));
    for (unsigned i = 0; i < kNrNumbers; ++i) {
        const unsigned number = (static_cast<unsigned>(hash) + i) % kNrNumbers;
        choice.name =
            join_alias(std::string(whole.substr(0, base.length_within_2)) + hex_tail(number, digit),
                       extension.bytes);
        if (!taken(choice.name)) {
            return choice;
        }
    }
    return Errno{ENOSPC};
}

// --- showing short names
// ---------------------------------------------------------------------------------------------------

// Bytes of a part up to NUL, without the blanks that pad it.
std::string_view trim_part(std::string_view part) {
    part = part.substr(0, part.find('\0'));
    const std::size_t last = part.find_last_not_of(' ');
    return last == std::string_view::npos ? std::string_view() : part.substr(0, last + 1);
}

// Lower case within the code page, single-byte characters only, as the kernel's tables do it.
std::u16string decode_part(std::string_view part, bool lower, const Codepage& codepage) {
    std::u16string units = codepage.decode(part);
    if (lower) {
        for (char16_t& unit : units) {
            const char16_t lowered = lower_unit(unit);
            if (codepage.bytes(unit).size() == 1 && codepage.bytes(lowered).size() == 1) {
                unit = lowered;
            }
        }
    }
    return units;
}

std::u16string show_short_name(const ShortName& name, bool lower_base, bool lower_extension,
                               const Codepage& codepage) {
    std::string raw(name.begin(), name.end());
    if (static_cast<std::uint8_t>(raw[0]) == kDirEntryKanji) {
        raw[0] = static_cast<char>(kDirEntryDeleted);
    }
    const std::string_view whole = raw;
    std::u16string units =
        decode_part(trim_part(whole.substr(0, kBaseLength)), lower_base, codepage);
    const std::u16string extension = decode_part(
        trim_part(whole.substr(kBaseLength, kExtensionLength)), lower_extension, codepage);
    if (!extension.empty()) {
        units += u'.';
        units += extension;
    }
    return units;
}

}  // namespace

Result<ParsedName> parse_name(std::string_view name, const MountOptions& options) {
    name = strip_trailing_dots(name);
    if (name.empty()) {
        return Errno{ENOENT};
    }
    ParsedName parsed;
    parsed.units = TRY(decode_utf8(name, options));
    if (std::any_of(parsed.units.begin(), parsed.units.end(), is_forbidden) ||
        parsed.units.back() == u' ') {
        return Errno{EINVAL};
    }
    // uni_xlate can spell a dot that stripping did not see.
    if (parsed.units.back() == u'.' || (options.windows_names && is_windows_device(parsed.units))) {
        return Errno{EINVAL};
    }
    parsed.utf8 = units_to_utf8(parsed.units, options);
    return parsed;
}

Result<ParsedName> parse_name_for_lookup(std::string_view name, const MountOptions& options) {
    name = strip_trailing_dots(name);
    if (name.empty()) {
        return Errno{ENOENT};
    }
    ParsedName parsed;
    Result<std::u16string> units = decode_utf8(name, options);
    if (!units.has_value()) {
        return Errno{units.error().value == ENAMETOOLONG ? ENAMETOOLONG : ENOENT};
    }
    parsed.units = std::move(*units);
    parsed.utf8 = units_to_utf8(parsed.units, options);
    return parsed;
}

std::u16string fold_name(std::u16string_view units) {
    const std::array<char16_t, kNrUnits>& table = fold_table();
    std::u16string folded(units);
    for (char16_t& unit : folded) {
        unit = table[unit];
    }
    return folded;
}

std::u16string name_key(std::u16string_view units, const MountOptions& options) {
    while (!units.empty() && units.back() == u'.') {
        units.remove_suffix(1);
    }
    std::u16string key =
        options.check == NameCheck::kStrict ? std::u16string(units) : fold_name(units);
    for (char16_t& unit : key) {
        unit = unit == u'/' || unit == u'\0' ? kReplacement : unit;
    }
    return key;
}

std::uint64_t name_hash(std::u16string_view folded) {
    return XXH3_64bits(folded.data(), folded.size() * sizeof(char16_t));
}

bool is_usable_long_name(std::u16string_view units) {
    return std::any_of(units.begin(), units.end(), [](char16_t unit) { return unit != u'.'; });
}

std::string units_to_utf8(std::u16string_view units, const MountOptions& options) {
    std::string text;
    text.reserve(units.size());
    for (std::size_t i = 0; i < units.size(); ++i) {
        const char32_t unit = units[i];
        if (is_high_surrogate(unit) && i + 1 < units.size() && is_low_surrogate(units[i + 1])) {
            append_code_point(text, 0x10000 + ((unit - 0xD800) << 10) + (units[i + 1] - 0xDC00U));
            ++i;
        } else if (options.uni_xlate && (is_high_surrogate(unit) || is_low_surrogate(unit))) {
            text += ':';
            text += hex_tail(unit, '0').substr(0, 4);
        } else {
            append_code_point(text, unit == u'/' || unit == u'\0' ? kReplacement : unit);
        }
    }
    return text;
}

Result<ShortNameChoice> make_short_name(const ParsedName& name, const Codepage& codepage,
                                        const MountOptions& options,
                                        const std::function<bool(const ShortName&)>& taken) {
    const std::u16string_view units = name.units;
    const std::size_t start = extension_start(units);
    const bool has_extension = start < units.size();

    AliasPart base(kBaseLength);
    base.fill(units.substr(0, has_extension ? start - 1 : units.size()), codepage);
    AliasPart extension(kExtensionLength);
    extension.fill(units.substr(start), codepage);
    if (base.bytes.empty()) {
        return Errno{EINVAL};
    }

    const ShortName whole = join_alias(base.bytes, extension.bytes);
    const bool is_plain = base.exact && extension.exact;
    if (is_plain && !taken(whole)) {
        return choose_plain(whole, base, extension, options);
    }
    if (options.nonumtail && !is_plain && !taken(whole)) {
        ShortNameChoice choice;
        choice.name = whole;
        return choice;
    }
    return choose_tail(name, base, extension, taken);
}

std::string short_name_to_utf8(const ShortName& name, std::uint8_t nt_case,
                               const Codepage& codepage, const MountOptions& options) {
    const bool show_flags =
        options.shortname == ShortNameMode::kMixed || options.shortname == ShortNameMode::kWinNt;
    const bool lower_all = options.shortname == ShortNameMode::kLower;
    const bool lower_base = lower_all || (show_flags && (nt_case & kNtLowerBase) != 0);
    const bool lower_extension = lower_all || (show_flags && (nt_case & kNtLowerExtension) != 0);
    return units_to_utf8(show_short_name(name, lower_base, lower_extension, codepage), options);
}

std::u16string short_name_to_units(const ShortName& name, const Codepage& codepage) {
    return show_short_name(name, false, false, codepage);
}

std::uint8_t short_name_checksum(const ShortName& name) {
    std::uint8_t sum = 0;
    for (const std::uint8_t c : name) {
        sum = static_cast<std::uint8_t>(((sum & 1U) << 7) + (sum >> 1) + c);
    }
    return sum;
}

}  // namespace wbfat::fs::inline WBFAT_RT
