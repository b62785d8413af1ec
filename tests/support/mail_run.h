// The schedule of the mail of January 2021, written down by hand: what drawing is tested with.
//
// CPU1 ends a writeback and is delayed before it wakes, CPU2 starts the next one, CPU3 waits for
// PG_writeback and is woken by CPU1: A1 B3 C5 A3 C2.
#pragma once

#include "tools/explore/run_record.h"

namespace wbfat::tests {

explore::RunRecord mail_run();

// Two tasks; CPU2 goes to sleep after CPU1's wake-up went past it: a deadlock.
explore::RunRecord lost_wake_run();

}  // namespace wbfat::tests
