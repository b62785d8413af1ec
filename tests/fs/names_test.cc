// Goal: names are accepted, kept, compared and abbreviated as Linux vfat does it, and better where
// fat.md asks for it. Method: every row of kernel-vfat-answers.txt about names is a case; aliases
// by table; random names there and back.
#include "fs/names.h"

#include <array>
#include <cerrno>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/fs/gen.h"

namespace wbfat::fs {
namespace {

const Codepage& codepage_437() {
    static const std::unique_ptr<Codepage> codepage = *Codepage::open("437");
    return *codepage;
}

std::string repeat(std::string_view text, int times) {
    std::string all;
    for (int i = 0; i < times; ++i) {
        all += text;
    }
    return all;
}

std::string text_of(const ShortName& name) {
    return {name.begin(), name.end()};
}

ShortName short_name(std::string_view padded) {
    ShortName name{};
    EXPECT_EQ(padded.size(), name.size());
    std::copy(padded.begin(), padded.end(), name.begin());
    return name;
}

ParsedName must_parse(std::string_view name, const MountOptions& options = {}) {
    Result<ParsedName> parsed = parse_name(name, options);
    EXPECT_TRUE(parsed.has_value()) << name;
    return parsed.has_value() ? *parsed : ParsedName{};
}

// The alias of `name` in a directory where `taken` are the short names there are.
ShortNameChoice alias_of(std::string_view name, const MountOptions& options = {},
                         const std::set<std::string>& taken = {}) {
    const Result<ShortNameChoice> choice = make_short_name(
        must_parse(name, options), codepage_437(), options,
        [&taken](const ShortName& candidate) { return taken.contains(text_of(candidate)); });
    EXPECT_TRUE(choice.has_value()) << name;
    return choice.has_value() ? *choice : ShortNameChoice{};
}

// --- what may be created
// -------------------------------------------------------------------------------------------------

TEST(NamesTest, CreatesWhatTheKernelCreates) {
    struct Case {
        const char* name;
        std::string given;
        std::string kept;
    };
    const Case cases[] = {
        {"lower case", "lower.txt", "lower.txt"},
        {"upper case", "UPPER.TXT", "UPPER.TXT"},
        {"mixed case", "MixEd.TxT", "MixEd.TxT"},
        {"lower base, upper extension", "lower.TXT", "lower.TXT"},
        {"upper base, lower extension", "UPPER.txt", "UPPER.txt"},
        {"two dots inside", "a.b.c", "a.b.c"},
        {"a leading dot", ".dot", ".dot"},
        {"two leading dots", "..dots", "..dots"},
        {"a trailing dot is lost", "dot.", "dot"},
        {"three trailing dots are lost", "dots...", "dots"},
        {"a leading space stays", " lead", " lead"},
        {"a space inside stays", "in side", "in side"},
        {"plus", "a+b", "a+b"},
        {"what 8.3 names cannot have", "a,b;=[]", "a,b;=[]"},
        {"a device of DOS", "aux", "aux"},
        {"a device with an extension", "con.txt", "con.txt"},
        {"nul", "nul", "nul"},
        {"com1", "com1", "com1"},
        {"clock$", "clock$", "clock$"},
        {"delete is no control character here", "del\x7f", "del\x7f"},
        {"umlaut", "ü", "ü"},
        {"kanji", "名前", "名前"},
        {"beyond the BMP", "😀", "😀"},
        {"a combining accent is kept as it is", "e\u0301", "e\u0301"},
        {"255 letters", repeat("x", 255), repeat("x", 255)},
        {"255 umlauts", repeat("ü", 255), repeat("ü", 255)},
        {"255 kanji, 765 bytes", repeat("名", 255), repeat("名", 255)},
        {"127 emoji, 254 units", repeat("😀", 127), repeat("😀", 127)},
        {"127 emoji and a letter, 255 units", repeat("😀", 127) + "x", repeat("😀", 127) + "x"},
        {"255 letters and dots to lose", repeat("x", 255) + "..", repeat("x", 255)},
        {"a tilde and a number", "~1", "~1"},
        {"what looks like an alias", "foo~1.txt", "foo~1.txt"},
    };
    for (const Case& c : cases) {
        SCOPED_TRACE(c.name);
        const Result<ParsedName> parsed = parse_name(c.given, {});
        ASSERT_TRUE(parsed.has_value()) << parsed.code();
        EXPECT_EQ(parsed->utf8, c.kept);
        EXPECT_EQ(units_to_utf8(parsed->units, {}), c.kept);
    }
}

TEST(NamesTest, RefusesWhatTheKernelRefuses) {
    struct Case {
        const char* name;
        std::string given;
        int error;
    };
    const Case cases[] = {
        {"nothing but dots", "...", ENOENT},
        {"a dot", ".", ENOENT},
        {"nothing", "", ENOENT},
        {"a trailing space", "space ", EINVAL},
        {"a space before lost dots", "space ..", EINVAL},
        {"colon", "a:b", EINVAL},
        {"star", "a*b", EINVAL},
        {"question mark", "a?b", EINVAL},
        {"quote", "a\"b", EINVAL},
        {"less", "a<b", EINVAL},
        {"greater", "a>b", EINVAL},
        {"bar", "a|b", EINVAL},
        {"backslash", "a\\b", EINVAL},
        {"slash", "a/b", EINVAL},
        {"tab", "tab\tx", EINVAL},
        {"the first control character", "\x01", EINVAL},
        {"the last control character", "\x1f", EINVAL},
        {"NUL", std::string("a\0b", 3), EINVAL},
        {"a byte that is no UTF-8", "\xff", EINVAL},
        {"an overlong slash", "\xC0\xAF", EINVAL},
        {"an overlong three-byte form", "\xE0\x80\xAF", EINVAL},
        {"a character cut off", "\xE5\x90", EINVAL},
        {"a continuation without a start", "a\x80", EINVAL},
        {"beyond Unicode", "\xF4\x90\x80\x80", EINVAL},
        {"a surrogate pair in disguise", "\xED\xA0\xBD\xED\xB8\x80", EINVAL},
        {"256 letters", repeat("x", 256), ENAMETOOLONG},
        {"128 emoji, 256 units", repeat("😀", 128), ENAMETOOLONG},
    };
    for (const Case& c : cases) {
        SCOPED_TRACE(c.name);
        EXPECT_EQ(parse_name(c.given, {}).code(), c.error);
    }
}

TEST(NamesTest, LooksUpWhatMayNotBeCreated) {
    EXPECT_EQ(parse_name_for_lookup("what?", {})->units, u"what?");
    EXPECT_EQ(parse_name_for_lookup("space ", {})->units, u"space ");
    EXPECT_EQ(parse_name_for_lookup("dots..", {})->units, u"dots");
    EXPECT_EQ(parse_name_for_lookup("\xff", {}).code(), ENOENT);
    EXPECT_EQ(parse_name_for_lookup("..", {}).code(), ENOENT);
    EXPECT_EQ(parse_name_for_lookup(repeat("x", 256), {}).code(), ENAMETOOLONG);
}

TEST(NamesTest, WindowsNamesRefusesTheDevices) {
    MountOptions options;
    options.windows_names = true;
    for (const char* name : {"aux", "CON", "con.txt", "Nul", "prn.tar.gz", "com1", "LPT9.x",
                             "com\u00B9", "conin$", "CON .txt"}) {
        SCOPED_TRACE(name);
        EXPECT_EQ(parse_name(name, options).code(), EINVAL);
        EXPECT_TRUE(parse_name(name, {}).has_value());
    }
    for (const char* name :
         {"com", "com0", "com10", "lpt", "auxiliary", "con_", "a.con", "clock$", "nul1"}) {
        SCOPED_TRACE(name);
        EXPECT_TRUE(parse_name(name, options).has_value());
    }
}

TEST(NamesTest, UniXlateSpellsAnyUnitByItsNumber) {
    MountOptions options;
    options.uni_xlate = true;
    EXPECT_EQ(must_parse(":00fc", options).utf8, "ü");
    EXPECT_EQ(must_parse("a:D83Db", options).units, (std::u16string{u'a', 0xD83D, u'b'}));
    EXPECT_EQ(must_parse("a:D83Db", options).utf8, "a:D83Db");
    for (const char* name :
         {":", ":12", ":12g4", "a:", ":002f", ":0000", ":003a", "a:002E", "a:0020"}) {
        SCOPED_TRACE(name);
        EXPECT_EQ(parse_name(name, options).code(), EINVAL);
    }
}

// --- there and back
// ------------------------------------------------------------------------------------------------------

TEST(NamesTest, ShowsAnyUnitsWithoutSlashAndNul) {
    struct Case {
        const char* name;
        std::u16string units;
        std::string shown;
    };
    const Case cases[] = {
        {"a lone high surrogate", {u'a', 0xD83D}, "a\xED\xA0\xBD"},
        {"a lone low surrogate",
         {0xDE00, u'a'},
         "\xED\xB8\x80"
         "a"},
        {"a pair the wrong way round", {0xDE00, 0xD83D}, "\xED\xB8\x80\xED\xA0\xBD"},
        {"a pair", {0xD83D, 0xDE00}, "😀"},
        {"a slash", u"a/b", "a\uFFFDb"},
        {"a NUL", {u'a', 0, u'b'}, "a\uFFFDb"},
        {"nothing", u"", ""},
    };
    for (const Case& c : cases) {
        SCOPED_TRACE(c.name);
        EXPECT_EQ(units_to_utf8(c.units, {}), c.shown);
    }
}

TEST(NamesTest, WhatIsShownCanBeLookedUp) {
    testing::Gen gen(3);
    SCOPED_TRACE(gen.replay());
    for (const bool uni_xlate : {false, true}) {
        MountOptions options;
        options.uni_xlate = uni_xlate;
        for (int i = 0; i < 20000; ++i) {
            std::u16string units;
            for (std::uint64_t n = gen.between(1, 12); n != 0; --n) {
                // Surrogates are frequent, so pairs and wrong pairs happen.
                units.push_back(static_cast<char16_t>(gen.one_in(3)   ? gen.between(0xD800, 0xDFFF)
                                                      : gen.one_in(2) ? gen.below(0x80)
                                                                      : gen.below(0x10000)));
            }
            if (uni_xlate) {
                std::erase(units, u':');  // a colon on the disk looks like an escape
            }
            if (!is_usable_long_name(units)) {
                continue;
            }
            const std::string shown = units_to_utf8(units, options);
            ASSERT_EQ(shown.find('/'), std::string::npos);
            ASSERT_EQ(shown.find('\0'), std::string::npos);
            const Result<ParsedName> again = parse_name_for_lookup(shown, options);
            ASSERT_TRUE(again.has_value()) << shown;
            ASSERT_EQ(name_key(again->units, options), name_key(units, options)) << shown;
        }
    }
}

TEST(NamesTest, ParsingAnythingNeverCrashesAndKeepsWhatItAccepts) {
    testing::Gen gen(4);
    SCOPED_TRACE(gen.replay());
    for (int i = 0; i < 50000; ++i) {
        std::string bytes;
        for (std::uint64_t n = gen.below(20); n != 0; --n) {
            bytes.push_back(
                static_cast<char>(gen.one_in(2) ? gen.between(0x20, 0x7E) : gen.below(256)));
        }
        const Result<ParsedName> parsed = parse_name(bytes, {});
        if (parsed.has_value()) {
            const std::string kept = bytes.substr(0, bytes.find_last_not_of('.') + 1);
            ASSERT_EQ(parsed->utf8, kept);
        }
    }
}

// --- comparison
// ----------------------------------------------------------------------------------------------------------

TEST(NamesTest, FoldsCaseOneUnitToOneUnit) {
    struct Case {
        const char* name;
        std::u16string_view a;
        std::u16string_view b;
        bool same;
    };
    constexpr Case kCases[] = {
        {"ASCII", u"ReadMe.TXT", u"readme.txt", true},
        {"Latin", u"\u00C4rger", u"\u00E4RGER", true},
        {"Greek", u"\u03A3\u0391", u"\u03C3\u03B1", true},
        {"final sigma is a sigma", u"\u03C2", u"\u03A3", true},
        {"Cyrillic", u"\u0416\u0451", u"\u0436\u0401", true},
        {"sharp s is not ss", u"stra\u00DFe", u"strasse", false},
        {"sharp s and its capital", u"\u00DF", u"\u1E9E", true},
        {"y diaeresis has a capital outside Latin-1", u"\u00FF", u"\u0178", true},
        {"dotless i is not i", u"\u0131", u"i", false},
        {"dotted capital I is not I", u"\u0130", u"I", false},
        {"I and i", u"I", u"i", true},
        {"a letter and an accented one", u"e", u"\u00E9", false},
        {"composed and decomposed", u"\u00E9", u"e\u0301", false},
        {"full width", u"\uFF21", u"\uFF41", true},
        {"astral letters keep their case", u"\U00010400", u"\U00010428", false},
        {"an underscore is no letter", u"a_", u"A\x7F", false},
    };
    for (const Case& c : kCases) {
        SCOPED_TRACE(c.name);
        EXPECT_EQ(fold_name(c.a) == fold_name(c.b), c.same);
        if (c.same) {
            EXPECT_EQ(name_hash(fold_name(c.a)), name_hash(fold_name(c.b)));
        }
    }
}

TEST(NamesTest, FoldingTwiceIsFoldingOnceForEveryUnit) {
    for (unsigned unit = 0; unit < 0x10000; ++unit) {
        const std::u16string once = fold_name(std::u16string(1, static_cast<char16_t>(unit)));
        ASSERT_EQ(once.size(), 1U);
        ASSERT_EQ(fold_name(once), once) << unit;
        ASSERT_EQ(fold_name(std::u16string(1, upper_unit(static_cast<char16_t>(unit)))) == once ||
                      unit == 0x0131,  // whose capital is I
                  true)
            << unit;
    }
}

TEST(NamesTest, KeysLoseTrailingDotsAndHonourStrictChecking) {
    MountOptions strict;
    strict.check = NameCheck::kStrict;
    EXPECT_EQ(name_key(u"Dot..", {}), name_key(u"dot", {}));
    EXPECT_NE(name_key(u"Dot", strict), name_key(u"dot", strict));
    EXPECT_EQ(name_key(u"dot.", strict), name_key(u"dot", strict));
    EXPECT_EQ(name_key(u"a/b", {}), name_key(u"a\uFFFDb", {}));
    EXPECT_NE(name_key(u".a", {}), name_key(u"a", {}));
}

TEST(NamesTest, DotsAloneAreNoName) {
    EXPECT_FALSE(is_usable_long_name(u""));
    EXPECT_FALSE(is_usable_long_name(u"."));
    EXPECT_FALSE(is_usable_long_name(u".."));
    EXPECT_TRUE(is_usable_long_name(u"..a"));
    EXPECT_TRUE(is_usable_long_name(u" "));
}

// --- aliases
// -------------------------------------------------------------------------------------------------------------

TEST(NamesTest, AbbreviatesAsTheKernelDoes) {
    struct Case {
        const char* name;
        const char* given;
        const char* alias;
        bool long_slots;
    };
    constexpr Case kCases[] = {
        {"pure upper case needs no slots", "UPPER.TXT", "UPPER   TXT", false},
        {"eight and three fill it", "ABCDEFGH.XYZ", "ABCDEFGHXYZ", false},
        {"lower case keeps its name in slots", "lower.txt", "LOWER   TXT", true},
        {"mixed case", "CaseTest.txt", "CASETESTTXT", true},
        {"no extension", "NOEXT", "NOEXT      ", false},
        {"a letter", "r1", "R1         ", true},
        {"digits have no case", "12345678.123", "12345678123", false},
        {"odd but legal characters", "A$%'-_@~`!(", "A$%'-_~1   ", true},
        {"a long base", "a long file name.text", "ALONGF~1TEX", true},
        {"nine letters", "NINECHARS", "NINECH~1   ", true},
        {"a long extension", "A.LONG", "A~1     LON", true},
        {"two dots", "a.b.c", "AB~1    C  ", true},
        {"a leading dot", ".dot", "DOT~1      ", true},
        {"two leading dots", "..dots", "DOTS~1     ", true},
        {"a dot and an extension", ".a.txt", "A~1     TXT", true},
        {"a leading space", " lead", "LEAD~1     ", true},
        {"a space inside", "in side", "INSIDE~1   ", true},
        {"only dots and spaces before the last dot", " . .abc", "ABC~1      ", true},
        {"characters 8.3 cannot have", "a,b;=[]", "A_B___~1   ", true},
        {"plus", "a+b", "A_B~1      ", true},
        {"an umlaut of the code page is kept, in capitals", "ü", "\x9A          ", true},
        {"capital umlaut: not ASCII, so slots", "Ü", "\x9A          ", true},
        {"kanji are not in 437", "名前", "__~1       ", true},
        {"an emoji is two underscores", "😀", "__~1       ", true},
        {"a number already there", "foo~1.txt", "FOO~1   TXT", true},
        {"a tilde and a number", "~1", "~1         ", false},
        {"delete, which fsck.fat calls bad in 8.3", "DEL\x7f", "DEL_~1     ", true},
        {"sigma is E5, written 05", "σ", "\xE4          ", true},
        {"a first byte of E5 becomes 05", "\u00B5\u00B5", "\xE6\xE6         ", true},
        {"an extension of what 8.3 cannot have", "a.+++", "A~1     ___", true},
        {"a device of DOS", "AUX", "AUX        ", false},
    };
    for (const Case& c : kCases) {
        SCOPED_TRACE(c.name);
        const ShortNameChoice choice = alias_of(c.given);
        EXPECT_EQ(text_of(choice.name), c.alias);
        EXPECT_EQ(choice.needs_long_slots, c.long_slots);
        EXPECT_EQ(choice.nt_case, 0);
    }
}

TEST(NamesTest, WritesAFirstByteOfE5As05) {
    const std::unique_ptr<Codepage> western = *Codepage::open("850");
    const Result<ShortNameChoice> choice =
        make_short_name(must_parse("õx"), *western, {}, [](const ShortName&) { return false; });
    ASSERT_TRUE(choice.has_value());
    EXPECT_EQ(choice->name[0], 0x05);
    EXPECT_EQ(short_name_to_utf8(choice->name, 0, *western, {}), "ÕX");
}

TEST(NamesTest, DoesNotCutDoubleByteCharacters) {
    const std::unique_ptr<Codepage> japanese = *Codepage::open("932");
    const auto alias = [&](std::string_view name) {
        const Result<ShortNameChoice> choice = make_short_name(
            must_parse(name), *japanese, {}, [](const ShortName&) { return false; });
        return choice.has_value() ? text_of(choice->name) : std::string();
    };
    EXPECT_EQ(alias("日本"), "\x93\xFA\x96\x7B       ") << "two characters, four bytes, no tail";
    EXPECT_EQ(alias("日本語日本"), "\x93\xFA\x96\x7B\x8C\xEA~1   ") << "six bytes and a tail";
    EXPECT_EQ(alias("a日本語日"), "A\x93\xFA\x96\x7B~1    ")
        << "the third character would be cut at the sixth byte";
}

TEST(NamesTest, CountsTailsUpAndThenHashes) {
    std::set<std::string> taken;
    const char* const expected[] = {"ALONGF~1TEX", "ALONGF~2TEX", "ALONGF~3TEX",
                                    "ALONGF~4TEX", "ALONGF~5TEX", "ALONGF~6TEX",
                                    "ALONGF~7TEX", "ALONGF~8TEX", "ALONGF~9TEX"};
    for (const char* const alias : expected) {
        const ShortNameChoice choice = alias_of("a long file name.text", {}, taken);
        EXPECT_EQ(text_of(choice.name), alias);
        taken.insert(text_of(choice.name));
    }
    for (int i = 0; i < 100; ++i) {
        const std::string alias = text_of(alias_of("a long file name.text", {}, taken).name);
        EXPECT_EQ(alias.substr(0, 2), "AL");
        EXPECT_EQ(alias.substr(2, 4).find_first_not_of("0123456789ABCDEF"), std::string::npos)
            << alias;
        EXPECT_EQ(alias[6], '~');
        EXPECT_TRUE(alias[7] >= '1' && alias[7] <= '8') << alias;
        EXPECT_EQ(alias.substr(8), "TEX");
        EXPECT_TRUE(taken.insert(alias).second) << "the same alias twice: " << alias;
    }
}

TEST(NamesTest, TheSameNameGetsTheSameAliasEverywhere) {
    const std::set<std::string> taken = {"ALONGF~1TEX", "ALONGF~2TEX", "ALONGF~3TEX",
                                         "ALONGF~4TEX", "ALONGF~5TEX", "ALONGF~6TEX",
                                         "ALONGF~7TEX", "ALONGF~8TEX", "ALONGF~9TEX"};
    EXPECT_EQ(alias_of("a long file name.text", {}, taken).name,
              alias_of("a long file name.text", {}, taken).name);
    EXPECT_NE(alias_of("a long file name.text", {}, taken).name,
              alias_of("a long file nome.text", {}, taken).name);
}

TEST(NamesTest, GivesUpWhenEveryTailIsTaken) {
    const Result<ShortNameChoice> choice = make_short_name(
        must_parse("a long name"), codepage_437(), {}, [](const ShortName&) { return true; });
    EXPECT_EQ(choice.code(), ENOSPC);
}

TEST(NamesTest, AnAliasThatIsSomebodysNameGetsATail) {
    EXPECT_EQ(text_of(alias_of("foo.txt", {}, {"FOO     TXT"}).name), "FOO~1   TXT");
    EXPECT_TRUE(alias_of("FOO.TXT", {}, {"FOO     TXT"}).needs_long_slots)
        << "the alias is not the name any more";
}

TEST(NamesTest, NoNumericTailIfItCanBeAvoided) {
    MountOptions options;
    options.nonumtail = true;
    EXPECT_EQ(text_of(alias_of("a long file name.text", options).name), "ALONGFILTEX");
    EXPECT_TRUE(alias_of("a long file name.text", options).needs_long_slots);
    EXPECT_EQ(text_of(alias_of("a long file name.text", options, {"ALONGFILTEX"}).name),
              "ALONGF~1TEX");
}

TEST(NamesTest, ShortnameWinntWritesCaseFlagsInsteadOfSlots) {
    struct Case {
        const char* name;
        const char* given;
        std::uint8_t nt_case;
        bool long_slots;
    };
    constexpr Case kCases[] = {
        {"all lower", "lower.txt", 0x18, false},
        {"all upper", "UPPER.TXT", 0x00, false},
        {"lower base", "lower.TXT", 0x08, false},
        {"lower extension", "UPPER.txt", 0x10, false},
        {"lower base, no extension", "lower", 0x08, false},
        {"digits only have no case", "123.456", 0x00, false},
        {"mixed case needs slots", "MixEd.txt", 0x00, true},
        {"an umlaut has no flag", "ü", 0x00, true},
    };
    MountOptions options;
    options.shortname = ShortNameMode::kWinNt;
    for (const Case& c : kCases) {
        SCOPED_TRACE(c.name);
        const ShortNameChoice choice = alias_of(c.given, options);
        EXPECT_EQ(choice.nt_case, c.nt_case);
        EXPECT_EQ(choice.needs_long_slots, c.long_slots);
        if (!choice.needs_long_slots) {
            EXPECT_EQ(short_name_to_utf8(choice.name, choice.nt_case, codepage_437(), options),
                      c.given);
        }
    }
}

TEST(NamesTest, TenThousandSimilarNamesGetTenThousandAliases) {
    std::set<std::string> taken;
    std::uint64_t asked = 0;
    for (int i = 0; i < 10000; ++i) {
        const ParsedName name = must_parse("a similar name " + std::to_string(i) + ".data");
        const Result<ShortNameChoice> choice =
            make_short_name(name, codepage_437(), {}, [&](const ShortName& candidate) {
                ++asked;
                return taken.contains(text_of(candidate));
            });
        ASSERT_TRUE(choice.has_value());
        ASSERT_TRUE(taken.insert(text_of(choice->name)).second);
    }
    EXPECT_LT(asked, 10000U * 13) << "the search should find a free tail at once";
}

// --- showing short names
// ---------------------------------------------------------------------------------------------------

TEST(NamesTest, ShowsShortNames) {
    struct Case {
        const char* name;
        const char* raw;
        std::uint8_t nt_case;
        ShortNameMode mode;
        const char* shown;
    };
    constexpr Case kCases[] = {
        {"base and extension", "README  TXT", 0x00, ShortNameMode::kMixed, "README.TXT"},
        {"no extension: no dot", "README     ", 0x00, ShortNameMode::kMixed, "README"},
        {"lower-case flags", "README  TXT", 0x18, ShortNameMode::kMixed, "readme.txt"},
        {"lower base only", "README  TXT", 0x08, ShortNameMode::kMixed, "readme.TXT"},
        {"lower extension only", "README  TXT", 0x10, ShortNameMode::kMixed, "README.txt"},
        {"other bits of the byte mean nothing", "README  TXT", 0xE7, ShortNameMode::kMixed,
         "README.TXT"},
        {"winnt shows the flags", "README  TXT", 0x18, ShortNameMode::kWinNt, "readme.txt"},
        {"win95 ignores the flags", "README  TXT", 0x18, ShortNameMode::kWin95, "README.TXT"},
        {"lower shows all in lower case", "README  TXT", 0x00, ShortNameMode::kLower, "readme.txt"},
        {"umlauts have lower case too", "\x9A\x8E      TXT", 0x08, ShortNameMode::kMixed, "üä.TXT"},
        {"05 stands for E5",
         "\x05"
         "A         ",
         0x00, ShortNameMode::kMixed, "σA"},
        {"a blank inside", "A B     T X", 0x00, ShortNameMode::kMixed, "A B.T X"},
        {"a slash cannot be shown", "A/B        ", 0x00, ShortNameMode::kMixed, "A\uFFFDB"},
        {"all blank is no name", "           ", 0x00, ShortNameMode::kMixed, ""},
    };
    for (const Case& c : kCases) {
        SCOPED_TRACE(c.name);
        MountOptions options;
        options.shortname = c.mode;
        EXPECT_EQ(short_name_to_utf8(short_name(c.raw), c.nt_case, codepage_437(), options),
                  c.shown);
    }
}

TEST(NamesTest, AnAliasFoldsToWhatItIsShownAs) {
    testing::Gen gen(5);
    SCOPED_TRACE(gen.replay());
    for (int i = 0; i < 20000; ++i) {
        ShortName raw{};
        for (std::uint8_t& byte : raw) {
            byte =
                static_cast<std::uint8_t>(gen.one_in(4) ? gen.below(256) : gen.between(0x20, 0x7E));
        }
        const std::u16string units = short_name_to_units(raw, codepage_437());
        const std::string shown = short_name_to_utf8(raw, 0, codepage_437(), {});
        ASSERT_EQ(shown, units_to_utf8(units, {}));
        if (is_usable_long_name(units)) {
            ASSERT_EQ(name_key(parse_name_for_lookup(shown, {})->units, {}), name_key(units, {}));
        }
    }
}

TEST(NamesTest, ChecksumsAreThoseOfTheSpecification) {
    EXPECT_EQ(short_name_checksum(short_name("README  TXT")), 0x73);
    EXPECT_EQ(short_name_checksum(short_name("ALONGF~1TEX")), 0x7D);
    // One name, one sum: the order of the bytes counts.
    EXPECT_NE(short_name_checksum(short_name("AB         ")),
              short_name_checksum(short_name("BA         ")));
}

}  // namespace
}  // namespace wbfat::fs
