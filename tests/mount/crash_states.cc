// crash_states DIRECTORY SEED STATES: writes images that a power cut could have left of a volume,
// for readers outside.
//
// For each FAT type a workload with fsyncs runs on a volume in memory whose writes and flushes are
// recorded; then the power is cut at random places of the log, with writes of the open epoch lost
// or torn. On stdout, per image:
//   image PATH
//   kept SIZE SEED NAME    a file whose fsync had returned and that nobody touched since; contents
//   are pattern(0, SIZE,
//                          SEED)
#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "fs/namei.h"

#include "tests/support/volume_fixture.h"

namespace wbfat::fs {
namespace {

// What is known of one file from `since` log entries on.
struct Promise {
    std::size_t since = 0;
    bool kept = false;  // false: anything may have become of it
    std::size_t size_bytes = 0;
    std::uint8_t seed = 0;
};

class Workload {
public:
    Workload(TestVolume& volume, std::uint64_t seed) : volume_(volume), random_(seed) {}

    void run(unsigned nr_operations);
    // The files that were on the disk for good when the log had `nr_entries`.
    std::map<std::string, Promise> kept_at(std::size_t nr_entries) const;

private:
    unsigned below(unsigned limit) {
        return static_cast<unsigned>(random_() % limit);
    }
    void note(const std::string& name, bool kept, std::size_t size_bytes = 0,
              std::uint8_t seed = 0) {
        promises_[name].push_back({volume_.recorder().nr_entries(), kept, size_bytes, seed});
    }
    bool exists(const std::string& name) {
        return lookup(*volume_.root(), name).has_value();
    }
    void write_durably(const std::string& name);
    void replace_durably(const std::string& name);
    void remove(const std::string& name);
    void write_carelessly();

