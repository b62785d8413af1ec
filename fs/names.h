// Names: UTF-8 <-> UTF-16 <-> 8.3, comparison, what is allowed, aliases. Pure functions, no disk.
//
// Long names are sequences of UTF-16 units, and the disk may hold any sequence at all. Three rules
// keep everything reachable:
//   - N1. A lone surrogate is shown in the three bytes its number would have in UTF-8 (ED A0 80 ..
//     ED BF BF), and these are read back as that surrogate. Two of them that form a pair are
//     refused: the character has a spelling of its own. With uni_xlate it is shown as ":D83D", and
//     ":" and four hex digits stand for any unit.
//   - N2. '/' and NUL, which no caller can spell, are shown as U+FFFD, and name_key takes them for
//     U+FFFD.
//   - N3. Keys ignore trailing dots, as the caller's names lose them: "dot." on the disk answers to
//     "dot" and "dot.".
//
// Case is folded one unit to one unit: simple Unicode case folding of the BMP, so that a key has
// the length of its name. 'ß' is not "ss"; dotless and dotted i (U+0131, U+0130) are letters of
// their own; astral letters keep their case.
//
// Source: Microsoft FAT specification (long names); Linux fs/fat/namei_vfat.c
// vfat_create_shortname; fat.md 3.3, 7.14, 7.15; kernel-vfat-answers.txt. Differs: aliases are
// unique among long names too; the tail after ~9 comes from the name, not from the clock; with utf8
// the kernel folds ASCII (and what its iocharset has) only.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "cache/base/result.h"
#include "fs/codepage.h"
#include "fs/mount_options.h"

namespace wbfat::fs::inline WBFAT_RT {

using ShortName = std::array<std::uint8_t, 11>;  // DIR_Name

inline constexpr std::size_t kMaxNameUnits = 255;  // UTF-16 units of a long name
inline constexpr std::size_t kUnitsPerSlot = 13;

// A name as the caller spelled it, checked and decoded: trailing dots stripped, every character
// allowed.
struct ParsedName {
    std::u16string units;
    std::string utf8;  // what readdir will show: `units` in UTF-8
};

// A name to be created.
// Errors: ENAMETOOLONG (over 255 units), EINVAL (invalid UTF-8, forbidden character, trailing
// space, windows_names rules), ENOENT (nothing left after stripping dots).
Result<ParsedName> parse_name(std::string_view name, const MountOptions& options);
// A name to be looked up: characters that may not be created may still be on the disk.
// Errors: ENAMETOOLONG, ENOENT (nothing left, or no name on the disk can be spelled so).
Result<ParsedName> parse_name_for_lookup(std::string_view name, const MountOptions& options);

// Two names are the same file iff their keys are equal. Case is folded as the volume's users expect
// (simple, one unit to one unit, never changing length); name_key also honours check=strict (case
// matters), N2 and N3: directories use it for both the names on the disk and the caller's.
std::u16string fold_name(std::u16string_view units);
std::u16string name_key(std::u16string_view units, const MountOptions& options);
std::uint64_t name_hash(std::u16string_view folded);  // xxh3

// False for what must not be shown as a long name: nothing, or dots only (it would be "." or ".."):
// use the alias.
bool is_usable_long_name(std::u16string_view units);

// UTF-16 from the disk to UTF-8; total: a lone surrogate becomes a spelling that parse_name turns
// back into it, or U+FFFD where that is impossible; '/' and NUL never appear.
std::string units_to_utf8(std::u16string_view units, const MountOptions& options);

// How a name goes to the disk.
struct ShortNameChoice {
    ShortName name{};
    std::uint8_t nt_case = 0;  // DIR_NTRes bits 0x08 (base) and 0x10 (extension)
    bool needs_long_slots = true;
};
// `taken(short)`: true if another entry of the directory has this short name, or a long name that
// equals it. Errors: EEXIST-free by construction; EINVAL if no alias can be built; ENOSPC if 2^16
// tails are taken.
Result<ShortNameChoice> make_short_name(const ParsedName& name, const Codepage& codepage,
                                        const MountOptions& options,
                                        const std::function<bool(const ShortName&)>& taken);

// "FOO.TXT" in UTF-8 from the 11 bytes, with NT case flags and shortname= applied; 0x05 -> 0xE5.
// Empty when the bytes hold no name (all blank): to be skipped.
std::string short_name_to_utf8(const ShortName& name, std::uint8_t nt_case,
                               const Codepage& codepage, const MountOptions& options);
// The same without case changes, in units.
std::u16string short_name_to_units(const ShortName& name, const Codepage& codepage);

std::uint8_t short_name_checksum(const ShortName& name);

}  // namespace wbfat::fs::inline WBFAT_RT
