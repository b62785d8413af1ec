// One file of a few pages on a memory device, with the real page cache around it: where the rounds
// of wbfat-lab-rounds happen.
//
// The device completes on four threads when a rule is armed (LatencyDevice), so one held completion
// holds up no other. The flusher has no period: who writes when is the round's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cache/address_space.h"
#include "cache/device/latency_device.h"
#include "cache/device/memory_device.h"
#include "cache/page_cache.h"
#include "cache/sync/sync.h"
#include "cache/writeback.h"

namespace wbfat::tools {

// A file whose byte n lies at device byte start + n.
class SceneFile final : public cache::AddressSpaceOps {
public:
    SceneFile(cache::PageCache& cache, cache::BlockDevice& device, std::uint64_t start_bytes,
              std::string name);
    // As an evicted inode does.
    ~SceneFile() override;

    cache::AddressSpace& mapping() {
        return mapping_;
    }
    // One write cycle that dirties `length` bytes of the page; grows the file where needed.
    // Errors end the program: memory does not fail.
    void dirty(cache::pgoff_t page, std::size_t length = cache::kPageSize);
    // The flusher's pass: starts writeback of what is dirty and not under writeback, waits for
    // nothing.
    void start_writeback();
    // What fsync does to the pages.
    void write_and_wait();
    void wait();
    void truncate(std::uint64_t size_bytes);

    Result<cache::MappedExtent> map_blocks(cache::AddressSpace& mapping, std::uint64_t offset_bytes,
                                           std::uint64_t length_bytes) override;
    Result<> write_inode(cache::AddressSpace& mapping, const cache::WritebackControl& wbc) override;
    bool grab_inode(cache::AddressSpace& mapping) override;
    void drop_inode(cache::AddressSpace& mapping) override;

private:
    const std::uint64_t start_bytes_;
    cache::AddressSpace mapping_;
};

class Scene {
public:
    static constexpr std::uint64_t kFileBytesMax = 4U << 20;

    Scene();

    SceneFile& file() {
        return *file_;
    }
    // A second file, for what happens to frames that are used again.
    SceneFile& other() {
        return *other_;
    }
    cache::PageCache& cache() {
        return *cache_;
    }

private:
    cache::MemoryDevice disk_;
    cache::LatencyDevice device_;
    std::unique_ptr<cache::PageCache> cache_;
    std::unique_ptr<SceneFile> file_;
    std::unique_ptr<SceneFile> other_;
};

// Threads that act round after round: start() lets each run its part once, finish() waits.
class Cast {
public:
    struct Part {
        std::string name;
        sync::Role role = sync::Role::kOther;
        std::function<void()> act;
    };

    explicit Cast(std::vector<Part> parts);
    ~Cast();
    Cast(const Cast&) = delete;
    Cast& operator=(const Cast&) = delete;

    void start();
    void finish();

private:
    void play(const Part& part);

    const std::vector<Part> parts_;
    sync::Mutex lock_;
    sync::CondVar changed_;
    std::uint64_t round_ GUARDED_BY(lock_) = 0;
    std::size_t nr_acting_ GUARDED_BY(lock_) = 0;
    bool stopping_ GUARDED_BY(lock_) = false;
    std::vector<sync::Thread> threads_;
};

}  // namespace wbfat::tools
