// Names of functions for return addresses, from the symbol table of this program.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace wbfat::explore {

class Symbols {
public:
    // Reads /proc/self/exe. A stripped program has no names; then every answer is "".
    Symbols();
    // "write_cache_pages", "DirtyWalk::run": without namespaces and arguments. "" for what is no
    // function of ours: the scheduler, lambdas, the library.
    std::string function_at(const void* address) const;

private:
    std::map<std::uintptr_t, std::pair<std::uintptr_t, std::string>>
        functions_;  // start: end, name
};

// "a::b::(anonymous namespace)::C::f(int)" -> "C::f", "" for what should not be shown.
std::string short_function_name(const std::string& demangled);

// "bool a::{anonymous}::C::f(int) [with T = int]" -> "f"; a lambda is its operator().
std::string plain_name(const std::string& signature);

}  // namespace wbfat::explore
