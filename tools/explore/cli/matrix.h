// Every protocol in every scenario: which can fail, which cannot, and the picture of each.
//
// Each cell is explored by a process of its own, so that one can neither spend another's memory nor
// end another's run, and several can work at a time.
#pragma once

#include <string>
#include <vector>

#include <boost/json.hpp>

#include "tools/explore/cli/arguments.h"

namespace wbfat::explore {

struct Cell {
    std::string protocol;
    std::string scenario;
    std::string text;            // "safe (93 states)"
    boost::json::object report;  // as `run --json` has it
    std::string svg;             // of the failure, or of one run that is right; "" unless asked for
};

enum class Pictures { kNone, kDraw };

struct Matrix {
    std::vector<std::string> protocols;
    std::vector<std::string> scenarios;
    std::vector<Cell> cells;  // scenario by scenario

    const Cell& at(std::size_t scenario, std::size_t protocol) const {
        return cells[scenario * protocols.size() + protocol];
    }
};

// Errors: UsageError for names that do not exist.
Matrix explore_matrix(const Arguments& arguments, Pictures pictures);

// Rows are scenarios, columns are protocols. As a Markdown table, aligned, so that it reads well
// on a terminal too.
std::string text_of(const Matrix& matrix);
// An array with one object for each cell.
std::string json_of(const Matrix& matrix);
// A page with the table; a cell opens its picture.
std::string html_of(const Matrix& matrix);

// kExitViolation if any cell failed, else kExitUnfinished if any is not finished.
int exit_status(const Matrix& matrix);

}  // namespace wbfat::explore
