// The files of src/web, compiled in.
#pragma once

#include <span>
#include <string_view>

namespace wbfat::daemon {

struct WebFile {
    std::string_view name;  // "page.js"; index.html is also ""
    std::string_view content_type;
    std::string_view content;
};

// Made at build time by src/web/embed.py.
std::span<const WebFile> web_files();

}  // namespace wbfat::daemon
