// The control socket's loop, its clients, and the directory it lives in.
#include "src/control_socket.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <list>
#include <system_error>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "cache/sync/sync.h"
#include "src/control_protocol.h"
#include "src/service_loop.h"

namespace wbfat::daemon {

namespace {

namespace asio = boost::asio;
using asio::local::stream_protocol;
using boost::system::error_code;

}  // namespace

class ControlSocket::Impl {
public:
    Impl(Options options, Answer answer)
        : options_(std::move(options)), answer_(std::move(answer)) {}
    ~Impl();
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    // Returns "" or what went wrong.
    std::string open();
    void start();

private:
    struct Client {
        explicit Client(stream_protocol::socket accepted)
            : socket(std::move(accepted)), deadline(socket.get_executor()) {}
        stream_protocol::socket socket;
        asio::steady_timer deadline;
        std::string input;
        std::string output;
        bool working = false;  // an answer is being made
        std::list<std::shared_ptr<Client>>::iterator place;
        sync::Thread worker;
    };
    using ClientRef = std::shared_ptr<Client>;

    void admit(stream_protocol::socket socket);
    bool may_speak(stream_protocol::socket& socket) const;
    bool make_room();
    void read_line(const ClientRef& client);
    void serve(const ClientRef& client, std::string line);
    void send(const ClientRef& client, std::string line, bool last);
    void arm(const ClientRef& client, std::chrono::milliseconds timeout);
    void drop(const ClientRef& client);

    const Options options_;
    const Answer answer_;
    ino_t inode_ = 0;  // of the socket's name

