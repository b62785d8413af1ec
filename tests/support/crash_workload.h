// A seeded workload on a volume in memory, with a history of what it did and was promised.
//
// It creates, appends, overwrites, replaces atomically (write, fsync, rename over, fsync of the
// directory), renames across directories, moves directories, truncates down, up, and down and up
// again within one commit interval, unlinks, keeps unlinked files open, makes and removes
// directories (emptied by renames as they are), writes data back early as a flusher does, and syncs
// now and then.
//
// Contents are stamped: 16 bytes say whose they are, so that one file's bytes in another are seen.
//
// Locking: none; one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/crash_history.h"
#include "tests/support/volume_fixture.h"

namespace wbfat::fs::inline WBFAT_RT {

class CrashWorkload {
public:
    // The volume is mounted.
    CrashWorkload(TestVolume& bed, std::uint64_t seed);

    void run(unsigned nr_operations);
    // Syncs all of it and lets go of every inode, so that the volume can be unmounted.
    void finish();

    // --- single operations, for workloads that are no random ones ---
    using Key = CrashHistory::Key;  // (directory, name in it)
    ObjectId create_at(const Key& key, std::size_t size);
    ObjectId make_directory_at(const Key& key);
    void write_at(ObjectId file, std::size_t offset, std::size_t length);
    void resize(ObjectId file, std::size_t size);
    void move_to(ObjectId object, const Key& to);
    void exchange(ObjectId one, ObjectId other);
    void unlink_object(ObjectId file, bool keep_open);
    void remove_empty(ObjectId directory);
    void sync_file(ObjectId file);
    void sync_directory(ObjectId dir);

    const CrashHistory& history() const {
        return history_;
    }
    // Where each operation began and what it was, to explain a finding.
    const std::vector<std::pair<CrashHistory::Position, std::string>>& journal() const {
        return journal_;
    }
    std::size_t nr_syncs() const {
        return nr_syncs_;
    }

private:
    struct Object {
        bool is_directory = false;
        Key key;
        std::vector<std::byte> content;
    };

    std::size_t pick(std::size_t below);
    bool chance(unsigned percent);
    std::vector<ObjectId> all(bool directories) const;
    ObjectId pick_file();
    ObjectId pick_directory(bool root_too);
    ObjectId at(const Key& key) const;
    bool is_below(ObjectId object, ObjectId directory) const;
    std::vector<Key> children_of(ObjectId dir) const;
    Key new_key(ObjectId dir);
    Key free_key(ObjectId dir, const std::string& name);
    std::string path_of(const Key& key) const;
    InodeRef inode_of(ObjectId object);
    CrashHistory::Position now();
    void note(const std::string& what);

    void put(ObjectId object, const Key& key, CrashHistory::Position at);
    void take(const Key& key, CrashHistory::Position at);

    ObjectId create();
    void append();
    void overwrite();
    void replace(bool synced);
    void rename_file();
    void move_directory();
    void exchange_two();
    void shrink();
    void grow();
    void shrink_and_grow();
    void unlink_file();
    void make_directory();
    void remove_directory();
    void write_back();
    void step();

    TestVolume& bed_;
    std::mt19937_64 random_;
    CrashHistory history_;
    std::vector<Object> objects_;  // by id; those that are gone keep their place
    std::map<Key, ObjectId> names_;
    std::vector<InodeRef> orphans_;
    std::vector<std::pair<CrashHistory::Position, std::string>> journal_;
    unsigned nr_made_ = 0;
    std::uint32_t generation_ = 0;
    std::int64_t seconds_ = 1'700'000'000;
    std::size_t nr_syncs_ = 0;
};

}  // namespace wbfat::fs::inline WBFAT_RT
