// The write log: epochs, crash states, and the file format of dm-log-writes.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <sys/stat.h>

#include "cache/base/unique_fd.h"
#include "cache/device/recording_device.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

// struct log_write_super and struct log_write_entry, little endian, each at the start of a sector.
constexpr std::uint64_t kLogMagic = 0x6a736677736872;
constexpr std::uint64_t kLogVersion = 1;
constexpr std::size_t kSuperBytes = 28;  // magic, version, nr_entries, sectorsize (32 bits)
constexpr std::size_t kEntryBytes = 32;  // sector, nr_sectors, flags, data_len
constexpr std::uint64_t kLogFlush = 1;
constexpr std::uint64_t kLogFua = 2;
constexpr std::uint64_t kLogDiscard = 4;
constexpr std::uint64_t kLogMark = 8;

constexpr std::uint32_t kSectorBytesMin = 512;
constexpr std::uint32_t kSectorBytesMax = 65536;
constexpr std::uint64_t kTearBytes = 512;

// splitmix64: small, and the same numbers on every machine, so that a seed replays anywhere.
class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() {
        state_ += 0x9E3779B97F4A7C15;
        std::uint64_t z = state_;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }
    std::uint64_t below(std::uint64_t limit) {
        return next() % limit;
    }
    bool percent(unsigned chance) {
        return below(100) < chance;
    }

private:
    std::uint64_t state_;
};

void apply_range(const LogEntry& entry, std::uint64_t from, std::uint64_t to,
                 std::span<std::byte> image) {
    const std::uint64_t start = entry.offset_bytes + from;
    if (start >= image.size()) {
        return;
    }
    const std::uint64_t length = std::min(to - from, image.size() - start);
    if (entry.kind == LogEntry::Kind::kDiscard) {
        std::fill_n(image.data() + start, length, std::byte{0});
    } else if (length > 0) {
        std::memcpy(image.data() + start, entry.data.data() + from, length);
    }
}

void apply_torn(const LogEntry& entry, Tearing tearing, Random& random,
                std::span<std::byte> image) {
    const std::uint64_t sectors = (entry.length_bytes + kTearBytes - 1) / kTearBytes;
    const std::uint64_t prefix = sectors == 0 ? 0 : random.below(sectors);
    for (std::uint64_t i = 0; i < sectors; i++) {
        const bool survives = tearing == Tearing::kPrefix ? i < prefix : random.percent(50);
        if (survives) {
            apply_range(entry, i * kTearBytes, std::min((i + 1) * kTearBytes, entry.length_bytes),
                        image);
        }
    }
}

