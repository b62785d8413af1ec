#!/usr/bin/env python3
"""Goal: no image, however damaged, makes the daemon crash, hang or answer nonsense; good ones are served whole.
Method: make every image of images/recipes; mount each, walk it all (bounded, since damaged trees may be endless), read
every file, then create, append, rename and remove. Damaged: refused with one sentence, or the calls answer with errnos
that a damaged volume may have, and the daemon ends in order. Good: no error at all, and fsck.fat -n finds nothing after.
"""

import errno
import os
import pathlib
import subprocess
import sys
import tempfile

import wbfat_mount
from wbfat_mount import program

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests/tools"))
import images_test  # noqa: E402  which images are good, which of them fsck.fat 4.2 cannot check

MAX_ENTRIES, MAX_DEPTH, MAX_READ = 2500, 50, 4 << 20
# What a damaged volume may answer. ELOOP: the kernel's own, for a directory below itself.
ALLOWED = {errno.EIO, errno.EUCLEAN, errno.ENOSPC, errno.EROFS, errno.ENOENT, errno.ENOTEMPTY, errno.ELOOP}
# Refused at mount: without these numbers nothing on the volume can be found.
REFUSED = ("damaged-bpb-", "damaged-boot-zeroed", "truncated-", "not-fat-", "damaged-root-cluster-")

# Good volumes without room.
FULL = ("full", "fragmented", "fat12-root-16-entries")


class Walk:
    """A bounded walk of a tree that notes errors instead of stopping."""

    def __init__(self, root):
        self.errors = []
        self.entries = 0
        self.files = 0
        self.directory(str(root), 0)

    def note(self, what, error):
        self.errors.append((what, error.errno))

    def directory(self, path, depth):
        try:
            names = os.listdir(path)
        except OSError as error:
            return self.note(f"listdir {path}", error)
        if depth >= MAX_DEPTH:
            return None
        for name in names:
            self.entries += 1
            if self.entries > MAX_ENTRIES:
                return None
            self.entry(f"{path}/{name}", depth)
        return None

    def entry(self, path, depth):
        try:
            found = os.lstat(path)
            if os.path.isdir(path):
                return self.directory(path, depth + 1)
            self.read(path, found.st_size)
        except OSError as error:
            self.note(path, error)
        return None

    def read(self, path, size):
        self.files += 1
        with open(path, "rb") as file:
            first = file.read(MAX_READ)
            if size > MAX_READ:
                file.seek(size - 4096)
                file.read(4096)
            elif len(first) != size:
                raise OSError(errno.EBADMSG, "a read that ends before the file does")


def change(root, errors):
    """Creates, writes, renames and removes in the root and in its first directory."""
    places = [str(root)]
    try:
        places += sorted(entry.path for entry in os.scandir(root) if entry.is_dir())[:2]
    except OSError as error:
        errors.append((f"scandir {root}", error.errno))
    for place in places:
        for step in (change_file, change_directory, change_what_is_there):
            try:
                step(place)
            except OSError as error:
                errors.append((f"{step.__name__} {place}", error.errno))


def change_file(place):
    path = f"{place}/a new file with a long name"
    with open(path, "wb") as file:
        file.write(wbfat_mount.pattern(20_000))
        file.flush()
        os.fsync(file.fileno())
    with open(path, "rb") as file:
        if file.read() != wbfat_mount.pattern(20_000):
            raise OSError(errno.EBADMSG, "other bytes than were written")
    os.rename(path, f"{place}/RENAMED.TXT")
    os.unlink(f"{place}/RENAMED.TXT")


def change_directory(place):
    os.makedirs(f"{place}/new directory/inner")
    os.rename(f"{place}/new directory/inner", f"{place}/outer")
    os.rmdir(f"{place}/new directory")
    os.rmdir(f"{place}/outer")


def change_what_is_there(place):
    """Shrinks, grows and removes the first files: frees what damaged chains say."""
    for entry in sorted(os.scandir(place), key=lambda e: e.name)[:3]:
        if entry.is_file():
            os.truncate(entry.path, 1)
            os.truncate(entry.path, 3000)
            os.unlink(entry.path)


