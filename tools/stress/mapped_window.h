// A shared mapping of a part of a file that outlives single operations, with SIGBUS turned into an
// answer.
//
// Keeping the mapping while the file is truncated, written back and grown again is the point: the
// pages stay in the page table, so write-protection for writeback and unmapping on truncate are
// exercised.
//
// Locking: one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace wbfat::tools {

class MappedWindow {
public:
    MappedWindow() = default;
    ~MappedWindow();
    MappedWindow(const MappedWindow&) = delete;
    MappedWindow& operator=(const MappedWindow&) = delete;

    // Makes [offset, offset + length) accessible. Returns 0 or the errno of mmap.
    int cover(int fd, std::uint64_t offset, std::uint64_t length);
    void drop();

    // Copy in and out, page by page; requires cover(). Returns the bytes copied before the first
    // SIGBUS.
    std::size_t store(std::uint64_t offset, std::span<const std::byte> data);
    std::size_t load(std::uint64_t offset, std::span<std::byte> data);
    // msync(MS_SYNC) of the pages of the range. Returns 0 or an errno.
    int sync(std::uint64_t offset, std::uint64_t length);

private:
    std::byte* at(std::uint64_t offset) {
        return base_ + (offset - begin_);
    }

    std::byte* base_ = nullptr;
    std::uint64_t begin_ = 0;   // file offset of base_
    std::uint64_t length_ = 0;  // bytes mapped
};

// Once per process, before the first store or load.
void install_sigbus_handler();

}  // namespace wbfat::tools
