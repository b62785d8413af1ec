#!/usr/bin/env python3
"""Makes the test images from images/recipes, without root and without a network, and compares them with MANIFEST.

make_images.py [--update] [--only NAME] DIRECTORY
  Makes every image in DIRECTORY (sparse); exit code 1 when one differs from MANIFEST. --update writes MANIFEST instead.
The environment names the programs: MKFS_WBFAT and XXH3SUM."""

import argparse
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
EPOCH = 1700000000  # 2023-11-14 22:13:20 UTC: every file's time

# What recipes write for characters that mtools cannot: private use characters of equal length, patched afterwards.
PLACEHOLDERS = {"@": "\ue000\ue001"}
UNITS = {0xE000: 0xD83D, 0xE001: 0xDE00}  # U+1F600


class RecipeError(Exception):
    pass


def noise(length):
    return random.Random(f"noise {length}").randbytes(length)


def le16(value):
    return struct.pack("<H", value & 0xFFFF)


class Image:
    """A FAT volume in a file, as far as recipes must understand one."""

    def __init__(self, path):
        self.path = path

    def read(self, at, length):
        with open(self.path, "rb") as file:
            file.seek(at)
            return file.read(length)

    def write(self, at, data):
        if at < 0:
            raise RecipeError(f"offset {at}")
        with open(self.path, "r+b") as file:
            file.seek(at)
            file.write(data)

    def load(self):
        boot = self.read(0, 512)
        (self.sector, spc, self.reserved, self.nr_fats, self.root_entries, total_16, _, fat_16, _, _, _,
         total_32) = struct.unpack_from("<HBHBHHBHHHII", boot, 11)
        fat_32, _, _, self.root_cluster, fsinfo, backup = struct.unpack_from("<IHHIHH", boot, 36)
        self.fat32 = fat_16 == 0
        self.fat_bytes = (fat_16 or fat_32) * self.sector
        self.cluster_bytes = spc * self.sector
        self.root_at = self.reserved * self.sector + self.nr_fats * self.fat_bytes
        self.data_at = self.root_at + self.root_entries * 32
        sectors = (total_16 or total_32) - self.data_at // self.sector
        self.clusters = sectors // spc
        self.bits = 32 if self.fat32 else 12 if self.clusters < 4085 else 16
        self.fsinfo = fsinfo * self.sector
        self.backup = backup * self.sector

    def fat(self, copy):
        return self.reserved * self.sector + copy * self.fat_bytes

    def cluster(self, number):
        return self.data_at + (number - 2) * self.cluster_bytes

    def get_fat(self, number):
        if self.bits == 12:
            value, = struct.unpack("<H", self.read(self.fat(0) + number + number // 2, 2))
            return value >> 4 if number % 2 else value & 0xFFF
        width = self.bits // 8
        return int.from_bytes(self.read(self.fat(0) + number * width, width), "little") & 0x0FFFFFFF

    def set_fat(self, copies, number, value):
        for copy in copies:
            if self.bits == 12:
                at = self.fat(copy) + number + number // 2
                old, = struct.unpack("<H", self.read(at, 2))
                new = old & 0x000F | value << 4 if number % 2 else old & 0xF000 | value
                self.write(at, struct.pack("<H", new))
            else:
                width = self.bits // 8
                self.write(self.fat(copy) + number * width, value.to_bytes(width, "little"))

    def chain_from(self, number):
        chain = []
        while 2 <= number < self.clusters + 2 and number not in chain:
            chain.append(number)
            number = self.get_fat(number)
        return chain

    def free_clusters(self):
        table = self.read(self.fat(0), self.fat_bytes)
        if self.bits == 12:
            return sum(1 for n in range(2, self.clusters + 2) if self.get_fat(n) == 0)
        code = "<%dH" if self.bits == 16 else "<%dI"
        entries = struct.unpack(code % (self.clusters + 2), table[:(self.clusters + 2) * self.bits // 8])
        return sum(1 for entry in entries[2:] if entry & 0x0FFFFFFF == 0)

    def entry(self, path):
        """Where the short entry of a path of short names lies."""
        at = None
        for part in path.strip("/").upper().split("/"):
            base, _, extension = part.partition(".")
            name = (base.ljust(8) + extension.ljust(3)).encode("ascii")
            at = self.find(self.directory(at), name)
            if at is None:
                raise RecipeError(f"{path}: no {part}")
        return at

    def directory(self, at):
        if at is None and not self.fat32:
            return [(self.root_at, self.root_entries * 32)]
        start = self.root_cluster if at is None else self.first_cluster(at)
        return [(self.cluster(number), self.cluster_bytes) for number in self.chain_from(start)]

    def first_cluster(self, at):
        entry = self.read(at, 32)
        high, low = struct.unpack_from("<H", entry, 20)[0], struct.unpack_from("<H", entry, 26)[0]
        return (high << 16 if self.fat32 else 0) | low

    def find(self, pieces, name):
        for start, length in pieces:
            data = self.read(start, length)
            for i in range(0, length, 32):
                if data[i:i + 11] == name and data[i + 11] & 0x3F != 0x0F:
                    return start + i
        return None

    def chain(self, path):
        return self.chain_from(self.first_cluster(self.entry(path)))

    def move_root(self, to):
        old = self.root_cluster
        self.write(self.cluster(to), self.read(self.cluster(old), self.cluster_bytes))
        self.write(self.cluster(old), bytes(self.cluster_bytes))
        self.set_fat(range(self.nr_fats), to, self.get_fat(old))
        self.set_fat(range(self.nr_fats), old, 0)
        for boot in (0, self.backup):
            self.write(boot + 44, struct.pack("<I", to))

    def replace_placeholder_units(self):
        data = bytearray(self.read(0, os.path.getsize(self.path)))
        where = [*range(1, 11, 2), *range(14, 26, 2), *range(28, 32, 2)]
        for at in range(self.root_at, len(data), 32):
            if data[at + 11] == 0x0F and data[at + 12] == 0 and data[at + 26:at + 28] == b"\0\0":
                for offset in where:
                    unit, = struct.unpack_from("<H", data, at + offset)
                    if unit in UNITS:
                        self.write(at + offset, struct.pack("<H", UNITS[unit]))


class Maker:
    def __init__(self, directory):
        self.directory = directory
        self.mkfs_fat = shutil.which("mkfs.fat", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        self.mkfs_wbfat = os.environ.get("MKFS_WBFAT", "mkfs.wbfat")
        self.scratch = None
        self.image = None
        self.environment = {"PATH": os.environ.get("PATH", ""), "HOME": directory, "TZ": "UTC", "LC_ALL": "C.UTF-8",
                            "SOURCE_DATE_EPOCH": str(EPOCH), "MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": "/dev/null"}

    def run(self, *command):
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise RecipeError(f"{' '.join(command)[:200]}: {result.stdout} {result.stderr}")

    def make(self, name, steps):
        path = os.path.join(self.directory, name + ".img")
        if os.path.exists(path):
            os.unlink(path)
        self.image = Image(path)
        with tempfile.TemporaryDirectory() as self.scratch:
            for step in steps:
                word, _, rest = step.partition(" ")
                try:
                    getattr(self, "step_" + word.replace(".", "_"))(rest)
                except (AttributeError, IndexError, ValueError, SyntaxError, RecipeError) as error:
                    raise RecipeError(f"{name}: {step}: {error}") from error
        return path

    def step_size(self, kib):
        with open(self.image.path, "wb") as file:
            file.truncate(int(kib) * 1024)

    def step_from(self, name):
        # cp keeps the holes.
        self.run("cp", "--sparse=always", os.path.join(self.directory, name + ".img"), self.image.path)
        self.image.load()

    def step_mkfs_fat(self, options):
        self.run(self.mkfs_fat, "--invariant", *options.split(), self.image.path)
        self.image.load()

    def step_mkfs_wbfat(self, options):
        self.run(self.mkfs_wbfat, "--invariant", *options.split(), self.image.path)
        self.image.load()

    def host_file(self, name, size, seed=None):
        """A file whose bytes are a function of its name or seed, with the time of all files."""
        path = os.path.join(self.scratch, name)
        with open(path, "wb") as file:
            file.write(random.Random(seed or name).randbytes(size))
        os.utime(path, (EPOCH, EPOCH))
        return path

    def step_file(self, rest):
        path, size = rest.rsplit(" ", 1)
        for mark, placeholder in PLACEHOLDERS.items():
            path = path.replace(mark * 2, placeholder)
        self.run("mcopy", "-m", "-i", self.image.path, self.host_file("content", int(size), path), "::" + path)
        if any(placeholder in path for placeholder in PLACEHOLDERS.values()):
            self.image.replace_placeholder_units()

    def step_files(self, rest):
        prefix, count, size = rest.split()
        directory, _, stem = prefix.rpartition("/")
        stem = stem.lstrip(".")
        width = len(str(int(count) - 1))
        hosts = [self.host_file(f"{stem}{number:0{width}}", int(size)) for number in range(int(count))]
        self.run("mcopy", "-m", "-i", self.image.path, *hosts, "::" + (directory or "/"))

    def step_dir(self, path):
        self.run("mmd", "-i", self.image.path, "::" + path)

    def step_tree(self, depth):
        path = ""
        for level in range(int(depth)):
            path += f"/D{level}"
            self.step_dir(path)
            self.step_file(f"{path}/F{level}.TXT {level + 1}")

    def step_delete(self, path):
        self.run("mdel", "-i", self.image.path, "::" + path)

    def step_fill(self, path):
        self.step_file(f"{path} {self.image.free_clusters() * self.image.cluster_bytes}")

    def step_fragment(self, count):
        """Files of one cluster, every second of them deleted again."""
        self.step_dir("/HOLES")
        self.step_files(f"/HOLES/H {count} {self.image.cluster_bytes}")
        width = len(str(int(count) - 1))
        self.run("mdel", "-i", self.image.path, *[f"::/HOLES/H{n:0{width}}" for n in range(0, int(count), 2)])

    def step_root_at(self, cluster):
        self.image.move_root(int(cluster))

    def step_truncate(self, size):
        os.truncate(self.image.path, int(size))

    def evaluate(self, text):
        """Recipes are ours: an expression may use the names below and nothing else."""
        image = self.image
        names = {"boot": 0, "chain": image.chain, "entry": image.entry, "cluster": image.cluster, "fat": image.fat,
                 "noise": noise, "le16": le16}
        for name in ("fsinfo", "backup"):
            names[name] = getattr(image, name, 0)
        return eval(text, {"__builtins__": {}}, names)  # pylint: disable=eval-used

    def step_patch(self, rest):
        where, what = rest.split(" ", 1)
        if what[0] == '"':
            data = self.evaluate("b" + what)
        elif "(" in what:
            data = self.evaluate(what)
        elif "*" in what:
            digits, times = what.split("*")
            data = bytes.fromhex(digits) * int(times)
        else:
            data = bytes.fromhex(what)
        self.image.write(self.evaluate(where), data)

    def step_fat(self, rest):
        copies, number, value = rest.split(" ")
        copies = range(self.image.nr_fats) if copies == "all" else [int(copies)]
        self.image.set_fat(copies, self.evaluate(number), self.evaluate(value))


def read_recipes():
    recipes = {}
    with open(os.path.join(HERE, "recipes"), encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            text = line.rstrip("\n")
            if not text.strip() or text.startswith("#"):
                continue
            if not text.startswith(" "):
                if text in recipes:
                    raise RecipeError(f"recipes:{number}: {text} is there twice")
                recipes[text] = steps = []
            else:
                steps.append(text.strip())
    return recipes


def read_manifest():
    manifest = {}
    with open(os.path.join(HERE, "MANIFEST"), encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                name, xxh3, recipe = line.rstrip("\n").split("\t")
                manifest[name] = (xxh3, recipe)
    return manifest


def write_manifest(recipes, sums):
    with open(os.path.join(HERE, "MANIFEST"), "w", encoding="utf-8") as file:
        file.write("# name, xxh3 (64 bits) and recipe of every image; written by make_images.py --update\n")
        for name, steps in recipes.items():
            file.write(f"{name}\t{sums[name]}\t{'; '.join(steps)}\n")


def compare(recipes, sums):
    manifest = read_manifest()
    wrong = [name for name, xxh3 in sums.items() if manifest.get(name) != (xxh3, "; ".join(recipes[name]))]
    gone = [name for name in manifest if name not in recipes]
    for name in wrong:
        print(f"{name}: {sums[name]}, MANIFEST has {manifest.get(name, ('nothing',))[0]} or another recipe")
    for name in gone:
        print(f"{name}: in MANIFEST, but there is no recipe")
    print(f"{len(sums) - len(wrong)} of {len(sums)} images are as MANIFEST says")
    return not wrong and not gone


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--only", help="this image alone; a recipe with `from` needs its source made before")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    os.makedirs(arguments.directory, exist_ok=True)
    maker = Maker(os.path.abspath(arguments.directory))
    if maker.mkfs_fat is None or shutil.which("mcopy") is None:
        print("dosfstools or mtools is not installed: no images can be made")
        return 1 if os.environ.get("CI") == "true" else 77
    recipes = read_recipes()
    sums = {}
    for name, steps in recipes.items():
        if arguments.only in (None, name):
            started = time.monotonic()
            path = maker.make(name, steps)
            if arguments.verbose:
                print(f"{name}: {time.monotonic() - started:.2f} s")
            result = subprocess.run([os.environ.get("XXH3SUM", "xxh3sum"), path], capture_output=True, text=True, check=True)
            sums[name] = result.stdout.split()[0]
    if arguments.update:
        write_manifest(recipes, sums)
        return 0
    return 0 if compare(recipes, sums) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RecipeError as error:
        sys.exit(f"make_images: {error}")
