// Which mistake the mutated copies of the cache's sources make: see mutate.py.
#pragma once

#include <cstring>

namespace wbfat {

// A name of mutate.py's table; null: none.
extern constinit const char* active_mutant;

inline bool is_mutant(const char* name) {
    return active_mutant != nullptr && std::strcmp(active_mutant, name) == 0;
}

}  // namespace wbfat
