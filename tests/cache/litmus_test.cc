// The memory orders of the page protocol, on real threads: what the explorer takes for granted.
//
// The explorer's interleavings are sequentially consistent. Three pairs of operations carry the
// orders that make this true of real processors; each is one test here, many rounds of the fewest
// threads that can break it. A broken order shows as a round that never ends, as a count that is
// wrong, or, under ThreadSanitizer, as a race between plain memory of the two sides.
//
//   clear / PG_waiters   a sleeper marks the page and looks at the bit; whoever clears the bit
//                        looks for the mark. One of the two must see the other.
//   WOKEN / task state   what a waker did before it flagged the entry is seen by the woken; the
//                        token of the parker is not lost between the look and the sleep.  (A)
//   careful unlink       the waker's last store to an entry comes before its owner uses the stack
//                        for something else.  (B)
//
// Only tested, not proved: these are the processors and compilers at hand.
#include <array>
#include <cctype>
#include <cstdint>
#include <string>

#include <gtest/gtest.h>

#include "cache/page_wait.h"
#include "cache/protocol.h"
#include "cache/sync/sync.h"

#include "tests/cache/page_fixture.h"

// Here a lock passes between threads: the static analysis cannot follow.
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"
#endif

namespace wbfat::cache::inline WBFAT_RT {
namespace {

using sync::Role;
using sync::Thread;

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kRounds = 1'000;
#else
constexpr int kRounds = 4'000;
#endif

// Both sides leave together, so that what they do next overlaps.
class Start {
public:
    explicit Start(int threads) : threads_(threads) {}
    void wait() {
        const int round = round_.load();
        if (arrived_.fetch_add(1) + 1 == threads_) {
            arrived_.store(0);
            round_.store(round + 1);
            return;
        }
        while (round_.load() == round) {
            sync::yield_now();
        }
    }

private:
    const int threads_;
    sync::Atomic<int> arrived_{0};
    sync::Atomic<int> round_{0};
};

// Plain writes all over the stack that a wait has just left.
[[gnu::noinline]] std::uint64_t use_the_stack(std::uint64_t seed) {
    std::array<std::uint64_t, 96> used{};
    for (std::uint64_t& word : used) {
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        word = seed;
    }
    return used[seed % used.size()];
}

// A little later each round, so that rounds sweep over the moments at which the sides can meet.
void wait_a_little(int round) {
    std::uint64_t seed = 0;
    for (int i = round % 16; i > 0; --i) {
        seed += use_the_stack(seed);
    }
}

// The holder of a lock gives its CPU away now and then: then there is somebody asleep.
void yield_sometimes(int round) {
    if (round % 32 == 0) {
        sync::yield_now();
    }
}

class LitmusTest : public PageTest, public ::testing::WithParamInterface<const char*> {
protected:
    LitmusTest() {
        Protocol protocol;
        EXPECT_EQ(Protocol::parse(GetParam(), protocol), "");
        set_protocol_while_idle(protocol);
    }
    ~LitmusTest() override {
        set_protocol_while_idle(Protocol{});
    }
    // Or the rounds never met.
    void expect_sleepers(std::uint64_t PageWaitStats::*waits) const {
        const std::uint64_t slept = page_wait_stats().*waits - before_.*waits;
        RecordProperty("slept", std::to_string(slept));
        EXPECT_GT(slept, 0U);
    }

private:
    const PageWaitStats before_ = page_wait_stats();
};

TEST_P(LitmusTest, WhoClearsTheBitOrWhoWaitsForItSeesTheOther) {
    Page& page = add_page(0);
    Start start(2);
    int written = 0;  // plain: ordered by the bit alone
    Thread ends("ends", Role::kCompletion, [&] {
        for (int round = 1; round <= kRounds; ++round) {
            start.wait();
            // By turns at any moment, and just when somebody is about to sleep.
            if (round % 2 == 0) {
                wait_a_little(round / 2);
            } else {
                while (!page_test(page, PG_waiters)) {
                    sync::yield_now();
                }
            }
            written = round;
            end_page_writeback(page);
            start.wait();
        }
    });
    int wrong = 0;
    for (int round = 1; round <= kRounds; ++round) {
        dirty(page);
        start_writeback(page);
        start.wait();
        wait_a_little(round / 16);
        wait_on_page_writeback(page);
        wrong += written == round ? 0 : 1;
        start.wait();
    }
    ends.join();
    EXPECT_EQ(wrong, 0);
    expect_sleepers(&PageWaitStats::writeback_waits);
    EXPECT_TRUE(page_waiters(&page).empty());
}

TEST_P(LitmusTest, AWokenSleeperSeesWhatItsWakerDid) {
    Page& page = add_page(0);
    constexpr int kThreads = 3;
    Start start(kThreads);
    int count = 0;  // plain: under the page lock
    const auto body = [&] {
        start.wait();
        for (int round = 0; round < kRounds; ++round) {
            lock_page(page);
            ++count;
            yield_sometimes(round);
            unlock_page(page);
        }
    };
    {
        std::array<Thread, kThreads> threads;
        for (Thread& thread : threads) {
            thread = Thread("locks", Role::kRequest, body);
        }
    }
    EXPECT_EQ(count, kThreads * kRounds);
    expect_sleepers(&PageWaitStats::lock_waits);
    EXPECT_TRUE(page_waiters(&page).empty());
}

TEST_P(LitmusTest, AWakerIsDoneWithTheStackOfWhomItWoke) {
    Page& page = add_page(0);
    constexpr int kThreads = 3;
    Start start(kThreads);
    std::array<std::uint64_t, kThreads> used{};
    const auto body = [&](std::uint64_t& mine) {
        start.wait();
        for (int round = 0; round < kRounds; ++round) {
            lock_page(page);
            yield_sometimes(round);
            unlock_page(page);
            wait_on_page_locked(page);
            mine += use_the_stack(mine);
        }
    };
    {
        std::array<Thread, kThreads> threads;
        for (std::size_t i = 0; i < threads.size(); ++i) {
            threads[i] = Thread("waits", Role::kRequest, [&body, &used, i] { body(used[i]); });
        }
    }
    expect_sleepers(&PageWaitStats::lock_waits);
    EXPECT_TRUE(page_waiters(&page).empty());
}

INSTANTIATE_TEST_SUITE_P(Protocols, LitmusTest,
                         ::testing::Values("5.8", "5.9", "5.10", "6.8", "wake-clears",
                                           "6.8,handoff=always"),
                         [](const auto& test) {
                             std::string name;
                             for (const char c : std::string(test.param)) {
                                 name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                             }
                             return name;
                         });

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
