// The assertion freed_blocks (17.6 I11): no write is under way to blocks that are free.
//
// A truncation removes pages, waiting for their writeback, before it frees what they were mapped
// to. If it did not, a write in flight could land in what is another file's by then. So both orders
// are looked for: blocks that are freed under a write, and a write that begins to freed blocks. The
// filesystem tells of every freeing and every allocation; what was free before the assertion was
// turned on is not known.
//
// Units: bytes of the device. Locking: one spin lock, a leaf. Context: any. While the assertion is
// off each call costs two loads.
#pragma once

#include <cstdint>
#include <unordered_map>

#include <boost/icl/interval_set.hpp>

#include "cache/device/block_device.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

class BlockUse {
public:
    void note_freed(std::uint64_t offset_bytes, std::uint64_t length_bytes);
    void note_allocated(std::uint64_t offset_bytes, std::uint64_t length_bytes);
    // Of Bios of pages.
    void note_write_begins(const Bio& bio);
    void note_write_ends(const Bio& bio);

private:
    // Whether there is anything to do. Forgets everything once the assertion is off.
    bool is_in_use();

    using Interval = boost::icl::right_open_interval<std::uint64_t>;
    using Intervals = boost::icl::interval_set<std::uint64_t, std::less, Interval>;

    sync::SpinLock lock_;
    Intervals freed_ GUARDED_BY(lock_);
    std::unordered_map<const Bio*, Interval> writes_ GUARDED_BY(lock_);
    sync::Relaxed<bool> knows_something_{false};  // freed_ or writes_ is not empty
};

}  // namespace wbfat::cache::inline WBFAT_RT
