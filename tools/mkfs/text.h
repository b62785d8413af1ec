// Text of the command line -> bytes of the disk: the label and the boot message.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/base/result.h"

namespace wbfat::tools {

// A label in UTF-8 -> the eleven bytes on the disk. Empty, blank and "NO NAME" mean no label: the
// optional is empty. Errors: EINVAL; `why` says which character or what length.
Result<std::optional<std::array<char, 11>>> encode_label(std::string_view label,
                                                         const std::string& codepage,
                                                         std::vector<std::string>& warnings,
                                                         std::string& why);

// A message file's text as the boot code prints it: LF -> CR LF, tabs expanded.
std::string boot_message_from_text(std::string_view text);

}  // namespace wbfat::tools
