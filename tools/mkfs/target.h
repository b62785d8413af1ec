// Finding out what is to be formatted, and refusing what must not be.
//
// Invariants
//   T1. A target is opened only when nobody uses it: a block device exclusively (O_EXCL, so neither
//   mounted nor held
//       by a mapping), an image with the OFD write lock that wbfat holds on its images.
//   T2. With create, nothing appears on the disk before create_image(): a format that is refused
//   leaves no file.
#pragma once

#include <cstdint>
#include <string>

#include "cache/base/unique_fd.h"
#include "fs/mkfs.h"

namespace wbfat::tools {

enum class SafetyChecks { kObeyed, kIgnored };  // -I

struct Target {
    UniqueFd fd;
    fs::FormatDevice device;
    bool wants_mbr = false;  // a fixed, whole, real disk: what --mbr=auto asks for
};

// Opens an existing file or block device. Throws UsageError with one sentence.
Target open_target(const std::string& path, SafetyChecks checks);

// Makes the image file, sparse, of that size. Throws UsageError: it exists, or cannot be made.
UniqueFd create_image(const std::string& path, std::uint64_t size_bytes);

}  // namespace wbfat::tools
