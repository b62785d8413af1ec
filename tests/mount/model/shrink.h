// Finds a short list of operations that still fails, by leaving out halves, quarters, eighths ..
#pragma once

#include <string>
#include <vector>

#include "tests/mount/model/op.h"
#include "tests/mount/model/session.h"

namespace wbfat::model {

struct Shrunk {
    std::vector<Op> ops;
    std::string failure;  // empty: in fresh directories the operations do not fail
};

// Works in directories of its own below `directory` and `reference`; ends after `seconds` with what
// it has.
Shrunk shrink(const std::string& directory, const std::string& reference, const Limits& limits,
              std::vector<Op> ops, unsigned seconds);

// Applies `ops` in order, then compares the trees. "" or the failure; `ops` ends with the one that
// failed.
std::string replay(Session& session, std::vector<Op>& ops);

}  // namespace wbfat::model
