#!/usr/bin/env python3
"""A large tree copied in with cp -a survives unmount, fsck.fat -n and remount, and rm -r gives every cluster back.

    tree_test.py                 5,000 files
    tree_test.py --files 50000   the whole thing, with progress

$WBFAT names the program.
"""

import argparse
import hashlib
import os
import pathlib
import random
import re
import shutil
import sys
import time

import wbfat_mount
from wbfat_mount import MountCase, program, run

OPTIONS = "utf8,umask=022,tz=UTC,cache_size=32M"
# Words of several scripts; a name is one to three of them and a number.
WORDS = ("file", "Report", "UPPER", "a longer phrase with spaces", "данные", "Отчёт", "Ελληνικά", "naïve café", "über",
         "Größe", "日本語", "資料", "한국어", "ไทย", "עברית", "العربية", "हिन्दी", "Հայերեն", "😀", "e\u0301te\u0301")
SUFFIXES = ("", ".txt", ".TXT", ".dat", ".jpeg", ".tar.gz", ".данные")
SIZES = (0, 1, 511, 512, 513, 2047, 4096, 4097)
MAX_SIZE = 64 * 1024
FILES_PER_DIRECTORY = 60
# All copies of the files must fit: MAX_SIZE is rare.
MEAN_BYTES = 16 * 1024
SLOW_SECONDS = 1800


class Settings:
    files = 5000
    seed = 1


def say(text):
    print(f"  {text}", file=sys.stderr, flush=True)


class Grower:
    """A tree that is a function of the seed. Names of one directory differ in more than case."""

    def __init__(self, root, files, seed):
        self.random = random.Random(seed)
        self.root = pathlib.Path(root)
        self.files = files
        self.bytes = 0

    def name(self, number):
        words = [self.random.choice(WORDS) for _ in range(self.random.choice((1, 1, 2, 3)))]
        return f"{' '.join(words)} {number}{self.random.choice(SUFFIXES)}"

    def size(self):
        kind = self.random.random()
        if kind < 0.3:
            return self.random.choice(SIZES)
        if kind < 0.9:
            return self.random.randrange(12 * 1024)
        return self.random.randrange(MAX_SIZE + 1)

    def set_time(self, path):
        # Even seconds since 1980, as FAT keeps them.
        seconds = self.random.randrange(315532800, 2_000_000_000) & ~1
        os.utime(path, (seconds, seconds))

    def grow(self):
        directories = [self.root]
        while len(directories) * FILES_PER_DIRECTORY < self.files:
            # Mostly wide, sometimes deep.
            parent = directories[-1] if self.random.random() < 0.2 else self.random.choice(directories)
            if len(parent.relative_to(self.root).parts) > 9:
                parent = self.root
            path = parent / self.name(f"d{len(directories)}")
            path.mkdir()
            directories.append(path)
        for number in range(self.files):
            # A few directories get thousands of names.
            big = self.random.random() < 0.1
            path = directories[number % 3 if big else self.random.randrange(len(directories))] / self.name(number)
            data = self.random.randbytes(self.size())
            path.write_bytes(data)
            self.bytes += len(data)
            self.set_time(path)
        for path in reversed(directories[1:]):
            self.set_time(path)
        return len(directories) - 1


def listing(root, what):
    """{relative path: (type, size, even mtime, hash)}."""
    found = {}
    stack = [pathlib.Path(root)]
    while stack:
        directory = stack.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                key = os.path.relpath(entry.path, root)
                if entry.is_dir(follow_symlinks=False):
                    stack.append(pathlib.Path(entry.path))
                    found[key] = ("directory", 0, int(status.st_mtime) & ~1, "")
                else:
                    with open(entry.path, "rb") as file:
                        digest = hashlib.sha1(file.read()).hexdigest()
                    found[key] = ("file", status.st_size, int(status.st_mtime) & ~1, digest)
                if len(found) % 10_000 == 0:
                    say(f"{what}: {len(found)} read")
    return found


class TreeTest(MountCase):
    def clusters_in_use(self, image):
        said = self.fsck(image)
        files, used, total = map(int, re.search(r": (\d+) files, (\d+)/(\d+) clusters", said).groups())
        return files, used, total

    def step(self, what, started):
        say(f"{what}: {time.monotonic() - started:.1f} s")

    def copied(self, fat, mib, *mkfs, files, options=OPTIONS):
        source = self.directory / "source"
        source.mkdir()
        started = time.monotonic()
        grower = Grower(source, files, Settings.seed)
        directories = grower.grow()
        self.step(f"{fat}: {files} files in {directories} directories, {grower.bytes >> 20} MiB", started)
        image = self.make_image(mib, *mkfs)
        empty = self.clusters_in_use(image)

        mount = self.mount(image, options)
        started = time.monotonic()
        copy = run("cp", "-a", source, mount / "tree", timeout=SLOW_SECONDS)
        self.assertEqual((copy.returncode, copy.stderr), (0, ""))
        self.step("cp -a", started)
        self.unmount(mount, fsck=False)
        self.step("cp -a and unmount", started)
        in_use = self.clusters_in_use(image)
        self.assertEqual(in_use[0], empty[0] + files + directories + 1)
        return image, source, empty

    def expect_equal_trees(self, mount, source):
        started = time.monotonic()
        expected = listing(source, "source")
        found = listing(mount / "tree", "mount")
        self.assertEqual(sorted(set(expected) ^ set(found))[:10], [], "names differ")
        wrong = [(path, expected[path], found[path]) for path in expected if expected[path] != found[path]]
        self.assertEqual(wrong[:10], [], f"{len(wrong)} of {len(expected)} differ")
        self.step("compare", started)

    def survive(self, fat, mib, *mkfs, files, options=OPTIONS):
        image, source, empty = self.copied(fat, mib, *mkfs, files=files, options=options)
        mount = self.mount(image, options)
        self.expect_equal_trees(mount, source)
        started = time.monotonic()
        removed = run("rm", "-r", mount / "tree", timeout=SLOW_SECONDS)
        self.assertEqual((removed.returncode, removed.stderr), (0, ""))
        self.assertEqual(os.listdir(mount.path), [])
        self.step("rm -r", started)
        self.unmount(mount, fsck=False)
        self.assertEqual(self.clusters_in_use(image), empty, "clusters are not free again")

    def test_fat32(self):
        mib = max(64, Settings.files * MEAN_BYTES >> 20)
        self.survive("FAT32", mib, "-F", "32", "-s", "4" if mib > 300 else "1", files=Settings.files)

    def test_fat16(self):
        files = min(Settings.files, 3000)
        self.survive("FAT16", 128, "-F", "16", "-s", "4", files=files)

    def test_a_difference_is_noticed(self):
        image, source, _ = self.copied("FAT32", 64, "-F", "32", "-s", "1", files=200)
        mount = self.mount(image, OPTIONS)
        victim = next(path for path in (mount / "tree").rglob("*") if path.is_file() and path.stat().st_size > 0)
        before = victim.stat()
        with open(victim, "r+b") as file:
            byte = file.read(1)[0]
            file.seek(0)
            file.write(bytes([byte ^ 1]))
        os.utime(victim, (before.st_atime, before.st_mtime))
        with self.assertRaises(AssertionError):
            self.expect_equal_trees(mount, source)
        shutil.rmtree(mount / "tree")
        self.unmount(mount)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=Settings.files)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    arguments, sys.argv[1:] = parser.parse_known_args()
    Settings.files = arguments.files
    Settings.seed = arguments.seed
    wbfat_mount.WATCHDOG_SECONDS = SLOW_SECONDS
    program("fsck.fat")
    wbfat_mount.main()
