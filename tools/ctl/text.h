// Replies of the daemon as text for a terminal.
#pragma once

#include <string>

#include <boost/json/fwd.hpp>

namespace wbfat::tools {

// The result of `command`, with a newline at the end; "" if there is nothing to say.
std::string to_text(const std::string& command, const boost::json::value& result);

}  // namespace wbfat::tools
