// Comparison of trees.
#include "tests/mount/model/verify.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <vector>

#include <sys/statfs.h>

#include "tests/mount/model/rules.h"

namespace wbfat::model {
namespace {

constexpr std::size_t kChunkBytes = 256 * 1024;

class Descriptor {
public:
    explicit Descriptor(int fd) : fd_(fd) {}
    ~Descriptor() {
        if (fd_ >= 0) {
            ::close(fd_);
        }
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const {
        return fd_;
    }

private:
    int fd_;
};

struct Entry {
    std::string name;
    bool is_dir;
};

// Everything readdir shows. "" or the failure.
std::string list(int directory, std::vector<Entry>& entries) {
    DIR* const stream = fdopendir(dup(directory));
    if (stream == nullptr) {
        return fmt::format("cannot be listed: {}", strerrorname_np(errno));
    }
    rewinddir(stream);
    errno = 0;
    while (const dirent* entry =
               readdir(stream)) {  // NOLINT(concurrency-mt-unsafe): a stream of our own
        entries.push_back({entry->d_name, entry->d_type == DT_DIR});
        errno = 0;
    }
    const int error = errno;
    closedir(stream);
    return error == 0 ? "" : fmt::format("readdir failed: {}", strerrorname_np(error));
}

std::string compare_listing(int directory, const Node& node) {
    std::vector<Entry> entries;
    if (std::string failure = list(directory, entries); !failure.empty()) {
        return failure;
    }
    std::set<std::string> expected{".", ".."};
    std::set<std::string> directories{".", ".."};
    for (const auto& [group, child] : node.children) {
        expected.insert(spelled(child->name));
        if (child->is_dir) {
            directories.insert(spelled(child->name));
        }
    }
    for (const Entry& entry : entries) {
        if (expected.erase(entry.name) == 0) {
            return fmt::format("readdir shows '{}', which is not there, or a second time",
                               entry.name);
        }
        if (entry.is_dir != (directories.count(entry.name) != 0)) {
            return fmt::format("readdir has the wrong type for '{}'", entry.name);
        }
    }
    return expected.empty() ? "" : fmt::format("readdir does not show '{}'", *expected.begin());
}

struct Walk {
    const Side& under_test;
    TreeTotals& totals;
    std::uint64_t cluster_bytes;
    std::vector<char> left;
    std::vector<char> right;

