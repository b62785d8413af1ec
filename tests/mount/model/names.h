// The fixed pool of names: groups of spellings that FAT takes for one name, and names it refuses.
//
// A plain directory tells "a" from "A", so files there are called "<group>.<spelling>": the group
// is what a name means on FAT, the spelling is what readdir must show. The tree of a run can be
// read back from the plain directory alone.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wbfat::model {

struct Name {
    std::uint16_t group = 0;
    std::uint8_t spelling = 0;
    auto operator<=>(const Name&) const = default;
};

using Path = std::vector<Name>;  // empty: the directory under test itself

// Groups [0, nr_pool_groups()) are the table, then generated ones, then the names that are refused.
std::uint16_t nr_good_groups();
std::uint16_t nr_pool_groups();
std::uint16_t nr_bad_groups();
Name bad_name(std::uint16_t index);
bool is_bad(Name name);
// What creating a refused name answers; looking one up answers ENOENT.
int bad_name_errno(Name name);

std::uint8_t nr_spellings(std::uint16_t group);
// As the caller writes it.
std::string spelled(Name name);
// The spelling that readdir shows once `name` was created: trailing dots are dropped.
Name shown(Name name);

// "12.1", and back. nullopt: no such name.
std::string reference_name(Name name);
std::optional<Name> parse_reference_name(std::string_view text);
// "12.1/3.0"; "." for the empty path.
std::string path_text(const Path& path);
std::optional<Path> parse_path(std::string_view text);

}  // namespace wbfat::model
