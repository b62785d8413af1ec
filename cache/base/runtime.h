// The inline namespace that keeps the two builds of the cache apart.
//
// `cache` and `fs` compile twice from the same sources: `native` (real threads) and `model` (fibers
// under a scheduler). A translation unit sees exactly one of them; the linker cannot mix their
// symbols because every namespace is spelled `namespace wbfat::cache::inline WBFAT_RT`.
#pragma once

#ifndef WBFAT_RT
#define WBFAT_RT native
#endif
