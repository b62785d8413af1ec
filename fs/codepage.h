// The 8-bit code page of short names, by iconv: a table of bytes -> UTF-16 and back, single- and
// double-byte.
//
// The tables are filled once, in open(); afterwards everything is const and needs no lock.
// Source: Linux fs/nls (char2uni, uni2char, charset2upper); the letters' case comes from Unicode
// instead of the tables.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "cache/base/result.h"
#include "cache/base/runtime.h"

namespace wbfat::fs::inline WBFAT_RT {

// Simple case mappings of one UTF-16 unit; what has no partner in the BMP stays as it is.
char16_t upper_unit(char16_t unit);
char16_t lower_unit(char16_t unit);

class Codepage {
public:
    // `name`: "437", "850", "932", .. Errors: EINVAL when iconv does not know CP<name>.
    static Result<std::unique_ptr<Codepage>> open(const std::string& name);

    Codepage() = default;
    Codepage(const Codepage&) = delete;
    Codepage& operator=(const Codepage&) = delete;
    virtual ~Codepage() = default;

    // Bytes (1 or 2) of one UTF-16 unit in this code page after upper-casing; empty when it has
    // none. A letter whose upper case is not in the code page, and every double-byte one, stays as
    // it is.
    [[nodiscard]] virtual std::string_view upper_bytes(char16_t unit) const = 0;
    [[nodiscard]] virtual std::string_view bytes(char16_t unit) const = 0;
    // Decodes; bytes without a meaning become U+FFFD, one each.
    [[nodiscard]] virtual std::u16string decode(std::string_view bytes) const = 0;
    // Length in bytes of the character starting with `first`: 1 or 2.
    [[nodiscard]] virtual unsigned char_length(std::uint8_t first) const = 0;
};

}  // namespace wbfat::fs::inline WBFAT_RT
