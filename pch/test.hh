// As library.hh, for the tests.
#include "pch/library.hh"

#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>
#include <set>
