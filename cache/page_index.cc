// pgoff -> Page: the radix tree.
//
// A node covers 64 slots of 64^k pages each. Beside the slots it keeps four words of 64 bits: which
// slots are present, and one word per mark. Every walk goes from set bit to set bit of one of them.
#include "cache/page_index.h"

#include <array>
#include <bit>
#include <new>

#include "cache/base/check.h"

namespace wbfat::cache::inline WBFAT_RT {

namespace {

constexpr unsigned kSlotBits = 6;
constexpr unsigned kNrSlots = 1U << kSlotBits;

// Words of a node: the marks have the numbers of PageTag.
constexpr unsigned kPresent = kNrPageTags;
constexpr unsigned kNrWords = kNrPageTags + 1;

// Slots whose marking a walk does under one hold of the lock. Source: XA_CHECK_SCHED.
constexpr std::size_t kCheckSched = 4096;

constexpr std::uint64_t bit_of(unsigned slot) {
    return std::uint64_t{1} << slot;
}

}  // namespace

struct PageIndex::Node {
    std::array<std::uint64_t, kNrWords> words{};
    Node* parent = nullptr;
    std::uint8_t slot_in_parent = 0;
    std::uint8_t shift = 0;  // a slot covers 2^shift pages; 0: a leaf
    std::array<void*, kNrSlots> slots{};

    [[nodiscard]] unsigned slot_of(pgoff_t index) const {
        return static_cast<unsigned>(index >> shift) & (kNrSlots - 1);
    }
    [[nodiscard]] bool is_leaf() const {
        return shift == 0;
    }
    // Last index below the node that starts at `base`.
    [[nodiscard]] pgoff_t last(pgoff_t base) const {
        const unsigned bits = shift + kSlotBits;
        return bits >= 64 ? ~pgoff_t{0} : base | ((pgoff_t{1} << bits) - 1);
    }
    [[nodiscard]] Node* child(unsigned slot) const {
        return static_cast<Node*>(slots[slot]);
    }
    [[nodiscard]] Page* page(unsigned slot) const {
        return static_cast<Page*>(slots[slot]);
    }
};

// One pass over [start, end].
struct PageIndex::Walk {
    pgoff_t start;
    pgoff_t end;
    unsigned word = kPresent;
    std::span<Page*> out{};
    std::size_t done = 0;  // pages gathered, or slots marked
    pgoff_t next = 0;      // where a pass that stopped early goes on

