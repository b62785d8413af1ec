// fsck.fat's language.
#include "tests/support/crash_verdict.h"

#include <cstdint>
#include <optional>
#include <regex>
#include <set>
#include <utility>

namespace wbfat::fs::inline WBFAT_RT {

namespace {

struct Phrase {
    std::regex regex;
    std::optional<Leftover> leftover;  // none: says nothing by itself
};

const std::vector<Phrase>& phrases() {
    static const std::vector<Phrase> kPhrases = [] {
        std::vector<Phrase> known;
        const auto say = [&known](const char* regex, std::optional<Leftover> leftover = {}) {
            known.push_back({std::regex(regex), leftover});
        };
        say("fsck\\.fat [0-9.]+ \\([0-9-]+\\)");
        say("");
        say("/proc/[0-9]+/fd/[0-9]+: [0-9]+ files, [0-9]+/[0-9]+ clusters");
        say("\\*\\*\\* Filesystem was changed \\*\\*\\*");
        say("Leaving filesystem unchanged\\.");
        say("Dirty bit is set\\. Fs was not properly unmounted and some data may be corrupt\\.",
            Leftover::kDirtyMark);
        say(" Automatically removing dirty bit\\.");
        say("There are differences between boot sector and its backup\\.",
            Leftover::kBackupDiffers);
        say("This is mostly harmless\\. Differences: \\(offset:original/backup\\)");
        say("  65:0[01]/0[01]");
        say("  Not automatically fixing this\\.");
        say("FATs differ but appear to be intact\\.", Leftover::kFatsDiffer);
        say("  Using first FAT\\.");
        say("Reclaimed [0-9]+ unused clusters? \\([0-9]+ bytes\\)\\.", Leftover::kLostClusters);
        say("Reclaiming unconnected clusters\\.");
        say("Free cluster summary wrong \\([0-9]+ vs\\. really [0-9]+\\)", Leftover::kFreeCount);
        say("  Auto-correcting\\.");
        say("Orphaned long file name part \".*\"", Leftover::kOrphanLongSlots);
        say("  Auto-deleting\\.");
        return known;
    }();
    return kPhrases;
}

bool is_path(const std::string& line) {
    return line.starts_with('/') && !line.starts_with("/proc/");
}

// Reads the sentences that begin with a path.
class PathSentences {
public:
    PathSentences(const std::vector<std::string>& lines, const CrashHistory& history,
                  CrashHistory::Position cut, CrashVerdict& verdict)
        : lines_(lines), history_(history), cut_(cut), verdict_(verdict) {}

    // Returns how many lines it took; 0: it is none of the sentences allowed.
    std::size_t take(std::size_t at) {
        for (const auto take_one :
             {&PathSentences::take_pair, &PathSentences::take_long_chain,
              &PathSentences::take_consequence, &PathSentences::take_parent}) {
            if (const std::size_t taken = (this->*take_one)(at); taken != 0) {
                return taken;
            }
        }
        return 0;
    }

private:
    const std::string& line(std::size_t at) const {
        static const std::string kNone = "(end)";
        return at < lines_.size() ? lines_[at] : kNone;
    }

    std::size_t take_pair(std::size_t at) {
        static const std::regex kTruncating("  Truncating (first|second) to [0-9]+ bytes.*\\.");
        if (!line(at).ends_with(" and") || line(at + 2) != "  share clusters." ||
            !std::regex_match(line(at + 3), kTruncating)) {
            return 0;
        }
        std::string first = line(at).substr(0, line(at).size() - 4);
        first.erase(first.find_last_not_of(' ') + 1);
        if (history_.is_rename_in_flight(first, line(at + 1), cut_)) {
            mark(Leftover::kTwoNames);
            in_flight_.insert(first);
            in_flight_.insert(line(at + 1));
        } else {
            verdict_.failures.push_back("fsck.fat: " + first + " and " + line(at + 1) +
                                        " share clusters");
        }
        return 4;
    }

