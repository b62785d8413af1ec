// The operations.
#include "tests/support/crash_workload.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

#include "cache/filemap.h"
#include "cache/writeback.h"
#include "fs/namei.h"

namespace wbfat::fs::inline WBFAT_RT {

namespace {

constexpr std::size_t kStampBytes = 16;
constexpr std::size_t kUsualBytes = 14'000;
constexpr std::size_t kLargeBytes = 60'000;
constexpr std::size_t kMaxDirectories = 6;
constexpr unsigned kNrNames = 30;

// "who, when, where" and a pattern of it, over and over.
void stamp(std::vector<std::byte>& content, std::size_t from, std::size_t to, ObjectId file,
           std::uint32_t generation) {
    for (std::size_t at = from; at < to; ++at) {
        const std::size_t where = at / kStampBytes;
        const std::uint64_t value = (file * 0x9E3779B97F4A7C15ULL) ^
                                    (generation * 0xC2B2AE3D27D4EB4FULL) ^
                                    (where * 0x165667B19E3779F9ULL);
        const unsigned shift = static_cast<unsigned>(at % 8) * 8;
        content[at] = static_cast<std::byte>((value >> shift) | 1U);  // never 0
    }
}

}  // namespace

CrashWorkload::CrashWorkload(TestVolume& bed, std::uint64_t seed)
    : bed_(bed),
      random_(seed),
      history_(bed.volume().geometry().cluster_bytes),
      objects_(kRootObject + 1) {
    objects_[kRootObject].is_directory = true;
}

std::size_t CrashWorkload::pick(std::size_t below) {
    return below == 0 ? 0 : random_() % below;
}

bool CrashWorkload::chance(unsigned percent) {
    return pick(100) < percent;
}

CrashHistory::Position CrashWorkload::now() {
    return bed_.recorder().nr_entries();
}

void CrashWorkload::note(const std::string& what) {
    journal_.emplace_back(now(), what);
    seconds_ += 2;
    bed_.set_time(seconds_);
}

// --- what is there ---

std::vector<ObjectId> CrashWorkload::all(bool directories) const {
    std::vector<ObjectId> found;
    for (const auto& [key, object] : names_) {
        if (objects_.at(object).is_directory == directories) {
            found.push_back(object);
        }
    }
    return found;
}

ObjectId CrashWorkload::pick_file() {
    const std::vector<ObjectId> files = all(false);
    return files.empty() ? create() : files[pick(files.size())];
}

ObjectId CrashWorkload::pick_directory(bool root_too) {
    std::vector<ObjectId> directories = all(true);
    if (root_too) {
        directories.push_back(kRootObject);
    }
    return directories.empty() ? kNoObject : directories[pick(directories.size())];
}

ObjectId CrashWorkload::at(const Key& key) const {
    const auto found = names_.find(key);
    return found == names_.end() ? kNoObject : found->second;
}

bool CrashWorkload::is_below(ObjectId object, ObjectId directory) const {
    while (object != kRootObject && object != directory) {
        object = objects_.at(object).key.first;
    }
    return object == directory;
}

std::vector<CrashWorkload::Key> CrashWorkload::children_of(ObjectId dir) const {
    std::vector<Key> keys;
    for (const auto& [key, object] : names_) {
        if (key.first == dir) {
            keys.push_back(key);
        }
    }
    return keys;
}

// A name nobody has in `dir`, from a small store, so that names come back.
CrashWorkload::Key CrashWorkload::new_key(ObjectId dir) {
    for (;;) {
        std::array<char, 64> name{};
        const auto number = static_cast<unsigned>(pick(kNrNames));
        const char* const format = number % 3 == 0   ? "a long name for file %02u.data"
                                   : number % 3 == 1 ? "f%02u.dat"
                                                     : "file number %02u.txt";
        std::snprintf(name.data(), name.size(), format, number);
        Key key{dir, name.data()};
        if (at(key) == kNoObject) {
            return key;
        }
    }
}

// `name` in `dir`, unless somebody has it: an exchange gives directories names out of the store.
CrashWorkload::Key CrashWorkload::free_key(ObjectId dir, const std::string& name) {
    const Key key{dir, name};
    return at(key) == kNoObject ? key : new_key(dir);
}

std::string CrashWorkload::path_of(const Key& key) const {
    return key.first == kRootObject ? "/" + key.second
                                    : path_of(objects_.at(key.first).key) + "/" + key.second;
}

InodeRef CrashWorkload::inode_of(ObjectId object) {
    if (object == kRootObject) {
        return bed_.root();
    }
    const Key key = objects_.at(object).key;
    const InodeRef dir = inode_of(key.first);
    return bed_.open(*dir, key.second);
}

// --- what changes it ---

void CrashWorkload::put(ObjectId object, const Key& key, CrashHistory::Position at) {
    names_[key] = object;
    objects_.at(object).key = key;
    history_.set_name(key, object, at);
}

void CrashWorkload::take(const Key& key, CrashHistory::Position at) {
    names_.erase(key);
    history_.set_name(key, kNoObject, at);
}

void CrashWorkload::write_at(ObjectId file, std::size_t offset, std::size_t length) {
    const CrashHistory::Position start = now();
    std::vector<std::byte>& content = objects_.at(file).content;
    content.resize(std::max(content.size(), offset + length));
    stamp(content, offset, offset + length, file, ++generation_);
    history_.set_content(file, content, start);
    File open_file(inode_of(file), {});
    std::size_t done = offset;
    const auto written =
        open_file.write(offset, length, [&](std::span<std::byte> piece) -> Result<> {
            std::memcpy(piece.data(), content.data() + done, piece.size());
            done += piece.size();
            return {};
        });
    ASSERT_EQ(written.code(), 0);
    ASSERT_EQ(*written, length);
}

void CrashWorkload::resize(ObjectId file, std::size_t size) {
    objects_.at(file).content.resize(size);
    history_.set_content(file, objects_.at(file).content, now());
    bed_.truncate(inode_of(file), size);
}

void CrashWorkload::move_to(ObjectId object, const Key& to) {
    const CrashHistory::Position start = now();
    const Key from = objects_.at(object).key;
    const ObjectId victim = at(to);
    if (victim != kNoObject) {
        history_.remove(victim, start);
    }
    note("rename " + path_of(from) + " -> " + path_of(to));
    const InodeRef old_dir = inode_of(from.first);
    const InodeRef new_dir = inode_of(to.first);
    take(from, start);
    put(object, to, start);
    EXPECT_EQ(rename(*old_dir, from.second, *new_dir, to.second, 0).code(), 0);
}

void CrashWorkload::exchange(ObjectId one, ObjectId other) {
    const CrashHistory::Position start = now();
    const Key first = objects_.at(one).key;
    const Key second = objects_.at(other).key;
    note("exchange " + path_of(first) + " and " + path_of(second));
    const InodeRef old_dir = inode_of(first.first);
    const InodeRef new_dir = inode_of(second.first);
    // The third name of fs/rename.cc, as readdir shows it and as fsck.fat is understood here.
    for (const char* const third : {"EXCHANGE.000", "exchange.000"}) {
        history_.set_name({second.first, third}, one, start);
        history_.set_name({second.first, third}, kNoObject, start);
    }
    put(other, first, start);
    put(one, second, start);
    EXPECT_EQ(rename(*old_dir, first.second, *new_dir, second.second, kRenameExchange).code(), 0);
}

void CrashWorkload::sync_file(ObjectId file) {
    note("fsync " + path_of(objects_.at(file).key));
    bed_.fsync(inode_of(file));
    bed_.recorder().mark("fsync " + path_of(objects_.at(file).key));
    history_.claim_file(file, now());
    nr_syncs_++;
}

void CrashWorkload::sync_directory(ObjectId dir) {
    note("fsync of a directory");
    bed_.fsync(inode_of(dir));
    bed_.recorder().mark("all names");
    history_.claim_names(now());
    nr_syncs_++;
}

// --- operations ---

ObjectId CrashWorkload::create_at(const Key& key, std::size_t size) {
    const CrashHistory::Position start = now();
    note("create " + path_of(key) + " of " + std::to_string(size));
    const ObjectId file = history_.add_object(
        false, "file " + std::to_string(objects_.size()) + ", made as " + path_of(key) + ",");
    objects_.resize(file + 1);
    history_.set_content(file, {}, start);
    const InodeRef dir = inode_of(key.first);
    put(file, key, start);
    bed_.make_in(*dir, key.second);
    if (size != 0) {
        write_at(file, 0, size);
    }
    return file;
}

ObjectId CrashWorkload::create() {
    return create_at(new_key(pick_directory(true)),
                     chance(15) ? 0 : pick(chance(10) ? kLargeBytes : kUsualBytes));
}

void CrashWorkload::append() {
    const ObjectId file = pick_file();
    note("append to " + path_of(objects_.at(file).key));
    write_at(file, objects_.at(file).content.size(), 1 + pick(kUsualBytes / 2));
}

void CrashWorkload::overwrite() {
    const ObjectId file = pick_file();
    const std::size_t size = objects_.at(file).content.size();
    if (size != 0) {
        note("overwrite in " + path_of(objects_.at(file).key));
        const std::size_t offset = pick(size);
        write_at(file, offset, 1 + pick(size - offset));
    }
}

void CrashWorkload::replace(bool synced) {
    const ObjectId target = pick_file();
    const Key to = objects_.at(target).key;
    const Key temporary{to.first, "tmp" + std::to_string(nr_made_++) + ".new"};
    const ObjectId file = create_at(temporary, 1 + pick(kUsualBytes));
    if (synced) {
        sync_file(file);
    }
    move_to(file, to);
    if (synced) {
        sync_directory(to.first);
    }
}

void CrashWorkload::rename_file() {
    const ObjectId file = pick_file();
    const Key from = objects_.at(file).key;
    const ObjectId dir = chance(70) ? pick_directory(true) : from.first;
    Key to = new_key(dir);
    const std::vector<Key> there = children_of(dir);
    const Key other = there.empty() ? to : there[pick(there.size())];
    const ObjectId victim = at(other);
    if (chance(30) && victim != kNoObject && victim != file && !objects_.at(victim).is_directory) {
        to = other;
    }
    move_to(file, to);
}

void CrashWorkload::move_directory() {
    const ObjectId dir = pick_directory(false);
    const ObjectId into = pick_directory(true);
    if (dir == kNoObject || is_below(into, dir) || objects_.at(dir).key.first == into) {
        return;
    }
    move_to(dir, free_key(into, objects_.at(dir).key.second));
}

void CrashWorkload::exchange_two() {
    const ObjectId one = chance(75) ? pick_file() : pick_directory(false);
    const ObjectId other = chance(75) ? pick_file() : pick_directory(false);
    if (one != kNoObject && other != kNoObject && !is_below(one, other) && !is_below(other, one)) {
        exchange(one, other);
    }
}

void CrashWorkload::shrink() {
    const ObjectId file = pick_file();
    const std::size_t size = chance(15) ? 0 : pick(objects_.at(file).content.size());
    note("shrink " + path_of(objects_.at(file).key) + " to " + std::to_string(size));
    resize(file, size);
}

void CrashWorkload::grow() {
    const ObjectId file = pick_file();
    const std::size_t size = objects_.at(file).content.size() + pick(kUsualBytes);
    note("grow " + path_of(objects_.at(file).key) + " to " + std::to_string(size));
    resize(file, size);
}

void CrashWorkload::shrink_and_grow() {
    const ObjectId file = pick_file();
    const std::size_t size = objects_.at(file).content.size();
    note("shrink and grow " + path_of(objects_.at(file).key) + " of " + std::to_string(size));
    resize(file, chance(20) ? 0 : pick(size));
    const std::size_t kept = objects_.at(file).content.size();
    if (chance(50)) {
        resize(file, kept + pick(kUsualBytes));
    } else {
        write_at(file, kept, 1 + pick(kUsualBytes));
    }
}

void CrashWorkload::unlink_object(ObjectId file, bool keep_open) {
    const Key key = objects_.at(file).key;
    const CrashHistory::Position start = now();
    note("unlink " + path_of(key));
    InodeRef inode = inode_of(file);
    const InodeRef dir = inode_of(key.first);
    history_.remove(file, start);
    take(key, start);
    EXPECT_EQ(unlink(*dir, key.second).code(), 0);
    if (keep_open) {
        orphans_.push_back(std::move(inode));
    }
}

void CrashWorkload::unlink_file() {
    const ObjectId file = pick_file();
    unlink_object(file, chance(30));
}

ObjectId CrashWorkload::make_directory_at(const Key& key) {
    const CrashHistory::Position start = now();
    note("mkdir " + path_of(key));
    const ObjectId made = history_.add_object(true, "directory " + path_of(key));
    objects_.resize(made + 1);
    objects_[made].is_directory = true;
    const InodeRef parent = inode_of(key.first);
    put(made, key, start);
    bed_.make_directory(*parent, key.second);
    return made;
}

void CrashWorkload::make_directory() {
    if (all(true).size() >= kMaxDirectories) {
        return remove_directory();
    }
    const ObjectId parent = pick_directory(true);
    const ObjectId made = make_directory_at({parent, "dir" + std::to_string(nr_made_++)});
    while (chance(60)) {
        create_at(new_key(made), pick(kUsualBytes / 4));
    }
}

void CrashWorkload::remove_empty(ObjectId directory) {
    const Key key = objects_.at(directory).key;
    const CrashHistory::Position start = now();
    note("rmdir " + path_of(key));
    const InodeRef parent = inode_of(key.first);
    history_.remove(directory, start);
    take(key, start);
    EXPECT_EQ(rmdir(*parent, key.second).code(), 0);
}

// What is in it moves elsewhere, or goes.
void CrashWorkload::remove_directory() {
    const ObjectId victim = pick_directory(false);
    const ObjectId into = pick_directory(true);
    if (victim == kNoObject || is_below(into, victim)) {
        return;
    }
    for (const Key& key : children_of(victim)) {
        const ObjectId child = at(key);
        move_to(child,
                objects_.at(child).is_directory ? free_key(into, key.second) : new_key(into));
    }
    remove_empty(victim);
}

// As a flusher does: data only, no commit.
void CrashWorkload::write_back() {
    const ObjectId file = pick_file();
    note("write back " + path_of(objects_.at(file).key));
    const InodeRef inode = inode_of(file);
    EXPECT_EQ(cache::filemap_fdatawrite_range(inode->mapping(), 0, cache::kLastByte).code(), 0);
}

void CrashWorkload::step() {
    struct Choice {
        unsigned weight;
        void (*run)(CrashWorkload&);
    };
    using W = CrashWorkload;
    static constexpr std::array<Choice, 17> kChoices{{
        {14, [](W& w) { w.create(); }},
        {12, [](W& w) { w.append(); }},
        {4, [](W& w) { w.overwrite(); }},
        {9, [](W& w) { w.replace(true); }},
        {4, [](W& w) { w.replace(false); }},
        {13, [](W& w) { w.rename_file(); }},
        {4, [](W& w) { w.move_directory(); }},
        {4, [](W& w) { w.exchange_two(); }},
        {7, [](W& w) { w.shrink(); }},
        {4, [](W& w) { w.grow(); }},
        {8, [](W& w) { w.shrink_and_grow(); }},
        {9, [](W& w) { w.unlink_file(); }},
        {5, [](W& w) { w.make_directory(); }},
        {3, [](W& w) { w.remove_directory(); }},
        {6, [](W& w) { w.write_back(); }},
        {12, [](W& w) { w.sync_file(w.pick_file()); }},
        {4, [](W& w) { w.sync_directory(w.pick_directory(true)); }},
    }};
    unsigned total = 0;
    for (const Choice& choice : kChoices) {
        total += choice.weight;
    }
    auto left = static_cast<unsigned>(pick(total));
    for (const Choice& choice : kChoices) {
        if (left < choice.weight) {
            return choice.run(*this);
        }
        left -= choice.weight;
    }
}

void CrashWorkload::run(unsigned nr_operations) {
    for (unsigned i = 0; i < nr_operations && !testing::Test::HasFatalFailure(); ++i) {
        step();
        if (!orphans_.empty() && chance(10)) {
            note("close an unlinked file");
            orphans_.erase(orphans_.begin());
        }
    }
}

void CrashWorkload::finish() {
    orphans_.clear();
    for (const ObjectId file : all(false)) {
        sync_file(file);
    }
    sync_directory(kRootObject);
}

}  // namespace wbfat::fs::inline WBFAT_RT
