// The arenas, the copy, and operator new.
#include "cache/sync/world.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <bitset>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include <sys/mman.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#if defined(WBFAT_MODEL_TSAN)
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace wbfat::sync::inline WBFAT_RT::sched {

namespace {

// The world handles everybody's memory while nobody runs: nothing for a detector to look at.
class Unwatched {
public:
    Unwatched() {
#if defined(WBFAT_MODEL_TSAN)
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
    }
    ~Unwatched() {
#if defined(WBFAT_MODEL_TSAN)
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
#endif
    }
    Unwatched(const Unwatched&) = delete;
    Unwatched& operator=(const Unwatched&) = delete;
};

// Where every sanitizer lets a program put things, each in its own way.
#if defined(WBFAT_MODEL_TSAN)
constexpr std::uintptr_t kBase = 0x20'0000'0000;
#else
constexpr std::uintptr_t kBase = 0x2000'0000'0000;
#endif
constexpr std::size_t kMainBytes = std::size_t{1} << 30;
constexpr std::size_t kTaskBytes = std::size_t{16} << 20;
constexpr std::size_t kGuardBytes = 64 << 10;  // between stacks, never readable
constexpr std::size_t kStackStride = World::kStackBytes + kGuardBytes;
constexpr std::uintptr_t kTasksAt = kBase + kMainBytes;
constexpr std::uintptr_t kStacksAt = kTasksAt + kMaxTasks * kTaskBytes;
constexpr std::uintptr_t kEnd = kStacksAt + kMaxTasks * kStackStride;

constexpr std::size_t kPage = 4096;
constexpr std::size_t kUnit = 16;  // sizes and alignments

// Before every piece of memory: where the arena got it and how long it is.
struct alignas(kUnit) Header {
    std::uint32_t size_class;
    std::uint32_t arena;
    std::byte* start;
};
static_assert(sizeof(Header) == kUnit);

// Classes 1..64 are multiples of 16 bytes, beyond are powers of two.
constexpr unsigned kSmallClasses = 64;
constexpr unsigned kNrClasses = kSmallClasses + 32;

unsigned class_of(std::size_t size) {
    const std::size_t units = (size + kUnit - 1) / kUnit;
    return units <= kSmallClasses
               ? static_cast<unsigned>(units)
               : kSmallClasses +
                     static_cast<unsigned>(std::bit_width((size - 1) / (kSmallClasses * kUnit)));
}
std::size_t size_of_class(unsigned size_class) {
    return size_class <= kSmallClasses ? size_class * kUnit
                                       : (kSmallClasses * kUnit) << (size_class - kSmallClasses);
}

// What is free of an arena. Not in the world's own memory, and put back as a whole: the allocator
// must be right even in runs that went where the world has not learned yet.
struct Arena {
    std::size_t used = 0;
    std::array<std::vector<std::byte*>, kNrClasses> free;  // starts, the last freed first
};
struct Arenas {
    Arena now, saved;
    std::bitset<kNrClasses> touched;  // classes in which they may differ
};

World* the_world = nullptr;
int allocating_for_task = -1;
std::array<Arenas, kMaxTasks + 1> arenas{};
// The most each arena ever used; not part of the state.
std::array<std::size_t, kMaxTasks + 1> peak{};

std::uintptr_t arena_base(int number) {
    return number == kMainTask ? kBase : kTasksAt + static_cast<std::size_t>(number) * kTaskBytes;
}
std::size_t arena_size(int number) {
    return number == kMainTask ? kMainBytes : kTaskBytes;
}
void* take(int number, std::size_t size, std::size_t alignment) {
    Arenas& from = arenas[static_cast<std::size_t>(number)];
    const std::size_t slack = alignment > kUnit ? alignment : 0;
    const unsigned size_class = class_of(std::max(size + slack, kUnit));
    std::vector<std::byte*>& free = from.now.free[size_class];
    std::byte* start = nullptr;
    if (!free.empty()) {
        start = free.back();
        free.pop_back();
        from.touched.set(size_class);
    } else {
        const std::size_t used = from.now.used;
        const std::size_t end = used + sizeof(Header) + size_of_class(size_class);
        if (end > arena_size(number)) {
            return nullptr;
        }
        start = reinterpret_cast<std::byte*>(arena_base(number) + used);
        from.now.used = end;
        peak[static_cast<std::size_t>(number)] =
            std::max(peak[static_cast<std::size_t>(number)], end);
    }
    auto at = reinterpret_cast<std::uintptr_t>(start) + sizeof(Header);
    at = (at + alignment - 1) / alignment * alignment;
    auto* const result = reinterpret_cast<std::byte*>(at);
    *reinterpret_cast<Header*>(result - sizeof(Header)) = {
        .size_class = size_class, .arena = static_cast<std::uint32_t>(number), .start = start};
    return result;
}

bool in_arenas(const void* memory) {
    const auto at = reinterpret_cast<std::uintptr_t>(memory);
    return at >= kBase && at < kStacksAt;
}

void give_back(void* memory) {
    const Header header =
        *reinterpret_cast<Header*>(static_cast<std::byte*>(memory) - sizeof(Header));
    Arenas& owner = arenas[header.arena];
    const World::Outside outside;
    owner.now.free[header.size_class].push_back(header.start);
    owner.touched.set(header.size_class);
}

std::vector<bool> resident_pages(std::byte* start, std::size_t nr_pages) {
    std::vector<unsigned char> answer(nr_pages);
    if (mincore(start, nr_pages * kPage, answer.data()) != 0) {
        return std::vector<bool>(nr_pages, true);
    }
    std::vector<bool> resident(nr_pages);
    for (std::size_t i = 0; i < nr_pages; ++i) {
        resident[i] = (answer[i] & 1) != 0;
    }
    return resident;
}

std::byte* round_down(std::byte* at, std::size_t to) {
    return reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(at) / to * to);
}

struct GlobalEntry {
    void* object;
    std::size_t size_bytes;
};
// Filled by constructors, most of them before main.
std::array<GlobalEntry, 16> registered{};
std::size_t nr_registered = 0;

}  // namespace

