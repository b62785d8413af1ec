// mkfs.wbfat: makes a FAT volume on a block device or in an image file, with mkfs.fat's flags and
// choices.
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <fstream>
#include <random>
#include <string>
#include <system_error>
#include <vector>

#include <xxhash.h>

#include "fs/mkfs.h"

#include "tools/mkfs/arguments.h"
#include "tools/mkfs/bad_blocks.h"
#include "tools/mkfs/progress.h"
#include "tools/mkfs/target.h"
#include "tools/mkfs/usage_error.h"

namespace wbfat::tools {

namespace {

constexpr std::uint32_t kInvariantVolumeId = 0x1234ABCD;
// 2015-03-14 09:26:52, as mkfs.fat --invariant has it.
constexpr fs::FatTimestamp kInvariantTime = {0x466E, 0x4B5A, 0};

void warn(const std::string& sentence) {
    fmt::print(stderr, "mkfs.wbfat: warning: {}\n", sentence);
}

fs::FatTimestamp to_fat(const std::tm& time) {
    constexpr int kFirstYear = 80;  // 1980, in years since 1900
    constexpr int kLastYear = 207;  // 2107
    if (time.tm_year < kFirstYear) {
        return {(1 << 5) | 1, 0, 0};
    }
    if (time.tm_year > kLastYear) {
        return {0xFF9F, 0xBF7D, 0};
    }
    const int date = ((time.tm_year - kFirstYear) << 9) | ((time.tm_mon + 1) << 5) | time.tm_mday;
    const int clock = (time.tm_hour << 11) | (time.tm_min << 5) | (std::min(time.tm_sec, 59) / 2);
    return {static_cast<std::uint16_t>(date), static_cast<std::uint16_t>(clock), 0};
}

// Time and volume ID: constants, SOURCE_DATE_EPOCH (then in UTC, so that the zone of the builder
// does not matter), or the clock.
void choose_time_and_id(const Arguments& arguments, fs::FormatOptions& format) {
    std::uint32_t id = kInvariantVolumeId;
    format.label_time = kInvariantTime;
    if (!arguments.invariant) {
        std::tm broken_down{};
        // main() is the only thread.
        const char* const epoch =
            std::getenv("SOURCE_DATE_EPOCH");  // NOLINT(concurrency-mt-unsafe)
        if (epoch != nullptr) {
            char* end = nullptr;
            errno = 0;
            const long long seconds = std::strtoll(epoch, &end, 10);
            const auto time = static_cast<std::time_t>(seconds);
            if (errno != 0 || end == epoch || *end != '\0' || seconds < 0 ||
                gmtime_r(&time, &broken_down) == nullptr) {
                throw UsageError(
                    fmt::format("SOURCE_DATE_EPOCH=\"{}\": seconds since 1970 are wanted.", epoch));
            }
            id = XXH32(&seconds, sizeof(seconds), 0);
        } else {
            const std::time_t now = std::time(nullptr);
            localtime_r(&now, &broken_down);
            id = std::random_device()();
        }
        format.label_time = to_fat(broken_down);
    }
    if (!arguments.volume_id_given) {
        format.volume_id = id;
    }
}

bool read_exactly(int fd, std::uint64_t offset_bytes, std::span<std::byte> into) {
    while (!into.empty()) {
        const ssize_t got = pread(fd, into.data(), into.size(), static_cast<off_t>(offset_bytes));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return false;
        }
        into = into.subspan(static_cast<std::size_t>(got));
        offset_bytes += static_cast<std::uint64_t>(got);
    }
    return true;
}

void collect_bad_blocks(const Arguments& arguments, int fd, fs::FormatPlan& plan) {
    std::vector<std::uint64_t> blocks;
    if (arguments.bad_block_list) {
        std::ifstream list(*arguments.bad_block_list);
        if (!list) {
            throw UsageError(
                fmt::format("-l {}: the list cannot be opened.", *arguments.bad_block_list));
        }
        blocks = read_bad_block_list(list, *arguments.bad_block_list);
    }
    if (arguments.check) {
        Progress progress("Looking for bad blocks");
        const std::uint64_t start = plan.offset_bytes;
        const ReadAt read = [fd, start](std::uint64_t at, std::span<std::byte> into) {
            return read_exactly(fd, start + at, into);
        };
        const auto found = find_bad_blocks(read, plan.geometry.volume_bytes(), progress);
        blocks.insert(blocks.end(), found.begin(), found.end());
    }
    std::string why;
    if (!fs::mark_bad_blocks(plan, blocks, why)) {
        throw UsageError(why);
    }
    if (!blocks.empty()) {
        fmt::print("{} bad blocks in {} clusters\n", blocks.size(), plan.bad_clusters.size());
    }
}

void describe(const Arguments& arguments, const fs::FormatPlan& plan) {
    const fs::Geometry& g = plan.geometry;
    fmt::print("{}: {} sectors of {} bytes; {} heads, {} sectors per track, {} hidden sectors\n",
               arguments.device, g.total_sectors, g.sector_bytes, plan.disk_geometry.heads,
               plan.disk_geometry.sectors_per_track, plan.hidden_sectors);
    fmt::print("FAT{}: {} FATs of {} sectors, {} clusters of {} bytes, {} reserved sectors\n",
               static_cast<unsigned>(g.type), g.nr_fats, g.fat_sectors, g.nr_clusters,
               g.cluster_bytes, g.reserved_sectors);
    if (g.type != fs::FatType::kFat32) {
        fmt::print("root directory: {} entries\n", g.root_entries);
    } else if (g.backup_boot_sector != 0) {
        fmt::print("backup boot sector: {}\n", g.backup_boot_sector);
    }
    fmt::print(
        "media {:#04x}, drive {:#04x}, volume ID {:08x}, {}\n", g.media, plan.drive, g.volume_id,
        plan.has_label ? fmt::format("label \"{}\"", std::string(g.label.begin(), g.label.end()))
                       : "no label");
}

fs::FormatPlan make_plan(const Arguments& arguments, const fs::FormatOptions& format,
                         const fs::FormatDevice& device) {
    std::string why;
    auto plan = fs::plan_mkfs(format, device, why);
    if (!plan) {
        throw UsageError(why);
    }
    for (const std::string& warning : plan->warnings) {
        warn(warning);
    }
    if (arguments.verbose) {
        describe(arguments, *plan);
    }
    return std::move(*plan);
}

void write_plan(const Arguments& arguments, int fd, const fs::FormatPlan& plan,
                fs::FdFormatTarget::Contents contents) {
    fs::FdFormatTarget target(fd, contents);
    Progress progress("Writing the FATs");
    const auto written = fs::write_volume(
        target, plan,
        [&progress](std::uint64_t done, std::uint64_t total) { progress.update(done, total); });
    if (!written) {
        throw UsageError(fmt::format("{} cannot be written: {}.", arguments.device,
                                     std::generic_category().message(written.code())));
    }
}

void format_new_image(const Arguments& arguments, fs::FormatOptions& format) {
    fs::FormatDevice device;
    const std::uint64_t sector_bytes = format.sector_bytes.value_or(512);
    device.size_bytes = *format.size_kib * kBadBlockBytes + format.offset_sectors * sector_bytes;
    format.mbr = arguments.mbr == MbrMode::kYes;
    fs::FormatPlan plan = make_plan(arguments, format, device);
    const UniqueFd fd = create_image(arguments.device, device.size_bytes);
    try {
        collect_bad_blocks(arguments, fd.get(), plan);
        write_plan(arguments, fd.get(), plan, fs::FdFormatTarget::Contents::kZeros);
    } catch (...) {
        unlink(arguments.device.c_str());
        throw;
    }
}

void format_existing(const Arguments& arguments, fs::FormatOptions& format) {
    const Target target = open_target(
        arguments.device, arguments.ignore_safety ? SafetyChecks::kIgnored : SafetyChecks::kObeyed);
    format.mbr =
        arguments.mbr == MbrMode::kYes || (arguments.mbr == MbrMode::kAuto && target.wants_mbr);
    fs::FormatPlan plan = make_plan(arguments, format, target.device);
    if (plan.offset_bytes + plan.geometry.volume_bytes() > target.device.size_bytes) {
        warn("The volume is larger than the device.");
    }
    collect_bad_blocks(arguments, target.fd.get(), plan);
    write_plan(arguments, target.fd.get(), plan, fs::FdFormatTarget::Contents::kUnknown);
}

int run(int argc, char** argv) {
    const std::optional<Arguments> arguments = parse_arguments(argc, argv);
    if (!arguments) {
        return EXIT_SUCCESS;
    }
    for (const std::string& warning : arguments->warnings) {
        warn(warning);
    }
    fs::FormatOptions format = arguments->format;
    choose_time_and_id(*arguments, format);
    if (arguments->create) {
        format_new_image(*arguments, format);
    } else {
        format_existing(*arguments, format);
    }
    return EXIT_SUCCESS;
}

}  // namespace

}  // namespace wbfat::tools

int main(int argc, char** argv) {
    try {
        return wbfat::tools::run(argc, argv);
    } catch (const std::exception& error) {
        std::fputs("mkfs.wbfat: ", stderr);
        std::fputs(error.what(), stderr);
        std::fputs("\n", stderr);
    }
    return EXIT_FAILURE;
}
