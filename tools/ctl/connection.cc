// The client's end of the control socket: plain blocking calls.
#include "tools/ctl/connection.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

#include <boost/json.hpp>
#include <sys/socket.h>
#include <sys/un.h>

#include "src/control_protocol.h"

namespace wbfat::tools {

namespace {

std::string message_of(int error) {
    return std::system_category().message(error);
}

// The mount that `path` is on.
control::MountId find_mount(const std::string& path) {
    control::MountId id;
    const int error = control::mount_id_of(path, id);
    if (error == EACCES) {
        // The filesystem keeps everybody but its owner out, even root; its mount point is known all
        // the same.
        std::error_code ignored;
        const auto full = std::filesystem::absolute(path, ignored).lexically_normal();
        const auto parent = std::filesystem::canonical(full.parent_path(), ignored);
        if (control::find_mount_by_path((parent / full.filename()).string(), id)) {
            return id;
        }
    }
    if (error == ENOTCONN) {
        throw Unreachable(
            fmt::format("the daemon of '{0}' is gone; unmount with fusermount3 -u '{0}'", path));
    }
    if (error != 0) {
        throw Unreachable(fmt::format("'{}': {}", path, message_of(error)));
    }
    return id;
}

// Where the socket of this mount may lie, likeliest first.
std::vector<std::string> candidates(const control::MountId& id, uid_t owner) {
    std::vector<std::string> paths;
    for (const uid_t uid : {owner, ::geteuid(), uid_t{0}}) {
        for (const std::string& directory : control::socket_directories(uid)) {
            const std::string path = fmt::format("{}/{}", directory, control::socket_name(id));
            if (std::find(paths.begin(), paths.end(), path) == paths.end()) {
                paths.push_back(path);
            }
        }
    }
    return paths;
}

// Returns 0 or an errno.
int connect_to(int fd, const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) {
        return ENAMETOOLONG;
    }
    path.copy(&address.sun_path[0], path.size());
    return ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ? 0
                                                                                            : errno;
}

// Anybody may have put a socket into /tmp; the kernel knows who listens.
bool is_listener_trusted(int fd, uid_t owner) {
    ucred peer{};
    socklen_t size = sizeof(peer);
    return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           (peer.uid == 0 || peer.uid == owner || peer.uid == ::geteuid());
}

// Why none of the candidates answered: the most telling of their errors.
[[noreturn]] void explain(const std::string& path, std::span<const int> errors, uid_t owner) {
    const auto saw = [&](int error) {
        return std::find(errors.begin(), errors.end(), error) != errors.end();
    };
    if (saw(ECONNREFUSED)) {
        throw Unreachable(
            fmt::format("the daemon of '{0}' is gone; unmount with fusermount3 -u '{0}'", path));
    }
    if (saw(EACCES)) {
        throw Unreachable(
            fmt::format("only root and user {} may control the mount '{}'", owner, path));
    }
    throw Unreachable(fmt::format(
        "the daemon of '{}' has no control socket here; if it was mounted with control= "
        "or in another container, give --socket",
        path));
}

}  // namespace

Connection::Connection(const std::string& path, const std::string& socket_path) {
    std::vector<std::string> paths{socket_path};
    uid_t owner = ::geteuid();
    if (socket_path.empty()) {
        const control::MountId id = find_mount(path);
        const control::MountOwner mounted = control::mount_owner(id);
        if (!mounted.is_wbfat) {
            throw Unreachable(fmt::format("'{}' is not on a mount of wbfat", path));
        }
        owner = mounted.uid;
        paths = candidates(id, owner);
    }
    std::vector<int> errors;
    for (const std::string& candidate : paths) {
        fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd_ < 0) {
            throw Unreachable(fmt::format("no socket: {}", message_of(errno)));
        }
        int error = connect_to(fd_, candidate);
        if (error == 0 && !is_listener_trusted(fd_, owner)) {
            error = EPERM;
        }
        if (error == 0) {
            return;
        }
        ::close(fd_);
        fd_ = -1;
        errors.push_back(error);
    }
    if (!socket_path.empty()) {
        throw Unreachable(fmt::format("'{}': {}", socket_path, message_of(errors.front())));
    }
    explain(path, errors, owner);
}

Connection::~Connection() {
    if (fd_ >= 0) {
        ::close(fd_);
    }
}

void Connection::send_all(const std::string& line) const {
    for (std::size_t sent = 0; sent < line.size();) {
        const ssize_t now = ::send(fd_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
        if (now < 0 && errno != EINTR) {
            // Its reason, if it gave one, is waiting to be read.
            return;
        }
        sent += now > 0 ? static_cast<std::size_t>(now) : 0;
    }
}

std::string Connection::receive_line() {
    std::vector<char> chunk(std::size_t{64} << 10);
    for (;;) {
        if (const std::size_t end = received_.find('\n'); end != std::string::npos) {
            std::string line = received_.substr(0, end);
            received_.erase(0, end + 1);
            return line;
        }
        const ssize_t got = ::recv(fd_, chunk.data(), chunk.size(), 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            throw Unreachable("the daemon has closed the connection");
        }
        received_.append(chunk.data(), static_cast<std::size_t>(got));
    }
}

boost::json::value Connection::ask(const std::string& command, std::span<const std::string> words) {
    const boost::json::array list(words.begin(), words.end());
    send_all(boost::json::serialize(boost::json::object{{"command", command}, {"words", list}}) +
             "\n");
    boost::system::error_code error;
    const boost::json::value reply = boost::json::parse(receive_line(), error);
    const boost::json::object* const object = error ? nullptr : reply.if_object();
    if (object == nullptr || !object->contains("ok")) {
        throw Unreachable("the daemon's reply is no reply");
    }
    if (!object->at("ok").as_bool()) {
        throw Refused(std::string(object->at("error").as_string()));
    }
    return object->at("result");
}

}  // namespace wbfat::tools
