// An image a power cut could have left: built from a write log, undone again, hashed as it changes,
// shown to fsck.fat.
//
// The bytes are a memory file, so that fsck.fat can open them by name without a copy. The hash is
// kept per sector: a state costs what its writes cost, whatever the size of the volume.
//
// Locking: none; one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "cache/device/recording_device.h"

namespace wbfat::fs::inline WBFAT_RT {

class CrashImage {
public:
    // Throws std::system_error when there is no memory for it.
    explicit CrashImage(std::span<const std::byte> image);
    ~CrashImage();
    CrashImage(const CrashImage&) = delete;
    CrashImage& operator=(const CrashImage&) = delete;

    std::span<const std::byte> bytes() const {
        return bytes_;
    }
    // Equal for equal content, and otherwise as good as never.
    std::uint64_t hash() const {
        return hash_;
    }
    void write(std::uint64_t offset_bytes, std::span<const std::byte> data);

    // What is written between begin_trial() and end_trial() is taken back.
    void begin_trial();
    void end_trial();

    // `fsck.fat -n`, line by line. An exit status other than 0 and 1 is one more line.
    std::vector<std::string> fsck() const;

private:
    struct Undo {
        std::uint64_t offset_bytes;
        std::vector<std::byte> data;
    };

    std::uint64_t hash_of_sectors(std::uint64_t offset_bytes, std::uint64_t length_bytes) const;

    int fd_ = -1;
    std::span<std::byte> bytes_;
    std::uint64_t hash_ = 0;
    bool on_trial_ = false;
    std::vector<Undo> undo_;
};

// Applies entry `entry` of the log; with `keep_sector`, only the sectors of 512 bytes it answers
// true for.
void apply_to(CrashImage& image, const cache::LogEntry& entry,
              const std::function<bool()>& keep_sector = nullptr);

}  // namespace wbfat::fs::inline WBFAT_RT
