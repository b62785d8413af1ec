"""A tree that exercises a FAT volume, grown and listed with the same calls whoever serves the volume: wbfat on the host,
the kernel's vfat inside User-Mode Linux.

Contents and names are functions of a seed, so two trees of one seed on equal volumes must look the same in everything
but the times of writing."""

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import random
import stat
import struct

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
AT_FDCWD = -100
FAT_IOCTL_GET_ATTRIBUTES = 0x80047210
FAT_IOCTL_SET_ATTRIBUTES = 0x40047211
VFAT_IOCTL_READDIR_BOTH = 0x82307201
FAT_DIRENT_BYTES = 280
ATTR_HIDDEN = 0x02
ATTR_SYSTEM = 0x04
ATTR_ARCHIVE = 0x20
LIBC = ctypes.CDLL(None, use_errno=True)

FOREIGN_NAMES = [
    "Привет, мир.txt", "日本語のとても長いファイル名.txt", "Ελληνικά και τόνοι.txt", "é composed", "e\u0301 combining",
    "ไทย.dat", "עברית.txt", "😀 emoji 🎉.txt", "ÄÖÜäöüß.txt", "Ünïcödé.TXT", "ÿ",
]
LONG_NAMES = [
    "lower.txt", "UPPER.TXT", "Mixed.Txt", "small.TXT", "LARGE.txt", ".hidden", "..two dots", "no-extension", "a.b.c.d.e",
    "thirteen-char", "fourteen-chars", "twenty-six-characters-long", "twenty-seven-characters-lon",
    "spaces in the name", " leading space", "a+b,c;d=e[f]", "tilde~1.txt", "TILDE~1.TXT.x", "aux", "con.txt", "x" * 255,
    "percent%&'()-@^_`{}!#$", "longer-than-eight.extension",
]


def content(name, length):
    """`length` bytes that depend on the name and on where they are."""
    return random.Random(name).randbytes(length)


def write_file(path, data):
    with open(path, "wb", buffering=0) as file:
        written = 0
        while written < len(data):
            written += file.write(data[written:])


def rename2(old, new, flags):
    if LIBC.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), old)


def set_attributes(path, attributes):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FAT_IOCTL_SET_ATTRIBUTES, struct.pack("I", attributes))
    finally:
        os.close(descriptor)


