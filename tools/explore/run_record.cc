// Names of verdicts and operations.
#include "tools/explore/run_record.h"

namespace wbfat::explore {

const char* to_string(Verdict verdict) {
    switch (verdict) {
        case Verdict::kOk:
            return "ok";
        case Verdict::kAssertion:
            return "assertion";
        case Verdict::kDeadlock:
            return "deadlock";
        case Verdict::kLostData:
            return "lost data";
        case Verdict::kLivelock:
            return "livelock";
        case Verdict::kNondeterminism:
            return "nondeterminism";
        case Verdict::kDataRace:
            return "data race";
    }
    return "?";
}

const char* to_string(OpKind kind) {
    switch (kind) {
        case OpKind::kStart:
            return "start";
        case OpKind::kLoad:
            return "load";
        case OpKind::kStore:
            return "store";
        case OpKind::kReadModifyWrite:
            return "read-modify-write";
        case OpKind::kLock:
            return "lock";
        case OpKind::kTryLock:
            return "trylock";
        case OpKind::kUnlock:
            return "unlock";
        case OpKind::kLockShared:
            return "lock shared";
        case OpKind::kUnlockShared:
            return "unlock shared";
        case OpKind::kPark:
            return "park";
        case OpKind::kUnpark:
            return "unpark";
        case OpKind::kCondWait:
            return "wait";
        case OpKind::kCondNotify:
            return "notify";
        case OpKind::kJoin:
            return "join";
        case OpKind::kSleep:
            return "sleep";
        case OpKind::kPoint:
            return "point";
        case OpKind::kFinish:
            return "finish";
    }
    return "?";
}

}  // namespace wbfat::explore
