// The command line of wbfat-explore, taken apart.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "tools/explore/explore.h"

namespace wbfat::explore {

// 0: no schedule fails, complete; 1: one does; 2: wrong usage; 3: not finished, nothing found.
inline constexpr int kExitSafe = 0;
inline constexpr int kExitViolation = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitUnfinished = 3;

enum class Verb { kList, kRun, kReplay, kMinimise, kDraw, kMatrix, kRecipe };
enum class PictureFormat { kText, kSvg, kHtml, kPerfetto };
enum class OutputStyle { kText, kJson };
enum class ShowProgress { kAuto, kAlways, kNever };
enum class Steps { kFolded, kEach };
enum class Replayer { kFibers, kThreads };

struct Arguments {
    Verb verb = Verb::kList;
    Options options;
    std::string schedule;
    OutputStyle output = OutputStyle::kText;
    ShowProgress progress = ShowProgress::kAuto;
    Replayer replayer = Replayer::kFibers;

    // draw
    PictureFormat format = PictureFormat::kSvg;
    std::string file;  // "": standard output
    std::vector<std::string> compare;
    Steps steps = Steps::kFolded;

    // matrix; empty: all
    std::vector<std::string> protocols;
    std::vector<std::string> scenario_names;
    std::string html_file;

    // recipe
    std::string give_up;
};

// What was asked for, or the exit status of what has been said already (--help, a usage error).
std::variant<Arguments, int> parse_arguments(int argc, char** argv);

// The command that runs `schedule` again.
std::string replay_command(const Options& options, const std::string& schedule);

}  // namespace wbfat::explore
