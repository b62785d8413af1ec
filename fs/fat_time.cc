// Conversion of FAT dates and times, in a fixed offset or in the system's zone.
#include "fs/fat_time.h"

#include <algorithm>
#include <array>
#include <cstdint>

namespace wbfat::fs::inline WBFAT_RT {
namespace {

constexpr int kFirstYear = 1980;
constexpr int kLastYear = 2107;
constexpr long kNanosecondsPerCentisecond = 10'000'000;
constexpr std::int64_t kSecondsPerMinute = 60;

constexpr FatTimestamp kEarliest{(1U << 5) | 1U, 0, 0};
constexpr FatTimestamp kLatest{(127U << 9) | (12U << 5) | 31U, (23U << 11) | (59U << 5) | 29U, 199};

// Seconds far outside of what the disk can hold, in any zone: cut off before arithmetic that could
// overflow.
constexpr std::int64_t kNoEarlierSeconds = 0;              // 1970
constexpr std::int64_t kNoLaterSeconds = 4'500'000'000LL;  // 2112

bool is_leap_year(int year) {
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

int days_in_month(int year, int month) {
    constexpr std::array<int, 12> kDays = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && is_leap_year(year) ? 29 : kDays.at(static_cast<std::size_t>(month - 1));
}

// The calendar fields of `seconds` on the disk's clock. False when there are none.
bool break_down(std::int64_t seconds, const MountOptions& options, tm& fields) {
    const time_t clock =
        options.time_offset_set
            ? seconds + std::int64_t{options.time_offset_minutes} * kSecondsPerMinute
            : seconds;
    return (options.time_offset_set ? gmtime_r(&clock, &fields) : localtime_r(&clock, &fields)) !=
           nullptr;
}

std::int64_t put_together(tm fields, const MountOptions& options) {
    if (options.time_offset_set) {
        return timegm(&fields) - std::int64_t{options.time_offset_minutes} * kSecondsPerMinute;
    }
    fields.tm_isdst = -1;  // let the zone's rules for that date decide
    return mktime(&fields);
}

}  // namespace

FatTimestamp to_fat_time(const timespec& time, const MountOptions& options) {
    const std::int64_t seconds = time.tv_sec;
    if (seconds < kNoEarlierSeconds) {
        return kEarliest;
    }
    tm fields{};
    if (seconds > kNoLaterSeconds || !break_down(seconds, options, fields)) {
        return kLatest;
    }
    const int year = fields.tm_year + 1900;
    if (year < kFirstYear) {
        return kEarliest;
    }
    if (year > kLastYear) {
        return kLatest;
    }
    // A zone that counts leap seconds has a second 60; the disk has not.
    const int second = std::min(fields.tm_sec, 59);
    FatTimestamp stamp;
    stamp.date = static_cast<std::uint16_t>(((year - kFirstYear) << 9) |
                                            ((fields.tm_mon + 1) << 5) | fields.tm_mday);
    stamp.time =
        static_cast<std::uint16_t>((fields.tm_hour << 11) | (fields.tm_min << 5) | (second / 2));
    stamp.centisecs =
        static_cast<std::uint8_t>((second % 2) * 100 + time.tv_nsec / kNanosecondsPerCentisecond);
    return stamp;
}

timespec from_fat_time(const FatTimestamp& stamp, const MountOptions& options) {
    const int year = kFirstYear + (stamp.date >> 9);
    const int month = std::clamp((stamp.date >> 5) & 0x0F, 1, 12);
    const int centisecs = std::min<int>(stamp.centisecs, 199);
    tm fields{};
    fields.tm_year = year - 1900;
    fields.tm_mon = month - 1;
    fields.tm_mday = std::clamp(stamp.date & 0x1F, 1, days_in_month(year, month));
    fields.tm_hour = std::min(stamp.time >> 11, 23);
    fields.tm_min = std::min((stamp.time >> 5) & 0x3F, 59);
    fields.tm_sec = std::min(stamp.time & 0x1F, 29) * 2;

    timespec time{};
    time.tv_sec = put_together(fields, options) + centisecs / 100;
    time.tv_nsec = (centisecs % 100) * kNanosecondsPerCentisecond;
    return time;
}

timespec truncate_mtime(const timespec& time, const MountOptions& options) {
    FatTimestamp stamp = to_fat_time(time, options);
    stamp.centisecs = 0;
    return from_fat_time(stamp, options);
}

timespec truncate_atime(const timespec& time, const MountOptions& options) {
    return from_fat_time({to_fat_time(time, options).date, 0, 0}, options);
}

timespec truncate_btime(const timespec& time, const MountOptions& options) {
    return from_fat_time(to_fat_time(time, options), options);
}

}  // namespace wbfat::fs::inline WBFAT_RT
