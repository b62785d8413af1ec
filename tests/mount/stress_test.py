#!/usr/bin/env python3
"""Goal: eight threads that truncate, write, map and sync files find every byte right, and so do fsck.fat and mtools.
Method: wbfat-stress on a mount whose cache is smaller than the files and that has every assertion on, for each FAT
type, with and without -o sync, on an image and on a loop device. Unmounted, the volume goes to fsck.fat -n, and mcopy
reads every file, which must be as the run's manifest says: that is computed from what was written, not from what a read
has returned.

    stress_test.py                                   some hundred operations of each thread on each volume
    stress_test.py --seconds 600                     ten minutes on each; a line for each on standard error
    stress_test.py --seconds 600 -k fat12_sync_loop  one of them, to run several at once

    stress_test.py --seconds 600 -k from_5_11         as below, under 5.11 first

One volume for each safe protocol is mounted with that, and wbfatctl switches it to the next one every second.

$WBFAT, $MKFS_WBFAT, $WBFAT_STRESS and $WBFATCTL name the programs; $WBFAT_SEED repeats the choices.
"""

import argparse
import itertools
import json
import os
import sys
import threading

import wbfat_mount
from wbfat_mount import program, run

STRESS = os.environ.get("WBFAT_STRESS", "wbfat-stress")
WBFATCTL = os.environ.get("WBFATCTL", "wbfatctl")
# Those that neither the stale wake-up nor the reuse of a page can harm (DESIGN.md).
SAFE_PROTOCOLS = ("5.11", "6.8", "recheck-on-wake", "wake-clears", "wait-to-set")
SWITCH_SECONDS = 1
# FAT bits: MiB of the volume and arguments of mkfs.fat. The smallest is full most of the time.
VOLUMES = {12: (15, "-s", "8"), 16: (128,), 32: (256,)}
# The kernel must not gather writes where write(2) has to say that the volume is full, and not the next truncate; with
# -o sync it does say so. Where it does not gather, there is no storing through mappings: when Linux 6.18 writes such a
# page back, it clears what a write under way has just put behind the old end of the file. It does so in front of
# exfat-fuse too.
NOT_GATHERED = {"options": ("cache=auto",), "stress": ("--no-mmap",)}
GATHERED = {"options": ("cache=writeback",), "stress": ()}
# Threads with files of their own; and threads that meet in the same pages, while files change their names.
MANNERS = {"own": (), "shared": ("--shared", "--names")}


# Operations of each thread. Those of a sync mount each wait for the device.
SHORT_RUN = {True: ("--ops", 50), False: ("--ops", 150)}
# Under a sanitizer, each of the choices once.
SANITIZED = {"fat12_default_image_shared", "fat16_sync_loop_own", "fat32_default_loop_own", "fat32_sync_image_shared"}


class Switching(threading.Thread):
    """Switches a mount from one safe protocol to the next, from `first` on, until it is told to stop."""

    def __init__(self, mount, first):
        super().__init__()
        self.mount = mount
        start = SAFE_PROTOCOLS.index(first) + 1
        self.protocols = itertools.cycle(SAFE_PROTOCOLS[start:] + SAFE_PROTOCOLS[:start])
        self.over = threading.Event()
        self.switched = 0
        self.failures = []

    def run(self):
        while not self.failures:
            done = run(WBFATCTL, self.mount, "protocol", "set", next(self.protocols),
                       timeout=wbfat_mount.WATCHDOG_SECONDS)
            if done.returncode != 0:
                self.failures.append(done.stderr)
            self.switched += 1
            if self.over.wait(SWITCH_SECONDS):
                return

    def stop(self):
        self.over.set()
        self.join()


class Settings:
    length = None  # of a run; None: short


