// Boot sector, table, directories: read as the specification says.
#include "tests/support/crash_reader.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <optional>
#include <unordered_map>
#include <utility>

namespace wbfat::fs::inline WBFAT_RT {

namespace {

constexpr unsigned kMaxDepth = 16;

class Reader {
public:
    explicit Reader(std::span<const std::byte> image) : image_(image) {
        sector_ = u16(11);
        cluster_ = u8(13) * sector_;
        const std::uint64_t reserved = u16(14);
        const std::uint64_t fat_sectors = u16(22) != 0 ? u16(22) : u32(36);
        is_fat32_ = u16(22) == 0;
        const std::uint64_t total = u16(19) != 0 ? u16(19) : u32(32);
        fat_ = reserved * sector_;
        root_ = (reserved + u8(16) * fat_sectors) * sector_;
        root_bytes_ = u16(17) * 32ULL;
        data_ = root_ + (root_bytes_ + sector_ - 1) / sector_ * sector_;
        nr_clusters_ = static_cast<std::uint32_t>((total * sector_ - data_) / cluster_);
    }

    CrashTree read() {
        tree_.root.is_directory = true;
        std::vector<std::byte> slots;
        if (is_fat32_) {
            tree_.root.start = u32(44);
            walk(tree_.root, "");
            slots = gather(tree_.root.clusters);
        } else {
            const auto fixed = image_.subspan(root_, root_bytes_);
            slots.assign(fixed.begin(), fixed.end());
        }
        read_directory(tree_.root, slots, "", 0, 0);
        for (std::uint32_t cluster = 2; cluster < nr_clusters_ + 2; ++cluster) {
            if (next(cluster) != 0 && !owner_.contains(cluster)) {
                tree_.nr_lost_clusters++;
            }
        }
        return std::move(tree_);
    }

private:
    std::uint32_t byte_at(std::uint64_t at) const {
        return at < image_.size() ? std::to_integer<std::uint32_t>(image_[at]) : 0;
    }
    std::uint32_t u8(std::uint64_t at) const {
        return byte_at(at);
    }
    std::uint32_t u16(std::uint64_t at) const {
        return byte_at(at) | (byte_at(at + 1) << 8);
    }
    std::uint32_t u32(std::uint64_t at) const {
        return u16(at) | (u16(at + 2) << 16);
    }

    std::uint32_t next(std::uint32_t cluster) const {
        return is_fat32_ ? u32(fat_ + cluster * 4ULL) & 0x0FFFFFFF : u16(fat_ + cluster * 2ULL);
    }
    bool is_end(std::uint32_t value) const {
        return value >= (is_fat32_ ? 0x0FFFFFF8U : 0xFFF8U);
    }
    bool is_cluster(std::uint32_t value) const {
        return value >= 2 && value < nr_clusters_ + 2;
    }

    void damaged(const std::string& path, const std::string& what) {
        tree_.damage.push_back(path + ": " + what);
    }

    // Follows the chain of `node`, claims its clusters.
    void walk(CrashNode& node, const std::string& path) {
        std::uint32_t at = node.start;
        bool has_shared = false;
        while (at != 0 && !is_end(at)) {
            if (!is_cluster(at)) {
                return damaged(path, "leads to cluster " + std::to_string(at));
            }
            if (next(at) == 0) {
                return damaged(path, "leads into the free cluster " + std::to_string(at));
            }
            if (node.clusters.size() > nr_clusters_) {
                return damaged(path, "goes in circles");
            }
            const auto [owner, is_first] = owner_.emplace(at, path);
            if (!is_first && !has_shared) {
                tree_.shared.emplace_back(owner->second, path);
                has_shared = true;
            }
            node.clusters.push_back(at);
            at = next(at);
        }
    }

    std::vector<std::byte> gather(const std::vector<std::uint32_t>& clusters) const {
        std::vector<std::byte> bytes;
        for (const std::uint32_t cluster : clusters) {
            const auto piece = image_.subspan(data_ + (cluster - 2ULL) * cluster_, cluster_);
            bytes.insert(bytes.end(), piece.begin(), piece.end());
        }
        return bytes;
    }

    void read_file(CrashNode& node, const std::string& path) {
        const std::size_t needed = (node.size + cluster_ - 1) / cluster_;
        if (node.clusters.size() < needed) {
            damaged(path, "its size needs " + std::to_string(needed) + " clusters, its chain has " +
                              std::to_string(node.clusters.size()));
        }
        if (node.clusters.size() > needed) {
            tree_.nr_long_chains++;
        }
        node.content = gather(node.clusters);
        node.content.resize(std::min<std::size_t>(node.content.size(), node.size));
    }

