// The volume in memory.
#include "tests/support/volume_fixture.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <utility>

#include <sys/wait.h>

#include "fs/mkfs.h"
#include "fs/namei.h"

namespace wbfat::fs::inline WBFAT_RT {

namespace {

std::string write_to_temporary_file(std::span<const std::byte> image) {
    std::string path = testing::TempDir() + "wbfat-image-XXXXXX";
    const int fd = mkstemp(path.data());
    EXPECT_GE(fd, 0) << path;
    while (!image.empty()) {
        const ssize_t written = ::write(fd, image.data(), image.size());
        if (written <= 0) {
            ADD_FAILURE() << "cannot write " << path;
            break;
        }
        image = image.subspan(static_cast<std::size_t>(written));
    }
    close(fd);
    return path;
}

void format(cache::MemoryDevice& device, const VolumeSpec& spec) {
    FormatOptions options;
    options.fat_bits = spec.fat_bits;
    options.sector_bytes = spec.sector_bytes;
    if (spec.sectors_per_cluster != 0) {
        options.sectors_per_cluster = spec.sectors_per_cluster;
    }
    options.nr_fats = spec.nr_fats;
    options.volume_id = 0x1234ABCD;
    std::string why;
    const auto plan = plan_mkfs(options, {.size_bytes = spec.size_bytes}, why);
    ASSERT_TRUE(plan.has_value()) << why;
    DeviceFormatTarget target(device);
    ASSERT_TRUE(write_volume(target, *plan).has_value());
}

}  // namespace

std::string VolumeSpec::to_string() const {
    return "fat" + std::to_string(fat_bits) + "_" + std::to_string(size_bytes >> 20) + "M_" +
           std::to_string(sector_bytes);
}

FsckResult run_fsck(std::span<const std::byte> image) {
    const std::string path = write_to_temporary_file(image);
    FsckResult result;
    std::FILE* pipe = popen(("fsck.fat -n " + path + " 2>&1").c_str(), "r");
    EXPECT_NE(pipe, nullptr);
    std::array<char, 4096> buffer{};
    while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) {
        result.output += buffer.data();
    }
    const int status = pclose(pipe);
    result.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    ::unlink(path.c_str());
    return result;
}

std::vector<std::byte> pattern(std::uint64_t offset_bytes, std::size_t size_bytes,
                               std::uint8_t seed) {
    std::vector<std::byte> bytes(size_bytes);
    for (std::size_t i = 0; i < size_bytes; ++i) {
        const std::uint64_t at = offset_bytes + i;
        bytes[i] = static_cast<std::byte>(at * 131 + (at >> 9) * 17 + seed * 29 + 1);
    }
    return bytes;
}

TestVolume::TestVolume(const VolumeSpec& spec) : spec_(spec) {
    cache::MemoryDevice::Options options;
    options.completion = spec.completion;
    options.read_only = !spec.can_be_written;
    memory_ = std::make_unique<cache::MemoryDevice>(spec.size_bytes, options);
    if (spec.can_be_written) {
        format(*memory_, spec);
    } else {
        cache::MemoryDevice made(spec.size_bytes);
        format(made, spec);
        memory_ = std::make_unique<cache::MemoryDevice>(made.bytes(), options);
    }
    recorder_ = std::make_unique<cache::RecordingDevice>(*memory_);
    faults_ = std::make_unique<cache::FaultyDevice>(*recorder_, spec.completion);
}

TestVolume::~TestVolume() {
    crash();
}

Result<> TestVolume::try_mount() {
    cache::PageCacheOptions options;
    options.cache_size_bytes = spec_.cache_bytes;
    options.dirty_writeback_centisecs = 0;
    auto made = cache::PageCache::create(options);
    if (!made.has_value()) {
        return made.error();
    }
    cache_ = std::move(*made);
    auto volume = Volume::mount(
        *faults_, *cache_, spec_.options,
        [this](LogLevel, const std::string& sentence) {
            const sync::MutexLock lock(log_lock_);
            log_ += sentence + "\n";
        },
        why_);
    if (!volume.has_value()) {
        cache_.reset();
        return volume.error();
    }
    volume_ = std::move(*volume);
    volume_->set_clock([this] { return timespec{seconds_.load(), 0}; });
    return {};
}

