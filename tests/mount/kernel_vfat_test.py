#!/usr/bin/env python3
"""Goal: wbfat and the kernel's vfat read each other's volumes alike, and follow the same rules.
Method: grow one tree (fat_tree.py) through wbfat on the host and through the kernel's vfat in User-Mode Linux, and compare
what both, and mtools, say about every file of either; ask both the same questions; let the kernel mount what a killed
daemon and a power cut left behind. WBFAT_SEED=n: another tree, other crashes.

Where better than the kernel is wanted, the comparison leaves it out: see BETTER."""

import errno
import hashlib
import os
import pathlib
import random
import re
import shutil
import signal
import threading

import fat_tree
import user_mode_linux
import wbfat_mount
from wbfat_mount import program, run

SEED = int(os.environ.get("WBFAT_SEED", "20"))
# name, size in MiB, arguments of mkfs
VOLUMES = [
    ("fat12-512", 4, ["-F", "12"]), ("fat16-512", 20, ["-F", "16", "-s", "2"]), ("fat32-512", 40, ["-F", "32", "-s", "1"]),
    ("fat12-4096", 12, ["-F", "12", "-S", "4096", "-s", "1"]), ("fat16-4096", 40, ["-F", "16", "-S", "4096", "-s", "1"]),
    ("fat32-4096", 300, ["-F", "32", "-S", "4096", "-s", "1"]),
]
MKFS = {name: arguments for name, _, arguments in VOLUMES}
TIMES = ("mtime", "ctime", "atime")
YEAR_2100 = 4102444800 * 10**9
# What the kernel does otherwise, and why ours is wanted.
BETTER = {
    "statfs name_max": "255 bytes is what programs expect of a name",
    "create '\\udced\\udca0\\udc80'": "how a lone surrogate on the disk is listed; the kernel drops it, and cannot open the file",
}
# What fsck.fat -n may say of a volume after a power cut.
AFTER_POWER_CUT = "|".join([
    r"fsck\.fat .*", r".*: \d+ files, \d+/\d+ clusters", r"Leaving filesystem unchanged\.",
    r"Dirty bit is set\. Fs was not properly unmounted and some data may be corrupt\.", r" Automatically removing dirty bit\.",
    r"Reclaimed \d+ unused clusters? \(\d+ bytes\)\.", r"Reclaiming unconnected clusters\.",
    r"Free cluster summary wrong \(\d+ vs\. really \d+\)", r"  Auto-correcting\.",
    r"FATs differ but appear to be intact\.", r"  Using first FAT\.",
    r'Orphaned long file name part ".*"', r"  Auto-deleting\.",
    # The kernel marks the boot sector alone.
    r"There are differences between boot sector and its backup\.", r"This is mostly harmless\. Differences: \(offset:original/backup\)",
    r"  65:0[01]/0[01]", r"  Not automatically fixing this\.",
])
RENAME_IN_FLIGHT = re.compile(
    r"(?m)^/(?P<one>.*?)(?P<new>\.new)?  and\n/(?P=one)(?(new)|\.new)\n  share clusters\.\n  Truncating second to \d+ bytes\.*\n"
    r"(/(?P=one)(\.new)?\n  File size is \d+ bytes, cluster chain length is \d+ bytes\.\n  Truncating file to \d+ bytes\.\n)?")
# Lost clusters with an owner: the chain is on the disk before the size.
LONG_CHAIN = re.compile(r"(?m)^/.*\n  File size is \d+ bytes, cluster chain length is > \d+ bytes\.\n  Truncating file to \d+ bytes\.\n")


def crash_pattern(length, seed):
    """The contents of crash_states' files: pattern() of tests/support/volume_fixture.h."""
    return bytes(at * 131 + (at >> 9) * 17 + seed * 29 + 1 & 0xFF for at in range(length))


def without(listing, *fields):
    return {path: {key: value for key, value in entry.items() if key not in fields} for path, entry in listing.items()}


