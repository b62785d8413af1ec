#!/usr/bin/env python3
"""Goal: a mount answers edge cases as the kernel's vfat does, row by row.
Method: each row of ROWS is asked on one FAT32 volume of the size, the id and the options that the kernel was asked with
(Linux 6.1, utf8,codepage=437,tz=UTC, root), and compared with what it answered.

Where better than the kernel is wanted, the row says `better`: f_namemax is 255.
Not asked, or not better, because FUSE does not let us answer:
  case-only rename     rename(2) looks both names up, sees one inode, and answers 0 without asking the filesystem; so
                       the name stays, as on the kernel's vfat. By way of a third name it changes (spellings_test.py).
  btime                statx of libfuse 3.14 has no birth time; tests/fs checks what is written to the disk.
  inode numbers        the kernel's are made up; here fuse_ops_test.py checks that they do not change over a remount.
"""

import fcntl
import mmap
import os
import stat
import struct

import wbfat_mount
from wbfat_mount import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, errno_name, fallocate, renameat2

GET_ATTRIBUTES = 0x80047210
SET_ATTRIBUTES = 0x40047211
GET_VOLUME_ID = 0x80047213
READDIR_BOTH = 0x82307201
GETFLAGS = 0x80086601
FITRIM = 0xC0185879
SHUTDOWN = 0x8004587D
VOLUME_ID = 0x1234ABCD

KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO, INSERT, UNSHARE = 1, 2, 8, 16, 32, 64

CREATED = [  # a name, and how it is listed; an errno where it is refused
    ("lower.txt", "lower.txt"), ("UPPER.TXT", "UPPER.TXT"), ("MixEd.TxT", "MixEd.TxT"), ("lower.TXT", "lower.TXT"),
    ("UPPER.txt", "UPPER.txt"), ("a.b.c", "a.b.c"), (".dot", ".dot"), ("..dots", "..dots"), ("dot.", "dot"),
    ("dots...", "dots"), ("space ", "EINVAL"), (" lead", " lead"), ("in side", "in side"), ("a+b", "a+b"),
    ("a,b;=[]", "a,b;=[]"), ("aux", "aux"), ("con.txt", "con.txt"), ("nul", "nul"), ("com1", "com1"),
    ("clock$", "clock$"), ("a:b", "EINVAL"), ("a*b", "EINVAL"), ("a?b", "EINVAL"), ('a"b', "EINVAL"),
    ("a<b", "EINVAL"), ("a|b", "EINVAL"), ("a\\b", "EINVAL"), ("tab\tx", "EINVAL"), ("del\x7f", "del\x7f"),
    ("ü", "ü"), ("名前", "名前"), ("😀", "😀"), ("é", "é"), ("\udcff", "EINVAL"),
    ("x" * 255, "x" * 255), ("x" * 256, "ENAMETOOLONG"), ("ü" * 255, "ü" * 255), ("名" * 255, "名" * 255),
    ("😀" * 127, "😀" * 127), ("😀" * 128, "ENAMETOOLONG"), ("~1", "~1"), ("foo~1.txt", "foo~1.txt"),
]


def write(path, content=b""):
    with open(path, "wb") as file:
        file.write(content)