class File {
public:
    File(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {}
    [[nodiscard]] int fd() const {
        return fd_.get();
    }
    Result<> write(std::span<const std::byte> data) const {
        while (!data.empty()) {
            const ssize_t done = ::write(fd(), data.data(), data.size());
            if (done < 0 && errno == EINTR) {
                continue;
            }
            if (done < 0) {
                return Errno{errno};
            }
            data = data.subspan(static_cast<std::size_t>(done));
        }
        return {};
    }
    // Errors: EINVAL when the file ends before `data` is full.
    Result<> read(std::span<std::byte> data) const {
        while (!data.empty()) {
            const ssize_t done = ::read(fd(), data.data(), data.size());
            if (done < 0 && errno == EINTR) {
                continue;
            }
            if (done <= 0) {
                return Errno{done < 0 ? errno : EINVAL};
            }
            data = data.subspan(static_cast<std::size_t>(done));
        }
        return {};
    }

private:
    const UniqueFd fd_;
};

template <typename T>
void put(std::span<std::byte> sector, std::size_t at, T value) {
    for (std::size_t i = 0; i < sizeof(T); i++) {
        sector[at + i] = static_cast<std::byte>(value >> (8 * i));
    }
}

template <typename T>
T get(std::span<const std::byte> sector, std::size_t at) {
    T value = 0;
    for (std::size_t i = 0; i < sizeof(T); i++) {
        value |= static_cast<T>(static_cast<T>(sector[at + i]) << (8 * i));
    }
    return value;
}

std::uint64_t flags_of(const LogEntry& entry) {
    switch (entry.kind) {
        case LogEntry::Kind::kWrite:
            return entry.fua ? kLogFua : 0;
        case LogEntry::Kind::kDiscard:
            return kLogDiscard;
        case LogEntry::Kind::kFlush:
            return kLogFlush;
        case LogEntry::Kind::kMark:
            return kLogMark;
    }
    return 0;
}

Result<> save_entry(const File& file, const LogEntry& entry, std::uint32_t sector_bytes) {
    if (entry.offset_bytes % sector_bytes != 0 || entry.length_bytes % sector_bytes != 0) {
        return Errno{EINVAL};
    }
    std::vector<std::byte> sector(sector_bytes);
    const std::size_t name_length =
        std::min<std::size_t>(entry.name.size(), sector_bytes - kEntryBytes);
    put(std::span(sector), 0, entry.offset_bytes / sector_bytes);
    put(std::span(sector), 8, entry.length_bytes / sector_bytes);
    put(std::span(sector), 16, flags_of(entry));
    put(std::span(sector), 24, std::uint64_t{name_length});
    std::memcpy(sector.data() + kEntryBytes, entry.name.data(), name_length);
    TRY_VOID(file.write(sector));
    return file.write(entry.data);
}

// Reads one entry and what belongs to it. dm-log-writes may put a preflush and a write into one;
// here they are two.
Result<> load_entry(const File& file, std::uint64_t file_bytes, std::span<std::byte> sector,
                    WriteLog& log) {
    TRY_VOID(file.read(sector));
    const auto flags = get<std::uint64_t>(sector, 16);
    const auto nr_sectors = get<std::uint64_t>(sector, 8);
    const auto name_length = get<std::uint64_t>(sector, 24);
    const auto first_sector = get<std::uint64_t>(sector, 0);
    if (nr_sectors > UINT64_MAX / kSectorBytesMax || first_sector > UINT64_MAX / kSectorBytesMax) {
        return Errno{EINVAL};
    }
    if ((flags & kLogFlush) != 0) {
        log.push_back({.kind = LogEntry::Kind::kFlush});
    }
    if ((flags & kLogMark) != 0) {
        if (name_length > sector.size() - kEntryBytes) {
            return Errno{EINVAL};
        }
        const auto* name = reinterpret_cast<const char*>(sector.data() + kEntryBytes);
        log.push_back({.kind = LogEntry::Kind::kMark, .name = std::string(name, name_length)});
        return {};
    }
    if (nr_sectors == 0) {
        return {};
    }
    LogEntry entry{.fua = (flags & kLogFua) != 0,
                   .offset_bytes = first_sector * sector.size(),
                   .length_bytes = nr_sectors * sector.size()};
    if ((flags & kLogDiscard) != 0) {
        entry.kind = LogEntry::Kind::kDiscard;
    } else {
        // Checked before memory is taken for it: the number comes from the file.
        if (entry.length_bytes > file_bytes) {
            return Errno{EINVAL};
        }
        entry.data.resize(entry.length_bytes);
        TRY_VOID(file.read(entry.data));
    }
    log.push_back(std::move(entry));
    return {};
}

}  // namespace

std::vector<LogEpoch> flush_epochs(const WriteLog& log) {
    std::vector<LogEpoch> epochs;
    std::size_t begin = 0;
    for (std::size_t i = 0; i < log.size(); i++) {
        if (log[i].kind == LogEntry::Kind::kFlush) {
            epochs.push_back({begin, i});
            begin = i + 1;
        }
    }
    if (begin < log.size()) {
        epochs.push_back({begin, log.size()});
    }
    return epochs;
}

LogEpoch open_epoch(const WriteLog& log, std::size_t up_to_entry) {
    std::size_t begin = up_to_entry;
    while (begin > 0 && log[begin - 1].kind != LogEntry::Kind::kFlush) {
        begin--;
    }
    return {begin, up_to_entry};
}

std::size_t find_mark(const WriteLog& log, std::string_view name) {
    const auto found = std::ranges::find_if(log, [name](const LogEntry& entry) {
        return entry.kind == LogEntry::Kind::kMark && entry.name == name;
    });
    return static_cast<std::size_t>(found - log.begin());
}