class StressTest(wbfat_mount.MountCase):
    def stress(self, bits, options, on_loop, manner, protocol=None):
        mib, *mkfs = VOLUMES[bits]
        image = self.make_image(mib, "-F", bits, *mkfs)
        device = self.loop(image) if on_loop else image
        kernel = NOT_GATHERED if bits == 12 and "sync" not in options else GATHERED
        mount = self.mount(device, ",".join(("utf8", "cache_size=16M", "assert=all:bug", *kernel["options"], *options,
                                             *([f"protocol={protocol}"] if protocol else []))))
        switching = Switching(mount, protocol) if protocol else None
        if switching:
            self.addCleanup(switching.stop)
            switching.start()
        manifest = self.directory / "manifest"
        length = Settings.length or SHORT_RUN["sync" in options]
        seed = ["--seed", os.environ["WBFAT_SEED"]] if "WBFAT_SEED" in os.environ else []
        stressed = run(STRESS, "truncate", mount, "--threads", 8, *length, "--manifest", manifest, "--json",
                       *MANNERS[manner], *kernel["stress"], *seed, timeout=wbfat_mount.WATCHDOG_SECONDS)
        self.assertEqual(stressed.returncode, 0, stressed.stdout + stressed.stderr + mount.log())
        report = json.loads(stressed.stdout)
        if switching:
            switching.stop()
            self.assertEqual(switching.failures, [])
            self.assertGreater(switching.switched, 0)
            report["switched"] = switching.switched
        self.unmount(mount)
        self.assertNotIn("WARNING at", mount.log())
        self.read_with_mtools(device, manifest)
        return report

    def read_with_mtools(self, device, manifest):
        copies = self.directory / "copies"
        copies.mkdir()
        read = run(program("mcopy"), "-n", "-i", device, "::*", copies, timeout=wbfat_mount.WATCHDOG_SECONDS,
                   env={**os.environ, "MTOOLS_SKIP_CHECK": "1"})
        self.assertEqual(read.returncode, 0, read.stderr)
        verified = run(STRESS, "verify", manifest, copies, timeout=wbfat_mount.WATCHDOG_SECONDS)
        self.assertEqual(verified.returncode, 0, verified.stdout + verified.stderr)

    def test_mtools_would_see_a_wrong_byte(self):
        image = self.make_image(16)
        mount = self.mount(image, "utf8,cache=auto")
        manifest = self.directory / "manifest"
        stressed = run(STRESS, "truncate", mount, "--ops", 200, "--no-mmap", "--manifest", manifest)
        self.assertEqual(stressed.returncode, 0, stressed.stdout + stressed.stderr)
        victim = max(mount.path.iterdir(), key=lambda path: path.stat().st_size)
        with open(victim, "r+b") as file:
            byte = file.read(1)[0]
            file.seek(0)
            file.write(bytes([byte ^ 1]))
        self.unmount(mount)
        with self.assertRaisesRegex(AssertionError, victim.name):
            self.read_with_mtools(image, manifest)


def add_volumes():
    for bits, sync, on_loop, manner in itertools.product(VOLUMES, (False, True), (False, True), MANNERS):
        name = "_".join((f"fat{bits}", "sync" if sync else "default", "loop" if on_loop else "image", manner))
        if "WBFAT_SANITIZER" in os.environ and name not in SANITIZED:
            continue

        def test(self, name=name, bits=bits, sync=sync, on_loop=on_loop, manner=manner):
            report = self.stress(bits, ("sync",) if sync else (), on_loop, manner)
            print(f"{name}: {json.dumps(report)}", file=sys.stderr)
        setattr(StressTest, f"test_{name}", test)


    for protocol in SAFE_PROTOCOLS if "WBFAT_SANITIZER" not in os.environ else ():
        name = "from_" + protocol.replace(".", "_").replace("-", "_")

        def test_switched(self, name=name, protocol=protocol):
            report = self.stress(32, (), False, "shared", protocol)
            print(f"{name}: {json.dumps(report)}", file=sys.stderr)
        setattr(StressTest, f"test_{name}", test_switched)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0)
    arguments, sys.argv[1:] = parser.parse_known_args()
    if arguments.seconds:
        Settings.length = ("--seconds", arguments.seconds)
        wbfat_mount.WATCHDOG_SECONDS += arguments.seconds
    add_volumes()
    wbfat_mount.main()
