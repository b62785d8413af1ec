#!/usr/bin/env python3
"""Goal: every way to mount works as mount(8) promises, and every way a mount can end leaves a good volume.
Method: mount images and loop devices with each option, look at the device behind the mount's back (a copy of the image,
read with mtools), end the mount in every way there is, ask fsck.fat -n. Loop devices and fuseblk need root.
"""

import contextlib
import errno
import hashlib
import json
import mmap
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import unittest
import unittest.mock

import wbfat_mount
from wbfat_mount import VFAT_OPTIONS, eventually, need, pattern, program, run

NOBODY = 65534
# What fsck.fat may say after the daemon was killed: the volume is marked, clusters are lost, the free count is old.
AFTER_A_KILL = (r"fsck\.fat \d", r"Dirty bit is set", r"Automatically removing dirty bit", r"Leaving filesystem unchanged",
                r"Reclaimed \d+ unused clusters?", r"Free cluster summary wrong", r"Auto-correcting", r"/.*clusters",
                r"There are differences between boot sector and its backup", r"This is mostly harmless", r"\s*65:0[01]/0[01]",
                r"Not automatically fixing this")


class ModesCase(wbfat_mount.MountCase):
    def fill(self, mount, size=300_000):
        """Files and a directory; returns their contents by path."""
        os.mkdir(mount / "Directory")
        contents = {"first": pattern(size, 1), "Directory/second file.bin": pattern(size // 2, 2)}
        for name, content in contents.items():
            (mount / name).write_bytes(content)
        return contents

    def expect_contents(self, mount, contents):
        for name, content in contents.items():
            self.assertEqual((mount / name).read_bytes(), content, name)

    def on_the_disk(self, image, name):
        """A file's bytes as the image has them now; None: no such file."""
        copy, got = self.directory / "copy.img", self.directory / "got"
        shutil.copyfile(image, copy)
        got.unlink(missing_ok=True)
        run(program("mcopy"), "-n", "-i", copy, f"::{name}", got, env={**os.environ, "MTOOLS_SKIP_CHECK": "1"})
        return got.read_bytes() if got.exists() else None

    def round_trip(self, device, options):
        mount = self.mount(device, options)
        contents = self.fill(mount)
        self.expect_contents(mount, contents)
        self.unmount(mount)
        mount = self.mount(device, options)
        self.expect_contents(mount, contents)
        self.unmount(mount)

    def findmnt(self, mount, column):
        return run(program("findmnt"), "-no", column, mount.path).stdout.strip()


class OptionsTest(ModesCase):
    def test_every_fat_type(self):
        for bits, mib in ((12, 4), (16, 32), (32, 64)):
            with self.subTest(bits=bits):
                self.round_trip(self.make_image(mib, "-F", bits, name=f"fat{bits}.img"), VFAT_OPTIONS)

    def test_formatted_by_mkfs_wbfat(self):
        self.round_trip(self.make_image(64, maker="mkfs.wbfat"), VFAT_OPTIONS)

    def test_options_that_change_speed_only(self):
        for options in ("sync", "dirsync", "flush", "cache=none", "cache=auto", "cache=writeback", "cache_size=1M",
                        "direct_io_device", "nodirect_io_device", "nobarrier", "commit=1", "threads=1", "dirty_ratio=5,dirty_background_ratio=1"):
            with self.subTest(options=options):
                self.round_trip(self.make_image(16, name=f"{options[:8]}.img"), options)

    def test_a_file_twenty_times_the_cache(self):
        mount = self.mount(self.make_image(64), "cache_size=1M")
        content = pattern(20 << 20)
        (mount / "big").write_bytes(content)
        self.assertEqual((mount / "big").read_bytes(), content)
        self.unmount(mount)

    def test_read_only(self):
        image = self.make_image(16)
        mount = self.mount(image, VFAT_OPTIONS)
        contents = self.fill(mount)
        self.unmount(mount)
        before = hashlib.sha256(image.read_bytes()).digest()
        mount = self.mount(image, f"{VFAT_OPTIONS},ro")
        self.assertIn("ro", self.findmnt(mount, "OPTIONS").split(","))
        self.expect_contents(mount, contents)
        for call in (lambda: os.mkdir(mount / "new"), lambda: os.unlink(mount / "first"),
                     lambda: os.open(mount / "first", os.O_WRONLY), lambda: os.utime(mount / "first"),
                     lambda: os.truncate(mount / "first", 0), lambda: os.rename(mount / "first", mount / "last")):
            with self.assertRaises(OSError) as caught:
                call()
            self.assertEqual(caught.exception.errno, errno.EROFS)
        self.unmount(mount)
        self.assertEqual(hashlib.sha256(image.read_bytes()).digest(), before)

    def test_sync_puts_a_write_on_the_disk(self):
        for cache in ("", ",cache=none", ",cache=auto", ",cache=writeback"):
            with self.subTest(cache=cache):
                image = self.make_image(16, name=f"sync{cache}.img")
                mount = self.mount(image, f"sync,commit=3600,dirty_writeback_centisecs=0{cache}")
                self.expect_each_change_at_once(mount, image)
                self.unmount(mount)

    def expect_each_change_at_once(self, mount, image):
        """Each call's effect is in the image when the call has returned."""
        descriptor = os.open(mount / "f", os.O_CREAT | os.O_RDWR)
        expected = bytearray()
        # Appended, also within a page and over many; over what is there; beyond the end.
        for offset, length in ((0, 70_000), (70_000, 3), (70_003, 2_500_000), (5000, 100), (0, 1), (3_000_000, 10)):
            data = pattern(length, offset)
            expected.extend(bytes(max(0, offset + length - len(expected))))
            expected[offset:offset + length] = data
            self.assertEqual(os.pwrite(descriptor, data, offset), length)
            self.assertEqual(self.on_the_disk(image, "f"), expected, f"{length} at {offset}")
        os.close(descriptor)
        os.truncate(mount / "f", 10)
        self.assertEqual(self.on_the_disk(image, "f"), expected[:10])
        os.unlink(mount / "f")
        self.assertIsNone(self.on_the_disk(image, "f"))

    def test_sync_flushes_the_device_for_each_write(self):
        """What a power cut keeps: the device is told to flush before the call returns, once where nothing else changes."""
        wbfat_mount.need_root()
        device = self.loop(self.make_image(16))
        counters = pathlib.Path("/sys/block", pathlib.Path(device).name, "stat")
        need(len(counters.read_text().split()) > 15, "the kernel does not count flushes")
        mount = self.mount(device, "sync,commit=3600,dirty_writeback_centisecs=0")
        def flushes_of(call):
            before = int(counters.read_text().split()[15])
            call()
            return int(counters.read_text().split()[15]) - before
        descriptor = os.open(mount / "f", os.O_CREAT | os.O_RDWR)
        for number in range(20):
            self.assertGreaterEqual(flushes_of(lambda at=number: os.pwrite(descriptor, pattern(4096), at * 4096)), 1)
        overwrites = [flushes_of(lambda at=number: os.pwrite(descriptor, b"other", at * 4096)) for number in range(20)]
        self.assertGreaterEqual(min(overwrites), 1)
        # At the turn of a second the time of the file is written too.
        self.assertEqual(sorted(overwrites)[len(overwrites) // 2], 1)
        os.close(descriptor)
        self.unmount(mount)

    def fill_by_writes(self, mount, length):
        """An open file on a volume that is full, and how much of it the writes before the refused one have put there."""
        descriptor = os.open(mount / "f", os.O_CREAT | os.O_RDWR)
        content = pattern(length)
        done = 0
        with self.assertRaises(OSError) as refused:
            while True:
                done += os.pwrite(descriptor, content[:length], done)
        self.assertEqual(refused.exception.errno, errno.ENOSPC)
        return descriptor, done

    def test_sync_write_says_itself_that_the_volume_is_full(self):
        for cache in ("", ",cache=none", ",cache=auto"):
            for length in (65_536, 61_441):  # as clusters end, and not
                with self.subTest(cache=cache, length=length):
                    image = self.make_image(8, name=f"full{cache}{length}.img")
                    mount = self.mount(image, f"sync{cache}")
                    descriptor, done = self.fill_by_writes(mount, length)
                    expected = (pattern(length) * (done // length + 1))[:done]
                    self.assertEqual(self.on_the_disk(image, "f")[:done], expected)
                    # Nobody else is told of it, and the file goes back to what has been written.
                    os.fsync(descriptor)
                    os.ftruncate(descriptor, done)
                    self.assertEqual(os.fstat(descriptor).st_size, done)
                    self.assertEqual(os.pread(descriptor, done + 1, 0), expected)
                    os.close(descriptor)
                    self.assertEqual(self.on_the_disk(image, "f"), expected)
                    self.assertEqual((mount / "f").read_bytes(), expected)
                    self.unmount(mount)

    def test_a_closed_file_is_as_the_disk_has_it_after_a_full_volume(self):
        """The kernel believes the size that the refused write would have given the file, until it forgets the file."""
        kernel = tuple(int(number) for number in os.uname().release.split(".", 2)[:2])
        if kernel < (6, 18):
            self.skipTest("before Linux 6.18 the kernel cannot be asked to forget a file")
        for options in ("sync", "cache=writeback"):
            with self.subTest(options=options):
                image = self.make_image(16, name=f"{options}.img")
                mount = self.mount(image, options)
                chunk = pattern(61_441)
                asked = 0
                with self.assertRaises(OSError) as refused, open(mount / "f", "wb", buffering=0) as file:
                    while asked < 20 << 20:
                        asked += len(chunk)
                        file.write(chunk)
                    os.fsync(file.fileno())
                self.assertEqual(refused.exception.errno, errno.ENOSPC)
                eventually(lambda size=asked: os.stat(mount / "f").st_size < size, "the size is right")
                content = (mount / "f").read_bytes()
                self.assertEqual(content, (chunk * (asked // len(chunk)))[:len(content)])
                with open(mount / "f", "r+b") as file:
                    file.truncate(1 << 20)
                    file.seek(0, os.SEEK_END)
                    file.write(b"appended")
                self.unmount(mount)
                self.assertEqual(self.on_the_disk(image, "f"), content[:1 << 20] + b"appended")

    def test_dirsync_puts_names_on_the_disk(self):
        image = self.make_image(16)
        mount = self.mount(image, "dirsync,commit=3600")
        os.mkdir(mount / "d")
        os.mknod(mount / "d/f", stat.S_IFREG | 0o600)
        self.assertEqual(self.on_the_disk(image, "d/f"), b"")
        os.rename(mount / "d/f", mount / "d/g")
        self.assertIsNone(self.on_the_disk(image, "d/f"))
        self.assertEqual(self.on_the_disk(image, "d/g"), b"")
        self.unmount(mount)

    def test_flush_puts_a_closed_file_on_the_disk(self):
        image = self.make_image(16)
        mount = self.mount(image, "flush,commit=3600")
        (mount / "f").write_bytes(pattern(70_000))
        self.assertEqual(self.on_the_disk(image, "f"), pattern(70_000))
        with open(mount / "f", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
            mapping[:5] = b"store"
        self.assertEqual(self.on_the_disk(image, "f")[:5], b"store")
        # A store after the last close is written when the mapping goes; nobody waits for that.
        with open(mount / "f", "r+b") as file:
            mapping = mmap.mmap(file.fileno(), 0)
        mapping[:5] = b"later"
        mapping.close()
        eventually(lambda: self.on_the_disk(image, "f")[:5] == b"later", "the store is on the disk")
        self.unmount(mount)

    def test_discard_gives_clusters_of_an_image_back(self):
        image = self.make_image(16)
        mount = self.mount(image, "discard,commit=3600")
        blocks = os.stat(image).st_blocks
        with open(mount / "f", "wb") as file:
            file.write(pattern(4 << 20))
            os.fsync(file.fileno())
        self.assertGreater(os.stat(image).st_blocks, blocks + (4 << 20) // 512 - 64)
        os.unlink(mount / "f")
        descriptor = os.open(mount.path, os.O_RDONLY)
        eventually(lambda: os.fsync(descriptor) or os.stat(image).st_blocks < blocks + 256, "the clusters are holes")
        os.close(descriptor)
        self.unmount(mount)

    def test_offset(self):
        image = self.directory / "disk.img"
        head = pattern(1 << 20)
        image.write_bytes(head)
        os.truncate(image, 17 << 20)
        made = run(program("mkfs.fat"), "--offset=2048", image, 16384)
        self.assertEqual(made.returncode, 0, made.stderr)
        contents = None
        for offset in ("1048576", "1M", "1024K"):
            mount = self.mount(image, f"offset={offset}")
            contents = contents or self.fill(mount)
            self.expect_contents(mount, contents)
            self.unmount(mount, fsck=False)
        whole = image.read_bytes()
        self.assertEqual(whole[:1 << 20], head)
        inner = self.directory / "inner.img"
        inner.write_bytes(whole[1 << 20:])
        self.fsck(inner)

    def test_owner_and_masks(self):
        wbfat_mount.need_root()
        mount = self.mount(self.make_image(16), "uid=12,gid=34,fmask=137,dmask=027")
        (mount / "f").write_bytes(b"x")
        os.mkdir(mount / "d")
        self.assertEqual([(found.st_uid, found.st_gid, oct(stat.S_IMODE(found.st_mode)))
                          for found in (os.stat(mount / "f"), os.stat(mount / "d"))],
                         [(12, 34, "0o640"), (12, 34, "0o750")])
        self.unmount(mount)

    def test_options_of_the_kernel_and_of_fstab(self):
        mount = self.mount(self.make_image(16), "noexec,nosuid,nodev,noauto,user,x-systemd.automount,defaults,nofail")
        options = self.findmnt(mount, "OPTIONS").split(",")
        for option in ("noexec", "nosuid", "nodev"):
            self.assertIn(option, options)
        self.assertEqual(self.findmnt(mount, "FSTYPE"), "fuse.wbfat")
        self.unmount(mount)

    def test_statistics(self):
        report = self.directory / "stats.json"
        mount = self.mount(self.make_image(16), f"stats={report}")
        self.fill(mount)
        self.unmount(mount)
        counted = json.loads(report.read_text())
        self.assertTrue(any(value > 0 for value in counted.values() if isinstance(value, int)), counted)

    def test_help_and_version(self):
        helped = run(wbfat_mount.WBFAT, "-h")
        self.assertEqual(helped.returncode, 0)
        for option in ("cache_size", "uid", "errors", "offset", "cache"):
            self.assertIn(f" {option}", helped.stdout)
        self.assertEqual(run(wbfat_mount.WBFAT, "-V").returncode, 0)


class DevicesTest(ModesCase):
    def setUp(self):
        super().setUp()
        wbfat_mount.need_root()

    def test_loop_device_is_fuseblk_and_clean_when_umount_returns(self):
        device = self.loop(self.make_image(64, "-F", "32"))
        mount = self.mount(device)
        self.assertEqual(self.findmnt(mount, "FSTYPE"), "fuseblk.wbfat")
        self.assertEqual(self.findmnt(mount, "SOURCE"), device)
        contents = self.fill(mount, 5_000_000)
        umounted = run("umount", mount.path)
        checked = run(program("fsck.fat"), "-n", device)  # at once: umount has waited for the daemon
        self.assertEqual((umounted.returncode, checked.returncode), (0, 0), checked.stdout)
        self.assertEqual(mount.wait_for_exit(), 0, mount.log())
        mount = self.mount(device)
        self.expect_contents(mount, contents)
        self.unmount(mount)

    def test_loop_device_with_sectors_of_4096_bytes(self):
        image = self.make_image(300, "-F", "32", "-S", "4096")
        device = self.loop(image, "-b", "4096")
        for options in (VFAT_OPTIONS, "nodirect_io_device"):
            mount = self.mount(device, options)
            contents = {"f": pattern(1_234_567)} if options == VFAT_OPTIONS else contents
            if options == VFAT_OPTIONS:
                (mount / "f").write_bytes(contents["f"])
            self.expect_contents(mount, contents)
            self.unmount(mount)

    def test_a_block_device_is_opened_with_o_direct_and_an_image_without(self):
        image = self.make_image(16)
        device = self.loop(self.make_image(16, name="looped.img"))
        for source, options, direct in ((device, "", True), (device, ",nodirect_io_device", False), (image, "", False),
                                        (image, ",direct_io_device", True)):
            with self.subTest(source=source, options=options):
                mount = self.mount(source, VFAT_OPTIONS + options)
                opened = []
                for number in os.listdir(f"/proc/{mount.process.pid}/fd"):
                    if os.readlink(f"/proc/{mount.process.pid}/fd/{number}") == str(source):
                        info = pathlib.Path(f"/proc/{mount.process.pid}/fdinfo/{number}").read_text(encoding="ascii")
                        opened.append(int(re.search(r"flags:\s+(\d+)", info)[1], 8) & os.O_DIRECT != 0)
                self.assertEqual(opened, [direct])
                self.unmount(mount)

    def test_sectors_smaller_than_the_device_are_refused(self):
        device = self.loop(self.make_image(64), "-b", "4096")
        self.expect_refused(32, ["4096"], device, self.make_mountpoint(), "-f")

    def test_read_only_device_mounts_read_only(self):
        device = self.loop(self.make_image(16), "-r")
        mount = self.mount(device)
        self.assertIn("write-protected, mounting read-only", mount.log())
        self.assertIn("ro", self.findmnt(mount, "OPTIONS").split(","))
        with self.assertRaises(OSError) as caught:
            os.mkdir(mount / "d")
        self.assertEqual(caught.exception.errno, errno.EROFS)
        self.unmount(mount)

    def test_a_mounted_volume_is_refused(self):
        image = self.make_image(16)
        device = self.loop(image)
        for first, others in ((image, [image]), (device, [device])):
            mount = self.mount(first)
            for other in others:
                self.expect_refused(32, ["in use", str(other)], other, self.make_mountpoint("second"), "-f")
            self.unmount(mount)
        mount = self.mount(device)
        mkfs = run(wbfat_mount.MKFS_WBFAT, device)
        self.assertNotEqual(mkfs.returncode, 0, "mkfs.wbfat formats a mounted volume")
        self.unmount(mount)

    def test_syncfs_on_fuseblk_reaches_the_device(self):
        image = self.make_image(16)
        device = self.loop(image)
        mount = self.mount(device, "commit=3600")
        (mount / "f").write_bytes(pattern(70_000))
        descriptor = os.open(mount.path, os.O_RDONLY)
        wbfat_mount.syncfs(descriptor)
        os.close(descriptor)
        self.assertEqual(self.on_the_disk(device, "f"), pattern(70_000))
        self.unmount(mount)

    def test_a_signal_unmounts_a_block_device_cleanly(self):
        """The daemon unmounts itself: nobody is left to answer the DESTROY that umount of fuseblk waits for."""
        device = self.loop(self.make_image(16))
        for number in (signal.SIGTERM, signal.SIGINT):
            mount = self.mount(device)
            (mount / number.name).write_bytes(pattern(500_000))
            mount.process.send_signal(number)
            self.assertEqual(mount.wait_for_exit(), 0, mount.log())
            self.assertFalse(wbfat_mount.is_mounted(mount.path))
            self.fsck(device)
            self.assertEqual(self.on_the_disk(device, number.name), pattern(500_000))

    def test_lazy_unmount_of_a_block_device_with_an_open_removed_file(self):
        device = self.loop(self.make_image(16))
        mount = self.mount(device)
        with open(mount / "f", "w+b", buffering=0) as file:
            file.write(pattern(100_000))
            os.unlink(mount / "f")
            self.assertEqual(run("umount", "-l", mount.path).returncode, 0)
            file.write(b"more")
        self.assertEqual(mount.wait_for_exit(), 0, mount.log())
        self.fsck(device)

    def test_a_killed_daemon_leaves_the_device_usable(self):
        device = self.loop(self.make_image(16))
        mount = self.mount(device)
        descriptor = os.open(mount / "f", os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, pattern(70_000))
        os.fsync(descriptor)
        mount.process.kill()
        mount.wait_for_exit()
        with contextlib.suppress(OSError):
            os.close(descriptor)
        run("umount", "-l", mount.path)
        self.assertEqual(self.on_the_disk(device, "f"), pattern(70_000))
        eventually(lambda: self.is_free(device), "the device is free again")
        again = self.mount(device)
        self.assertEqual((again / "f").read_bytes(), pattern(70_000))
        self.assertEqual(again.unmount(), 0, again.log())

    @staticmethod
    def is_free(device):
        """An exclusive open is refused while a mount claims the device."""
        try:
            os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
        except OSError:
            return False
        return True

    def test_fsync_on_a_block_device_reaches_it(self):
        device = self.loop(self.make_image(16))
        mount = self.mount(device, "commit=3600")
        with open(mount / "f", "wb") as file:
            file.write(pattern(70_000))
            file.flush()
            os.fsync(file.fileno())
            self.assertEqual(self.on_the_disk(device, "f"), pattern(70_000))
        self.unmount(mount)


class EndsTest(ModesCase):
    def test_signals_unmount_cleanly(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(signal=number.name):
                image = self.make_image(16, name=f"{number.name}.img")
                mount = self.mount(image)
                contents = self.fill(mount)
                mount.process.send_signal(number)
                self.assertEqual(mount.wait_for_exit(), 0, mount.log())
                self.assertFalse(wbfat_mount.is_mounted(mount.path))
                self.fsck(image)
                mount = self.mount(image)
                self.expect_contents(mount, contents)
                self.unmount(mount)

    def test_a_signal_with_open_and_removed_files(self):
        image = self.make_image(16)
        mount = self.mount(image)
        with open(mount / "f", "w+b", buffering=0) as file:
            file.write(pattern(100_000))
            os.unlink(mount / "f")
            mount.process.terminate()
            self.assertEqual(mount.wait_for_exit(), 0, mount.log())
            with contextlib.suppress(OSError):
                file.close()
        if wbfat_mount.is_mounted(mount.path):
            run("umount", "-l", mount.path)
        self.assertRegex(self.fsck(image), r" 0/\d+ clusters| 1/\d+ clusters")

    def test_lazy_unmount_with_an_open_removed_file(self):
        wbfat_mount.need_root()
        image = self.make_image(16)
        mount = self.mount(image)
        (mount / "kept").write_bytes(pattern(5000))
        with open(mount / "f", "w+b", buffering=0) as file:
            file.write(pattern(100_000))
            os.unlink(mount / "f")
            self.assertEqual(run("umount", "-l", mount.path).returncode, 0)
            self.assertIsNone(mount.process.poll())
            file.write(pattern(100_000))
            self.assertEqual(os.pread(file.fileno(), 10, 0), pattern(10))
        self.assertEqual(mount.wait_for_exit(), 0, mount.log())
        self.fsck(image)
        self.assertEqual(self.on_the_disk(image, "kept"), pattern(5000))

    def test_busy_mount_is_not_unmounted(self):
        wbfat_mount.need_root()
        mount = self.mount(self.make_image(16))
        with open(mount / "f", "wb") as file:
            refused = run("umount", mount.path)
            self.assertNotEqual(refused.returncode, 0)
            file.write(b"still here")
        self.assertEqual((mount / "f").read_bytes(), b"still here")
        self.unmount(mount)

    def test_a_killed_daemon_loses_nothing_that_was_synced(self):
        for bits, mib in ((16, 32), (32, 64)):
            with self.subTest(bits=bits):
                image = self.make_image(mib, "-F", bits, name=f"kill{bits}.img")
                mount = self.mount(image, "commit=3600")
                synced = {f"synced{number}": pattern(40_000 + number, number) for number in range(20)}
                for name, content in synced.items():
                    with open(mount / name, "wb") as file:
                        file.write(content)
                        file.flush()
                        os.fsync(file.fileno())
                for number in range(20):
                    (mount / f"unsynced{number}").write_bytes(pattern(50_000))
                os.mkdir(mount / "lost?".replace("?", "-directory"))
                mount.process.kill()
                mount.wait_for_exit()
                run("umount", "-l", mount.path) if os.geteuid() == 0 else run("fusermount3", "-uz", mount.path)
                checked = run(program("fsck.fat"), "-n", image)
                for line in checked.stdout.splitlines():
                    if line.strip() and not any(re.match(allowed, line.strip()) for allowed in AFTER_A_KILL):
                        self.fail(f"fsck.fat finds more than lost clusters: {checked.stdout}")
                for name, content in synced.items():
                    self.assertEqual(self.on_the_disk(image, name), content, name)
                again = self.mount(image)
                for name, content in synced.items():
                    self.assertEqual((again / name).read_bytes(), content)
                self.assertEqual(again.unmount(), 0, again.log())


class BackgroundTest(ModesCase):
    """Without -f: the caller gets the verdict and the daemon goes on."""

    def users(self, image):
        """Ids of the processes that have the image open."""
        found = set()
        for descriptor in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                if os.readlink(descriptor) == str(image):
                    found.add(int(descriptor.parts[2]))
        return found

    def detach(self, mountpoint):
        if wbfat_mount.is_mounted(mountpoint):
            run(*(["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]), mountpoint)

    def mount_and_use(self, *command, image, mountpoint, **options):
        self.addCleanup(self.detach, mountpoint)
        started = run(*command, **options)
        self.assertEqual(started.returncode, 0, started.stdout + started.stderr)
        self.assertTrue(wbfat_mount.is_mounted(mountpoint), "mounted when the command returns")
        (mountpoint / "f").write_bytes(pattern(100_000))
        self.assertEqual((mountpoint / "f").read_bytes(), pattern(100_000))
        self.assertEqual(run(*(["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]), mountpoint).returncode, 0)
        eventually(lambda: not self.users(image), "the daemon ends")
        self.fsck(image)
        self.assertEqual(self.on_the_disk(image, "f"), pattern(100_000))

    def test_success_is_zero(self):
        image, mountpoint = self.make_image(16), self.make_mountpoint()
        self.mount_and_use(wbfat_mount.WBFAT, image, mountpoint, "-o", "utf8", image=image, mountpoint=mountpoint)

    def test_relative_paths(self):
        image, mountpoint = self.make_image(16), self.make_mountpoint()
        self.mount_and_use(os.path.abspath(wbfat_mount.WBFAT), image.name, mountpoint.name, image=image,
                           mountpoint=mountpoint, cwd=self.directory)

    def test_failures_have_the_codes_of_mount(self):
        image, mountpoint = self.make_image(16), self.make_mountpoint()
        self.expect_refused(1, ["nonsense"], image, mountpoint, "-o", "nonsense")
        self.expect_refused(32, ["missing.img"], self.directory / "missing.img", mountpoint)
        zeros = self.directory / "zeros.img"
        zeros.write_bytes(bytes(1 << 20))
        self.expect_refused(32, ["zeros.img"], zeros, mountpoint)
        self.assertFalse(wbfat_mount.is_mounted(mountpoint))
        self.assertEqual(self.users(image), set())

    def test_type_fuse_wbfat_of_fstab(self):
        """As mount(8) calls its helper; mount(8) itself takes only what is installed in the system's PATH."""
        wbfat_mount.need_root()
        helper = program("mount.fuse3")
        places = self.directory / "bin"
        places.mkdir()
        os.symlink(os.path.abspath(wbfat_mount.WBFAT), places / "wbfat")
        image, mountpoint = self.make_image(16), self.make_mountpoint()
        self.mount_and_use(helper, image, mountpoint, "-t", "fuse.wbfat", "-o", "uid=1000,noatime,rw,noauto,user",
                           image=image, mountpoint=mountpoint,
                           env={**os.environ, "PATH": f"{places}:{wbfat_mount.SEARCH}"})

    def test_remount_is_refused_with_a_sentence(self):
        self.expect_refused(1, ["remount", "unmount"], self.make_image(16), self.make_mountpoint(), "-o", "remount,ro")


class UnprivilegedTest(ModesCase):
    def setUp(self):
        super().setUp()
        wbfat_mount.need_root()  # to become somebody else
        self.become = [program("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        helper = program("fusermount3")
        wbfat_mount.need(os.stat(helper).st_mode & stat.S_ISUID, "fusermount3 is not set-uid root")
        wbfat_mount.let_others_use_fuse(self.directory)
        os.chmod(self.directory, 0o755)
        # A program that others may run, wherever the build is.
        self.wbfat = self.directory / "wbfat"
        shutil.copy(wbfat_mount.WBFAT, self.wbfat)
        os.chmod(self.wbfat, 0o755)
        self.enterContext(unittest.mock.patch("wbfat_mount.WBFAT", str(self.wbfat)))

    def as_nobody(self, *command):
        return run(*self.become, *command)

    def test_mounts_an_image_of_its_own(self):
        image, mountpoint = self.make_image(16), self.make_mountpoint()
        for path in (image, mountpoint):
            os.chown(path, NOBODY, NOBODY)
        started = self.as_nobody(self.wbfat, image, mountpoint)
        self.addCleanup(run, "umount", "-l", mountpoint)
        self.assertEqual(started.returncode, 0, started.stderr)
        script = 'id -u >"$1/f" && stat -c "%u %g" "$1/f" && mkdir "$1/d" && cat "$1/f"'
        used = self.as_nobody("sh", "-ec", script, "sh", mountpoint)
        self.assertEqual((used.returncode, used.stdout), (0, f"{NOBODY} {NOBODY}\n{NOBODY}\n"), used.stderr)
        self.assertEqual(self.as_nobody("fusermount3", "-u", mountpoint).returncode, 0)
        # The exclusive use of the image ends with the daemon.
        eventually(lambda: run(program("fsck.fat"), "-n", image).returncode == 0, "the image is clean")

    def test_sync_reaches_the_kernel(self):
        image, mountpoint = self.make_image(16), self.make_mountpoint()
        for path in (image, mountpoint):
            os.chown(path, NOBODY, NOBODY)
        started = self.as_nobody(self.wbfat, image, mountpoint, "-o", "sync,commit=3600,dirty_writeback_centisecs=0")
        self.addCleanup(run, "umount", "-l", mountpoint)
        self.assertEqual(started.returncode, 0, started.stderr)
        self.assertIn("sync", run(program("findmnt"), "-no", "OPTIONS", mountpoint).stdout.strip().split(","))
        # The shell writes and keeps the file open until it is told to go on.
        writer = subprocess.Popen([*self.become, "sh", "-c", 'exec >"$1/f"; echo written; read line', "sh", mountpoint],
                                  stdin=subprocess.PIPE)
        self.addCleanup(writer.kill)
        eventually(lambda: self.on_the_disk(image, "f") == b"written\n", "the write is on the disk")
        writer.communicate(b"\n", timeout=wbfat_mount.DEADLINE_SECONDS)
        self.assertEqual(self.as_nobody("fusermount3", "-u", mountpoint).returncode, 0)
        eventually(lambda: run(program("fsck.fat"), "-n", image).returncode == 0, "the image is clean")

    def test_may_not_use_what_is_not_its_own(self):
        image, mountpoint = self.make_image(16), self.make_mountpoint()
        os.chown(mountpoint, NOBODY, NOBODY)
        os.chmod(image, 0o600)
        self.expect_refused(32, ["volume.img", "ermission"], image, mountpoint, "-f", wrap=self.become)

    def test_write_protected_image_mounts_read_only(self):
        image, mountpoint = self.make_image(16), self.make_mountpoint()
        os.chown(mountpoint, NOBODY, NOBODY)
        os.chmod(image, 0o644)
        mount = self.start(image, "", mountpoint, wrap=self.become).wait_until_mounted()
        self.assertIn("write-protected, mounting read-only", mount.log())
        refused = self.as_nobody("touch", mountpoint / "f")
        self.assertIn("Read-only", refused.stderr)
        self.unmount(mount)


if __name__ == "__main__":
    wbfat_mount.main()
