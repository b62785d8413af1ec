// Comparison of whole directories and trees, and reading a tree back from the plain directory.
#pragma once

#include <cstdint>
#include <string>

#include "tests/mount/model/side.h"
#include "tests/mount/model/tree.h"

namespace wbfat::model {

struct TreeTotals {
    std::uint64_t files = 0;
    std::uint64_t directories = 0;
    std::uint64_t bytes = 0;
    std::uint64_t clusters = 0;  // that the files' sizes and the directories need
};

// "" or what differs in the names that readdir shows. `under_test`: a path below the root of
// `side`.
std::string compare_names(const Side& side, const std::string& under_test, const Node& directory);

// "" or the first difference between the trees: names, stat, contents.
std::string compare_trees(const Side& under_test, const Side& reference, const Tree& tree,
                          TreeTotals& totals);

// Fills `tree` from the names of the plain directory. "" or why that is impossible.
std::string load_tree(const Side& reference, Tree& tree);

// Clusters in use on the volume.
std::uint64_t clusters_used(const Side& under_test);

}  // namespace wbfat::model
