#!/usr/bin/env python3
"""Goal: after a failed assertion the mount does what bug= says, the report can be read, and what was fsync'ed is kept.
Method: errors=panic makes a damaged volume fail an assertion. A cluster chain is cut on the disk, the cut file is read,
and the chain is mended again after the daemon has gone: then fsck.fat must find nothing but the dirty mark. And the bug
of the mail, under protocol=5.9 with the laboratory's load and orderings, from ordinary calls of ftruncate.
"""

import json
import os
import pathlib
import signal
import struct
import subprocess
import sys

import wbfat_mount
from wbfat_mount import VFAT_OPTIONS, errno_name, eventually, pattern, program, run

LAB = pathlib.Path(__file__).resolve().parents[2] / "tools/lab"
sys.path.insert(0, str(LAB))
from wbfat_lab.trial import FLUSHER_OFTEN, GROWN_FILE, MAIL_RECIPE  # noqa: E402

KIB = 1024
BAD_CLUSTER = 0xFFF7
# What fsck.fat says of a volume with nothing but a dirty mark.
DIRTY_MARK_ONLY = ("fsck.fat ", "0x41: Dirty bit is set", "Dirty bit is set", " Automatically removing dirty bit",
                   "*** Filesystem was changed", "The changes have not yet", "Leaving filesystem unchanged")
OPTIONS = VFAT_OPTIONS + ",cache=none,errors=panic,dirty_writeback_centisecs=0,commit=0"


class Fat16:
    """The first FAT of an image, by hand."""

    def __init__(self, image):
        self.image = image
        with open(image, "rb") as file:
            boot = file.read(512)
        sector, = struct.unpack_from("<H", boot, 11)
        reserved, = struct.unpack_from("<H", boot, 14)
        sectors_per_fat, = struct.unpack_from("<H", boot, 22)
        self.starts = [(reserved + copy * sectors_per_fat) * sector for copy in range(boot[16])]

    def get(self, cluster):
        with open(self.image, "rb") as file:
            file.seek(self.starts[0] + 2 * cluster)
            return struct.unpack("<H", file.read(2))[0]

    def put(self, cluster, value):
        with open(self.image, "r+b") as file:
            for start in self.starts:
                file.seek(start + 2 * cluster)
                file.write(struct.pack("<H", value))


def findings(image):
    """What fsck.fat says against a volume, but for a dirty mark."""
    checked = run(program("fsck.fat"), "-n", image)
    return [line for line in checked.stdout.splitlines()
            if line and not line.startswith((*DIRTY_MARK_ONLY, f"{image}: "))]


