// Goal: whoever may not ask is not heard, and no client, silent, slow, loud or many, keeps another
// from its answer. Method: real sockets on a directory of the test's own; answers held back by the
// test.
#include "src/control_socket.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <gtest/gtest.h>

#include "src/control_protocol.h"

namespace wbfat::daemon {
namespace {

using std::chrono_literals::operator""ms;

// A client's end; nothing in it is clever.
class Peer {
public:
    explicit Peer(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path.copy(&address.sun_path[0], sizeof(address.sun_path) - 1);
        error_ = ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0
                     ? 0
                     : errno;
    }
    ~Peer() {
        ::close(fd_);
    }
    Peer(Peer&& other) noexcept : fd_(std::exchange(other.fd_, -1)), error_(other.error_) {}
    Peer& operator=(Peer&&) = delete;

    int error() const {
        return error_;
    }
    void send(std::string_view text) const {
        while (!text.empty()) {
            const ssize_t sent = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
            if (sent < 0) {
                return;
            }
            text.remove_prefix(static_cast<std::size_t>(sent));
        }
    }
    void finish_sending() const {
        ::shutdown(fd_, SHUT_WR);
    }
    // The next line without its newline, or nothing when the connection has ended.
    std::optional<std::string> line() {
        std::string text;
        for (char byte = 0; ::recv(fd_, &byte, 1, 0) == 1; text += byte) {
            if (byte == '\n') {
                return text;
            }
        }
        return std::nullopt;
    }
    // Bytes until the connection ends.
    std::size_t count_to_the_end() {
        std::vector<char> chunk(1U << 16);
        std::size_t total = 0;
        for (ssize_t got = 0; (got = ::recv(fd_, chunk.data(), chunk.size(), 0)) > 0;) {
            total += static_cast<std::size_t>(got);
        }
        return total;
    }

private:
    int fd_;
    int error_;
};

// Answers wait here until the test lets them go.
class Gate {
public:
    void pass() {
        std::unique_lock lock(mutex_);
        ++arrived_;
        changed_.notify_all();
        changed_.wait(lock, [this] { return open_; });
    }
    void wait_for_arrivals(unsigned count) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return arrived_ >= count; });
    }
    void open() {
        const std::lock_guard lock(mutex_);
        open_ = true;
        changed_.notify_all();
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    unsigned arrived_ = 0;
    bool open_ = false;
};

class ControlSocketTest : public testing::Test {
protected:
    ControlSocketTest() {
        std::array<char, 32> name{"/tmp/wbfat-control-XXXXXX"};
        directory_ = ::mkdtemp(name.data());
        options_.path = directory_ + "/7:1.sock";
        options_.owner = ::geteuid();
    }
    ~ControlSocketTest() override {
        socket_.reset();
        std::system(
            ("rm -rf " + directory_).c_str());  // NOLINT(cert-env33-c,concurrency-mt-unsafe)
    }
    void listen(ControlSocket::Answer answer = [](const std::string& line) {
        return "you said " + line;
    }) {
        std::string why;
        socket_ = ControlSocket::listen(options_, std::move(answer), why);
        ASSERT_NE(socket_, nullptr) << why;
    }
    Peer peer() const {
        return Peer(options_.path);
    }

    std::string directory_;
    ControlSocket::Options options_;
    Gate gate_;  // outlives the answers that wait there
    std::unique_ptr<ControlSocket> socket_;
};

TEST_F(ControlSocketTest, AnswersLineAfterLineOfOneClient) {
    listen();
    Peer client = peer();
    client.send("one\ntwo\nthr");
    EXPECT_EQ(client.line(), "you said one");
    EXPECT_EQ(client.line(), "you said two");
    client.send("ee\n");
    EXPECT_EQ(client.line(), "you said three");
}

TEST_F(ControlSocketTest, AnswersWhoStopsSendingAfterHisRequest) {
    listen();
    Peer client = peer();
    client.send("all\n");
    client.finish_sending();
    EXPECT_EQ(client.line(), "you said all");
    EXPECT_EQ(client.line(), std::nullopt);
}

