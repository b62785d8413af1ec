// The pool itself. No two groups, and no group and no generated alias ("LONGPR~1.TXT"), mean the
// same file.
#include "tests/mount/model/names.h"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>

namespace wbfat::model {
namespace {

std::string repeated(std::string_view text, unsigned times) {
    std::string all;
    for (unsigned i = 0; i < times; ++i) {
        all += text;
    }
    return all;
}

using Spellings = std::vector<std::string>;

const std::vector<Spellings>& pool() {
    static const std::vector<Spellings> groups = {
        {"a", "A"},
        {"readme.txt", "README.TXT", "ReadMe.Txt"},
        {"DATA", "data", "Data", "DATA.", "data..."},
        {"A rather long file name with spaces.text", "a RATHER long FILE name with spaces.TEXT"},
        {repeated("x", 255), repeated("X", 255)},
        {"many.dots.in.one.name.tar.gz", "Many.Dots.In.One.Name.TAR.GZ"},
        {".hidden", ".Hidden"},
        {"..two dots first"},
        {" leading space", " LEADING SPACE"},
        {"a+b", "A+B"},
        {"a,b;=[]", "A,B;=[]"},
        {"aux", "AUX"},
        {"con.txt", "CON.TXT"},
        {"thirteenchars", "ThirteenChars"},
        {"twenty-six characters here", "Twenty-Six Characters Here"},
        {"longprefix number one.txt", "LONGPREFIX number one.txt"},
        {"longprefix number two.txt"},
        {"longprefix number three.txt"},
        {"longprefix number four.txt"},
        {"longprefix number five.txt"},
        {"12345678.123"},
        {"123456789.123"},
        {"12345678.1234"},
        {"MixedCas.Ext", "mixedcas.ext", "MIXEDCAS.EXT"},
        {"\xC3\xBC", "\xC3\x9C"},                            // u umlaut
        {"\xC3\xA9t\xC3\xA9.txt", "\xC3\x89T\xC3\x89.TXT"},  // e acute, one character
        {"e\xCC\x81t.txt", "E\xCC\x81T.TXT"},  // the same letter of two characters is another name
        {"Gr\xC3\xB6\xC3\x9F"
         "e.txt",
         "GR\xC3\x96\xC3\x9F"
         "E.TXT"},
        {"Привет мир.doc", "ПРИВЕТ МИР.DOC"},
        {"αθήνα", "ΑΘΉΝΑ"},
        {"Հայերեն", "ՀԱՅԵՐԵՆ"},
        {"שלום עולם.txt"},
        {"مرحبا.txt"},
        {"สวัสดี"},
        {"안녕하세요.hwp"},
        {"名前.txt", "名前.TXT"},
        {"😀 smile.png", "😀 SMILE.PNG"},
        {repeated("名", 85)},
        {repeated("名", 255)},
        {repeated("😀", 127)},
        {"#hash & percent %.$$$"},
        {"del\x7f", "DEL\x7f"},
    };
    return groups;
}

struct BadName {
    std::string name;
    int error;
};

const std::vector<BadName>& bad_pool() {
    static const std::vector<BadName> names = {
        {"a*b", EINVAL},
        {"a?b", EINVAL},
        {"a:b", EINVAL},
        {"a\"b", EINVAL},
        {"a<b", EINVAL},
        {"a|b", EINVAL},
        {"a\\b", EINVAL},
        {"space ", EINVAL},
        {"tab\tx", EINVAL},
        {"not utf-8 \xff", EINVAL},
        {"...", ENOENT},
        {repeated("y", 256), ENAMETOOLONG},
        {repeated("😀", 128), ENAMETOOLONG},
    };
    return names;
}

// Plain 8.3 names, long ones with one common alias, and long ones in another script.
constexpr std::uint16_t kGenerated = 600;

std::string generated(std::uint16_t index, std::uint8_t spelling) {
    const bool first = spelling == 0;
    switch (index % 3) {
        case 0:
            return first ? fmt::format("f{:04}.bin", index) : fmt::format("F{:04}.BIN", index);
        case 1:
            return first ? fmt::format("common beginning {}.data", index)
                         : fmt::format("Common Beginning {}.DATA", index);
        default:
            return first ? fmt::format("файл {}", index) : fmt::format("ФАЙЛ {}", index);
    }
}

template <typename T>
bool parse_number(std::string_view text, T& out) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    return error == std::errc{} && end == text.data() + text.size();
}

}  // namespace

std::uint16_t nr_pool_groups() {
    return static_cast<std::uint16_t>(pool().size());
}

std::uint16_t nr_good_groups() {
    return static_cast<std::uint16_t>(pool().size() + kGenerated);
}

std::uint16_t nr_bad_groups() {
    return static_cast<std::uint16_t>(bad_pool().size());
}

Name bad_name(std::uint16_t index) {
    return {static_cast<std::uint16_t>(nr_good_groups() + index), 0};
}

bool is_bad(Name name) {
    return name.group >= nr_good_groups();
}

int bad_name_errno(Name name) {
    return bad_pool()[name.group - nr_good_groups()].error;
}

std::uint8_t nr_spellings(std::uint16_t group) {
    if (group < nr_pool_groups()) {
        return static_cast<std::uint8_t>(pool()[group].size());
    }
    return group < nr_good_groups() ? 2 : 1;
}

std::string spelled(Name name) {
    if (name.group < nr_pool_groups()) {
        return pool()[name.group][name.spelling];
    }
    if (!is_bad(name)) {
        return generated(static_cast<std::uint16_t>(name.group - nr_pool_groups()), name.spelling);
    }
    return bad_pool()[name.group - nr_good_groups()].name;
}

Name shown(Name name) {
    if (is_bad(name)) {
        return name;
    }
    std::string text = spelled(name);
    if (!text.ends_with('.')) {
        return name;
    }
    text.erase(text.find_last_not_of('.') + 1);
    for (std::uint8_t i = 0; i < nr_spellings(name.group); ++i) {
        if (spelled({name.group, i}) == text) {
            return {name.group, i};
        }
    }
    return name;
}

std::string reference_name(Name name) {
    return fmt::format("{}.{}", name.group, name.spelling);
}

std::optional<Name> parse_reference_name(std::string_view text) {
    const std::size_t dot = text.find('.');
    Name name;
    if (dot == std::string_view::npos || !parse_number(text.substr(0, dot), name.group) ||
        !parse_number(text.substr(dot + 1), name.spelling) ||
        name.group >= nr_good_groups() + nr_bad_groups() ||
        name.spelling >= nr_spellings(name.group)) {
        return std::nullopt;
    }
    return name;
}

std::string path_text(const Path& path) {
    std::string text;
    for (const Name& name : path) {
        text += text.empty() ? "" : "/";
        text += reference_name(name);
    }
    return text.empty() ? "." : text;
}

std::optional<Path> parse_path(std::string_view text) {
    Path path;
    while (text != "." && !text.empty()) {
        const std::size_t slash = text.find('/');
        const std::optional<Name> name = parse_reference_name(text.substr(0, slash));
        if (!name) {
            return std::nullopt;
        }
        path.push_back(*name);
        text = slash == std::string_view::npos ? std::string_view{} : text.substr(slash + 1);
    }
    return path;
}

}  // namespace wbfat::model
