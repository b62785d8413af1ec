// The operations on a file of the run, and what each must leave behind.
#include "tools/stress/target_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>

#include <sys/stat.h>
#include <sys/statvfs.h>

namespace wbfat::tools {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kChunk = 256U << 10;
constexpr std::uint64_t kFatMaxSize = 0xFFFFFFFF;
// How much is read around an edge that a truncate moved.
constexpr std::uint64_t kEdge = 64U << 10;
// Less free space than this may be gone again before a thread that was refused looks.
constexpr std::uint64_t kNearlyFull = 16U << 20;
// How often an overwrite is tried: of another thread's write that did not fit each descriptor
// hears.
constexpr unsigned kOverwriteAttempts = 100;
// A word that another thread is just storing may be seen torn: look again before judging.
constexpr int kSpyAttempts = 8;

std::uint32_t generation_of(std::uint64_t op_index) {
    return static_cast<std::uint32_t>(op_index % kMaxGeneration) + 1;
}

int open_retrying(int directory_fd, const std::string& name, int flags) {
    int fd = -1;
    do {
        fd = ::openat(directory_fd, name.c_str(), O_RDWR | O_CLOEXEC | flags, 0644);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

bool is_full(int error) {
    return error == ENOSPC || error == EDQUOT;
}

}  // namespace

void TargetFile::note(const JournalEntry& entry) {
    const std::lock_guard lock(mutex);
    journal[nr_journaled++ % journal.size()] = entry;
}

std::uint64_t TargetFile::size() {
    const std::lock_guard lock(mutex);
    return model.size();
}

FileHandle::FileHandle(RunContext& run, TargetFile& file, unsigned thread, Counters& counters)
    : run_(run), file_(file), thread_(thread), counters_(counters) {}

FileHandle::~FileHandle() {
    window_.drop();
    if (fd_ >= 0) {
        ::close(fd_);
    }
}

int FileHandle::sync_flag() const {
    return run_.options.sync ? O_SYNC : 0;
}

void FileHandle::open(int flags) {
    fd_ = open_retrying(run_.directory_fd, file_.name, flags | sync_flag());
    if (fd_ < 0) {
        throw std::system_error(errno, std::generic_category(), "cannot open " + file_.name);
    }
}

void FileHandle::perform(const Op& op, std::uint64_t op_index, std::span<const Range> owned) {
    op_index_ = op_index;
    file_.note({.thread = thread_, .op_index = op_index, .op = op});
    switch (op.kind) {
        case OpKind::kTruncate:
            truncate(op);
            break;
        case OpKind::kWrite:
            write(op);
            break;
        case OpKind::kStore:
            store(op);
            break;
        case OpKind::kRead:
            check({.begin = op.offset, .end = op.offset + op.length});
            break;
        case OpKind::kLoad:
            load(op);
            break;
        case OpKind::kSpy:
            spy(op);
            break;
        case OpKind::kFsync:
            sync(::fsync, "fsync");
            break;
        case OpKind::kFdatasync:
            sync(::fdatasync, "fdatasync");
            break;
        case OpKind::kEvict:
            evict_and_check(owned);
            break;
        case OpKind::kReopen:
            reopen();
            break;
        case OpKind::kRename:
            rename();
            break;
        case OpKind::kReplace:
            replace(owned);
            break;
        case OpKind::kNrKinds:
            break;
    }
    add(counters_.ops[static_cast<std::size_t>(op.kind)], 1);
}

void FileHandle::truncate(const Op& op) {
    const std::uint64_t old_size = file_.size();
    const std::uint64_t new_size = op.offset;
    while (::ftruncate(fd_, static_cast<off_t>(new_size)) != 0) {
        if (errno == EINTR) {
            continue;
        }
        if (new_size <= old_size) {
            fail_errno("ftruncate to a smaller size", errno, new_size);
        }
        expect_refusal(errno, "ftruncate", new_size);
        adopt_size_after_refusal(new_size, "ftruncate");
        return;
    }
    {
        const std::lock_guard lock(file_.mutex);
        file_.model.truncate(new_size);
    }
    if (run_.options.sync) {
        sync(::fsync, "fsync after ftruncate");
    }
    check_size();
    // The bytes at both edges: what was cut must be gone, what was gained must be zeros.
    const std::uint64_t edge = std::min(old_size, new_size);
    const std::uint64_t before = std::max(file_.floor, edge > kPage ? edge - kPage : 0);
    check({.begin = std::min(before, new_size), .end = std::min(new_size, edge + kEdge)});
    check(
        {.begin = std::max(file_.floor, new_size > kPage ? new_size - kPage : 0), .end = new_size});
}

void FileHandle::write(const Op& op) {
    const std::uint32_t generation = generation_of(op_index_);
    const auto data = buffer(op.length);
    run_.content.fill(file_.id, generation, op.offset, data);
    const std::uint64_t end = op.offset + op.length;
    std::uint64_t done = 0;
    unsigned refusals = 0;
    while (done < op.length) {
        const ssize_t count = ::pwrite(fd_, data.data() + done, op.length - done,
                                       static_cast<off_t>(op.offset + done));
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count == 0) {
            fail("pwrite wrote nothing and gave no reason", op.offset + done);
        }
        if (count < 0) {
            expect_refusal(errno, "pwrite", end);
            if (end > file_.floor) {
                settle_refused_write(op.offset + done, end);
            } else if (++refusals < kOverwriteAttempts) {
                continue;
            }
            return;
        }
        const std::lock_guard lock(file_.mutex);
        file_.model.write(op.offset + done, static_cast<std::uint64_t>(count), generation);
        done += static_cast<std::uint64_t>(count);
        add(counters_.bytes_written, static_cast<std::uint64_t>(count));
    }
    if (end > file_.floor) {
        check_size();
    }
}

void FileHandle::store(const Op& op) {
    if (!cover(op)) {
        return;
    }
    const std::uint32_t generation = generation_of(op_index_);
    const auto data = buffer(op.length);
    run_.content.fill(file_.id, generation, op.offset, data);
    const std::size_t done = window_.store(op.offset, data);
    {
        const std::lock_guard lock(file_.mutex);
        file_.model.write(op.offset, done, generation);
    }
    add(counters_.bytes_written, done);
    if (done < data.size()) {
        excuse_sigbus(op.offset + done);
        window_.drop();
        return;
    }
    if (op.sync_mapping) {
        const int error = window_.sync(op.offset, op.length);
        if (error != 0) {
            expect_refusal(error, "msync", op.offset + op.length);
            forget_what_did_not_fit();
        }
    }
    if (op.drop_mapping) {
        window_.drop();
    }
}

void FileHandle::load(const Op& op) {
    if (!cover(op)) {
        return;
    }
    const auto data = buffer(op.length);
    const std::size_t done = window_.load(op.offset, data);
    if (done < data.size()) {
        // tmpfs gives a hole its page even for a read.
        excuse_sigbus(op.offset + done);
    }
    compare(op.offset, data.first(done), "mapped read");
    if (op.drop_mapping) {
        window_.drop();
    }
}

// Reads a range that other threads are writing. No model can say what is there, but every whole
// word must be zero or something that was meant for this place.
void FileHandle::spy(const Op& op) {
    const auto data = buffer(op.length);
    const std::size_t count = read_fully(op.offset, data, "pread");
    if (count < data.size()) {
        fail(fmt::format("pread returned {} of {} bytes below the end of the file", count,
                         data.size()),
             op.offset);
    }
    for (std::size_t at = 0; at + sizeof(std::uint64_t) <= data.size();
         at += sizeof(std::uint64_t)) {
        std::uint64_t word = 0;
        std::memcpy(&word, data.data() + at, sizeof word);
        for (int attempt = 0; !belongs(word, op.offset + at); ++attempt) {
            if (attempt == kSpyAttempts) {
                fail("a word that nobody wrote at this place", op.offset + at,
                     {{"found", describe_word(op.offset + at)}});
            }
            read_fully(op.offset + at, {reinterpret_cast<std::byte*>(&word), sizeof word}, "pread");
        }
    }
    add(counters_.bytes_checked, data.size());
}

void FileHandle::sync(int (*sync_call)(int), const char* call) {
    while (sync_call(fd_) != 0) {
        if (errno == EINTR) {
            continue;
        }
        expect_refusal(errno, call, file_.size());
        forget_what_did_not_fit();
        return;
    }
}

void FileHandle::evict_and_check(std::span<const Range> owned) {
    sync(::fdatasync, "fdatasync");
    window_.drop();
    // Only a hint: a filesystem that keeps its copy is compared against that copy.
    static_cast<void>(::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED));
    for (const Range& range : owned) {
        const std::uint64_t size = file_.size();
        check({.begin = std::min(range.begin, size), .end = std::min(range.end, size)});
    }
}

