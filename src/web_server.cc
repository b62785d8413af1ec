// The loop, its connections, and what they may ask for.
#include "src/web_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <deque>
#include <list>
#include <optional>
#include <utility>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>
#include <sys/random.h>

#include "cache/sync/sync.h"
#include "src/control_protocol.h"
#include "src/service_loop.h"
#include "src/web_files.h"

namespace wbfat::daemon {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::size_t kMaxConnections = 32;
constexpr std::uint32_t kMaxHeaderBytes = 8U << 10;
// Commands of one page that wait for their turn.
constexpr std::size_t kMaxQueuedCommands = 16;
// For a request to arrive whole, and for a reply to be taken.
constexpr std::chrono::seconds kRequestTimeout{10};

std::string make_token() {
    std::array<unsigned char, 16> bytes{};
    // Never short for so few, and never fails once the system is up.
    static_cast<void>(::getrandom(bytes.data(), bytes.size(), 0));
    return fmt::format("{:02x}", fmt::join(bytes, ""));
}

// In a time that does not tell how much was right.
bool are_equal(std::string_view given, std::string_view secret) {
    unsigned difference = given.size() == secret.size() ? 0 : 1;
    for (std::size_t i = 0; i < secret.size() && i < given.size(); ++i) {
        difference |= static_cast<unsigned char>(given[i]) ^ static_cast<unsigned char>(secret[i]);
    }
    return difference == 0;
}

using Request = http::request<http::empty_body>;
using Response = http::response<http::string_body>;

Response make_response(http::status status, std::string_view content_type, std::string_view body) {
    Response response{status, 11};
    response.set(http::field::content_type, content_type);
    response.set(http::field::cache_control, "no-store");
    response.set(
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    response.set("Referrer-Policy", "no-referrer");
    response.set("X-Content-Type-Options", "nosniff");
    response.set("Cross-Origin-Resource-Policy", "same-origin");
    response.body() = body;
    response.keep_alive(false);
    response.prepare_payload();
    return response;
}

Response make_refusal(http::status status, std::string_view sentence) {
    return make_response(status, "text/plain; charset=utf-8", fmt::format("{}\n", sentence));
}

}  // namespace

class WebServer::Impl {
public:
    Impl(MakeFeed make_feed, Answer answer)
        : make_feed_(std::move(make_feed)), answer_(std::move(answer)) {}
    ~Impl();
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    // Returns "" or what went wrong.
    std::string open(const Address& address);
    void start();
    const std::string& url() const {
        return url_;
    }

private:
    // A browser's connection: first HTTP, then perhaps a WebSocket over the same stream.
    struct Connection {
        explicit Connection(tcp::socket socket) : stream(std::move(socket)) {}

        websocket::stream<beast::tcp_stream> stream;
        beast::flat_buffer input;
        std::optional<http::request_parser<http::empty_body>> parser;
        Response response;

        Feed feed;
        std::optional<asio::steady_timer> tick;
        std::deque<std::string> outbox;  // replies; updates are made when it is empty
        std::string output;
        bool writing = false;
        std::deque<std::string> commands;
        bool working = false;
        sync::Thread worker;

        std::list<std::shared_ptr<Connection>>::iterator place;
    };
    using ConnectionRef = std::shared_ptr<Connection>;

    void admit(tcp::socket socket);
    void drop(const ConnectionRef& connection);
    bool is_dropped(const ConnectionRef& connection) const {
        return connection->place == connections_.end();
    }

    void read_request(const ConnectionRef& connection);
    void serve(const ConnectionRef& connection);
    Response respond(const Request& request) const;
    bool is_our_host(std::string_view host) const;
    // The path behind the token; nothing without it.
    std::optional<std::string> path_of(const Request& request) const;
    void send(const ConnectionRef& connection, Response response);

    void open_live(const ConnectionRef& connection);
    void read_command(const ConnectionRef& connection);
    void run_command(const ConnectionRef& connection);
    void schedule_update(const ConnectionRef& connection);
    void write_next(const ConnectionRef& connection);

    const MakeFeed make_feed_;
    const Answer answer_;
    const std::string token_ = make_token();
    std::string url_;
    std::array<std::string, 2> hosts_;  // H3