def ioctl_number(path, command, value=0):
    """A 32-bit ioctl on a file or directory: what it filled in."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        buffer = bytearray(struct.pack("=I", value))
        fcntl.ioctl(descriptor, command, buffer)
        return struct.unpack("=I", buffer)[0]
    finally:
        os.close(descriptor)


def mode_of(path):
    return oct(stat.S_IMODE(os.stat(path).st_mode))


class VfatAnswersTest(wbfat_mount.MountCase):
    def setUp(self):
        super().setUp()
        wbfat_mount.need_root()  # chown, and FITRIM's privilege
        image = self.make_image(128, "-F", "32", "-s", "1", "-i", f"{VOLUME_ID:x}")
        self.volume = self.mount(image)
        self.root = str(self.volume.path)

    def tearDown(self):
        if self.mounts:
            self.unmount(self.volume)

    def rows(self, rows):
        """Asks every row; a wrong answer does not stop the others."""
        for name, answer, ask in rows:
            with self.subTest(row=name):
                self.assertEqual(errno_name(ask), answer)

    def at(self, name):
        return os.path.join(self.root, name)

    def test_names_that_can_be_created(self):
        for number, (name, answer) in enumerate(CREATED):
            directory = self.at(f"d{number}")
            os.mkdir(directory)
            with self.subTest(name=name):
                made = errno_name(write, os.path.join(directory, name))
                self.assertEqual(made or os.listdir(directory)[0], answer)
                self.assertEqual(len(os.listdir(directory)), 0 if made else 1)

    def listing_after(self, call, *arguments):
        """What a fresh directory lists after `call` of paths in it."""
        directory = self.at(f"l{len(os.listdir(self.root))}")
        os.mkdir(directory)
        write(os.path.join(directory, "casetest.txt"), b"1")
        call(*[os.path.join(directory, name) for name in arguments])
        return os.listdir(directory)

    def test_spellings(self):
        write(self.at("CaseTest.txt"), b"1")
        write(self.at("a long file name.text"), b"22")
        self.rows([
            ("lookup other case", 1, lambda: os.stat(self.at("CASETEST.TXT")).st_size),
            ("lookup 8.3 alias of long name", 2, lambda: os.stat(self.at("ALONGF~1.TEX")).st_size),
            ("O_EXCL create other case", "EEXIST",
             lambda: os.open(self.at("cAsEtEsT.TxT"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
            ("rename case only", ["casetest.txt"], lambda: self.listing_after(os.rename, "casetest.txt", "CaseTest.txt")),
            ("lookup trailing dot", 1, lambda: os.stat(self.at("CaseTest.txt.")).st_size),
            ("create via other case keeps name", ["casetest.txt"], lambda: self.listing_after(write, "CASETEST.txt")),
        ])

    def test_rename_flags(self):
        for name, content in (("r1", b"1"), ("r2", b"22")):
            write(self.at(name), content)
        for name in ("d1", "full", "full/inner", "empty", "swap"):
            os.mkdir(self.at(name))
        write(self.at("swapfile"), b"f")

        def flagged(old, new, flags):
            return lambda: renameat2(self.at(old), self.at(new), flags)

        def exchange():
            renameat2(self.at("r1"), self.at("r2"), RENAME_EXCHANGE)
            return os.stat(self.at("r1")).st_size

        def exchange_kinds():
            renameat2(self.at("swap"), self.at("swapfile"), RENAME_EXCHANGE)
            return "ok", os.path.isdir(self.at("swapfile")) and os.path.isfile(self.at("swap"))

        self.rows([
            ("rename NOREPLACE onto existing", "EEXIST", flagged("r1", "r2", RENAME_NOREPLACE)),
            ("rename EXCHANGE", 2, exchange),
            ("rename WHITEOUT", "EINVAL", flagged("r1", "r3", RENAME_WHITEOUT)),
            ("rename EXCHANGE file<->dir", ("ok", True), exchange_kinds),
            ("rename dir onto non-empty", "ENOTEMPTY", lambda: os.rename(self.at("d1"), self.at("full"))),
            ("rename dir into itself", "EINVAL", lambda: os.rename(self.at("full"), self.at("full/inner/x"))),
            ("rename dir onto file", "ENOTDIR", lambda: os.rename(self.at("d1"), self.at("r1"))),
        ])

    def test_what_fat_has_not(self):
        write(self.at("f"))
        descriptor = os.open(self.at("f"), os.O_RDWR)
        self.rows([
            ("symlink", "EPERM", lambda: os.symlink("x", self.at("s"))),
            ("link", "EPERM", lambda: os.link(self.at("f"), self.at("l"))),
            ("mkfifo", "EPERM", lambda: os.mkfifo(self.at("p"))),
            ("mknod chr", "EPERM", lambda: os.mknod(self.at("c"), stat.S_IFCHR | 0o600, os.makedev(1, 3))),
            ("mknod reg", None, lambda: os.mknod(self.at("r"), stat.S_IFREG | 0o600)),
            ("chown root:root", None, lambda: os.chown(self.at("f"), 0, 0)),
            ("chown 1:1", "EPERM", lambda: os.chown(self.at("f"), 1, 1)),
            ("setxattr", "ENOTSUP", lambda: os.setxattr(self.at("f"), "user.a", b"1")),
            ("O_TMPFILE", "ENOTSUP", lambda: os.open(self.root, os.O_TMPFILE | os.O_RDWR)),
            ("O_DIRECT open", True, lambda: os.close(os.open(self.at("f"), os.O_RDWR | os.O_DIRECT)) is None),
            ("FS_IOC_GETFLAGS", "ENOTTY", lambda: fcntl.ioctl(descriptor, GETFLAGS, bytearray(8))),
            ("FS_IOC_SHUTDOWN", "ENOTTY", lambda: fcntl.ioctl(descriptor, SHUTDOWN, bytearray(4))),
        ])
        os.close(descriptor)

    def test_modes(self):
        write(self.at("f"))
        os.mkdir(self.at("d"))

        def chmod(name, mode):
            def ask():
                os.chmod(self.at(name), mode)
                return mode_of(self.at(name))
            return ask

        def created_read_only():
            os.close(os.open(self.at("ro"), os.O_CREAT | os.O_RDWR, 0o444))
            return mode_of(self.at("ro"))

        def unlink_read_only():
            os.chmod(self.at("ro"), 0o555)
            self.assertEqual(mode_of(self.at("ro")), "0o555")
            return os.unlink(self.at("ro"))

        self.rows([
            ("mode file, dir", ("0o755", "0o755"), lambda: (mode_of(self.at("f")), mode_of(self.at("d")))),
            ("chmod 444 file", "0o755", chmod("f", 0o444)), ("chmod 555 file", "0o555", chmod("f", 0o555)),
            ("chmod 644 file", "0o555", chmod("f", 0o644)), ("chmod 600 file", "0o555", chmod("f", 0o600)),
            ("chmod 777 file", "0o755", chmod("f", 0o777)), ("chmod 755 file", "0o755", chmod("f", 0o755)),
            ("chmod 0 file", "0o755", chmod("f", 0)), ("chmod 4755 file", "EPERM", chmod("f", 0o4755)),
            ("chmod 222 file", "0o755", chmod("f", 0o222)), ("chmod 0755 back", "0o755", chmod("f", 0o755)),
            ("chmod 555 dir", "0o755", chmod("d", 0o555)), ("chmod 700 dir", "0o755", chmod("d", 0o700)),
            ("chmod 755 dir", "0o755", chmod("d", 0o755)),
            ("create mode 0444", "0o755", created_read_only), ("unlink a read-only file", None, unlink_read_only),
        ])

    def test_times(self):
        write(self.at("f"))

        def utime(nanoseconds):
            def ask():
                os.utime(self.at("f"), ns=(nanoseconds, nanoseconds))
                found = os.stat(self.at("f"))
                return found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns
            return ask

        first = (315532800 * 10**9,) * 3
        last = (4354732800 * 10**9, 4354819198 * 10**9, 4354819198 * 10**9)
        self.rows([
            ("utime 1700000001.123", (1699920000 * 10**9, 1700000000 * 10**9, 1700000000 * 10**9),
             utime(1700000001123000000)),
            ("utime 0", first, utime(0)), ("utime before 1970", first, utime(-1)),
            ("utime before 1980", first, utime(315532799 * 10**9)), ("utime 1980", first, utime(315532800 * 10**9)),
            ("utime 2107-12-31 23:59:58", last, utime(4354819198 * 10**9)),
            ("utime 2107-12-31 23:59:59.9", last, utime(4354819199900000000)),
            ("utime 2108", last, utime(4354819200 * 10**9)), ("utime 5138", last, utime(99999999999 * 10**9)),
            ("root times", [0, 0], lambda: [int(os.stat(self.root).st_mtime), int(os.stat(self.root).st_ctime)]),
        ])
        self.unmount(self.volume)
        self.volume = self.mount(self.volume.device)
        self.root = str(self.volume.path)
        found = os.stat(self.at("f"))
        self.assertEqual((found.st_atime_ns, found.st_mtime_ns), last[:2], "as stored on the disk")

    def test_links_sizes_and_statvfs(self):
        os.makedirs(self.at("d"))
        os.makedirs(self.at("two/a"))
        os.makedirs(self.at("two/b"))
        write(self.at("f"), b"1")

        def shape(path):
            found = os.stat(path)
            return found.st_size, found.st_blocks, found.st_blksize

        def statvfs():
            found = os.statvfs(self.root)
            return {"bsize": found.f_bsize, "frsize": found.f_frsize, "blocks": found.f_blocks,
                    "files": found.f_files, "ffree": found.f_ffree, "namemax": found.f_namemax}

        self.rows([
            ("nlink root, empty dir, file", (4, 2, 1),
             lambda: tuple(os.stat(path).st_nlink for path in (self.root, self.at("d"), self.at("f")))),
            ("nlink dir with 2 subdirs", 4, lambda: os.stat(self.at("two")).st_nlink),
            ("size/blocks/blksize of dir, file", [(512, 1, 512), (1, 1, 512)],
             lambda: [shape(self.at("d")), shape(self.at("f"))]),
            # better: the kernel says 1530
            ("statvfs", {"bsize": 512, "frsize": 512, "blocks": 258078, "files": 0, "ffree": 0, "namemax": 255}, statvfs),
        ])

    def test_fallocate_and_limits(self):
        descriptor = os.open(self.at("f"), os.O_CREAT | os.O_RDWR)
        kept = os.open(self.at("kept"), os.O_CREAT | os.O_RDWR)
        os.ftruncate(kept, 100000)

        def allocate(target, mode, length):
            def ask():
                fallocate(target, mode, 0, length)
                found = os.fstat(target)
                return "ok size", found.st_size, "blocks", found.st_blocks
            return ask

        def reopened():
            os.close(kept)
            with open(self.at("kept"), "rb") as file:
                return None, os.fstat(file.fileno()).st_blocks

        def sparse():
            with open(self.at("sparse"), "wb") as file:
                os.pwrite(file.fileno(), b"x", 1 << 20)
                return os.fstat(file.fileno()).st_blocks

        def holes():
            write(self.at("ten"), b"0123456789")
            with open(self.at("ten"), "rb") as file:
                return os.lseek(file.fileno(), 0, os.SEEK_DATA), os.lseek(file.fileno(), 0, os.SEEK_HOLE)

        self.rows([
            ("fallocate 0", ("ok size", 100000, "blocks", 196), allocate(descriptor, 0, 100000)),
            ("fallocate KEEP_SIZE", ("ok size", 100000, "blocks", 196), allocate(descriptor, KEEP_SIZE, 100000)),
            ("fallocate PUNCH|KEEP", "ENOTSUP", allocate(descriptor, PUNCH_HOLE | KEEP_SIZE, 100000)),
            ("fallocate COLLAPSE", "ENOTSUP", allocate(descriptor, COLLAPSE, 100000)),
            ("fallocate ZERO", "ENOTSUP", allocate(descriptor, ZERO, 100000)),
            ("fallocate INSERT", "ENOTSUP", allocate(descriptor, INSERT, 100000)),
            ("fallocate UNSHARE", "ENOTSUP", allocate(descriptor, UNSHARE, 100000)),
            ("fallocate KEEP_SIZE far", ("ok size", 100000, "blocks", 391), allocate(kept, KEEP_SIZE, 200000)),
            ("blocks after close+reopen of KEEP_SIZE", (None, 391), reopened),
            ("pwrite at 4GiB-1", "EFBIG", lambda: os.pwrite(descriptor, b"x", 0xFFFFFFFF)),
            ("truncate 4GiB", "EFBIG", lambda: os.ftruncate(descriptor, 1 << 32)),
            ("SEEK_DATA/SEEK_HOLE", (0, 10), holes),
            ("sparse: write at 1MiB", 2049, sparse),
        ])
        os.close(descriptor)

    def test_attributes_and_volume_id(self):
        write(self.at("f"))
        os.mkdir(self.at("d"))

        def attributes(path, value):
            def ask():
                ioctl_number(path, SET_ATTRIBUTES, value)
                return hex(ioctl_number(path, GET_ATTRIBUTES))
            return ask

        def read_only():
            return attributes(self.at("f"), 0x21)(), mode_of(self.at("f"))

        self.rows([
            ("GET_ATTRIBUTES new file, dir, root", ("0x20", "0x10", "0x10"),
             lambda: tuple(hex(ioctl_number(p, GET_ATTRIBUTES)) for p in (self.at("f"), self.at("d"), self.root))),
            ("SET_ATTRIBUTES hidden+system", "0x26", attributes(self.at("f"), 0x26)),
            ("SET_ATTRIBUTES ro on file", ("0x21", "0o555"), read_only),
            ("SET_ATTRIBUTES 0xff", "0x27", attributes(self.at("f"), 0xFF)),
            ("SET_ATTRIBUTES on root", "EINVAL", attributes(self.root, 0x12)),
            ("GET_VOLUME_ID", hex(VOLUME_ID), lambda: hex(ioctl_number(self.root, GET_VOLUME_ID))),
        ])

    def test_both_names(self):
        for name in ("CaseTest.txt", "a long file name.text", "r1", "r2"):
            write(self.at(name), b"1")
        descriptor = os.open(self.root, os.O_RDONLY)
        names = []
        entries = bytearray(560)
        while fcntl.ioctl(descriptor, READDIR_BOTH, entries) == 1:
            both = []
            for half in (entries[:280], entries[280:]):
                length = struct.unpack_from("=H", half, 16)[0]
                both.append(os.fsdecode(bytes(half[18:18 + length])))
            names.append(tuple(both))
            self.assertLess(len(names), 100)
        os.close(descriptor)
        self.assertEqual(names, [(".", ""), ("..", ""), ("CASETEST.TXT", "CaseTest.txt"),
                                 ("ALONGF~1.TEX", "a long file name.text"), ("R1", "r1"), ("R2", "r2")])

    def test_trim(self):
        """The kernel's 130881024 bytes were what its volume had free; here it is what statvfs calls free."""
        write(self.at("f"), b"1" * 5000)
        os.sync()
        descriptor = os.open(self.root, os.O_RDONLY)
        wanted = struct.pack("=QQQ", 0, 0xFFFFFFFFFFFFFFFF, 0)
        buffer = bytearray(wanted)
        fcntl.ioctl(descriptor, FITRIM, buffer)
        os.close(descriptor)
        free = os.statvfs(self.root)
        self.assertEqual(struct.unpack("=QQQ", buffer), (0, free.f_bfree * 512, 512))
        with open(self.at("f"), "rb") as file:
            self.assertEqual(file.read(), b"1" * 5000)

    def test_open_but_removed(self):
        write(self.at("f"), b"1")
        os.mkdir(self.at("d"))
        os.mkdir(self.at("full"))
        write(self.at("full/f"))
        directory = os.open(self.at("d"), os.O_RDONLY)

        def unlinked():
            with open(self.at("f"), "w+b", buffering=0) as file:
                os.unlink(self.at("f"))
                file.write(b"zz")
                return os.pread(file.fileno(), 10, 0), os.fstat(file.fileno()).st_nlink

        self.rows([
            ("unlink while open, then write+read", (b"zz", 0), unlinked),
            ("rmdir an open dir", None, lambda: os.rmdir(self.at("d"))),
            ("create in removed dir", "ENOENT", lambda: os.open("x", os.O_CREAT | os.O_RDWR, dir_fd=directory)),
            ("rmdir non-empty", "ENOTEMPTY", lambda: os.rmdir(self.at("full"))),
        ])
        os.close(directory)

    def test_the_rest(self):
        write(self.at("f"), b"1" * 100)
        os.mkdir(self.at("d"))

        def mapped():
            with open(self.at("f"), "r+b") as file:
                with mmap.mmap(file.fileno(), 100) as view:
                    view[:4] = b"mmap"
                    view.flush()
                return os.pread(file.fileno(), 4, 0)

        def locked():
            with open(self.at("f"), "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                fcntl.lockf(file, fcntl.LOCK_EX)
                return "ok"

        def with_root(call):
            def ask():
                descriptor = os.open(self.root, os.O_RDONLY)
                try:
                    return call(descriptor)
                finally:
                    os.close(descriptor)
            return ask

        self.rows([
            ("mmap shared write", b"mmap", mapped),
            ("flock/fcntl lock", "ok", locked),
            ("readdir d_type", [False, True], lambda: [entry.is_dir(follow_symlinks=False) for entry in
                                                       sorted(os.scandir(self.root), key=lambda e: e.name, reverse=True)]),
            ("fsync dir", None, with_root(os.fsync)),
            ("syncfs", 0, with_root(wbfat_mount.syncfs)),
        ])


if __name__ == "__main__":
    wbfat_mount.main()
