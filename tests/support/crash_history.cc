// The history, and the verdict on a tree.
#include "tests/support/crash_history.h"

#include <algorithm>
#include <cctype>
#include <set>

namespace wbfat::fs::inline WBFAT_RT {

namespace {

constexpr std::size_t kBlockBytes = 512;  // of the page cache

std::string in_lower_case(std::string_view text) {
    std::string lower(text);
    std::ranges::transform(lower, lower.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return lower;
}

bool contains(const std::vector<ObjectId>& objects, ObjectId object) {
    return std::ranges::find(objects, object) != objects.end();
}

}  // namespace

CrashHistory::CrashHistory(std::uint64_t cluster_bytes) : cluster_bytes_(cluster_bytes) {
    add_object(false, "nothing");
    add_object(true, "the root");
}

ObjectId CrashHistory::add_object(bool is_directory, std::string label) {
    Object object;
    object.is_directory = is_directory;
    object.label = std::move(label);
    object.born = sequence_++;
    objects_.push_back(std::move(object));
    return objects_.size() - 1;
}

void CrashHistory::set_name(const Key& key, ObjectId object, Position at) {
    const Sequence sequence = sequence_++;
    names_[key].push_back({sequence, at, object});
    if (object != kNoObject) {
        objects_.at(object).names.emplace_back(sequence, key);
    }
}

void CrashHistory::set_content(ObjectId file, std::vector<std::byte> content, Position at) {
    objects_.at(file).versions.push_back({sequence_++, at, std::move(content)});
}

void CrashHistory::remove(ObjectId object, Position at) {
    objects_.at(object).removed = sequence_++;
    objects_.at(object).removed_at = at;
}

void CrashHistory::claim_names(Position at) {
    claims_.push_back({sequence_++, at});
}

void CrashHistory::claim_file(ObjectId file, Position at) {
    objects_.at(file).claims.push_back({sequence_++, at});
}

CrashHistory::Sequence CrashHistory::last_claim(const std::vector<Claim>& claims, Position cut) {
    Sequence last = 0;
    for (const Claim& claim : claims) {
        last = claim.at <= cut ? claim.sequence : last;
    }
    return last;
}

std::vector<ObjectId> CrashHistory::allowed(const Key& key, Position cut) const {
    const Sequence claim = last_claim(claims_, cut);
    std::vector<ObjectId> objects{kNoObject};
    const auto events = names_.find(key);
    if (events == names_.end()) {
        return objects;
    }
    for (const NameEvent& event : events->second) {
        if (event.sequence < claim) {
            objects.front() = event.object;
        } else if (event.at < cut) {
            objects.push_back(event.object);
        }
    }
    return objects;
}

std::vector<const CrashHistory::Version*> CrashHistory::candidates(const Object& file,
                                                                   Position cut) const {
    const Sequence claim = last_claim(file.claims, cut);
    std::vector<const Version*> versions;
    for (const Version& version : file.versions) {
        if (version.sequence < claim) {
            versions.clear();
            versions.push_back(&version);
        } else if (version.at < cut) {
            versions.push_back(&version);
        }
    }
    return versions;
}

std::string CrashHistory::content_violation(const Object& file, const CrashNode& node,
                                            Position cut) const {
    const std::vector<const Version*> versions = candidates(file, cut);
    // A truncate clears the rest of its last block before the entry shrinks, as every Unix does.
    const auto behind = [](const Version& version) {
        return (version.content.size() + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    };
    std::set<std::uint64_t> sizes;
    std::string spelled;
    for (const Version* version : versions) {
        if (std::ranges::equal(version->content, node.content) &&
            version->content.size() == node.size) {
            return {};
        }
        // Of a file that shrank and grew again the entry first shows the clusters it kept.
        for (const std::uint64_t before : std::set(sizes)) {
            const std::uint64_t kept =
                (before + cluster_bytes_ - 1) / cluster_bytes_ * cluster_bytes_;
            if (kept < version->content.size()) {
                sizes.insert(kept);
            }
        }
        sizes.insert(version->content.size());
        spelled += " " + std::to_string(version->content.size());
    }
    if (!sizes.contains(node.size)) {
        return "has " + std::to_string(node.size) + " bytes, not one of" + spelled;
    }
    for (std::size_t at = 0; at < node.content.size(); ++at) {
        const bool known = std::ranges::any_of(versions, [&](const Version* version) {
            return at < version->content.size()
                       ? version->content[at] == node.content[at]
                       : at < behind(*version) && node.content[at] == std::byte{0};
        });
        if (!known) {
            return "holds a byte it never held, at " + std::to_string(at) + " of " +
                   std::to_string(node.size) + "; sizes" + spelled;
        }
    }
    return {};
}

void CrashHistory::check_child(ObjectId dir, const CrashNode& child, const std::string& path,
                               Found& found) const {
    std::string why = "leads where it should not";
    bool is_known = false;
    for (const ObjectId id : allowed({dir, child.name}, found.cut)) {
        const Object& object = objects_.at(id);
        if (id == kNoObject || object.is_directory != child.is_directory) {
            continue;
        }
        const std::string wrong =
            child.is_directory ? "" : content_violation(object, child, found.cut);
        if (!wrong.empty()) {
            why = object.label + " " + wrong;
            continue;
        }
        // Several may look alike when they are empty: it is any of them.
        found.times.at(id)++;
        if (child.is_directory && !is_known) {
            check_directory(id, child, path, found);
        }
        is_known = true;
    }
    if (!is_known) {
        found.out->push_back(path + ": " + why);
    }
}

void CrashHistory::check_directory(ObjectId dir, const CrashNode& node, const std::string& path,
                                   Found& found) const {
    std::set<std::string> present;
    for (const CrashNode& child : node.children) {
        if (!present.insert(child.name).second) {
            found.out->push_back(path + "/" + child.name + ": is there twice");
            continue;
        }
        check_child(dir, child, path + "/" + child.name, found);
    }
    for (auto at = names_.lower_bound({dir, ""}); at != names_.end() && at->first.first == dir;
         ++at) {
        if (!present.contains(at->first.second) &&
            !contains(allowed(at->first, found.cut), kNoObject)) {
            found.out->push_back(path + "/" + at->first.second + ": is missing");
        }
    }
}

std::vector<std::string> CrashHistory::violations(const CrashTree& tree, Position cut) const {
    std::vector<std::string> out;
    Found found{std::vector<unsigned>(objects_.size()), &out, cut};
    check_directory(kRootObject, tree.root, "", found);
    const Sequence names_claim = last_claim(claims_, cut);
    for (ObjectId id = kRootObject + 1; id < objects_.size(); ++id) {
        const Object& object = objects_[id];
        const Sequence claim = std::max(names_claim, last_claim(object.claims, cut));
        const bool promised = !object.names.empty() && object.names.front().first < claim;
        const bool may_be_gone = object.removed < claim || object.removed_at < cut;
        if (promised && !may_be_gone && found.times[id] == 0) {
            out.push_back(object.label + " is under none of its names");
        }
    }
    return out;
}

std::size_t CrashHistory::nr_possible_names(ObjectId object, Position cut) const {
    std::set<Key> keys;
    for (const auto& [sequence, key] : objects_.at(object).names) {
        if (contains(allowed(key, cut), object)) {
            keys.insert(key);
        }
    }
    return keys.size();
}

// All objects the path may lead to. Upper and lower case are one: fsck.fat shows short names as
// they are stored.
std::vector<ObjectId> CrashHistory::objects_at(std::string_view path, Position cut) const {
    std::vector<ObjectId> here{kRootObject};
    while (!path.empty()) {
        path.remove_prefix(1);
        const std::string name = in_lower_case(path.substr(0, path.find('/')));
        path.remove_prefix(std::min(path.find('/'), path.size()));
        std::vector<ObjectId> below;
        for (const ObjectId dir : here) {
            for (const ObjectId object : allowed({dir, name}, cut)) {
                if (object != kNoObject) {
                    below.push_back(object);
                }
            }
        }
        here = std::move(below);
    }
    return here;
}

bool CrashHistory::is_rename_in_flight(std::string_view first, std::string_view second,
                                       Position cut) const {
    const std::vector<ObjectId> ones = objects_at(first, cut);
    if (second.empty()) {
        return std::ranges::any_of(ones,
                                   [&](ObjectId one) { return nr_possible_names(one, cut) > 1; });
    }
    // Either the object itself has two names, or it is below a directory that has.
    const std::vector<ObjectId> others = objects_at(second, cut);
    return first != second &&
           std::ranges::any_of(ones, [&](ObjectId one) { return contains(others, one); });
}

}  // namespace wbfat::fs::inline WBFAT_RT
