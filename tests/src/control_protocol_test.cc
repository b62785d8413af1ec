// Goal: a mount is known by its device number, however its path is spelled. Method: compare with
// stat(2) on mounts that every machine has.
#include "src/control_protocol.h"

#include <unistd.h>

#include <cerrno>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <gtest/gtest.h>

namespace wbfat::control {
namespace {

TEST(ControlProtocolTest, TheMountIdIsTheDeviceNumber) {
    for (const char* path : {"/", "/proc", ".", "/proc/self/../mounts"}) {
        MountId id;
        struct stat found {};
        ASSERT_EQ(mount_id_of(path, id), 0) << path;
        ASSERT_EQ(::stat(path, &found), 0) << path;
        EXPECT_EQ(makedev(id.major_number, id.minor_number), found.st_dev) << path;
    }
}

TEST(ControlProtocolTest, WhatIsNotThereHasNone) {
    MountId id;
    EXPECT_EQ(mount_id_of("/no/such/path", id), ENOENT);
    EXPECT_FALSE(find_mount_by_path("/no/such/path", id));
}

TEST(ControlProtocolTest, AMountIsFoundByItsPathToo) {
    MountId by_path;
    MountId by_stat;
    ASSERT_TRUE(find_mount_by_path("/proc", by_path));
    ASSERT_EQ(mount_id_of("/proc", by_stat), 0);
    EXPECT_EQ(by_path.major_number, by_stat.major_number);
    EXPECT_EQ(by_path.minor_number, by_stat.minor_number);
    EXPECT_FALSE(mount_owner(by_path).is_wbfat);
}

TEST(ControlProtocolTest, EveryUserHasSomewhereToLook) {
    for (const uid_t uid : {uid_t{0}, ::geteuid(), uid_t{12345}}) {
        const auto directories = socket_directories(uid);
        ASSERT_FALSE(directories.empty());
        EXPECT_EQ(directories.back(), "/tmp/wbfat-" + std::to_string(uid));
    }
}

TEST(ControlProtocolTest, ARefusalIsJsonWhateverItSays) {
    EXPECT_EQ(refusal("no"), R"({"ok":false,"error":"no"})");
    EXPECT_EQ(refusal("a \"quote\"\n"), R"({"ok":false,"error":"a \"quote\"\n"})");
}

}  // namespace
}  // namespace wbfat::control
