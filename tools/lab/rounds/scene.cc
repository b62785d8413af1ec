// The scene and its cast.
#include "tools/lab/rounds/scene.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "cache/base/check.h"
#include "cache/filemap.h"
#include "cache/flusher.h"
#include "cache/page_lock.h"

namespace wbfat::tools {

namespace {

constexpr std::uint64_t kCacheBytes = 1U << 20;

}  // namespace

SceneFile::SceneFile(cache::PageCache& cache, cache::BlockDevice& device, std::uint64_t start_bytes,
                     std::string name)
    : start_bytes_(start_bytes),
      mapping_(cache, device, *this, cache::AddressSpace::StablePages::kNo, std::move(name)) {}

SceneFile::~SceneFile() {
    mapping_.cache().flusher().forget(mapping_);
    truncate(0);
}

void SceneFile::dirty(cache::pgoff_t index, std::size_t length) {
    const std::uint64_t offset = cache::page_offset(index);
    Result<cache::Page*> begun = cache::write_begin(mapping_, offset, length);
    BUG_ON(!begun.has_value(), "no page to write to");
    cache::Page& page = **begun;
    cache::assert_page_locked(page);
    std::memset(page.data, static_cast<int>(index), length);
    cache::write_end(mapping_, page, offset, length);
}

void SceneFile::start_writeback() {
    static_cast<void>(cache::filemap_flush(mapping_).has_value());
}

void SceneFile::write_and_wait() {
    static_cast<void>(cache::filemap_fdatawrite_range(mapping_, 0, cache::kLastByte).has_value());
    wait();
}

void SceneFile::wait() {
    cache::filemap_fdatawait_range(mapping_, 0, cache::kLastByte);
}

void SceneFile::truncate(std::uint64_t size_bytes) {
    cache::truncate_setsize(mapping_, size_bytes);
}

Result<cache::MappedExtent> SceneFile::map_blocks(cache::AddressSpace& /*mapping*/,
                                                  std::uint64_t offset_bytes,
                                                  std::uint64_t length_bytes) {
    if (offset_bytes >= Scene::kFileBytesMax) {
        return Errno{EIO};
    }
    return cache::MappedExtent{
        .device_offset_bytes = start_bytes_ + offset_bytes,
        .length_bytes = std::min(length_bytes, Scene::kFileBytesMax - offset_bytes)};
}

Result<> SceneFile::write_inode(cache::AddressSpace& /*mapping*/,
                                const cache::WritebackControl& /*wbc*/) {
    return {};
}

bool SceneFile::grab_inode(cache::AddressSpace& /*mapping*/) {
    return true;
}

void SceneFile::drop_inode(cache::AddressSpace& /*mapping*/) {}

Scene::Scene()
    : disk_(2 * kFileBytesMax, {.completion = cache::CompletionContext::kOnThread}),
      device_(disk_) {
    auto cache =
        cache::PageCache::create({.cache_size_bytes = kCacheBytes, .dirty_writeback_centisecs = 0});
    BUG_ON(!cache.has_value(), "no memory for a page cache of 1 MiB");
    cache_ = std::move(*cache);
    file_ = std::make_unique<SceneFile>(*cache_, device_, 0, "file");
    other_ = std::make_unique<SceneFile>(*cache_, device_, kFileBytesMax, "other");
}

Cast::Cast(std::vector<Part> parts) : parts_(std::move(parts)) {
    for (const Part& part : parts_) {
        threads_.emplace_back(part.name, part.role, [this, &part] { play(part); });
    }
}

Cast::~Cast() {
    {
        const sync::MutexLock lock(lock_);
        stopping_ = true;
        changed_.notify_all();
    }
    threads_.clear();
}

void Cast::play(const Part& part) {
    std::uint64_t played = 0;
    sync::MutexLock lock(lock_);
    for (;;) {
        while (round_ == played && !stopping_) {
            changed_.wait(lock);
        }
        if (stopping_) {
            return;
        }
        played = round_;
        lock.unlock();
        part.act();
        lock.lock();
        --nr_acting_;
        changed_.notify_all();
    }
}

void Cast::start() {
    const sync::MutexLock lock(lock_);
    ++round_;
    nr_acting_ = parts_.size();
    changed_.notify_all();
}

void Cast::finish() {
    sync::MutexLock lock(lock_);
    while (nr_acting_ > 0) {
        changed_.wait(lock);
    }
}

}  // namespace wbfat::tools
