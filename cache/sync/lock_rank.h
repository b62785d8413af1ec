// The ranks of mutexes and rwsems, and who hears of a lock that is taken out of turn.
#pragma once

#include <atomic>
#include <cstdint>

#include "cache/base/runtime.h"

namespace wbfat::sync::inline WBFAT_RT {

// Where a lock stands in the order of cache/LOCKING.md: taken only while every ranked lock held by
// the thread has a rank that is not higher. Equal ranks nest (two inodes of a rename); their order
// is the caller's duty.
enum class LockRank : std::uint8_t {
    kUnranked = 0,      // not checked
    kInode = 10,        // i_rwsem
    kTruncate = 20,     // truncate_lock
    kTransaction = 30,  // the ordered commit
    kFat = 40,          // fat_lock
    kFlusherList = 50,  // Flusher list_lock
    kFrames = 60,       // page_frames
    kLeaf = 90,         // nothing is taken below it
};

// Called before a lock is taken under one of a higher rank; when it returns the lock is taken. Null
// is a BUG_ON. The assertion lock_rank (cache/assertions.h) sets it before main(). Context: any.
using LockRankReporter = void (*)();
inline constinit std::atomic<LockRankReporter> lock_rank_reporter{nullptr};

}  // namespace wbfat::sync::inline WBFAT_RT
