#!/usr/bin/env python3
"""Random operations on a mount and on a plain directory give equal answers, and leave equal trees.

Each campaign is several rounds of wbfat-model on one volume; between rounds the volume is unmounted, checked by
fsck.fat -n, mounted again and compared whole with the plain directory.

    model_test.py                      every campaign, short: for a build's tests
    model_test.py --full [OPS]         OPS operations (1,000,000) over all campaigns, with progress
    model_test.py --full OPS --only fat16-none,fat12
    model_test.py --first-seed N       other choices: each campaign has a seed of its own, counted from N

$WBFAT and $WBFAT_MODEL name the programs.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

import wbfat_mount
from wbfat_mount import MountCase, run

MODEL = os.environ.get("WBFAT_MODEL", "wbfat-model")
# A kernel that gathers writes has answers of its own: one campaign asks for that.
OPTIONS = "utf8,umask=022,tz=UTC,cache=auto"
FULL_OPS = 1_000_000
# A round of a full run, on a busy machine.
FULL_ROUND_SECONDS = 3600


@dataclasses.dataclass(frozen=True)
class Campaign:
    name: str
    mib: float
    mkfs: tuple
    options: str
    model: tuple
    short_ops: int  # of each round
    share: float    # of the operations of a full run
    directory: str = ""  # below the root, whose size is fixed on FAT12 and FAT16


SMALL_FILES = ("--max-size", "48K", "--max-nodes", "100")
CAMPAIGNS = (
    Campaign("fat12", 15, ("-F", "12", "-s", "8"), "cache_size=4M", SMALL_FILES, 2500, 0.16, "m"),
    Campaign("fat16", 64, ("-F", "16", "-s", "4"), "cache_size=4M", (), 2500, 0.16, "m"),
    Campaign("fat32", 256, ("-F", "32", "-s", "1"), "cache_size=16M", (), 2500, 0.20),
    Campaign("fat32-4k", 512, ("-F", "32", "-S", "4096"), "cache_size=16M", (), 1500, 0.10),
    Campaign("fat16-none", 64, ("-F", "16"), "cache=none,cache_size=4M", ("--no-mmap",), 2000, 0.12, "m"),
    Campaign("fat32-writeback", 256, ("-F", "32"), "cache=writeback,cache_size=16M", ("--no-four-gib", "--kernel-gathers"), 2500, 0.14),
    Campaign("fat16-full", 3, ("-F", "16", "-s", "1"), "cache_size=4M",
             # A direct write that does not fit says ENOSPC after it has changed the bytes that were there.
             ("--may-fill", "--no-mmap", "--no-direct", "--max-size", "512K", "--max-nodes", "60"), 2000, 0.08, "m"),
    Campaign("fat32-sync", 128, ("-F", "32"), "sync,cache_size=16M", SMALL_FILES, 400, 0.03),
    Campaign("fat12-sync", 4, ("-F", "12"), "sync,cache_size=4M",
             ("--max-size", "16K", "--max-nodes", "60"), 300, 0.01, "m"),
)
SHORT_ROUNDS = 2
FULL_ROUNDS = 5


class Settings:
    full_ops = 0
    seed = 1
    campaigns = CAMPAIGNS
    total_ops = 0


class ModelCase(MountCase):
    def setUp(self):
        super().setUp()
        if Settings.full_ops:
            wbfat_mount.WATCHDOG_SECONDS = FULL_ROUND_SECONDS
        parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        plain = tempfile.TemporaryDirectory(prefix="wbfat-model-", dir=parent)
        self.addCleanup(plain.cleanup)
        self.reference = pathlib.Path(plain.name)

    def model(self, directory, *arguments):
        """Runs wbfat-model; its report, with the exit code in "code" and what it said in "said"."""
        command = [MODEL, "--dir", directory, "--reference", self.reference, "--json", *arguments]
        if Settings.full_ops and sys.stderr.isatty():
            command.append("--progress")
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, errors="replace", timeout=FULL_ROUND_SECONDS, check=False)
        report = json.loads(done.stdout) if done.stdout.startswith("{") else {}
        report.update(code=done.returncode, said=done.stderr)
        return report

    def directory_on(self, mount, name):
        path = mount.path / name if name else mount.path
        path.mkdir(exist_ok=True)
        return path


class EqualAnswersTest(ModelCase):
    """One method per campaign, made below."""

    def run_campaign(self, campaign, rounds, ops):
        image = self.make_image(campaign.mib, *campaign.mkfs)
        options = f"{OPTIONS},{campaign.options}"
        seed = Settings.seed + CAMPAIGNS.index(campaign)
        for number in range(rounds + 1):
            mount = self.mount(image, options)
            arguments = [*campaign.model, "--seed", seed, "--round", number]
            arguments += ["--continue"] if number > 0 else []
            started = time.monotonic()
            # The last round only compares what the one before left.
            report = self.model(self.directory_on(mount, campaign.directory), *arguments, "--ops",
                                ops if number < rounds else 0)
            self.assertEqual(report["code"], 0,
                             f"{campaign.name}, seed {seed}, round {number}\n{report['said']}{mount.log()}")
            self.unmount(mount)
            Settings.total_ops += report["ops"]
            if Settings.full_ops:
                rate = report["ops"] / max(report["seconds"], 0.001)
                print(f"  {campaign.name} seed {seed} round {number}: {report['ops']} operations, "
                      f"{rate:.0f}/s, {report['files']} files, {report['refused_no_space']} times full, "
                      f"{time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


class NoticesTest(ModelCase):
    """The model must be able to fail."""

    def setUp(self):
        super().setUp()
        self.image = self.make_image(64, "-F", "16")

    def grow(self, mount):
        report = self.model(mount.path, "--ops", 600, "--max-size", "16K", "--max-nodes", "40")
        self.assertEqual(report["code"], 0, report["said"])
        return [path for path in mount.path.rglob("*") if path.is_file() and path.stat().st_size > 0]

    def expect_noticed(self, mount, words):
        report = self.model(mount.path, "--continue", "--ops", 0)
        self.assertEqual(report["code"], 1, "not noticed")
        self.assertIn(words, report["failure"])
        self.unmount(mount)

    def test_notices_one_changed_byte(self):
        mount = self.mount(self.image, OPTIONS)
        victim = self.grow(mount)[0]
        before = victim.stat()
        with open(victim, "r+b") as file:
            byte = file.read(1)[0]
            file.seek(0)
            file.write(bytes([byte ^ 1]))
        os.utime(victim, (before.st_atime, before.st_mtime))
        self.expect_noticed(mount, "content differs at 0")

    def test_notices_a_longer_file(self):
        mount = self.mount(self.image, OPTIONS)
        with open(self.grow(mount)[0], "ab") as file:
            file.write(b"x")
        self.expect_noticed(mount, "size is")

    def test_notices_a_lost_name(self):
        mount = self.mount(self.image, OPTIONS)
        self.grow(mount)[0].unlink()
        self.expect_noticed(mount, "readdir does not show")

    def test_notices_a_stray_name(self):
        mount = self.mount(self.image, OPTIONS)
        self.grow(mount)
        (mount.path / "stray.xyz").touch()
        self.expect_noticed(mount, "readdir shows 'stray.xyz'")

    def test_notices_a_wrong_time(self):
        mount = self.mount(self.image, OPTIONS)
        victim = self.grow(mount)[0]
        os.utime(victim, (5e8, 5e8))
        self.expect_noticed(mount, "time of the last change")

    def test_notices_an_answer_that_differs_and_shortens_the_way_to_it(self):
        mount = self.mount(self.image, OPTIONS + ",windows_names")  # refuses "aux"
        trace = self.directory / "trace"
        report = self.model(mount.path, "--ops", 20_000, "--trace", trace)
        self.assertEqual(report["code"], 1, "not noticed")
        self.assertIn("EINVAL", report["failure"])
        for words in ("last operations", "replay: wbfat-model", "operations that fail as well"):
            self.assertIn(words, report["said"])
        self.assertLess(len(report["shrunk"]), 10)
        self.assertEqual(len(report["last_ops"]), min(20, report["ops"]))
        # The trace fails again on the mount, and not where "aux" is a name as any other.
        plain = self.directory / "plain"
        plain.mkdir()
        for directory, code in ((self.directory_on(mount, "fresh"), 1), (plain, 0)):
            self.reference = self.directory / f"reference-{code}"
            self.reference.mkdir()
            self.assertEqual(self.model(directory, "--replay", trace, "--no-shrink")["code"], code, directory)
        self.unmount(mount)

    def test_wrong_use_is_exit_code_two(self):
        for arguments in (("--dir", self.directory), ("--dir", self.directory, "--reference", self.directory / "no"),
                          ("--dir", self.directory, "--reference", self.directory, "--nonsense")):
            self.assertEqual(run(MODEL, *arguments).returncode, 2, arguments)


def add_campaigns():
    total = sum(campaign.share for campaign in Settings.campaigns)
    for campaign in Settings.campaigns:
        rounds = FULL_ROUNDS if Settings.full_ops else SHORT_ROUNDS
        ops = campaign.short_ops
        if Settings.full_ops:
            ops = max(1, round(Settings.full_ops * campaign.share / total / rounds))

        def test(self, campaign=campaign, rounds=rounds, ops=ops):
            self.run_campaign(campaign, rounds, ops)
        test.__doc__ = f"{campaign.name}: {rounds} rounds of {ops} operations"
        setattr(EqualAnswersTest, f"test_{campaign.name.replace('-', '_')}", test)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", nargs="?", type=int, const=FULL_OPS, default=0, metavar="OPS")
    parser.add_argument("--only", default="", metavar="NAME,..")
    parser.add_argument("--first-seed", type=int, default=1)
    arguments, sys.argv[1:] = parser.parse_known_args()
    Settings.full_ops = arguments.full
    Settings.seed = arguments.first_seed
    if arguments.only:
        names = arguments.only.split(",")
        Settings.campaigns = tuple(campaign for campaign in CAMPAIGNS if campaign.name in names)


if __name__ == "__main__":
    parse_arguments()
    add_campaigns()
    if Settings.full_ops:
        del NoticesTest
    try:
        wbfat_mount.main()
    finally:
        print(f"{Settings.total_ops} operations with equal answers", file=sys.stderr)
