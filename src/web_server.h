// The live page: a small web server of the daemon's own, for one browser on this machine.
//
// It serves the files of src/web, which are compiled in, and one WebSocket, over which the page
// hears what changes and gives commands. Like the control socket it knows nothing of either:
// updates are text from a feed, commands go to the answerer.
//
// Invariants
//   - H1. It listens on a loopback address only.
//   - H2. Nothing is served without the token, which is random, in every path, and in no header
//     that leaves the page (Referrer-Policy). What reads the URL may do what the page may.
//   - H3. The Host must be the address we listen on, and a WebSocket's Origin our own page, so no
//     other site can read or command through the user's browser, not even with a name of its own
//     that points at 127.0.0.1.
//   - H4. A viewer that does not keep up gets fewer updates, not later ones: the next one is made
//     when the last has been taken.
//
// Locking: none; connections belong to the thread that runs the loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace wbfat::daemon {

class WebServer {
public:
    // What a viewer has not heard yet, "" for nothing; one such function a viewer. Called on the
    // loop's thread, up to kUpdatesPerSecond times a second.
    using Feed = std::function<std::string()>;
    using MakeFeed = std::function<Feed()>;
    // A line of the control protocol, answered. Context: any thread.
    using Answer = std::function<std::string(const std::string& line)>;

    static constexpr unsigned kUpdatesPerSecond = 60;

    struct Address {
        std::string ip = "127.0.0.1";
        std::uint16_t port = 0;  // 0: any that is free
    };
    // "127.0.0.1:8080", "[::1]:8080", ":8080". Returns "" or one sentence that says what would be
    // right.
    static std::string parse_address(std::string_view text, Address& address);

    // Returns null with `why` one sentence.
    static std::unique_ptr<WebServer> start(const Address& address, MakeFeed make_feed,
                                            Answer answer, std::string& why);
    // Ends every connection, and waits for answers that are being made.
    ~WebServer();
    WebServer(const WebServer&) = delete;
    WebServer& operator=(const WebServer&) = delete;

    // With the token.
    const std::string& url() const;

private:
    class Impl;
    explicit WebServer(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace wbfat::daemon