void apply_entry(const LogEntry& entry, std::span<std::byte> image) {
    if (entry.changes_bytes()) {
        apply_range(entry, 0, entry.length_bytes, image);
    }
}

void replay(const WriteLog& log, std::size_t up_to_entry, std::span<std::byte> image) {
    for (std::size_t i = 0; i < up_to_entry; i++) {
        apply_entry(log[i], image);
    }
}

void apply_epoch(const WriteLog& log, const LogEpoch& epoch, const ChooseFate& choose,
                 std::span<std::byte> image) {
    for (std::size_t i = epoch.begin; i < epoch.end; i++) {
        const LogEntry& entry = log[i];
        if (entry.changes_bytes() && (entry.fua || choose(i) == WriteFate::kKept)) {
            apply_entry(entry, image);
        }
    }
}

void apply_epoch_at_random(const WriteLog& log, const LogEpoch& epoch, const CrashOptions& options,
                           std::span<std::byte> image) {
    Random random(options.seed);
    for (std::size_t i = epoch.begin; i < epoch.end; i++) {
        const LogEntry& entry = log[i];
        if (!entry.changes_bytes()) {
            continue;
        }
        if (entry.fua) {
            apply_entry(entry, image);
            continue;
        }
        const bool lost = random.percent(options.lost_percent);
        const bool torn = options.tearing != Tearing::kNone && random.percent(options.torn_percent);
        if (!lost && torn) {
            apply_torn(entry, options.tearing, random, image);
        } else if (!lost) {
            apply_entry(entry, image);
        }
    }
}

void build_crash_state(const WriteLog& log, std::size_t up_to_entry, const CrashOptions& options,
                       std::span<std::byte> image) {
    const LogEpoch epoch = open_epoch(log, up_to_entry);
    replay(log, epoch.begin, image);
    apply_epoch_at_random(log, epoch, options, image);
}

Result<> save_log(const WriteLog& log, const std::string& path, std::uint32_t sector_bytes) {
    if (sector_bytes < kSectorBytesMin || sector_bytes > kSectorBytesMax) {
        return Errno{EINVAL};
    }
    const File file(path, O_WRONLY | O_CREAT | O_TRUNC);
    if (file.fd() < 0) {
        return Errno{errno};
    }
    std::vector<std::byte> super(sector_bytes);
    put(std::span(super), 0, kLogMagic);
    put(std::span(super), 8, kLogVersion);
    put(std::span(super), 16, std::uint64_t{log.size()});
    put(std::span(super), 24, sector_bytes);
    TRY_VOID(file.write(super));
    for (const LogEntry& entry : log) {
        TRY_VOID(save_entry(file, entry, sector_bytes));
    }
    return {};
}

Result<WriteLog> load_log(const std::string& path) {
    const File file(path, O_RDONLY);
    struct stat status {};
    if (file.fd() < 0 || ::fstat(file.fd(), &status) != 0) {
        return Errno{errno};
    }
    std::array<std::byte, kSuperBytes> super{};
    TRY_VOID(file.read(super));
    const auto sector_bytes = get<std::uint32_t>(super, 24);
    const bool is_log = get<std::uint64_t>(super, 0) == kLogMagic &&
                        get<std::uint64_t>(super, 8) == kLogVersion &&
                        sector_bytes >= kSectorBytesMin && sector_bytes <= kSectorBytesMax;
    if (!is_log) {
        return Errno{EINVAL};
    }
    if (::lseek(file.fd(), static_cast<off_t>(sector_bytes), SEEK_SET) < 0) {
        return Errno{errno};
    }
    WriteLog log;
    std::vector<std::byte> sector(sector_bytes);
    const auto nr_entries = get<std::uint64_t>(super, 16);
    for (std::uint64_t i = 0; i < nr_entries; i++) {
        TRY_VOID(load_entry(file, static_cast<std::uint64_t>(status.st_size), sector, log));
    }
    return log;
}

}  // namespace wbfat::cache::inline WBFAT_RT