void FileHandle::reopen() {
    if (op_index_ % 2 == 0) {
        window_.drop();
    }
    if (::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) {
        const int error = errno;
        fd_ = open_retrying(run_.directory_fd, file_.name, sync_flag());
        if (fd_ < 0) {
            fail_errno("open", errno, 0);
        }
        expect_refusal(error, "close", file_.size());
        forget_what_did_not_fit();
        return;
    }
    fd_ = open_retrying(run_.directory_fd, file_.name, sync_flag());
    if (fd_ < 0) {
        fail_errno("open", errno, 0);
    }
    if (!run_.options.shared) {
        check_size();
    }
}

void FileHandle::rename() {
    static constexpr std::string_view kSuffix = " (Renamed).dat";
    std::string name = file_.name;
    if (name.ends_with(kSuffix)) {
        name.replace(name.size() - kSuffix.size(), kSuffix.size(), ".dat");
    } else {
        name.replace(name.rfind('.'), std::string::npos, kSuffix);
    }
    if (::renameat(run_.directory_fd, file_.name.c_str(), run_.directory_fd, name.c_str()) != 0) {
        if (is_full(errno)) {
            add(counters_.refused_full, 1);
            return;
        }
        fail_errno("rename", errno, 0);
    }
    file_.name = name;
    struct stat by_name {};
    if (::fstatat(run_.directory_fd, name.c_str(), &by_name, 0) != 0) {
        fail_errno("stat of the new name", errno, 0);
    }
    check_size();
}

