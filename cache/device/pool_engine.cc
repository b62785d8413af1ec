// The thread-pool engine: preadv and pwritev on threads that run one Asio loop.
//
// asio::thread_pool would make the same threads, but without the name and the Role by which the
// rest of the cache recognises completion context (B2); so the threads are ours and the queue is
// Asio's.
#include <memory>
#include <vector>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include "cache/device/io_engine.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

namespace asio = boost::asio;

class PoolEngine final : public IoEngine {
public:
    PoolEngine(TransferSink& sink, int fd, unsigned nr_threads) : sink_(sink), fd_(fd) {
        for (unsigned i = 0; i < nr_threads; i++) {
            threads_.push_back(std::make_unique<sync::Thread>("wbfat-io", sync::Role::kCompletion,
                                                              [this] { loop_.run(); }));
        }
    }
    PoolEngine(const PoolEngine&) = delete;
    PoolEngine& operator=(const PoolEngine&) = delete;
    ~PoolEngine() override {
        keep_running_.reset();
        threads_.clear();
    }

    void start(Transfer& transfer) override {
        asio::post(loop_, [this, &transfer] {
            run_blocking(fd_, transfer);
            sink_.finished(transfer);
        });
    }
    [[nodiscard]] const char* name() const override {
        return "thread pool";
    }

private:
    TransferSink& sink_;
    const int fd_;
    asio::io_context loop_;
    asio::executor_work_guard<asio::io_context::executor_type> keep_running_{loop_.get_executor()};
    std::vector<std::unique_ptr<sync::Thread>> threads_;
};

}  // namespace

std::unique_ptr<IoEngine> make_pool_engine(TransferSink& sink, int fd, unsigned nr_threads) {
    return std::make_unique<PoolEngine>(sink, fd, nr_threads);
}

}  // namespace wbfat::cache::inline WBFAT_RT