    ServiceLoop<stream_protocol> loop_;
    std::list<ClientRef> clients_;  // silent longest first
};

// --- open and close

// Bound and listening under another name first (S4).
std::string ControlSocket::Impl::open() {
    const std::string draft = fmt::format("{}.{}", options_.path, ::getpid());
    if (draft.size() >= sizeof(sockaddr_un{}.sun_path)) {
        return fmt::format("'{}' is too long for a socket's name", options_.path);
    }
    ::unlink(draft.c_str());
    error_code error;
    loop_.acceptor().open(stream_protocol(), error);
    if (!error) {
        loop_.acceptor().bind(stream_protocol::endpoint(draft), error);
    }
    struct stat made {};
    if (!error &&
        (::chmod(draft.c_str(), S_IRUSR | S_IWUSR) != 0 || ::stat(draft.c_str(), &made) != 0)) {
        error.assign(errno, boost::system::system_category());
    }
    if (!error) {
        loop_.acceptor().listen(static_cast<int>(options_.max_clients), error);
    }
    if (!error && ::rename(draft.c_str(), options_.path.c_str()) != 0) {
        error.assign(errno, boost::system::system_category());
    }
    if (error) {
        ::unlink(draft.c_str());
        return fmt::format("'{}': {}", options_.path, error.message());
    }
    inode_ = made.st_ino;
    return {};
}

void ControlSocket::Impl::start() {
    loop_.start("wbfat-control",
                [this](stream_protocol::socket socket) { admit(std::move(socket)); });
}

ControlSocket::Impl::~Impl() {
    // A new mount may have our device number already, and the name with it.
    struct stat now {};
    if (inode_ != 0 && ::lstat(options_.path.c_str(), &now) == 0 && now.st_ino == inode_) {
        ::unlink(options_.path.c_str());
    }
    loop_.stop([this] {
        while (!clients_.empty()) {
            drop(ClientRef(clients_.front()));
        }
    });
}

// --- clients

// Who connected, as the kernel saw it then.
bool ControlSocket::Impl::may_speak(stream_protocol::socket& socket) const {
    ucred peer{};
    socklen_t size = sizeof(peer);
    return ::getsockopt(socket.native_handle(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           (peer.uid == 0 || peer.uid == options_.owner);
}

bool ControlSocket::Impl::make_room() {
    if (clients_.size() < options_.max_clients) {
        return true;
    }
    const auto idle = std::find_if(clients_.begin(), clients_.end(),
                                   [](const ClientRef& client) { return !client->working; });
    if (idle == clients_.end()) {
        return false;
    }
    drop(ClientRef(*idle));
    return true;
}

void ControlSocket::Impl::admit(stream_protocol::socket socket) {
    const bool welcome = may_speak(socket);
    if (!welcome || !make_room()) {
        const std::string line =
            control::refusal(welcome
                                 ? "every place is taken by a command that runs; try again later"
                                 : "only root and the user who mounted the volume may control it") +
            "\n";
        // The buffer of a new socket takes it whole, or nobody hears it.
        error_code ignored;
        socket.non_blocking(true, ignored);
        socket.write_some(asio::buffer(line), ignored);
        return;
    }
    const auto client = std::make_shared<Client>(std::move(socket));
    client->place = clients_.insert(clients_.end(), client);
    read_line(client);
}

void ControlSocket::Impl::drop(const ClientRef& client) {
    if (client->place == clients_.end()) {
        return;
    }
    clients_.erase(client->place);
    client->place = clients_.end();
    client->deadline.cancel();
    error_code ignored;
    client->socket.close(ignored);
}

// Ends the connection unless armed again, or dropped, before the time is up.
void ControlSocket::Impl::arm(const ClientRef& client, std::chrono::milliseconds timeout) {
    client->deadline.expires_after(timeout);
    client->deadline.async_wait([this, client](error_code error) {
        if (!error && client->deadline.expiry() <= asio::steady_timer::clock_type::now()) {
            drop(client);
        }
    });
}

void ControlSocket::Impl::read_line(const ClientRef& client) {
    arm(client, options_.request_timeout);
    asio::async_read_until(
        client->socket, asio::dynamic_buffer(client->input, control::kMaxRequestBytes), '\n',
        [this, client](error_code error, std::size_t length) {
            if (error == asio::error::not_found) {
                send(client,
                     control::refusal(
                         fmt::format("a request has at most {} bytes", control::kMaxRequestBytes)),
                     true);
            } else if (error) {
                drop(client);
            } else {
                std::string line = client->input.substr(0, length - 1);
                client->input.erase(0, length);
                serve(client, std::move(line));
            }
        });
}

void ControlSocket::Impl::serve(const ClientRef& client, std::string line) {
    if (client->place == clients_.end()) {
        return;
    }
    client->deadline.cancel();
    clients_.splice(clients_.end(), clients_, client->place);
    client->working = true;
    loop_.answer_apart(
        client->worker, [this, line = std::move(line)] { return answer_(line); },
        [this, client](std::string reply) {
            client->working = false;
            send(client, std::move(reply), false);
        });
}

void ControlSocket::Impl::send(const ClientRef& client, std::string line, bool last) {
    if (client->place == clients_.end()) {
        return;
    }
    client->output = std::move(line) + "\n";
    arm(client, options_.reply_timeout);
    asio::async_write(client->socket, asio::buffer(client->output),
                      [this, client, last](error_code error, std::size_t) {
                          client->output = {};
                          // One that was dropped meanwhile must not be armed again.
                          if (error || last || client->place == clients_.end()) {
                              drop(client);
                          } else {
                              read_line(client);
                          }
                      });
}

// --- the door

ControlSocket::ControlSocket(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ControlSocket::~ControlSocket() = default;

std::unique_ptr<ControlSocket> ControlSocket::listen(const Options& options, Answer answer,
                                                     std::string& why) {
    auto impl = std::make_unique<Impl>(options, std::move(answer));
    why = impl->open();
    if (!why.empty()) {
        return nullptr;
    }
    impl->start();
    return std::unique_ptr<ControlSocket>(new ControlSocket(std::move(impl)));
}

namespace {

// Ours alone, or it is none: a directory in /tmp may be anybody's trap.
bool make_private_directory(const std::string& path, uid_t owner) {
    struct stat found {};
    if (::mkdir(path.c_str(), S_IRWXU) != 0 && errno != EEXIST) {
        return false;
    }
    return ::lstat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode) && found.st_uid == owner &&
           (found.st_mode & (S_IRWXG | S_IRWXO)) == 0;
}

// Whether nobody listens there any more (S4).
bool is_abandoned(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) {
        return false;
    }
    path.copy(&address.sun_path[0], path.size());
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    const bool refused =
        ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 &&
        errno == ECONNREFUSED;
    ::close(fd);
    return refused;
}

void remove_abandoned(const std::string& directory) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
        if (entry.path().extension() == ".sock" && is_abandoned(entry.path())) {
            ::unlink(entry.path().c_str());
        }
    }
}

}  // namespace

std::string prepare_socket_path(uid_t owner, const std::string& name, std::string& why) {
    for (const std::string& directory : control::socket_directories(owner)) {
        if (make_private_directory(directory, owner)) {
            remove_abandoned(directory);
            return fmt::format("{}/{}", directory, name);
        }
        why = fmt::format("'{}' is no directory that only user {} can enter", directory, owner);
    }
    return {};
}

}  // namespace wbfat::daemon
