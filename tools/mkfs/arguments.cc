// Decoding the command line.
#include "tools/mkfs/arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <fstream>
#include <iostream>
#include <iterator>
#include <limits>
#include <string_view>

#include "tools/mkfs/text.h"
#include "tools/mkfs/usage_error.h"
#include <CLI/CLI.hpp>

namespace wbfat::tools {

namespace {

// What the user wrote, not yet understood.
struct RawArguments {
    std::string device;
    std::optional<std::string> blocks;
    std::optional<std::string> backup;
    std::optional<std::string> drive;
    std::optional<std::string> nr_fats;
    std::optional<std::string> fat_bits;
    std::optional<std::string> disk_geometry;
    std::optional<std::string> hidden;
    std::optional<std::string> volume_id;
    std::optional<std::string> bad_block_list;
    std::optional<std::string> message_file;
    std::optional<std::string> media;
    std::optional<std::string> label;
    std::optional<std::string> root_entries;
    std::optional<std::string> reserved;
    std::optional<std::string> sectors_per_cluster;
    std::optional<std::string> sector_bytes;
    std::optional<std::string> mbr;
    std::optional<std::string> offset;
    std::optional<std::string> variant;
    std::string codepage = "850";
    bool no_align = false;
    bool atari = false;
    bool check = false;
    bool create = false;
    bool ignore_safety = false;
    bool invariant = false;
    bool verbose = false;
};

// Like strtoul with base 0: decimal, 0x hexadecimal, 0 octal. But nothing else may follow, and no
// sign stand before.
std::uint64_t parse_number(std::string_view option, const std::string& text, std::uint64_t max,
                           int base = 0) {
    std::string_view digits = text;
    const bool hexadecimal = digits.starts_with("0x") || digits.starts_with("0X");
    if (hexadecimal && (base == 0 || base == 16)) {
        digits.remove_prefix(2);
        base = 16;
    } else if (base == 0) {
        base = digits.size() > 1 && digits.front() == '0' ? 8 : 10;
    }
    std::uint64_t value = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (error != std::errc() || end != digits.data() + digits.size() || digits.empty() ||
        value > max) {
        const char* const kind = base == 16 ? "a hexadecimal number" : "a number";
        throw UsageError(fmt::format("{} \"{}\": {} from 0 to {:#x} ({}) is wanted.", option, text,
                                     kind, max, max));
    }
    return value;
}

template <typename Number>
void parse_into(std::string_view option, const std::optional<std::string>& text,
                std::optional<Number>& into) {
    if (text) {
        into = static_cast<Number>(parse_number(option, *text, std::numeric_limits<Number>::max()));
    }
}

fs::DiskGeometry parse_disk_geometry(const std::string& text) {
    const std::size_t slash = text.find('/');
    if (slash == std::string::npos) {
        throw UsageError(
            fmt::format("-g \"{}\": HEADS/SECTORS_PER_TRACK is wanted, such as 255/63.", text));
    }
    constexpr std::uint64_t kMax = std::numeric_limits<std::uint16_t>::max();
    return {static_cast<std::uint16_t>(parse_number("-g", text.substr(0, slash), kMax)),
            static_cast<std::uint16_t>(parse_number("-g", text.substr(slash + 1), kMax))};
}

MbrMode parse_mbr(const std::string& text) {
    if (text == "y" || text == "yes") {
        return MbrMode::kYes;
    }
    if (text == "n" || text == "no") {
        return MbrMode::kNo;
    }
    if (text == "a" || text == "auto") {
        return MbrMode::kAuto;
    }
    throw UsageError(fmt::format("--mbr={}: yes, no or auto is wanted.", text));
}

bool parse_variant_is_atari(std::string text) {
    std::ranges::transform(text, text.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (text != "atari" && text != "standard") {
        throw UsageError(fmt::format("--variant {}: standard or atari is wanted.", text));
    }
    return text == "atari";
}

std::string read_message(const std::string& name) {
    const auto slurp = [](std::istream& stream) {
        return std::string(std::istreambuf_iterator<char>(stream),
                           std::istreambuf_iterator<char>());
    };
    if (name == "-") {
        return boot_message_from_text(slurp(std::cin));
    }
    std::ifstream file(name, std::ios::binary);
    if (!file) {
        throw UsageError(fmt::format("-m {}: the message file cannot be opened.", name));
    }
    return boot_message_from_text(slurp(file));
}

void add_options(CLI::App& app, RawArguments& raw) {
    app.set_help_flag("--help", "Show this help and exit");
    app.add_option("DEVICE", raw.device, "Block device or image file")->required();
    app.add_option("BLOCKS", raw.blocks,
                   "Size of the volume in KiB (default: what the device has)");
    app.add_flag("-a", raw.no_align, "Do not align structures to clusters");
    app.add_flag("-A", raw.atari, "Make the Atari variant");
    app.add_option("-b", raw.backup, "Sector of the FAT32 backup boot sector; 0 for none");
    app.add_flag("-c", raw.check, "Look for bad blocks first");
    app.add_flag("-C", raw.create, "Create DEVICE as an image file of BLOCKS KiB");
    app.add_option("-D", raw.drive, "BIOS drive number");
    app.add_option("-f", raw.nr_fats, "Number of FATs, 1 to 4 (default 2)");
    app.add_option("-F", raw.fat_bits, "FAT type: 12, 16 or 32");
    app.add_option("-g", raw.disk_geometry, "Disk geometry: HEADS/SECTORS_PER_TRACK");
    app.add_option("-h", raw.hidden, "Number of hidden sectors (before the partition)");
    app.add_option("-i", raw.volume_id, "Volume ID, 32 bits in hexadecimal");
    app.add_flag("-I", raw.ignore_safety, "Format a whole disk although it has partitions");
    app.add_option("-l", raw.bad_block_list, "File with a list of bad blocks, one number a line");
    app.add_option("-m", raw.message_file, "File with the boot message; - for standard input");
    app.add_option("-M", raw.media, "Media type: 0xf0 or 0xf8 to 0xff");
    app.add_option("--mbr", raw.mbr,
                   "Put a partition table into the boot sector: =yes, =no, =auto");
    app.add_option("-n", raw.label, "Volume label, at most 11 characters");
    app.add_option("--codepage", raw.codepage, "Code page of the label (default 850)");
    app.add_option("-r", raw.root_entries, "Least number of root directory entries (FAT12, FAT16)");
    app.add_option("-R", raw.reserved, "Least number of reserved sectors");
    app.add_option("-s", raw.sectors_per_cluster, "Sectors per cluster: 1, 2, 4, .. 128");
    app.add_option("-S", raw.sector_bytes, "Bytes per logical sector: 512, 1024, .. 32768");
    app.add_flag("-v", raw.verbose, "Say what was made");
    app.add_option("--offset", raw.offset, "Write the volume at this sector of DEVICE");
    app.add_option("--variant", raw.variant, "standard or atari");
    app.add_flag("--invariant", raw.invariant,
                 "The same bytes every time: constants for time and volume ID");
}

void decode_volume(const RawArguments& raw, fs::FormatOptions& format) {
    if (raw.nr_fats) {
        format.nr_fats = static_cast<std::uint32_t>(parse_number("-f", *raw.nr_fats, 255));
    }
    parse_into("-F", raw.fat_bits, format.fat_bits);
    parse_into("-S", raw.sector_bytes, format.sector_bytes);
    parse_into("-s", raw.sectors_per_cluster, format.sectors_per_cluster);
    parse_into("-R", raw.reserved, format.reserved_sectors);
    parse_into("-r", raw.root_entries, format.root_entries);
    parse_into("-b", raw.backup, format.backup_boot_sector);
    parse_into("-h", raw.hidden, format.hidden_sectors);
    parse_into("-M", raw.media, format.media);
    parse_into("-D", raw.drive, format.drive);
    if (raw.disk_geometry) {
        format.disk_geometry = parse_disk_geometry(*raw.disk_geometry);
    }
    // So that no later product of sectors and bytes, or KiB and bytes, overflows.
    constexpr std::uint64_t kMax = std::uint64_t{1} << 40;
    if (raw.blocks) {
        format.size_kib = parse_number("BLOCKS", *raw.blocks, kMax, 10);
    }
    if (raw.offset) {
        format.offset_sectors = parse_number("--offset", *raw.offset, kMax);
    }
    if (raw.volume_id) {
        format.volume_id = static_cast<std::uint32_t>(
            parse_number("-i", *raw.volume_id, std::numeric_limits<std::uint32_t>::max(), 16));
    }
    if (raw.message_file) {
        format.boot_message = read_message(*raw.message_file);
    }
    format.align = !raw.no_align;
    format.atari = (raw.variant && parse_variant_is_atari(*raw.variant)) != raw.atari;
}

Arguments decode(const RawArguments& raw) {
    Arguments arguments;
    arguments.device = raw.device;
    arguments.create = raw.create;
    arguments.check = raw.check;
    arguments.ignore_safety = raw.ignore_safety;
    arguments.invariant = raw.invariant;
    arguments.verbose = raw.verbose;
    arguments.bad_block_list = raw.bad_block_list;
    arguments.volume_id_given = raw.volume_id.has_value();
    if (raw.mbr) {
        arguments.mbr = parse_mbr(*raw.mbr);
    }
    decode_volume(raw, arguments.format);
    static_cast<void>(parse_number("--codepage", raw.codepage, 99999, 10));
    if (raw.label) {
        std::string why;
        const auto label = encode_label(*raw.label, raw.codepage, arguments.warnings, why);
        if (!label) {
            throw UsageError(why);
        }
        arguments.format.label = *label;
    }
    if (raw.create && !raw.blocks) {
        throw UsageError("-C needs the size of the image: give BLOCKS after DEVICE, in KiB.");
    }
    return arguments;
}

}  // namespace

std::optional<Arguments> parse_arguments(int argc, const char* const* argv) {
    // --mbr takes its optional value only after "=", or it would swallow DEVICE.
    std::vector<std::string> words(argv + 1, argv + argc);
    const auto options_end = std::ranges::find(words, "--");
    std::replace(words.begin(), options_end, std::string("--mbr"), std::string("--mbr=yes"));
    std::ranges::reverse(words);  // as CLI11 wants them

    CLI::App app("Make a FAT filesystem on DEVICE, a block device or an image file.", "mkfs.wbfat");
    RawArguments raw;
    add_options(app, raw);
    try {
        app.parse(words);
    } catch (const CLI::CallForHelp&) {
        fmt::print("{}", app.help());
        return std::nullopt;
    } catch (const CLI::ParseError& error) {
        throw UsageError(fmt::format("{} (mkfs.wbfat --help lists the options)", error.what()));
    }
    return decode(raw);
}

}  // namespace wbfat::tools
