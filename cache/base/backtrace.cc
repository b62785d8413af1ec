// Who called: unwinding and naming.
#include "cache/base/backtrace.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string_view>

namespace wbfat::cache::inline WBFAT_RT {

namespace {

constexpr std::size_t kMaxFrames = 64;

std::string demangle(const char* symbol) {
    int status = 0;
    const std::unique_ptr<char, decltype(&std::free)> name(
        abi::__cxa_demangle(symbol, nullptr, nullptr, &status), &std::free);
    return status == 0 ? std::string(name.get()) : std::string(symbol);
}

std::string_view file_name(const char* path) {
    const std::string_view all = path;
    return all.substr(all.rfind('/') + 1);
}

std::string describe_address(const void* address) {
    Dl_info info{};
    if (dladdr(address, &info) == 0 || info.dli_fname == nullptr) {
        return fmt::format("{}", address);
    }
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    const std::string place = fmt::format("{}+{:#x}", file_name(info.dli_fname),
                                          at - reinterpret_cast<std::uintptr_t>(info.dli_fbase));
    return info.dli_sname != nullptr ? fmt::format("{} ({})", demangle(info.dli_sname), place)
                                     : place;
}

}  // namespace

void load_unwinder() {
    std::array<void*, 1> frames{};
    static_cast<void>(::backtrace(frames.data(), static_cast<int>(frames.size())));
}

std::vector<std::string> describe_stack(std::size_t skip, std::size_t most) {
    std::array<void*, kMaxFrames> frames{};
    const auto found =
        static_cast<std::size_t>(::backtrace(frames.data(), static_cast<int>(frames.size())));
    std::vector<std::string> stack;
    for (std::size_t i = skip + 1; i < found && stack.size() < most; ++i) {
        // A return address is behind the call; one byte less is still in the caller.
        stack.push_back(describe_address(static_cast<const char*>(frames.at(i)) - 1));
    }
    return stack;
}

}  // namespace wbfat::cache::inline WBFAT_RT