def as_grown(listing):
    """What does not depend on when, and where in a directory, things were put. Beyond ~9 an alias has four digits of
    the time or of a hash; and we put a name into one sector where we can, so our directories may be longer."""
    same = without(listing, *TIMES)
    for entry in same.values():
        entry["alias"] = re.sub(r"^(..)[0-9A-F]{4}~[0-9]", r"\1....~.", entry["alias"])
        if entry["kind"] == "directory":
            del entry["size"], entry["blocks"]
    return same


def free_but_for_directories(answer):
    taken = sum(entry["blocks"] * 512 for entry in answer["list"].values() if entry["kind"] == "directory")
    return answer["space"]["free"] * answer["space"]["block"] + taken


def fsync_directory(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Workload(threading.Thread):
    """Writes, replaces, truncates and removes files until the volume is gone; keeps a ledger of what it was promised."""

    def __init__(self, root, seed):
        super().__init__()
        self.root = root
        self.random = random.Random(seed)
        self.promised = {}  # name -> digests one of which the file must have
        self.operations = 0
        self.failure = None

    def run(self):
        try:
            while True:
                self.random.choice([self.write, self.replace, self.remove, self.careless, self.careless])()
                self.operations += 1
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
                self.failure = error

    def pick(self):
        name = f"durable file number {self.random.randrange(12)}"
        return name, os.path.join(self.root, name)

    def write(self, suffix=""):
        name, path = self.pick()
        data = self.random.randbytes(self.random.randrange(30000))
        if not suffix:
            self.promised.pop(name, None)
        with open(path + suffix, "wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
        digest = hashlib.sha256(data).hexdigest()
        if not suffix:
            self.promised[name] = (digest,)
        return name, digest

    def replace(self):
        name, digest = self.write(".new")
        path = os.path.join(self.root, name)
        if name in self.promised:
            self.promised[name] += (digest,)
        os.rename(path + ".new", path)
        fsync_directory(self.root)
        self.promised[name] = (digest,)

    def remove(self):
        name, path = self.pick()
        self.promised.pop(name, None)
        if os.path.exists(path):
            os.unlink(path)

    def careless(self):
        directory = os.path.join(self.root, f"directory {self.random.randrange(3)}")
        os.makedirs(directory, exist_ok=True)
        path = os.path.join(directory, f"careless {self.random.randrange(9)}")
        with open(path, "ab", buffering=0) as file:
            file.write(self.random.randbytes(self.random.randrange(20000)))
        dice = self.random.randrange(4)
        if dice == 0:
            os.truncate(path, self.random.randrange(30000))
        elif dice == 1:
            os.unlink(path)


class KernelVfatTest(wbfat_mount.MountCase):
    def setUp(self):
        super().setUp()
        wbfat_mount.need_root()  # listings compare owners, and a mount by a user refuses others

    def volumes(self, maker="mkfs.wbfat"):
        return {name: self.make_image(mib, *arguments, name=name, maker=maker) for name, mib, arguments in VOLUMES}

    def guest(self, *job):
        answers, messages = user_mode_linux.run(self.directory / f"guest{len(list(self.directory.glob('guest*')))}", job)
        self.assertEqual([line for line in messages if re.match(r"FAT-fs .*error|.*(Oops|BUG|I/O error)", line)], [])
        return answers

    def assert_same(self, ours, theirs, what):
        """Two listings, told apart file by file."""
        self.assertEqual(sorted(ours), sorted(theirs), f"{what}: names")
        different = [f"{path}: {key} is {entry.get(key)} here, {theirs[path].get(key)} in the kernel"
                     for path, entry in ours.items() for key in entry if entry[key] != theirs[path].get(key)]
        self.assertEqual(different, [], what)

    def assert_same_space(self, ours, theirs, what):
        self.assertEqual({**ours["space"], "name_max": 0}, {**theirs["space"], "name_max": 0}, what)

    def grow(self, image):
        """Returns the listing of the volume while it is still mounted."""
        volume = self.mount(image)
        fat_tree.Grower(str(volume), SEED).grow()
        listing = fat_tree.listing(str(volume))
        self.unmount(volume)
        return listing

    def ask_wbfat(self, image):
        volume = self.mount(image, wbfat_mount.VFAT_OPTIONS + ",ro")
        answer = {"list": fat_tree.listing(str(volume)), "space": fat_tree.space(str(volume))}
        self.unmount(volume)
        return answer

    def copy_with_mtools(self, image, names):
        """What a third reader finds of these names in the root: path -> the copy."""
        target = self.directory / f"mtools-{image.name}"
        target.mkdir()
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        copied = run(program("mcopy"), "-i", image, "-s", "-n", "-m", "-Q", *(f"::{name}" for name in names), target,
                     env=environment)
        self.assertEqual(copied.returncode, 0, f"{image.name}: {copied.stdout}{copied.stderr}")
        return {os.path.relpath(os.path.join(directory, name), target): os.path.join(directory, name)
                for directory, folders, files in os.walk(target) for name in folders + files}

    def assert_mtools_agrees(self, image, listing):
        """Names, contents and modification times. mtools crashes on names over 255 bytes, which are in limits/, has no
        characters outside the BMP, and holds 2100 to be a leap year."""
        listing = {path: entry for path, entry in listing.items() if path != "." and not path.startswith("limits")}
        copies = self.copy_with_mtools(image, [path for path in listing if "/" not in path])
        expected = {"".join("__" if ord(character) > 0xFFFF else character for character in path): entry
                    for path, entry in listing.items()}
        self.assertEqual(sorted(copies), sorted(expected), f"mtools: {image.name}")
        for path, entry in expected.items():
            if entry["kind"] == "file":
                self.assertEqual(fat_tree.digest(copies[path]), entry["sha256"], f"mtools: {image.name}: {path}")
                if entry["mtime"] < YEAR_2100:
                    self.assertEqual(os.stat(copies[path]).st_mtime_ns, entry["mtime"], f"mtools: {image.name}: {path}")

    def test_the_kernel_reads_what_we_wrote(self):
        images = self.volumes()
        live = {name: self.grow(image) for name, image in images.items()}
        kernels = self.guest(*(user_mode_linux.step(image, "list", "space", read_only=True) for image in images.values()))
        for (name, image), kernel in zip(images.items(), kernels):
            with self.subTest(name):
                self.assert_same(without(live[name], "atime"), without(kernel["list"], "atime"), f"{name}, still mounted")
                ours = self.ask_wbfat(image)
                self.assert_same(ours["list"], kernel["list"], f"{name}, mounted again")
                self.assert_same_space(ours, kernel, name)
                self.assert_mtools_agrees(image, ours["list"])

    def test_we_read_what_the_kernel_wrote_and_would_have_written_it_alike(self):
        images = self.volumes(maker="mkfs.fat")
        kernels = self.guest(*(user_mode_linux.step(image, "grow", "list", "space", seed=SEED) for image in images.values()))
        for (name, image), kernel in zip(images.items(), kernels):
            with self.subTest(name):
                self.fsck(image)
                ours = self.ask_wbfat(image)
                self.assert_same(without(ours["list"], "atime"), without(kernel["list"], "atime"), name)
                self.assert_same_space(ours, kernel, name)
                grown = self.make_image(os.stat(image).st_size >> 20, *MKFS[name], name=f"{name}-ours")
                self.grow(grown)
                again = self.ask_wbfat(grown)
                self.assert_same(as_grown(again["list"]), as_grown(kernel["list"]), f"{name}, grown by us")
                self.assertEqual(free_but_for_directories(again), free_but_for_directories(kernel), name)

    def test_both_answer_alike(self):
        image = self.make_image(40, "-F", "32", "-s", "1")
        volume = self.mount(image)
        ours = fat_tree.probes(str(volume))
        self.unmount(volume)
        kernel = self.guest(user_mode_linux.step(self.make_image(40, "-F", "32", "-s", "1", name="theirs"), "probe"))[0]["probe"]
        different = [f"{what}: {answer!r} here, {kernel[what]!r} in the kernel"
                     for what, answer in ours.items() if what not in BETTER and answer != kernel[what]]
        for what in BETTER:
            self.assertNotEqual(ours[what], kernel[what], "BETTER needs no such line any more")
        self.assertEqual(different, [])

    def assert_only_what_a_power_cut_may_leave(self, image):
        """Nothing worse than lost clusters, the dirty mark, and the two names of a rename in flight."""
        checked = run(program("fsck.fat"), "-n", image)
        said = LONG_CHAIN.sub("", RENAME_IN_FLIGHT.sub("", checked.stdout))
        unexpected = [line for line in said.splitlines() if line and not re.fullmatch(AFTER_POWER_CUT, line)]
        self.assertEqual(unexpected, [], f"{image}: {checked.stdout}")

    def assert_the_kernel_goes_on(self, promised):
        """promised: image -> {name: digests allowed}. The kernel mounts each for writing, finds everything promised,
        writes a file, unmounts; wbfat then sees what the kernel saw."""
        for image in promised:
            self.assert_only_what_a_power_cut_may_leave(image)
        answers = self.guest(*(user_mode_linux.step(image, "create", "list") for image in promised))
        for (image, files), kernel in zip(promised.items(), answers):
            with self.subTest(image.name):
                for name, digests in files.items():
                    self.assertIn(name, sorted(kernel["list"]))
                    self.assertIn(kernel["list"][name]["sha256"], digests, name)
                self.assertEqual(kernel["list"]["made by the kernel.txt"]["size"], len("the kernel was here"))
                self.assert_only_what_a_power_cut_may_leave(image)
                before = fat_tree.digest(image)
                volume = self.mount(image, wbfat_mount.VFAT_OPTIONS + ",ro")
                ours = fat_tree.listing(str(volume))
                fsync_directory(str(volume))
                self.unmount(volume, fsck=False)
                self.assertEqual(fat_tree.digest(image), before, f"{image.name} was mounted read-only")
                self.assert_same(without(ours, "atime"), without(kernel["list"], "atime"), image.name)

    def snapshot(self, volume, workload, path):
        """What a power cut at this moment would leave: a stopped daemon has no write left to start."""
        volume.process.send_signal(signal.SIGSTOP)
        try:
            os.waitid(os.P_PID, volume.process.pid, os.WSTOPPED | os.WNOWAIT)
            promised = dict(workload.promised)
            shutil.copyfile(volume.device, path)
        finally:
            volume.process.send_signal(signal.SIGCONT)
        return promised

    def test_the_kernel_goes_on_where_a_killed_daemon_stopped(self):
        promised = {}
        for name, mib, arguments in VOLUMES[:4]:
            image = self.make_image(mib, *arguments, name=name)
            volume = self.mount(image, wbfat_mount.VFAT_OPTIONS + ",commit=1,dirty_writeback_centisecs=10")
            workload = Workload(str(volume), SEED)
            workload.start()
            for number in range(2):
                goal = workload.operations + 15
                wbfat_mount.eventually(lambda: workload.operations >= goal or not workload.is_alive(), "some work")
                path = self.directory / f"{name}-stopped-{number}"
                promised[path] = self.snapshot(volume, workload, path)
            goal = workload.operations + 15
            wbfat_mount.eventually(lambda: workload.operations >= goal or not workload.is_alive(), "some work")
            volume.process.kill()
            volume.process.wait()
            workload.join(wbfat_mount.DEADLINE_SECONDS)
            self.assertFalse(workload.is_alive())
            self.assertIsNone(workload.failure)
            promised[image] = workload.promised
            volume.dispose()
        self.assertTrue(all(promised.values()))
        self.assert_the_kernel_goes_on(promised)

    def test_the_kernel_goes_on_after_a_power_cut(self):
        wbfat_mount.need("CRASH_STATES" in os.environ, "CRASH_STATES does not name the program")
        made = run(os.environ["CRASH_STATES"], self.directory, SEED, 4)
        self.assertEqual(made.returncode, 0, made.stdout + made.stderr)
        promised = {}
        for line in made.stdout.splitlines():
            what, rest = line.split(" ", 1)
            if what == "image":
                files = promised[pathlib.Path(rest)] = {}
            elif what == "kept":
                size, seed, name = rest.split(" ", 2)
                files[name] = (hashlib.sha256(crash_pattern(int(size), int(seed))).hexdigest(),)
        self.assertEqual(len(promised), 12)
        self.assertTrue(any(promised.values()))
        self.assert_the_kernel_goes_on(promised)


if __name__ == "__main__":
    wbfat_mount.main()
