#!/usr/bin/env python3
"""Goal: every FUSE operation does what its system calls promise, whatever the kernel caches in front of us.
Method: system calls on a mount, their effect read back through other calls, after a remount, and by fsck.fat; the same
tests with cache=auto, none and writeback. tests/README.md says which operation is tested where.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

import wbfat_mount
from wbfat_mount import RENAME_EXCHANGE, RENAME_NOREPLACE, fallocate, pattern, renameat2

KEEP_SIZE = 1
SECTOR = 512
MANY = 3000
# Python itself would call again after EINTR.
WRITE_UNTIL_INTERRUPTED = f"""
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
file = os.open(sys.argv[1], os.O_RDWR)
same = os.pread(file, {SECTOR}, 0)
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.siginterrupt(signal.SIGUSR1, True)
print("ready", flush=True)
while libc.pwrite(file, same, {SECTOR}, 0) == {SECTOR}:
    pass
os._exit(ctypes.get_errno())
"""


class Operations:
    """The tests; each class below runs them under its CACHE."""

    CACHE = "auto"

    def setUp(self):
        super().setUp()
        self.image = self.make_image(64, "-F", "32", "-s", "1")
        self.volume = self.mount(self.image, f"{wbfat_mount.VFAT_OPTIONS},cache={self.CACHE}")

    def at(self, name):
        return str(self.volume / name)

    def finish(self):
        """The end of every test: unmounted, and fsck.fat finds nothing."""
        self.unmount(self.volume)

    def remount(self):
        self.unmount(self.volume)
        self.volume = self.mount(self.image, f"{wbfat_mount.VFAT_OPTIONS},cache={self.CACHE}")

    def write(self, name, content=b""):
        with open(self.at(name), "wb") as file:
            file.write(content)

    def read(self, name):
        with open(self.at(name), "rb") as file:
            return file.read()

    def expect(self, code, call, *arguments):
        with self.assertRaises(OSError) as caught:
            call(*arguments)
        self.assertEqual(errno.errorcode[caught.exception.errno], errno.errorcode[code])

    # Names.

    def test_lookup_getattr_and_forget(self):
        self.expect(errno.ENOENT, os.stat, self.at("missing"))
        self.write("f", b"123")
        found = os.stat(self.at("f"))
        self.assertEqual((found.st_size, found.st_uid, found.st_gid), (3, os.geteuid(), os.getegid()))
        self.expect(errno.ENOTDIR, os.stat, self.at("f/x"))
        if os.geteuid() == 0:
            with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as drop:
                drop.write("2")  # the kernel forgets its inodes; the next lookup starts afresh
        again = os.stat(self.at("f"))
        self.assertEqual((again.st_size, again.st_ino), (3, found.st_ino))
        self.finish()

    def test_inode_numbers_survive_a_remount(self):
        os.mkdir(self.at("d"))
        for name in ("a", "empty", "d/b"):
            self.write(name, b"x" if name != "empty" else b"")
        before = {name: os.stat(self.at(name)).st_ino for name in ("a", "empty", "d", "d/b")}
        self.assertEqual(len(set(before.values())), 4)
        self.remount()
        self.assertEqual({name: os.stat(self.at(name)).st_ino for name in before}, before)
        listed = {entry.name: entry.inode() for entry in os.scandir(self.volume.path)}
        self.assertEqual(listed, {name: before[name] for name in ("a", "empty", "d")})
        self.finish()

    def test_mknod_create_mkdir_unlink_rmdir(self):
        os.mknod(self.at("node"), stat.S_IFREG | 0o644)
        self.expect(errno.EEXIST, os.mknod, self.at("node"), stat.S_IFREG | 0o644)
        os.mkdir(self.at("dir"))
        self.expect(errno.EEXIST, os.mkdir, self.at("dir"))
        os.close(os.open(self.at("dir/new"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        self.expect(errno.EEXIST, os.open, self.at("dir/new"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        self.expect(errno.ENOTEMPTY, os.rmdir, self.at("dir"))
        self.expect(errno.ENOTDIR, os.rmdir, self.at("node"))
        self.expect(errno.EISDIR, os.unlink, self.at("dir"))
        os.unlink(self.at("dir/new"))
        self.expect(errno.ENOENT, os.unlink, self.at("dir/new"))
        os.rmdir(self.at("dir"))
        os.unlink(self.at("node"))
        self.assertEqual(os.listdir(self.volume.path), [])
        self.finish()

    def test_rename(self):
        os.makedirs(self.at("one/deep"))
        os.mkdir(self.at("two"))
        self.write("one/f", pattern(5000))
        self.write("two/f", b"old")
        with open(self.at("two/f"), "rb") as replaced:
            os.rename(self.at("one/f"), self.at("two/f"))
            self.assertEqual(replaced.read(), b"old")
        self.assertEqual(self.read("two/f"), pattern(5000))
        os.rename(self.at("one/deep"), self.at("two/deep"))
        self.assertEqual(os.stat(self.at("two/deep/..")).st_ino, os.stat(self.at("two")).st_ino)
        self.assertEqual([os.stat(self.at(name)).st_nlink for name in ("one", "two")], [2, 3])
        self.write("x", b"x")
        self.write("y", b"yy")
        self.expect(errno.EEXIST, renameat2, self.at("x"), self.at("y"), RENAME_NOREPLACE)
        renameat2(self.at("x"), self.at("z"), RENAME_NOREPLACE)
        renameat2(self.at("z"), self.at("two"), RENAME_EXCHANGE)
        self.assertEqual(self.read("two"), b"x")
        self.assertEqual(self.read("z/f"), pattern(5000))
        self.expect(errno.ENOENT, renameat2, self.at("y"), self.at("nothing"), RENAME_EXCHANGE)
        self.remount()
        self.assertEqual(sorted(os.listdir(self.volume.path)), ["one", "two", "y", "z"])
        self.assertEqual(sorted(os.listdir(self.at("z"))), ["deep", "f"])
        self.finish()

    # Open files.

    def test_open_read_write_flush_release(self):
        content = pattern(3 * 1024 * 1024 + 777)
        self.write("f", content)
        self.assertEqual(self.read("f"), content)
        with open(self.at("f"), "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"MIDDLE", 1_000_001)
            self.assertEqual(os.pread(file.fileno(), 10, 1_000_000),
                             content[1_000_000:1_000_001] + b"MIDDLE" + content[1_000_007:1_000_010])
            self.assertEqual(os.pread(file.fileno(), 10, len(content)), b"")
            self.assertEqual(os.pread(file.fileno(), 10, len(content) - 3), content[-3:])
        self.expect(errno.EISDIR, os.open, str(self.volume.path), os.O_WRONLY)
        with open(self.at("f"), "wb"):
            pass  # O_TRUNC
        self.assertEqual(os.stat(self.at("f")).st_size, 0)
        self.write("f", content)
        self.remount()
        self.assertEqual(self.read("f"), content)
        self.finish()

    def test_append_from_two_descriptors(self):
        self.write("f", b"start;")
        flags = os.O_WRONLY | os.O_APPEND
        one, two = os.open(self.at("f"), flags), os.open(self.at("f"), flags)
        for number in range(50):
            os.write(one, b"one%02d;" % number)
            os.write(two, b"two%02d;" % number)
        os.close(one)
        os.close(two)
        expected = b"start;" + b"".join(b"one%02d;two%02d;" % (n, n) for n in range(50))
        self.assertEqual(self.read("f"), expected)
        self.finish()

    def test_appends_of_many_threads_are_whole(self):
        self.write("f")

        def append(letter):
            with open(self.at("f"), "ab", buffering=0) as file:
                for _ in range(100):
                    file.write(letter * 37)

        threads = [threading.Thread(target=append, args=(bytes([65 + n]),)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        content = self.read("f")
        self.assertEqual(len(content), 6 * 100 * 37)
        self.assertEqual({content[at:at + 37] for at in range(0, len(content), 37)},
                         {bytes([65 + n]) * 37 for n in range(6)})
        self.finish()

    def test_direct_io(self):
        descriptor = os.open(self.at("f"), os.O_CREAT | os.O_RDWR | os.O_DIRECT)
        with mmap.mmap(-1, 64 * 1024) as aligned:
            aligned.write(pattern(64 * 1024))
            self.assertEqual(os.pwritev(descriptor, [aligned], 0), 64 * 1024)
            self.assertEqual(os.pwritev(descriptor, [aligned], 64 * 1024), 64 * 1024)
            aligned[:] = bytes(64 * 1024)
            self.assertEqual(os.preadv(descriptor, [aligned], 64 * 1024), 64 * 1024)
            self.assertEqual(aligned[:], pattern(64 * 1024))
        os.close(descriptor)
        self.assertEqual(self.read("f"), pattern(64 * 1024) * 2)
        self.finish()

    def test_fsync_fdatasync_osync(self):
        for flags in (os.O_SYNC, os.O_DSYNC, 0):
            descriptor = os.open(self.at("f"), os.O_CREAT | os.O_RDWR | flags)
            os.write(descriptor, b"abc")
            os.fdatasync(descriptor)
            os.fsync(descriptor)
            os.close(descriptor)
        directory = os.open(self.volume.path, os.O_RDONLY)
        os.fsync(directory)
        os.fdatasync(directory)
        wbfat_mount.syncfs(directory)
        os.close(directory)
        self.assertEqual(self.read("f"), b"abc")
        self.finish()

    def test_fsynced_bytes_are_on_the_disk(self):
        content = pattern(300_000)
        with open(self.at("f"), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            copy = self.directory / "copy.img"
            shutil.copyfile(self.image, copy)  # while it is mounted: what a power cut would leave
        got = self.directory / "f.out"
        copied = wbfat_mount.run(wbfat_mount.program("mcopy"), "-i", copy, "::f", got)
        self.assertEqual(copied.returncode, 0, copied.stderr)
        self.assertEqual(got.read_bytes(), content)
        self.finish()

    def test_truncate_up_and_down(self):
        self.write("f", pattern(10_000))
        os.truncate(self.at("f"), 4097)
        self.assertEqual(self.read("f"), pattern(10_000)[:4097])
        os.truncate(self.at("f"), 9000)
        self.assertEqual(self.read("f"), pattern(10_000)[:4097] + bytes(9000 - 4097))
        with open(self.at("f"), "r+b") as file:
            file.truncate(3)
            self.assertEqual(os.fstat(file.fileno()).st_size, 3)
            self.assertEqual(os.fstat(file.fileno()).st_blocks, 1)
        self.remount()
        self.assertEqual(self.read("f"), pattern(3))
        os.truncate(self.at("f"), 0)
        self.assertEqual(os.stat(self.at("f")).st_blocks, 0)
        self.finish()

    def test_fallocate(self):
        self.write("f", b"abc")
        with open(self.at("f"), "r+b") as file:
            fallocate(file.fileno(), 0, 1000, 5000)
            self.assertEqual(os.fstat(file.fileno()).st_size, 6000)
            fallocate(file.fileno(), KEEP_SIZE, 0, 20_000)
            found = os.fstat(file.fileno())
            self.assertEqual((found.st_size, found.st_blocks), (6000, 40))
            self.expect(errno.EFBIG, fallocate, file.fileno(), 0, 0, 1 << 32)
            self.expect(errno.ENOSPC, fallocate, file.fileno(), KEEP_SIZE, 0, 1 << 30)
        self.assertEqual(self.read("f"), b"abc" + bytes(5997))
        self.finish()

    def test_seek_data_and_hole(self):
        self.write("f", b"0123456789")
        with open(self.at("f"), "rb") as file:
            for offset, whence, answer in ((0, os.SEEK_DATA, 0), (4, os.SEEK_DATA, 4), (4, os.SEEK_HOLE, 10)):
                self.assertEqual(os.lseek(file.fileno(), offset, whence), answer)
            self.expect(errno.ENXIO, os.lseek, file.fileno(), 10, os.SEEK_DATA)
            self.expect(errno.ENXIO, os.lseek, file.fileno(), 10, os.SEEK_HOLE)
        self.finish()

    def test_copy_file_range(self):
        content = pattern(2_500_000)
        self.write("source", content)
        with open(self.at("source"), "rb") as source, open(self.at("target"), "w+b") as target:
            done = 0
            while done < 2_000_000:
                step = os.copy_file_range(source.fileno(), target.fileno(), 2_000_000 - done, 1001 + done, 7 + done)
                self.assertGreater(step, 0)
                done += step
            self.assertEqual(os.copy_file_range(source.fileno(), target.fileno(), 10, len(content), 0), 0)
        self.assertEqual(self.read("target"), bytes(7) + content[1001:2_001_001])
        self.remount()
        self.assertEqual(self.read("target"), bytes(7) + content[1001:2_001_001])
        self.finish()

    def test_copy_file_range_from_dirty_to_cached_pages(self):
        """Neither what the kernel holds of the source nor what it holds of the target may be forgotten."""
        self.write("source", bytes(8192))
        self.write("target", bytes(8192))
        self.assertEqual(self.read("target"), bytes(8192))
        with open(self.at("source"), "r+b", buffering=0) as source, open(self.at("target"), "r+b") as target:
            source.write(pattern(8192))
            self.assertEqual(os.copy_file_range(source.fileno(), target.fileno(), 8192, 0, 0), 8192)
            self.assertEqual(os.pread(target.fileno(), 8192, 0), pattern(8192))
        self.finish()

    def test_mmap_shared(self):
        self.write("f", pattern(20_000))
        with open(self.at("f"), "r+b") as file:
            with mmap.mmap(file.fileno(), 20_000) as view:
                self.assertEqual(view[:], pattern(20_000))
                view[5000:5005] = b"store"
                self.assertEqual(os.pread(file.fileno(), 5, 5000), b"store")
                os.pwrite(file.fileno(), b"write", 6000)
                self.assertEqual(view[6000:6005], b"write")
                view.flush()
        expected = bytearray(pattern(20_000))
        expected[5000:5005] = b"store"
        expected[6000:6005] = b"write"
        self.assertEqual(self.read("f"), expected)
        self.remount()
        self.assertEqual(self.read("f"), expected)
        self.finish()

    def test_mmap_store_without_msync_reaches_the_disk(self):
        self.write("f", bytes(4096))
        with open(self.at("f"), "r+b") as file:
            with mmap.mmap(file.fileno(), 4096) as view:
                view[:3] = b"abc"
        self.remount()
        self.assertEqual(self.read("f"), b"abc" + bytes(4093))
        self.finish()

    def test_bytes_beyond_the_end_in_a_mapping_are_not_kept(self):
        """Stores behind the end of the file vanish when it grows over them."""
        self.write("f", b"abc")
        with open(self.at("f"), "r+b") as file:
            with mmap.mmap(file.fileno(), 3) as view:
                first = ctypes.c_char.from_buffer(view)
                ctypes.memset(ctypes.addressof(first), ord("q"), mmap.PAGESIZE)
                del first
                view.flush()
            os.ftruncate(file.fileno(), 100)
        self.assertEqual(self.read("f"), b"qqq" + bytes(97))
        self.finish()

    def test_unlinked_but_open(self):
        free = os.statvfs(self.volume.path).f_bfree
        self.write("f", pattern(100_000))
        with open(self.at("f"), "r+b", buffering=0) as file:
            os.unlink(self.at("f"))
            self.assertEqual(os.fstat(file.fileno()).st_nlink, 0)
            self.assertEqual(os.pread(file.fileno(), 100_000, 0), pattern(100_000))
            os.ftruncate(file.fileno(), 200_000)
            os.pwrite(file.fileno(), b"end", 199_997)
            os.fsync(file.fileno())
            self.assertEqual(os.pread(file.fileno(), 5, 199_995), b"\0\0end")
            self.write("f", b"another")
            self.assertEqual(os.pread(file.fileno(), 10, 0), pattern(10))
        os.unlink(self.at("f"))
        wbfat_mount.eventually(lambda: os.statvfs(self.volume.path).f_bfree == free, "the clusters are free again")
        self.finish()

    def test_full_volume(self):
        def fill(name):
            with open(self.at(name), "wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 1_000_000)
                    os.fsync(file.fileno())
        self.expect(errno.ENOSPC, fill, "big")
        self.assertLess(os.statvfs(self.volume.path).f_bfree, 64)
        with open(self.at("big"), "rb") as file:
            while part := file.read(1 << 20):
                self.assertEqual(part.strip(b"x"), b"")
        os.unlink(self.at("big"))
        self.write("after", pattern(1_000_000))
        self.assertEqual(self.read("after"), pattern(1_000_000))
        self.finish()

    # Directories.

    def test_many_entries(self):
        os.mkdir(self.at("many"))
        names = {f"entry number {number} of many.text" for number in range(MANY)}
        for name in names:
            os.close(os.open(self.at(f"many/{name}"), os.O_CREAT | os.O_WRONLY))
        listed = os.listdir(self.at("many"))
        self.assertEqual(len(listed), MANY)
        self.assertEqual(set(listed), names)
        self.remount()
        self.assertEqual(set(os.listdir(self.at("many"))), names)
        for name in sorted(names)[::2]:
            os.unlink(self.at(f"many/{name}"))
        self.assertEqual(set(os.listdir(self.at("many"))), set(sorted(names)[1::2]))
        self.finish()

    def test_readdir_while_it_changes(self):
        """POSIX: what was there all the time is listed once, what came or went at most once."""
        os.mkdir(self.at("d"))
        stay = [f"stays-{number}" for number in range(200)]
        for number, name in enumerate(stay):
            self.write(f"d/{name}")
            self.write(f"d/goes-{number}")
        seen = []
        with os.scandir(self.at("d")) as entries:
            for count, entry in enumerate(entries):
                seen.append(entry.name)
                if count < 200:
                    os.unlink(self.at(f"d/goes-{count}"))
                    self.write(f"d/comes-{count}-with-a-long-name")
                    os.rename(self.at(f"d/comes-{count}-with-a-long-name"), self.at(f"d/came-{count}"))
        self.assertEqual(sorted(name for name in seen if name.startswith("stays-")), sorted(stay))
        self.assertEqual(len(seen), len(set(seen)))
        self.assertEqual(len(os.listdir(self.at("d"))), 400)
        self.finish()

    def test_seekdir(self):
        for number in range(40):
            self.write(f"f{number}")
        descriptor = os.open(self.volume.path, os.O_RDONLY)
        first = os.listdir(descriptor)
        os.lseek(descriptor, 0, os.SEEK_SET)
        self.write("late")
        second = os.listdir(descriptor)
        os.close(descriptor)
        self.assertEqual(sorted(second), sorted(first + ["late"]))
        self.finish()

    def test_removed_current_directory(self):
        os.mkdir(self.at("gone"))
        before = os.getcwd()
        os.chdir(self.at("gone"))
        try:
            os.rmdir(self.at("gone"))
            self.expect(errno.ENOENT, os.open, "new", os.O_CREAT | os.O_WRONLY)
            self.expect(errno.ENOENT, os.mkdir, "new")
            self.expect(errno.ENOENT, os.stat, "old")
            self.assertEqual(os.listdir("."), [])
            self.assertEqual(os.stat(".").st_nlink, 0)
            os.mkdir(self.at("gone"))
            self.write("gone/other")
            self.assertEqual(os.listdir("."), [])
        finally:
            os.chdir(before)
        self.finish()

    # The volume.

    def test_statfs_counts_as_fsck_does(self):
        os.mkdir(self.at("d"))
        self.write("d/f", pattern(123_456))
        before = os.statvfs(self.volume.path)
        self.unmount(self.volume, fsck=False)
        used, total = map(int, re.search(r"(\d+)/(\d+) clusters", self.fsck(self.image)).groups())
        self.assertEqual((before.f_blocks, before.f_blocks - before.f_bfree), (total, used))
        self.assertEqual((before.f_bsize, before.f_frsize, before.f_namemax), (SECTOR, SECTOR, 255))

    def test_setattr_times(self):
        self.write("f")
        day = 86400 * 10**9
        for given, kept in ((0, 315532800), (1_600_000_001, 1_600_000_000), (1_600_000_002, 1_600_000_002),
                            (99_999_999_999, 4354819198)):
            os.utime(self.at("f"), ns=(given * 10**9, given * 10**9))
            found = os.stat(self.at("f"))
            self.assertEqual(found.st_mtime_ns, kept * 10**9)
            self.assertEqual(found.st_atime_ns, kept * 10**9 // day * day)
        os.utime(self.at("f"), ns=(1_600_000_000 * 10**9, 1_500_000_000 * 10**9))
        self.remount()
        found = os.stat(self.at("f"))
        self.assertEqual(found.st_mtime, 1_500_000_000)
        self.assertEqual(found.st_atime_ns, 1_600_000_000 * 10**9 // day * day)
        os.utime(self.at("f"))
        self.assertGreater(os.stat(self.at("f")).st_mtime, 1_700_000_000)
        self.finish()

    def test_a_write_sets_mtime(self):
        self.write("f")
        os.utime(self.at("f"), (1_000_000_000, 1_000_000_000))
        with open(self.at("f"), "ab") as file:
            file.write(b"more")
        found = os.stat(self.at("f"))
        self.assertGreater(found.st_mtime, 1_700_000_000)
        self.remount()
        self.assertEqual(os.stat(self.at("f")).st_mtime // 2, found.st_mtime // 2)
        self.finish()

    def test_access(self):
        self.write("f")
        self.assertTrue(os.access(self.at("f"), os.R_OK | os.W_OK))
        self.assertFalse(os.access(self.at("missing"), os.F_OK))
        self.finish()

    def test_locks(self):
        self.write("f")
        with open(self.at("f"), "r+b") as one, open(self.at("f"), "r+b") as two:
            fcntl.flock(one, fcntl.LOCK_EX)
            self.expect(errno.EAGAIN, fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(one, fcntl.LOCK_UN)
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.finish()


class CacheAutoTest(Operations, wbfat_mount.MountCase):
    pass


class CacheNoneTest(Operations, wbfat_mount.MountCase):
    CACHE = "none"

    def test_mmap_shared(self):
        """The kernel keeps no page, so it can share none."""
        self.write("f", pattern(20_000))
        with open(self.at("f"), "r+b") as file:
            self.expect(errno.ENODEV, mmap.mmap, file.fileno(), 20_000)
            with mmap.mmap(file.fileno(), 20_000, mmap.MAP_PRIVATE) as view:
                self.assertEqual(view[:], pattern(20_000))
        self.finish()

    def test_a_signal_ends_a_write_that_waits_for_a_page(self):
        """FUSE_INTERRUPT: the flusher holds the page's lock; who waits for it gets EINTR, and leaves nothing queued."""
        self.unmount(self.volume)
        self.volume = self.mount(self.image, f"{wbfat_mount.VFAT_OPTIONS},cache=none,assert=all:bug,"
                                             "dirty_writeback_centisecs=1,dirty_expire_centisecs=0,"
                                             "point=write_cache_pages:prepared@flusher=sleep(300ms)")
        self.write("f", pattern(SECTOR))
        with subprocess.Popen([sys.executable, "-c", WRITE_UNTIL_INTERRUPTED, self.at("f")],
                              stdout=subprocess.PIPE, text=True) as writing:
            self.addCleanup(writing.kill)
            self.assertEqual(writing.stdout.readline(), "ready\n")
            deadline = time.monotonic() + wbfat_mount.WATCHDOG_SECONDS
            while writing.poll() is None and time.monotonic() < deadline:
                writing.send_signal(signal.SIGUSR1)
                time.sleep(.01)
            writing.kill()
        self.assertEqual(errno.errorcode.get(writing.returncode), "EINTR")
        self.assertEqual(self.read("f"), pattern(SECTOR))
        self.finish()
        self.assertNotIn("BUG", self.volume.log())

    test_mmap_store_without_msync_reaches_the_disk = None
    test_bytes_beyond_the_end_in_a_mapping_are_not_kept = None


class CacheWritebackTest(Operations, wbfat_mount.MountCase):
    CACHE = "writeback"

    def test_setattr_times(self):
        """mtime is the kernel's while it is mounted: rounded and limited only once it comes from the disk again."""
        self.write("f")
        for given, kept in ((0, 315532800), (1_600_000_001, 1_600_000_000), (99_999_999_999, 4354819198)):
            os.utime(self.at("f"), (given, given))
            self.assertEqual(os.stat(self.at("f")).st_mtime, given)
            self.remount()
            self.assertEqual(os.stat(self.at("f")).st_mtime, kept)
        self.finish()

    def test_what_fits_only_in_part_is_told(self):
        """The kernel looks at the error of a write of its pages, not at the count."""
        with open(self.at("f"), "wb") as file:
            volume = os.statvfs(self.volume.path)
            os.posix_fallocate(file.fileno(), 0, (volume.f_bfree - 4) * volume.f_frsize)
        with open(self.at("g"), "wb", buffering=0) as file:
            file.write(bytes(8 * volume.f_frsize))
            self.expect(errno.ENOSPC, os.fsync, file.fileno())
        self.finish()


if __name__ == "__main__":
    wbfat_mount.main()