    TestVolume& volume_;
    std::mt19937_64 random_;
    std::map<std::string, std::vector<Promise>> promises_;
};

void Workload::write_durably(const std::string& name) {
    const std::size_t size_bytes = below(40000);
    const auto seed = static_cast<std::uint8_t>(below(256));
    note(name, false);
    if (exists(name)) {
        EXPECT_EQ(unlink(*volume_.root(), name).code(), 0);
    }
    const InodeRef made = volume_.make(name, size_bytes, seed);
    volume_.fsync(made);
    note(name, true, size_bytes, seed);
}

void Workload::replace_durably(const std::string& name) {
    const std::size_t size_bytes = below(40000);
    const auto seed = static_cast<std::uint8_t>(below(256));
    const std::string next = name + ".new";
    const InodeRef made = volume_.make(next, size_bytes, seed);
    volume_.fsync(made);
    note(name, false);
    EXPECT_EQ(rename(*volume_.root(), next, *volume_.root(), name, 0).code(), 0);
    volume_.fsync(volume_.root());
    note(name, true, size_bytes, seed);
}

void Workload::remove(const std::string& name) {
    note(name, false);
    if (exists(name)) {
        EXPECT_EQ(unlink(*volume_.root(), name).code(), 0);
    }
}

// Files nobody waits for: they only keep clusters, slots and FSINFO moving.
void Workload::write_carelessly() {
    const std::string name = fmt::format("careless file number {}", below(12));
    if (!exists(name)) {
        volume_.make(name, below(30000));
        return;
    }
    const InodeRef file = volume_.open(*volume_.root(), name);
    switch (below(4)) {
        case 0:
            EXPECT_EQ(unlink(*volume_.root(), name).code(), 0);
            break;
        case 1:
            volume_.truncate(file, below(50000));
            break;
        case 2:
            volume_.write(file, below(40000), 1 + below(9000), 7);
            break;
        default: {
            const std::string directory = fmt::format("directory {}", below(6));
            if (exists(directory)) {
                EXPECT_EQ(rmdir(*volume_.root(), directory).code(), 0);
            } else {
                volume_.make_directory(*volume_.root(), directory);
            }
        }
    }
}

void Workload::run(unsigned nr_operations) {
    for (unsigned i = 0; i < nr_operations; ++i) {
        const std::string name = fmt::format("durable file number {}.dat", below(8));
        const unsigned dice = below(10);
        if (dice < 2) {
            write_durably(name);
        } else if (dice < 4) {
            replace_durably(name);
        } else if (dice < 5) {
            remove(name);
        } else if (dice < 6) {
            volume_.commit();
        } else {
            write_carelessly();
        }
    }
}

std::map<std::string, Promise> Workload::kept_at(std::size_t nr_entries) const {
    std::map<std::string, Promise> kept;
    for (const auto& [name, promises] : promises_) {
        Promise last;
        for (const Promise& promise : promises) {
            // A promise holds from its entry on; what breaks it may begin to reach the disk with
            // the entry after.
            if (promise.kept ? promise.since <= nr_entries : promise.since < nr_entries) {
                last = promise;
            }
        }
        if (last.kept) {
            kept[name] = last;
        }
    }
    return kept;
}

// Leaves holes where the image is zero.
void write_sparse(const std::string& path, const std::vector<std::byte>& image) {
    constexpr std::size_t kBlockBytes = 4096;
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    for (std::size_t at = 0; at < image.size(); at += kBlockBytes) {
        const std::size_t length = std::min(kBlockBytes, image.size() - at);
        const bool zero = std::all_of(image.begin() + static_cast<std::ptrdiff_t>(at),
                                      image.begin() + static_cast<std::ptrdiff_t>(at + length),
                                      [](std::byte byte) { return byte == std::byte{}; });
        if (!zero || at + length == image.size()) {
            file.seekp(static_cast<std::streamoff>(at));
            file.write(reinterpret_cast<const char*>(image.data() + at),
                       static_cast<std::streamsize>(length));
        }
    }
    file.close();
    EXPECT_TRUE(file.good()) << path;
}

void cut_power(const VolumeSpec& spec, const std::string& directory, std::uint64_t seed,
               unsigned nr_states) {
    constexpr unsigned kOperations = 120;
    TestVolume volume(spec);
    const std::vector<std::byte> formatted = volume.image();
    volume.mount();
    Workload workload(volume, seed + spec.fat_bits);
    workload.run(kOperations);
    const cache::WriteLog log = volume.recorder().log();
    std::mt19937_64 random(seed + spec.fat_bits);
    for (unsigned state = 0; state < nr_states; ++state) {
        const std::size_t cut = 1 + random() % log.size();
        std::vector<std::byte> image = formatted;
        cache::build_crash_state(log, cut,
                                 {.seed = random(), .tearing = cache::Tearing::kAnySectors}, image);
        const std::string path = fmt::format("{}/{}-{}.img", directory, spec.to_string(), state);
        write_sparse(path, image);
        fmt::print("image {}\n", path);
        for (const auto& [name, promise] : workload.kept_at(cut)) {
            fmt::print("kept {} {} {}\n", promise.size_bytes, promise.seed, name);
        }
    }
    volume.crash();
}

}  // namespace
}  // namespace wbfat::fs

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);  // the fixture complains through it
    if (argc != 4) {
        fmt::print(stderr, "usage: crash_states DIRECTORY SEED STATES\n");
        return 2;
    }
    const std::uint64_t seed = std::strtoull(argv[2], nullptr, 10);
    const auto nr_states = static_cast<unsigned>(std::strtoul(argv[3], nullptr, 10));
    using wbfat::fs::cut_power;
    cut_power({.fat_bits = 12, .size_bytes = 4U << 20}, argv[1], seed, nr_states);
    cut_power({.fat_bits = 16, .size_bytes = 20U << 20}, argv[1], seed, nr_states);
    cut_power({.fat_bits = 32, .size_bytes = 36U << 20, .sectors_per_cluster = 1}, argv[1], seed,
              nr_states);
    return testing::UnitTest::GetInstance()->Failed() ? 1 : 0;
}
