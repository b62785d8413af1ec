#!/usr/bin/env python3
"""Goal: mkfs.wbfat makes the very volume that mkfs.fat 4.2 makes, and refuses what it refuses.
Method: both format equal sparse images over a grid of sizes and options; every byte of the metadata is compared but for
OEM name, boot code and boot message, and fsck.fat must have nothing to say."""

import errno
import itertools
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

MKFS_WBFAT = os.environ.get("MKFS_WBFAT", "mkfs.wbfat")
MKFS_FAT = shutil.which("mkfs.fat", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
FSCK_FAT = shutil.which("fsck.fat", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

# FATs beyond this are cut off by a file size limit: the boot sector tells enough, and terabytes stay quick.
LIMIT_BYTES = 16 * MIB
# Volumes up to this size are compared byte for byte and checked by fsck.fat.
WHOLE_BYTES = 64 * MIB


def limit_file_size():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))


def masked_boot_sector(sector, atari):
    """The boot sector without what each mkfs may choose: OEM name, boot code, message."""
    sector = bytearray(sector)
    if atari:
        sector[2:8] = bytes(6)
        return bytes(sector)
    sector[3:11] = bytes(8)
    fat32 = sector[22:24] == b"\0\0"
    code = 90 if fat32 else 62
    sector[code:0x1B8] = bytes(0x1B8 - code)
    if sector[0x1BE] != 0x80:  # no partition table: the message may run on
        sector[0x1B8:510] = bytes(510 - 0x1B8)
    return bytes(sector)


