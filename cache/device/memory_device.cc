// The device in RAM: one anonymous mapping and memcpy.
#include "cache/device/memory_device.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include <sys/mman.h>

#include "cache/base/units.h"
#include "cache/device/completion_thread.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

std::byte* map_memory(std::uint64_t size_bytes) {
    if (size_bytes == 0) {
        return nullptr;
    }
    void* memory = ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        throw std::bad_alloc();
    }
    return static_cast<std::byte*>(memory);
}

}  // namespace

MemoryDevice::MemoryDevice(std::uint64_t size_bytes) : MemoryDevice(size_bytes, Options{}) {}

MemoryDevice::MemoryDevice(std::uint64_t size_bytes, Options options)
    : geometry_{.size_bytes = size_bytes,
                .logical_block_bytes = options.logical_block_bytes,
                .read_only = options.read_only,
                .removable = options.removable,
                .can_discard = true},
      name_(std::move(options.name)),
      memory_(map_memory(size_bytes)) {
    if (options.completion == CompletionContext::kOnThread) {
        thread_ = std::make_unique<CompletionThread>();
    }
}

MemoryDevice::MemoryDevice(std::span<const std::byte> image) : MemoryDevice(image, Options{}) {}

MemoryDevice::MemoryDevice(std::span<const std::byte> image, Options options)
    : MemoryDevice(image.size(), std::move(options)) {
    std::ranges::copy(image, memory_);
}

MemoryDevice::~MemoryDevice() {
    thread_.reset();
    if (memory_ != nullptr) {
        ::munmap(memory_, geometry_.size_bytes);
    }
}

const DeviceGeometry& MemoryDevice::geometry() const {
    return geometry_;
}

const std::string& MemoryDevice::name() const {
    return name_;
}

void MemoryDevice::submit(Bio& bio) {
    if (thread_ == nullptr) {
        copy(bio);
        return;
    }
    thread_->post([this, &bio] { copy(bio); });
}

void MemoryDevice::copy(Bio& bio) {
    const int error = check_bio(geometry_, bio);
    if (error == 0) {
        std::byte* place = memory_ + bio.offset_bytes;
        for (const BioSegment& segment : bio.segments) {
            const bool reading = bio.op == BioOp::kRead;
            std::memcpy(reading ? segment.data : place, reading ? place : segment.data,
                        segment.length_bytes);
            place += segment.length_bytes;
        }
    }
    bio.complete(error);
}

Result<> MemoryDevice::flush() {
    return {};
}

Result<> MemoryDevice::discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    if (const int error = check_discard(geometry_, offset_bytes, length_bytes); error != 0) {
        return Errno{error};
    }
    const std::uint64_t end = offset_bytes + length_bytes;
    const std::uint64_t first_page = (offset_bytes + kPageSize - 1) & ~std::uint64_t{kPageSize - 1};
    const std::uint64_t last_page = end & ~std::uint64_t{kPageSize - 1};
    if (first_page >= last_page) {
        std::memset(memory_ + offset_bytes, 0, length_bytes);
        return {};
    }
    std::memset(memory_ + offset_bytes, 0, first_page - offset_bytes);
    std::memset(memory_ + last_page, 0, end - last_page);
    // Private anonymous pages read as zeros after this (D1).
    if (::madvise(memory_ + first_page, last_page - first_page, MADV_DONTNEED) != 0) {
        return Errno{errno};
    }
    return {};
}

std::span<std::byte> MemoryDevice::bytes() {
    return {memory_, geometry_.size_bytes};
}

std::span<const std::byte> MemoryDevice::bytes() const {
    return {memory_, geometry_.size_bytes};
}

}  // namespace wbfat::cache::inline WBFAT_RT
