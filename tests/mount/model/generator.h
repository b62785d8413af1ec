// Random operations that make sense: most of them on names that exist, some of them wrong on
// purpose.
#pragma once

#include "tests/mount/model/op.h"
#include "tests/mount/model/session.h"
#include "tools/stress/random.h"

namespace wbfat::model {

// The same seed, round, number and state give the same operation.
Op generate(const Session& session, tools::Random& random);

}  // namespace wbfat::model
