// The fight for one page lock.
#include "tools/lab/rounds/fight.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <string>

#include "cache/filemap.h"
#include "cache/page_lock.h"

#include "tools/lab/rounds/scene.h"

namespace wbfat::tools {

namespace {

// Waits that are kept of each thread; a fight of minutes must not fill the memory.
constexpr std::size_t kWaitsMax = std::size_t{1} << 20;
// What the holder does with the lock, and a fair thread without it.
constexpr std::chrono::microseconds kHeld{2};
constexpr std::chrono::microseconds kAway{5};

void keep_busy(sync::Nanoseconds time) {
    const sync::Nanoseconds end = sync::monotonic_now() + time;
    while (sync::monotonic_now() < end) {
    }
}

struct Fighter {
    std::uint64_t locks = 0;
    std::vector<std::uint64_t> waits_ns;
};

enum class Manners : std::uint8_t { kHog, kFair };

void fight(cache::Page& page, Manners manners, sync::Nanoseconds end, Fighter& fighter) {
    for (sync::Nanoseconds now = sync::monotonic_now(); now < end;) {
        cache::lock_page(page);
        const sync::Nanoseconds got = sync::monotonic_now();
        keep_busy(kHeld);
        cache::unlock_page(page);
        ++fighter.locks;
        if (manners == Manners::kFair) {
            if (fighter.waits_ns.size() < kWaitsMax) {
                fighter.waits_ns.push_back(static_cast<std::uint64_t>((got - now).count()));
            }
            keep_busy(kAway);
        }
        now = sync::monotonic_now();
    }
}

double jain_index(const std::vector<std::uint64_t>& locks) {
    double sum = 0;
    double squares = 0;
    for (std::size_t i = 1; i < locks.size(); ++i) {
        const auto n = static_cast<double>(locks[i]);
        sum += n;
        squares += n * n;
    }
    return squares > 0 ? sum * sum / (static_cast<double>(locks.size() - 1) * squares) : 0;
}

double microseconds_at(const std::vector<std::uint64_t>& ascending, double share) {
    if (ascending.empty()) {
        return 0;
    }
    const auto at = static_cast<std::size_t>(share * static_cast<double>(ascending.size()));
    return static_cast<double>(ascending[std::min(at, ascending.size() - 1)]) / 1000;
}

}  // namespace

FightResult fight_for_page_lock(unsigned threads, double seconds) {
    Scene scene;
    scene.file().dirty(0);
    scene.file().write_and_wait();
    cache::Page* const page = scene.file().mapping().i_pages.find_get(0);
    std::vector<Fighter> fighters(std::max(threads, 2U));
    const sync::Nanoseconds start = sync::monotonic_now();
    const sync::Nanoseconds end = start + std::chrono::duration_cast<sync::Nanoseconds>(
                                              std::chrono::duration<double>(seconds));
    {
        std::vector<sync::Thread> running;
        for (std::size_t i = 0; i < fighters.size(); ++i) {
            const Manners manners = i == 0 ? Manners::kHog : Manners::kFair;
            Fighter& fighter = fighters[i];
            running.emplace_back(
                fmt::format("fighter {}", i), sync::Role::kOther,
                [page, manners, end, &fighter] { fight(*page, manners, end, fighter); });
        }
    }
    FightResult result;
    result.seconds = std::chrono::duration<double>(sync::monotonic_now() - start).count();
    for (const Fighter& fighter : fighters) {
        result.locks.push_back(fighter.locks);
        result.waits_ns.insert(result.waits_ns.end(), fighter.waits_ns.begin(),
                               fighter.waits_ns.end());
    }
    std::sort(result.waits_ns.begin(), result.waits_ns.end());
    cache::put_page(*page);
    return result;
}

void print_fight(const FightResult& result) {
    const std::uint64_t locks =
        std::accumulate(result.locks.begin(), result.locks.end(), std::uint64_t{0});
    const double per_second = static_cast<double>(locks) / result.seconds;
    const double hog = 100.0 * static_cast<double>(result.locks.front()) /
                       static_cast<double>(std::max<std::uint64_t>(locks, 1));
    fmt::print(
        "{{\"locks\": {}, \"per_second\": {:.1f}, \"hog_share\": {:.2f}, \"p50\": {:.1f}, "
        "\"p99\": {:.1f}, \"max\": {:.1f}, \"jain\": {:.4f}}}\n",
        locks, per_second, hog, microseconds_at(result.waits_ns, .5),
        microseconds_at(result.waits_ns, .99), microseconds_at(result.waits_ns, 1),
        jain_index(result.locks));
}

}  // namespace wbfat::tools