void FileHandle::replace(std::span<const Range> owned) {
    if (::unlinkat(run_.directory_fd, file_.name.c_str(), 0) != 0) {
        fail_errno("unlink", errno, 0);
    }
    // Unlinked but open: everything must still be there.
    check_size();
    for (const Range& range : owned) {
        check({.begin = range.begin, .end = std::min(range.end, file_.size())});
    }
    window_.drop();
    ::close(std::exchange(fd_, -1));
    {
        const std::lock_guard lock(file_.mutex);
        file_.model.truncate(0);
    }
    // A directory entry can need a cluster, and another thread may just have taken the last one.
    for (int attempt = 0;; ++attempt) {
        fd_ = open_retrying(run_.directory_fd, file_.name, O_CREAT | O_EXCL | sync_flag());
        if (fd_ >= 0) {
            break;
        }
        if (!is_full(errno) || attempt == 100) {
            fail_errno("create after unlink", errno, 0);
        }
        add(counters_.refused_full, 1);
        ::usleep(10'000);
    }
    check_size();
}

void FileHandle::expect_refusal(int error, const char* call, std::uint64_t end) {
    if (is_full(error)) {
        add(counters_.refused_full, 1);
        return;
    }
    if (error == EFBIG && end > kFatMaxSize) {
        add(counters_.refused_too_big, 1);
        return;
    }
    fail_errno(call, error, end);
}

void FileHandle::adopt_size_after_refusal(std::uint64_t asked, const char* call) {
    struct stat status {};
    if (::fstat(fd_, &status) != 0) {
        fail_errno("fstat", errno, 0);
    }
    const std::uint64_t old_size = file_.size();
    const auto size = static_cast<std::uint64_t>(status.st_size);
    const std::uint64_t most = run_.options.strict_full ? old_size : std::max(old_size, asked);
    if (size < old_size || size > most) {
        fail(fmt::format("{} was refused, and left a size of {}: it was {}, asked for were {}",
                         call, size, old_size, asked),
             size);
    }
    {
        const std::lock_guard lock(file_.mutex);
        file_.model.truncate(size);
    }
    check({.begin = old_size > file_.floor + kPage ? old_size - kPage : file_.floor,
           .end = std::min(size, old_size + kEdge)});
}

// A filesystem that has told the size by which it was to grow, and then found no room, may have
// written any part of [begin, end): the file ends before it again.
void FileHandle::settle_refused_write(std::uint64_t begin, std::uint64_t end) {
    struct stat status {};
    if (::fstat(fd_, &status) != 0) {
        fail_errno("fstat", errno, 0);
    }
    const std::uint64_t old_size = file_.size();
    const bool has_grown = static_cast<std::uint64_t>(status.st_size) > old_size;
    if (!has_grown || run_.options.strict_full) {
        adopt_size_after_refusal(end, "pwrite");
        return;
    }
    const std::uint64_t kept = std::min(begin, old_size);
    if (::ftruncate(fd_, static_cast<off_t>(kept)) != 0) {
        fail_errno("ftruncate to a smaller size", errno, kept);
    }
    {
        const std::lock_guard lock(file_.mutex);
        file_.model.truncate(kept);
    }
    check_size();
    check({.begin = std::max(file_.floor, kept > kPage ? kept - kPage : 0), .end = kept});
}

void FileHandle::forget_what_did_not_fit() {
    // What does not fit is behind the floor, and its thread knows.
    if (!run_.options.shared || file_.growing_thread(run_.options) == thread_) {
        start_again();
    }
}

void FileHandle::start_again() {
    if (run_.options.shared) {
        fail(
            "space ran out during writeback of a shared file: this mode needs room for all its "
            "files",
            file_.size());
    }
    window_.drop();
    if (::ftruncate(fd_, static_cast<off_t>(file_.floor)) != 0) {
        fail_errno("ftruncate to a smaller size", errno, file_.floor);
    }
    const std::lock_guard lock(file_.mutex);
    file_.model.truncate(file_.floor);
}

void FileHandle::excuse_sigbus(std::uint64_t offset) {
    struct statvfs status {};
    if (::fstatvfs(fd_, &status) != 0) {
        fail_errno("fstatvfs", errno, offset);
    }
    const std::uint64_t free_bytes = std::uint64_t{status.f_bavail} * status.f_frsize;
    if (free_bytes > kNearlyFull) {
        fail(fmt::format("SIGBUS within the file, with {} bytes free", free_bytes), offset);
    }
    add(counters_.refused_full, 1);
}

bool FileHandle::cover(const Op& op) {
    if (run_.cannot_map.load(std::memory_order_relaxed)) {
        add(counters_.skipped, 1);
        return false;
    }
    const int error = window_.cover(fd_, op.offset, op.length);
    if (error == ENODEV || error == EOPNOTSUPP) {
        run_.cannot_map.store(true, std::memory_order_relaxed);
        add(counters_.skipped, 1);
        return false;
    }
    if (error != 0) {
        fail_errno("mmap", error, op.offset);
    }
    return true;
}

std::span<std::byte> FileHandle::buffer(std::uint64_t length) {
    if (buffer_.size() < length) {
        buffer_.resize(length);
    }
    return {buffer_.data(), length};
}

void FileHandle::check_size() {
    struct stat status {};
    if (::fstat(fd_, &status) != 0) {
        fail_errno("fstat", errno, 0);
    }
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (size != file_.size()) {
        fail("the size is wrong", std::min(size, file_.size()),
             {{"expected", fmt::format("{} bytes", file_.size())},
              {"found", fmt::format("{} bytes", size)}});
    }
}

void FileHandle::check(Range range) {
    for (std::uint64_t at = range.begin; at < range.end;) {
        const auto data = buffer(std::min(kChunk, range.end - at));
        const std::size_t count = read_fully(at, data, "pread");
        if (count < data.size()) {
            fail(fmt::format("pread returned {} of {} bytes below the end of the file", count,
                             data.size()),
                 at + count);
        }
        compare(at, data, "pread");
        at += data.size();
        if (run_.stop.load(std::memory_order_relaxed)) {
            return;
        }
    }
}

std::size_t FileHandle::read_fully(std::uint64_t offset, std::span<std::byte> out,
                                   const char* call) {
    std::size_t done = 0;
    while (done < out.size()) {
        const ssize_t count =
            ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            fail_errno(call, errno, offset + done);
        }
        if (count == 0) {
            break;
        }
        done += static_cast<std::size_t>(count);
    }
    return done;
}

