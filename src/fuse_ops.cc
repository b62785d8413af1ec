// The request handlers, in the order of fuse_lowlevel_ops.
#include "src/fuse_ops.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <linux/falloc.h>
#include <sys/statvfs.h>

#include "cache/flusher.h"
#include "cache/freeze.h"
#include "fs/file.h"
#include "fs/namei.h"
#include "src/fat_ioctl.h"
#include "src/interruption.h"
#include "src/reply.h"

namespace wbfat::daemon {

namespace {

// Seconds. Only we change the volume, so what the kernel has learnt stays true until it asks us for
// a change.
constexpr double kForever = 86400.0;

constexpr unsigned kMaxWriteBytes = 1U << 20;
constexpr unsigned kMaxReadaheadBytes = 1U << 20;
// With the writeback cache the kernel keeps mtime itself and must round it as the disk does: 2 s
// are not on offer.
constexpr unsigned kTimeGranularityNs = 1'000'000'000;

// Bytes per step of copy_file_range.
constexpr std::size_t kCopyStepBytes = 1U << 20;

Server& server_of(fuse_req_t request) {
    return *static_cast<Server*>(fuse_req_userdata(request));
}

fs::Inode& inode_of(fuse_req_t request, fuse_ino_t ino) {
    if (ino == FUSE_ROOT_ID) {
        return *server_of(request).root;
    }
    return *reinterpret_cast<fs::Inode*>(ino);  // NOLINT(performance-no-int-to-ptr): see fuse_ops.h
}

fs::File& file_of(const fuse_file_info* info) {
    return *reinterpret_cast<fs::File*>(info->fh);  // NOLINT(performance-no-int-to-ptr)
}

DirHandle& dir_of(const fuse_file_info* info) {
    return *reinterpret_cast<DirHandle*>(info->fh);  // NOLINT(performance-no-int-to-ptr)
}

bool caches_nothing(const Server& server) {
    return server.options.kernel_cache_mode() == KernelCache::kNone;
}

double attr_timeout(const Server& server) {
    return caches_nothing(server) ? 0.0 : kForever;
}

// Passes one reference of `inode` to the kernel.
fuse_entry_param make_entry(Server& server, fs::InodeRef inode, bool canonical) {
    fuse_entry_param entry{};
    entry.attr = inode->getattr();
    entry.attr_timeout = attr_timeout(server);
    entry.entry_timeout = canonical && !caches_nothing(server) ? kForever : 0.0;
    entry.generation = 1;
    if (inode->is_root()) {
        entry.ino = FUSE_ROOT_ID;
        return entry;
    }
    entry.ino = server.references.add_lookup(std::move(inode));
    return entry;
}

void take_back_entry(Server& server, const fuse_entry_param& entry) {
    if (entry.ino != FUSE_ROOT_ID) {
        server.references.forget(entry.ino, 1);
    }
}

void reply_entry(fuse_req_t request, fs::InodeRef inode, bool canonical) {
    Server& server = server_of(request);
    const fuse_entry_param entry = make_entry(server, std::move(inode), canonical);
    if (reply_with<fuse_reply_entry>(request, &entry) != 0) {
        take_back_entry(server, entry);
    }
}

void reply_attr(fuse_req_t request, fs::Inode& inode) {
    const struct stat attr = inode.getattr();
    static_cast<void>(
        reply_with<fuse_reply_attr>(request, &attr, attr_timeout(server_of(request))));
}

// A name is gone or means something else: other spellings of it that the kernel may hold must go
// too. Called after the reply (invalidator.h says why), which has freed the request.
void forget_spellings(Server& server, fuse_ino_t parent, const std::string& canonical,
                      const std::string& spelled) {
    if (!canonical.empty() && canonical != spelled) {
        server.invalidator.invalidate_entry(parent, canonical);
    }
}

bool is_other_spelling(const std::string& canonical, const std::string& spelled) {
    return !canonical.empty() && canonical != spelled;
}

// A dentry that must not outlive this request: readdir shows its name otherwise.
void forget_spelled_otherwise(Server& server, fuse_ino_t parent, const std::string& canonical,
                              const std::string& spelled) {
    if (!canonical.empty() && canonical != spelled) {
        server.invalidator.invalidate_entry(parent, spelled);
    }
}

// Whether a name just made is shown as it was spelled: trailing dots are dropped, and shortname=
// may change the case.
bool shown_as_spelled(const Server& server, std::string_view name) {
    const fs::ShortNameMode mode = server.options.fs.shortname;
    return !name.ends_with('.') &&
           (mode == fs::ShortNameMode::kMixed || mode == fs::ShortNameMode::kWinNt);
}

// How readdir shows `name`, or "" when there is no such name.
std::string canonical_name(fs::Inode& dir, const char* name) {
    const Result<fs::LookupResult> found = fs::lookup(dir, name);
    return found.has_value() ? found->name : std::string{};
}

// --- session

void op_init(void* user_data, fuse_conn_info* connection) {
    Server& server = *static_cast<Server*>(user_data);
    const auto want = [&](unsigned capability, bool on = true) {
        if (on && (connection->capable & capability) != 0) {
            connection->want |= capability;
        } else {
            connection->want &= ~capability;
        }
    };
    want(FUSE_CAP_ASYNC_READ);
    want(FUSE_CAP_PARALLEL_DIROPS);
    want(FUSE_CAP_READDIRPLUS);
    want(FUSE_CAP_READDIRPLUS_AUTO);
    want(FUSE_CAP_IOCTL_DIR);
    want(FUSE_CAP_HANDLE_KILLPRIV);
    want(FUSE_CAP_EXPLICIT_INVAL_DATA);
    want(FUSE_CAP_AUTO_INVAL_DATA, false);
    want(FUSE_CAP_ATOMIC_O_TRUNC, false);
    // Copying a request is cheaper here than moving its pages through a pipe (measured:
    // performance.md 2).
    want(FUSE_CAP_SPLICE_READ, false);
    want(FUSE_CAP_SPLICE_WRITE, false);
    want(FUSE_CAP_SPLICE_MOVE, false);
    const bool writeback = server.options.kernel_cache_mode() == KernelCache::kWriteback;
    want(FUSE_CAP_WRITEBACK_CACHE, writeback);
    if (writeback) {
        connection->time_gran = kTimeGranularityNs;
    }
    connection->max_write = kMaxWriteBytes;
    connection->max_readahead = kMaxReadaheadBytes;
    connection->max_read = server.max_read_bytes;
}

void op_destroy(void* user_data) {
    static_cast<Server*>(user_data)->on_destroy();
}

// --- names

void op_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
    Result<fs::LookupResult> found = fs::lookup(inode_of(request, parent), name);
    if (!found.has_value()) {
        return reply_errno(request, found.error().value);
    }
    reply_entry(request, std::move(found->inode), found->canonical);
}

void op_forget(fuse_req_t request, fuse_ino_t ino, std::uint64_t count) {
    if (ino != FUSE_ROOT_ID) {
        server_of(request).references.forget(ino, count);
    }
    fuse_reply_none(request);
}

void op_forget_multi(fuse_req_t request, std::size_t count, fuse_forget_data* forgets) {
    for (std::size_t i = 0; i < count; ++i) {
        if (forgets[i].ino != FUSE_ROOT_ID) {
            server_of(request).references.forget(forgets[i].ino, forgets[i].nlookup);
        }
    }
    fuse_reply_none(request);
}

void op_getattr(fuse_req_t request, fuse_ino_t ino, fuse_file_info*) {
    reply_attr(request, inode_of(request, ino));
}

void op_setattr(fuse_req_t request, fuse_ino_t ino, struct stat* attr, int to_set,
                fuse_file_info*) {
    fs::Inode& inode = inode_of(request, ino);
    const timespec now = server_of(request).volume.now();
    fs::AttrChange change;
    if ((to_set & FUSE_SET_ATTR_MODE) != 0) {
        change.mode = attr->st_mode;
    }
    if ((to_set & FUSE_SET_ATTR_UID) != 0) {
        change.uid = attr->st_uid;
    }
    if ((to_set & FUSE_SET_ATTR_GID) != 0) {
        change.gid = attr->st_gid;
    }
    if ((to_set & FUSE_SET_ATTR_SIZE) != 0) {
        change.size = static_cast<std::uint64_t>(attr->st_size);
    }
    if ((to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) != 0) {
        change.atime = (to_set & FUSE_SET_ATTR_ATIME_NOW) != 0 ? now : attr->st_atim;
    }
    if ((to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) != 0) {
        change.mtime = (to_set & FUSE_SET_ATTR_MTIME_NOW) != 0 ? now : attr->st_mtim;
    }
    if (const Result<> changed = fs::setattr(inode, change); !changed.has_value()) {
        return reply_result(request, changed);
    }
    reply_attr(request, inode);
}

void op_mknod(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t) {
    if (!S_ISREG(mode)) {
        return reply_errno(request, EPERM);
    }
    Result<fs::InodeRef> made = fs::create(inode_of(request, parent), name);
    if (!made.has_value()) {
        return reply_errno(request, made.error().value);
    }
    reply_entry(request, *std::move(made), shown_as_spelled(server_of(request), name));
}

void op_mkdir(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t) {
    Result<fs::InodeRef> made = fs::mkdir(inode_of(request, parent), name);
    if (!made.has_value()) {
        return reply_errno(request, made.error().value);
    }
    reply_entry(request, *std::move(made), shown_as_spelled(server_of(request), name));
}

void op_unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
    Server& server = server_of(request);
    fs::Inode& dir = inode_of(request, parent);
    const std::string canonical = canonical_name(dir, name);
    const Result<> removed = fs::unlink(dir, name);
    const bool told = is_other_spelling(canonical, name) && server.invalidator.expire_all_entries();
    reply_result(request, removed);
    if (removed.has_value() && !told) {
        forget_spellings(server, parent, canonical, name);
    }
}

