// One of the two directories: carries out operations and remembers open files. Knows nothing of
// FAT.
#pragma once

#include <fcntl.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <sys/stat.h>

#include "tests/mount/model/op.h"

namespace wbfat::model {

inline constexpr unsigned kNrSlots = 24;  // open files at a time

// What a call answered.
struct Outcome {
    std::int64_t value = 0;
    int error = 0;
    std::optional<struct stat> stat;

    static Outcome failed(int error) {
        return {-1, error, std::nullopt};
    }
    bool ok() const {
        return error == 0;
    }
};

std::string to_text(const Outcome& outcome);

class Side {
public:
    // max_io: longest read or write; max_map: bytes mapped. Throws std::system_error if `directory`
    // cannot be opened.
    Side(const std::string& directory, std::size_t max_io, std::size_t max_map);
    ~Side();
    Side(const Side&) = delete;
    Side& operator=(const Side&) = delete;

    // path, path2: the names of `op` as this side knows them.
    Outcome run(const Op& op, const std::string& path, const std::string& path2);
    // What the last reading operation read: valid until the next one.
    std::span<const std::byte> data() const {
        return {buffer_.data(), data_bytes_};
    }
    int root() const {
        return root_;
    }
    bool is_open(unsigned slot) const {
        return slots_[slot].fd >= 0;
    }
    bool is_mapped(unsigned slot) const {
        return slots_[slot].map != nullptr;
    }
    struct stat fstat(unsigned slot) const;
    int access_mode(unsigned slot) const {
        return slots_[slot].flags & O_ACCMODE;
    }
    bool is_append(unsigned slot) const {
        return (slots_[slot].flags & O_APPEND) != 0;
    }
    std::uint64_t position(unsigned slot) const;
    // O_DIRECT is asked for where the caller says so.
    void use_direct(bool yes) {
        direct_ = yes;
    }

private:
    struct Slot {
        int fd = -1;
        int flags = 0;
        std::byte* map = nullptr;
    };

    Outcome run_on_slot(const Op& op);
    Outcome run_on_path(const Op& op, const std::string& path, const std::string& path2);
    Outcome open(const Op& op, const std::string& path);
    Outcome close(Slot& slot);
    Outcome write(const Op& op, int fd);
    Outcome read(const Op& op, int fd);
    Outcome copy_range(const Op& op);
    Outcome map(Slot& slot);
    Outcome touch_map(const Op& op, Slot& slot);
    Outcome unmap(Slot& slot) const;
    Outcome fstat_outcome(int fd) const;
    Outcome read_file(const std::string& path);
    Outcome replace(const Op& op, const std::string& path);
    Outcome fsync_dir(const std::string& path) const;

    int root_ = -1;
    bool direct_ = false;
    std::size_t max_map_;
    std::size_t data_bytes_ = 0;
    std::vector<std::byte> buffer_;
    std::array<Slot, kNrSlots> slots_{};
};

// `out` becomes bytes that depend on `value` and on where they are.
void fill_pattern(std::span<std::byte> out, std::uint64_t value);
timespec seconds_to_timespec(std::uint64_t seconds);

}  // namespace wbfat::model
