// What a named point is about, in both back-ends of sync.h.
#pragma once

#include <cstdint>
#include <string_view>

#include "cache/base/runtime.h"

namespace wbfat::sync::inline WBFAT_RT {

// What a point is about, where it is about a page or a file. Made only when something is armed.
struct PointSubject {
    static constexpr std::uint64_t kNoPage = UINT64_MAX;

    std::uint32_t file = 0;        // point_tag of the mapping's name; 0: about no file
    std::uint64_t page = kNoPage;  // index in the mapping
    std::string_view what = {};    // the flag waited for: "locked", "writeback"
};

constexpr const PointSubject& point_subject(const PointSubject& subject) {
    return subject;
}

// Names of files are compared by this number, so that a page can carry it where its mapping may be
// gone.
constexpr std::uint32_t point_tag(std::string_view name) {
    std::uint32_t hash = 0x811C9DC5;  // FNV-1a
    for (const char c : name) {
        hash = (hash ^ static_cast<unsigned char>(c)) * 0x01000193;
    }
    return hash == 0 ? 1 : hash;
}

}  // namespace wbfat::sync::inline WBFAT_RT
