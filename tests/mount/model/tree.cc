// The tree of names.
#include "tests/mount/model/tree.h"

#include <algorithm>
#include <utility>

namespace wbfat::model {

Resolved Tree::resolve(const Path& path) const {
    Resolved result;
    result.node = root_;
    if (path.empty()) {
        result.under_test = ".";
        result.reference = ".";
        return result;
    }
    for (const Name& name : path) {
        result.parent = result.node != nullptr && result.node->is_dir ? result.node : nullptr;
        NodeRef found;
        if (result.parent != nullptr) {
            const auto child = result.parent->children.find(name.group);
            found = child == result.parent->children.end() ? nullptr : child->second;
        }
        // A file in the middle of a path: its name, so that both sides answer ENOTDIR.
        result.under_test += (result.under_test.empty() ? "" : "/") + spelled(name);
        result.reference += (result.reference.empty() ? "" : "/") +
                            reference_name(found != nullptr ? found->name : shown(name));
        result.node = found;
    }
    return result;
}

NodeRef Tree::add(Node& parent, Name name, bool is_dir) {
    NodeRef node = std::make_shared<Node>();
    node->name = name;
    node->is_dir = is_dir;
    node->parent = &parent;
    parent.children[name.group] = node;
    ++nr_nodes_;
    nr_directories_ += is_dir ? 1 : 0;
    return node;
}

void Tree::remove(Node& node) {
    Node* const parent = std::exchange(node.parent, nullptr);
    --nr_nodes_;
    nr_directories_ -= node.is_dir ? 1 : 0;
    parent->children.erase(node.name.group);  // may free the node
}

void Tree::move(const NodeRef& node, Node& parent, Name name) {
    const auto replaced = parent.children.find(name.group);
    if (replaced != parent.children.end() && replaced->second != node) {
        // The entry of the replaced file is taken over, with its spelling.
        name = replaced->second->name;
        remove(*replaced->second);
    }
    const NodeRef keep = node;
    keep->parent->children.erase(keep->name.group);
    keep->parent = &parent;
    keep->name = name;
    parent.children[name.group] = keep;
}

void Tree::exchange(const NodeRef& a, const NodeRef& b) {
    const NodeRef keep_a = a;
    const NodeRef keep_b = b;
    keep_a->parent->children[keep_a->name.group] = keep_b;
    keep_b->parent->children[keep_b->name.group] = keep_a;
    std::swap(keep_a->parent, keep_b->parent);
    std::swap(keep_a->name, keep_b->name);
}

Path path_of(const Node& node) {
    Path path;
    for (const Node* at = &node; at->parent != nullptr; at = at->parent) {
        path.push_back(at->name);
    }
    std::reverse(path.begin(), path.end());
    return path;
}

std::size_t path_bytes(const Node& node) {
    std::size_t bytes = 0;
    for (const Node* at = &node; at->parent != nullptr; at = at->parent) {
        bytes += spelled(at->name).size() + 1;
    }
    return bytes;
}

std::size_t subtree_bytes(const Node& node) {
    std::size_t below = 0;
    for (const auto& [group, child] : node.children) {
        below = std::max(below, subtree_bytes(*child));
    }
    return spelled(node.name).size() + 1 + below;
}

bool is_ancestor_or_self(const Node& ancestor, const Node* of) {
    for (; of != nullptr; of = of->parent) {
        if (of == &ancestor) {
            return true;
        }
    }
    return false;
}

}  // namespace wbfat::model