    ServiceLoop<tcp> loop_;
    std::list<ConnectionRef> connections_;  // oldest first
};

// --- open and close

std::string WebServer::Impl::open(const Address& address) {
    error_code error;
    const tcp::endpoint wanted(asio::ip::make_address(address.ip), address.port);
    loop_.acceptor().open(wanted.protocol(), error);
    if (!error) {
        loop_.acceptor().set_option(asio::socket_base::reuse_address(true), error);
    }
    if (!error) {
        loop_.acceptor().bind(wanted, error);
    }
    if (!error) {
        loop_.acceptor().listen(static_cast<int>(kMaxConnections), error);
    }
    const std::string ip = wanted.address().is_v6() ? fmt::format("[{}]", address.ip) : address.ip;
    if (error) {
        return fmt::format("http={}:{}: {}", ip, address.port, error.message());
    }
    const std::uint16_t port = loop_.acceptor().local_endpoint().port();
    hosts_ = {fmt::format("{}:{}", ip, port), fmt::format("localhost:{}", port)};
    url_ = fmt::format("http://{}/{}/", hosts_[0], token_);
    return {};
}

void WebServer::Impl::start() {
    loop_.start("wbfat-web", [this](tcp::socket socket) { admit(std::move(socket)); });
}

WebServer::Impl::~Impl() {
    loop_.stop([this] {
        while (!connections_.empty()) {
            drop(ConnectionRef(connections_.front()));
        }
    });
}

// --- connections

// One too many takes the place of the oldest that is not a page in use.
void WebServer::Impl::admit(tcp::socket socket) {
    if (connections_.size() == kMaxConnections) {
        const auto oldest =
            std::find_if(connections_.begin(), connections_.end(),
                         [](const ConnectionRef& connection) { return !connection->feed; });
        if (oldest == connections_.end()) {
            return;
        }
        drop(ConnectionRef(*oldest));
    }
    error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    const auto connection = std::make_shared<Connection>(std::move(socket));
    connection->place = connections_.insert(connections_.end(), connection);
    read_request(connection);
}

void WebServer::Impl::drop(const ConnectionRef& connection) {
    if (is_dropped(connection)) {
        return;
    }
    connections_.erase(connection->place);
    connection->place = connections_.end();
    connection->feed = nullptr;
    if (connection->tick) {
        connection->tick->cancel();
    }
    beast::get_lowest_layer(connection->stream).close();
}

void WebServer::Impl::read_request(const ConnectionRef& connection) {
    connection->parser.emplace();
    connection->parser->header_limit(kMaxHeaderBytes);
    connection->parser->body_limit(0);
    beast::get_lowest_layer(connection->stream).expires_after(kRequestTimeout);
    http::async_read(connection->stream.next_layer(), connection->input, *connection->parser,
                     [this, connection](error_code error, std::size_t) {
                         if (error || is_dropped(connection)) {
                             drop(connection);
                         } else {
                             serve(connection);
                         }
                     });
}

void WebServer::Impl::serve(const ConnectionRef& connection) {
    const Request& request = connection->parser->get();
    if (!websocket::is_upgrade(request)) {
        send(connection, respond(request));
        return;
    }
    const std::string_view origin = request[http::field::origin];
    const bool is_ours = is_our_host(request[http::field::host]) && origin.starts_with("http://") &&
                         is_our_host(origin.substr(std::string_view("http://").size()));
    if (!is_ours || path_of(request) != "live") {
        send(connection, make_refusal(http::status::forbidden, "only the live page may do this"));
        return;
    }
    open_live(connection);
}

bool WebServer::Impl::is_our_host(std::string_view host) const {
    return std::find(hosts_.begin(), hosts_.end(), host) != hosts_.end();
}

std::optional<std::string> WebServer::Impl::path_of(const Request& request) const {
    const std::string_view target = request.target();
    const std::size_t slash = target.find('/', 1);
    if (!target.starts_with('/') || slash == std::string_view::npos ||
        !are_equal(target.substr(1, slash - 1), token_)) {
        return std::nullopt;
    }
    return std::string(target.substr(slash + 1));
}

Response WebServer::Impl::respond(const Request& request) const {
    if (!is_our_host(request[http::field::host])) {
        return make_refusal(http::status::forbidden, fmt::format("the page is at {}", hosts_[0]));
    }
    if (request.method() != http::verb::get) {
        return make_refusal(http::status::method_not_allowed, "there is nothing but GET here");
    }
    const std::optional<std::string> path = path_of(request);
    if (!path) {
        return make_refusal(http::status::not_found,
                            "the address of the page has a token: wbfatctl MOUNTPOINT web");
    }
    const std::string name = path->empty() ? "index.html" : *path;
    for (const WebFile& file : web_files()) {
        if (file.name == name) {
            return make_response(http::status::ok, file.content_type, file.content);
        }
    }
    return make_refusal(http::status::not_found, "there is no such file");
}

void WebServer::Impl::send(const ConnectionRef& connection, Response response) {
    connection->response = std::move(response);
    beast::get_lowest_layer(connection->stream).expires_after(kRequestTimeout);
    http::async_write(connection->stream.next_layer(), connection->response,
                      [this, connection](error_code, std::size_t) { drop(connection); });
}

// --- the live page

void WebServer::Impl::open_live(const ConnectionRef& connection) {
    beast::get_lowest_layer(connection->stream).expires_never();
    connection->stream.set_option(
        websocket::stream_base::timeout::suggested(beast::role_type::server));
    connection->stream.read_message_max(control::kMaxRequestBytes);
    connection->stream.text(true);
    // An update is one frame: else it is cut into pieces of 4 KiB, with a system call for each.
    connection->stream.auto_fragment(false);
    connection->stream.async_accept(connection->parser->get(),
                                    [this, connection](error_code error) {
                                        if (error || is_dropped(connection)) {
                                            drop(connection);
                                            return;
                                        }
                                        connection->input.clear();
                                        connection->feed = make_feed_();
                                        connection->tick.emplace(loop_.context());
                                        read_command(connection);
                                        schedule_update(connection);
                                    });
}

void WebServer::Impl::read_command(const ConnectionRef& connection) {
    connection->stream.async_read(
        connection->input, [this, connection](error_code error, std::size_t) {
            const bool too_many = connection->commands.size() == kMaxQueuedCommands;
            if (error || too_many || is_dropped(connection)) {
                drop(connection);
                return;
            }
            connection->commands.push_back(beast::buffers_to_string(connection->input.data()));
            connection->input.clear();
            run_command(connection);
            read_command(connection);
        });
}

void WebServer::Impl::run_command(const ConnectionRef& connection) {
    if (connection->working || connection->commands.empty()) {
        return;
    }
    connection->working = true;
    std::string line = std::move(connection->commands.front());
    connection->commands.pop_front();
    loop_.answer_apart(
        connection->worker, [this, line = std::move(line)] { return answer_(line); },
        [this, connection](std::string reply) {
            connection->working = false;
            if (is_dropped(connection)) {
                return;
            }
            connection->outbox.push_back(std::move(reply));
            write_next(connection);
            run_command(connection);
        });
}

void WebServer::Impl::schedule_update(const ConnectionRef& connection) {
    // In step with the last one, however long that took to make; late ones are not made up for
    // (H4).
    constexpr std::chrono::microseconds kPeriod(1'000'000 / kUpdatesPerSecond);
    connection->tick->expires_at(
        std::max(asio::steady_timer::clock_type::now(), connection->tick->expiry() + kPeriod));
    connection->tick->async_wait([this, connection](error_code error) {
        if (error || is_dropped(connection)) {
            return;
        }
        if (!connection->writing) {
            if (std::string update = connection->feed(); !update.empty()) {
                connection->outbox.push_back(std::move(update));
                write_next(connection);
            }
        }
        schedule_update(connection);
    });
}

void WebServer::Impl::write_next(const ConnectionRef& connection) {
    if (connection->writing || connection->outbox.empty()) {
        return;
    }
    connection->writing = true;
    connection->output = std::move(connection->outbox.front());
    connection->outbox.pop_front();
    connection->stream.async_write(asio::buffer(connection->output),
                                   [this, connection](error_code error, std::size_t) {
                                       connection->writing = false;
                                       if (error || is_dropped(connection)) {
                                           drop(connection);
                                       } else {
                                           write_next(connection);
                                       }
                                   });
}

// --- the door

WebServer::WebServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
WebServer::~WebServer() = default;

const std::string& WebServer::url() const {
    return impl_->url();
}

std::string WebServer::parse_address(std::string_view text, Address& address) {
    constexpr const char* kRight = "a loopback address and a port, such as 127.0.0.1:8080";
    const std::size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) {
        return kRight;
    }
    const std::string_view digits = text.substr(colon + 1);
    std::string_view ip = text.substr(0, colon);
    std::uint16_t port = 0;
    const char* const end = digits.data() + digits.size();
    const auto [stop, failed] = std::from_chars(digits.data(), end, port);
    if (failed != std::errc{} || stop != end) {
        return kRight;
    }
    if (ip.size() > 2 && ip.front() == '[' && ip.back() == ']') {
        ip = ip.substr(1, ip.size() - 2);
    } else if (ip.empty() || ip == "localhost") {
        ip = "127.0.0.1";
    }
    error_code error;
    const asio::ip::address parsed = asio::ip::make_address(std::string(ip), error);
    if (error || !parsed.is_loopback()) {
        return kRight;
    }
    address = {parsed.to_string(), port};
    return {};
}

std::unique_ptr<WebServer> WebServer::start(const Address& address, MakeFeed make_feed,
                                            Answer answer, std::string& why) {
    auto impl = std::make_unique<Impl>(std::move(make_feed), std::move(answer));
    why = impl->open(address);
    if (!why.empty()) {
        return nullptr;
    }
    impl->start();
    return std::unique_ptr<WebServer>(new WebServer(std::move(impl)));
}

}  // namespace wbfat::daemon
