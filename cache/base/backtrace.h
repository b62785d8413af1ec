// Who called: the stack of the running thread, in words.
//
// Names come from the dynamic symbol table (the programs are linked with -rdynamic); a function
// that is not in it shows as `program+0x1234`, which addr2line -e understands.
//
// Context: any. Allocates; the first call in a process loads the unwinder, so load_unwinder() is
// called early by whoever cannot afford that in a report.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "cache/base/runtime.h"

namespace wbfat::cache::inline WBFAT_RT {

void load_unwinder();
// Innermost first, without this function and the next `skip`; at most `most`.
std::vector<std::string> describe_stack(std::size_t skip, std::size_t most);

}  // namespace wbfat::cache::inline WBFAT_RT