void op_rmdir(fuse_req_t request, fuse_ino_t parent, const char* name) {
    Server& server = server_of(request);
    fs::Inode& dir = inode_of(request, parent);
    const std::string canonical = canonical_name(dir, name);
    const Result<> removed = fs::rmdir(dir, name);
    const bool told = is_other_spelling(canonical, name) && server.invalidator.expire_all_entries();
    reply_result(request, removed);
    if (removed.has_value() && !told) {
        forget_spellings(server, parent, canonical, name);
    }
}

void op_rename(fuse_req_t request, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
               const char* new_name, unsigned flags) {
    Server& server = server_of(request);
    fs::Inode& dir = inode_of(request, parent);
    fs::Inode& new_dir = inode_of(request, new_parent);
    const Result<fs::RenameSpellings> renamed = fs::rename(dir, name, new_dir, new_name, flags);
    if (!renamed.has_value()) {
        return reply_errno(request, renamed.error().value);
    }
    const bool is_respelled = is_other_spelling(renamed->old_before, name) ||
                              is_other_spelling(renamed->new_before, new_name) ||
                              is_other_spelling(renamed->old_after, name) ||
                              is_other_spelling(renamed->new_after, new_name);
    const bool told = is_respelled && server.invalidator.expire_all_entries();
    reply_errno(request, 0);
    if (!told) {
        forget_spellings(server, parent, renamed->old_before, name);
        forget_spellings(server, new_parent, renamed->new_before, new_name);
        // The kernel moves its dentry to the new name as spelled, and with it the timeout of a
        // canonical name.
        forget_spelled_otherwise(server, parent, renamed->old_after, name);
        forget_spelled_otherwise(server, new_parent, renamed->new_after, new_name);
    }
}

