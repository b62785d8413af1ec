// Goal: labels and boot messages come to the disk as the user meant them.
// Method: tables of text against bytes.
#include <cerrno>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tools/mkfs/text.h"

namespace wbfat::tools {
namespace {

TEST(BootMessageTest, ExpandsLinesAndTabs) {
    EXPECT_EQ(boot_message_from_text("a\nb\tc\r\n"), "a\r\nb       c\r\n");
    EXPECT_EQ(boot_message_from_text("12345678\tx"), "12345678        x");
}

TEST(EncodeLabelTest, TakesCodePageCharactersAndRefusesTheRest) {
    std::vector<std::string> warnings;
    std::string why;
    const auto umlauts = encode_label("ÄÖ", "850", warnings, why);
    ASSERT_TRUE(umlauts.has_value()) << why;
    EXPECT_EQ(std::string(umlauts->value().begin(), umlauts->value().end()), "\x8E\x99         ");
    EXPECT_TRUE(warnings.empty());
    for (const char* const none : {"", "   ", "NO NAME"}) {
        const auto label = encode_label(none, "850", warnings, why);
        ASSERT_TRUE(label.has_value()) << none;
        EXPECT_FALSE(label->has_value()) << none;
    }
    for (const char* const bad : {"A/B", "A\tB", " A", "TWELVE CHARS", "日本", "\xFF"}) {
        EXPECT_EQ(encode_label(bad, "850", warnings, why).code(), EINVAL) << bad;
    }
    EXPECT_EQ(encode_label("A", "none", warnings, why).code(), EINVAL);
    ASSERT_TRUE(encode_label("lower", "850", warnings, why).has_value());
    EXPECT_EQ(warnings.size(), 1U);
}

}  // namespace
}  // namespace wbfat::tools
