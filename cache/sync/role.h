// What a thread does here. Reports show it, points select by it.
#pragma once

#include <cstdint>
#include <string_view>

#include "cache/base/runtime.h"

namespace wbfat::sync::inline WBFAT_RT {

enum class Role : std::uint8_t { kRequest, kFlusher, kCompletion, kSyncWriter, kOther };

// As reports say it: "sync writer".
inline std::string_view role_name(Role role) {
    switch (role) {
        case Role::kRequest:
            return "request";
        case Role::kFlusher:
            return "flusher";
        case Role::kCompletion:
            return "completion";
        case Role::kSyncWriter:
            return "sync writer";
        case Role::kOther:
            return "other";
    }
    return "?";
}

}  // namespace wbfat::sync::inline WBFAT_RT