class Grower:
    """Grows the tree under `root`; `cluster` is the volume's cluster size."""

    def __init__(self, root, seed):
        self.root = root
        self.random = random.Random(seed)
        self.cluster = os.statvfs(root).f_bsize

    def at(self, *parts):
        return os.path.join(self.root, *parts)

    def grow(self):
        self.names()
        self.limits()
        self.sizes()
        self.deep()
        self.many()
        self.changed()
        self.fragmented()
        self.moved()
        self.attributes()
        self.times()

    def names(self):
        os.mkdir(self.at("names"))
        for number, name in enumerate(FOREIGN_NAMES + LONG_NAMES):
            write_file(self.at("names", name), content(name, 10 * number))
        os.mkdir(self.at("Каталог"))
        write_file(self.at("Каталог", "ещё один файл.txt"), b"x" * 1000)
        os.mkdir(self.at("aliases"))
        for number in range(14):
            write_file(self.at("aliases", f"longname-number-{number}.text"), content(str(number), number))

    def limits(self):
        """Apart from the others: mtools cannot be asked about them."""
        os.mkdir(self.at("limits"))
        for name in ("名" * 255, "😀" * 127):
            write_file(self.at("limits", name), content(name, 77))

    def sizes(self):
        os.mkdir(self.at("sizes"))
        edges = [0, 512, 4096, self.cluster, 3 * self.cluster, 5 * self.cluster + 1717]
        for length in sorted({edge + step for edge in edges for step in (-1, 0, 1) if edge + step >= 0}):
            write_file(self.at("sizes", f"of {length} bytes"), content(str(length), length))

    def deep(self):
        directory = self.at("deep")
        os.mkdir(directory)
        for level in range(14):
            directory = os.path.join(directory, f"d{level}" if level % 2 else f"level number {level}")
            os.mkdir(directory)
            write_file(os.path.join(directory, "file"), content(directory[len(self.root):], 100 * level))

    def many(self):
        """A directory over several clusters, with holes, some of them used again by longer and shorter names."""
        os.mkdir(self.at("many"))
        for number in range(220):
            write_file(self.at("many", f"entry number {number}"), b"")
        for number in range(0, 220, 3):
            os.unlink(self.at("many", f"entry number {number}"))
        for number in range(40):
            name = f"s{number}" if number % 2 else f"a name over more slots than any of the removed ones had {number}"
            write_file(self.at("many", name), content(name, number))

    def changed(self):
        """Files that were cut, lengthened, appended to and overwritten, by calls and through mappings."""
        os.mkdir(self.at("changed"))
        big = 9 * self.cluster + 333
        for name, sizes in {"cut": [big - 4000], "to zero": [0], "to zero and up": [0, 7777], "up": [big + 3 * self.cluster],
                            "down and up": [self.cluster // 2 + 1, big], "many times": [1, big, 511, 2 * self.cluster, 4097]}.items():
            write_file(self.at("changed", name), content(name, big))
            for size in sizes:
                os.truncate(self.at("changed", name), size)
        with open(self.at("changed", "appended"), "ab", buffering=0) as file:
            for piece in range(60):
                file.write(content(f"piece {piece}", self.random.randrange(1, 700)))
        with open(self.at("changed", "overwritten"), "wb+", buffering=0) as file:
            file.write(content("below", 40000))
            for piece in range(30):
                file.seek(self.random.randrange(0, 45000))
                file.write(content(f"over {piece}", self.random.randrange(1, 3000)))
        with open(self.at("changed", "far"), "wb", buffering=0) as file:
            file.seek(6 * self.cluster + 5)
            file.write(b"far away")
        with open(self.at("changed", "mapped"), "wb+", buffering=0) as file:
            file.truncate(20000)
            with mmap.mmap(file.fileno(), 20000) as window:
                window[3000:9000] = content("mapped", 6000)

    def fragmented(self):
        os.mkdir(self.at("fragmented"))
        pieces = [self.at("fragmented", f"piece {number}") for number in range(40)]
        for path in pieces:
            write_file(path, content(path[len(self.root):], self.cluster))
        for path in pieces[::2]:
            os.unlink(path)
        write_file(self.at("fragmented", "in the holes"), content("holes", 26 * self.cluster - 100))
        with open(self.at("fragmented", "in turn a"), "wb", buffering=0) as a, \
             open(self.at("fragmented", "in turn b"), "wb", buffering=0) as b:
            for turn in range(12):
                a.write(content(f"a{turn}", self.cluster))
                b.write(content(f"b{turn}", self.cluster // 2 + 9))
                os.fsync(a.fileno() if turn % 2 else b.fileno())

    def moved(self):
        for name in ("from", "to", "to/inner", "gone"):
            os.mkdir(self.at(name))
        for name in ("stays here", "goes over", "goes on top", "swaps", "short.txt", "removed"):
            write_file(self.at("from", name), content(name, 2000 + len(name)))
        write_file(self.at("to", "below"), content("below", 9000))
        write_file(self.at("to", "swapped"), content("swapped", 123))
        os.rename(self.at("from", "stays here"), self.at("from", "now under a much longer name than before"))
        os.rename(self.at("from", "goes over"), self.at("to", "goes over"))
        os.replace(self.at("from", "goes on top"), self.at("to", "below"))
        rename2(self.at("from", "swaps"), self.at("to", "swapped"), RENAME_EXCHANGE)
        rename2(self.at("from", "short.txt"), self.at("to", "inner", "SHORT2.TXT"), RENAME_NOREPLACE)
        os.mkdir(self.at("from", "directory that moves"))
        write_file(self.at("from", "directory that moves", "content"), content("content", 5000))
        os.rename(self.at("from", "directory that moves"), self.at("to", "inner", "moved"))
        os.unlink(self.at("from", "removed"))
        os.rmdir(self.at("gone"))

    def attributes(self):
        os.mkdir(self.at("attributes"))
        for name, attributes in {"hidden": ATTR_HIDDEN | ATTR_ARCHIVE, "system": ATTR_SYSTEM, "none": 0}.items():
            write_file(self.at("attributes", name), content(name, 50))
            set_attributes(self.at("attributes", name), attributes)
        write_file(self.at("attributes", "read-only"), content("read-only", 50))
        os.chmod(self.at("attributes", "read-only"), 0o555)
        set_attributes(self.at("attributes"), ATTR_HIDDEN)

    def times(self):
        os.mkdir(self.at("times"))
        for name, seconds in {"1980": 315532800, "1970": 0, "odd": 1234567891, "leap day": 1709208000, "2038": 2147483649,
                              "2107": 4354819198, "2200": 7258118400}.items():
            write_file(self.at("times", name), b"")
            os.utime(self.at("times", name), (seconds, seconds))


def aliases(directory):
    """Long name -> 8.3 name, as the volume's own ioctl tells."""
    found = {}
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while True:
            both = bytearray(2 * FAT_DIRENT_BYTES)
            if fcntl.ioctl(descriptor, VFAT_IOCTL_READDIR_BOTH, both) == 0:
                return found
            short, long = (both[at + 18:at + 18 + struct.unpack_from("H", both, at + 16)[0]].decode("utf-8", "replace")
                           for at in (0, FAT_DIRENT_BYTES))
            if short == "":
                return found
            found[long or short] = short
    finally:
        os.close(descriptor)


def file_attributes(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return struct.unpack("I", fcntl.ioctl(descriptor, FAT_IOCTL_GET_ATTRIBUTES, bytes(4)))[0]
    finally:
        os.close(descriptor)


def digest(path):
    total = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(1 << 17):
            total.update(piece)
    return total.hexdigest()


def describe(path, alias):
    status = os.stat(path)
    entry = {"kind": "directory" if stat.S_ISDIR(status.st_mode) else "file", "mode": oct(status.st_mode & 0o7777),
             "size": status.st_size, "blocks": status.st_blocks, "nlink": status.st_nlink, "owner": [status.st_uid, status.st_gid],
             "mtime": status.st_mtime_ns, "ctime": status.st_ctime_ns, "atime": status.st_atime_ns,
             "alias": alias, "attributes": file_attributes(path)}
    if entry["kind"] == "file":
        entry["sha256"] = digest(path)
    return entry


def listing(root):
    """Everything that can be asked about every file: path -> description."""
    found = {".": describe(root, "")}
    for directory, names, files in os.walk(root):
        short = aliases(directory)
        for name in sorted(names + files):
            path = os.path.join(directory, name)
            found[os.path.relpath(path, root)] = describe(path, short.get(name, "not listed"))
    return found


def space(root):
    answer = os.statvfs(root)
    return {"block": answer.f_bsize, "blocks": answer.f_blocks, "free": answer.f_bfree, "name_max": answer.f_namemax}


def outcome(call):
    """What a call gave: its value, or the name of its error."""
    try:
        value = call()
    except OSError as error:
        return errno.errorcode[error.errno]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def probes(root):
    """vfat's rules about names, modes, times and errors, one by one: what was tried -> what came of it."""
    base = os.path.join(root, "probes")
    os.mkdir(base)
    at = lambda name: os.path.join(base, name)
    found = {}

    def created(name, flags=os.O_CREAT | os.O_EXCL | os.O_WRONLY):
        os.close(os.open(os.path.join(os.fsencode(base), name), flags))
        return sorted(os.listdir(base))

    names = [b"plain", b"PLAIN", b"dot.", b"dots...", b"...", b"....x", b"space ", b" space", b"a b", b"tab\there", b"del\x7f",
             b"bad\xff", b"bad\xc3", b"\xed\xa0\x80", b"x" * 255, b"x" * 256, "名".encode() * 255, "名".encode() * 256,
             "😀".encode() * 127, "😀".encode() * 128, b"nul", b"com1.txt", b"clock$", b"ten.chars!", b"new\nline", b"ABCDEFGH.IJK",
             b"abcdefgh.ijk.", b"~1", b"PLAIN~1", b"x.", b"q. .", b"e.e e", b"\xc3\x89T\xc3\x89", b"\xc3\xa9t\xc3\xa9"]
    names += [b"with" + bytes([character]) + b"in" for character in b'*?<>|":\\+,;=[]%\x01\x1f']
    for name in names:
        shown = name.decode("utf-8", "surrogateescape")
        found[f"create {ascii(shown)}"] = outcome(lambda: created(name))
        for entry in os.listdir(base):
            os.unlink(at(entry))

    def file(name, length=10):
        write_file(at(name), content(name, length))
        return at(name)

    def mode_after(mode):
        os.chmod(at("File.Txt"), mode)
        return oct(os.stat(at("File.Txt")).st_mode)

    def times_after(seconds):
        os.utime(at("File.Txt"), (seconds, seconds))
        status = os.stat(at("File.Txt"))
        return [status.st_mtime_ns, status.st_atime_ns]

    file("File.Txt")
    file("a long file name.text")
    os.mkdir(at("full"))
    file("full/inside")
    os.mkdir(at("empty"))
    steps = {
        "stat other case": lambda: os.stat(at("fILE.tXT")).st_size,
        "stat trailing dots": lambda: os.stat(at("File.Txt..")).st_size,
        "stat trailing space": lambda: os.stat(at("File.Txt ")).st_size,
        "stat alias": lambda: os.stat(at("ALONGF~1.TEX")).st_size,
        "stat alias in lower case": lambda: os.stat(at("alongf~1.tex")).st_size,
        "stat missing": lambda: os.stat(at("missing")).st_size,
        "stat below file": lambda: os.stat(at("File.Txt/x")).st_size,
        "exclusive create in other case": lambda: created(b"FILE.TXT"),
        "exclusive create of alias": lambda: created(b"ALONGF~1.TEX"),
        "create in other case": lambda: created(b"FILE.TXT", os.O_CREAT | os.O_WRONLY),
        "mkdir in other case": lambda: os.mkdir(at("EMPTY")),
        "symlink": lambda: os.symlink("x", at("link")),
        "link": lambda: os.link(at("File.Txt"), at("link")),
        "mkfifo": lambda: os.mkfifo(at("pipe")),
        "mknod": lambda: os.mknod(at("device"), 0o600 | stat.S_IFCHR, os.makedev(1, 3)),
        "mknod regular": lambda: os.mknod(at("regular"), 0o600 | stat.S_IFREG),
        "rmdir full": lambda: os.rmdir(at("full")),
        "rmdir file": lambda: os.rmdir(at("File.Txt")),
        "unlink directory": lambda: os.unlink(at("empty")),
        "rename into itself": lambda: os.rename(at("full"), at("full/x")),
        "rename over full": lambda: os.rename(at("empty"), at("full")),
        "rename file over directory": lambda: os.rename(at("File.Txt"), at("empty")),
        "rename directory over file": lambda: os.rename(at("empty"), at("File.Txt")),
        "rename missing": lambda: os.rename(at("missing"), at("x")),
        "rename to bad name": lambda: os.rename(at("File.Txt"), at("a?b")),
        "rename noreplace": lambda: rename2(at("File.Txt"), at("empty"), RENAME_NOREPLACE),
        "rename whiteout": lambda: rename2(at("File.Txt"), at("y"), 4),
        "exchange with missing": lambda: rename2(at("File.Txt"), at("missing"), RENAME_EXCHANGE),
        "exchange file and directory": lambda: rename2(at("File.Txt"), at("empty"), RENAME_EXCHANGE),
        "exchange back": lambda: rename2(at("File.Txt"), at("empty"), RENAME_EXCHANGE),
        "truncate to 4 GiB": lambda: os.truncate(at("File.Txt"), 1 << 32),
        "truncate directory": lambda: os.truncate(at("empty"), 0),
        "chown": lambda: os.chown(at("File.Txt"), 12, 34),
        "chown to same": lambda: os.chown(at("File.Txt"), 0, 0),
        "setxattr": lambda: os.setxattr(at("File.Txt"), "user.x", b"y"),
        "tmpfile": lambda: os.close(os.open(base, os.O_TMPFILE | os.O_RDWR)),
        "statfs name_max": lambda: os.statvfs(base).f_namemax,
        "nlink": lambda: [os.stat(at(name)).st_nlink for name in ("", "File.Txt", "full", "empty")],
        "size of directories": lambda: [os.stat(at(name)).st_size for name in ("", "full", "empty")],
    }
    for mode in (0o555, 0o755, 0o777, 0o444, 0o600, 0o644, 0o222, 0, 0o4755, 0o555, 0o666):
        steps[f"chmod {mode:o}, step {len(steps)}"] = lambda mode=mode: mode_after(mode)
    steps["write to read-only"] = lambda: os.close(os.open(at("File.Txt"), os.O_WRONLY))
    for seconds in (0, 315532800, 315532801, 1000000001, 1700000000, 4354819199, 4354819200, 1 << 33, -5):
        steps[f"utime {seconds}"] = lambda seconds=seconds: times_after(seconds)
    steps["unlink read-only"] = lambda: os.unlink(at("File.Txt"))
    for what, step in steps.items():
        found[what] = outcome(step)
    return found
