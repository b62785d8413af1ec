// A filesystem that broke its word: everything known about it, told once.
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <utility>
#include <vector>

namespace wbfat::tools {

// A labelled line of the report, in order: {"offset", "8192 (page 2 + 0)"}.
struct Failure {
    std::string what;  // one sentence
    std::string file;
    std::uint64_t offset_bytes = 0;
    unsigned thread = 0;
    std::uint64_t op_index = 0;
    std::vector<std::pair<std::string, std::string>> facts;
    std::vector<std::string> last_ops;  // on that file, oldest first

    [[nodiscard]] std::string to_string() const;
};

// Unwinds the thread that found the failure.
class StressFailed : public std::exception {
public:
    explicit StressFailed(Failure failure) : failure_(std::move(failure)) {}
    [[nodiscard]] const char* what() const noexcept override {
        return failure_.what.c_str();
    }
    [[nodiscard]] const Failure& failure() const {
        return failure_;
    }

private:
    Failure failure_;
};

}  // namespace wbfat::tools
