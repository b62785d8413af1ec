// Goal: what the kernel holds keeps files alive, and nothing stays held when it gives back or goes
// away. Method: a volume in memory; whether an inode is alive shows in the clusters that are free.
#include "src/kernel_refs.h"

#include <cstdint>
#include <memory>
#include <string_view>

#include <gtest/gtest.h>

#include "fs/namei.h"

#include "tests/support/volume_fixture.h"

namespace wbfat::daemon {
namespace {

constexpr std::size_t kFileBytes = 100000;

class KernelRefsTest : public testing::Test {
protected:
    KernelRefsTest() {
        volume_.mount();
        before_ = free_blocks();
        inode_ = volume_.make("file", kFileBytes);
    }
    ~KernelRefsTest() override {
        references_.drop_all();
        inode_ = {};
        volume_.unmount();
    }

    std::uint64_t free_blocks() {
        volume_.commit();
        return volume_.volume().statfs()->blocks_free;
    }
    // The name is gone and so is our own reference; only the kernel's are left.
    void leave_it_to_the_kernel() {
        EXPECT_EQ(fs::unlink(*volume_.root(), "file").code(), 0);
        inode_ = {};
    }
    bool is_alive() {
        return free_blocks() != before_;
    }

    fs::TestVolume volume_;
    KernelReferences references_;
    std::uint64_t before_ = 0;
    fs::InodeRef inode_;
};

TEST_F(KernelRefsTest, LookupsAddUpUntilTheyAreForgotten) {
    const std::uint64_t nodeid = references_.add_lookup(inode_);
    EXPECT_EQ(references_.add_lookup(inode_), nodeid);
    EXPECT_EQ(references_.add_lookup(inode_), nodeid);
    leave_it_to_the_kernel();
    EXPECT_TRUE(is_alive());
    references_.forget(nodeid, 2);
    EXPECT_TRUE(is_alive());
    references_.forget(nodeid, 1);
    EXPECT_FALSE(is_alive());
}

TEST_F(KernelRefsTest, AMistakeLastsUntilTheInodeIsForgotten) {
    const std::uint64_t nodeid = references_.add_lookup(inode_);
    references_.add_lookup(inode_);
    EXPECT_FALSE(references_.is_mistaken(nodeid));
    references_.note_mistaken(nodeid);
    references_.forget(nodeid, 1);
    EXPECT_TRUE(references_.is_mistaken(nodeid));
    references_.forget(nodeid, 1);
    EXPECT_FALSE(references_.is_mistaken(nodeid));
    // What the kernel does not know it is not mistaken about.
    references_.note_mistaken(nodeid);
    EXPECT_FALSE(references_.is_mistaken(nodeid));
}

TEST_F(KernelRefsTest, ForgettingTooMuchOrStrangersDoesNothing) {
    const std::uint64_t nodeid = references_.add_lookup(inode_);
    references_.forget(nodeid, UINT64_MAX);
    references_.forget(nodeid, 1);
    references_.forget(12345, 1);
    EXPECT_TRUE(is_alive());  // ours
    leave_it_to_the_kernel();
    EXPECT_FALSE(is_alive());
}

TEST_F(KernelRefsTest, AnOpenFileLivesUntilItsRelease) {
    const std::uint64_t handle =
        references_.add(std::make_unique<fs::File>(inode_, fs::File::Flags{}));
    const std::uint64_t second =
        references_.add(std::make_unique<fs::File>(inode_, fs::File::Flags{}));
    EXPECT_NE(handle, second);
    leave_it_to_the_kernel();
    references_.release_file(handle);
    EXPECT_TRUE(is_alive());
    references_.release_file(handle);
    EXPECT_TRUE(is_alive());
    references_.release_file(second);
    EXPECT_FALSE(is_alive());
}

TEST_F(KernelRefsTest, AnOpenDirectoryLivesUntilItsRelease) {
    fs::InodeRef directory = volume_.make_directory(*volume_.root(), "directory");
    const std::uint64_t with_directory = free_blocks();
    const std::uint64_t handle =
        references_.add(std::make_unique<DirHandle>(DirHandle{directory, {}}));
    EXPECT_EQ(fs::rmdir(*volume_.root(), "directory").code(), 0);
    directory = {};
    EXPECT_EQ(free_blocks(), with_directory);
    references_.release_dir(handle);
    EXPECT_GT(free_blocks(), with_directory);
}

TEST_F(KernelRefsTest, ALostConnectionGivesEverythingBack) {
    references_.add_lookup(inode_);
    references_.add_lookup(inode_);
    references_.add(std::make_unique<fs::File>(inode_, fs::File::Flags{}));
    const std::uint64_t root = references_.add_lookup(volume_.root());
    references_.add(std::make_unique<DirHandle>(DirHandle{volume_.root(), {}}));
    leave_it_to_the_kernel();
    EXPECT_TRUE(is_alive());
    references_.drop_all();
    EXPECT_FALSE(is_alive());
    references_.forget(root, 1);  // late, and nobody's any more
    references_.drop_all();
}

}  // namespace
}  // namespace wbfat::daemon
