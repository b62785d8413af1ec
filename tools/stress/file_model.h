// What a file must contain: its size, and which generation wrote each byte.
//
// Invariants
//   M1. Extents do not overlap, are not empty, and end at or below size(). Space between them was
//   never written since
//       the file last reached it: it must read as zeros.
//   M2. Neighbouring extents of one generation are one extent.
//
// Locking: none of its own; the owner of a FileModel serialises.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>

namespace wbfat::tools {

class FileModel {
public:
    [[nodiscard]] std::uint64_t size() const {
        return size_;
    }
    [[nodiscard]] std::size_t nr_extents() const {
        return extents_.size();
    }

    // ftruncate: cuts, or grows with zeros.
    void truncate(std::uint64_t new_size);
    // pwrite: [offset, offset + length) now belongs to `generation`; grows the file where needed.
    void write(std::uint64_t offset, std::uint64_t length, std::uint32_t generation);

    // Calls visit(offset, length, generation) for every run of [offset, offset + length) in order,
    // zeros as generation 0, until visit returns false. The range must lie within the file.
    template <typename Visit>
    void for_each_run(std::uint64_t offset, std::uint64_t length, Visit visit) const;

    // The generation of one byte.
    [[nodiscard]] std::uint32_t generation_at(std::uint64_t offset) const;

private:
    struct Extent {
        std::uint64_t end = 0;  // first byte behind
        std::uint32_t generation = 0;
    };

    void cut(std::uint64_t begin, std::uint64_t end);

    std::uint64_t size_ = 0;
    std::map<std::uint64_t, Extent> extents_;  // key: first byte
};

template <typename Visit>
void FileModel::for_each_run(std::uint64_t offset, std::uint64_t length, Visit visit) const {
    const std::uint64_t end = offset + length;
    auto next = extents_.upper_bound(offset);
    if (next != extents_.begin() && std::prev(next)->second.end > offset) {
        --next;
    }
    while (offset < end) {
        std::uint64_t run_end = end;
        std::uint32_t generation = 0;
        if (next != extents_.end() && next->first <= offset) {
            run_end = next->second.end < end ? next->second.end : end;
            generation = next->second.generation;
            ++next;
        } else if (next != extents_.end() && next->first < end) {
            run_end = next->first;
        }
        if (!visit(offset, run_end - offset, generation)) {
            return;
        }
        offset = run_end;
    }
}

}  // namespace wbfat::tools