void FileHandle::compare(std::uint64_t offset, std::span<const std::byte> data, const char* how) {
    Mismatch mismatch;
    if (find_mismatch(offset, data, mismatch)) {
        fail_mismatch(mismatch, offset, data, how);
    }
    add(counters_.bytes_checked, data.size());
}

bool FileHandle::find_mismatch(std::uint64_t offset, std::span<const std::byte> data,
                               Mismatch& mismatch) {
    bool found = false;
    const std::lock_guard lock(file_.mutex);
    file_.model.for_each_run(
        offset, data.size(),
        [&](std::uint64_t run_offset, std::uint64_t run_length, std::uint32_t generation) {
            const auto run = data.subspan(run_offset - offset, run_length);
            const std::size_t at =
                run_.content.first_mismatch(file_.id, generation, run_offset, run);
            found = at < run.size();
            if (found) {
                mismatch = {.offset = run_offset + at, .expected = generation};
            }
            return !found;
        });
    return found;
}

bool FileHandle::belongs(std::uint64_t word, std::uint64_t offset) {
    if (word == 0) {
        return true;
    }
    const Origin origin = run_.content.origin(word);
    if (origin.file == file_.id && origin.offset_bytes == offset && origin.generation > 0) {
        return true;
    }
    Mismatch mismatch;
    return !find_mismatch(offset, std::as_bytes(std::span(&word, 1)), mismatch);
}

