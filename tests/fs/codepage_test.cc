// Goal: bytes of short names mean what their code page says, both ways. Method: known characters of
// single- and double-byte pages, and every byte of every page that Linux has, there and back.
#include "fs/codepage.h"

#include <cstdint>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace wbfat::fs {
namespace {

std::unique_ptr<Codepage> open_codepage(const std::string& name) {
    Result<std::unique_ptr<Codepage>> codepage = Codepage::open(name);
    EXPECT_TRUE(codepage.has_value()) << name;
    return codepage.has_value() ? std::move(*codepage) : nullptr;
}

TEST(CodepageTest, KnowsEveryCodePageOfLinux) {
    for (const char* name :
         {"437", "737", "775", "850", "852", "855", "857", "860", "861", "862",  "863",
          "864", "865", "866", "869", "874", "932", "936", "949", "950", "1250", "1251"}) {
        SCOPED_TRACE(name);
        const auto codepage = open_codepage(name);
        ASSERT_NE(codepage, nullptr);
        EXPECT_EQ(codepage->bytes(u'A'), "A");
        EXPECT_EQ(codepage->upper_bytes(u'z'), "Z");
    }
}

TEST(CodepageTest, RefusesWhatIsNoCodePage) {
    for (const char* name :
         {"", "4711", "utf8", "437 ", "-1", "437//TRANSLIT", "37", "99999999999999999999"}) {
        SCOPED_TRACE(name);
        EXPECT_EQ(Codepage::open(name).code(), EINVAL);
    }
}

TEST(CodepageTest, DecodesAndEncodesKnownCharacters) {
    struct Case {
        const char* name;
        const char* codepage;
        std::string_view bytes;
        char16_t unit;
    };
    const Case cases[] = {
        {"u umlaut in 437", "437", "\x81", u'\u00FC'},
        {"E5 is sigma in 437", "437", "\xE5", u'\u03C3'},
        {"E5 is O tilde in 850", "850", "\xE5", u'\u00D5'},
        {"Cyrillic in 866", "866", "\x8F", u'\u041F'},
        {"a kanji takes two bytes in 932", "932", "\x93\xFA", u'\u65E5'},
        {"half-width katakana takes one", "932", "\xB1", u'\uFF71'},
        {"a hangul syllable in 949", "949", "\xB0\xA1", u'\uAC00'},
        {"a Chinese character in 936", "936", "\xD6\xD0", u'\u4E2D'},
        {"and in 950", "950", "\xA4\xA4", u'\u4E2D'},
    };
    for (const Case& c : cases) {
        SCOPED_TRACE(c.name);
        const auto codepage = open_codepage(c.codepage);
        ASSERT_NE(codepage, nullptr);
        EXPECT_EQ(codepage->bytes(c.unit), c.bytes);
        EXPECT_EQ(codepage->decode(c.bytes), std::u16string(1, c.unit));
        EXPECT_EQ(codepage->char_length(static_cast<std::uint8_t>(c.bytes[0])), c.bytes.size());
    }
}

TEST(CodepageTest, UpperCasesWhereThePageHasTheCapital) {
    const auto us = open_codepage("437");
    EXPECT_EQ(us->upper_bytes(u'\u00FC'), "\x9A") << "u umlaut";
    EXPECT_EQ(us->upper_bytes(u'\u00E9'), "\x90") << "e acute";
    EXPECT_EQ(us->upper_bytes(u'\u00FF'), "\x98") << "y diaeresis has no capital in 437";
    EXPECT_EQ(us->upper_bytes(u'\u00DF'), "\xE1") << "sharp s stays";
    EXPECT_EQ(us->upper_bytes(u'\u00B5'), "\xE6") << "micro stays";
    EXPECT_EQ(us->upper_bytes(u'\u00E0'), "\x85") << "a grave: 437 has no capital";
    EXPECT_EQ(open_codepage("850")->upper_bytes(u'\u00E0'), "\xB7") << "850 has";
    EXPECT_EQ(open_codepage("866")->upper_bytes(u'\u043F'), "\x8F");
}

TEST(CodepageTest, HasNoBytesForWhatIsNotInThePage) {
    const auto us = open_codepage("437");
    EXPECT_EQ(us->bytes(u'\u540D'), "");
    EXPECT_EQ(us->upper_bytes(u'\u540D'), "");
    EXPECT_EQ(us->bytes(u'\xD83D'), "") << "half of a pair";
    EXPECT_EQ(us->bytes(u'\uFFFD'), "");
}

TEST(CodepageTest, BytesWithoutMeaningBecomeReplacementsOneEach) {
    const auto japanese = open_codepage("932");
    EXPECT_EQ(japanese->decode("A\x81"), u"A\uFFFD") << "a lead byte at the end";
    EXPECT_EQ(japanese->decode(std::string_view("\x81\x20Z", 3)), u"\uFFFD Z")
        << "a lead byte before no trail byte";
    EXPECT_EQ(japanese->decode("\xFF"), u"\uFFFD");
}

TEST(CodepageTest, EveryByteComesBackOrHasATwin) {
    for (const char* name : {"437", "850", "852", "866", "1251"}) {
        SCOPED_TRACE(name);
        const auto codepage = open_codepage(name);
        for (unsigned byte = 0; byte < 256; ++byte) {
            const std::string raw(1, static_cast<char>(byte));
            const std::u16string unit = codepage->decode(raw);
            ASSERT_EQ(unit.size(), 1U);
            if (unit[0] != 0xFFFD) {
                EXPECT_EQ(codepage->decode(codepage->bytes(unit[0])), unit) << byte;
            }
        }
    }
}

}  // namespace
}  // namespace wbfat::fs
