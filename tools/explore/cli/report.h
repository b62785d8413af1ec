// What a search or a replay came to, in words and as JSON.
#pragma once

#include <string>
#include <vector>

#include <boost/json.hpp>

#include "tools/explore/cli/arguments.h"
#include "tools/explore/draw/story_of.h"
#include "tools/explore/explore.h"

namespace wbfat::explore {

// "safe (93 states)", "BUG (1 preemption)", "deadlock", "not finished".
std::string cell_text(const Result& result);
// kExitSafe, kExitViolation or kExitUnfinished.
int exit_status(const Result& result);
int exit_status(const RunRecord& run);

// Every search that was made, and the verdict.
std::string text_report(const Options& options, const Result& result);
// One run: title, explanation, lanes, replay command.
std::string text_report(const RunRecord& run, const std::vector<std::string>& subtitle,
                        Folding folding);

// One object: protocol, scenario, verdict, and the numbers. The same for a cell of the matrix.
boost::json::object json_report(const Options& options, const Result& result);

// What the pictures say below the title: scenario and protocol, the proof, the replay command.
std::vector<std::string> subtitle_of(const Options& options, const RunRecord& run,
                                     const Result* result);

// "1 preemption", "2 preemptions"
std::string count_of(std::uint64_t number, const std::string& noun);

}  // namespace wbfat::explore
