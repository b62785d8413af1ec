// The thread behind a socket that people talk to: it accepts, and runs what is asynchronous.
//
// Commands may take long, so each is answered on a thread of its own (answer_apart), which hands
// the reply back to the loop's thread. Everything else happens on the loop's thread alone.
//
// Locking: none.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include "cache/sync/sync.h"

namespace wbfat::daemon {

// `Protocol`: Asio's, as stream_protocol or tcp.
template <typename Protocol>
class ServiceLoop {
public:
    using Socket = typename Protocol::socket;

    boost::asio::io_context& context() {
        return loop_;
    }
    // Listening before start().
    typename Protocol::acceptor& acceptor() {
        return acceptor_;
    }

    // `admit` is called on the loop's thread.
    void start(std::string thread_name, std::function<void(Socket)> admit) {
        admit_ = std::move(admit);
        accept();
        thread_ = sync::Thread(std::move(thread_name), sync::Role::kOther, [this] { loop_.run(); });
    }
    // Accepts no more, and calls `drop_all` on the loop's thread. Returns when the last command was
    // answered and handed in.
    void stop(std::function<void()> drop_all) {
        boost::asio::post(loop_, [this, drop_all = std::move(drop_all)] {
            boost::system::error_code ignored;
            acceptor_.close(ignored);
            accept_pause_.cancel();
            drop_all();
        });
        keep_running_.reset();
        thread_.join();
    }

    // Calls answer() on a new thread, which `worker` becomes, and done(reply) on the loop's.
    // What `done` holds is given away with it: the last reference to the owner of `worker` goes on
    // the loop's thread, which joins it.
    template <typename Answer, typename Done>
    void answer_apart(sync::Thread& worker, Answer answer, Done done) {
        // On the heap, so that it is given away whole: what a lambda holds const is copied by a
        // move.
        worker = sync::Thread(
            "wbfat-command", sync::Role::kOther,
            [this, answer = std::move(answer), done = std::make_shared<Done>(std::move(done)),
             keep_running = boost::asio::make_work_guard(loop_)]() mutable {
                std::string reply = answer();
                boost::asio::post(loop_,
                                  [done = std::move(done), reply = std::move(reply)]() mutable {
                                      (*done)(std::move(reply));
                                  });
            });
    }

private:
    // After a failed accept: descriptors may be short for a while.
    static constexpr std::chrono::milliseconds kAcceptPause{100};

    void accept() {
        acceptor_.async_accept([this](boost::system::error_code error, Socket socket) {
            if (!acceptor_.is_open()) {
                return;
            }
            if (!error) {
                admit_(std::move(socket));
                accept();
                return;
            }
            accept_pause_.expires_after(kAcceptPause);
            accept_pause_.async_wait([this](boost::system::error_code) {
                if (acceptor_.is_open()) {
                    accept();
                }
            });
        });
    }

    boost::asio::io_context loop_{1};
    boost::asio::executor_work_guard<boost::asio::io_context::executor_type> keep_running_{
        loop_.get_executor()};
    typename Protocol::acceptor acceptor_{loop_};
    boost::asio::steady_timer accept_pause_{loop_};
    std::function<void(Socket)> admit_;
    sync::Thread thread_;
};

}  // namespace wbfat::daemon
