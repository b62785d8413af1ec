// Goal: every mount option lands where it belongs, and every mistake gets one sentence that says
// what would be right. Method: tables of option strings, parsed alone.
#include "src/mount_options.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace wbfat::daemon {
namespace {

DaemonOptions parsed(const std::string& text) {
    DaemonOptions options = default_options();
    EXPECT_EQ(parse_options(text, options), "") << text;
    return options;
}

TEST(MountOptionsTest, TakesVfatsSpellings) {
    const DaemonOptions options = parsed(
        "uid=1000,gid=100,fmask=133,dmask=022,codepage=850,shortname=winnt,tz=UTC,errors=panic");
    EXPECT_EQ(options.fs.uid, 1000U);
    EXPECT_EQ(options.fs.gid, 100U);
    EXPECT_EQ(options.fs.fmask, 0133U);
    EXPECT_EQ(options.fs.dmask, 022U);
    EXPECT_EQ(options.fs.codepage, "850");
    EXPECT_EQ(options.fs.shortname, fs::ShortNameMode::kWinNt);
    EXPECT_TRUE(options.fs.time_offset_set);
    EXPECT_EQ(options.fs.errors, fs::ErrorPolicy::kPanic);
}

TEST(MountOptionsTest, LaysProtocolSwitchesOverTheirVersion) {
    EXPECT_EQ(to_string(parsed("").protocol), "6.8");
    EXPECT_EQ(to_string(parsed("protocol=5.9").protocol), "5.9");
    EXPECT_EQ(to_string(parsed("ro,protocol=5.9,end=xor,quiet,ref=held").protocol), "5.10,end=xor");
    EXPECT_EQ(to_string(parsed("handoff=7").protocol), "6.8,handoff=7");
    EXPECT_EQ(to_string(parsed("end=split,protocol=6.8").protocol), "6.8");
    DaemonOptions options = default_options();
    EXPECT_EQ(
        parse_options("protocol=5.7", options),
        "mount option 'protocol': '5.7' is not valid; give 5.8, 5.9-rc, 5.9, 5.10, 5.11, 6.8, "
        "recheck-on-wake, wake-clears, wait-to-set, lock-in-end");
    EXPECT_EQ(parse_options("protocol=5.9,end=or", options),
              "mount option 'end': 'or' is not valid; give split, xor, queue-lock");
    EXPECT_EQ(parse_options("protocol", options),
              "mount option 'protocol' needs a value: protocol=VERSION");
}

TEST(MountOptionsTest, TheControlSocketCanBeMovedOrLeftOut) {
    EXPECT_EQ(parsed("control=/run/door").control_path, "/run/door");
    EXPECT_EQ(parsed("control=none").control_path, DaemonOptions::kNoControl);
}

TEST(MountOptionsTest, LaterOptionsWin) {
    EXPECT_TRUE(parsed("rw,ro").fs.read_only);
    EXPECT_FALSE(parsed("ro,rw").fs.read_only);
    EXPECT_EQ(parsed("umask=077,fmask=022").fs.fmask, 022U);
    EXPECT_EQ(parsed("umask=077,fmask=022").fs.dmask, 077U);
}

TEST(MountOptionsTest, AllowUtimeFollowsTheDirectoryMaskUnlessGiven) {
    EXPECT_EQ(parsed("dmask=002").fs.allow_utime, 020U);
    EXPECT_EQ(parsed("dmask=002,allow_utime=022").fs.allow_utime, 022U);
}

TEST(MountOptionsTest, AssertionsMayBeListedBehindOneNameOrSeveral) {
    EXPECT_EQ(parsed("assert=two_writes:off,stable_page:warn,ro").assertions,
              "two_writes:off,stable_page:warn");
    EXPECT_TRUE(parsed("assert=two_writes:off,stable_page:warn,ro").fs.read_only);
    EXPECT_EQ(parsed("assert=two_writes:off,ro,assert=all:bug").assertions,
              "two_writes:off,all:bug");
}

TEST(MountOptionsTest, TraceIsOffOnOrSoLong) {
    EXPECT_EQ(parsed("").trace, cache::TraceState::kOn);
    EXPECT_EQ(parsed("trace=off").trace, cache::TraceState::kOff);
    EXPECT_EQ(parsed("trace=off,trace=on").trace, cache::TraceState::kOn);
    EXPECT_EQ(parsed("trace=4096").trace_events, 4096U);
}

TEST(MountOptionsTest, PassesKernelOptionsOnAndSwallowsFstabsWords) {
    const DaemonOptions options =
        parsed("noauto,user,_netdev,x-systemd.automount,nosuid,allow_other");
    EXPECT_EQ(options.kernel, (std::vector<std::string>{"nosuid", "allow_other"}));
}

TEST(MountOptionsTest, TheKernelGathersWritesUnlessToldOtherwise) {
    EXPECT_EQ(parsed("").kernel_cache_mode(), KernelCache::kWriteback);
    EXPECT_EQ(parsed("sync").kernel_cache_mode(), KernelCache::kWriteback);
    EXPECT_EQ(parsed("cache=auto").kernel_cache_mode(), KernelCache::kAuto);
    EXPECT_EQ(parsed("cache=auto,sync").kernel_cache_mode(), KernelCache::kAuto);
    EXPECT_EQ(parsed("cache=none").kernel_cache_mode(), KernelCache::kNone);
}

TEST(MountOptionsTest, CollectsPointRulesOneALine) {
    EXPECT_EQ(parsed("point=wake:flagged=20%sleep(1ms..5ms),point=chaos seed 3").point_rules,
              "wake:flagged=20%sleep(1ms..5ms)\nchaos seed 3\n");
}

TEST(MountOptionsTest, ABadPointRuleSpeaksForItself) {
    DaemonOptions options = default_options();
    EXPECT_EQ(parse_options("point=wake:flagged@cpu1=yield", options),
              "point rule 'wake:flagged@cpu1=yield': role 'cpu1' is not valid; give completion, "
              "flusher, request, sync or other");
    EXPECT_EQ(parse_options("points_file=/nowhere/rules", options),
              "cannot read the point rules in '/nowhere/rules'; give a file with one rule a line");
}

TEST(MountOptionsTest, ReadsSizes) {
    EXPECT_EQ(*parse_size("4096"), 4096U);
    EXPECT_EQ(*parse_size("512K"), 512U << 10);
    EXPECT_EQ(*parse_size("64M"), 64U << 20);
    EXPECT_EQ(*parse_size("2G"), 2ULL << 30);
    for (const char* bad :
         {"", "M", "-1", "1T", "12.5M", "99999999999999999999", "99999999999999G"}) {
        EXPECT_FALSE(parse_size(bad).has_value()) << bad;
    }
}

struct BadCase {
    const char* text;
    const char* names;  // a part of the sentence
};

TEST(MountOptionsTest, SaysWhatIsWrongAndWhatWouldBeRight) {
    const BadCase cases[] = {
        {"nonsense", "unknown mount option 'nonsense'"},
        {"ro=1", "takes no value"},
        {"uid", "needs a value"},
        {"uid=root", "give a number"},
        {"fmask=999", "octal"},
        {"umask=1777", "octal"},
        {"errors=explode", "continue, remount-ro, panic"},
        {"shortname=long", "lower, win95, winnt, mixed"},
        {"cache=all", "none, auto, writeback"},
        {"cache_size=1K", "at least 1M"},
        {"time_offset=1441", "-1440"},
        {"tz=CET", "give UTC"},
        {"iocharset=koi8-r", "utf8"},
        {"threads=0", "1 to 256"},
        {"dirty_ratio=101", "percentage"},
        {"dirty_background_ratio=0", "percentage"},
        {"utf8=maybe", "yes"},
        {"control=here", "an absolute path, or none"},
    };
    for (const BadCase& bad : cases) {
        SCOPED_TRACE(bad.text);
        DaemonOptions options = default_options();
        const std::string sentence = parse_options(bad.text, options);
        EXPECT_NE(sentence.find(bad.names), std::string::npos) << sentence;
    }
}

TEST(MountOptionsTest, HelpListsEveryOptionOfTheTable) {
    const std::string help = options_help();
    for (const char* option :
         {"uid=", "cache_size=", "shortname=", "sync", "bug=", "offset=", "utf8[="}) {
        EXPECT_NE(help.find(option), std::string::npos) << option;
    }
}

}  // namespace
}  // namespace wbfat::daemon