// FAT has neither links nor special files; EPERM is what vfat answers, where no handler would mean
// ENOSYS.
void op_symlink(fuse_req_t request, const char*, fuse_ino_t, const char*) {
    reply_errno(request, EPERM);
}

void op_link(fuse_req_t request, fuse_ino_t, fuse_ino_t, const char*) {
    reply_errno(request, EPERM);
}

// --- open files

// Fills info->fh and the caching flags.
void open_file(fuse_req_t request, fs::InodeRef inode, fuse_file_info& info) {
    fs::File::Flags flags;
    flags.access = (info.flags & O_ACCMODE) == O_RDONLY ? fs::File::Access::kReadOnly
                                                        : fs::File::Access::kReadWrite;
    flags.dsync = (info.flags & O_DSYNC) != 0;
    flags.sync = (info.flags & O_SYNC) == O_SYNC;
    // O_APPEND is the kernel's: it sends absolute offsets. And the dirty pages of a mapping come
    // through any handle of the file, one opened with O_APPEND too: they must go to their place.
    Server& server = server_of(request);
    info.fh = server.references.add(std::make_unique<fs::File>(std::move(inode), flags));
    info.direct_io = caches_nothing(server) ? 1 : 0;
    info.keep_cache = caches_nothing(server) ? 0 : 1;
}