    std::string compare_content(int under_test_dir, int reference_dir, const Node& node);
    std::string compare_entry(int under_test_dir, int reference_dir, const Node& node);
    std::string compare_directory(int under_test_dir, int reference_dir, const Node& node);
};

std::string Walk::compare_content(int under_test_dir, int reference_dir, const Node& node) {
    const Descriptor a(openat(under_test_dir, spelled(node.name).c_str(), O_RDONLY | O_CLOEXEC));
    const Descriptor b(
        openat(reference_dir, reference_name(node.name).c_str(), O_RDONLY | O_CLOEXEC));
    if (a.get() < 0 || b.get() < 0) {
        return fmt::format("cannot be opened: {}", strerrorname_np(errno));
    }
    for (std::uint64_t at = 0;;) {
        const ssize_t expected = pread(b.get(), right.data(), right.size(), static_cast<off_t>(at));
        const ssize_t found = pread(a.get(), left.data(), left.size(), static_cast<off_t>(at));
        if (found != expected) {
            return fmt::format("read at {} gives {}, not {}", at, found, expected);
        }
        if (found <= 0) {
            return "";
        }
        const auto length = static_cast<std::size_t>(found);
        if (std::memcmp(left.data(), right.data(), length) != 0) {
            const auto where =
                std::mismatch(left.begin(), left.end(), right.begin()).first - left.begin();
            return fmt::format("content differs at {}: {:#04x}, not {:#04x}",
                               at + static_cast<std::uint64_t>(where),
                               static_cast<unsigned char>(left[static_cast<std::size_t>(where)]),
                               static_cast<unsigned char>(right[static_cast<std::size_t>(where)]));
        }
        at += length;
    }
}

std::string Walk::compare_entry(int under_test_dir, int reference_dir, const Node& node) {
    struct stat found {};
    struct stat expected {};
    if (fstatat(under_test_dir, spelled(node.name).c_str(), &found, 0) != 0) {
        return fmt::format("stat fails: {}", strerrorname_np(errno));
    }
    if (fstatat(reference_dir, reference_name(node.name).c_str(), &expected, 0) != 0) {
        return "is not in the plain directory: the model is wrong";
    }
    if (std::string difference = compare_stat(found, expected, {!node.mtime_unsure, false});
        !difference.empty()) {
        return difference;
    }
    const auto size = static_cast<std::uint64_t>(found.st_size);
    totals.clusters += (size + cluster_bytes - 1) / cluster_bytes;
    if (!node.is_dir) {
        ++totals.files;
        totals.bytes += size;
        return compare_content(under_test_dir, reference_dir, node);
    }
    ++totals.directories;
    const Descriptor a(
        openat(under_test_dir, spelled(node.name).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const Descriptor b(openat(reference_dir, reference_name(node.name).c_str(),
                              O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return compare_directory(a.get(), b.get(), node);
}

std::string Walk::compare_directory(int under_test_dir, int reference_dir, const Node& node) {
    if (std::string difference = compare_listing(under_test_dir, node); !difference.empty()) {
        return difference;
    }
    std::vector<Entry> plain;
    if (std::string failure = list(reference_dir, plain); !failure.empty()) {
        return "the plain directory " + failure;
    }
    if (plain.size() != node.children.size() + 2) {
        return "the plain directory has other names: the model is wrong";
    }
    for (const auto& [group, child] : node.children) {
        if (std::string difference = compare_entry(under_test_dir, reference_dir, *child);
            !difference.empty()) {
            // The path grows from the inside.
            const std::string separator = difference.starts_with('/') ? "" : ": ";
            return "/" + spelled(child->name) + separator + difference;
        }
    }
    return "";
}

std::string load_directory(int directory, Tree& tree, Node& node) {
    std::vector<Entry> entries;
    if (std::string failure = list(directory, entries); !failure.empty()) {
        return failure;
    }
    for (const Entry& entry : entries) {
        if (entry.name == "." || entry.name == "..") {
            continue;
        }
        const std::optional<Name> name = parse_reference_name(entry.name);
        if (!name) {
            return fmt::format("'{}' is no name of the model", entry.name);
        }
        const NodeRef child = tree.add(node, *name, entry.is_dir);
        if (entry.is_dir) {
            const Descriptor below(
                openat(directory, entry.name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
            if (std::string failure = load_directory(below.get(), tree, *child); !failure.empty()) {
                return failure;
            }
        }
    }
    return "";
}

}  // namespace

std::string compare_names(const Side& side, const std::string& under_test, const Node& directory) {
    const Descriptor fd(
        openat(side.root(), under_test.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return fd.get() < 0 ? fmt::format("cannot be opened: {}", strerrorname_np(errno))
                        : compare_listing(fd.get(), directory);
}

std::string compare_trees(const Side& under_test, const Side& reference, const Tree& tree,
                          TreeTotals& totals) {
    struct statfs volume {};
    if (fstatfs(under_test.root(), &volume) != 0) {
        return "statfs fails";
    }
    Walk walk{under_test, totals, static_cast<std::uint64_t>(volume.f_bsize),
              std::vector<char>(kChunkBytes), std::vector<char>(kChunkBytes)};
    struct stat root {};
    if (fstat(under_test.root(), &root) == 0) {
        totals.clusters += static_cast<std::uint64_t>(root.st_size) / walk.cluster_bytes;
    }
    return walk.compare_directory(under_test.root(), reference.root(), *tree.root());
}

std::string load_tree(const Side& reference, Tree& tree) {
    return load_directory(reference.root(), tree, *tree.root());
}

std::uint64_t clusters_used(const Side& under_test) {
    struct statfs volume {};
    static_cast<void>(fstatfs(under_test.root(), &volume));
    return volume.f_blocks - volume.f_bfree;
}

}  // namespace wbfat::model
