// Clang thread-safety annotations; g++ sees empty macros.
#pragma once

#if defined(__clang__)
#define WBFAT_TSA(x) __attribute__((x))
#else
#define WBFAT_TSA(x)
#endif

#define CAPABILITY(name) WBFAT_TSA(capability(name))
#define SCOPED_CAPABILITY WBFAT_TSA(scoped_lockable)
#define GUARDED_BY(x) WBFAT_TSA(guarded_by(x))
#define PT_GUARDED_BY(x) WBFAT_TSA(pt_guarded_by(x))
#define REQUIRES(...) WBFAT_TSA(requires_capability(__VA_ARGS__))
#define REQUIRES_SHARED(...) WBFAT_TSA(requires_shared_capability(__VA_ARGS__))
#define ACQUIRE(...) WBFAT_TSA(acquire_capability(__VA_ARGS__))
#define ACQUIRE_SHARED(...) WBFAT_TSA(acquire_shared_capability(__VA_ARGS__))
#define RELEASE(...) WBFAT_TSA(release_capability(__VA_ARGS__))
#define RELEASE_SHARED(...) WBFAT_TSA(release_shared_capability(__VA_ARGS__))
#define RELEASE_GENERIC(...) WBFAT_TSA(release_generic_capability(__VA_ARGS__))
#define TRY_ACQUIRE(...) WBFAT_TSA(try_acquire_capability(__VA_ARGS__))
#define EXCLUDES(...) WBFAT_TSA(locks_excluded(__VA_ARGS__))
#define ASSERT_CAPABILITY(x) WBFAT_TSA(assert_capability(x))
#define ACQUIRED_BEFORE(...) WBFAT_TSA(acquired_before(__VA_ARGS__))
#define RETURN_CAPABILITY(x) WBFAT_TSA(lock_returned(x))
#define NO_THREAD_SAFETY_ANALYSIS WBFAT_TSA(no_thread_safety_analysis)
