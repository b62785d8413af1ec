// Goal: the live page is served to whoever has its token, and to nobody else, least of all to
// another site in the user's browser. Method: a real server on a port of its own; requests by hand
// and over Beast's client.
#include "src/web_server.h"

#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>

#include <gtest/gtest.h>

#include "src/web_files.h"

namespace wbfat::daemon {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using WebSocket = beast::websocket::stream<tcp::socket>;
using Reply = http::response<http::string_body>;

class WebServerTest : public testing::Test {
protected:
    void SetUp() override {
        std::string why;
        server_ = WebServer::start(
            {}, [this] { return [this] { return next_update(); }; },
            [](const std::string& line) { return "answer to " + line; }, why);
        ASSERT_NE(server_, nullptr) << why;
        const std::string& url = server_->url();
        const std::string scheme = "http://";
        ASSERT_TRUE(url.starts_with(scheme)) << url;
        const std::size_t slash = url.find('/', scheme.size());
        host_ = url.substr(scheme.size(), slash - scheme.size());
        path_ = url.substr(slash);
        port_ = host_.substr(host_.rfind(':') + 1);
    }
    void tell(const std::string& update) {
        const std::lock_guard lock(mutex_);
        update_ = update;
    }
    std::string next_update() {
        const std::lock_guard lock(mutex_);
        return std::exchange(update_, "");
    }

    tcp::socket connect() {
        tcp::socket socket(loop_);
        socket.connect(tcp::endpoint(asio::ip::address_v4::loopback(),
                                     static_cast<std::uint16_t>(std::stoul(port_))));
        return socket;
    }
    Reply get(const std::string& target, const std::string& host,
              http::verb verb = http::verb::get) {
        tcp::socket socket = connect();
        http::request<http::empty_body> request{verb, target, 11};
        request.set(http::field::host, host);
        http::write(socket, request);
        Reply reply;
        beast::flat_buffer buffer;
        http::read(socket, buffer, reply);
        return reply;
    }
    // Returns the status of the refusal, or 101.
    unsigned upgrade(WebSocket& stream, const std::string& target, const std::string& origin,
                     const std::string& host) {
        stream.set_option(beast::websocket::stream_base::decorator(
            [origin](beast::websocket::request_type& request) {
                if (!origin.empty()) {
                    request.set(http::field::origin, origin);
                }
            }));
        beast::websocket::response_type response;
        boost::system::error_code error;
        stream.handshake(response, host, target, error);
        return response.result_int();
    }
    std::string read(WebSocket& stream) {
        beast::flat_buffer buffer;
        stream.read(buffer);
        return beast::buffers_to_string(buffer.data());
    }

