// Prints the 64-bit xxh3 of each file named on the command line, as MANIFEST has it.
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <vector>

#include <xxhash.h>

namespace {

struct StateDeleter {
    void operator()(XXH3_state_t* state) const {
        XXH3_freeState(state);
    }
};

bool print_sum(const char* path) {
    std::ifstream file(path, std::ios::binary);
    const std::unique_ptr<XXH3_state_t, StateDeleter> state(XXH3_createState());
    if (!file || !state || XXH3_64bits_reset(state.get()) != XXH_OK) {
        return false;
    }
    std::vector<char> buffer(1 << 20);
    while (file) {
        file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
        if (XXH3_64bits_update(state.get(), buffer.data(),
                               static_cast<std::size_t>(file.gcount())) != XXH_OK) {
            return false;
        }
    }
    fmt::print("{:016x}  {}\n", XXH3_64bits_digest(state.get()), path);
    return !file.bad();
}

}  // namespace

int main(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        if (!print_sum(argv[i])) {
            fmt::print(stderr, "xxh3sum: {} cannot be read\n", argv[i]);
            return EXIT_FAILURE;
        }
    }
    return EXIT_SUCCESS;
}