class HostileImagesTest(wbfat_mount.MountCase):
    made_in = None

    def setUp(self):
        super().setUp()
        for name in ("mcopy", "mkfs.fat"):
            program(name)
        xxh3sum = os.environ.get("XXH3SUM", "")
        wbfat_mount.need(os.access(xxh3sum, os.X_OK), "$XXH3SUM names no program")
        if self.made_in is None:
            self.make_images()
        self.images = sorted(self.made_in.glob("*.img"))
        self.assertGreater(len(self.images), 100)

    def make_images(self):
        """Once for all tests: none writes to one, only to copies."""
        place = tempfile.TemporaryDirectory(prefix="wbfat-hostile-")
        self.addClassCleanup(place.cleanup)
        made = subprocess.run([sys.executable, SOURCE / "images/make_images.py", place.name],
                              capture_output=True, text=True, check=False, timeout=600)
        self.assertEqual(made.returncode, 0, made.stdout + made.stderr)
        HostileImagesTest.made_in = pathlib.Path(place.name)

    def serve(self, image, options):
        """One image: mounted, walked, changed, unmounted. Returns (log, walk or None, errors of the changes)."""
        mount = self.start(image, options, self.make_mountpoint("hostile"))
        try:
            mount.wait_until_mounted()
        except AssertionError:
            self.assertEqual(mount.wait_for_exit(), 32, mount.log())
            lines = mount.log().splitlines()
            self.assertTrue(lines and lines[-1].startswith("wbfat: ") and len(lines[-1]) > 40, mount.log())
            return mount.log(), None, []
        try:
            changes = []
            walk = Walk(mount.path)
            change(mount.path, changes)
            Walk(mount.path)
            self.assertIn(mount.unmount(), (0, 2), mount.log())
            self.assertNotIn("BUG", mount.log())
            return mount.log(), walk, changes
        finally:
            mount.dispose()

    def expect_allowed(self, errors, log):
        for what, code in errors:
            self.assertIn(code, ALLOWED, f"{what}: {errno.errorcode.get(code, code)}; {log}")

    def test_damaged_images(self):
        for image in self.images:
            name = image.stem
            if not name.startswith(images_test.DAMAGED):
                continue
            for options in ("errors=continue", "errors=remount-ro", "ro"):
                copy = self.directory / f"{name}.copy"
                subprocess.run(["cp", "--sparse=always", image, copy], check=True)
                with self.subTest(image=name, options=options):
                    log, walk, changes = self.serve(copy, options)
                    if walk is None:
                        self.assertTrue(name.startswith(REFUSED), log)
                        continue
                    self.expect_allowed(walk.errors + changes, log)
                    self.assertLessEqual(len(log.splitlines()), 200, "the log is limited")
                    if options == "ro":
                        self.assertEqual(copy.read_bytes(), image.read_bytes(), "ro writes nothing")
                copy.unlink()

    def test_good_images(self):
        for image in self.images:
            name = image.stem
            if name.startswith(images_test.DAMAGED):
                continue
            with self.subTest(image=name):
                copy = self.directory / f"{name}.copy"
                subprocess.run(["cp", "--sparse=always", image, copy], check=True)
                log, walk, changes = self.serve(copy, "")
                self.assertIsNotNone(walk, log)
                self.assertEqual(walk.errors, [], log)
                for what, code in changes:
                    self.assertEqual(code, errno.ENOSPC, f"{what}; {log}")
                    self.assertTrue(name.startswith(FULL), f"{what}: no space")
                if name not in images_test.BEYOND_FSCK:
                    self.fsck(copy)
                copy.unlink()

    def test_errors_option_is_obeyed(self):
        """remount-ro stops at the first damage, continue goes on."""
        image = self.made_in / "damaged-chain-leaves-volume.img"
        for options, answer in (("errors=remount-ro", "EROFS"), ("errors=continue", None)):
            copy = self.directory / f"{options}.img"
            subprocess.run(["cp", "--sparse=always", image, copy], check=True)
            mount = self.mount(copy, options)
            os.mkdir(mount / "before")
            self.assertEqual(wbfat_mount.errno_name((mount / "sub/inner.dat").read_bytes), "EIO")
            self.assertEqual(wbfat_mount.errno_name(os.mkdir, mount / "after"), answer)
            self.assertIn("error, ", mount.log())
            self.assertEqual(mount.unmount(), 0, mount.log())


if __name__ == "__main__":
    wbfat_mount.main()
