// Opening an image or a /dev node: the checks, the claims, and what the kernel knows about it.
// Internal to cache/device.
#pragma once

#include <string>

#include <sys/types.h>

#include "cache/base/unique_fd.h"
#include "cache/device/file_device.h"

namespace wbfat::cache::inline WBFAT_RT {

struct DeviceNode {
    UniqueFd fd;
    bool is_block_device = false;
    std::uint32_t alignment =
        1;  // what transfers must be a multiple of: 1, or the block size with O_DIRECT
    DeviceGeometry geometry;
};

// Errors: as FileDevice::open.
boost::system::result<DeviceNode, OpenError> open_device_node(const std::string& path,
                                                              const FileDeviceOptions& options);
// As FileDevice::release_claim. The descriptor's number stays.
Result<> reopen_without_claim(DeviceNode& node, const FileDeviceOptions& options);

}  // namespace wbfat::cache::inline WBFAT_RT