void op_open(fuse_req_t request, fuse_ino_t ino, fuse_file_info* info) {
    fs::Inode& inode = inode_of(request, ino);
    if (inode.is_directory()) {
        return reply_errno(request, EISDIR);
    }
    if ((info->flags & O_ACCMODE) != O_RDONLY && server_of(request).volume.is_read_only()) {
        return reply_errno(request, EROFS);
    }
    Server& server = server_of(request);
    open_file(request, fs::InodeRef(inode), *info);
    if (reply_with<fuse_reply_open>(request, info) != 0) {
        server.references.release_file(info->fh);
    }
}

void op_create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t,
               fuse_file_info* info) {
    Result<fs::InodeRef> made = fs::create(inode_of(request, parent), name);
    if (!made.has_value()) {
        return reply_errno(request, made.error().value);
    }
    Server& server = server_of(request);
    open_file(request, *made, *info);
    const fuse_entry_param entry =
        make_entry(server, *std::move(made), shown_as_spelled(server, name));
    if (reply_with<fuse_reply_create>(request, &entry, info) != 0) {
        server.references.release_file(info->fh);
        take_back_entry(server, entry);
    }
}

// All of [offset, offset + size) that the file has, or the error. A short answer is the end of the
// file to a kernel that keeps pages, and it would believe the file to be that short; told of an
// error, it asks again page by page.
Result<> read_whole(fs::File& file, const fs::Inode& inode, std::uint64_t offset, std::size_t size,
                    cache::PageVec& pages) {
    for (;;) {
        TRY_VOID(file.read(offset, size, pages));
        const std::uint64_t got = pages.size_bytes();
        if (got == size || offset + got >= inode.i_size()) {
            return {};
        }
        cache::PageVec rest;
        TRY_VOID(file.read(offset + got, size - got, rest));
        pages.release();  // what stopped it has passed, or the file has shrunk: once more
    }
}

void op_read(fuse_req_t request, fuse_ino_t ino, std::size_t size, off_t offset,
             fuse_file_info* info) {
    cache::PageVec pages;
    const Result<> read = [&] {
        const Interruption interruption(request);
        return read_whole(file_of(info), inode_of(request, ino), static_cast<std::uint64_t>(offset),
                          size, pages);
    }();
    if (!read.has_value()) {
        return reply_result(request, read);
    }
    reply_pages(request, pages);
}

// What a write that was cut short is answered, where a count would not do.
int why_short(bool was_interrupted, std::uint64_t end) {
    if (was_interrupted) {
        return EINTR;
    }
    return end >= fs::kMaxFileBytes ? EFBIG : ENOSPC;
}

void op_write_buf(fuse_req_t request, fuse_ino_t ino, fuse_bufvec* source, off_t offset,
                  fuse_file_info* info) {
    const std::size_t size = fuse_buf_size(source);
    // Each piece of a page frame is filled from where the last one ended; fuse_buf_copy moves
    // source's position.
    const auto copy = [source](std::span<std::byte> piece) -> Result<> {
        fuse_bufvec target{};
        target.count = 1;
        target.buf[0].size = piece.size();
        target.buf[0].mem = piece.data();
        const ssize_t copied = fuse_buf_copy(&target, source, static_cast<fuse_buf_copy_flags>(0));
        if (copied < 0) {
            return Errno{static_cast<int>(-copied)};
        }
        return static_cast<std::size_t>(copied) == piece.size() ? Result<>{} : Result<>{Errno{EIO}};
    };
    // Pages that the kernel has gathered, or that were stored to through a mapping. On a
    // synchronous mount or file its own fsync follows those of a write(2).
    const bool from_pages = info->writepage != 0;
    bool was_interrupted = false;
    const Result<std::size_t> written = [&] {
        const Interruption interruption(request);
        Result<std::size_t> result = file_of(info).write(
            static_cast<std::uint64_t>(offset), size, copy,
            from_pages ? fs::File::Durable::kLater : fs::File::Durable::kAsOpened);
        was_interrupted = interruption.happened();
        return result;
    }();
    // The kernel turns a short O_DIRECT write into EIO, and takes back what it had grown. So it may
    // as well know why. Of its own pages it looks at the error alone: what does not fit would be
    // lost, and fsync(2) none the wiser. Source: fs/fuse/file.c fuse_get_res_by_io, fuse_direct_IO,
    // fuse_writepage_end.
    const bool needs_all = from_pages || (info->flags & O_DIRECT) != 0;
    int error = written.code();
    if (written.has_value() && *written < size && needs_all) {
        error = why_short(was_interrupted, static_cast<std::uint64_t>(offset) + *written);
    }
    if (error != 0) {
        if (from_pages) {
            server_of(request).references.note_mistaken(ino);
        }
        return reply_errno(request, error);
    }
    static_cast<void>(reply_with<fuse_reply_write>(request, *written));
}

