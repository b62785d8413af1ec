// The only door to concurrency: atomics, locks, threads, parking, clocks and named points.
//
// Everything in `cache` and `fs` uses sync:: and nothing of <atomic>, <mutex>, <thread>,
// <condition_variable> or thread_local. That is what lets the very same sources run on real threads
// (native.h) and, in the explorer, on fibers under a deterministic scheduler (model.h): every
// visible operation passes through here.
//
// This page only picks the back-end. Both offer, in namespace wbfat::sync:
//   - Atomic<T>: load, store, peek, exchange, compare_exchange, fetch_{add,sub,or,and,xor};
//   explicit orders
//   - Relaxed<T>: statistics and switches; no interleaving hangs on it
//   - Global<T>: static storage that runs change
//   - SpinLock, SpinLockGuard: short sections; nothing sleeps inside
//   - Mutex, MutexLock, CondVar: wait(lock), wait_for(lock, Nanoseconds); no spurious-wake promises
//   - RwSem, ReadGuard, WriteGuard: shared / exclusive, writer-preferring, not recursive
//   - Parker: one binary token per waiter: park(), park_for(), unpark()
//   - Thread: named, joined in its destructor, with a Role
//   - Task, current_task(): the running thread: id, name, role, parker, pending interruption, ring
//   - TaskRing, current_task_ring(): the last records of every task (task_ring.h)
//   - monotonic_now(): Nanoseconds since an arbitrary start
//   - RoleGuard: another role for a while
//   - ticks(), TickScale: the clock of records
//   - WBFAT_POINT("name") or ("name", page): a named point; while disarmed it costs one relaxed
//     load, and what follows the name is not even looked at
#pragma once

#include "cache/base/runtime.h"

#if defined(WBFAT_MODEL)
#include "cache/sync/model.h"
#else
#include "cache/sync/native.h"
#endif
