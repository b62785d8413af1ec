// The image in a memory file.
#include "tests/support/crash_image.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <sstream>
#include <system_error>

#include <sys/mman.h>
#include <sys/wait.h>
#include <xxhash.h>

namespace wbfat::fs::inline WBFAT_RT {

namespace {

constexpr std::uint64_t kHashedSector = 512;

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

bool all_zero(std::span<const std::byte> bytes) {
    return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

}  // namespace

CrashImage::CrashImage(std::span<const std::byte> image) {
    // Not closed on exec: fsck.fat opens it through this process, but a shell stands between.
    fd_ = memfd_create("wbfat-crash-image", 0);
    if (fd_ < 0 || ftruncate(fd_, static_cast<off_t>(image.size())) != 0) {
        fail("memfd_create");
    }
    void* const memory = mmap(nullptr, image.size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    if (memory == MAP_FAILED) {
        fail("mmap");
    }
    bytes_ = {static_cast<std::byte*>(memory), image.size()};
    for (std::uint64_t at = 0; at < image.size(); at += kHashedSector) {
        const auto sector = image.subspan(at, std::min(kHashedSector, image.size() - at));
        if (!all_zero(sector)) {  // the file stays sparse
            write(at, sector);
        }
    }
}

CrashImage::~CrashImage() {
    munmap(bytes_.data(), bytes_.size());
    close(fd_);
}

std::uint64_t CrashImage::hash_of_sectors(std::uint64_t offset_bytes,
                                          std::uint64_t length_bytes) const {
    const std::uint64_t end = offset_bytes + length_bytes;
    std::uint64_t hash = 0;
    for (std::uint64_t at = offset_bytes / kHashedSector * kHashedSector; at < end;
         at += kHashedSector) {
        const std::uint64_t length = std::min<std::uint64_t>(kHashedSector, bytes_.size() - at);
        hash ^= XXH3_64bits_withSeed(bytes_.data() + at, length, at + 1);
    }
    return hash;
}

void CrashImage::write(std::uint64_t offset_bytes, std::span<const std::byte> data) {
    if (data.empty() || offset_bytes >= bytes_.size()) {
        return;
    }
    data = data.first(std::min<std::uint64_t>(data.size(), bytes_.size() - offset_bytes));
    const std::span<std::byte> place = bytes_.subspan(offset_bytes, data.size());
    if (on_trial_) {
        undo_.push_back({offset_bytes, {place.begin(), place.end()}});
    }
    hash_ ^= hash_of_sectors(offset_bytes, data.size());
    std::memcpy(place.data(), data.data(), data.size());
    hash_ ^= hash_of_sectors(offset_bytes, data.size());
}

void CrashImage::begin_trial() {
    on_trial_ = true;
}

void CrashImage::end_trial() {
    on_trial_ = false;
    for (auto undo = undo_.rbegin(); undo != undo_.rend(); ++undo) {
        write(undo->offset_bytes, undo->data);
    }
    undo_.clear();
}

std::vector<std::string> CrashImage::fsck() const {
    const std::string command = "exec fsck.fat -n /proc/" + std::to_string(getpid()) + "/fd/" +
                                std::to_string(fd_) + " 2>&1";
    std::FILE* const pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) {
        fail("popen");
    }
    std::string output;
    std::array<char, 4096> buffer{};
    while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) {
        output += buffer.data();
    }
    const int status = pclose(pipe);
    std::vector<std::string> lines;
    std::istringstream stream(output);
    for (std::string line; std::getline(stream, line);) {
        lines.push_back(line);
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) > 1) {
        lines.push_back("fsck.fat ended with status " + std::to_string(status));
    }
    return lines;
}

void apply_to(CrashImage& image, const cache::LogEntry& entry,
              const std::function<bool()>& keep_sector) {
    if (!entry.changes_bytes()) {
        return;
    }
    std::vector<std::byte> zeros;
    if (entry.kind == cache::LogEntry::Kind::kDiscard) {
        zeros.resize(entry.length_bytes);
    }
    const std::span<const std::byte> data =
        zeros.empty() ? std::span(entry.data) : std::span(zeros);
    if (!keep_sector) {
        image.write(entry.offset_bytes, data);
        return;
    }
    for (std::size_t at = 0; at < data.size(); at += kHashedSector) {
        if (keep_sector()) {
            image.write(entry.offset_bytes + at,
                        data.subspan(at, std::min<std::size_t>(kHashedSector, data.size() - at)));
        }
    }
}

}  // namespace wbfat::fs::inline WBFAT_RT