void op_flush(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
    reply_result(request, file_of(info).flush());
}

void op_release(fuse_req_t request, fuse_ino_t ino, fuse_file_info* info) {
    Server& server = server_of(request);
    server.references.release_file(info->fh);
    reply_errno(request, 0);
    if (server.references.is_mistaken(ino)) {
        server.invalidator.forget_inode(
            ino, [&server, ino] { return server.references.is_mistaken(ino); });
    }
}

void op_fsync(fuse_req_t request, fuse_ino_t, int datasync, fuse_file_info* info) {
    reply_result(request, file_of(info).fsync(datasync != 0));
}

void op_fallocate(fuse_req_t request, fuse_ino_t, int mode, off_t offset, off_t length,
                  fuse_file_info* info) {
    if (offset < 0 || length <= 0) {
        return reply_errno(request, EINVAL);
    }
    reply_result(request, file_of(info).fallocate(mode, static_cast<std::uint64_t>(offset),
                                                  static_cast<std::uint64_t>(length)));
}

void op_lseek(fuse_req_t request, fuse_ino_t, off_t offset, int whence, fuse_file_info* info) {
    // A kernel that gathers writes knows sizes that have not reached us. Left alone it answers from
    // these, and as we would: all is data up to the end.
    if (server_of(request).options.kernel_cache_mode() == KernelCache::kWriteback) {
        return reply_errno(request, ENOSYS);
    }
    if (offset < 0) {
        return reply_errno(request, ENXIO);
    }
    const Result<std::uint64_t> found =
        file_of(info).lseek(static_cast<std::uint64_t>(offset), whence);
    if (!found.has_value()) {
        return reply_errno(request, found.error().value);
    }
    static_cast<void>(reply_with<fuse_reply_lseek>(request, static_cast<off_t>(*found)));
}

// Copies [offset, offset + length) of `source` to `target` through our own pages: no byte visits
// the kernel.
Result<std::size_t> copy_step(fs::File& source, std::uint64_t offset, fs::File& target,
                              std::uint64_t target_offset, std::size_t length) {
    cache::PageVec pages;
    TRY_VOID(source.read(offset, length, pages));
    std::vector<std::byte> bytes;
    bytes.reserve(pages.size_bytes());
    for (const auto& piece : pages.pieces()) {
        const std::byte* const at = piece.page->data + piece.offset_bytes;
        bytes.insert(bytes.end(), at, at + piece.length_bytes);
    }
    std::size_t position = 0;
    return target.write(target_offset, bytes.size(), [&](std::span<std::byte> piece) -> Result<> {
        std::memcpy(piece.data(), bytes.data() + position, piece.size());
        position += piece.size();
        return {};
    });
}

void op_copy_file_range(fuse_req_t request, fuse_ino_t, off_t offset_in, fuse_file_info* info_in,
                        fuse_ino_t, off_t offset_out, fuse_file_info* info_out, std::size_t length,
                        int flags) {
    if (flags != 0 || offset_in < 0 || offset_out < 0) {
        return reply_errno(request, EINVAL);
    }
    std::size_t done = 0;
    while (done < length) {
        const std::size_t step = std::min(kCopyStepBytes, length - done);
        const Result<std::size_t> copied =
            copy_step(file_of(info_in), static_cast<std::uint64_t>(offset_in) + done,
                      file_of(info_out), static_cast<std::uint64_t>(offset_out) + done, step);
        if (!copied.has_value()) {
            if (done == 0) {
                return reply_errno(request, copied.error().value);
            }
            break;
        }
        done += *copied;
        if (*copied < step) {
            break;
        }
    }
    static_cast<void>(reply_with<fuse_reply_write>(request, done));
}

// --- directories