void TestVolume::mount() {
    const Result<> mounted = try_mount();
    ASSERT_TRUE(mounted.has_value()) << why_;
}

void TestVolume::unmount() {
    const Result<> unmounted = volume_->unmount();
    EXPECT_EQ(unmounted.code(), 0);
    crash();
}

void TestVolume::crash() {
    volume_.reset();
    cache_.reset();
}

std::string TestVolume::logged() const {
    const sync::MutexLock lock(log_lock_);
    return log_;
}

std::vector<std::byte> TestVolume::image() const {
    const std::span<const std::byte> bytes = std::as_const(*memory_).bytes();
    return {bytes.begin(), bytes.end()};
}

void TestVolume::set_time(std::int64_t seconds) {
    seconds_.store(seconds);
}

InodeRef TestVolume::root() {
    auto root = volume_->root();
    EXPECT_TRUE(root.has_value());
    return root.has_value() ? *root : InodeRef();
}

InodeRef TestVolume::make(std::string_view name, std::size_t size_bytes, std::uint8_t seed) {
    return make_in(*root(), name, size_bytes, seed);
}

InodeRef TestVolume::make_in(Inode& dir, std::string_view name, std::size_t size_bytes,
                             std::uint8_t seed) {
    auto made = fs::create(dir, name);
    EXPECT_EQ(made.code(), 0) << name;
    if (!made.has_value()) {
        return {};
    }
    if (size_bytes != 0) {
        write(*made, 0, size_bytes, seed);
    }
    return *made;
}

InodeRef TestVolume::make_directory(Inode& dir, std::string_view name) {
    auto made = fs::mkdir(dir, name);
    EXPECT_EQ(made.code(), 0) << name;
    return made.has_value() ? *made : InodeRef();
}

InodeRef TestVolume::open(Inode& dir, std::string_view name) {
    auto found = fs::lookup(dir, name);
    EXPECT_EQ(found.code(), 0) << name;
    return found.has_value() ? found->inode : InodeRef();
}

void TestVolume::write(const InodeRef& inode, std::uint64_t offset_bytes, std::size_t size_bytes,
                       std::uint8_t seed) {
    const std::vector<std::byte> bytes = pattern(offset_bytes, size_bytes, seed);
    std::size_t done = 0;
    File file(inode, {});
    const auto written =
        file.write(offset_bytes, size_bytes, [&](std::span<std::byte> piece) -> Result<> {
            std::memcpy(piece.data(), bytes.data() + done, piece.size());
            done += piece.size();
            return {};
        });
    ASSERT_EQ(written.code(), 0);
    EXPECT_EQ(*written, size_bytes);
}

std::vector<std::byte> TestVolume::read(const InodeRef& inode) {
    File file(inode, {});
    std::vector<std::byte> bytes;
    for (;;) {
        cache::PageVec pages;
        const Result<> got = file.read(bytes.size(), 1U << 16, pages);
        EXPECT_EQ(got.code(), 0);
        if (!got.has_value() || pages.size_bytes() == 0) {
            return bytes;
        }
        for (const cache::PageVec::Piece& piece : pages.pieces()) {
            const std::byte* from = piece.page->data + piece.offset_bytes;
            bytes.insert(bytes.end(), from, from + piece.length_bytes);
        }
    }
}

void TestVolume::truncate(const InodeRef& inode, std::uint64_t size_bytes) {
    AttrChange change;
    change.size = size_bytes;
    EXPECT_EQ(setattr(*inode, change).code(), 0);
}

void TestVolume::fsync(const InodeRef& inode) {
    File file(inode, {});
    EXPECT_EQ(file.fsync(false).code(), 0);
}

void TestVolume::commit() {
    EXPECT_EQ(volume_->ordering().commit().code(), 0);
}

}  // namespace wbfat::fs::inline WBFAT_RT
