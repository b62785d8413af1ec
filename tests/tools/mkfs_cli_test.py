#!/usr/bin/env python3
"""Goal: mkfs.wbfat behaves as a program should: flags, refusals in one sentence, reproducible bytes, nothing left behind.
Method: run it on images in a temporary directory (and on loop devices, where there is root) and read what it wrote."""

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import unittest

MKFS = os.environ.get("MKFS_WBFAT", "mkfs.wbfat")
FSCK = shutil.which("fsck.fat", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
LOSETUP = shutil.which("losetup", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
ADDPART = shutil.which("addpart") or "addpart"
DELPART = shutil.which("delpart") or "delpart"
KIB = 1024
F_OFD_SETLK = 37


def has_loop_devices():
    if os.geteuid() != 0 or LOSETUP is None:
        return False
    with tempfile.NamedTemporaryFile() as image:
        image.truncate(65536)
        result = subprocess.run([LOSETUP, "-f", "--show", image.name], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            return False
        subprocess.run([LOSETUP, "-d", result.stdout.strip()], check=True)
        return True


class MkfsTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory(prefix="wbfat-mkfs-")
        self.image = os.path.join(self.directory.name, "a.img")
        self.loops = []
        self.partitioned = []

    def tearDown(self):
        for loop in self.partitioned:  # a partition would outlive its loop device
            subprocess.run([DELPART, loop, "1"], check=False)
        for loop in self.loops:
            subprocess.run([LOSETUP, "-d", loop], check=False)
        self.directory.cleanup()

    def blank(self, size_kib, name="a.img"):
        path = os.path.join(self.directory.name, name)
        with open(path, "wb") as file:
            file.truncate(size_kib * KIB)
        return path

    def loop(self, path, *options):
        result = subprocess.run([LOSETUP, "-f", *options, "--show", path], capture_output=True, text=True, check=True)
        self.loops.append(result.stdout.strip())
        return self.loops[-1]

    def run_mkfs(self, *arguments, env=None, text_input=None):
        return subprocess.run([MKFS, *map(str, arguments)], capture_output=True, text=True, check=False, input=text_input,
                              env={**os.environ, **(env or {})})

    def made(self, *arguments, env=None, text_input=None):
        result = self.run_mkfs(*arguments, env=env, text_input=text_input)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def refused(self, *arguments, because):
        result = self.run_mkfs(*arguments)
        self.assertEqual(result.returncode, 1, result.stderr)
        lines = [line for line in result.stderr.splitlines() if "warning:" not in line]
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertTrue(lines[0].startswith("mkfs.wbfat: "), lines[0])
        self.assertIn(because, lines[0])

    def content(self, path=None):
        with open(path or self.image, "rb") as file:
            return file.read()

    def assert_clean(self, path=None):
        if FSCK is not None:
            result = subprocess.run([FSCK, "-n", path or self.image], capture_output=True, text=True, check=False)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_help_goes_to_standard_output(self):
        result = self.made("--help")
        for flag in ("-a", "-A", "-b", "-c", "-C", "-D", "-f", "-F", "-g", "-h", "-i", "-I", "-l", "-m", "-M", "--mbr", "-n",
                     "--codepage", "-r", "-R", "-s", "-S", "-v", "--offset", "--variant", "--help", "--invariant"):
            self.assertRegex(result.stdout, rf"(?m)^\s+{flag}\b")
        self.assertEqual(result.stderr, "")

    def test_invariant_gives_the_same_bytes_every_time(self):
        for options in ([], ["-F", "32"], ["-n", "LABEL"], ["--mbr"]):
            self.blank(34000)
            self.made("--invariant", *options, self.image)
            first = self.content()
            self.blank(34000)
            self.made("--invariant", *options, self.image, env={"TZ": "Asia/Tokyo"})
            self.assertEqual(first, self.content(), options)

    def test_volume_ids_differ_without_invariant(self):
        self.blank(2000)
        ids = set()
        for _ in range(4):
            self.made(self.image)
            ids.add(self.content()[39:43])
        self.assertGreater(len(ids), 1)

    def test_source_date_epoch_is_obeyed_in_utc(self):
        self.blank(1440)
        epoch = {"SOURCE_DATE_EPOCH": "1700000001", "TZ": "America/New_York"}
        self.made("-n", "A", self.image, env=epoch)
        first = self.content()
        self.made("-n", "A", self.image, env={**epoch, "TZ": "Asia/Tokyo"})
        self.assertEqual(first, self.content())
        root = (1 + 2 * 9) * 512
        time, date = struct.unpack_from("<HH", first, root + 22)
        self.assertEqual((time >> 11, time >> 5 & 63, time & 31), (22, 13, 10))
        self.assertEqual(((date >> 9) + 1980, date >> 5 & 15, date & 31), (2023, 11, 14))
        result = self.run_mkfs(self.image, env={"SOURCE_DATE_EPOCH": "soon"})
        self.assertEqual(result.returncode, 1)
        self.assertIn("SOURCE_DATE_EPOCH", result.stderr)

    def test_create_makes_a_sparse_file_of_the_right_size(self):
        self.made("-C", self.image, 2 * 1024 * 1024)
        status = os.stat(self.image)
        self.assertEqual(status.st_size, 2 << 30)
        self.assertLess(status.st_blocks * 512, 1 << 20)
        self.assert_clean()

    def test_create_leaves_nothing_when_refused(self):
        self.refused("-C", self.image, 10, because="too few")
        self.assertFalse(os.path.exists(self.image))
        self.refused("-C", self.image, because="BLOCKS")
        self.assertFalse(os.path.exists(self.image))
        self.blank(1440)
        self.refused("-C", self.image, 1440, because="exists")

    def test_create_removes_the_file_when_it_cannot_be_written(self):
        bad_list = os.path.join(self.directory.name, "list")
        with open(bad_list, "w", encoding="ascii") as file:
            file.write("1\n")
        self.refused("-l", bad_list, "-C", self.image, 1440, because="data area")
        self.assertFalse(os.path.exists(self.image))

    def test_what_is_not_a_volume_is_refused(self):
        self.refused(os.path.join(self.directory.name, "none"), because="No such file")
        self.refused(self.directory.name, because="neither a block device nor a file")
        self.refused("/dev/null", because="neither a block device nor a file")
        self.refused(because="DEVICE")
        self.blank(1440)
        self.refused(self.image, 10, 20, because="20")
        self.refused(self.image, "x", because="BLOCKS")
        self.refused("-m", "/nonexistent", self.image, because="-m")
        self.assertEqual(self.content(), bytes(1440 * KIB), "a refused format changed the image")

    def test_refusals_name_the_option(self):
        self.blank(20000)
        for option, value in (("-F", 13), ("-S", 500), ("-s", 3), ("-f", 9), ("-R", 0), ("-r", 5), ("-M", "0x33"),
                              ("-g", "7"), ("-h", "x"), ("-i", "zz"), ("-D", 999), ("--offset", "x"), ("--variant", "ibm")):
            self.refused(option, value, self.image, because=option)

    def test_an_image_in_use_is_refused(self):
        self.blank(1440)
        with open(self.image, "r+b") as file:
            # struct flock of a 64-bit process: type, whence, start, length, pid.
            fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            self.refused(self.image, because="in use")
        self.made(self.image)

    def test_boot_message(self):
        self.blank(1440)
        message = os.path.join(self.directory.name, "message")
        with open(message, "w", encoding="ascii") as file:
            file.write("one\ntwo\tend")
        self.made("-m", message, self.image)
        self.assertIn(b"one\r\ntwo     end\0", self.content()[:512])
        self.made("-m", "-", self.image, text_input="from a pipe")
        self.assertIn(b"from a pipe\0", self.content()[:512])
        self.made("-m", "-", self.image, text_input="x" * 418)
        self.assertEqual(self.content()[91:512], b"x" * 418 + b"\0\x55\xaa")
        result = self.made("-m", "-", "--mbr", self.image, text_input="x" * 1000)
        self.assertIn("was cut", result.stderr)
        self.assertEqual(self.content()[0x1B7:0x1BF], b"\0" + self.content()[39:43] + b"\0\0\x80")

    def test_labels(self):
        self.blank(1440)
        for codepage, label, wanted in (("850", "ÄÖ", b"\x8e\x99         "), ("866", "Яхта", "Яхта       ".encode("cp866")),
                                        ("932", "日本", "日本       ".encode("cp932"))):
            self.made(f"--codepage={codepage}", "-n", label, self.image)
            self.assertEqual(self.content()[43:54], wanted)
            self.assertEqual(self.content()[19 * 512:19 * 512 + 12], wanted + b"\x08")
        self.made("--codepage=866", "-n", "хлеб", self.image)  # 0xE5 is how a deleted entry starts
        self.assertEqual(self.content()[43], 0xE5)
        self.assertEqual(self.content()[19 * 512], 0x05)
        self.refused("-n", "日本", self.image, because="code page 850")
        self.refused("-n", "twelve chars", self.image, because="11")

    def test_verbose_says_what_was_made(self):
        self.blank(20000)
        result = self.made("-v", "--invariant", self.image)
        self.assertIn("FAT16: 2 FATs of 40 sectors, 9971 clusters of 2048 bytes", result.stdout)
        self.assertIn("1234abcd", result.stdout)

    def test_check_of_a_good_image_finds_nothing(self):
        self.blank(20000)
        result = self.made("-c", self.image)
        self.assertEqual(result.stdout, "")
        self.assert_clean()

    def test_old_data_do_not_shine_through(self):
        with open(self.image, "wb") as file:
            file.write(b"\xE5" * (34000 * KIB))
        self.made("-F", "32", self.image)
        self.assert_clean()

    def test_offset_leaves_what_lies_before(self):
        with open(self.image, "wb") as file:
            file.write(b"\x77" * (4000 * KIB))
        self.made("--offset", 128, self.image)
        data = self.content()
        self.assertEqual(data[:65536], b"\x77" * 65536)
        self.assertEqual(data[65536 + 510:65536 + 512], b"\x55\xaa")

    @unittest.skipUnless(has_loop_devices(), "needs root and loop devices")
    def test_block_devices(self):
        loop = self.loop(self.blank(20000))
        self.made(loop)
        self.assert_clean(loop)
        large_sectors = self.loop(self.blank(20000, "b.img"), "-b", "4096")
        result = self.made("-S", 512, large_sectors)
        self.assertIn("raised to 4096", result.stderr)
        with open(large_sectors, "rb") as device:
            self.assertEqual(struct.unpack_from("<H", device.read(512), 11)[0], 4096)

    @unittest.skipUnless(has_loop_devices(), "needs root and loop devices")
    def test_a_held_device_is_refused(self):
        loop = self.loop(self.blank(20000))
        holder = os.open(loop, os.O_RDWR | os.O_EXCL)
        try:
            self.refused(loop, because="in use")
        finally:
            os.close(holder)
        self.made(loop)

    @unittest.skipUnless(has_loop_devices(), "needs root and loop devices")
    def test_a_disk_with_partitions_is_refused_without_force(self):
        loop = self.loop(self.blank(20000))
        # By hand, so that the kernel need not know partition tables.
        added = subprocess.run([ADDPART, loop, "1", "63", "20000"], capture_output=True, text=True, check=False)
        if added.returncode != 0:
            self.skipTest(f"no partitions on loop devices here: {added.stderr.strip()}")
        self.partitioned.append(loop)
        self.refused(loop, because="partitions")
        self.made("-I", loop)
        partition = loop + "p1"
        if os.path.exists(partition):
            self.made(partition)
            self.assertEqual(struct.unpack_from("<I", self.content(partition), 28)[0], 63)


if __name__ == "__main__":
    os.environ["LC_ALL"] = "C.UTF-8"
    os.environ.pop("SOURCE_DATE_EPOCH", None)
    unittest.main(verbosity=2)
