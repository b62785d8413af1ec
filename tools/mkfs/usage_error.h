// The one kind of failure mkfs.wbfat has for its user: a sentence, and exit code 1.
#pragma once

#include <stdexcept>

namespace wbfat::tools {

class UsageError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

}  // namespace wbfat::tools
