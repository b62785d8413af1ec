#!/usr/bin/env python3
"""wbfat-stress must pass where everything is kept, and fail where anything is not.

Method: runs of the program on a temporary directory; sound, and with tests/tools/broken_fs.cc preloaded, which tells
one lie at a time. Usage: stress_test.py [path of wbfat-stress]; default: $WBFAT_STRESS, or where a build puts it.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent


def find_program():
    candidates = [sys.argv.pop(1)] if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else []
    candidates += [os.environ.get("WBFAT_STRESS", ""), "tools/stress/wbfat-stress"]
    for candidate in candidates:
        if candidate and pathlib.Path(candidate).is_file():
            return str(pathlib.Path(candidate).resolve())
    sys.exit("stress_test.py: no wbfat-stress found: give its path")


PROGRAM = find_program()


class StressTest(unittest.TestCase):
    shim = None

    @classmethod
    def setUpClass(cls):
        cls.build = tempfile.TemporaryDirectory()
        cls.shim = str(pathlib.Path(cls.build.name) / "broken_fs.so")
        compiler = next(name for name in ("c++", "g++", "clang++") if shutil.which(name))
        subprocess.run([compiler, "-std=c++20", "-O1", "-shared", "-fPIC", "-o", cls.shim,
                        str(HERE / "broken_fs.cc"), "-ldl"], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.build.cleanup()

    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.root = pathlib.Path(self.temporary.name)
        self.dir = self.root / "target"
        self.dir.mkdir()

    def stress(self, *arguments, lie=None):
        environment = dict(os.environ)
        if lie is not None:
            environment.update(WBFAT_BROKEN=lie, LD_PRELOAD=self.shim)
        return subprocess.run([PROGRAM, *map(str, arguments)], env=environment, capture_output=True, text=True,
                              timeout=300, check=False)

    def truncate(self, *arguments, lie=None):
        return self.stress("truncate", self.dir, "--seed", 1, "--ops", 600, *arguments, lie=lie)

    def expect_pass(self, result):
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def expect_caught(self, lie, words, *arguments):
        result = self.truncate(*arguments, lie=lie)
        self.assertEqual(result.returncode, 1, f"{lie} was not caught\n{result.stdout}{result.stderr}")
        for word in ("FAILED", "replay: wbfat-stress truncate", "last operations on this file", "seen by", *words):
            self.assertIn(word, result.stderr)
        return result

    # A sound filesystem.

    def test_passes_and_leaves_nothing(self):
        result = self.truncate("--names")
        self.expect_pass(result)
        self.assertIn("PASS: seed 1", result.stdout)
        self.assertEqual(list(self.dir.iterdir()), [])

    def test_passes_with_threads_on_the_same_files(self):
        self.expect_pass(self.truncate("--shared", "--threads", 4, "--files", 2))

    def test_passes_beside_threads_that_only_write_back_and_wait(self):
        result = self.truncate("--mix", "grow", "--sync", "--names", "--waiters", 2, "--flushers", 1, "--syncers", 1,
                               "--json")
        self.expect_pass(result)
        report = json.loads(result.stdout)
        self.assertGreater(report["ops_by_kind"]["truncate"], report["ops"] / 3)
        self.assertIn("--mix grow --sync --waiters 2 --flushers 1 --syncers 1", report["replay"])

    def test_catches_a_wait_for_writeback_that_fails(self):
        result = self.truncate("--waiters", 1, lie="wait-error")
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        self.assertIn("FAILED: sync_file_range, waiting only failed", result.stderr)

    def test_repeats_itself_from_a_seed(self):
        manifests = []
        for run in ("first", "second"):
            manifest = self.root / run
            self.expect_pass(self.truncate("--names", "--overwrite", "--manifest", manifest))
            manifests.append(manifest.read_text())
            for path in self.dir.iterdir():
                path.unlink()
        self.assertEqual(manifests[0], manifests[1])
        self.assertEqual(len(manifests[0].splitlines()), 16)

    def test_another_seed_is_another_run(self):
        texts = set()
        for seed in (1, 2):
            manifest = self.root / str(seed)
            self.expect_pass(self.stress("truncate", self.dir, "--seed", seed, "--ops", 200, "--overwrite",
                                         "--manifest", manifest))
            texts.add(manifest.read_text())
        self.assertEqual(len(texts), 2)

    def test_reports_in_json(self):
        result = self.truncate("--json", "--names", "--threads", 2)
        self.expect_pass(result)
        report = json.loads(result.stdout)
        self.assertEqual((report["result"], report["seed"], report["ops"]), ("pass", 1, 1200))
        self.assertEqual(sum(report["ops_by_kind"].values()), 1200)
        for kind in ("truncate", "write", "store", "read", "load", "fsync", "fdatasync", "evict", "reopen", "rename",
                     "replace"):
            self.assertGreater(report["ops_by_kind"][kind], 0, kind)
        self.assertGreater(report["bytes_checked"], report["bytes_written"])

    def test_ends_orderly_when_interrupted(self):
        with subprocess.Popen([PROGRAM, "truncate", str(self.dir), "--seconds", "120"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 60
            # Files exist before the threads start; bytes in one say that they run.
            while not any(path.stat().st_size for path in self.dir.glob("*.dat")) and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=100)
        self.assertEqual(process.returncode, 0, out + err)
        self.assertIn("interrupted", out)
        self.assertEqual(list(self.dir.iterdir()), [])

    def test_takes_a_full_filesystem_as_an_answer(self):
        result = self.truncate("--json", lie="full")
        self.expect_pass(result)
        self.assertGreater(json.loads(result.stdout)["refused_no_space"], 10)

    def test_does_without_mappings(self):
        result = self.truncate(lie="no-mmap")
        self.expect_pass(result)
        self.assertIn("shared mappings are not to be had", result.stdout)

    # Wrong use.

    def test_refuses_wrong_use_with_exit_code_two(self):
        for arguments in ((), ("truncate",), ("truncate", self.root / "missing"), ("truncate", self.dir, "--nonsense"),
                          ("truncate", self.dir, "--threads", "0"), ("truncate", self.dir, "--max-size", "9G"),
                          ("truncate", self.dir, "--ops", "1", "--seconds", "1"), ("verify", self.dir, self.dir)):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.stress(*arguments).returncode, 2)

    def test_does_not_touch_files_that_are_there(self):
        precious = self.dir / "stress-00-02.dat"
        precious.write_text("precious")
        result = self.truncate()
        self.assertEqual(result.returncode, 2)
        self.assertIn("--overwrite", result.stderr)
        self.assertEqual(precious.read_text(), "precious")
        self.assertEqual(list(self.dir.iterdir()), [precious])

    # Lies.

    def test_catches_old_bytes_in_grown_space(self):
        self.expect_caught("stale-tail", ("wrong data", "never written since the file grew", "found"))

    def test_catches_a_lost_write(self):
        self.expect_caught("lost-write", ("wrong data", "expected"))

    def test_catches_a_lost_write_among_threads_on_one_file(self):
        self.expect_caught("lost-write", ("wrong data",), "--shared", "--files", 1)

    def test_catches_a_misplaced_write_and_says_where_it_belongs(self):
        result = self.truncate("--threads", 1, "--files", 1, lie="misplaced-write")
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("FAILED", result.stderr)

    def test_catches_a_lost_mapped_store(self):
        self.expect_caught("lost-store", ("wrong data",))

    def test_catches_a_bit_flip_and_calls_it_transient(self):
        self.expect_caught("bit-flip", ("wrong data", "transient"))

    def test_catches_a_short_read(self):
        self.expect_caught("short-read", ("below the end of the file",))

    def test_catches_a_wrong_size(self):
        self.expect_caught("wrong-size", ("size is wrong",))

    def test_catches_a_cut_that_took_too_much(self):
        self.expect_caught("over-cut", ("wrong data", "expected"))

    def test_catches_a_refused_growth_that_shrank_the_file(self):
        self.expect_caught("full-shrinks", ("was refused, and left a size of",))

    def test_strict_mode_catches_a_refused_growth_that_grew(self):
        self.expect_caught("full", ("was refused, and left a size of",), "--strict-full")

    def test_catches_a_failing_sync(self):
        self.expect_caught("sync-error", ("fsync failed", "Input/output error"))

    def test_leaves_the_files_of_a_failure(self):
        self.expect_caught("lost-write", ())
        self.assertEqual(len(list(self.dir.iterdir())), 16)

    def test_the_replay_fails_again(self):
        first = self.expect_caught("lost-write", (), "--threads", 1)
        replay = next(line for line in first.stderr.splitlines() if line.startswith("replay: "))
        arguments = replay.removeprefix("replay: wbfat-stress ").split()
        second = self.stress(*arguments, "--overwrite", lie="lost-write")
        self.assertEqual(second.returncode, 1)
        pick = [line for line in first.stderr.splitlines() if "offset" in line or "seen by" in line]
        self.assertEqual(pick, [line for line in second.stderr.splitlines() if "offset" in line or "seen by" in line])

    def test_failure_in_json(self):
        result = self.truncate("--json", lie="wrong-size")
        self.assertEqual(result.returncode, 1)
        failure = json.loads(result.stdout)["failure"]
        self.assertIn("size is wrong", failure["what"])
        self.assertTrue(failure["last_ops"])

    # The manifest.

    def kept(self):
        manifest = self.root / "manifest"
        self.expect_pass(self.truncate("--manifest", manifest))
        return manifest, max(self.dir.iterdir(), key=lambda path: path.stat().st_size)

    def test_verify_accepts_what_the_run_left(self):
        manifest, _ = self.kept()
        result = self.stress("verify", manifest, self.dir)
        self.expect_pass(result)
        self.assertIn("PASS: 16 files compared, 0 differ", result.stdout)

    def test_verify_catches_one_wrong_bit(self):
        manifest, victim = self.kept()
        with victim.open("r+b") as file:
            byte = file.read(1)
            file.seek(0)
            file.write(bytes([byte[0] ^ 1]))
        result = self.stress("verify", manifest, self.dir)
        self.assertEqual(result.returncode, 1)
        self.assertIn(f"{victim.name}: content differs", result.stdout)

    def test_verify_catches_a_missing_and_a_longer_file(self):
        manifest, victim = self.kept()
        with victim.open("ab") as file:
            file.write(b"\0")
        self.assertEqual(self.stress("verify", manifest, self.dir).returncode, 1)
        victim.unlink()
        self.assertEqual(self.stress("verify", manifest, self.dir).returncode, 1)

    def test_verify_refuses_what_is_no_manifest(self):
        wrong = self.root / "wrong"
        for text in ("", "hello\n"):
            wrong.write_text(text)
            self.assertEqual(self.stress("verify", wrong, self.dir).returncode, 2)


if __name__ == "__main__":
    unittest.main()
