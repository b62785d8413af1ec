// Answers to the kernel. The only place where an errno is negated: by libfuse, from the positive
// one passed here.
#pragma once

#include <cerrno>
#include <vector>

#include <sys/uio.h>

#include "cache/base/result.h"
#include "cache/filemap.h"
#include "src/fuse.h"
#include "src/spoiled_requests.h"

namespace wbfat::daemon {

// The return values of fuse_reply_* are ignored on purpose: they fail only when the request was
// interrupted or the mount is gone, and then nobody waits for the answer.
inline void reply_errno(fuse_req_t request, int error) {
    static_cast<void>(fuse_reply_err(request, request_is_spoiled() ? EIO : error));
}

// `Reply` with data, or EIO if the request is spoiled; then the kernel has got nothing of it, as
// when sending fails: not 0 is returned.
template <auto Reply, typename... Data>
int reply_with(fuse_req_t request, Data... data) {
    if (request_is_spoiled()) {
        reply_errno(request, EIO);
        return -EIO;
    }
    return Reply(request, data...);
}

inline void reply_result(fuse_req_t request, const Result<>& result) {
    reply_errno(request, result.code());
}

// Straight from the page frames. Their bytes may change under a concurrent write, as in a kernel
// read.
inline void reply_pages(fuse_req_t request, const cache::PageVec& pages) {
    std::vector<iovec> iov;
    iov.reserve(pages.pieces().size());
    for (const cache::PageVec::Piece& piece : pages.pieces()) {
        std::byte* const at = piece.page->data + piece.offset_bytes;
        // Frames that follow each other in memory go out as one piece.
        if (!iov.empty() &&
            static_cast<std::byte*>(iov.back().iov_base) + iov.back().iov_len == at) {
            iov.back().iov_len += piece.length_bytes;
        } else {
            iov.push_back({at, piece.length_bytes});
        }
    }
    static_cast<void>(
        reply_with<fuse_reply_iov>(request, iov.data(), static_cast<int>(iov.size())));
}

}  // namespace wbfat::daemon
