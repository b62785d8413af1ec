#!/usr/bin/env python3
"""Goal: whatever is wrong with the command line or the device is told in one sentence, with the exit code of mount(8).
Method: run wbfat on each, in the foreground and in the background; expect code, words, one sentence, no mount left.
"""

import os
import pathlib

import wbfat_mount
from wbfat_mount import program

# Options and what the sentence must name.
BAD_OPTIONS = [
    ("nonsense", ["nonsense", "wbfat -h"]), ("uid=abc", ["uid", "abc"]), ("gid=-1", ["gid", "-1"]), ("uid", ["uid=N"]),
    ("cache_size=12", ["cache_size", "12", "1M"]), ("cache_size=lots", ["lots"]), ("cache_size", ["cache_size=SIZE"]),
    ("cache_size=99999999999G", ["cache_size"]), ("ro=1", ["ro", "takes no value"]), ("errors=retry", ["errors", "remount-ro"]),
    ("tz=CET", ["tz", "UTC"]), ("time_offset=99999", ["1440"]), ("time_offset=", ["time_offset"]),
    ("fmask=999", ["fmask", "octal"]), ("umask=77777", ["umask", "octal"]), ("allow_utime=070", ["allow_utime", "022"]),
    ("dirty_ratio=0", ["dirty_ratio", "1 to 100"]), ("dirty_ratio=101", ["dirty_ratio"]),
    ("dirty_background_ratio=0", ["dirty_background_ratio"]), ("commit=x", ["commit", "3600"]),
    ("threads=0", ["threads", "256"]), ("cache=some", ["cache", "writeback"]), ("shortname=long", ["shortname", "mixed"]),
    ("check=maybe", ["check", "strict"]), ("iocharset=latin1", ["iocharset", "utf8"]), ("bug=ignore", ["bug", "panic"]),
    ("utf8=perhaps", ["utf8", "yes"]), ("offset=1T", ["offset"]), ("remount", ["remount", "unmount"]),
    ("uid=1,gid=2,typo,ro", ["typo"]),
]
BAD_COMMANDS = [
    ([], ["DEVICE MOUNTPOINT"]), (["image"], ["DEVICE MOUNTPOINT"]), (["image", "mnt", "third"], ["third"]),
    (["--bad", "image", "mnt"], ["--bad"]), (["image", "mnt", "-o"], ["-o"]),
]