TEST_F(ControlSocketTest, IsItsOwnersAlone) {
    listen();
    struct stat found {};
    ASSERT_EQ(::stat(options_.path.c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 07777, 0600U);
    EXPECT_EQ(found.st_uid, ::geteuid());
}

// What another user gets to read, as the exit code of a child that became him.
int read_as_nobody(const std::string& path) {
    constexpr uid_t kNobody = 65534;
    const pid_t child = ::fork();
    if (child == 0) {
        if (::setuid(kNobody) != 0) {
            ::_exit(1);
        }
        Peer client(path);
        if (client.error() != 0) {
            ::_exit(2);
        }
        client.send("secret\n");
        const std::optional<std::string> line = client.line();
        const bool refused = line && line->find("only root") != std::string::npos;
        ::_exit(refused && client.line() == std::nullopt ? 0 : 3);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(ControlSocketTest, RefusesAnotherUserEvenWhereTheModeLetsHimIn) {
    if (::geteuid() != 0) {
        GTEST_SKIP() << "this needs root";
    }
    listen();
    EXPECT_EQ(::chmod(directory_.c_str(), 0755), 0);
    EXPECT_EQ(read_as_nobody(options_.path), 2) << "the mode of the socket let nobody in";
    EXPECT_EQ(::chmod(options_.path.c_str(), 0666), 0);
    EXPECT_EQ(read_as_nobody(options_.path), 0);
}

TEST_F(ControlSocketTest, RefusesALineWithoutAnEndAndClosesTheConnection) {
    listen();
    Peer client = peer();
    client.send(std::string(control::kMaxRequestBytes + 1, 'x'));
    const std::optional<std::string> line = client.line();
    ASSERT_TRUE(line.has_value());
    EXPECT_NE(line->find("at most 16384 bytes"), std::string::npos) << *line;
    EXPECT_EQ(client.line(), std::nullopt);
}

TEST_F(ControlSocketTest, TakesTheLongestLineThereMayBe) {
    listen([](const std::string& line) { return std::to_string(line.size()); });
    Peer client = peer();
    client.send(std::string(control::kMaxRequestBytes - 1, 'x') + "\n");
    EXPECT_EQ(client.line(), std::to_string(control::kMaxRequestBytes - 1));
}

TEST_F(ControlSocketTest, ClosesAConnectionThatNeverFinishesItsRequest) {
    options_.request_timeout = 20ms;
    listen();
    Peer client = peer();
    client.send("half a req");
    EXPECT_EQ(client.line(), std::nullopt);
}

TEST_F(ControlSocketTest, ClosesAConnectionThatDoesNotTakeItsReply) {
    constexpr std::size_t kReplyBytes = 8U << 20;
    options_.reply_timeout = 20ms;
    options_.max_clients = 1;
    listen([](const std::string& line) {
        return line == "long" ? std::string(kReplyBytes, 'x') : "short";
    });
    Peer deaf = peer();
    deaf.send("long\n");
    // Its place is free again only when it was given up: until then it works, or is written to.
    for (;;) {
        Peer other = peer();
        other.send("ask\n");
        if (other.line() == "short") {
            break;
        }
    }
    EXPECT_LT(deaf.count_to_the_end(), kReplyBytes);
}

TEST_F(ControlSocketTest, IdleConnectionsLockNobodyOut) {
    constexpr unsigned kIdle = 1000;
    rlimit limit{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
    listen();
    Peer first = peer();
    first.send("here\n");
    EXPECT_EQ(first.line(), "you said here");
    std::vector<Peer> idle;
    for (unsigned i = 0; i < kIdle; ++i) {
        idle.push_back(peer());
        ASSERT_EQ(idle.back().error(), 0) << "connection " << i;
    }
    Peer late = peer();
    late.send("me too\n");
    EXPECT_EQ(late.line(), "you said me too");
    EXPECT_EQ(first.line(), std::nullopt) << "the one that was silent longest keeps its place";
}

TEST_F(ControlSocketTest, ACommandThatRunsKeepsItsPlace) {
    options_.max_clients = 2;
    listen([this](const std::string& line) {
        gate_.pass();
        return "done " + line;
    });
    Peer first = peer();
    Peer second = peer();
    first.send("a\n");
    second.send("b\n");
    gate_.wait_for_arrivals(2);
    Peer third = peer();
    const std::optional<std::string> refusal = third.line();
    gate_.open();
    ASSERT_TRUE(refusal.has_value());
    EXPECT_NE(refusal->find("try again later"), std::string::npos) << *refusal;
    EXPECT_EQ(first.line(), "done a");
    EXPECT_EQ(second.line(), "done b");
}

TEST_F(ControlSocketTest, ACommandThatSleepsHoldsUpNobody) {
    listen([this](const std::string& line) {
        if (line == "sleep") {
            gate_.pass();
        }
        return line;
    });
    std::vector<Peer> sleepers;
    for (unsigned i = 0; i < 16; ++i) {
        sleepers.push_back(peer());
        sleepers.back().send("sleep\n");
    }
    gate_.wait_for_arrivals(16);
    Peer quick = peer();
    quick.send("status\n");
    EXPECT_EQ(quick.line(), "status");
    gate_.open();
    for (Peer& sleeper : sleepers) {
        EXPECT_EQ(sleeper.line(), "sleep");
    }
}

TEST_F(ControlSocketTest, TheEndWaitsForAnAnswerThatIsBeingMade) {
    bool finished = false;
    listen([&](const std::string& line) {
        gate_.pass();
        finished = true;
        return line;
    });
    Peer client = peer();
    client.send("slow\n");
    gate_.wait_for_arrivals(1);
    gate_.open();
    socket_.reset();
    EXPECT_TRUE(finished);
    EXPECT_NE(::access(options_.path.c_str(), F_OK), 0) << "the name is still there";
}

TEST_F(ControlSocketTest, AClientThatLeftWhileItsAnswerWasMadeDoesNoHarm) {
    listen([this](const std::string& line) {
        if (line == "leave") {
            gate_.pass();
        }
        return line;
    });
    {
        Peer client = peer();
        client.send("leave\n");
        gate_.wait_for_arrivals(1);
    }
    gate_.open();
    Peer other = peer();
    other.send("still there?\n");
    EXPECT_EQ(other.line(), "still there?");
}

TEST_F(ControlSocketTest, TakesThePlaceOfADeadDaemonsSocket) {
    {
        std::string why;
        const auto old = ControlSocket::listen(
            options_, [](const std::string&) { return "old"; }, why);
        ASSERT_NE(old, nullptr);
        ASSERT_EQ(::link(options_.path.c_str(), (options_.path + ".kept").c_str()), 0);
    }
    ASSERT_EQ(::rename((options_.path + ".kept").c_str(), options_.path.c_str()), 0);
    ASSERT_EQ(peer().error(), ECONNREFUSED);
    listen();
    Peer client = peer();
    client.send("new\n");
    EXPECT_EQ(client.line(), "you said new");
}

// --- the directory

class SocketDirectoryTest : public ControlSocketTest {
protected:
    SocketDirectoryTest() {
        ::setenv("XDG_RUNTIME_DIR", directory_.c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
    }
    ~SocketDirectoryTest() override {
        ::unsetenv("XDG_RUNTIME_DIR");  // NOLINT(concurrency-mt-unsafe)
    }
};

TEST_F(SocketDirectoryTest, IsMadeForItsOwnerAlone) {
    std::string why;
    EXPECT_EQ(prepare_socket_path(::geteuid(), "0:7.sock", why), directory_ + "/wbfat/0:7.sock");
    struct stat found {};
    ASSERT_EQ(::stat((directory_ + "/wbfat").c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 07777, 0700U);
}

TEST_F(SocketDirectoryTest, IsNotUsedWhereOthersCanEnter) {
    ASSERT_EQ(::mkdir((directory_ + "/wbfat").c_str(), 0700), 0);
    ASSERT_EQ(::chmod((directory_ + "/wbfat").c_str(), 0777), 0);
    std::string why;
    const std::string path = prepare_socket_path(::geteuid(), "0:7.sock", why);
    EXPECT_FALSE(path.starts_with(directory_)) << path;
}

TEST_F(SocketDirectoryTest, LosesWhatDeadDaemonsLeft) {
    std::string why;
    options_.path = prepare_socket_path(::geteuid(), "0:7.sock", why);
    listen();
    const std::string dead = directory_ + "/wbfat/0:8.sock";
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    dead.copy(&address.sun_path[0], sizeof(address.sun_path) - 1);
    ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    ::close(fd);
    const std::string stranger = directory_ + "/wbfat/notes.txt";
    std::ofstream(stranger) << "not a socket";
    prepare_socket_path(::geteuid(), "0:9.sock", why);
    EXPECT_NE(::access(dead.c_str(), F_OK), 0) << "the dead one is still there";
    EXPECT_EQ(::access(options_.path.c_str(), F_OK), 0) << "the live one is gone";
    EXPECT_EQ(::access(stranger.c_str(), F_OK), 0) << "a file that is no socket is gone";
}

}  // namespace
}  // namespace wbfat::daemon
