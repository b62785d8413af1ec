// Four interleavings that went wrong in the kernel, or would have.
#include "tools/lab/rounds/scenarios.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace wbfat::tools {

namespace {

using sync::Role;

// writeback-protocol.md 9.1. CPU1 completes writeback #1 and is late to wake; CPU2 writes the page
// again and dirties it once more; CPU3 is an integrity walk. With a second waiter, CPU4, which
// waits for #1 without the page lock, PG_waiters is set when the bit is cleared, and one atomic
// operation that clears and looks is no cure.
class StaleWake final : public Scenario {
public:
    enum class Waiters : std::uint8_t { kOne, kTwo };

    StaleWake(Scene& scene, Waiters waiters) : scene_(scene), cast_(parts(waiters)) {}

    void play() override {
        scene_.file().dirty(0);
        scene_.file().start_writeback();  // #1
        cast_.start();
        cast_.finish();
        scene_.file().write_and_wait();
    }

private:
    std::vector<Cast::Part> parts(Waiters waiters) {
        std::vector<Cast::Part> result{{"CPU2", Role::kFlusher, [this] { write_again(); }},
                                       {"CPU3", Role::kSyncWriter, [this] { sync(); }}};
        if (waiters == Waiters::kTwo) {
            result.push_back({"CPU4", Role::kOther, [this] { scene_.file().wait(); }});
        }
        return result;
    }
    void write_again() {
        WBFAT_POINT("lab:rewrite");
        scene_.file().dirty(0);
        scene_.file().start_writeback();  // #2, if #1 has ended
        scene_.file().dirty(0);
        WBFAT_POINT("lab:rewritten");
    }
    void sync() {
        WBFAT_POINT("lab:sync");
        scene_.file().write_and_wait();
    }

    Scene& scene_;
    Cast cast_;
};

// writeback-protocol.md 6. CPU1 has cleared the bit and holds no reference; CPU2 truncates the page
// away and another file gets the frame; CPU1 goes on to wake whom it finds there.
class Reuse final : public Scenario {
public:
    explicit Reuse(Scene& scene)
        : scene_(scene), cast_({{"CPU2", Role::kRequest, [this] { reuse(); }}}) {}

    void play() override {
        scene_.file().dirty(0);
        scene_.file().start_writeback();
        cast_.start();
        cast_.finish();
        scene_.other().write_and_wait();
        scene_.other().truncate(0);
    }

private:
    void reuse() {
        WBFAT_POINT("lab:truncate");
        scene_.file().truncate(0);
        // The frame that was freed last is handed out first.
        scene_.other().dirty(0);
        WBFAT_POINT("lab:reused");
    }

    Scene& scene_;
    Cast cast_;
};

// writeback-protocol.md 9.3 (4). CPU3 holds the page lock and waits for the writeback whose end
// would take that lock.
class LockInEnd final : public Scenario {
public:
    explicit LockInEnd(Scene& scene)
        : scene_(scene), cast_({{"CPU3", Role::kSyncWriter, [this] { sync(); }}}) {}

    void play() override {
        scene_.file().dirty(0);
        scene_.file().start_writeback();
        scene_.file().dirty(0);
        cast_.start();
        cast_.finish();
    }

private:
    void sync() {
        WBFAT_POINT("lab:sync");
        scene_.file().write_and_wait();
    }

    Scene& scene_;
    Cast cast_;
};

template <typename T, auto... kHow>
std::unique_ptr<Scenario> make(Scene& scene) {
    return std::make_unique<T>(scene, kHow...);
}

constexpr std::array<ScenarioInfo, 4> kScenarios{{
    {"mail", "can a wake-up of an earlier writeback be taken for one of the next?",
     "lab:rewrite after end_writeback:cleared@completion give up 20ms\n"
     "lab:sync after lab:rewritten give up 20ms\n"
     "end_writeback:cleared@completion[hit=1] after wait:queued@sync[what=writeback] give up 20ms\n"
     "end_writeback:begin@completion[hit=2] after wait:woken@sync[what=writeback] give up 20ms\n",
     make<StaleWake, StaleWake::Waiters::kOne>},
    {"two-waiters", "is it enough to clear the bit and look for waiters in one step?",
     "end_writeback:begin@completion[hit=1] after wait:queued@sync[task=CPU4;what=writeback] give "
     "up 20ms\n"
     "lab:rewrite after end_writeback:cleared@completion give up 20ms\n"
     "lab:sync after lab:rewritten give up 20ms\n"
     "wake:before_queue_lock@completion[hit=1] after wait:queued@sync[task=CPU3;what=writeback] "
     "give up 20ms\n"
     "end_writeback:begin@completion[hit=2] after wait:woken@sync[task=CPU3;what=writeback] give "
     "up 20ms\n",
     make<StaleWake, StaleWake::Waiters::kTwo>},
    {"reuse", "may end_page_writeback touch a page it holds no reference to?",
     "lab:truncate after end_writeback:cleared@completion give up 20ms\n"
     "end_writeback:cleared@completion[hit=1] after lab:reused give up 20ms\n",
     make<Reuse>},
    {"lock-in-end", "could end_page_writeback take the page lock?",
     "end_writeback:begin@completion[hit=1] after wait:queued@sync[what=writeback] give up 20ms\n",
     make<LockInEnd>},
}};

}  // namespace

std::span<const ScenarioInfo> all_scenarios() {
    return kScenarios;
}

const ScenarioInfo* find_scenario(std::string_view name) {
    const auto* const found =
        std::find_if(kScenarios.begin(), kScenarios.end(),
                     [name](const ScenarioInfo& info) { return name == info.name; });
    return found == kScenarios.end() ? nullptr : found;
}

}  // namespace wbfat::tools
