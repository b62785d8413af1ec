// The kernel's references.
#include "src/kernel_refs.h"

#include <algorithm>
#include <utility>

namespace wbfat::daemon {

namespace {

fs::Inode& inode_at(std::uint64_t nodeid) {
    return *reinterpret_cast<fs::Inode*>(
        nodeid);  // NOLINT(performance-no-int-to-ptr): add_lookup made it
}

void put_refs(fs::Inode& inode, std::uint64_t count) {
    for (; count > 0; --count) {
        inode.put_ref();
    }
}

}  // namespace

std::uint64_t KernelReferences::add_lookup(fs::InodeRef inode) {
    const auto nodeid = reinterpret_cast<std::uint64_t>(inode.release());
    const std::lock_guard lock(mutex_);
    ++lookups_[nodeid];
    return nodeid;
}

void KernelReferences::forget(std::uint64_t nodeid, std::uint64_t count) {
    {
        const std::lock_guard lock(mutex_);
        const auto found = lookups_.find(nodeid);
        if (found == lookups_.end()) {
            return;
        }
        count = std::min(count, found->second);
        found->second -= count;
        if (found->second == 0) {
            lookups_.erase(found);
            mistaken_.erase(nodeid);
        }
    }
    put_refs(inode_at(nodeid), count);
}

void KernelReferences::note_mistaken(std::uint64_t nodeid) {
    const std::lock_guard lock(mutex_);
    if (lookups_.contains(nodeid)) {
        mistaken_.insert(nodeid);
    }
}

bool KernelReferences::is_mistaken(std::uint64_t nodeid) const {
    const std::lock_guard lock(mutex_);
    return mistaken_.contains(nodeid);
}

std::uint64_t KernelReferences::add(std::unique_ptr<fs::File> file) {
    const auto handle = reinterpret_cast<std::uint64_t>(file.get());
    const std::lock_guard lock(mutex_);
    files_.emplace(handle, std::move(file));
    return handle;
}

std::uint64_t KernelReferences::add(std::unique_ptr<DirHandle> dir) {
    const auto handle = reinterpret_cast<std::uint64_t>(dir.get());
    const std::lock_guard lock(mutex_);
    directories_.emplace(handle, std::move(dir));
    return handle;
}

void KernelReferences::release_file(std::uint64_t handle) {
    decltype(files_)::node_type closed;  // destroyed after the lock is dropped
    const std::lock_guard lock(mutex_);
    closed = files_.extract(handle);
}

void KernelReferences::release_dir(std::uint64_t handle) {
    decltype(directories_)::node_type closed;  // destroyed after the lock is dropped
    const std::lock_guard lock(mutex_);
    closed = directories_.extract(handle);
}

void KernelReferences::drop_all() {
    decltype(lookups_) lookups;
    decltype(files_) files;
    decltype(directories_) directories;
    {
        const std::lock_guard lock(mutex_);
        lookups.swap(lookups_);
        mistaken_.clear();
        files.swap(files_);
        directories.swap(directories_);
    }
    files.clear();
    directories.clear();
    for (const auto& [nodeid, count] : lookups) {
        put_refs(inode_at(nodeid), count);
    }
}

}  // namespace wbfat::daemon