    asio::io_context loop_;
    std::unique_ptr<WebServer> server_;
    std::string host_;
    std::string path_;
    std::string port_;
    std::mutex mutex_;
    std::string update_;
};

TEST_F(WebServerTest, ServesEveryFileOfThePage) {
    for (const WebFile& file : web_files()) {
        const Reply reply = get(path_ + std::string(file.name), host_);
        EXPECT_EQ(reply.result(), http::status::ok) << file.name;
        EXPECT_EQ(reply.body(), file.content) << file.name;
        EXPECT_EQ(reply[http::field::content_type], file.content_type) << file.name;
    }
    EXPECT_EQ(get(path_, host_).body(), get(path_ + "index.html", host_).body());
}

TEST_F(WebServerTest, ThePageNeedsNothingFromElsewhere) {
    for (const WebFile& file : web_files()) {
        for (const char* scheme : {"https://", "http://", "url(//", "@import"}) {
            std::string text(file.content);
            // The name of a format, not an address.
            if (const std::size_t at = text.find("http://www.w3.org/2000/svg");
                at != std::string::npos) {
                text.erase(at, 4);
            }
            EXPECT_EQ(text.find(scheme), std::string::npos) << file.name << " has " << scheme;
        }
    }
    const Reply reply = get(path_, host_);
    EXPECT_NE(reply["Content-Security-Policy"].find("default-src 'none'"), std::string::npos);
    EXPECT_EQ(reply["Referrer-Policy"], "no-referrer");
}

TEST_F(WebServerTest, ServesNothingWithoutTheToken) {
    std::string wrong = path_;
    wrong[5] = wrong[5] == '0' ? '1' : '0';
    for (const std::string& target :
         {std::string("/"), std::string("/index.html"), std::string("/page.js"), wrong,
          path_.substr(0, path_.size() - 2) + "/", path_ + "../page.js", path_ + "no.such",
          std::string("//"), std::string("/") + std::string(5000, 'a') + "/"}) {
        EXPECT_EQ(get(target, host_).result(), http::status::not_found) << target;
    }
}

TEST_F(WebServerTest, ServesNothingUnderAnotherName) {
    for (const std::string& host : {std::string("evil.example"), "evil.example:" + port_,
                                    std::string("127.0.0.1"), std::string()}) {
        EXPECT_EQ(get(path_, host).result(), http::status::forbidden) << host;
    }
    EXPECT_EQ(get(path_, "localhost:" + port_).result(), http::status::ok);
}

TEST_F(WebServerTest, KnowsOnlyGet) {
    EXPECT_EQ(get(path_, host_, http::verb::post).result(), http::status::method_not_allowed);
    EXPECT_EQ(get(path_, host_, http::verb::delete_).result(), http::status::method_not_allowed);
}

TEST_F(WebServerTest, TellsUpdatesAndAnswersCommands) {
    WebSocket stream(loop_);
    stream.next_layer() = connect();
    ASSERT_EQ(upgrade(stream, path_ + "live", "http://" + host_, host_), 101U);
    tell("one");
    EXPECT_EQ(read(stream), "one");
    stream.write(asio::buffer(std::string("status")));
    stream.write(asio::buffer(std::string("sync")));
    EXPECT_EQ(read(stream), "answer to status");
    EXPECT_EQ(read(stream), "answer to sync");
    tell("two");
    EXPECT_EQ(read(stream), "two");
}

TEST_F(WebServerTest, NoOtherSiteMayCommand) {
    struct Case {
        std::string target, origin, host;
    };
    const Case cases[] = {
        {path_ + "live", "http://evil.example", host_},
        {path_ + "live", "", host_},
        {path_ + "live", "null", host_},
        {path_ + "live", "https://" + host_, host_},
        {path_ + "live", "http://" + host_ + ".evil.example", host_},
        {path_ + "live", "http://evil.example", "evil.example"},
        {"/live", "http://" + host_, host_},
        {path_, "http://" + host_, host_},
    };
    for (const Case& one : cases) {
        WebSocket stream(loop_);
        stream.next_layer() = connect();
        EXPECT_EQ(upgrade(stream, one.target, one.origin, one.host), 403U)
            << one.target << " from " << one.origin << " to " << one.host;
    }
}

TEST_F(WebServerTest, AnOversizeCommandEndsTheConnection) {
    WebSocket stream(loop_);
    stream.next_layer() = connect();
    ASSERT_EQ(upgrade(stream, path_ + "live", "http://" + host_, host_), 101U);
    boost::system::error_code error;
    stream.write(asio::buffer(std::string(20'000, 'x')), error);
    beast::flat_buffer buffer;
    stream.read(buffer, error);
    EXPECT_TRUE(error);
    EXPECT_EQ(get(path_, host_).result(), http::status::ok);
}

TEST_F(WebServerTest, IdleConnectionsAndGarbageLockNobodyOut) {
    WebSocket page(loop_);
    page.next_layer() = connect();
    ASSERT_EQ(upgrade(page, path_ + "live", "http://" + host_, host_), 101U);
    std::vector<tcp::socket> idle;
    for (int i = 0; i < 200; ++i) {
        idle.push_back(connect());
        boost::system::error_code ignored;
        if (i % 2 == 0) {
            idle.back().write_some(asio::buffer("\x16\x03\x01 not http"), ignored);
        }
    }
    EXPECT_EQ(get(path_, host_).result(), http::status::ok);
    tell("still here");
    EXPECT_EQ(read(page), "still here");
}

TEST(WebAddressTest, IsALoopbackAddressAndAPort) {
    struct Case {
        const char* text;
        const char* ip;  // null: refused
        std::uint16_t port;
    };
    const Case cases[] = {
        {"127.0.0.1:8080", "127.0.0.1", 8080},
        {"127.0.0.9:1", "127.0.0.9", 1},
        {":8080", "127.0.0.1", 8080},
        {"localhost:0", "127.0.0.1", 0},
        {"[::1]:80", "::1", 80},
        {"0.0.0.0:8080", nullptr, 0},
        {"192.168.1.1:80", nullptr, 0},
        {"example.org:80", nullptr, 0},
        {"127.0.0.1", nullptr, 0},
        {"127.0.0.1:", nullptr, 0},
        {"127.0.0.1:65536", nullptr, 0},
        {"127.0.0.1:http", nullptr, 0},
        {"[::]:80", nullptr, 0},
        {"", nullptr, 0},
    };
    for (const Case& one : cases) {
        WebServer::Address address;
        const std::string sentence = WebServer::parse_address(one.text, address);
        EXPECT_EQ(sentence.empty(), one.ip != nullptr) << one.text;
        if (one.ip != nullptr) {
            EXPECT_EQ(address.ip, one.ip) << one.text;
            EXPECT_EQ(address.port, one.port) << one.text;
        }
    }
}

TEST(WebAddressTest, APortInUseIsToldInOneSentence) {
    std::string why;
    const auto make_feed = [] { return [] { return std::string(); }; };
    const auto answer = [](const std::string& line) { return line; };
    const auto first = WebServer::start({}, make_feed, answer, why);
    ASSERT_NE(first, nullptr) << why;
    const std::string& url = first->url();
    const std::size_t colon = url.find(':', 7);
    const auto port = static_cast<std::uint16_t>(std::stoul(url.substr(colon + 1)));
    EXPECT_EQ(WebServer::start({"127.0.0.1", port}, make_feed, answer, why), nullptr);
    EXPECT_NE(why.find("already in use"), std::string::npos) << why;
}

}  // namespace
}  // namespace wbfat::daemon
