// Every assertion on, and none of them the end of the test.
#pragma once

#include <cstdint>

#include <gtest/gtest.h>

#include "cache/assertions.h"

namespace wbfat::cache::inline WBFAT_RT {

// Failed assertions are reported and counted, and the run goes on.
class Bugs {
public:
    Bugs() {
        reset_assertions();
        EXPECT_EQ(set_assertions("all:warn"), "");
    }
    ~Bugs() {
        reset_assertions();
    }
    Bugs(const Bugs&) = delete;
    Bugs& operator=(const Bugs&) = delete;

    static std::uint64_t count(Assertion id) {
        return assertion_hits(id);
    }
    static std::uint64_t count_all() {
        std::uint64_t hits = 0;
        for (const AssertionInfo& info : all_assertions()) {
            hits += assertion_hits(info.id);
        }
        return hits;
    }
};

}  // namespace wbfat::cache::inline WBFAT_RT
