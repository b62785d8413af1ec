#!/usr/bin/env python3
"""The race: fio jobs on wbfat and on the peers installed here, side by side in one run.

Each round runs every job on every filesystem, one after the other, so that what the machine does to one it does to
all. Printed are the machine with its load, the medians, and the ratio of wbfat to each peer. Everybody works on a loop
device over a file of --directory. Needs root (mounting peers) and the packages fio, fusefat, exfat-fuse, exfatprogs.
Everything mounted is unmounted.

What is compared: a write job ends with fsync, and its time counts. wbfat writes data, FAT and entry in their order and
flushes the device between them; exfat-fuse writes all and flushes once; fusefat has no fsync, so its figures end before
anything need be on the disk. The peers send each write on; wbfat lets the kernel gather them (cache=writeback). Compare
like with like by

    tools/bench/race.py --wbfat build/src/wbfat --mkfs build/tools/mkfs/mkfs.wbfat --also cache=auto
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

IMAGE_MIB = 512

# name -> fio arguments. Sizes are small enough for every peer, `loops` long enough to measure.
JOBS = {
    "seq write 1M": ["--rw=write", "--bs=1M", "--size=256M", "--end_fsync=1"],
    "seq write 4k": ["--rw=write", "--bs=4k", "--size=64M", "--end_fsync=1"],
    "seq read 1M": ["--rw=read", "--bs=1M", "--size=256M"],
    "seq read 4k": ["--rw=read", "--bs=4k", "--size=64M"],
    "rand write 4k": ["--rw=randwrite", "--bs=4k", "--size=64M", "--io_size=32M", "--end_fsync=1"],
    "rand read 4k": ["--rw=randread", "--bs=4k", "--size=64M", "--io_size=32M"],
    "rand write 4k fsync": ["--rw=randwrite", "--bs=4k", "--size=16M", "--io_size=2M", "--fsync=1"],
}
JOB_SECONDS_MAX = 120


def run(*command, **kwargs):
    return subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **kwargs)


class Wbfat:
    def __init__(self, arguments, options=""):
        self.arguments = arguments
        self.name = f"wbfat {options}" if options else "wbfat"
        self.options = ["-o", options] if options else []

    def format(self, image):
        run(self.arguments.mkfs, "-F", "32", "-C", image, str(IMAGE_MIB * 1024))

    def mount(self, image, point):
        run(self.arguments.wbfat, image, point, *self.options)


class ExfatFuse:
    name = "exfat-fuse"

    def format(self, image):
        with open(image, "wb") as file:
            file.truncate(IMAGE_MIB << 20)
        run("mkfs.exfat", image)

    def mount(self, image, point):
        run("mount.exfat-fuse", image, point)


class Fusefat:
    name = "fusefat"

    def format(self, image):
        run("mkfs.fat", "-F", "32", "-C", image, str(IMAGE_MIB * 1024))

    def mount(self, image, point):
        run("fusefat", "-o", "rw+", image, point)


def drop_host_caches():
    try:
        os.sync()
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3")
    except OSError:
        pass


def bandwidth(report):
    """KiB/s of the job, whichever way it went."""
    job = report["jobs"][0]
    return job["read"]["bw"] or job["write"]["bw"]


def run_job(point, job):
    """KiB/s, or None when the filesystem could not finish the job."""
    command = ["fio", "--name=race", f"--directory={point}", "--output-format=json", "--ioengine=psync",
               "--fallocate=none", "--randseed=1", *JOBS[job]]
    try:
        done = subprocess.run(command, capture_output=True, timeout=JOB_SECONDS_MAX, check=True)
        return bandwidth(json.loads(done.stdout[done.stdout.index(b"{"):]))
    except (subprocess.SubprocessError, ValueError, KeyError):
        return None


def unmount(point):
    for _ in range(50):
        if subprocess.run(["umount", point], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.2)
    subprocess.run(["umount", "-l", point], check=False)


def measure(filesystem, job, workdir):
    """A fresh volume for each measurement, so that no job inherits another's caches."""
    image = os.path.join(workdir, "image")
    point = os.path.join(workdir, "point")
    os.makedirs(point, exist_ok=True)
    filesystem.format(image)
    # exfat-fuse takes block devices only, so everybody gets one.
    loop = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
    try:
        filesystem.mount(loop, point)
        try:
            return run_job(point, job)
        finally:
            unmount(point)
    finally:
        run("losetup", "-d", loop)
        drop_host_caches()
        os.unlink(image)


def load():
    with open("/proc/loadavg", encoding="ascii") as file:
        return file.read().split()[0]


def machine():
    """One line that says where and what was measured, but for the load."""
    model = "an unknown CPU"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    tree = os.path.dirname(os.path.abspath(__file__))
    commit = subprocess.run(["git", "-C", tree, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return (f"{os.cpu_count()} x {model}, Linux {os.uname().release}, fio on a {IMAGE_MIB} MiB volume on a loop device, "
            f"commit {commit.stdout.strip() or 'unknown'}")


def print_table(results, filesystems, rounds):
    names = [f.name for f in filesystems]
    print(f"\nMiB/s, medians of {rounds}; in brackets wbfat's ratio to the other\n")
    print("| job | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for job in results:
        medians = {}
        for name in names:
            values = [v for v in results[job][name] if v is not None]
            medians[name] = statistics.median(values) / 1024 if values else None
        cells = []
        for name in names:
            if medians[name] is None:
                cells.append("fails")
            elif name == "wbfat" or not medians["wbfat"]:
                cells.append(f"{medians[name]:.1f}")
            else:
                cells.append(f"{medians[name]:.1f} ({medians['wbfat'] / medians[name]:.1f}x)")
        print(f"| {job} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wbfat", required=True)
    parser.add_argument("--mkfs", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write all figures there")
    parser.add_argument("--also", action="append", default=[], metavar="OPTIONS", help="wbfat once more, mounted with -o OPTIONS")
    parser.add_argument("--job", action="append", choices=list(JOBS), help="only this job (may be repeated)")
    parser.add_argument("--directory", help="where the image files lie (the usual place for temporary files)")
    arguments = parser.parse_args()
    arguments.wbfat = os.path.abspath(arguments.wbfat)
    arguments.mkfs = os.path.abspath(arguments.mkfs)

    filesystems = [Wbfat(arguments)] + [Wbfat(arguments, options) for options in arguments.also]
    for peer, program in ((ExfatFuse(), "mount.exfat-fuse"), (Fusefat(), "fusefat")):
        if shutil.which(program):
            filesystems.append(peer)
        else:
            print(f"{peer.name} is not installed, left out", file=sys.stderr)

    jobs = arguments.job or list(JOBS)
    results = {job: {f.name: [] for f in filesystems} for job in jobs}
    load_before = load()
    with tempfile.TemporaryDirectory(prefix="wbfat-race.", dir=arguments.directory) as workdir:
        for round_number in range(arguments.rounds):
            for job in jobs:
                for filesystem in filesystems:
                    print(f"round {round_number + 1}: {job}: {filesystem.name}", file=sys.stderr)
                    results[job][filesystem.name].append(measure(filesystem, job, workdir))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
    print(f"{machine()}; load {load_before} before, {load()} after")
    print_table(results, filesystems, arguments.rounds)


if __name__ == "__main__":
    main()