    std::size_t take_long_chain(std::size_t at) {
        static const std::regex kLong(
            "  File size is [0-9]+ bytes, cluster chain length is > "
            "[0-9]+ bytes\\.");
        static const std::regex kTruncating("  Truncating file to [0-9]+ bytes\\.");
        if (!std::regex_match(line(at + 1), kLong) ||
            !std::regex_match(line(at + 2), kTruncating)) {
            return 0;
        }
        mark(Leftover::kLongChain);
        return 3;
    }

    // What it thinks of a file it has just (not) truncated, being the second of a pair.
    std::size_t take_consequence(std::size_t at) {
        static const std::regex kShort(
            "  File size is [0-9]+ bytes, cluster chain length is "
            "[0-9]+ bytes\\.");
        static const std::regex kTruncating("  Truncating file to [0-9]+ bytes\\.");
        const bool taken = in_flight_.contains(line(at)) &&
                           std::regex_match(line(at + 1), kShort) &&
                           std::regex_match(line(at + 2), kTruncating);
        return taken ? 3 : 0;
    }

    // Of two places a moved directory is in, ".." can name one.
    std::size_t take_parent(std::size_t at) {
        if (line(at + 1) != "  Invalid '..' entry in the second slot. Fixing." ||
            !history_.is_rename_in_flight(line(at), "", cut_)) {
            return 0;
        }
        mark(Leftover::kTwoNames);
        return 2;
    }

    void mark(Leftover leftover) {
        verdict_.leftovers.at(static_cast<std::size_t>(leftover)) = true;
    }

    const std::vector<std::string>& lines_;
    const CrashHistory& history_;
    const CrashHistory::Position cut_;
    CrashVerdict& verdict_;
    std::set<std::string> in_flight_;
};

}  // namespace

std::string_view to_string(Leftover leftover) {
    static constexpr std::array<std::string_view, static_cast<std::size_t>(Leftover::kCount)>
        kNames{"dirty mark",  "backup differs", "FATs differ", "lost clusters",
               "long chains", "free count",     "two names",   "orphan long slots"};
    return kNames.at(static_cast<std::size_t>(leftover));
}

void judge_fsck(const std::vector<std::string>& lines, const CrashHistory& history,
                CrashHistory::Position cut, CrashVerdict& verdict) {
    PathSentences sentences(lines, history, cut, verdict);
    for (std::size_t at = 0; at < lines.size();) {
        if (is_path(lines[at])) {
            if (const std::size_t taken = sentences.take(at); taken != 0) {
                at += taken;
                continue;
            }
        }
        bool known = false;
        for (const Phrase& phrase : phrases()) {
            if (std::regex_match(lines[at], phrase.regex)) {
                known = true;
                if (phrase.leftover) {
                    verdict.leftovers.at(static_cast<std::size_t>(*phrase.leftover)) = true;
                }
                break;
            }
        }
        if (!known) {
            verdict.failures.push_back("fsck.fat: " + lines[at]);
        }
        ++at;
    }
}

CrashVerdict judge(const CrashImage& image, const CrashHistory& history, CrashHistory::Position cut,
                   bool ask_fsck) {
    CrashVerdict verdict;
    const CrashTree tree = read_crash_image(image.bytes());
    for (const std::string& damage : tree.damage) {
        verdict.failures.push_back("reader: " + damage);
    }
    for (const auto& [first, second] : tree.shared) {
        if (!history.is_rename_in_flight(first, second, cut)) {
            verdict.failures.push_back("reader: " + first + " and " + second + " share clusters");
        }
    }
    for (std::string& violation : history.violations(tree, cut)) {
        verdict.failures.push_back("history: " + std::move(violation));
    }
    if (ask_fsck) {
        verdict.fsck_was_asked = true;
        judge_fsck(image.fsck(), history, cut, verdict);
    }
    return verdict;
}

}  // namespace wbfat::fs::inline WBFAT_RT
