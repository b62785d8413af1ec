// fork(2) and the pipe between the two.
#include "src/daemonize.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "src/command_line.h"
#include "src/log.h"

namespace wbfat::daemon {

namespace {

// Waits for one byte, the child's exit code.
[[noreturn]] void wait_for_child(int read_end) {
    unsigned char code = kExitSystem;
    static_cast<void>(::read(read_end, &code, 1));
    ::_exit(code);
}

void detach_from_terminal() {
    ::setsid();
    if (::chdir("/") != 0) {
        return;
    }
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) {
        return;
    }
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        static_cast<void>(::dup2(null, fd));
    }
    ::close(null);
}

}  // namespace

Verdict::Verdict(bool foreground) {
    if (foreground) {
        return;
    }
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
        complain("cannot make a pipe to the background process");
        std::exit(kExitSystem);  // NOLINT(concurrency-mt-unsafe): no thread exists yet
    }
    const pid_t child = ::fork();
    if (child < 0) {
        complain("cannot fork into the background; -f stays in the foreground");
        std::exit(kExitSystem);  // NOLINT(concurrency-mt-unsafe): no thread exists yet
    }
    if (child > 0) {
        ::close(ends[1]);
        wait_for_child(ends[0]);
    }
    ::close(ends[0]);
    write_end_ = ends[1];
}

Verdict::~Verdict() {
    if (write_end_ >= 0) {
        report(kExitSystem);
    }
}

void Verdict::report(int exit_code) {
    if (write_end_ < 0) {
        return;
    }
    if (exit_code == kExitOk) {
        detach_from_terminal();
    }
    const auto code = static_cast<unsigned char>(exit_code);
    static_cast<void>(::write(write_end_, &code, 1));
    ::close(write_end_);
    write_end_ = -1;
    reported_ = true;
}

}  // namespace wbfat::daemon
