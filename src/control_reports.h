// Reports of failed assertions as JSON, for the control socket and the live page.
#pragma once

#include <string>

#include <boost/json/fwd.hpp>

namespace wbfat::daemon {

// Number, title and what else fits a line, of each that is kept.
boost::json::object reports_list();
// All of one, as fields and as text. Throws ControlError when it is not kept.
boost::json::object report(const std::string& number);

}  // namespace wbfat::daemon
