// Names of functions for return addresses.
#include "tools/explore/symbols.h"

#include <cxxabi.h>
#include <elf.h>
#include <link.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>

namespace wbfat::explore {

namespace {

std::uintptr_t load_address() {
    std::uintptr_t address = 0;
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* into) {
            *static_cast<std::uintptr_t*>(into) = info->dlpi_addr;
            return 1;  // the program itself comes first
        },
        &address);
    return address;
}

std::string demangle(const char* name) {
    int status = 0;
    const std::unique_ptr<char, decltype(&std::free)> text(
        abi::__cxa_demangle(name, nullptr, nullptr, &status), &std::free);
    return status == 0 ? std::string(text.get()) : std::string();
}

template <typename T>
T read_at(const std::string& bytes, std::size_t offset) {
    T value{};
    if (offset + sizeof(T) <= bytes.size()) {
        std::memcpy(&value, bytes.data() + offset, sizeof(T));
    }
    return value;
}

}  // namespace

std::string short_function_name(const std::string& demangled) {
    for (const char* hidden : {"{lambda", "std::", "::sched::", "boost::", "operator"}) {
        if (demangled.find(hidden) != std::string::npos &&
            demangled.find(hidden) < std::min(demangled.find('('), demangled.size())) {
            return {};
        }
    }
    std::string name = demangled;
    for (const char* scope : {"wbfat::cache::model::", "wbfat::sync::model::", "wbfat::fs::model::",
                              "wbfat::explore::", "(anonymous namespace)::"}) {
        for (auto at = name.find(scope); at != std::string::npos; at = name.find(scope)) {
            name.erase(at, std::strlen(scope));
        }
    }
    return name.find("{lambda") != std::string::npos ? std::string()
                                                     : name.substr(0, name.find('('));
}

std::string plain_name(const std::string& signature) {
    const std::string text = signature.substr(0, signature.find(" [with "));
    if (text.find("::<lambda") != std::string::npos) {
        return "operator()";
    }
    std::size_t end = 0;
    for (int depth = 0; end < text.size() && (text[end] != '(' || depth > 0); ++end) {
        depth += text[end] == '<' ? 1 : text[end] == '>' ? -1 : 0;
    }
    const std::size_t before = text.find_last_of(": *&", end == 0 ? 0 : end - 1);
    return text.substr(before == std::string::npos ? 0 : before + 1,
                       end - (before == std::string::npos ? 0 : before + 1));
}

Symbols::Symbols() {
    std::ifstream file("/proc/self/exe", std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)),
                            std::istreambuf_iterator<char>());
    const auto header = read_at<ElfW(Ehdr)>(bytes, 0);
    const std::uintptr_t bias = load_address();
    for (unsigned i = 0; i < header.e_shnum; ++i) {
        const auto section = read_at<ElfW(Shdr)>(bytes, header.e_shoff + i * sizeof(ElfW(Shdr)));
        if (section.sh_type != SHT_SYMTAB) {
            continue;
        }
        const auto strings =
            read_at<ElfW(Shdr)>(bytes, header.e_shoff + section.sh_link * sizeof(ElfW(Shdr)));
        for (std::size_t at = 0; at + sizeof(ElfW(Sym)) <= section.sh_size;
             at += sizeof(ElfW(Sym))) {
            const auto symbol = read_at<ElfW(Sym)>(bytes, section.sh_offset + at);
            const std::size_t name_at = strings.sh_offset + symbol.st_name;
            if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_size == 0 ||
                name_at >= bytes.size()) {
                continue;
            }
            functions_[symbol.st_value + bias] = {symbol.st_value + bias + symbol.st_size,
                                                  std::string(bytes.c_str() + name_at)};
        }
    }
}

std::string Symbols::function_at(const void* address) const {
    const auto at = reinterpret_cast<std::uintptr_t>(address) - 1;  // the call, not what follows it
    auto found = functions_.upper_bound(at);
    if (found == functions_.begin()) {
        return {};
    }
    --found;
    return at < found->second.first ? short_function_name(demangle(found->second.second.c_str()))
                                    : std::string();
}

}  // namespace wbfat::explore