// What the aligned word around `offset` is now, and which write it came from.
std::string FileHandle::describe_word(std::uint64_t offset) {
    const std::uint64_t aligned = offset / 8 * 8;
    std::uint64_t word = 0;
    const std::size_t count =
        read_fully(aligned, {reinterpret_cast<std::byte*>(&word), sizeof word}, "pread");
    std::string text = fmt::format("word at {}: {:016x}", aligned, word);
    if (count < sizeof word) {
        return text + " (cut by the end of the file)";
    }
    if (word == 0) {
        return text + " (zeros)";
    }
    const Origin origin = run_.content.origin(word);
    const std::uint64_t nr_files =
        std::uint64_t{run_.options.files} * (run_.options.shared ? 1 : run_.options.threads);
    if (origin.generation == 0 || origin.file >= nr_files || origin.offset_bytes >= kMaxFileSize) {
        return text + " (not a word of this run: foreign data, or a mix of two writes)";
    }
    return text + fmt::format(" (written for file {}{}, offset {}, by op {})", origin.file,
                              origin.file == file_.id ? " = this one" : "", origin.offset_bytes,
                              origin.generation - 1);
}

void FileHandle::fail(std::string what, std::uint64_t offset,
                      std::vector<std::pair<std::string, std::string>> facts) {
    Failure failure{.what = std::move(what),
                    .file = file_.name,
                    .offset_bytes = offset,
                    .thread = thread_,
                    .op_index = op_index_,
                    .facts = std::move(facts),
                    .last_ops = {}};
    failure.facts.insert(
        failure.facts.begin(),
        {"offset", fmt::format("{} (page {} + {}, cluster {} + {})", offset, offset / kPage,
                               offset % kPage, offset / run_.cluster, offset % run_.cluster)});
    const std::lock_guard lock(file_.mutex);
    failure.facts.emplace_back("file size", fmt::format("{} bytes expected", file_.model.size()));
    const std::uint64_t held = std::min<std::uint64_t>(file_.nr_journaled, file_.journal.size());
    for (std::uint64_t i = file_.nr_journaled - held; i < file_.nr_journaled; ++i) {
        const JournalEntry& entry = file_.journal[i % file_.journal.size()];
        failure.last_ops.push_back(fmt::format("thread {:<3} op {:<8} {}", entry.thread,
                                               entry.op_index, entry.op.to_string()));
    }
    throw StressFailed(std::move(failure));
}

void FileHandle::fail_errno(const char* call, int error, std::uint64_t offset) {
    fail(fmt::format("{} failed: {}", call, std::generic_category().message(error)), offset,
         {{"errno", std::to_string(error)}});
}

void FileHandle::fail_mismatch(const Mismatch& mismatch, std::uint64_t offset,
                               std::span<const std::byte> data, const char* how) {
    const std::size_t at = mismatch.offset - offset;
    const std::size_t shown = std::min<std::size_t>(16, data.size() - at);
    std::vector<std::byte> expected(shown);
    run_.content.fill(file_.id, mismatch.expected, mismatch.offset, expected);
    const auto hex = [](std::span<const std::byte> bytes) {
        std::string text;
        for (const std::byte byte : bytes) {
            text += fmt::format("{:02x} ", static_cast<unsigned>(byte));
        }
        return text;
    };
    std::vector<std::pair<std::string, std::string>> facts;
    facts.emplace_back("expected",
                       hex(expected) + (mismatch.expected == 0
                                            ? "(zeros: never written since the file grew over it)"
                                            : fmt::format("(op {})", mismatch.expected - 1)));
    facts.emplace_back("found", hex(data.subspan(at, shown)) + fmt::format("by {}", how));
    std::vector<std::byte> again(data.size());
    const std::size_t count = read_fully(offset, again, "pread");
    Mismatch second;
    const bool still = find_mismatch(offset, std::span(again).first(count), second);
    facts.emplace_back("read again", still ? fmt::format("wrong from offset {} on", second.offset)
                                           : std::string("right: the first answer was transient"));
    facts.emplace_back("now there", describe_word(mismatch.offset));
    fail("wrong data", mismatch.offset, std::move(facts));
}

}  // namespace wbfat::tools
