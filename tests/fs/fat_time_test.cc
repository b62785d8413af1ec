// Goal: times survive as well as the format can hold them, and nothing on the disk is no time.
// Method: a table of what the kernel answered (kernel-vfat-answers.txt), the edges of the calendar,
// zones with rules, and random round trips.
#include "fs/fat_time.h"

#include <cstdint>
#include <cstdlib>

#include <gtest/gtest.h>

#include "tests/fs/gen.h"

namespace wbfat::fs {
namespace {

MountOptions utc(int offset_minutes = 0) {
    MountOptions options;
    options.time_offset_set = true;
    options.time_offset_minutes = offset_minutes;
    return options;
}

// Sets TZ for a scope.
class Zone {
public:
    explicit Zone(const char* tz) {
        setenv("TZ", tz, 1);  // NOLINT(concurrency-mt-unsafe): the test has one thread
        tzset();              // NOLINT(concurrency-mt-unsafe)
    }
    ~Zone() {
        unsetenv("TZ");  // NOLINT(concurrency-mt-unsafe)
        tzset();         // NOLINT(concurrency-mt-unsafe)
    }
    Zone(const Zone&) = delete;
    Zone& operator=(const Zone&) = delete;
};

std::uint16_t date(int year, int month, int day) {
    return static_cast<std::uint16_t>(((year - 1980) << 9) | (month << 5) | day);
}
std::uint16_t clock(int hour, int minute, int second) {
    return static_cast<std::uint16_t>((hour << 11) | (minute << 5) | (second / 2));
}

std::int64_t nanoseconds(const timespec& time) {
    return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

TEST(FatTimeTest, AnswersUtimeAsTheKernelDoes) {
    struct Case {
        const char* name;
        timespec given;
        std::int64_t atime;
        std::int64_t mtime;
    };
    constexpr std::int64_t kFirst = 315532800000000000;
    const Case cases[] = {
        {"an odd second with a fraction",
         {1700000001, 123000000},
         1699920000000000000,
         1700000000000000000},
        {"the start of Unix time is before 1980", {0, 0}, kFirst, kFirst},
        {"before Unix time", {-1, 500000000}, kFirst, kFirst},
        {"the last second before 1980", {315532799, 0}, kFirst, kFirst},
        {"the first second of 1980", {315532800, 0}, kFirst, kFirst},
        {"the last time there is", {4354819198, 0}, 4354732800000000000, 4354819198000000000},
        {"a fraction before the end",
         {4354819199, 900000000},
         4354732800000000000,
         4354819198000000000},
        {"the first second of 2108", {4354819200, 0}, 4354732800000000000, 4354819198000000000},
        {"far in the future", {99999999999, 0}, 4354732800000000000, 4354819198000000000},
        {"the largest time", {INT64_MAX, 999999999}, 4354732800000000000, 4354819198000000000},
        {"the smallest time", {INT64_MIN, 0}, kFirst, kFirst},
    };
    for (const Case& c : cases) {
        SCOPED_TRACE(c.name);
        EXPECT_EQ(nanoseconds(truncate_atime(c.given, utc())), c.atime);
        EXPECT_EQ(nanoseconds(truncate_mtime(c.given, utc())), c.mtime);
    }
}

TEST(FatTimeTest, BirthTimesKeepTenMilliseconds) {
    const timespec given{1795419538, 876543210};
    EXPECT_EQ(nanoseconds(truncate_btime(given, utc())), 1795419538870000000);
    EXPECT_EQ(nanoseconds(truncate_btime({1795419539, 999999999}, utc())), 1795419539990000000);
}

TEST(FatTimeTest, WritesTheFieldsOfTheDate) {
    struct Case {
        const char* name;
        timespec given;
        FatTimestamp stamp;
    };
    const Case cases[] = {
        {"the first moment", {315532800, 0}, {date(1980, 1, 1), 0, 0}},
        {"the last moment", {4354819199, 990000000}, {date(2107, 12, 31), clock(23, 59, 58), 199}},
        {"beyond the last", {4354819200, 0}, {date(2107, 12, 31), clock(23, 59, 58), 199}},
        {"a leap day", {951826154, 0}, {date(2000, 2, 29), clock(12, 9, 14), 0}},
        {"the day after February 28 of 2100, no leap year",
         {4107542400, 0},
         {date(2100, 3, 1), 0, 0}},
        {"an odd second", {951826155, 370000000}, {date(2000, 2, 29), clock(12, 9, 14), 137}},
    };
    for (const Case& c : cases) {
        SCOPED_TRACE(c.name);
        EXPECT_EQ(to_fat_time(c.given, utc()), c.stamp);
    }
}

TEST(FatTimeTest, MakesATimeOfAnyNonsense) {
    struct Case {
        const char* name;
        FatTimestamp stamp;
        FatTimestamp means;
    };
    const Case cases[] = {
        {"all zero is the first day", {0, 0, 0}, {date(1980, 1, 1), 0, 0}},
        {"day 0 is day 1", {date(2000, 5, 0), 0, 0}, {date(2000, 5, 1), 0, 0}},
        {"month 0 is January", {date(2000, 0, 7), 0, 0}, {date(2000, 1, 7), 0, 0}},
        {"month 15 is December", {date(2000, 15, 7), 0, 0}, {date(2000, 12, 7), 0, 0}},
        {"February 31 is its last day", {date(2001, 2, 31), 0, 0}, {date(2001, 2, 28), 0, 0}},
        {"February 30 in a leap year", {date(2004, 2, 30), 0, 0}, {date(2004, 2, 29), 0, 0}},
        {"February 29 of 2100 does not exist",
         {date(2100, 2, 29), 0, 0},
         {date(2100, 2, 28), 0, 0}},
        {"hour 31", {date(2000, 1, 1), clock(31, 0, 0), 0}, {date(2000, 1, 1), clock(23, 0, 0), 0}},
        {"minute 63",
         {date(2000, 1, 1), clock(1, 63, 0), 0},
         {date(2000, 1, 1), clock(1, 59, 0), 0}},
        {"second 62",
         {date(2000, 1, 1), clock(1, 1, 62), 0},
         {date(2000, 1, 1), clock(1, 1, 58), 0}},
        {"centisecond 255", {date(2000, 1, 1), 0, 255}, {date(2000, 1, 1), 0, 199}},
        {"everything set", {0xFFFF, 0xFFFF, 0xFF}, {date(2107, 12, 31), clock(23, 59, 58), 199}},
    };
    for (const Case& c : cases) {
        SCOPED_TRACE(c.name);
        EXPECT_EQ(to_fat_time(from_fat_time(c.stamp, utc()), utc()), c.means);
    }
}

TEST(FatTimeTest, EveryStampOfTheDiskReadsBackAsItself) {
    testing::Gen gen(1);
    SCOPED_TRACE(gen.replay());
    for (int i = 0; i < 20000; ++i) {
        const MountOptions options = utc(static_cast<int>(gen.between(0, 2880)) - 1440);
        const FatTimestamp nonsense{static_cast<std::uint16_t>(gen.below(65536)),
                                    static_cast<std::uint16_t>(gen.below(65536)),
                                    static_cast<std::uint8_t>(gen.below(256))};
        const timespec time = from_fat_time(nonsense, options);
        const FatTimestamp once = to_fat_time(time, options);
        ASSERT_EQ(nanoseconds(from_fat_time(once, options)), nanoseconds(time))
            << nonsense.date << ' ' << nonsense.time;
    }
}

TEST(FatTimeTest, TruncationIsStableAndNeverGoesForward) {
    testing::Gen gen(2);
    SCOPED_TRACE(gen.replay());
    for (int i = 0; i < 20000; ++i) {
        const timespec given{static_cast<time_t>(gen.between(315532800, 4354819198)),
                             static_cast<long>(gen.below(1'000'000'000))};
        for (const auto& [truncate, step] : {std::pair{&truncate_mtime, 2'000'000'000LL},
                                             std::pair{&truncate_atime, 86'400'000'000'000LL},
                                             std::pair{&truncate_btime, 10'000'000LL}}) {
            const timespec once = truncate(given, utc());
            ASSERT_LE(nanoseconds(once), nanoseconds(given));
            ASSERT_LT(nanoseconds(given) - nanoseconds(once), step);
            ASSERT_EQ(nanoseconds(truncate(once, utc())), nanoseconds(once));
        }
    }
}

TEST(FatTimeTest, AFixedOffsetIsMinutesEastOfUtc) {
    // 2023-11-14 22:13:20 UTC is the next day, 03:43:20, in India.
    const timespec given{1700000000, 0};
    const FatTimestamp stamp = to_fat_time(given, utc(330));
    EXPECT_EQ(stamp, (FatTimestamp{date(2023, 11, 15), clock(3, 43, 20), 0}));
    EXPECT_EQ(nanoseconds(from_fat_time(stamp, utc(330))), nanoseconds(given));
    EXPECT_EQ(to_fat_time(given, utc(-90)),
              (FatTimestamp{date(2023, 11, 14), clock(20, 43, 20), 0}));
}

TEST(FatTimeTest, TheClampIsInLocalTime) {
    // One hour before 1980 in UTC is 1980 already two hours east.
    EXPECT_EQ(to_fat_time({315532800 - 3600, 0}, utc(120)),
              (FatTimestamp{date(1980, 1, 1), clock(1, 0, 0), 0}));
    EXPECT_EQ(to_fat_time({315532800, 0}, utc(-60)), (FatTimestamp{date(1980, 1, 1), 0, 0}));
}

TEST(FatTimeTest, TheSystemZoneHasItsOwnOffsetOnEachDate) {
    const Zone berlin("CET-1CEST,M3.5.0,M10.5.0/3");
    const MountOptions local;
    // Noon UTC in winter and in summer.
    EXPECT_EQ(to_fat_time({1705320000, 0}, local),
              (FatTimestamp{date(2024, 1, 15), clock(13, 0, 0), 0}));
    EXPECT_EQ(to_fat_time({1721044800, 0}, local),
              (FatTimestamp{date(2024, 7, 15), clock(14, 0, 0), 0}));
    EXPECT_EQ(from_fat_time({date(2024, 1, 15), clock(13, 0, 0), 0}, local).tv_sec, 1705320000);
    EXPECT_EQ(from_fat_time({date(2024, 7, 15), clock(14, 0, 0), 0}, local).tv_sec, 1721044800);
    EXPECT_EQ(truncate_atime({1721044800, 0}, local).tv_sec, 1720994400)
        << "midnight is local, in summer time";
}

TEST(FatTimeTest, EveryHourOfAYearSurvivesInAZoneWithRulesButTheOneThatComesTwice) {
    const Zone berlin("CET-1CEST,M3.5.0,M10.5.0/3");
    const MountOptions local;
    int lost = 0;
    for (std::int64_t second = 1704067200; second < 1735689600; second += 3600) {
        const std::int64_t kept = truncate_mtime({second, 0}, local).tv_sec;
        lost += kept != second ? 1 : 0;
        EXPECT_LE(std::abs(kept - second), 3600);
    }
    EXPECT_LE(lost, 1) << "2024-10-27 02:00 to 03:00 exists twice";
}

}  // namespace
}  // namespace wbfat::fs
