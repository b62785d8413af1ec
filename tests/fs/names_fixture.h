// A small volume in memory for the tests of directories and names: verbs, and what independent
// programs say about it.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cache/filemap.h"
#include "fs/dir.h"
#include "fs/file.h"
#include "fs/namei.h"
#include "fs/volume.h"

#include "tests/support/volume_fixture.h"

namespace wbfat::fs::inline WBFAT_RT {

struct VolumeShape {
    const char* label;
    unsigned fat_bits;
    std::uint64_t size_bytes;
    std::uint32_t sector_bytes = 512;
    std::uint32_t sectors_per_cluster = 1;
};

inline constexpr VolumeShape kFat12{"Fat12", 12, 2U << 20, 512, 2};
inline constexpr VolumeShape kFat16{"Fat16", 16, 10U << 20, 512, 4};
inline constexpr VolumeShape kFat32{"Fat32", 32, 36U << 20, 512, 1};
inline constexpr VolumeShape kFat16Sector4096{"Fat16Sector4096", 16, 20U << 20, 4096, 1};

class NamesFixture {
public:
    explicit NamesFixture(const VolumeShape& shape, const MountOptions& options = {})
        : test_(make_spec(shape, options)) {
        mount();
    }
    ~NamesFixture() {
        root_ = {};
    }
    NamesFixture(const NamesFixture&) = delete;
    NamesFixture& operator=(const NamesFixture&) = delete;

    void mount() {
        test_.mount();
        root_ = test_.root();
    }
    void unmount() {
        root_ = {};
        test_.unmount();
    }
    void remount() {
        unmount();
        mount();
    }
    // Without another commit: as after a power cut that lost nothing of what was written.
    void crash_and_mount() {
        root_ = {};
        test_.crash();
        mount();
    }
    void commit() {
        test_.commit();
    }
    TestVolume& test() {
        return test_;
    }
    Volume& volume() {
        return test_.volume();
    }
    Inode& root() {
        return *root_;
    }

    InodeRef dir(std::string_view name) {
        return dir(root(), name);
    }
    static InodeRef dir(Inode& parent, std::string_view name) {
        auto found = lookup(parent, name);
        EXPECT_EQ(found.code(), 0) << name;
        return found.has_value() ? found->inode : InodeRef();
    }

    // Names of a directory in its order, without the dots.
    static std::vector<std::string> names(Inode& dir) {
        std::vector<std::string> all;
        EXPECT_EQ(readdir(dir, 2,
                          [&](const DirEntryView& entry) {
                              all.emplace_back(entry.name);
                              return true;
                          })
                      .code(),
                  0);
        return all;
    }
    static std::vector<std::string> sorted_names(Inode& dir) {
        std::vector<std::string> all = names(dir);
        std::sort(all.begin(), all.end());
        return all;
    }

    // A file with this text in it, made if it is not there.
    static void put(Inode& dir, std::string_view name, std::string_view text) {
        auto made = create(dir, name);
        const InodeRef inode = made.has_value() ? *made : NamesFixture::dir(dir, name);
        ASSERT_TRUE(inode);
        write(inode, text);
    }
    static void write(const InodeRef& inode, std::string_view text) {
        File file(inode, {});
        std::size_t done = 0;
        const auto written =
            file.write(0, text.size(), [&](std::span<std::byte> piece) -> Result<> {
                std::memcpy(piece.data(), text.data() + done, piece.size());
                done += piece.size();
                return {};
            });
        ASSERT_EQ(written.code(), 0);
        ASSERT_EQ(*written, text.size());
    }
    static std::string text(Inode& dir, std::string_view name) {
        auto found = lookup(dir, name);
        return found.has_value() ? text(found->inode) : "errno " + std::to_string(found.code());
    }
    static std::string text(const InodeRef& inode) {
        if (inode->is_directory()) {
            return "directory";
        }
        File file(inode, {});
        cache::PageVec pages;
        const Result<> read = file.read(0, 4096, pages);
        if (!read.has_value()) {
            return "errno " + std::to_string(read.code());
        }
        std::string content;
        for (const auto& piece : pages.pieces()) {
            content.append(reinterpret_cast<const char*>(  // NOLINT(*-reinterpret-cast)
                               piece.page->data + piece.offset_bytes),
                           piece.length_bytes);
        }
        return content;
    }

    // Unmounts, asks fsck.fat, mounts again.
    void expect_clean() {
        unmount();
        const FsckResult fsck = test_.fsck();
        EXPECT_EQ(fsck.status, 0) << fsck.output;
        mount();
    }
    // What `mdir -b` lists of a directory, one path a line. After an unmount: mtools reads no FAT
    // marked dirty.
    std::string mdir(const std::string& directory = "/") {
        std::string path = testing::TempDir() + "wbfat-mdir-XXXXXX";
        const int fd = mkstemp(path.data());
        EXPECT_GE(fd, 0);
        close(fd);
        const std::vector<std::byte> image = test_.image();
        std::ofstream(path, std::ios::binary)
            .write(reinterpret_cast<const char*>(image.data()),  // NOLINT(*-reinterpret-cast)
                   static_cast<std::streamsize>(image.size()));
        std::string output;
        FILE* pipe = popen(
            ("LC_ALL=C.UTF-8 mdir -b -i " + path + " \"::" + directory + "\" 2>&1").c_str(), "r");
        EXPECT_NE(pipe, nullptr);
        std::array<char, 4096> chunk{};
        while (const std::size_t got = fread(chunk.data(), 1, chunk.size(), pipe)) {
            output.append(chunk.data(), got);
        }
        pclose(pipe);
        ::unlink(path.c_str());
        return output;
    }

    // Where slot `slot` of the root lies on the device, for shapes whose root is contiguous.
    std::uint64_t root_slot_offset(std::uint32_t slot) {
        const Geometry& geometry = volume().geometry();
        const std::uint64_t start = geometry.type == FatType::kFat32
                                        ? geometry.cluster_offset_bytes(geometry.root_cluster)
                                        : geometry.root_dir_offset_bytes();
        return start + std::uint64_t{slot} * kDirEntryBytes;
    }
    // Unmounts, writes raw slots into the root from `slot` on, mounts again.
    void damage_root(std::uint32_t slot, std::span<const std::byte> bytes) {
        const std::uint64_t offset = root_slot_offset(slot);
        unmount();
        std::copy(bytes.begin(), bytes.end(),
                  test_.memory().bytes().begin() + static_cast<std::ptrdiff_t>(offset));
        mount();
    }
    // Slots of the root as they are on the device.
    ShortEntry root_slot(std::uint32_t slot) {
        return load<ShortEntry>(std::as_const(test_.memory()).bytes(), root_slot_offset(slot));
    }

private:
    static VolumeSpec make_spec(const VolumeShape& shape, const MountOptions& options) {
        VolumeSpec spec;
        spec.fat_bits = shape.fat_bits;
        spec.size_bytes = shape.size_bytes;
        spec.sector_bytes = shape.sector_bytes;
        spec.sectors_per_cluster = shape.sectors_per_cluster;
        spec.cache_bytes = 16U << 20;
        spec.options = options;
        spec.options.time_offset_set = true;
        return spec;
    }

    TestVolume test_;
    InodeRef root_;
};

}  // namespace wbfat::fs::inline WBFAT_RT
