#!/usr/bin/env python3
"""Goal: every experiment of wbfat-lab runs, finds what it should, and leaves nothing behind, killed or not.

Method: the program itself with --quick, its JSON read; the laboratory killed by each signal in the middle of a mount;
devices that must be refused. Usage: lab_test.py SOURCE_ROOT WBFAT MKFS ROUNDS WBFATCTL
"""

import importlib
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import types
import unittest
import unittest.mock

ROOT, WBFAT, MKFS, ROUNDS, WBFATCTL = sys.argv[1:6]
LAB = os.path.join(ROOT, "tools/lab/wbfat-lab")
PROGRAMS = ["--program", f"wbfat={WBFAT}", "--program", f"mkfs.wbfat={MKFS}", "--program",
            f"wbfat-lab-rounds={ROUNDS}", "--program", f"wbfatctl={WBFATCTL}"]
CAN_MOUNT = os.path.exists("/dev/fuse")
sys.path.insert(0, os.path.join(ROOT, "tools/lab"))
sys.dont_write_bytecode = True


def lab(*words, **changes):
    return subprocess.run([LAB, *words, *PROGRAMS, "--quiet"], capture_output=True, text=True, check=False,
                          timeout=240, **changes)


def mounts_under(directory):
    with open("/proc/mounts", encoding="utf-8") as mounts:
        return [line.split()[1] for line in mounts if directory in line]


def loops_under(directory):
    found = []
    for backing in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if directory in backing.read_text(encoding="utf-8"):
                found.append(backing.parts[3])
        except OSError:
            pass  # gone while we looked
    return found


