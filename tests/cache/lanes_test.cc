// Goal: the table looks like the mail's, whatever is in it. Method: whole pictures compared.
#include "cache/lanes.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace wbfat::cache::inline WBFAT_RT {
namespace {

using Names = std::vector<std::string>;
using Rows = std::vector<LaneRow>;

TEST(LanesTest, DrawsTheTableOfTheMail) {
    const Names lanes{"CPU1", "CPU2", "CPU3"};
    const Rows rows{
        {0, "end_page_writeback()", ""},
        {0, "  test_clear_page_writeback(page)", ""},
        {0, "  ... delayed...", ""},
        {1, "lock_page();", ""},
        {1, "set_page_writeback()", ""},
        {1, "unlock_page()", ""},
        {2, "lock_page()", ""},
        {2, "wait_on_page_writeback();", ""},
        {0, "wake_up_page(page, PG_writeback);", ""},
        {0, ".. wakes up CPU3 ..", ""},
        {2, "BUG_ON(PageWriteback(page));", ""},
    };
    EXPECT_EQ(
        draw_lanes(lanes, rows),
        "  CPU1                               CPU2                  CPU3\n"
        "  ----                               ----                  ----\n"
        "\n"
        "  end_page_writeback()\n"
        "    test_clear_page_writeback(page)\n"
        "    ... delayed...\n"
        "\n"
        "                                     lock_page();\n"
        "                                     set_page_writeback()\n"
        "                                     unlock_page()\n"
        "\n"
        "                                                           lock_page()\n"
        "                                                           wait_on_page_writeback();\n"
        "\n"
        "  wake_up_page(page, PG_writeback);\n"
        "  .. wakes up CPU3 ..\n"
        "\n"
        "                                                           "
        "BUG_ON(PageWriteback(page));\n");
}

TEST(LanesTest, MarginsStandBelowEachOther) {
    const Rows rows{{0, "lock", "0.0"}, {1, "wait", "12.5"}};
    EXPECT_EQ(draw_lanes(Names{"a", "b"}, rows),
              "        a     b\n"
              "        -     -\n"
              "\n"
              "   0.0  lock\n"
              "\n"
              "  12.5        wait\n");
}

TEST(LanesTest, LongTextGoesOnBelow) {
    const LaneStyle style{.max_lane_width = 10, .gap = 2, .indent = 0};
    const Rows rows{{0, "wake 'flusher' (writeback)", ""}, {1, "x", ""}};
    EXPECT_EQ(draw_lanes(Names{"a", "b"}, rows, style),
              "a           b\n"
              "-           -\n"
              "\n"
              "wake\n"
              "  'flusher\n"
              "  '\n"
              "  (writeba\n"
              "  ck)\n"
              "\n"
              "            x\n");
}

TEST(LanesTest, CountsCharactersNotBytes) {
    const Rows rows{{0, "größe", ""}, {1, "x", ""}};
    EXPECT_EQ(draw_lanes(Names{"ä", "b"}, rows, {.max_lane_width = 34, .gap = 1, .indent = 0}),
              "ä     b\n"
              "-     -\n"
              "\n"
              "größe\n"
              "\n"
              "      x\n");
}

TEST(LanesTest, NothingAndWrongLanesDoNoHarm) {
    EXPECT_EQ(draw_lanes(Names{}, Rows{{0, "x", ""}}), "");
    EXPECT_EQ(draw_lanes(Names{"a"}, Rows{}), "  a\n  -\n");
    EXPECT_EQ(draw_lanes(Names{"a"}, Rows{{7, "x", ""}}), "  a\n  -\n\n  x\n");
    EXPECT_EQ(draw_lanes(Names{"a"}, Rows{{0, "", ""}}), "  a\n  -\n\n\n");
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