class BadInputTest(wbfat_mount.MountCase):
    def setUp(self):
        super().setUp()
        self.mountpoint = self.make_mountpoint()

    def file(self, content, name="device"):
        path = self.directory / name
        path.write_bytes(content)
        return path

    def refused(self, words, device, *arguments, mountpoint=None, code=32, **options):
        for mode in ((), ("-f",)):
            self.expect_refused(code, words, device, mountpoint or self.mountpoint, *mode, *arguments, **options)

    # What was typed: 1.

    def test_bad_options(self):
        image = self.make_image(16)
        for options, words in BAD_OPTIONS:
            with self.subTest(options=options):
                self.refused(words, image, "-o", options, code=1)

    def test_bad_command_lines(self):
        for arguments, words in BAD_COMMANDS:
            with self.subTest(arguments=arguments):
                self.expect_refused(1, words, *arguments)

    # What was found: 32.

    def test_devices_that_are_none(self):
        self.refused(["missing", "No such file"], self.directory / "missing")
        self.refused(["Not a directory"], self.file(b"x", "file") / "below")
        self.refused(["is a directory"], self.directory)
        self.refused(["is a character device"], "/dev/null")
        os.mkfifo(self.directory / "fifo")
        self.refused(["fifo", "neither an image file nor a block device"], self.directory / "fifo")
        os.symlink("loop", self.directory / "loop")
        self.refused(["symbolic links"], self.directory / "loop")

    def test_files_that_are_no_volume(self):
        self.refused(["is empty"], self.file(b""))
        self.refused(["5 bytes"], self.file(b"12345"))
        self.refused(["device"], self.file(bytes(1 << 20)))
        self.refused(["device"], self.file(wbfat_mount.pattern(1 << 20)))
        self.refused(["device"], self.file(b"#!/bin/sh\n" * 1000))

    def test_truncated_volume(self):
        image = self.make_image(16)
        os.truncate(image, 4096)
        self.refused(["4096 bytes"], image)

    def test_volume_cut_in_its_data_is_mounted_read_only(self):
        image = self.make_image(16)
        mount = self.mount(image)
        (mount / "first").write_bytes(wbfat_mount.pattern(10_000))
        (mount / "last").write_bytes(wbfat_mount.pattern(8_000_000))
        self.unmount(mount)
        os.truncate(image, 4 << 20)
        mount = self.mount(image)
        self.assertIn("read-only", mount.log())
        self.assertEqual((mount / "first").read_bytes(), wbfat_mount.pattern(10_000))
        with open(mount / "last", "rb", buffering=0) as last:
            self.assertEqual(last.read(1_000_000), wbfat_mount.pattern(1_000_000))
            self.assertEqual(wbfat_mount.errno_name(os.pread, last.fileno(), 4096, 5_000_000), "EIO")
        self.assertEqual(wbfat_mount.errno_name((mount / "last").read_bytes), "EIO", "not a shorter file")
        self.assertEqual(os.stat(mount / "last").st_size, 8_000_000)
        self.assertEqual(wbfat_mount.errno_name(os.mkdir, mount / "new"), "EROFS")
        self.assertEqual(mount.unmount(), 0, mount.log())

    def test_offsets_that_cannot_be(self):
        image = self.make_image(16)
        self.refused(["99999999999"], image, "-o", "offset=99999999999")
        self.refused(["volume.img"], image, "-o", "offset=1M")

    def test_codepage_that_is_not_known(self):
        self.refused(["9999"], self.make_image(16), "-o", "codepage=9999")

    def test_a_cache_that_does_not_fit_into_memory(self):
        self.refused(["memory", "cache_size"], self.make_image(16), "-o", "cache_size=900000G", code=2)

    def test_mount_points_that_are_none(self):
        image = self.make_image(16)
        self.refused(["nowhere", "No such file"], image, mountpoint=self.directory / "nowhere")
        self.refused(["not a directory"], image, mountpoint=self.file(b"x", "file"))
        self.fsck(image)

    def test_an_option_that_libfuse_refuses(self):
        """Not ours to check, so the sentence points at libfuse's."""
        wbfat_mount.need_root()
        become = [program("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups"]
        wbfat = self.directory / "wbfat"
        wbfat.write_bytes(pathlib.Path(wbfat_mount.WBFAT).read_bytes())
        wbfat.chmod(0o755)
        self.directory.chmod(0o755)
        image = self.make_image(16)
        image.chmod(0o666)
        result = wbfat_mount.run(*become, wbfat, image, self.mountpoint, "-f")
        self.assertEqual(result.returncode, 32, result.stderr)
        self.assertIn("wbfat: cannot mount on", result.stderr)

    def test_without_dev_fuse(self):
        wbfat_mount.need_root()
        image = self.make_image(16)
        script = 'mount -t tmpfs none /dev && exec "$@"'
        self.expect_refused(32, ["/dev/fuse"], image, self.mountpoint, "-f",
                            wrap=(program("unshare"), "-m", "sh", "-c", script, "sh"))

    def test_a_device_that_may_not_be_read(self):
        wbfat_mount.need_root()
        become = [program("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups"]
        image = self.make_image(16)
        image.chmod(0o600)
        self.directory.chmod(0o755)
        wbfat = self.directory / "wbfat"
        wbfat.write_bytes(pathlib.Path(wbfat_mount.WBFAT).read_bytes())
        wbfat.chmod(0o755)
        result = wbfat_mount.run(*become, wbfat, image, self.mountpoint, "-f")
        self.assertEqual((result.returncode, result.stderr),
                         (32, f"wbfat: Cannot open {image}: Permission denied.\n"))


if __name__ == "__main__":
    wbfat_mount.main()
