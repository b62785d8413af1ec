// What a mount is doing, as JSON.
//
// None of it does I/O: the status of a mount whose device hangs is the one that is wanted most.
#pragma once

#include <boost/json/fwd.hpp>

#include "src/control_commands.h"

namespace wbfat::daemon {

boost::json::object status_of(ControlContext& context);
boost::json::object flusher_status(ControlContext& context);
// The preset and every switch.
boost::json::object protocol_status();
// Every preset with its line of help.
boost::json::object protocol_list();
boost::json::object assertions_status();
// Every rule for points, and what became of it.
boost::json::object points_status();

}  // namespace wbfat::daemon
