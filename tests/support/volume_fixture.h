// A FAT volume in memory for tests of fs: made by our own mkfs, mounted on a small cache, checked
// by fsck.fat.
//
// The device is a MemoryDevice under a RecordingDevice under a FaultyDevice, so a test may look at
// what was written in which order, and may make any of it fail; failed writes are not in the log.
// The cache has no periodic writeback: what reaches the disk was asked for. The clock stands still
// until the test moves it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "cache/device/faulty_device.h"
#include "cache/device/memory_device.h"
#include "cache/device/recording_device.h"
#include "cache/page_cache.h"
#include "fs/file.h"
#include "fs/volume.h"

namespace wbfat::fs::inline WBFAT_RT {

struct VolumeSpec {
    unsigned fat_bits = 16;
    std::uint64_t size_bytes = 16U << 20;
    std::uint32_t sector_bytes = 512;
    std::uint32_t sectors_per_cluster = 0;  // 0: mkfs decides
    std::uint32_t nr_fats = 2;
    std::uint64_t cache_bytes = 4U << 20;
    cache::CompletionContext completion = cache::CompletionContext::kInSubmit;
    bool can_be_written = true;
    MountOptions options = default_options();

    // Times in UTC: the same on every machine.
    static MountOptions default_options() {
        MountOptions options;
        options.time_offset_set = true;
        return options;
    }

    // "fat16 of 8 MiB, sectors of 512": for test names and traces.
    std::string to_string() const;
};

struct FsckResult {
    int status = -1;  // exit status; 0: not a word to say
    std::string output;
};
// `fsck.fat -n` on a copy of the image.
FsckResult run_fsck(std::span<const std::byte> image);

class TestVolume {
public:
    // Formats; does not mount.
    explicit TestVolume(const VolumeSpec& spec = {});
    ~TestVolume();
    TestVolume(const TestVolume&) = delete;
    TestVolume& operator=(const TestVolume&) = delete;

    // Fails the test when it cannot. `why()` is the sentence of a failed try_mount.
    void mount();
    Result<> try_mount();
    // Unmounts cleanly and drops volume and cache; fails the test on an error.
    void unmount();
    // Drops volume and cache without a word, as a power cut would.
    void crash();
    void remount() {
        unmount();
        mount();
    }

    bool is_mounted() const {
        return volume_ != nullptr;
    }
    Volume& volume() {
        return *volume_;
    }
    cache::MemoryDevice& memory() {
        return *memory_;
    }
    cache::RecordingDevice& recorder() {
        return *recorder_;
    }
    cache::FaultyDevice& faults() {
        return *faults_;
    }
    MountOptions& options() {
        return spec_.options;
    }
    const std::string& why() const {
        return why_;
    }
    // What the volume logged since it was made, one sentence a line.
    std::string logged() const;

    FsckResult fsck() const {
        return run_fsck(memory_->bytes());
    }
    // A copy of the device.
    std::vector<std::byte> image() const;

    void set_time(std::int64_t seconds);

    // --- verbs; each fails the test on an error ---
    InodeRef root();
    InodeRef make(std::string_view name, std::size_t size_bytes = 0, std::uint8_t seed = 1);
    InodeRef make_in(Inode& dir, std::string_view name, std::size_t size_bytes = 0,
                     std::uint8_t seed = 1);
    InodeRef make_directory(Inode& dir, std::string_view name);
    InodeRef open(Inode& dir, std::string_view name);
    void write(const InodeRef& inode, std::uint64_t offset_bytes, std::size_t size_bytes,
               std::uint8_t seed);
    std::vector<std::byte> read(const InodeRef& inode);
    void truncate(const InodeRef& inode, std::uint64_t size_bytes);
    void fsync(const InodeRef& inode);
    void commit();

private:
    VolumeSpec spec_;
    std::unique_ptr<cache::MemoryDevice> memory_;
    std::unique_ptr<cache::RecordingDevice> recorder_;
    std::unique_ptr<cache::FaultyDevice> faults_;
    std::unique_ptr<cache::PageCache> cache_;
    std::unique_ptr<Volume> volume_;
    std::string why_;
    mutable sync::Mutex log_lock_;
    std::string log_ GUARDED_BY(log_lock_);
    sync::Atomic<std::int64_t> seconds_{1'700'000'000};
};

// `size_bytes` bytes that depend on the seed and on where they are in the file.
std::vector<std::byte> pattern(std::uint64_t offset_bytes, std::size_t size_bytes,
                               std::uint8_t seed);

}  // namespace wbfat::fs::inline WBFAT_RT
