// The flag word of a page: its names.
#include "cache/page_flags.h"

#include <array>
#include <utility>

namespace wbfat::cache::inline WBFAT_RT {

std::string page_flags_to_string(std::uint64_t flags) {
    static constexpr std::array<std::pair<PageFlag, const char*>, 9> kNames{{
        {PG_locked, "locked"},
        {PG_writeback, "writeback"},
        {PG_referenced, "referenced"},
        {PG_uptodate, "uptodate"},
        {PG_dirty, "dirty"},
        {PG_error, "error"},
        {PG_reclaim, "reclaim"},
        {PG_waiters, "waiters"},
        {PG_readahead, "readahead"},
    }};
    std::string text;
    for (const auto& [flag, name] : kNames) {
        if ((flags & flag) != 0) {
            text += text.empty() ? "" : "|";
            text += name;
        }
    }
    return text.empty() ? "-" : text;
}

}  // namespace wbfat::cache::inline WBFAT_RT
