// When a failure became inevitable: the share of the continuations that fail, after each step.
//
// Exact: for every state, the number of ways on from it and the number of those that fail, from the
// numbers of the states that follow it; each state is looked at once. Every interleaving counts as
// one way, however likely.
#include <bit>
#include <unordered_map>

#include "tools/explore/search.h"

namespace wbfat::explore {

namespace {

using sync::sched::Scheduler;

// Long doubles: the numbers of ways have hundreds of digits at most, and only their quotient
// counts.
struct Ways {
    long double all = 0, failing = 0;
};

class WayCounter {
public:
    explicit WayCounter(Session& session)
        : session_(session),
          scheduler_(session.scheduler()),
          deadline_(std::chrono::steady_clock::now() +
                    std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                        session.options().time_limit)) {
        scheduler_.set_merging(Scheduler::Merging::kOff);
        scheduler_.set_hashing(Scheduler::Hashing::kOn);
    }

    // The shares along the turns; empty when it takes too long.
    std::vector<double> along(const std::vector<Turn>& turns) {
        // Runs that fail leave things half done: what they change must be known, or wrong states
        // are compared.
        constexpr int kMaxTries = 16;
        for (int tries = 0; tries < kMaxTries; ++tries) {
            known_.clear();
            std::vector<double> shares = try_along(turns);
            if (gave_up_ || session_.learned_enough()) {
                return shares;
            }
        }
        return {};
    }

private:
    std::vector<double> try_along(const std::vector<Turn>& turns) {
        std::vector<double> shares;
        for (std::size_t length = 0; length <= turns.size(); ++length) {
            prefix_.clear();
            for (std::size_t i = 0; i < length; ++i) {
                prefix_.push_back(turns[i].task);
            }
            const Ways ways = count();
            if (gave_up_) {
                return {};
            }
            shares.push_back(ways.all > 0 ? static_cast<double>(ways.failing / ways.all) : 0);
        }
        return shares;
    }

    // Brings the scheduler to the state behind the prefix.
    void go_there() {
        session_.begin();
        for (const int task : prefix_) {
            static_cast<void>(scheduler_.enabled());
            scheduler_.step(task);
        }
    }

    Ways count() {
        struct Node {
            std::uint64_t hash = 0;
            std::uint32_t left = 0;
            Ways ways;
        };
        std::vector<Node> stack;
        const std::size_t base = prefix_.size();
        Ways result;
        bool down = true;
        while (true) {
            if (down) {
                if (++looks_ % kLooksPerClock == 0 &&
                    std::chrono::steady_clock::now() > deadline_) {
                    gave_up_ = true;
                }
                if (gave_up_ ||
                    known_.size() * kBytesPerState > session_.options().memory_limit_bytes) {
                    gave_up_ = true;
                    return {};
                }
                go_there();
                const std::uint32_t able = scheduler_.enabled();
                const std::uint64_t hash = scheduler_.state_hash();
                const auto found = known_.find(hash);
                if (able == 0) {
                    result = {.all = 1,
                              .failing = session_.verdict() != Verdict::kOk ? 1.0L : 0.0L};
                    down = false;
                } else if (found != known_.end()) {
                    result = found->second;
                    down = false;
                } else {
                    stack.push_back({.hash = hash, .left = able, .ways = {}});
                }
            } else {
                if (stack.empty()) {
                    return result;
                }
                stack.back().ways.all += result.all;
                stack.back().ways.failing += result.failing;
                prefix_.pop_back();
                down = true;
            }
            if (!down) {
                continue;
            }
            Node& node = stack.back();
            if (node.left == 0) {
                known_[node.hash] = node.ways;
                result = node.ways;
                stack.pop_back();
                down = false;
                if (stack.empty()) {
                    prefix_.resize(base);
                    return result;
                }
                continue;
            }
            prefix_.push_back(std::countr_zero(node.left));
            node.left &= node.left - 1;
        }
    }

    static constexpr std::uint64_t kLooksPerClock = 256;
    static constexpr std::size_t kBytesPerState = 64;

    Session& session_;
    Scheduler& scheduler_;
    const std::chrono::steady_clock::time_point deadline_;
    std::vector<int> prefix_;
    std::unordered_map<std::uint64_t, Ways> known_;
    std::uint64_t looks_ = 0;
    bool gave_up_ = false;
};

}  // namespace

std::vector<double> share_of_failures(Session& session, const std::vector<Turn>& turns) {
    return WayCounter(session).along(turns);
}

}  // namespace wbfat::explore
