// A table of objects, by address.
#include "cache/sync/object_use.h"

#include <algorithm>

#include "cache/sync/world.h"

namespace wbfat::sync::inline WBFAT_RT::sched {

ObjectUses::Use& ObjectUses::at(const void* object) {
    std::size_t place = mix(0, reinterpret_cast<std::uintptr_t>(object)) >> 52;
    static_assert(kPlaces == std::size_t{1} << (64 - 52));
    while (places_[place].object != object) {
        if (places_[place].object == nullptr) {
            if (nr_used_ == kMaxUsed) {
                no_room_ = {};
                return no_room_;
            }
            ++nr_used_;
            places_[place].object = object;
            break;
        }
        place = (place + 1) % kPlaces;
    }
    return places_[place];
}

LockSet ObjectUses::lock_bit(const void* lock) {
    auto* const end = locks_.begin() + nr_locks_;
    auto* const found = std::find(locks_.begin(), end, lock);
    if (found == end) {
        if (nr_locks_ == locks_.size()) {
            return 0;
        }
        locks_[nr_locks_++] = lock;
    }
    return LockSet{1} << (found - locks_.begin());
}

void ObjectUses::decide() {
    for (Use& use : places_) {
        use.is_mover = use.object != nullptr && commutes(use);
        use.may_be_tried = use.is_tried;
    }
}

bool ObjectUses::is_sound() const {
    return std::none_of(places_.begin(), places_.end(), [](const Use& use) {
        return (use.is_mover && !commutes(use)) || use.is_tried != use.may_be_tried;
    });
}

void ObjectUses::clear() {
    places_ = {};
    nr_used_ = 0;
    locks_ = {};
    nr_locks_ = 0;
}

}  // namespace wbfat::sync::inline WBFAT_RT::sched
