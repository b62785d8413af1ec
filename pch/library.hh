// What most sources include of others' headers, compiled once a library in builds with -Db_pch=true.
//
// Every source still includes what it uses, which a build without this proves, and `tidy.py --clang` in any.
#include <algorithm>
#include <array>
#include <boost/system/result.hpp>
#include <chrono>
#include <cstdint>
#include <fmt/format.h>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>
