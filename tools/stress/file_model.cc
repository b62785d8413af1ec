// The extents of the model.
#include "tools/stress/file_model.h"

#include <algorithm>
#include <iterator>

namespace wbfat::tools {

void FileModel::truncate(std::uint64_t new_size) {
    if (new_size < size_) {
        cut(new_size, size_);
    }
    size_ = new_size;
}

void FileModel::write(std::uint64_t offset, std::uint64_t length, std::uint32_t generation) {
    if (length == 0) {
        return;
    }
    std::uint64_t begin = offset;
    std::uint64_t end = offset + length;
    cut(begin, end);
    auto next = extents_.lower_bound(end);
    if (next != extents_.end() && next->first == end && next->second.generation == generation) {
        end = next->second.end;
        next = extents_.erase(next);
    }
    if (next != extents_.begin()) {
        const auto previous = std::prev(next);
        if (previous->second.end == begin && previous->second.generation == generation) {
            begin = previous->first;
            extents_.erase(previous);
        }
    }
    extents_[begin] = {.end = end, .generation = generation};
    size_ = std::max(size_, end);
}

std::uint32_t FileModel::generation_at(std::uint64_t offset) const {
    const auto next = extents_.upper_bound(offset);
    if (next == extents_.begin()) {
        return 0;
    }
    const auto& extent = std::prev(next)->second;
    return extent.end > offset ? extent.generation : 0;
}

// Removes [begin, end) from the extents, splitting those that cross its ends.
void FileModel::cut(std::uint64_t begin, std::uint64_t end) {
    auto it = extents_.upper_bound(begin);
    if (it != extents_.begin() && std::prev(it)->second.end > begin) {
        --it;
    }
    while (it != extents_.end() && it->first < end) {
        const std::uint64_t first = it->first;
        const Extent extent = it->second;
        it = extents_.erase(it);
        if (first < begin) {
            extents_[first] = {.end = begin, .generation = extent.generation};
        }
        if (extent.end > end) {
            it = extents_
                     .insert_or_assign(end,
                                       Extent{.end = extent.end, .generation = extent.generation})
                     .first;
        }
    }
}

}  // namespace wbfat::tools