def processes_under(directory):
    """Those that are told of it, if only by $TMPDIR."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if any(directory.encode() in (entry / told).read_bytes() for told in ("cmdline", "environ")):
                found.append(entry.name)
        except OSError:
            pass  # gone while we looked
    return found


def read_until(terminal, words):
    said = ""
    while words not in said:
        if not select.select([terminal], [], [], 60)[0]:
            raise AssertionError(f"'{words}' not within a minute: {said}")
        said += os.read(terminal, 4096).decode()
    return said


class Leftovers:
    """What an experiment made in its own temporary directory."""

    def __init__(self, test):
        self.test = test
        self.directory = tempfile.mkdtemp(prefix="wbfat-lab-test.")
        self.environment = {**os.environ, "TMPDIR": self.directory}
        test.addCleanup(os.rmdir, self.directory)

    def found(self):
        return (mounts_under(self.directory) + loops_under(self.directory) + processes_under(self.directory)
                + os.listdir(self.directory))

    def must_go(self):
        """The guardian works on when the laboratory is dead: give it time, but not for ever."""
        deadline = time.monotonic() + 60
        while self.found() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.test.assertEqual(self.found(), [])


class Experiments(unittest.TestCase):
    def results_of(self, *words):
        leftovers = Leftovers(self)
        done = lab(*words, "--quick", "--json", env=leftovers.environment)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        leftovers.must_go()
        result, = json.loads(done.stdout)
        self.assertTrue(result["passed"], result["verdict"])
        self.assertFalse(result["stopped"])
        self.assertTrue(result["closer"])
        return result

    @unittest.skipUnless(CAN_MOUNT, "no /dev/fuse")
    def test_mail_hits_5_9_and_not_what_cured_it(self):
        result = self.results_of("mail")
        hits = {row["protocol"]: row["hits"] for row in result["rows"]}
        self.assertEqual(hits["5.9"], 1)
        self.assertEqual((hits["5.11"], hits["6.8"]), (0, 0))
        self.assertIn("PageWriteback", result["report"])

    @unittest.skipUnless(CAN_MOUNT, "no /dev/fuse")
    def test_watch_is_quiet_until_the_protocol_is_switched(self):
        result = self.results_of("watch")
        row, = result["rows"]
        self.assertEqual((row["protocol"], row["hits"]), ("5.9", 1))
        self.assertIn("PageWriteback", result["report"])

    def said_on_page(self, wbfatctl_and_mount):
        done = subprocess.run([*wbfatctl_and_mount, "web", "--json"], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["says"]

    @unittest.skipUnless(CAN_MOUNT, "no /dev/fuse")
    def test_watch_waits_for_who_looks_on(self):
        leftovers = Leftovers(self)
        terminal, end = pty.openpty()
        self.addCleanup(os.close, terminal)
        process = subprocess.Popen([LAB, "watch", *PROGRAMS], stdin=end, stdout=subprocess.PIPE, stderr=end, text=True,
                                   env=leftovers.environment)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        os.close(end)
        said = read_until(terminal, "Ctrl-C ends it.")
        self.assertRegex(said, r"The live page: http://127\.0\.0\.1:\d+/\S+\s")
        *words, invited = re.search(r"  (\S*wbfatctl \S+ protocol set 5\.9)\s", said)[1].split()
        self.assertEqual(invited, "5.9")
        self.assertIn("Two threads take turns to lengthen grow.dat", self.said_on_page(words[:2]))
        words.append("5.10")  # the mail's bug is in it too; what is told must be what was chosen
        self.assertEqual(subprocess.run(words, capture_output=True, check=False).returncode, 0)
        self.assertIn("It has happened: BUG at ", read_until(terminal, "Press Enter to unmount."))
        self.assertIn("An assertion failed", self.said_on_page(words[:2]))
        os.write(terminal, b"\n")
        told = process.stdout.read()
        self.assertIn("hit under 5.10", told)
        self.assertIn("switched to 5.10", told)
        self.assertNotRegex(told, r"\b5\.9\b")
        self.assertEqual(process.wait(60), 0)
        leftovers.must_go()

    def test_reuse_two_waiters_and_lock_in_end_fail_where_they_must(self):
        for name in ("reuse", "two-waiters", "lock-in-end"):
            with self.subTest(name):
                rows = self.results_of(name)["rows"]
                self.assertTrue(any(row["per_thousand"] > 0 for row in rows))
                self.assertTrue(any(row["per_thousand"] == 0 for row in rows))

    def test_starvation_measures_every_protocol(self):
        rows = self.results_of("starvation")["rows"]
        self.assertTrue(all(row["locks"] > 0 and 0 < row["jain"] <= 1 for row in rows))

    @unittest.skipUnless(CAN_MOUNT, "no /dev/fuse")
    def test_proposals_and_compare_measure_on_a_mount(self):
        rows = self.results_of("proposals")["rows"]
        self.assertTrue(all(row["ops"] > 0 and row["fsck"] == "clean" for row in rows))
        self.assertTrue(self.results_of("compare", "5.9", "6.8")["rows"])


class Pages(unittest.TestCase):
    def test_the_page_needs_nothing_from_anywhere_and_shows_every_row(self):
        with tempfile.TemporaryDirectory() as directory:
            page = os.path.join(directory, "lab.html")
            done = lab("lock-in-end", "--quick", "--html", page)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("Verdict:", done.stdout)
            with open(page, encoding="utf-8") as file:
                text = file.read()
        self.assertNotIn("http", text)
        self.assertIn("<svg", text)
        self.assertIn("lock-in-end", text)

    def test_text_is_escaped(self):
        report = importlib.import_module("wbfat_lab.report")
        result = report.Result("x", "a < b?", "&", [report.Column("protocol", "<p>")], [{"protocol": "<script>"}])
        self.assertNotIn("<script>", report.as_page([result], "-"))


class Progress(unittest.TestCase):
    def test_the_time_left_is_what_steps_of_the_kind_took_or_a_bound(self):
        module = importlib.import_module("wbfat_lab.progress")
        now = [0]
        progress = module.Progress({"short": 3, "long": 2}, lambda: now[0])

        def step(kind, seconds):
            with progress.step(kind):
                now[0] += seconds

        self.assertEqual(progress.words(), "1 of 5")
        step("short", 1)
        step("short", 3)
        self.assertEqual(progress.words(), "3 of 5, more than 2 s left")  # nothing is known of a long one
        step("long", 200)
        self.assertEqual(progress.words(), "4 of 5, about 3 min left")
        step("long", 90)
        self.assertEqual(progress.words(), "5 of 5, about 2 s left")

    def test_every_experiment_does_the_steps_that_it_planned(self):
        experiments = importlib.import_module("wbfat_lab.experiments")
        trial = importlib.import_module("wbfat_lab.trial")
        played = {"rounds": 1, "hits": 0, "hung": 0, "died": 0, "per_thousand": 0, "title": "", "rules": []}
        fought = {"locks": 1, "per_second": 1, "hog_share": 1, "p50": 1, "p99": 1, "max": 1, "jain": 1}
        for quick in (False, True):
            arguments = types.SimpleNamespace(quick=quick, rounds=10, mounts=3, seconds=1, seed=1, a="5.9", b="6.8")
            for name, experiment in experiments.EXPERIMENTS.items():
                lab = experiments.Lab(arguments, {"rounds": ""}, unittest.mock.MagicMock(), lambda _: None)
                lab.explorer_verdict = lambda *_: "-"
                if name == "watch":
                    continue  # it has no steps: somebody looks on
                with self.subTest(name, quick=quick), \
                        unittest.mock.patch.object(experiments.rounds, "play", lambda *_: dict(played)), \
                        unittest.mock.patch.object(experiments.rounds, "fight", lambda *_: dict(fought)), \
                        unittest.mock.patch.object(trial, "run", lambda _, made: trial.Outcome(made.protocol, rounds=1, seconds=1)):
                    result = experiment(lab)
                    self.assertEqual({kind: len(took) for kind, took in lab.progress.took.items()}, lab.progress.planned)
                    self.assertEqual(lab.results, [result])
                    self.assertTrue(result.verdict)

    def test_rows_are_told_as_they_are_measured(self):
        done = subprocess.run([LAB, "lock-in-end", "--quick", *PROGRAMS], capture_output=True, text=True, check=False, timeout=240)
        self.assertEqual(done.returncode, 0, done.stderr)
        told = [line.strip() for line in done.stderr.splitlines()]
        self.assertEqual([line.partition(" (")[0] for line in told[::2]],
                         [".. lock-in-end: lock-in-end, recipe", ".. lock-in-end: 6.8, recipe"])
        self.assertIn("(1 of 2)", told[0])
        self.assertRegex(told[1], r"^\.\. measured: protocol lock-in-end, injection recipe, rounds \d+, assertion \d+, hung [1-9]")
        self.assertIn("(2 of 2", told[2])
        self.assertRegex(told[3], r"^\.\. measured: protocol 6\.8, ")
        self.assertEqual(len(told), 4)


class Stopped(unittest.TestCase):
    def test_what_was_measured_until_then_is_printed(self):
        for words, form in ((["--json"], "json"), ([], "text")):
            with self.subTest(form), tempfile.TemporaryDirectory() as directory:
                page = os.path.join(directory, "lab.html")
                leftovers = Leftovers(self)
                process = subprocess.Popen([LAB, "reuse", "--rounds", "1000000", "--html", page, *words, *PROGRAMS],
                                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                           env=leftovers.environment)
                self.addCleanup(process.kill)
                # The row with the recipe has few rounds; the one that follows has not.
                told = ""
                while "measured:" not in told:
                    told = process.stderr.readline()
                    self.assertTrue(told, "the laboratory has ended")
                process.send_signal(signal.SIGINT)
                printed, rest = process.communicate(timeout=60)
                leftovers.must_go()
                self.assertEqual(process.returncode, 130)
                self.assertTrue(rest.endswith("wbfat-lab: stopped; what it had made is undone\n"), rest)
                if form == "json":
                    result, = json.loads(printed)
                    self.assertEqual((result["stopped"], result["passed"]), (True, False))
                    row, = result["rows"]
                    self.assertEqual((row["protocol"], row["how"]), ("5.8", "recipe"))
                else:
                    self.assertRegex(printed, r"(?m)^5\.8 +recipe +\d+")
                self.assertIn("the experiment was stopped", printed)
                with open(page, encoding="utf-8") as file:
                    self.assertIn("the experiment was stopped", file.read())

    def test_so_it_is_when_a_program_fails(self):
        with tempfile.TemporaryDirectory() as directory:
            rounds = pathlib.Path(directory, "rounds")
            rounds.write_text('#!/bin/sh\n[ ! -e "$0.used" ] || { echo "broken pipe organ" >&2; exit 1; }\n'
                              f'touch "$0.used"\nexec {ROUNDS} "$@"\n', encoding="utf-8")
            rounds.chmod(0o755)
            page = os.path.join(directory, "lab.html")
            words = ["reuse", "--json", "--html", page, "--program", f"wbfat-lab-rounds={rounds}"]
            done = subprocess.run([LAB, *words, "--quick"], capture_output=True, text=True, check=False, timeout=240)
            self.assertEqual(done.returncode, 3, done.stderr)
            self.assertTrue(done.stderr.endswith("wbfat-lab: broken pipe organ\n"), done.stderr)
            result, = json.loads(done.stdout)
            self.assertEqual((result["stopped"], result["passed"], len(result["rows"])), (True, False, 1))
            with open(page, encoding="utf-8") as file:
                written = file.read()
            self.assertIn("the experiment was stopped", written)
            # Nothing is measured at all now: the page stays.
            done = subprocess.run([LAB, *words, "--quick"], capture_output=True, text=True, check=False, timeout=240)
            self.assertEqual((done.returncode, done.stdout), (3, ""))
            with open(page, encoding="utf-8") as file:
                self.assertEqual(file.read(), written)


@unittest.skipUnless(CAN_MOUNT, "no /dev/fuse")
class Killed(unittest.TestCase):
    def kill_in_a_mount(self, number):
        leftovers = Leftovers(self)
        process = subprocess.Popen([LAB, "mail", *PROGRAMS, "--quiet"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, env=leftovers.environment)
        deadline = time.monotonic() + 60
        while not mounts_under(leftovers.directory) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
        leftovers.must_go()
        return process.returncode, said.decode()

    def test_sigint_and_sigterm_undo_everything_and_say_so(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            code, said = self.kill_in_a_mount(number)
            self.assertEqual((code, said), (130, "wbfat-lab: stopped; what it had made is undone\n"))

    def test_sigkill_leaves_nothing_either(self):
        code, _ = self.kill_in_a_mount(signal.SIGKILL)
        self.assertEqual(code, -signal.SIGKILL)


class Refusals(unittest.TestCase):
    def test_mistakes_get_one_sentence_and_an_exit_code(self):
        for words, code, sentence in (
                (["compare", "5.9"], 2, "compare takes 2 names, but got 1"),
                (["recipe", "lunch"], 2, "there is no recipe 'lunch'"),
                (["mail", "--format"], 2, "--format is about --device"),
                (["mail", "--device", "/dev/null"], 3, "/dev/null is not a block device"),
                (["mail", "--device", "/nowhere"], 3, "/nowhere: No such file or directory")):
            done = lab(*words)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn(sentence, done.stderr)

    def test_a_device_that_is_not_empty_is_refused(self):
        bed = importlib.import_module("wbfat_lab.bed")
        with tempfile.NamedTemporaryFile() as file:
            file.truncate(4 << 20)
            self.assertTrue(bed.is_empty(file.name))
            for offset in (510, (4 << 20) - 1):
                with open(file.name, "r+b") as device:
                    device.seek(offset)
                    device.write(b"\x55")
                self.assertFalse(bed.is_empty(file.name))
                with open(file.name, "r+b") as device:
                    device.seek(offset)
                    device.write(b"\0")

    def test_the_recipe_is_a_file_of_rules(self):
        done = lab("recipe", "mail")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(sum(" after " in line for line in done.stdout.splitlines()), 4)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
