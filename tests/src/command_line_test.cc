// Goal: what is typed arrives, and every mistake gives mount(8)'s exit code and one sentence on
// stderr. Method: tables of arguments, parsed alone.
#include "src/command_line.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace wbfat::daemon {
namespace {

struct Answer {
    std::optional<CommandLine> line;
    int exit_code = -1;
    std::string out;
    std::string err;
};

Answer parse(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "wbfat");
    std::vector<char*> argv;
    for (std::string& argument : arguments) {
        argv.push_back(argument.data());
    }
    argv.push_back(nullptr);
    Answer answer;
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    answer.line =
        parse_command_line(static_cast<int>(arguments.size()), argv.data(), answer.exit_code);
    answer.out = testing::internal::GetCapturedStdout();
    answer.err = testing::internal::GetCapturedStderr();
    return answer;
}

TEST(CommandLineTest, TakesADeviceAMountPointAndOptions) {
    const Answer answer = parse({"a.img", "/mnt", "-f", "-o", "ro,uid=7", "-o", "gid=8"});
    ASSERT_TRUE(answer.line.has_value()) << answer.err;
    EXPECT_EQ(answer.line->device, "a.img");
    EXPECT_EQ(answer.line->mountpoint, "/mnt");
    EXPECT_TRUE(answer.line->foreground);
    EXPECT_FALSE(answer.line->debug);
    EXPECT_TRUE(answer.line->options.fs.read_only);
    EXPECT_EQ(answer.line->options.fs.uid, 7U);
    EXPECT_EQ(answer.line->options.fs.gid, 8U);
    EXPECT_EQ(answer.err, "");
}

TEST(CommandLineTest, TakesOptionsBeforeThePositionals) {
    const Answer answer = parse({"-o", "ro", "a.img", "/mnt"});
    ASSERT_TRUE(answer.line.has_value()) << answer.err;
    EXPECT_EQ(answer.line->device, "a.img");
    EXPECT_FALSE(answer.line->foreground);
}

TEST(CommandLineTest, TakesWhatMountHandsOn) {
    const Answer answer = parse({"/dev/sdx1", "/mnt", "-s", "-n", "-v", "-o", "rw,nosuid,nodev"});
    ASSERT_TRUE(answer.line.has_value()) << answer.err;
    EXPECT_EQ(answer.line->options.kernel, (std::vector<std::string>{"nosuid", "nodev"}));
}

TEST(CommandLineTest, DebugStaysInTheForeground) {
    const Answer answer = parse({"a.img", "/mnt", "-d"});
    ASSERT_TRUE(answer.line.has_value()) << answer.err;
    EXPECT_TRUE(answer.line->debug);
    EXPECT_TRUE(answer.line->foreground);
}

TEST(CommandLineTest, TakesStrangeNamesAfterTwoDashes) {
    const Answer answer = parse({"-f", "--", "-strange.img", "/mnt"});
    ASSERT_TRUE(answer.line.has_value()) << answer.err;
    EXPECT_EQ(answer.line->device, "-strange.img");
}

TEST(CommandLineTest, PrintsHelpAndVersionOnStdout) {
    for (const std::vector<std::string>& arguments :
         {std::vector<std::string>{"-h"}, {"--help"}, {"-V"}, {"--version"}}) {
        const Answer answer = parse(arguments);
        EXPECT_FALSE(answer.line.has_value());
        EXPECT_EQ(answer.exit_code, kExitOk);
        EXPECT_NE(answer.out, "");
        EXPECT_EQ(answer.err, "");
    }
    EXPECT_NE(parse({"-h"}).out.find("cache_size=SIZE"), std::string::npos);
}

struct BadCase {
    std::vector<std::string> arguments;
    const char* names;  // a part of the sentence
};

TEST(CommandLineTest, RefusesMistakesInOneSentence) {
    const BadCase cases[] = {
        {{}, "a device and a mount point are needed"},
        {{"a.img"}, "a device and a mount point are needed"},
        {{"a.img", "/mnt", "extra"}, "extra"},
        {{"a.img", "/mnt", "--nonsense"}, "--nonsense"},
        {{"a.img", "/mnt", "-o"}, "-o"},
        {{"a.img", "/mnt", "-o", "nonsense"}, "unknown mount option 'nonsense'"},
        {{"a.img", "/mnt", "-o", "uid=me"}, "uid"},
        {{"a.img", "/mnt", "-o", "remount,ro"}, "unmount and mount again"},
    };
    for (const BadCase& c : cases) {
        const Answer answer = parse(c.arguments);
        EXPECT_FALSE(answer.line.has_value()) << c.names;
        EXPECT_EQ(answer.exit_code, kExitUsage) << c.names;
        EXPECT_EQ(answer.out, "") << c.names;
        EXPECT_EQ(std::count(answer.err.begin(), answer.err.end(), '\n'), 1) << answer.err;
        EXPECT_EQ(answer.err.rfind("wbfat: ", 0), 0U) << answer.err;
        EXPECT_NE(answer.err.find(c.names), std::string::npos) << answer.err;
    }
}

}  // namespace
}  // namespace wbfat::daemon
