// From a path on a mount to its daemon: finding the control socket and asking through it.
#pragma once

#include <span>
#include <stdexcept>
#include <string>

#include <boost/json/value.hpp>
#include <sys/types.h>

namespace wbfat::tools {

// The daemon cannot be reached, in one sentence.
class Unreachable : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};
// The daemon was reached and does not do it, in its own sentence.
class Refused : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

class Connection {
public:
    // To the daemon whose mount `path` is on; `socket_path`, if not empty, says where. Throws
    // Unreachable.
    Connection(const std::string& path, const std::string& socket_path);
    ~Connection();
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    // One command and its result. Waits as long as the command takes. Throws Refused, Unreachable.
    boost::json::value ask(const std::string& command, std::span<const std::string> words);

private:
    void send_all(const std::string& line) const;
    std::string receive_line();

    int fd_ = -1;
    std::string received_;
};

}  // namespace wbfat::tools
