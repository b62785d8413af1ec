// Result<T>: a value or an errno, for I/O and resource errors only.
//
// The three kinds of failure are never mixed (see DESIGN.md): a bug goes to BUG_ON, a damaged
// volume to fs_error(), and everything the caller can be told goes through here. Errno holds a
// positive errno; it is negated only at the FUSE reply.
#pragma once

#include <cerrno>
#include <concepts>
#include <utility>

#include <boost/system/result.hpp>

namespace wbfat {

// A positive errno, never 0.
struct Errno {
    int value = EIO;

    constexpr Errno() = default;
    // Exactly int, so that a Result of any other number is not ambiguous.
    explicit constexpr Errno(std::same_as<int> auto number) : value(number) {}

    friend constexpr bool operator==(Errno, Errno) = default;
};

[[noreturn]] inline void throw_exception_from_error(Errno error, const boost::source_location&) {
    throw error;
}

template <typename T = void>
class [[nodiscard]] Result : public boost::system::result<T, Errno> {
public:
    using boost::system::result<T, Errno>::result;

    // The errno, or 0 for success: for callers that fold errors ("the first one wins").
    [[nodiscard]] int code() const {
        return this->has_value() ? 0 : this->error().value;
    }
};

}  // namespace wbfat

// Evaluates to the value of a Result, or returns its error from the calling function. No braces
// around the return: they would be one more level of nesting wherever this is used.
#define TRY(expression)                            \
    __extension__({                                \
        auto try_result_ = (expression);           \
        if (!try_result_.has_value()) [[unlikely]] \
            return try_result_.error();            \
        std::move(try_result_).operator*();        \
    })

// The same for a Result<void>.
#define TRY_VOID(expression)                       \
    do {                                           \
        auto try_result_ = (expression);           \
        if (!try_result_.has_value()) [[unlikely]] \
            return try_result_.error();            \
    } while (false)
