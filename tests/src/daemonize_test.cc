// Goal: the exit code that the shell sees is the daemon's verdict, and never success by accident.
// Method: a process is forked that becomes daemon and waiting parent; its exit code is the waiting
// parent's.
#include "src/daemonize.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include <sys/wait.h>

#include <gtest/gtest.h>

#include "src/command_line.h"

namespace wbfat::daemon {
namespace {

// Runs `as_daemon` where main() would go on in the background; returns what the shell would see.
int exit_code_of(const std::function<void(Verdict&)>& as_daemon) {
    const pid_t child = ::fork();
    if (child == 0) {
        std::optional<Verdict> verdict(std::in_place, false);  // the waiting parent ends in here
        as_daemon(*verdict);
        verdict.reset();
        ::_exit(99);
    }
    int status = -1;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(DaemonizeTest, TheParentEndsWithTheVerdict) {
    for (const int code : {kExitOk, kExitUsage, kExitSystem, kExitMountFailed}) {
        EXPECT_EQ(exit_code_of([code](Verdict& verdict) { verdict.report(code); }), code);
    }
}

TEST(DaemonizeTest, OnlyTheFirstVerdictCounts) {
    EXPECT_EQ(exit_code_of([](Verdict& verdict) {
                  verdict.report(kExitMountFailed);
                  verdict.report(kExitOk);
              }),
              kExitMountFailed);
}

TEST(DaemonizeTest, AChildThatDiesWithoutAWordFailed) {
    EXPECT_EQ(exit_code_of([](Verdict&) { ::_exit(0); }), kExitSystem);
}

TEST(DaemonizeTest, AVerdictThatIsDroppedFailed) {
    EXPECT_EQ(exit_code_of([](Verdict&) {}), kExitSystem);
}

TEST(DaemonizeTest, SuccessLeavesTerminalAndDirectory) {
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe(ends.data()), 0);
    EXPECT_EQ(exit_code_of([&](Verdict& verdict) {
                  verdict.report(kExitOk);
                  std::array<char, 256> directory{};
                  std::array<char, 256> output{};
                  const bool left =
                      ::getcwd(directory.data(), directory.size()) != nullptr &&
                      std::string(directory.data()) == "/" && ::getsid(0) == ::getpid() &&
                      ::readlink("/proc/self/fd/1", output.data(), output.size() - 1) > 0 &&
                      std::string(output.data()) == "/dev/null" && verdict.in_background();
                  EXPECT_EQ(::write(ends[1], left ? "y" : "n", 1), 1);
              }),
              kExitOk);
    char answer = 0;
    EXPECT_EQ(::read(ends[0], &answer, 1), 1);
    EXPECT_EQ(answer, 'y');
    ::close(ends[0]);
    ::close(ends[1]);
}

TEST(DaemonizeTest, InTheForegroundNobodyForks) {
    const pid_t before = ::getpid();
    Verdict verdict(true);
    EXPECT_EQ(::getpid(), before);
    EXPECT_FALSE(verdict.in_background());
    verdict.report(kExitMountFailed);
    EXPECT_FALSE(verdict.in_background());
}

}  // namespace
}  // namespace wbfat::daemon
