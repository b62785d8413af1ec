// The remembering device and its log: invariants L1 to L3, crash states, and the file format.
// Method: the log is compared entry by entry; the order of completion is forced with a holding
// device below.
#include "cache/device/recording_device.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <thread>

#include "cache/device/faulty_device.h"
#include "cache/device/memory_device.h"

#include "tests/cache/device_test_util.h"

namespace wbfat::cache {
namespace {

constexpr std::uint64_t kSize = 65536;
using Kind = LogEntry::Kind;

std::vector<Kind> kinds(const WriteLog& log) {
    std::vector<Kind> result;
    for (const LogEntry& entry : log) {
        result.push_back(entry.kind);
    }
    return result;
}

LogEntry write_entry(std::uint64_t offset, std::size_t length, std::uint64_t generation) {
    LogEntry entry{.offset_bytes = offset, .length_bytes = length};
    entry.data = test::pattern(offset, length, generation);
    return entry;
}

LogEntry flush_entry() {
    return {.kind = Kind::kFlush};
}

LogEntry mark_entry(const std::string& name) {
    return {.kind = Kind::kMark, .name = name};
}

class RecordingDeviceTest : public testing::Test {
protected:
    int write(std::uint64_t offset, std::size_t length, std::uint64_t generation) {
        return write_device(device_, offset, test::pattern(offset, length, generation)).code();
    }

