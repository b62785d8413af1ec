// What the run knows of the names: which exist, how each is spelled, what is open.
//
// Contents, sizes, times and results are the plain directory's business; the tree only translates
// the caller's spelling into the one under which a name exists.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "tests/mount/model/names.h"

namespace wbfat::model {

struct Node;
using NodeRef = std::shared_ptr<Node>;

struct Node {
    Name name;
    bool is_dir = false;
    // Calls have happened after which POSIX leaves the time of the last change open.
    bool mtime_unsure = false;
    Node* parent = nullptr;  // null: the root, or unlinked
    std::map<std::uint16_t, NodeRef> children;
};

struct Resolved {
    std::string under_test;  // as the caller spells it
    std::string reference;   // as it exists in the plain directory, or would
    NodeRef node;            // null: does not exist
    NodeRef parent;          // null: the directory it would be in does not exist
};

class Tree {
public:
    Tree() : root_(std::make_shared<Node>()) {
        root_->is_dir = true;
    }

    const NodeRef& root() const {
        return root_;
    }
    std::size_t nr_directories() const {
        return nr_directories_;
    }
    std::size_t nr_nodes() const {
        return nr_nodes_;
    }

    Resolved resolve(const Path& path) const;
    NodeRef add(Node& parent, Name name, bool is_dir);
    void remove(Node& node);
    // Takes `node` from where it is; what has the new name goes.
    void move(const NodeRef& node, Node& parent, Name name);
    static void exchange(const NodeRef& a, const NodeRef& b);

private:
    NodeRef root_;
    std::size_t nr_nodes_ = 0;
    std::size_t nr_directories_ = 0;
};

Path path_of(const Node& node);
// Bytes of the path under test; the generator keeps well below PATH_MAX.
std::size_t path_bytes(const Node& node);
// Bytes of the longest path that begins with `node`.
std::size_t subtree_bytes(const Node& node);
bool is_ancestor_or_self(const Node& ancestor, const Node* of);

}  // namespace wbfat::model
