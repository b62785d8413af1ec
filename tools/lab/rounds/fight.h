// Who gets a page lock that everybody wants, and after how long: one thread takes it again as soon
// as it has let go, the others take turns with it.
#pragma once

#include <cstdint>
#include <vector>

namespace wbfat::tools {

struct FightResult {
    double seconds = 0;
    std::vector<std::uint64_t> locks;     // of each thread; the hog is the first
    std::vector<std::uint64_t> waits_ns;  // of the others, ascending
};

// Requires: the protocol is set. `threads` includes the hog.
FightResult fight_for_page_lock(unsigned threads, double seconds);

// One JSON object: locks, per_second, hog_share (percent), p50, p99, max (microseconds), jain.
// jain: fairness among the others, 1 when all got the lock equally often (Jain's index).
void print_fight(const FightResult& result);

}  // namespace wbfat::tools