    MemoryDevice memory_{kSize};
    FaultyDevice faulty_{memory_};
    RecordingDevice device_{faulty_};
};

TEST_F(RecordingDeviceTest, LogsWhatChangesTheDeviceInOrder) {
    EXPECT_EQ(write(512, 1024, 1), 0);
    device_.mark("one");
    EXPECT_TRUE(device_.flush());
    std::vector<std::byte> memory(512);
    EXPECT_TRUE(read_device(device_, 512, memory));
    EXPECT_TRUE(device_.discard(4096, 4096));
    EXPECT_EQ(write(8192, 512, 2), 0);

    const WriteLog expected{write_entry(512, 1024, 1),
                            mark_entry("one"),
                            flush_entry(),
                            {.kind = Kind::kDiscard, .offset_bytes = 4096, .length_bytes = 4096},
                            write_entry(8192, 512, 2)};
    EXPECT_EQ(device_.log(), expected);
    EXPECT_EQ(device_.nr_entries(), 5U);
    EXPECT_EQ(find_mark(expected, "one"), 1U);
    EXPECT_EQ(find_mark(expected, "two"), 5U);
    EXPECT_EQ(device_.take_log(), expected);
    EXPECT_EQ(device_.nr_entries(), 0U);
}

TEST_F(RecordingDeviceTest, AReplayOfTheWholeLogIsTheDevice) {
    for (unsigned i = 0; i < 64; i++) {
        EXPECT_EQ(write(i * 1536 % 60000 / 512 * 512, 512 * (1 + i % 4), i + 1), 0);
        if (i % 7 == 0) {
            EXPECT_TRUE(device_.discard(i * 512, 1024));
        }
    }
    std::vector<std::byte> image(kSize);
    const WriteLog log = device_.log();
    replay(log, log.size(), image);
    EXPECT_TRUE(std::ranges::equal(image, memory_.bytes()));
}

TEST_F(RecordingDeviceTest, LogsInOrderOfCompletionNotOfSubmission) {
    faulty_.add_rule({.ops = kFaultWrites, .nr_hits = 2, .effect = FaultEffect::kHold});
    std::vector<std::byte> a = test::pattern(0, 512, 1);
    std::vector<std::byte> b = test::pattern(512, 512, 2);
    test::TestBio first(BioOp::kWrite, 0, a);
    test::TestBio second(BioOp::kWrite, 512, b);
    device_.submit(first.bio());
    device_.submit(second.bio());
    faulty_.wait_until_held(2);
    EXPECT_EQ(device_.nr_entries(), 0U);
    EXPECT_TRUE(faulty_.release_transfer(1));
    EXPECT_EQ(second.wait(), 0);
    faulty_.release();
    EXPECT_EQ(first.wait(), 0);
    EXPECT_EQ(device_.log(), (WriteLog{write_entry(512, 512, 2), write_entry(0, 512, 1)}));
}

TEST_F(RecordingDeviceTest, WritesAndLogsTheBytesOfTheMomentOfSubmission) {
    faulty_.add_rule({.ops = kFaultWrites, .effect = FaultEffect::kHold});
    std::vector<std::byte> data = test::pattern(0, 512, 1);
    test::TestBio bio(BioOp::kWrite, 0, data);
    device_.submit(bio.bio());
    faulty_.wait_until_held(1);
    std::ranges::fill(data, std::byte{0xEE});
    faulty_.release();
    EXPECT_EQ(bio.wait(), 0);
    EXPECT_EQ(device_.log(), WriteLog{write_entry(0, 512, 1)});
    EXPECT_TRUE(std::ranges::equal(memory_.bytes().first(512), test::pattern(0, 512, 1)));
}

TEST_F(RecordingDeviceTest, AFlushDoesNotCoverWhatCompletesWhileItRuns) {
    EXPECT_EQ(write(0, 512, 1), 0);
    faulty_.add_rule({.ops = kFaultFlushes, .effect = FaultEffect::kHold});
    std::thread flusher([this] { EXPECT_TRUE(device_.flush()); });
    faulty_.wait_until_held(1);
    EXPECT_EQ(write(512, 512, 2), 0);
    EXPECT_EQ(kinds(device_.log()), (std::vector{Kind::kWrite, Kind::kWrite}));
    faulty_.release();
    flusher.join();
    EXPECT_EQ(kinds(device_.log()), (std::vector{Kind::kWrite, Kind::kFlush, Kind::kWrite}));
    EXPECT_EQ(device_.log().back(), write_entry(512, 512, 2));
}

TEST_F(RecordingDeviceTest, FailuresAreNotInTheLog) {
    faulty_.add_rule({.ops = kFaultWrites, .error = ENOSPC});
    faulty_.add_rule({.ops = kFaultFlushes});
    faulty_.add_rule({.ops = kFaultDiscards});
    EXPECT_EQ(write(0, 512, 1), ENOSPC);
    EXPECT_EQ(device_.flush().code(), EIO);
    EXPECT_EQ(device_.discard(0, 512).code(), EIO);
    EXPECT_EQ(kinds(device_.log()), std::vector{Kind::kMark});
    EXPECT_EQ(flush_epochs(device_.log()).size(), 1U);
}

TEST_F(RecordingDeviceTest, ATornWriteBelowAnotherRecorderIsLoggedAsItsPrefix) {
    RecordingDevice lower(memory_);
    FaultyDevice tearing(lower);
    tearing.add_rule(
        {.ops = kFaultWrites, .effect = FaultEffect::kTornThenGone, .keep_bytes = 512});
    EXPECT_TRUE(write_device(tearing, 0, test::pattern(0, 2048, 1)));
    EXPECT_EQ(lower.log(), WriteLog{write_entry(0, 512, 1)});
}

TEST_F(RecordingDeviceTest, ConcurrentWritesAreEachLoggedOnce) {
    MemoryDevice memory(kSize, {.completion = CompletionContext::kOnThread});
    RecordingDevice device(memory);
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; t++) {
        threads.emplace_back([&device, t] {
            for (unsigned i = t; i < 128; i += 4) {
                EXPECT_TRUE(write_device(device, i * 512, test::pattern(i * 512, 512, 1)));
                if (i % 16 == 0) {
                    EXPECT_TRUE(device.flush());
                }
            }
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    std::set<std::uint64_t> offsets;
    for (const LogEntry& entry : device.log()) {
        if (entry.kind == Kind::kWrite) {
            EXPECT_EQ(entry, write_entry(entry.offset_bytes, 512, 1));
            EXPECT_TRUE(offsets.insert(entry.offset_bytes).second);
        }
    }
    EXPECT_EQ(offsets.size(), 128U);
    EXPECT_EQ(std::ranges::count(kinds(device.log()), Kind::kFlush), 8);
}

TEST_F(RecordingDeviceTest, DestructionWaitsForWhatIsInFlight) {
    MemoryDevice memory(kSize, {.completion = CompletionContext::kOnThread});
    std::vector<std::byte> data(512);
    std::deque<test::TestBio> bios;
    auto device = std::make_unique<RecordingDevice>(memory);
    for (unsigned i = 0; i < 100; i++) {
        bios.emplace_back(BioOp::kWrite, i * 512, data);
        device->submit(bios.back().bio());
    }
    device.reset();
    for (test::TestBio& bio : bios) {
        EXPECT_EQ(bio.nr_completions(), 1);
    }
}

// W0 W1 | W2 mark W3 D4 | W5
WriteLog sample_log() {
    return {write_entry(0, 2048, 1),
            write_entry(4096, 2048, 1),
            flush_entry(),
            write_entry(0, 1024, 2),
            mark_entry("here"),
            write_entry(8192, 4096, 2),
            {.kind = Kind::kDiscard, .offset_bytes = 4096, .length_bytes = 1024},
            flush_entry(),
            write_entry(0, 512, 3)};
}

TEST(WriteLogTest, EpochsLieBetweenFlushes) {
    const WriteLog log = sample_log();
    EXPECT_EQ(flush_epochs(log), (std::vector<LogEpoch>{{0, 2}, {3, 7}, {8, 9}}));
    EXPECT_EQ(flush_epochs({}), std::vector<LogEpoch>{});
    EXPECT_EQ(flush_epochs({flush_entry(), flush_entry()}),
              (std::vector<LogEpoch>{{0, 0}, {1, 1}}));
    EXPECT_EQ(open_epoch(log, 0), (LogEpoch{0, 0}));
    EXPECT_EQ(open_epoch(log, 2), (LogEpoch{0, 2}));
    EXPECT_EQ(open_epoch(log, 3), (LogEpoch{3, 3}));
    EXPECT_EQ(open_epoch(log, 6), (LogEpoch{3, 6}));
    EXPECT_EQ(open_epoch(log, 9), (LogEpoch{8, 9}));
}

TEST(WriteLogTest, ReplayStopsAtTheEntry) {
    const WriteLog log = sample_log();
    std::vector<std::byte> image(kSize);
    replay(log, 4, image);
    EXPECT_TRUE(std::ranges::equal(std::span(image).first(1024), test::pattern(0, 1024, 2)));
    EXPECT_TRUE(
        std::ranges::equal(std::span(image).subspan(1024, 1024), test::pattern(1024, 1024, 1)));
    EXPECT_TRUE(
        std::ranges::equal(std::span(image).subspan(8192, 4096), std::vector<std::byte>(4096)));
}

TEST(WriteLogTest, ReplayCutsWhatLeavesTheImage) {
    std::vector<std::byte> image(1000);
    const WriteLog log{write_entry(512, 1024, 1),
                       write_entry(4096, 512, 1),
                       {.kind = Kind::kDiscard, .offset_bytes = 0, .length_bytes = 100}};
    replay(log, log.size(), image);
    EXPECT_TRUE(std::ranges::equal(std::span(image).subspan(512), test::pattern(512, 488, 1)));
    EXPECT_TRUE(std::ranges::equal(std::span(image).first(512), std::vector<std::byte>(512)));
}

TEST(WriteLogTest, AnEpochCanLoseAnyOfItsWrites) {
    const WriteLog log = sample_log();
    std::vector<std::byte> image(kSize);
    replay(log, 3, image);
    const std::vector<std::byte> before = image;
    std::vector<std::size_t> asked;
    apply_epoch(
        log, {3, 7},
        [&asked](std::size_t entry) {
            asked.push_back(entry);
            return entry == 5 ? WriteFate::kKept : WriteFate::kLost;
        },
        image);
    EXPECT_EQ(asked, (std::vector<std::size_t>{3, 5, 6}));
    EXPECT_TRUE(std::ranges::equal(std::span(image).first(8192), std::span(before).first(8192)));
    EXPECT_TRUE(
        std::ranges::equal(std::span(image).subspan(8192, 4096), test::pattern(8192, 4096, 2)));
}

TEST(WriteLogTest, AForcedWriteIsNeverLost) {
    WriteLog log{write_entry(0, 512, 1), write_entry(512, 512, 1)};
    log[1].fua = true;
    std::vector<std::byte> image(1024);
    build_crash_state(log, 2, {.lost_percent = 100}, image);
    EXPECT_TRUE(std::ranges::equal(std::span(image).first(512), std::vector<std::byte>(512)));
    EXPECT_TRUE(std::ranges::equal(std::span(image).last(512), test::pattern(512, 512, 1)));
}

TEST(WriteLogTest, CrashStatesKeepFlushedEpochsAndTouchOnlyTheOpenOne) {
    const WriteLog log = sample_log();
    std::vector<std::byte> flushed(kSize);
    replay(log, 3, flushed);
    std::map<std::vector<std::byte>, int> states;
    for (std::uint64_t seed = 0; seed < 200; seed++) {
        std::vector<std::byte> image(kSize);
        build_crash_state(log, 7, {.seed = seed}, image);
        // Outside the ranges of entries 3, 5 and 6 nothing differs from the flushed state.
        for (const auto& [from, to] : {std::pair{1024, 4096}, {5120, 8192}, {12288, 65536}}) {
            ASSERT_TRUE(
                std::equal(image.begin() + from, image.begin() + to, flushed.begin() + from));
        }
        states[image]++;

        std::vector<std::byte> again(kSize);
        build_crash_state(log, 7, {.seed = seed}, again);
        ASSERT_EQ(image, again);
        std::vector<std::byte> stepwise = flushed;
        apply_epoch_at_random(log, {3, 7}, {.seed = seed}, stepwise);
        ASSERT_EQ(image, stepwise);
    }
    EXPECT_EQ(states.size(), 8U) << "every subset of the three changes";
}

TEST(WriteLogTest, TornWritesSurviveInWholeSectors) {
    const WriteLog log{write_entry(0, 4096, 1)};
    for (const Tearing tearing : {Tearing::kPrefix, Tearing::kAnySectors}) {
        std::set<unsigned> masks;
        for (std::uint64_t seed = 0; seed < 400; seed++) {
            std::vector<std::byte> image(4096);
            build_crash_state(
                log, 1, {.seed = seed, .lost_percent = 0, .torn_percent = 100, .tearing = tearing},
                image);
            unsigned mask = 0;
            for (unsigned sector = 0; sector < 8; sector++) {
                const auto bytes = std::span(image).subspan(sector * 512, 512);
                const bool written = std::ranges::equal(bytes, test::pattern(sector * 512, 512, 1));
                ASSERT_TRUE(written || std::ranges::equal(bytes, std::vector<std::byte>(512)));
                mask |= written ? 1U << sector : 0U;
            }
            if (tearing == Tearing::kPrefix) {
                ASSERT_EQ(mask & (mask + 1), 0U) << "a prefix";
                ASSERT_NE(mask, 0xFFU) << "torn, not whole";
            }
            masks.insert(mask);
        }
        EXPECT_GE(masks.size(), tearing == Tearing::kPrefix ? 8U : 100U);
    }
}

class LogFileTest : public testing::Test {
protected:
    std::vector<std::byte> slurp() {
        std::ifstream file(path_, std::ios::binary);
        std::vector<char> chars((std::istreambuf_iterator<char>(file)), {});
        const auto* bytes = reinterpret_cast<const std::byte*>(chars.data());
        return {bytes, bytes + chars.size()};
    }
    void spill(std::span<const std::byte> bytes) {
        std::ofstream file(path_, std::ios::binary | std::ios::trunc);
        file.write(reinterpret_cast<const char*>(bytes.data()),
                   static_cast<std::streamsize>(bytes.size()));
    }
    static std::uint64_t number(std::span<const std::byte> bytes, std::size_t at,
                                unsigned width = 8) {
        std::uint64_t value = 0;
        for (unsigned i = 0; i < width; i++) {
            value |= std::to_integer<std::uint64_t>(bytes[at + i]) << (8 * i);
        }
        return value;
    }

    test::TempDir dir_;
    const std::string path_ = dir_.file("log");
};

TEST_F(LogFileTest, SavesAndLoads) {
    for (const std::uint32_t sector_bytes : {512U, 1024U}) {
        WriteLog log = sample_log();
        log.pop_back();
        log[0].fua = true;
        ASSERT_TRUE(save_log(log, path_, sector_bytes));
        const Result<WriteLog> loaded = load_log(path_);
        ASSERT_TRUE(loaded);
        EXPECT_EQ(*loaded, log);
    }
}

TEST_F(LogFileTest, HasTheLayoutOfDmLogWrites) {
    const WriteLog log{write_entry(1024, 1536, 1),
                       flush_entry(),
                       mark_entry("fsync a"),
                       {.kind = Kind::kDiscard, .offset_bytes = 4096, .length_bytes = 8192}};
    ASSERT_TRUE(save_log(log, path_));
    const std::vector<std::byte> file = slurp();
    ASSERT_EQ(file.size(), 512U * (1 + 1 + 3 + 1 + 1 + 1));
    EXPECT_EQ(number(file, 0), 0x6a736677736872U);
    EXPECT_EQ(number(file, 8), 1U);
    EXPECT_EQ(number(file, 16), 4U);
    EXPECT_EQ(number(file, 24, 4), 512U);
    const auto entry = [&file](std::size_t sector) {
        return std::vector{number(file, sector * 512), number(file, sector * 512 + 8),
                           number(file, sector * 512 + 16), number(file, sector * 512 + 24)};
    };
    EXPECT_EQ(entry(1), (std::vector<std::uint64_t>{2, 3, 0, 0}));
    EXPECT_TRUE(
        std::ranges::equal(std::span(file).subspan(1024, 1536), test::pattern(1024, 1536, 1)));
    EXPECT_EQ(entry(5), (std::vector<std::uint64_t>{0, 0, 1, 0}));
    EXPECT_EQ(entry(6), (std::vector<std::uint64_t>{0, 0, 8, 7}));
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(&file[6 * 512 + 32]), 7), "fsync a");
    EXPECT_EQ(entry(7), (std::vector<std::uint64_t>{8, 16, 4, 0}));
}

TEST_F(LogFileTest, SplitsAPreflushFromItsWrite) {
    ASSERT_TRUE(save_log({write_entry(512, 512, 1)}, path_));
    std::vector<std::byte> file = slurp();
    file[512 + 16] = std::byte{3};  // FLUSH | FUA
    spill(file);
    const Result<WriteLog> loaded = load_log(path_);
    ASSERT_TRUE(loaded);
    LogEntry forced = write_entry(512, 512, 1);
    forced.fua = true;
    EXPECT_EQ(*loaded, (WriteLog{flush_entry(), forced}));
}

TEST_F(LogFileTest, CutsNamesToASector) {
    ASSERT_TRUE(save_log({mark_entry(std::string(1000, 'x'))}, path_));
    const Result<WriteLog> loaded = load_log(path_);
    ASSERT_TRUE(loaded);
    EXPECT_EQ(loaded->at(0).name, std::string(480, 'x'));
}

TEST_F(LogFileTest, RefusesWhatIsNoLog) {
    EXPECT_EQ(load_log(dir_.path() + "/nothing").code(), ENOENT);
    EXPECT_EQ(save_log({}, dir_.path() + "/no/where").code(), ENOENT);
    EXPECT_EQ(save_log({write_entry(100, 512, 1)}, path_).code(), EINVAL);
    EXPECT_EQ(save_log({write_entry(0, 512, 1)}, path_, 100).code(), EINVAL);
    EXPECT_EQ(save_log({write_entry(512, 512, 1)}, path_, 1024).code(), EINVAL);

    ASSERT_TRUE(save_log(sample_log(), path_));
    const std::vector<std::byte> good = slurp();
    struct Damage {
        const char* name;
        std::size_t at;
        unsigned char value;
    };
    const Damage damages[] = {{"magic", 0, 0},
                              {"version", 8, 2},
                              {"more entries than there are", 17, 1},
                              {"sector size", 24, 1},
                              {"a write larger than the file", 512 + 8 + 5, 1},
                              {"a number of sectors that overflows", 512 + 8 + 7, 0xFF},
                              {"a first sector that overflows", 512 + 7, 0xFF}};
    for (const Damage& damage : damages) {
        SCOPED_TRACE(damage.name);
        std::vector<std::byte> bad = good;
        bad[damage.at] = std::byte{damage.value};
        spill(bad);
        EXPECT_EQ(load_log(path_).code(), EINVAL);
    }
    for (const std::size_t size : {0UL, 27UL, 511UL, 700UL, good.size() - 1}) {
        SCOPED_TRACE(size);
        spill(std::span(good).first(size));
        EXPECT_EQ(load_log(path_).code(), EINVAL);
    }
}

}  // namespace
}  // namespace wbfat::cache
