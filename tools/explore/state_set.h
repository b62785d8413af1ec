// A set of 64-bit hashes: open addressing, nothing but the hashes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace wbfat::explore {

class StateSet {
public:
    // True if it was not there.
    bool insert(std::uint64_t hash) {
        hash += hash == 0 ? 1 : 0;  // 0 marks a free place
        if (size_ * 4 >= places_.size() * 3) {
            grow();
        }
        std::uint64_t& place = find(hash);
        if (place == hash) {
            return false;
        }
        place = hash;
        ++size_;
        return true;
    }
    [[nodiscard]] std::uint64_t size() const {
        return size_;
    }
    [[nodiscard]] std::uint64_t memory_bytes() const {
        return places_.size() * sizeof(std::uint64_t);
    }

private:
    std::uint64_t& find(std::uint64_t hash) {
        std::size_t at = hash & (places_.size() - 1);
        while (places_[at] != 0 && places_[at] != hash) {
            at = (at + 1) & (places_.size() - 1);
        }
        return places_[at];
    }
    void grow() {
        std::vector<std::uint64_t> old(places_.size() * 2);
        old.swap(places_);
        for (const std::uint64_t hash : old) {
            if (hash != 0) {
                find(hash) = hash;
            }
        }
    }

    std::vector<std::uint64_t> places_ = std::vector<std::uint64_t>(1024);
    std::uint64_t size_ = 0;
};

}  // namespace wbfat::explore