    static std::string short_name(std::span<const std::byte> slot) {
        const auto part = [&](std::size_t from, std::size_t to) {
            std::string text;
            for (std::size_t i = from; i < to; ++i) {
                text += static_cast<char>(std::tolower(std::to_integer<int>(slot[i])));
            }
            return text.substr(0, text.find_last_not_of(' ') + 1);
        };
        const std::string extension = part(8, 11);
        return part(0, 8) + (extension.empty() ? "" : "." + extension);
    }

    static std::uint8_t checksum(std::span<const std::byte> slot) {
        unsigned sum = 0;
        for (std::size_t i = 0; i < 11; ++i) {
            sum = (((sum & 1U) << 7) + (sum >> 1) + std::to_integer<unsigned>(slot[i])) & 0xFFU;
        }
        return static_cast<std::uint8_t>(sum);
    }

    static std::string long_part(std::span<const std::byte> slot) {
        std::string text;
        for (const std::size_t at : {1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}) {
            const unsigned unit = std::to_integer<unsigned>(slot[at]) |
                                  (std::to_integer<unsigned>(slot[at + 1]) << 8);
            if (unit == 0) {
                break;
            }
            text += unit < 0x80 ? static_cast<char>(unit) : '?';
        }
        return text;
    }

    static std::uint32_t number(std::span<const std::byte> slot, std::size_t at, unsigned bytes) {
        std::uint32_t value = 0;
        for (unsigned i = 0; i < bytes; ++i) {
            value |= std::to_integer<std::uint32_t>(slot[at + i]) << (8 * i);
        }
        return value;
    }

    void read_directory(CrashNode& dir, std::span<const std::byte> slots, const std::string& path,
                        std::uint32_t parent_start, unsigned depth) {
        if (depth > kMaxDepth) {
            return damaged(path, "contains itself");
        }
        std::string long_name;
        std::uint8_t long_sum = 0;
        for (std::size_t at = 0; at + 32 <= slots.size(); at += 32) {
            const auto slot = slots.subspan(at, 32);
            const unsigned first = std::to_integer<unsigned>(slot[0]);
            const unsigned attr = std::to_integer<unsigned>(slot[11]);
            if (first == 0) {
                break;
            }
            if (first != 0xE5 && (attr & 0x3FU) == 0x0F) {
                long_name = ((first & 0x40U) != 0 ? "" : long_name);
                long_name.insert(0, long_part(slot));
                long_sum = std::to_integer<std::uint8_t>(slot[13]);
                continue;
            }
            const std::string spelled =
                !long_name.empty() && long_sum == checksum(slot) ? long_name : short_name(slot);
            long_name.clear();
            if (first == 0xE5 || (attr & 0x08U) != 0) {
                continue;
            }
            read_entry(dir, slot, spelled, path, parent_start, depth);
        }
    }

    void read_entry(CrashNode& dir, std::span<const std::byte> slot, const std::string& name,
                    const std::string& path, std::uint32_t parent_start, unsigned depth) {
        CrashNode node;
        node.name = name;
        node.is_directory = (std::to_integer<unsigned>(slot[11]) & 0x10U) != 0;
        node.size = number(slot, 28, 4);
        node.start = number(slot, 26, 2) | (is_fat32_ ? number(slot, 20, 2) << 16 : 0);
        const std::string full = path + "/" + name;
        if (name == "." || name == "..") {
            const std::uint32_t wanted = name == "." ? dir.start : parent_start;
            if (node.start != wanted) {
                dotdot_differs(full, name == ".");
            }
            return;
        }
        walk(node, full);
        if (!node.is_directory) {
            read_file(node, full);
        } else if (node.clusters.empty()) {
            damaged(full, "a directory without clusters");
        } else {
            // The root is 0 to "..", whatever its cluster.
            const std::uint32_t our_start = path.empty() ? 0 : dir.start;
            read_directory(node, gather(node.clusters), full, our_start, depth + 1);
        }
        dir.children.push_back(std::move(node));
    }

    void dotdot_differs(const std::string& path, bool is_dot) {
        if (is_dot) {
            damaged(path, "leads elsewhere");
        } else {
            // Of two names of one directory only one can be its parent's.
            tree_.shared.emplace_back(path.substr(0, path.size() - 3), "");
        }
    }

    std::span<const std::byte> image_;
    std::uint64_t sector_ = 0;
    std::uint64_t cluster_ = 0;
    std::uint64_t fat_ = 0;
    std::uint64_t root_ = 0;
    std::uint64_t root_bytes_ = 0;
    std::uint64_t data_ = 0;
    std::uint32_t nr_clusters_ = 0;
    bool is_fat32_ = false;
    std::unordered_map<std::uint32_t, std::string> owner_;
    CrashTree tree_;
};

}  // namespace

CrashTree read_crash_image(std::span<const std::byte> image) {
    return Reader(image).read();
}

}  // namespace wbfat::fs::inline WBFAT_RT
