// A device that remembers: a log of every write, discard and flush, and what a power cut could have
// left of it.
//
// The log is in the order of completion. A flush stands where it *began*: only writes completed by
// then are covered (B4), so a write that completes while a flush runs comes after it and may still
// be lost. That is the strictest reading, and the one dm-log-writes has.
//
// Crash states. The entries between two flushes form an epoch. At the moment an entry was logged a
// power cut leaves everything of the earlier epochs, and of the current epoch any subset of its
// writes, each whole or torn at sectors.
//
// Invariants
//   - L1. The log has the very bytes that reached the inner device: they are copied at submit, and
//     the copy is written.
//   - L2. A write is in the log before its end_io runs, a flush before flush() returns.
//   - L3. Failed writes are not in the log; a failed flush is there as a mark, and ends no epoch.
//
// Locking: lock_ is a leaf; neither the inner device nor end_io is called with it held.
//
// Source: the file format is that of Linux drivers/md/dm-log-writes.c, described in
// Documentation/admin-guide/device-mapper/log-writes.rst.
// Differs: dm logs completed writes only at the next flush, which gives the same epochs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cache/base/thread_annotations.h"
#include "cache/device/block_device.h"
#include "cache/sync/sync.h"

namespace wbfat::cache::inline WBFAT_RT {

struct LogEntry {
    enum class Kind : std::uint8_t { kWrite, kDiscard, kFlush, kMark };

    Kind kind = Kind::kWrite;
    bool fua = false;  // a write that is durable by itself (logs of dm-log-writes only)
    std::uint64_t offset_bytes = 0;
    std::uint64_t length_bytes = 0;
    std::vector<std::byte> data{};  // kWrite
    std::string name{};             // kMark

    [[nodiscard]] bool changes_bytes() const {
        return kind == Kind::kWrite || kind == Kind::kDiscard;
    }
    friend bool operator==(const LogEntry&, const LogEntry&) = default;
};

using WriteLog = std::vector<LogEntry>;

// The entries [begin, end) between two flushes. The flush that ends it, if any, is entry `end`.
struct LogEpoch {
    std::size_t begin = 0;
    std::size_t end = 0;

    friend bool operator==(const LogEpoch&, const LogEpoch&) = default;
};

// In order, together all entries but the flushes. Epochs that change no byte are listed too.
std::vector<LogEpoch> flush_epochs(const WriteLog& log);
// The epoch that is open after the first `up_to_entry` entries: from the last flush among them to
// `up_to_entry`.
LogEpoch open_epoch(const WriteLog& log, std::size_t up_to_entry);
// The entry of the mark, or log.size().
std::size_t find_mark(const WriteLog& log, std::string_view name);

// Bytes outside the image are ignored: a log may be longer than the part under test. Discarded
// ranges become zeros.
void apply_entry(const LogEntry& entry, std::span<std::byte> image);
// The first `up_to_entry` entries, in order, onto `image`, which holds the state before the log.
void replay(const WriteLog& log, std::size_t up_to_entry, std::span<std::byte> image);

// What becomes of a write of the open epoch.
enum class WriteFate : std::uint8_t { kLost, kKept };
using ChooseFate = std::function<WriteFate(std::size_t entry)>;
// `image` holds the state at epoch.begin. Writes with fua are kept without asking.
void apply_epoch(const WriteLog& log, const LogEpoch& epoch, const ChooseFate& choose,
                 std::span<std::byte> image);

enum class Tearing : std::uint8_t {
    kNone,
    kPrefix,      // of a torn write the first sectors survive
    kAnySectors,  // any of its sectors
};

struct CrashOptions {
    std::uint64_t seed = 0;
    unsigned lost_percent = 50;  // of the writes
    unsigned torn_percent = 25;  // of the writes that are not lost
    Tearing tearing = Tearing::kNone;
};

// One state a power cut after `up_to_entry` entries could have left; the same for the same
// arguments. `image` holds the state before the log.
void build_crash_state(const WriteLog& log, std::size_t up_to_entry, const CrashOptions& options,
                       std::span<std::byte> image);
// The same on an image that holds the state at epoch.begin: for many states of one epoch.
void apply_epoch_at_random(const WriteLog& log, const LogEpoch& epoch, const CrashOptions& options,
                           std::span<std::byte> image);

// The on-disk format of dm-log-writes, to exchange logs with replay-log and QEMU's blklogwrites.
// A mark's name is cut to what fits into a sector beside the entry.
// Errors: EINVAL when an entry is not in whole sectors; what write(2) gives.
Result<> save_log(const WriteLog& log, const std::string& path, std::uint32_t sector_bytes = 512);
// Errors: EINVAL when the file is not a log or ends early; what read(2) gives.
Result<WriteLog> load_log(const std::string& path);

class RecordingDevice final : public BlockDevice {
public:
    // `inner` outlives this.
    explicit RecordingDevice(BlockDevice& inner);
    // Waits for what is in flight: its completion still wants to be logged.
    ~RecordingDevice() override;
    RecordingDevice(const RecordingDevice&) = delete;
    RecordingDevice& operator=(const RecordingDevice&) = delete;

    // A name for this moment: mark("fsync a.txt") after the fsync returned.
    void mark(std::string name) EXCLUDES(lock_);
    std::size_t nr_entries() const EXCLUDES(lock_);
    WriteLog log() const EXCLUDES(lock_);
    // The log, and an empty one from here on. Context: no flush running.
    WriteLog take_log() EXCLUDES(lock_);

    const DeviceGeometry& geometry() const override;
    const std::string& name() const override;
    void submit(Bio& bio) override EXCLUDES(lock_);
    Result<> flush() override EXCLUDES(lock_);
    Result<> discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) override
        EXCLUDES(lock_);

private:
    struct Recorded;
    struct Slot {
        LogEntry entry;
        std::uint64_t flush_ticket = 0;  // of a flush that has not returned; 0 for all else
    };

    static void write_done(Bio& inner);
    void append(LogEntry entry) EXCLUDES(lock_);

    // Constant after construction.
    BlockDevice& inner_;

    mutable sync::Mutex lock_;
    sync::CondVar idle_;
    std::vector<Slot> slots_ GUARDED_BY(lock_);
    std::uint64_t last_ticket_ GUARDED_BY(lock_) = 0;
    std::size_t nr_in_flight_ GUARDED_BY(lock_) = 0;
};

}  // namespace wbfat::cache::inline WBFAT_RT