void op_opendir(fuse_req_t request, fuse_ino_t ino, fuse_file_info* info) {
    fs::Inode& inode = inode_of(request, ino);
    if (!inode.is_directory()) {
        return reply_errno(request, ENOTDIR);
    }
    auto handle = std::make_unique<DirHandle>();
    handle->inode = fs::InodeRef(inode);
    Server& server = server_of(request);
    info->fh = server.references.add(std::move(handle));
    info->cache_readdir = caches_nothing(server) ? 0 : 1;
    info->keep_cache = info->cache_readdir;
    if (reply_with<fuse_reply_open>(request, info) != 0) {
        server.references.release_dir(info->fh);
    }
}

void op_releasedir(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
    server_of(request).references.release_dir(info->fh);
    reply_errno(request, 0);
}

void op_readdir(fuse_req_t request, fuse_ino_t ino, std::size_t size, off_t cookie,
                fuse_file_info*) {
    std::vector<char> buffer(size);
    std::size_t used = 0;
    const Result<> listed =
        fs::readdir(inode_of(request, ino), static_cast<std::uint64_t>(cookie),
                    [&](const fs::DirEntryView& view) {
                        struct stat attr {};
                        attr.st_ino = view.ino;
                        attr.st_mode = view.is_directory ? S_IFDIR : S_IFREG;
                        const std::string name(view.name);
                        const std::size_t needed = fuse_add_direntry(
                            request, buffer.data() + used, size - used, name.c_str(), &attr,
                            static_cast<off_t>(view.next_cookie));
                        if (needed > size - used) {
                            return false;
                        }
                        used += needed;
                        return true;
                    });
    if (!listed.has_value() && used == 0) {
        return reply_result(request, listed);
    }
    static_cast<void>(reply_with<fuse_reply_buf>(request, buffer.data(), used));
}

// A name of a directory, remembered while the directory is not locked.
struct Listed {
    std::string name;
    std::uint64_t ino;
    bool is_directory;
    off_t next_cookie;
};

// As many names as can possibly fit into `size` bytes of readdirplus.
Result<std::vector<Listed>> list_some(fs::Inode& dir, std::uint64_t cookie, std::size_t size) {
    // What fuse_add_direntry_plus needs for a name of one byte.
    constexpr std::size_t kSmallestEntryBytes = 160;
    std::vector<Listed> names;
    std::size_t room = size;
    TRY_VOID(fs::readdir(dir, cookie, [&](const fs::DirEntryView& view) {
        names.push_back({std::string(view.name), view.ino, view.is_directory,
                         static_cast<off_t>(view.next_cookie)});
        room -= std::min(room, kSmallestEntryBytes);
        return room >= kSmallestEntryBytes;
    }));
    return names;
}

// "." and ".." carry no lookup count: an entry of only a number and a type.
fuse_entry_param dots_entry(const Listed& listed) {
    fuse_entry_param entry{};
    entry.attr.st_ino = listed.ino;
    entry.attr.st_mode = S_IFDIR;
    return entry;
}

void op_readdirplus(fuse_req_t request, fuse_ino_t ino, std::size_t size, off_t cookie,
                    fuse_file_info*) {
    fs::Inode& dir = inode_of(request, ino);
    const Result<std::vector<Listed>> names =
        list_some(dir, static_cast<std::uint64_t>(cookie), size);
    if (!names.has_value()) {
        return reply_errno(request, names.error().value);
    }
    std::vector<char> buffer(size);
    std::size_t used = 0;
    for (const Listed& listed : *names) {
        const bool dots = listed.name == "." || listed.name == "..";
        fuse_entry_param entry{};
        if (dots) {
            entry = dots_entry(listed);
        } else {
            Result<fs::LookupResult> found = fs::lookup(dir, listed.name);
            if (!found.has_value()) {
                continue;  // removed since it was listed, or unreadable: a lookup will say
            }
            entry = make_entry(server_of(request), std::move(found->inode), found->canonical);
        }
        const std::size_t needed =
            fuse_add_direntry_plus(request, buffer.data() + used, size - used, listed.name.c_str(),
                                   &entry, listed.next_cookie);
        if (needed > size - used) {
            if (!dots) {
                take_back_entry(server_of(request), entry);
            }
            break;
        }
        used += needed;
    }
    static_cast<void>(reply_with<fuse_reply_buf>(request, buffer.data(), used));
}

