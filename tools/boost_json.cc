// Boost.JSON, compiled here from its headers, so that no compiled Boost package is needed.
#include <boost/json/src.hpp>
