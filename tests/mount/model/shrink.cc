// Shrinking by halves.
#include "tests/mount/model/shrink.h"

#include <fmt/format.h>

#include <chrono>
#include <filesystem>

namespace wbfat::model {
namespace {

using Clock = std::chrono::steady_clock;

class Attempts {
public:
    Attempts(std::string directory, std::string reference, const Limits& limits)
        : directory_(std::move(directory)), reference_(std::move(reference)), limits_(limits) {}

    // In fresh directories; `ops` is cut behind the failure.
    std::string attempt(std::vector<Op>& ops) {
        const std::string name = fmt::format("/shrink-{}", count_++);
        std::filesystem::create_directory(directory_ + name);
        std::filesystem::create_directory(reference_ + name);
        std::string failure;
        {
            Session session(directory_ + name, reference_ + name, limits_);
            failure = replay(session, ops);
        }
        std::error_code ignored;
        std::filesystem::remove_all(directory_ + name, ignored);
        std::filesystem::remove_all(reference_ + name, ignored);
        return failure;
    }

private:
    std::string directory_;
    std::string reference_;
    Limits limits_;
    unsigned count_ = 0;
};

std::vector<Op> without(const std::vector<Op>& ops, std::size_t begin, std::size_t length) {
    std::vector<Op> rest(ops.begin(), ops.begin() + static_cast<std::ptrdiff_t>(begin));
    const std::size_t end = std::min(ops.size(), begin + length);
    rest.insert(rest.end(), ops.begin() + static_cast<std::ptrdiff_t>(end), ops.end());
    return rest;
}

}  // namespace

std::string replay(Session& session, std::vector<Op>& ops) {
    for (std::size_t i = 0; i < ops.size(); ++i) {
        if (std::string failure = session.apply(ops[i]); !failure.empty()) {
            ops.resize(i + 1);
            return failure;
        }
    }
    TreeTotals totals;
    std::string failure = session.verify(totals);
    return failure.empty() ? "" : "trees differ: " + failure;
}

Shrunk shrink(const std::string& directory, const std::string& reference, const Limits& limits,
              std::vector<Op> ops, unsigned seconds) {
    const auto deadline = Clock::now() + std::chrono::seconds(seconds);
    Attempts attempts(directory, reference, limits);
    Shrunk best;
    best.failure = attempts.attempt(ops);
    best.ops = std::move(ops);
    if (best.failure.empty()) {
        return best;
    }
    for (std::size_t length = best.ops.size() / 2; length > 0; length /= 2) {
        for (std::size_t begin = 0; begin < best.ops.size();) {
            if (Clock::now() > deadline) {
                return best;
            }
            std::vector<Op> candidate = without(best.ops, begin, length);
            std::string failure = attempts.attempt(candidate);
            if (failure.empty()) {
                begin += length;
            } else {
                best.ops = std::move(candidate);
                best.failure = std::move(failure);
            }
        }
    }
    return best;
}

}  // namespace wbfat::model