void op_fsyncdir(fuse_req_t request, fuse_ino_t, int, fuse_file_info*) {
    reply_result(request, server_of(request).volume.ordering().commit());
}

// --- the volume

void op_statfs(fuse_req_t request, fuse_ino_t) {
    const Result<fs::StatFs> stat = server_of(request).volume.statfs();
    if (!stat.has_value()) {
        return reply_errno(request, stat.error().value);
    }
    struct statvfs out {};
    out.f_bsize = stat->block_bytes;
    out.f_frsize = stat->block_bytes;
    out.f_blocks = stat->blocks;
    out.f_bfree = stat->blocks_free;
    out.f_bavail = stat->blocks_free;
    out.f_namemax = stat->name_max;
    static_cast<void>(reply_with<fuse_reply_statfs>(request, &out));
}

// The kernel checks modes itself (default_permissions); what is left is whether the volume takes
// writes.
void op_access(fuse_req_t request, fuse_ino_t, int mask) {
    const bool refused = (mask & W_OK) != 0 && server_of(request).volume.is_read_only();
    reply_errno(request, refused ? EROFS : 0);
}

void op_ioctl(fuse_req_t request, fuse_ino_t ino, unsigned command, void*, fuse_file_info* info,
              unsigned flags, const void* in, std::size_t in_bytes, std::size_t out_bytes) {
    if ((flags & FUSE_IOCTL_COMPAT) != 0) {
        return reply_errno(request, ENOTTY);
    }
    IoctlPosition* const position =
        (flags & FUSE_IOCTL_DIR) != 0 ? &dir_of(info).ioctl_position : nullptr;
    serve_fat_ioctl(request, inode_of(request, ino), {command, in, in_bytes, out_bytes}, position);
}

// A request on its way through the gate of the cache: it waits here, holding nothing, while the
// cache is frozen. What it answers then is subject to spoiled_requests.h.
template <auto kOp>
struct Served;

template <typename... Args, void (*Op)(fuse_req_t, Args...)>
struct Served<Op> {
    static void reading(fuse_req_t request, Args... args) {
        const cache::FreezeGate::Pass pass(cache::operations_gate());
        const RequestScope scope(Effect::kReads);
        Op(request, args...);
    }
    static void changing(fuse_req_t request, Args... args) {
        const cache::FreezeGate::Pass pass(cache::operations_gate());
        const RequestScope scope(Effect::kChanges);
        Op(request, args...);
    }
};

}  // namespace

fuse_lowlevel_ops make_fuse_ops() {
    fuse_lowlevel_ops ops{};
    ops.init = op_init;
    ops.destroy = op_destroy;
    ops.lookup = Served<op_lookup>::reading;
    ops.forget = Served<op_forget>::reading;
    ops.forget_multi = Served<op_forget_multi>::reading;
    ops.getattr = Served<op_getattr>::reading;
    ops.setattr = Served<op_setattr>::changing;
    ops.mknod = Served<op_mknod>::changing;
    ops.mkdir = Served<op_mkdir>::changing;
    ops.unlink = Served<op_unlink>::changing;
    ops.rmdir = Served<op_rmdir>::changing;
    ops.rename = Served<op_rename>::changing;
    ops.symlink = Served<op_symlink>::reading;
    ops.link = Served<op_link>::reading;
    ops.open = Served<op_open>::reading;
    ops.create = Served<op_create>::changing;
    ops.read = Served<op_read>::reading;
    ops.write_buf = Served<op_write_buf>::changing;
    ops.flush = Served<op_flush>::changing;
    ops.release = Served<op_release>::reading;
    ops.fsync = Served<op_fsync>::changing;
    ops.fallocate = Served<op_fallocate>::changing;
    ops.lseek = Served<op_lseek>::reading;
    ops.copy_file_range = Served<op_copy_file_range>::changing;
    ops.opendir = Served<op_opendir>::reading;
    ops.readdir = Served<op_readdir>::reading;
    ops.readdirplus = Served<op_readdirplus>::reading;
    ops.releasedir = Served<op_releasedir>::reading;
    ops.fsyncdir = Served<op_fsyncdir>::changing;
    ops.statfs = Served<op_statfs>::reading;
    ops.access = Served<op_access>::reading;
    ops.ioctl = Served<op_ioctl>::changing;
    return ops;
}

}  // namespace wbfat::daemon
