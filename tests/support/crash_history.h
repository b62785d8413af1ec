// What a workload did and what it was promised, as a power-cut test needs it: which names and which
// bytes may be on the disk when the power goes after so many entries of the write log.
//
// Every change has the position of the log where it began; before that nothing of it can be on the
// disk. Every claim has the position where the promise had been given. At a cut, a name may lead to
// what it led to at the last claim for all names, or to what any later change made of it; a file
// may hold its content of its last claim, or, byte by byte, that of any later version. An object
// that was promised and not removed since is found under at least one of its names.
//
// Directories are objects too: a name is (directory object, name in it), so that a moved directory
// takes its names along.
//
// Locking: none; one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/support/crash_reader.h"

namespace wbfat::fs::inline WBFAT_RT {

using ObjectId = std::size_t;
inline constexpr ObjectId kNoObject = 0;
inline constexpr ObjectId kRootObject = 1;

class CrashHistory {
public:
    using Position = std::size_t;  // entries of the log
    using Key = std::pair<ObjectId, std::string>;

    explicit CrashHistory(std::uint64_t cluster_bytes);

    ObjectId add_object(bool is_directory, std::string label);
    // From `at` on the name leads to the object; kNoObject: to nothing.
    void set_name(const Key& key, ObjectId object, Position at);
    void set_content(ObjectId file, std::vector<std::byte> content, Position at);
    // The object's last name goes.
    void remove(ObjectId object, Position at);
    // All names are as they are now, durably.
    void claim_names(Position at);
    // The file's content and the name it has are durable.
    void claim_file(ObjectId file, Position at);

    // What a cut after `cut` entries may not have left, one sentence each.
    std::vector<std::string> violations(const CrashTree& tree, Position cut) const;
    // True if the paths may be two names of one object, or of something in one, at that cut: it is
    // being renamed. With an empty `second`: the first is a directory that is being moved.
    bool is_rename_in_flight(std::string_view first, std::string_view second, Position cut) const;

private:
    using Sequence = std::size_t;
    struct NameEvent {
        Sequence sequence;
        Position at;
        ObjectId object;
    };
    struct Version {
        Sequence sequence;
        Position at;
        std::vector<std::byte> content;
    };
    struct Claim {
        Sequence sequence;
        Position at;
    };
    struct Object {
        bool is_directory = false;
        std::string label;
        Sequence born = 0;
        Position removed_at = ~Position{0};
        Sequence removed = ~Sequence{0};
        std::vector<Version> versions;
        std::vector<Claim> claims;
        std::vector<std::pair<Sequence, Key>> names;
    };
    struct Found {
        std::vector<unsigned> times;  // by object
        std::vector<std::string>* out;
        Position cut;
    };

    static Sequence last_claim(const std::vector<Claim>& claims, Position cut);
    std::vector<ObjectId> allowed(const Key& key, Position cut) const;
    std::vector<ObjectId> objects_at(std::string_view path, Position cut) const;
    std::size_t nr_possible_names(ObjectId object, Position cut) const;
    std::vector<const Version*> candidates(const Object& file, Position cut) const;
    std::string content_violation(const Object& file, const CrashNode& node, Position cut) const;
    void check_directory(ObjectId dir, const CrashNode& node, const std::string& path,
                         Found& found) const;
    void check_child(ObjectId dir, const CrashNode& child, const std::string& path,
                     Found& found) const;

    const std::uint64_t cluster_bytes_;
    Sequence sequence_ = 1;
    std::vector<Object> objects_;
    std::map<Key, std::vector<NameEvent>> names_;
    std::vector<Claim> claims_;
};

}  // namespace wbfat::fs::inline WBFAT_RT