    // The bits of a node's word that lie in [start, end].
    [[nodiscard]] std::uint64_t bits_in_range(const Node& node, pgoff_t base,
                                              unsigned which) const {
        std::uint64_t bits = node.words[which];
        if (start > base) {
            bits &= ~std::uint64_t{0} << node.slot_of(start);
        }
        if (end < node.last(base)) {
            bits &= ~std::uint64_t{0} >> (kNrSlots - 1 - node.slot_of(end));
        }
        return bits;
    }
};

PageIndex::PageIndex() = default;

PageIndex::~PageIndex() {
    const sync::SpinLockGuard guard(lock_);
    free_tree(root_);
}

void PageIndex::free_tree(Node* node) {
    if (node == nullptr) {
        return;
    }
    if (!node->is_leaf()) {
        for (std::uint64_t bits = node->words[kPresent]; bits != 0; bits &= bits - 1) {
            free_tree(node->child(static_cast<unsigned>(std::countr_zero(bits))));
        }
    }
    delete node;
}

// --- lookup

PageIndex::Node* PageIndex::leaf_locked(pgoff_t index) const {
    Node* node = root_;
    if (node == nullptr || index > node->last(0)) {
        return nullptr;
    }
    while (node != nullptr && !node->is_leaf()) {
        node = node->child(node->slot_of(index));
    }
    return node;
}

Page* PageIndex::find_locked(pgoff_t index) const {
    const Node* leaf = leaf_locked(index);
    return leaf != nullptr ? leaf->page(leaf->slot_of(index)) : nullptr;
}

Page* PageIndex::find_get(pgoff_t index) {
    const sync::SpinLockGuard guard(lock_);
    Page* const page = find_locked(index);
    if (page != nullptr) {
        get_page(*page);
    }
    return page;
}

// Returns false when `out` is full.
bool PageIndex::gather(const Node& node, pgoff_t base, Walk& walk) {
    for (std::uint64_t bits = walk.bits_in_range(node, base, walk.word); bits != 0;
         bits &= bits - 1) {
        if (walk.done == walk.out.size()) {
            return false;
        }
        const auto slot = static_cast<unsigned>(std::countr_zero(bits));
        if (node.is_leaf()) {
            Page* const page = node.page(slot);
            get_page(*page);
            walk.out[walk.done++] = page;
        } else if (!gather(*node.child(slot), base | (pgoff_t{slot} << node.shift), walk)) {
            return false;
        }
    }
    return true;
}

std::size_t PageIndex::find_get_range_word(unsigned word, pgoff_t start, pgoff_t end,
                                           std::span<Page*> out) {
    if (start > end) {
        return 0;
    }
    Walk walk{.start = start, .end = end, .word = word, .out = out};
    const sync::SpinLockGuard guard(lock_);
    if (root_ != nullptr && start <= root_->last(0)) {
        gather(*root_, 0, walk);
    }
    return walk.done;
}

std::size_t PageIndex::find_get_range(pgoff_t start, pgoff_t end, std::span<Page*> out) {
    return find_get_range_word(kPresent, start, end, out);
}

std::size_t PageIndex::find_get_range_tag(pgoff_t start, pgoff_t end, PageTag tag,
                                          std::span<Page*> out) {
    return find_get_range_word(tag, start, end, out);
}

bool PageIndex::tagged(PageTag tag) const {
    return root_tags_.test(1U << tag);
}

std::uint64_t PageIndex::nr_pages() const {
    return nr_pages_.load(std::memory_order_acquire);
}

// --- sampling

// Requires: the node is at least as tall as the level.
void PageIndex::sample_subtree(const Node& node, pgoff_t base, unsigned level,
                               std::vector<PageIndexWord>& out) {
    if (node.shift > level * kSlotBits) {
        for (std::uint64_t bits = node.words[kPresent]; bits != 0; bits &= bits - 1) {
            const auto slot = static_cast<unsigned>(std::countr_zero(bits));
            sample_subtree(*node.child(slot), base | (pgoff_t{slot} << node.shift), level, out);
        }
        return;
    }
    PageIndexWord word{.number = base >> (node.shift + kSlotBits),
                       .present = node.words[kPresent],
                       .dirty = node.words[PAGECACHE_TAG_DIRTY],
                       .writeback = node.words[PAGECACHE_TAG_WRITEBACK]};
    if (node.is_leaf()) {
        for (std::uint64_t bits = word.dirty | word.writeback; bits != 0; bits &= bits - 1) {
            const auto slot = static_cast<unsigned>(std::countr_zero(bits));
            const std::uint64_t flags = node.page(slot)->flags.peek();
            word.locked |= (flags & PG_locked) != 0 ? bit_of(slot) : 0;
            word.waited_for |= (flags & PG_waiters) != 0 ? bit_of(slot) : 0;
        }
    }
    out.push_back(word);
}

void PageIndex::sample(unsigned level, std::vector<PageIndexWord>& out) const {
    const sync::SpinLockGuard guard(lock_);
    if (root_ == nullptr) {
        return;
    }
    if (root_->shift >= level * kSlotBits) {
        sample_subtree(*root_, 0, level, out);
        return;
    }
    // A small tree is one slot of the first word.
    out.push_back({.number = 0,
                   .present = root_->words[kPresent] != 0 ? 1U : 0U,
                   .dirty = root_->words[PAGECACHE_TAG_DIRTY] != 0 ? 1U : 0U,
                   .writeback = root_->words[PAGECACHE_TAG_WRITEBACK] != 0 ? 1U : 0U});
}

// --- insertion and removal

// Puts roots above the root until `index` fits. On failure the tree is taller than it need be, and
// otherwise as before.
bool PageIndex::grow_locked(pgoff_t index) {
    if (root_ == nullptr) {
        root_ = new (std::nothrow) Node;
        if (root_ == nullptr) {
            return false;
        }
        // Straight to the height needed: an empty tree has nothing to keep.
        while (index > root_->last(0)) {
            root_->shift = static_cast<std::uint8_t>(root_->shift + kSlotBits);
        }
        return true;
    }
    while (index > root_->last(0)) {
        Node* const node = new (std::nothrow) Node;
        if (node == nullptr) {
            return false;
        }
        node->shift = static_cast<std::uint8_t>(root_->shift + kSlotBits);
        node->slots[0] = root_;
        for (unsigned word = 0; word < kNrWords; ++word) {
            node->words[word] = root_->words[word] != 0 ? bit_of(0) : 0;
        }
        root_->parent = node;
        root_->slot_in_parent = 0;
        root_ = node;
    }
    return true;
}

// Returns null when memory is out; the nodes made so far are taken back by shrink_locked.
PageIndex::Node* PageIndex::make_leaf_locked(pgoff_t index) {
    if (!grow_locked(index)) {
        return nullptr;
    }
    Node* node = root_;
    while (!node->is_leaf()) {
        const unsigned slot = node->slot_of(index);
        if (node->slots[slot] == nullptr) {
            Node* const child = new (std::nothrow) Node;
            if (child == nullptr) {
                return nullptr;
            }
            child->parent = node;
            child->slot_in_parent = static_cast<std::uint8_t>(slot);
            child->shift = static_cast<std::uint8_t>(node->shift - kSlotBits);
            node->slots[slot] = child;
            node->words[kPresent] |= bit_of(slot);
        }
        node = node->child(slot);
    }
    return node;
}

bool PageIndex::insert_locked(pgoff_t index, Page& page, bool& out_of_memory) {
    out_of_memory = false;
    Node* const leaf = make_leaf_locked(index);
    if (leaf == nullptr) {
        // An empty branch may be left; it is filled by the next insertion below it or freed with
        // the tree.
        out_of_memory = true;
        return false;
    }
    const unsigned slot = leaf->slot_of(index);
    if (leaf->slots[slot] != nullptr) {
        return false;
    }
    leaf->slots[slot] = &page;
    leaf->words[kPresent] |= bit_of(slot);
    nr_pages_.fetch_add(1, std::memory_order_relaxed);
    return true;
}

void PageIndex::erase_locked(pgoff_t index) {
    Node* node = leaf_locked(index);
    BUG_ON(node == nullptr || node->slots[node->slot_of(index)] == nullptr, "X4",
           "erasing a slot that is empty");
    unsigned slot = node->slot_of(index);
    for (unsigned tag = 0; tag < kNrPageTags; ++tag) {
        clear_tag_up_locked(node, slot, static_cast<PageTag>(tag));
    }
    for (;;) {
        node->slots[slot] = nullptr;
        node->words[kPresent] &= ~bit_of(slot);
        if (node->words[kPresent] != 0) {
            break;
        }
        Node* const parent = node->parent;
        slot = node->slot_in_parent;
        delete node;
        if (parent == nullptr) {
            root_ = nullptr;
            break;
        }
        node = parent;
    }
    shrink_locked();
    nr_pages_.fetch_sub(1, std::memory_order_release);
}

// A root with nothing but its first slot is one level too many.
void PageIndex::shrink_locked() {
    while (root_ != nullptr && !root_->is_leaf() && root_->words[kPresent] == bit_of(0)) {
        Node* const child = root_->child(0);
        child->parent = nullptr;
        delete root_;
        root_ = child;
    }
}

// --- marks

void PageIndex::publish_root_tags_locked() {
    std::uint64_t tags = 0;
    for (unsigned tag = 0; root_ != nullptr && tag < kNrPageTags; ++tag) {
        tags |= root_->words[tag] != 0 ? 1U << tag : 0U;
    }
    root_tags_.store(tags, std::memory_order_release);
}

void PageIndex::set_tag_locked(pgoff_t index, PageTag tag) {
    Node* node = leaf_locked(index);
    if (node == nullptr || node->slots[node->slot_of(index)] == nullptr) {
        return;
    }
    unsigned slot = node->slot_of(index);
    while (node != nullptr) {
        const std::uint64_t before = node->words[tag];
        node->words[tag] = before | bit_of(slot);
        if (before != 0) {
            return;  // Known above already (X1).
        }
        slot = node->slot_in_parent;
        node = node->parent;
    }
    publish_root_tags_locked();
}

void PageIndex::clear_tag_up_locked(Node* node, unsigned slot, PageTag tag) {
    if ((node->words[tag] & bit_of(slot)) == 0) {
        return;
    }
    while (node != nullptr) {
        node->words[tag] &= ~bit_of(slot);
        if (node->words[tag] != 0) {
            return;
        }
        slot = node->slot_in_parent;
        node = node->parent;
    }
    publish_root_tags_locked();
}

void PageIndex::clear_tag_locked(pgoff_t index, PageTag tag) {
    if (Node* const leaf = leaf_locked(index)) {
        clear_tag_up_locked(leaf, leaf->slot_of(index), tag);
    }
}

bool PageIndex::get_tag_locked(pgoff_t index, PageTag tag) const {
    const Node* leaf = leaf_locked(index);
    return leaf != nullptr && (leaf->words[tag] & bit_of(leaf->slot_of(index))) != 0;
}

// Returns false when it stopped after kCheckSched slots; walk.next says where.
bool PageIndex::copy_dirty_to_towrite(Node& node, pgoff_t base, Walk& walk) {
    const std::uint64_t dirty = walk.bits_in_range(node, base, PAGECACHE_TAG_DIRTY);
    if (node.is_leaf()) {
        node.words[PAGECACHE_TAG_TOWRITE] |= dirty;
        walk.done += static_cast<std::size_t>(std::popcount(dirty));
        walk.next = node.last(base) + 1;
        return walk.done < kCheckSched;
    }
    for (std::uint64_t bits = dirty; bits != 0; bits &= bits - 1) {
        const auto slot = static_cast<unsigned>(std::countr_zero(bits));
        Node& child = *node.child(slot);
        const bool go_on = copy_dirty_to_towrite(child, base | (pgoff_t{slot} << node.shift), walk);
        if (child.words[PAGECACHE_TAG_TOWRITE] != 0) {
            node.words[PAGECACHE_TAG_TOWRITE] |= bit_of(slot);
        }
        if (!go_on) {
            return false;
        }
    }
    return true;
}

void PageIndex::tag_pages_for_writeback(pgoff_t start, pgoff_t end) {
    bool more = start <= end;
    while (more) {
        Walk walk{.start = start, .end = end};
        const sync::SpinLockGuard guard(lock_);
        if (root_ == nullptr || start > root_->last(0)) {
            return;
        }
        more = !copy_dirty_to_towrite(*root_, 0, walk);
        publish_root_tags_locked();
        // `next` is 0 after the last leaf of all.
        more = more && walk.next != 0 && walk.next <= end;
        start = walk.next;
    }
}

// --- self-check

std::uint64_t PageIndex::check_subtree(const Node& node) {
    std::uint64_t nr_pages = 0;
    for (unsigned slot = 0; slot < kNrSlots; ++slot) {
        const bool present = (node.words[kPresent] & bit_of(slot)) != 0;
        BUG_ON(present != (node.slots[slot] != nullptr), "X1", "presence and slot disagree");
        if (node.is_leaf() || !present) {
            nr_pages += present ? 1 : 0;
            for (unsigned tag = 0; tag < kNrPageTags; ++tag) {
                BUG_ON(!present && (node.words[tag] & bit_of(slot)) != 0, "X1",
                       "an empty slot is marked");
            }
            continue;
        }
        const Node& child = *node.child(slot);
        BUG_ON(child.parent != &node || child.slot_in_parent != slot ||
                   child.shift + kSlotBits != node.shift,
               "X1", "a node does not know its place");
        for (unsigned tag = 0; tag < kNrPageTags; ++tag) {
            BUG_ON(((node.words[tag] & bit_of(slot)) != 0) != (child.words[tag] != 0), "X1",
                   "a mark and its summary disagree");
        }
        nr_pages += check_subtree(child);
    }
    return nr_pages;
}

void PageIndex::assert_consistent() const {
    const sync::SpinLockGuard guard(lock_);
    const std::uint64_t nr_found = root_ != nullptr ? check_subtree(*root_) : 0;
    BUG_ON(nr_found != nr_pages_.load(std::memory_order_relaxed), "X1", "pages miscounted");
    for (unsigned tag = 0; tag < kNrPageTags; ++tag) {
        const bool marked = root_ != nullptr && root_->words[tag] != 0;
        BUG_ON(marked != tagged(static_cast<PageTag>(tag)), "X1", "root marks are stale");
    }
}

}  // namespace wbfat::cache::inline WBFAT_RT
