// Advance widths of DejaVu Sans, in thousandths of its size, from the space to the tilde.
#include "tools/explore/draw/text_width.h"

#include <array>
#include <cstddef>

namespace wbfat::explore {

namespace {

constexpr std::size_t kNrGlyphs = 95;
constexpr int kWidest = 1000;

constexpr std::array<int, kNrGlyphs> kRegular = {
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361,  318, 337, 636, 636, 636,
    636, 636, 636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632,
    575, 775, 752, 295, 295, 656, 557, 863, 748, 787, 603, 787, 695, 635,  611, 732, 684, 989, 685,
    611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635, 615, 352,  635, 634, 278, 278, 579,
    278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592,  525, 636, 337, 636, 838};

constexpr std::array<int, kNrGlyphs> kBold = {
    348,  456, 521, 838, 696, 1002, 872, 306,  457, 457, 523, 838, 380, 415,  380, 365,
    696,  696, 696, 696, 696, 696,  696, 696,  696, 696, 400, 400, 838, 838,  838, 580,
    1000, 774, 762, 734, 830, 683,  683, 821,  837, 372, 372, 775, 637, 995,  837, 850,
    733,  850, 770, 720, 682, 812,  774, 1103, 771, 724, 725, 457, 365, 457,  838, 500,
    500,  675, 716, 593, 716, 678,  435, 716,  712, 343, 343, 665, 343, 1042, 712, 687,
    716,  716, 493, 595, 478, 712,  652, 924,  645, 652, 582, 712, 365, 712,  838};

}  // namespace

double text_width(std::string_view text, double size, Weight weight) {
    const auto& table = weight == Weight::kBold ? kBold : kRegular;
    int thousandths = 0;
    for (const char c : text) {
        const auto code = static_cast<unsigned char>(c);
        if ((code & 0xC0U) == 0x80U) {
            continue;  // not the first byte of a UTF-8 character
        }
        const std::size_t glyph = code - std::size_t{' '};
        thousandths += glyph < kNrGlyphs ? table[glyph] : kWidest;
    }
    return size * thousandths / 1000;
}

}  // namespace wbfat::explore
