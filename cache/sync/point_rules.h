// Rules for named points as people write them: on the command line, in a file, through the control
// socket. In the manner of FreeBSD's fail(9) and of fail-rs, with orderings besides.
//
//   SITE=TERM[->TERM..]              at SITE, the first TERM that has hits left and is lucky acts
//   SITE after SITE [since SITE] [give up TIME]   the first is held until the second was passed
//   chaos [seed N] [share P%] [short TIME] [long TIME]
//
//   SITE    POINT[@ROLE][[SELECTOR;..]]  end_writeback:cleared@completion[file=a.dat;page=0]
//   ROLE    completion, flusher, request, sync, other
//   SELECTOR hit=N, hit=N..M, hit=N.. (of those that match everything else, from 1); page=N,
//   page=N..M;
//           file=NAME (AddressSpace::name(), whole; blanks are fine, the signs of this grammar are
//           not); task=NAME; what=locked|writeback
//   TERM    [P%][N*]ACTION               20%3*sleep(1ms..5ms)
//   ACTION  off, count, yield, pause, print, print(TEXT), sleep(TIME), delay(TIME), which keeps
//           the CPU
//   TIME    20us, 5ms, 1s; A..B is drawn anew each time, log-uniformly; give up: 1s unless given
//
// pause holds threads until the rule is removed. `SITE=off` removes the rules of exactly that site,
// `off` removes all. Setting a site again replaces its rule. Lines that are empty or begin with #
// are skipped.
//
// An ordering "B after A" keeps one token: passing A puts it there, B waits until it can take it.
// So an A counts for one B, however early it came; and a B that waited in vain leaves A's next
// passing for the next B. "since C" takes the token away when C is passed: an A before it does not
// count, which keeps rounds apart that repeat for ever. Passing means arriving: where one point
// announces and waits, it announces first.
//
// Chaos delays threads at every point: short delays often, long ones rarely and only for one victim
// thread at a time. A point takes part in a run or does not, by the seed. No thread is held for
// more than its share of the time.
//
// Locking: a mutex of its own, never held while a rule acts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cache/base/runtime.h"

namespace wbfat::sync::inline WBFAT_RT {

// Sets the rules of `text`, one a line; nothing is set if one of them is wrong.
// Returns "" or one sentence that names the rule and says what would be right.
std::string set_point_rules(std::string_view text);
// The same check, and nothing is set.
std::string check_point_rules(std::string_view text);
// The rules in a file. Returns "" or one sentence, with the file and the line.
std::string read_point_rules(const std::string& path, std::string& text);
// Removes all rules; threads they hold go on. Returns when none is held any more.
void clear_point_rules();

// A rule and what became of it.
struct PointRuleStatus {
    std::string text;
    std::uint64_t hits = 0;      // of its site (an ordering: of the site that is held)
    std::uint64_t acted = 0;     // times a term did something; chaos: delays
    std::uint64_t met = 0;       // orderings: held threads that the other site let go
    std::uint64_t given_up = 0;  // orderings: threads that were held for the whole time
};
std::vector<PointRuleStatus> point_rules();

}  // namespace wbfat::sync::inline WBFAT_RT