void register_global(void* object, std::size_t size_bytes) {
    if (nr_registered < registered.size()) {
        registered[nr_registered++] = {object, size_bytes};
    } else {
        std::abort();
    }
}

World::World() {
    the_world = this;
    void* const base =
        mmap(reinterpret_cast<void*>(kBase), kEnd - kBase, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (base != reinterpret_cast<void*>(kBase)) {
        std::abort();
    }
    for (std::size_t i = 0; i < kMaxTasks; ++i) {
        mprotect(reinterpret_cast<void*>(kStacksAt + i * kStackStride), kGuardBytes, PROT_NONE);
    }
}

void World::allocate_for(int task) {
    allocating_for_task = task;
}
int World::allocating_for() {
    return allocating_for_task;
}

std::byte* World::stack(int task) const {
    return reinterpret_cast<std::byte*>(kStacksAt + static_cast<std::size_t>(task) * kStackStride +
                                        kGuardBytes);
}

int World::stack_owner(const void* object) {
    const std::size_t offset = reinterpret_cast<std::uintptr_t>(object) - kStacksAt;
    return offset < kEnd - kStacksAt ? static_cast<int>(offset / kStackStride) : -1;
}

bool World::is_global(const void* object) {
    const auto* const at = static_cast<const std::byte*>(object);
    for (std::size_t i = 0; i < nr_registered; ++i) {
        const auto* const start = static_cast<const std::byte*>(registered[i].object);
        if (at >= start && at < start + registered[i].size_bytes) {
            return true;
        }
    }
    return false;
}

void World::note_statistic(std::uintptr_t word) {
    if (nr_notes_ < notes_.size()) {
        notes_[nr_notes_++] = {word * sizeof(std::uint64_t), true};
    } else {
        recent_statistics_ = {};  // another time
    }
}

void World::add_stack_part(std::byte* from, std::byte* to) {
    stack_parts_.push_back({from, to});
}

void World::clear() {
    for (int i = 0; i <= kMaxTasks; ++i) {
        std::size_t& used = peak[static_cast<std::size_t>(i)];
        if (used != 0) {
            madvise(reinterpret_cast<void*>(arena_base(i)), (used + kPage - 1) / kPage * kPage,
                    MADV_DONTNEED);
            used = 0;
        }
        arenas[static_cast<std::size_t>(i)] = {};
    }
    stack_parts_.clear();
    saved_.clear();
    blocks_.clear();
    relaxed_.clear();
    copies_.clear();
    hashed_.clear();
    recent_ = {};
    recent_statistics_ = {};
    nr_notes_ = 0;
    found_new_ = must_rebuild_ = false;
}

std::vector<World::Range> World::regions() const {
    std::vector<Range> all = stack_parts_;
    for (std::size_t i = 0; i < nr_registered; ++i) {
        auto* const start = static_cast<std::byte*>(registered[i].object);
        all.push_back({start, start + registered[i].size_bytes});
    }
    for (int i = 0; i <= kMaxTasks; ++i) {
        if (const std::size_t used = peak[static_cast<std::size_t>(i)]) {
            auto* const start = reinterpret_cast<std::byte*>(arena_base(i));
            all.push_back({start, start + used});
        }
    }
    return all;
}

void World::snapshot() {
    const Unwatched unwatched;
    for (Arenas& it : arenas) {
        it.saved = it.now;
        it.touched.reset();
    }
    saved_.clear();
    blocks_.clear();
    relaxed_.clear();
    recent_ = {};
    recent_statistics_ = {};
    nr_notes_ = 0;
    found_new_ = must_rebuild_ = false;
    for (const Range& region : regions()) {
        std::byte* const first = round_down(region.start, kPage);
        const auto nr_pages = static_cast<std::size_t>(region.end - first + kPage - 1) / kPage;
        const std::vector<bool> resident = resident_pages(first, nr_pages);
        for (std::size_t i = 0; i < nr_pages; ++i) {
            std::byte* const from = std::max(region.start, first + i * kPage);
            std::byte* const to = std::min(region.end, first + (i + 1) * kPage);
            if (resident[i]) {
                saved_.push_back({from, std::vector<std::byte>(from, to)});
            }
        }
    }
    std::sort(saved_.begin(), saved_.end(),
              [](const Saved& a, const Saved& b) { return a.at < b.at; });
    // What a call returns to must be put back even before a run has shown that it changes.
    for (const Range& part : stack_parts_) {
        for (std::byte* at = round_down(part.start, kBlock); at < part.end; at += kBlock) {
            blocks_.insert(at);
        }
    }
    rebuild();
}

void World::note(std::uintptr_t block) {
    auto* const at = reinterpret_cast<std::byte*>(block);
    const bool belongs_to_a_call =
        stack_owner(at) >= 0 &&
        std::none_of(stack_parts_.begin(), stack_parts_.end(),
                     [at](const Range& part) { return at + kBlock > part.start && at < part.end; });
    if (belongs_to_a_call) {
        return;
    }
    if (nr_notes_ < notes_.size()) {
        notes_[nr_notes_++] = {block, false};
    } else {
        recent_ = {};  // another time
    }
}

void World::take_notes() {
    for (std::size_t i = 0; i < nr_notes_; ++i) {
        auto* const at = reinterpret_cast<std::byte*>(notes_[i].at);
        if ((notes_[i].is_relaxed ? relaxed_ : blocks_).insert(at).second) {
            found_new_ = must_rebuild_ = true;
        }
    }
    nr_notes_ = 0;
}

void World::compare(std::byte* at, const std::byte* saved, std::size_t size_bytes) {
    static constexpr std::array<std::byte, kBlock> kZeros{};
    for (std::size_t done = 0; done < size_bytes;) {
        std::byte* const block = at + done;
        const auto offset = static_cast<std::size_t>(block - round_down(block, kBlock));
        const std::size_t length = std::min(kBlock - offset, size_bytes - done);
        const std::byte* const was = saved != nullptr ? saved + done : kZeros.data();
        if (std::memcmp(block, was, length) != 0 &&
            blocks_.insert(round_down(block, kBlock)).second) {
            found_new_ = true;
        }
        done += length;
    }
}

bool World::learn() {
    const Unwatched unwatched;
    const Outside outside;
    take_notes();
    for (const Range& region : regions()) {
        std::byte* const first = round_down(region.start, kPage);
        const auto nr_pages = static_cast<std::size_t>(region.end - first + kPage - 1) / kPage;
        const std::vector<bool> resident = resident_pages(first, nr_pages);
        for (std::size_t i = 0; i < nr_pages; ++i) {
            if (!resident[i]) {
                continue;
            }
            std::byte* const from = std::max(region.start, first + i * kPage);
            std::byte* const to = std::min(region.end, first + (i + 1) * kPage);
            const auto found = std::lower_bound(
                saved_.begin(), saved_.end(), from,
                [](const Saved& saved, const std::byte* where) { return saved.at < where; });
            const bool known = found != saved_.end() && found->at == from;
            const std::size_t size = static_cast<std::size_t>(to - from);
            const std::size_t saved_size = known ? std::min(found->bytes.size(), size) : 0;
            compare(from, known ? found->bytes.data() : nullptr, known ? saved_size : size);
            if (known && size > saved_size) {
                compare(from + saved_size, nullptr, size - saved_size);
            }
        }
    }
    if (found_new_) {
        rebuild();
    }
    return std::exchange(found_new_, false);
}

void World::rebuild() {
    must_rebuild_ = false;
    ++version_;
    copies_.clear();
    hashed_.clear();
    std::vector<Range> all = regions();
    std::sort(all.begin(), all.end(),
              [](const Range& a, const Range& b) { return a.start < b.start; });
    for (const Range& region : all) {
        for (auto block = blocks_.lower_bound(round_down(region.start, kBlock));
             block != blocks_.end() && *block < region.end; ++block) {
            std::byte* const from = std::max(*block, region.start);
            std::byte* const to = std::min(*block + kBlock, region.end);
            const auto size = static_cast<std::size_t>(to - from);
            std::vector<std::byte> bytes(size);
            const auto after = std::upper_bound(
                saved_.begin(), saved_.end(), from,
                [](const std::byte* where, const Saved& saved) { return where < saved.at; });
            if (after != saved_.begin()) {
                const Saved& saved = *std::prev(after);
                const auto offset = static_cast<std::size_t>(from - saved.at);
                if (offset < saved.bytes.size()) {
                    std::memcpy(bytes.data(), saved.bytes.data() + offset,
                                std::min(size, saved.bytes.size() - offset));
                }
            }
            if (!copies_.empty() && copies_.back().to + copies_.back().bytes.size() == from) {
                copies_.back().bytes.insert(copies_.back().bytes.end(), bytes.begin(), bytes.end());
            } else {
                copies_.push_back({from, std::move(bytes)});
            }
        }
    }
    changing_bytes_ = 0;
    for (const Copy& copy : copies_) {
        changing_bytes_ += copy.bytes.size();
        std::byte* start = copy.to;
        std::byte* const end = copy.to + copy.bytes.size();
        for (auto word = relaxed_.lower_bound(start); word != relaxed_.end() && *word < end;
             ++word) {
            if (*word > start) {
                hashed_.push_back({start, *word});
            }
            start = *word + sizeof(std::uint64_t);
        }
        if (start < end) {
            hashed_.push_back({start, end});
        }
    }
}

void World::restore() {
    const Unwatched unwatched;
    take_notes();
    if (must_rebuild_) {
        rebuild();
    }
    for (const Copy& copy : copies_) {
        std::memcpy(copy.to, copy.bytes.data(), copy.bytes.size());
    }
    for (Arenas& it : arenas) {
        it.now.used = it.saved.used;
        for (std::size_t i = it.touched._Find_first(); i < it.touched.size();
             i = it.touched._Find_next(i)) {
            it.now.free[i] = it.saved.free[i];
        }
        it.touched.reset();
    }
}

namespace {

// Numbers among the pointers of Checkpoint::free.
std::byte* as_pointer(std::uintptr_t number) {
    return reinterpret_cast<std::byte*>(number);
}

void save_arenas(std::vector<std::byte*>& into) {
    into.clear();
    for (const Arenas& it : arenas) {
        into.push_back(as_pointer(it.now.used));
        into.push_back(as_pointer(it.touched.any() ? it.touched.count() : 0));
        for (std::size_t i = it.touched._Find_first(); i < it.touched.size();
             i = it.touched._Find_next(i)) {
            const std::vector<std::byte*>& free = it.now.free[i];
            into.push_back(as_pointer(i));
            into.push_back(as_pointer(free.size()));
            into.insert(into.end(), free.begin(), free.end());
        }
    }
}

void load_arenas(const std::vector<std::byte*>& from) {
    auto at = from.begin();
    const auto number = [&at] { return reinterpret_cast<std::uintptr_t>(*at++); };
    for (Arenas& it : arenas) {
        for (std::size_t i = it.touched._Find_first(); i < it.touched.size();
             i = it.touched._Find_next(i)) {
            it.now.free[i] = it.saved.free[i];
        }
        it.touched.reset();
        it.now.used = number();
        for (std::size_t left = number(); left > 0; --left) {
            const std::size_t size_class = number();
            const auto size = static_cast<std::ptrdiff_t>(number());
            it.now.free[size_class].assign(at, at + size);
            it.touched.set(size_class);
            at += size;
        }
    }
}

}  // namespace

void World::save(Checkpoint& into) {
    const Unwatched unwatched;
    take_notes();
    if (must_rebuild_) {
        rebuild();
    }
    into.version = version_;
    into.bytes.resize(changing_bytes_);
    std::byte* to = into.bytes.data();
    for (const Copy& copy : copies_) {
        std::memcpy(to, copy.to, copy.bytes.size());
        to += copy.bytes.size();
    }
    save_arenas(into.free);
}

bool World::load(const Checkpoint& from) {
    const Unwatched unwatched;
    take_notes();
    if (must_rebuild_ || from.version != version_) {
        return false;
    }
    const std::byte* at = from.bytes.data();
    for (const Copy& copy : copies_) {
        std::memcpy(copy.to, at, copy.bytes.size());
        at += copy.bytes.size();
    }
    load_arenas(from.free);
    return true;
}

std::uint64_t World::hash() const {
    std::uint64_t hash = 0;
    for (const Range& range : hashed_) {
        hash =
            mix(hash, XXH3_64bits(range.start, static_cast<std::size_t>(range.end - range.start)));
    }
    return hash;
}

}  // namespace wbfat::sync::inline WBFAT_RT::sched

namespace {

namespace sched = wbfat::sync::sched;

void* allocate(std::size_t size, std::size_t alignment) noexcept {
    if (const int task = sched::allocating_for_task; task >= 0) {
        void* const memory = sched::take(task, size, alignment);
        // Before anything is known of it a run that is gone on with would find there what another
        // run has left.
        if (task != sched::kMainTask && memory != nullptr) {
            sched::the_world->will_write(memory, size);
        }
        return memory;
    }
    return alignment <= alignof(std::max_align_t)
               ? std::malloc(size)
               : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

void* allocate_or_throw(std::size_t size, std::size_t alignment) {
    if (void* const memory = allocate(size, alignment)) {
        return memory;
    }
    throw std::bad_alloc();
}

void release(void* memory) noexcept {
    if (memory == nullptr) {
        return;
    }
    if (sched::in_arenas(memory)) {
        sched::give_back(memory);
    } else {
        std::free(memory);
    }
}

}  // namespace

void* operator new(std::size_t size) {
    return allocate_or_throw(size, alignof(std::max_align_t));
}
void* operator new(std::size_t size, std::align_val_t alignment) {
    return allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size, alignof(std::max_align_t));
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
    return allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept {
    release(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
    release(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
    release(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
    release(memory);
}
