// What a scenario is: objects, tasks, checks. Each is one file of scenarios/.
//
// A scenario is made anew for a search, in the memory that the scheduler puts back after every run
// (cache/sync/world.h); so it keeps its state in plain members and writes no clean-up for a run.
// set_up() makes objects and tasks. The tasks run the real functions of the cache. When all have
// ended, check() says what is wrong, and outcome() what two searches must agree on.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cache/page.h"
#include "cache/sync/sync.h"

#include "tools/explore/explore.h"

namespace wbfat::explore {

// Values of the parameters, all of them.
class Parameters {
public:
    explicit Parameters(std::map<std::string, unsigned> values) : values_(std::move(values)) {}
    unsigned operator[](const char* name) const {
        return values_.at(name);
    }
    const std::map<std::string, unsigned>& all() const {
        return values_;
    }

private:
    std::map<std::string, unsigned> values_;
};

// A page that reports and pictures show.
struct ObservedPage {
    std::string name;
    cache::Page* page = nullptr;
};

// A name for an object that steps show instead of its address.
struct NamedObject {
    const void* start = nullptr;
    std::size_t size_bytes = 0;
    std::string name;
};

// A device is about to read the page's bytes. Who stores into them announces nothing; he holds the
// page lock from before until he has set PG_dirty, so whatever comes out of a race with the device
// comes out of one with these two, too.
inline void device_reads(const cache::Page& page) {
    static_cast<void>(
        page.flags.test(cache::PG_locked | cache::PG_dirty, std::memory_order_relaxed));
}

class Scenario {
public:
    Scenario() = default;
    virtual ~Scenario() = default;
    Scenario(const Scenario&) = delete;
    Scenario& operator=(const Scenario&) = delete;

    virtual void set_up() = 0;
    // Asserts what must be true whenever everybody has ended.
    virtual void assert_at_end() {}
    // "" or a sentence: data that was promised and is not there.
    virtual std::string check() {
        return {};
    }
    // How the run ended, as far as it matters.
    virtual std::string outcome() = 0;

    virtual std::vector<ObservedPage> pages() {
        return {};
    }
    virtual std::vector<NamedObject> objects() {
        return {};
    }
};

struct ScenarioEntry {
    ScenarioInfo info;
    std::unique_ptr<Scenario> (*make)(const Parameters&);
};
const std::vector<ScenarioEntry>& scenario_entries();

}  // namespace wbfat::explore