class OopsTest(wbfat_mount.MountCase):
    def setUp(self):
        super().setUp()
        self.image = self.make_image(16, "-F", "16", "-s", "1", maker="mkfs.wbfat")
        mount = self.mount(self.image)
        (mount / "victim").write_bytes(pattern(64 * KIB))
        self.unmount(mount)
        # The only file: its chain begins with cluster 2.
        self.fat = Fat16(self.image)
        self.cut_at, self.was = 40, self.fat.get(40)
        self.assertEqual(self.was, self.cut_at + 1)
        self.fat.put(self.cut_at, BAD_CLUSTER)

    def work_and_fail(self, mount):
        """Writes a file, with and without fsync, and reads the damaged one. Returns what the read answers."""
        kept = os.open(mount / "kept", os.O_CREAT | os.O_RDWR)
        os.write(kept, pattern(20 * KIB, seed=1))
        os.fsync(kept)
        os.pwrite(kept, pattern(4 * KIB, seed=2), 40 * KIB)
        victim = os.open(mount / "victim", os.O_RDONLY)
        answer = errno_name(os.pread, victim, 64 * KIB, 0)
        errno_name(os.close, victim)
        errno_name(os.close, kept)
        return answer

    def mend_and_check(self):
        """Mends the chain. Nothing but the dirty mark may be wrong now, and what was fsync'ed must be there."""
        self.fat.put(self.cut_at, self.was)
        self.assertEqual(findings(self.image), [])
        mount = self.mount(self.image)
        self.assertEqual((mount / "kept").read_bytes()[:20 * KIB], pattern(20 * KIB, seed=1))
        self.assertEqual((mount / "victim").read_bytes(), pattern(64 * KIB))
        self.assertEqual(mount.unmount(), 0, mount.log())

    def test_shutdown_reports_answers_eio_and_takes_no_changes(self):
        mount = self.mount(self.image, OPTIONS + ",bug=shutdown")
        self.assertEqual(self.work_and_fail(mount), "EIO")
        for call, arguments in ((os.mkdir, (mount / "dir",)), (os.unlink, (mount / "kept",)),
                                (os.truncate, (mount / "kept", 0)),
                                (os.open, (mount / "new", os.O_CREAT | os.O_WRONLY))):
            self.assertEqual(errno_name(call, *arguments), "EROFS", call)
        self.assertEqual((mount / "kept").read_bytes()[:20 * KIB], pattern(20 * KIB, seed=1))
        mount.unmount()
        log = mount.log()
        for words in ("[ cut here ]", "BUG at fs/volume.cc:", "errors=panic: the volume is damaged",
                      "  task       ", "  protocol   ", "  assertions as by default", "  volume     read-",
                      "  stack:", "wbfat::fs::", "[ end of report ]", "all changes stopped: BUG at "):
            self.assertIn(words, log)
        self.mend_and_check()

    def test_panic_dies_and_a_new_mount_finds_all_that_was_synced(self):
        mount = self.mount(self.image, OPTIONS + ",bug=panic")
        self.assertIn(self.work_and_fail(mount), ("ENOTCONN", "ECONNABORTED", "EIO"))
        self.assertEqual(mount.wait_for_exit(), -signal.SIGABRT)
        self.assertIn("[ end of report ]", mount.log())
        run("umount", "-l", mount.path)
        self.mend_and_check()

    def test_continue_reports_and_goes_on(self):
        mount = self.mount(self.image, OPTIONS + ",bug=continue")
        self.assertEqual(self.work_and_fail(mount), "EIO")
        self.assertIn("[ end of report ]", mount.log())
        os.mkdir(mount / "dir")
        self.assertEqual(mount.unmount(), 0, mount.log())
        self.mend_and_check()

    def test_settings_are_refused_in_one_sentence(self):
        point = self.make_mountpoint()
        for option, words in (("assert=bug_on", ["assert", "NAME:off", "bug_on_writeback"]),
                              ("assert=two_writes:off,three_writes:off", ["three_writes:off"]),
                              ("assert=", ["assert"]), ("trace=1", ["trace", "off, on"])):
            with self.subTest(option=option):
                self.expect_refused(1, words, self.image, point, "-o", option)

    def test_settings_show_in_the_report(self):
        mount = self.mount(self.image, OPTIONS + ",assert=two_writes:warn,stable_page:bug,trace=off")
        self.work_and_fail(mount)
        mount.unmount()
        self.assertIn("  assertions two_writes:warn,stable_page:bug\n", mount.log())


class MailTest(wbfat_mount.MountCase):
    """The BUG_ON(PageWriteback(page)) of the mail."""

    def provoke(self, bug):
        """A mount with a file that is fsync'ed, on which the assertion has failed."""
        rules = self.directory / "rules"
        rules.write_text("".join(rule.replace("FILE", GROWN_FILE) + "\n" for rule in MAIL_RECIPE), encoding="utf-8")
        mount = self.mount(self.make_image(16), f"utf8,sync,nobarrier,{FLUSHER_OFTEN},protocol=5.9,bug={bug},"
                                                f"points_file={rules}")
        with open(mount / "kept", "wb") as kept:
            kept.write(pattern(50 * KIB))
            kept.flush()
            os.fsync(kept.fileno())
        self.load = subprocess.Popen([sys.executable, LAB / "wbfat_lab/load.py", "grow", mount.path, json.dumps({})],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(self.end_load)
        eventually(lambda: "[ end of report ]" in mount.log(), "the report")
        return mount

    def end_load(self):
        self.load.kill()
        self.load.wait()

    def check_report(self, mount):
        for words in ("BUG at cache/writeback.cc:", "bug_on_writeback", "PageWriteback after the wait under the page lock",
                      f"of '{GROWN_FILE}'", "  protocol   5.9\n", "set writeback", "clear writeback", "wake '",
                      "BUG: bug_on_writeback", "fat_cont_expand"):
            self.assertIn(words, mount.log())

    def check_volume(self, image):
        self.assertEqual(findings(image), [])
        mount = self.mount(image)
        self.assertEqual((mount / "kept").read_bytes(), pattern(50 * KIB))
        self.assertEqual(mount.unmount(), 0, mount.log())  # the dirty mark stays: only fsck.fat takes it away

    def test_shutdown_reports_it_and_keeps_what_was_synced(self):
        mount = self.provoke("shutdown")
        self.check_report(mount)
        self.assertEqual(errno_name(os.truncate, mount / GROWN_FILE, 0), "EROFS")
        self.assertEqual((mount / "kept").read_bytes(), pattern(50 * KIB))
        self.end_load()
        mount.unmount()
        self.check_volume(mount.device)

    def test_panic_reports_it_and_dies(self):
        mount = self.provoke("panic")
        self.assertEqual(mount.wait_for_exit(), -signal.SIGABRT)
        self.check_report(mount)
        run("umount", "-l", mount.path)
        self.check_volume(mount.device)


if __name__ == "__main__":
    wbfat_mount.main()