def next_data(file, at):
    """Where the file has data, at `at` or later; beyond every image where there is none."""
    try:
        return os.lseek(file, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return 4 * TIB


class Volume:
    """A formatted image: its boot sector, and where its metadata ends."""

    def __init__(self, path, offset_bytes):
        self.path = path
        with open(path, "rb") as image:
            image.seek(offset_bytes)
            self.boot = image.read(512)
        (self.sector_bytes, self.sectors_per_cluster, self.reserved, self.nr_fats, self.root_entries, total_16, _,
         fat_16, _, _, _, total_32) = struct.unpack_from("<HBHBHHBHHHII", self.boot, 11)
        self.fat32 = fat_16 == 0
        self.fat_sectors = struct.unpack_from("<I", self.boot, 36)[0] if self.fat32 else fat_16
        self.total = total_16 or total_32
        self.backup = struct.unpack_from("<H", self.boot, 50)[0] if self.fat32 else 0
        root = (self.root_entries * 32 + self.sector_bytes - 1) // self.sector_bytes if self.sector_bytes else 0
        self.metadata_sectors = self.reserved + self.nr_fats * self.fat_sectors + root
        if self.fat32:
            self.metadata_sectors += self.sectors_per_cluster

    def describe(self):
        return (f"bytes/sector {self.sector_bytes} sectors/cluster {self.sectors_per_cluster} reserved {self.reserved} "
                f"FATs {self.nr_fats} x {self.fat_sectors} root {self.root_entries} total {self.total} "
                f"backup {self.backup} fat32 {self.fat32} bytes {self.boot[:90].hex()}")


class GridTest(unittest.TestCase):
    def setUp(self):
        self.fsck_cannot = []
        self.directory = tempfile.TemporaryDirectory(prefix="wbfat-mkfs-")
        self.theirs = os.path.join(self.directory.name, "theirs.img")
        self.ours = os.path.join(self.directory.name, "ours.img")

    def tearDown(self):
        self.directory.cleanup()

    def format(self, tool, path, size_bytes, options, dirty):
        if os.path.exists(path):
            os.unlink(path)
        with open(path, "wb") as image:
            if dirty:
                image.write(b"\xA5" * size_bytes)
            image.truncate(size_bytes)
        small = size_bytes <= WHOLE_BYTES
        return subprocess.run([tool, "--invariant", *options, path], capture_output=True, text=True, check=False,
                              preexec_fn=None if small else limit_file_size)

    def compare(self, size_bytes, options, fsck=True, dirty=False):
        options = [str(option) for option in options]
        what = f"{size_bytes} bytes ({size_bytes / MIB:g} MiB) {' '.join(options)}"
        theirs = self.format(MKFS_FAT, self.theirs, size_bytes, options, dirty)
        ours = self.format(MKFS_WBFAT, self.ours, size_bytes, options, dirty)
        cut_off = "failed whilst writing" in theirs.stderr
        if theirs.returncode != 0 and not cut_off:
            self.assertEqual(ours.returncode, 1, f"{what}: mkfs.fat refuses ({theirs.stderr.strip()[:200]}), we do not")
            self.assertEqual(ours.stderr.count("\n"), 1 + ours.stderr.count("warning:"), f"{what}: {ours.stderr}")
            return False
        if "root entries after alignment" in ours.stderr:
            # mkfs.fat lets BPB_RootEntCnt overflow its 16 bits: an unusable volume.
            self.assertGreater(max(int(r) for f, r in zip(["-r", *options], [512, *options[1:], 0]) if f in ("-r", "-s"))
                               * 1024, 65535, what)
            return False
        if not cut_off:
            self.assertEqual(ours.returncode, 0, f"{what}: mkfs.fat obeys, we say {ours.stderr}")
        elif ours.returncode != 0:
            self.assertIn("cannot be written", ours.stderr, what)
            # The boot sector comes last with us: format once more, without the limit, where that is cheap.
            ours = subprocess.run([MKFS_WBFAT, "--invariant", *options, self.ours], capture_output=True, text=True,
                                  check=False)
            self.assertEqual(ours.returncode, 0, f"{what}: {ours.stderr}")
        self.compare_images(what, size_bytes, options, free_count="-l" not in options)
        if fsck and size_bytes <= WHOLE_BYTES and "-A" not in options and "--offset" not in options:
            self.check_with_fsck(what)
        return True

    def compare_images(self, what, size_bytes, options, free_count=True):
        atari = "-A" in options
        offset_bytes = 0
        if "--offset" in options:
            sector = int(options[options.index("-S") + 1]) if "-S" in options else 512
            offset_bytes = int(options[options.index("--offset") + 1]) * sector
        theirs = Volume(self.theirs, offset_bytes)
        ours = Volume(self.ours, offset_bytes)
        self.assertEqual(masked_boot_sector(ours.boot, atari), masked_boot_sector(theirs.boot, atari),
                         f"{what}: boot sectors differ\nours   {ours.describe()}\ntheirs {theirs.describe()}")
        self.assertEqual(os.path.getsize(self.ours), os.path.getsize(self.theirs), what)
        if size_bytes > WHOLE_BYTES:
            return
        masked = {offset_bytes + sector * theirs.sector_bytes: lambda sector: masked_boot_sector(sector, atari)
                  for sector in (0, theirs.backup)}
        if theirs.fat32 and not free_count:  # mkfs.fat counts bad clusters as free; fsck.fat does not
            for sector in (1, theirs.backup + 1):
                masked[offset_bytes + sector * theirs.sector_bytes] = lambda info: info[:488] + bytes(4) + info[492:]
        with open(self.ours, "rb") as ours_file, open(self.theirs, "rb") as theirs_file:
            for at, mask in masked.items():
                pair = (mask(os.pread(file.fileno(), 512, at)) for file in (ours_file, theirs_file))
                self.assert_equal_bytes(what, at, *pair)
            begin = 0
            for at in [*sorted(masked), os.path.getsize(self.ours)]:
                self.compare_between(what, ours_file.fileno(), theirs_file.fileno(), begin, at)
                begin = at + 512

    def compare_between(self, what, ours, theirs, begin, end):
        """[begin, end) of both; where both files have a hole, both read as zeros."""
        while (begin := min(next_data(file, begin) for file in (ours, theirs))) < end:
            length = min(MIB, end - begin)
            self.assert_equal_bytes(what, begin, *(os.pread(file, length, begin) for file in (ours, theirs)))
            begin += length

    def assert_equal_bytes(self, what, at, ours, theirs):
        if ours != theirs:
            first = next(i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b)
            self.fail(f"{what}: byte {at + first:#x} is {ours[first]:#x}, mkfs.fat has {theirs[first]:#x}")

    def check_with_fsck(self, what):
        ours = subprocess.run([FSCK_FAT, "-n", self.ours], capture_output=True, text=True, check=False)
        if ours.returncode != 0:
            # Sizes that fsck.fat 4.2 itself cannot do: it then refuses mkfs.fat's volume with the same words.
            theirs = subprocess.run([FSCK_FAT, "-n", self.theirs], capture_output=True, text=True, check=False)
            self.assertEqual((ours.returncode, ours.stdout.replace(self.ours, ""), ours.stderr),
                             (theirs.returncode, theirs.stdout.replace(self.theirs, ""), theirs.stderr), what)
            self.fsck_cannot.append(what)

    def run_grid(self, sizes, *axes, dirty=False):
        made = refused = 0
        for size_bytes, *options in itertools.product(sizes, *axes):
            flat = [word for option in options for word in option]
            if self.compare(size_bytes, flat, dirty=dirty):
                made += 1
            else:
                refused += 1
        print(f"{self.id().split('.')[-1]}: {made} volumes equal, {refused} refused by both, "
              f"{len(self.fsck_cannot)} beyond fsck.fat")
        for what in self.fsck_cannot[:3]:
            print("   such as", what)
        return made, refused

    SMALL = [n * KIB for n in (1, 32, 50, 64, 100, 160, 320, 360, 512, 640, 720, 1000, 1200, 1440, 2000, 2047, 2880, 3000,
                               4096, 4097, 4200, 5000, 8000, 8192, 8200, 8215, 12000, 16384)]
    MEDIUM = [n * KIB for n in (16000, 20000, 32000, 32768, 33000, 40001, 65535)]
    LARGE = [128 * MIB, 129 * MIB, 256 * MIB, 257 * MIB, 260 * MIB, 260 * MIB + KIB, 300 * MIB, 504 * MIB, 512 * MIB - KIB,
             512 * MIB, 1008 * MIB, 1 * GIB, 2 * GIB - KIB, 2 * GIB, 2016 * MIB, 4 * GIB - KIB, 4 * GIB, 4032 * MIB]
    HUGE = [8 * GIB, 8 * GIB + 64 * KIB, 16 * GIB, 16 * GIB + 64 * KIB, 32 * GIB, 32 * GIB + 64 * KIB, 100 * GIB, TIB,
            2 * TIB - 512 * KIB, 2 * TIB, 3 * TIB]

    TYPES = [[], ["-F", 12], ["-F", 16], ["-F", 32]]

    def test_default_choices_by_size(self):
        sizes = self.SMALL + self.MEDIUM + self.LARGE + self.HUGE
        made, refused = self.run_grid(sizes, self.TYPES, [[], ["-a"]])
        self.assertGreater(made, 100)
        self.assertGreater(refused, 20)

    def test_sector_and_cluster_sizes_small(self):
        made, _ = self.run_grid(self.SMALL[2::3] + self.MEDIUM[1::2], self.TYPES, [["-S", s] for s in (512, 1024, 4096)],
                                [[]] + [["-s", s] for s in (1, 2, 8, 64, 128)])
        self.assertGreater(made, 150)

    def test_sector_and_cluster_sizes_large(self):
        made, _ = self.run_grid(self.LARGE[::3] + self.HUGE[::4], self.TYPES, [["-S", s] for s in (512, 2048, 4096, 32768)],
                                [[]] + [["-s", s] for s in (1, 16, 128)])
        self.assertGreater(made, 100)

    def test_fats_reserved_and_root(self):
        made, _ = self.run_grid([360 * KIB, 3000 * KIB, 20000 * KIB, 600 * MIB], [[], ["-F", 32]],
                                [["-f", f] for f in (1, 2, 3, 4)], [[]] + [["-R", r] for r in (1, 3, 6, 7, 33)],
                                [[], ["-a"]])
        self.assertGreater(made, 100)
        self.run_grid([360 * KIB, 3000 * KIB, 20000 * KIB], [["-S", 512], ["-S", 2048]], [[], ["-a"]],
                      [["-r", r] for r in (15, 16, 17, 112, 511, 513, 4096, 32767, 32768, 32769, 65535)])

    def test_backup_boot_sector(self):
        self.run_grid([64 * MIB, 600 * MIB], [["-F", 32]], [["-b", b] for b in (0, 1, 2, 5, 30, 31, 32, 99)],
                      [[], ["-R", 2], ["-a", "-R", 3]])

    def test_media_drive_geometry_hidden_and_id(self):
        self.run_grid([1440 * KIB, 20000 * KIB], [[], ["-F", 32]],
                      [["-M", "0xf0"], ["-M", "0xf8"], ["-M", "0xfd"], ["-M", "0xf1"], ["-D", "0"], ["-D", "0x81"],
                       ["-g", "255/63"], ["-g", "1/1"], ["-g", "16/7"], ["-h", "63"], ["-h", "0x800"],
                       ["-i", "DEADBEEF"], ["-i", "0x12"], ["-i", "123456789"], ["-n", "LABEL"], ["-n", "ABCDEFGHIJK"],
                       ["-n", "NO NAME"], ["-n", ""], ["-n", "A B"], ["-n", " A"], ["-n", "A/B"], ["-n", "lower"],
                       ["-M", "0xf0", "-D", "0x80"]])

    def test_partition_table_in_the_boot_sector(self):
        self.run_grid([1440 * KIB, 2000 * KIB, 16384 * KIB, 40000 * KIB, 64 * MIB, 600 * MIB, 9 * GIB],
                      [["--mbr"], ["--mbr=yes"], ["--mbr=no"], ["--mbr=a"]],
                      [[], ["-h", 5], ["-M", "0xf0"], ["-D", 1], ["-S", 2048]])

    def test_offset(self):
        self.run_grid([1440 * KIB, 20000 * KIB, 520 * MIB, 512 * MIB + KIB], [[], ["-S", 1024], ["-S", 4096]],
                      [["--offset", o] for o in (1, 2, 3, 8, 63, 2048)])
        self.run_grid([1440 * KIB, 20000 * KIB], [[], ["-S", 1024]], [["--offset", o] for o in (3000, 40000, 10 ** 9)])

    def test_blocks(self):
        for size_kib, blocks in ((1440, 1439), (1441, 1440), (2000, 1440), (2000, 2000), (20000, 8192), (600000, 524288),
                                 (600000, 500000), (20000, 10)):
            # BLOCKS follows DEVICE: the options before it, by way of a wrapper of format().
            with self.subTest(size_kib=size_kib, blocks=blocks):
                results = []
                for tool, path in ((MKFS_FAT, self.theirs), (MKFS_WBFAT, self.ours)):
                    with open(path, "wb") as image:
                        image.truncate(size_kib * KIB)
                    results.append(subprocess.run([tool, "--invariant", path, str(blocks)], capture_output=True,
                                                  text=True, check=False).returncode)
                self.assertEqual(results[0], results[1])
                if results[0] == 0:
                    self.compare_images(f"{size_kib} KiB, BLOCKS {blocks}", size_kib * KIB, [])

    def test_create(self):
        for blocks, options in ((1440, []), (20000, ["-F", "16"]), (600000, []), (1440, ["--offset", "8"]), (10, [])):
            with self.subTest(blocks=blocks, options=options):
                codes = []
                for tool, path in ((MKFS_FAT, self.theirs), (MKFS_WBFAT, self.ours)):
                    if os.path.exists(path):
                        os.unlink(path)
                    codes.append(subprocess.run([tool, "--invariant", *options, "-C", path, str(blocks)],
                                                capture_output=True, text=True, check=False).returncode)
                self.assertEqual(codes[0], codes[1])
                if codes[0] == 0:
                    self.compare_images(f"-C {blocks} {options}", blocks * KIB, options)

    def test_atari(self):
        made, _ = self.run_grid([64 * KIB, 360 * KIB, 720 * KIB, 1200 * KIB, 1440 * KIB, 2000 * KIB, 2880 * KIB, 5000 * KIB,
                                 8192 * KIB, 16000 * KIB, 16384 * KIB, 20000 * KIB, 32000 * KIB, 32768 * KIB, 40000 * KIB,
                                 300 * MIB, 512 * MIB, 1 * GIB],
                                [["-A"]], self.TYPES, [[], ["-s", 1], ["-S", 1024], ["-n", "ATARI"], ["-h", 5], ["-a"]])
        self.assertGreater(made, 50)

    def test_old_contents_do_not_matter(self):
        self.run_grid([1440 * KIB, 5000 * KIB, 20000 * KIB], [[], ["-F", 32], ["-n", "OLD"], ["-S", 1024]], dirty=True)

    def test_bad_block_list(self):
        bad_list = os.path.join(self.directory.name, "list")
        for size_kib, options, text in (
                (4096, [], "100\n200\n\n300\n"), (4096, [], "1\n"), (4096, [], "100000\n"), (4096, [], "x\n"),
                (4096, [], "100 200\n"), (4096, [], "-5\n"), (16384, [], "3000\n3001\n3002\n9000\n"),
                (40000, ["-F", "32"], "5000\n5001\n20000\n"), (40000, ["-F", "32", "-S", "4096"], "1500\n"),
                (40000, ["-F", "32", "-S", "1024"], "5000\n"), (40000, ["-F", "32"], "10\n")):
            with self.subTest(options=options, text=text):
                with open(bad_list, "w", encoding="ascii") as file:
                    file.write(text)
                self.compare(size_kib * KIB, [*options, "-l", bad_list])

    def test_option_values_that_are_refused(self):
        _, refused = self.run_grid([20000 * KIB],
                                   [["-F", 13], ["-F", "x"], ["-S", 256], ["-S", 511], ["-S", 65536], ["-S", ""],
                                    ["-s", 3], ["-s", 0], ["-s", 256], ["-f", 0], ["-f", 5], ["-R", 0], ["-R", 65536],
                                    ["-R", 65535], ["-r", 0], ["-r", 65536], ["-M", "0x10"], ["-M", "f8"], ["-M", 300],
                                    ["-D", 256], ["-g", "0/5"], ["-g", "5"], ["-g", "5/0"], ["-g", "70000/1"],
                                    ["-h", -1], ["-h", "x"], ["-h", 4294967296], ["-i", "xyz"], ["-i", "12-34"],
                                    ["-q"], ["--mbr=q"], ["--offset", "x"], ["--variant", "foo"], ["--codepage", "x"],
                                    ["--codepage", "9999", "-n", "A"], ["-n", "123456789012"], ["-l", "/nonexistent"]])
        self.assertEqual(refused, 37)

    def test_random_combinations(self):
        seed = int(os.environ.get("WBFAT_SEED", "20261123"))
        rng = random.Random(seed)
        for _ in range(int(os.environ.get("WBFAT_MKFS_RANDOM", "150"))):
            size_bytes = int(2 ** rng.uniform(15, 31)) // 512 * 512
            options = []
            for flag, values, chance in (("-F", (12, 16, 32), 0.5), ("-S", (512, 1024, 2048, 4096, 8192), 0.5),
                                         ("-s", (1, 2, 4, 8, 16, 32, 64, 128), 0.4), ("-f", (1, 2, 3, 4), 0.3),
                                         ("-R", (1, 2, 5, 8, 32, 100, 1000), 0.3), ("-r", (16, 100, 512, 1000), 0.3),
                                         ("-g", ("16/63", "2/9", "255/63", "3/5"), 0.2)):
                if rng.random() < chance:
                    options += [flag, rng.choice(values)]
            if rng.random() < 0.2:
                options.append("-a")
            with self.subTest(seed=seed, size_bytes=size_bytes, options=options):
                self.compare(size_bytes, options)


def main():
    if MKFS_FAT is None or FSCK_FAT is None:
        print("mkfs.fat or fsck.fat (dosfstools) is not installed: nothing to compare with")
        sys.exit(1 if os.environ.get("CI") == "true" else 77)
    os.environ["LC_ALL"] = "C.UTF-8"
    unittest.main(verbosity=2)


if __name__ == "__main__":
    main()
