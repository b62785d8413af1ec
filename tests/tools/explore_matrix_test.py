#!/usr/bin/env python3
"""Goal: the matrix that README shows is what the explorer finds, and its JSON is what the manual says.
Method: a fresh run of the command that README names, compared cell by cell. Numbers of states move with every line of the
cache, so they may differ by a fifth; verdicts and preemptions may not. The run stops where a cell takes too long for every
day: README must call such a cell safe, and WBFAT_FULL=1 sees whether it is."""

import json
import os
import pathlib
import re
import subprocess
import unittest

EXPLORE = os.environ.get("WBFAT_EXPLORE", "wbfat-explore")
README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
NUMBERS = {"complete": bool, "executions": int, "states": int, "seconds": float, "memory_bytes": int}
LIMIT = [] if os.environ.get("WBFAT_FULL") else ["-n", "2000000"]
STATES = re.compile(r"safe \((\d+) states?\)")


def table(text):
    """{(scenario, protocol): cell} of a Markdown table."""
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines() if line.startswith("|")]
    head, body = rows[0], rows[2:]
    return {(row[0], protocol): cell for row in body for protocol, cell in zip(head[1:], row[1:])}


def same(told, found):
    both = STATES.fullmatch(told), STATES.fullmatch(found)
    if all(both):
        return abs(int(both[0][1]) - int(both[1][1])) <= 0.2 * int(both[1][1])
    if LIMIT and found == "not finished":
        return both[0] is not None
    return told == found


class MatrixTest(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        section = re.search(r"<!-- matrix: wbfat-explore (.*) -->\n(.*?)<!-- end of matrix -->",
                            README.read_text(encoding="utf-8"), re.DOTALL)
        cls.told = table(section[2])
        cls.done = subprocess.run([EXPLORE, *section[1].split(), *LIMIT, "--json"], capture_output=True, text=True, check=False,
                                  timeout=900)
        cls.cells = json.loads(cls.done.stdout)

    def test_readme_shows_what_a_fresh_run_finds(self):
        found = {(cell["scenario"], cell["protocol"]): cell["text"] for cell in self.cells}
        self.assertEqual(set(self.told), set(found))
        wrong = {where: (self.told[where], found[where]) for where in found if not same(self.told[where], found[where])}
        self.assertEqual(wrong, {}, "(README, fresh); the command in README remakes the table")

    def test_every_cell_has_its_verdict_and_its_numbers(self):
        for cell in self.cells:
            with self.subTest(cell["text"], scenario=cell["scenario"], protocol=cell["protocol"]):
                self.assertIn(cell["verdict"], ("safe", "BUG", "deadlock", "lost data", "livelock", "not finished"))
                for name, kind in NUMBERS.items():
                    self.assertIsInstance(cell[name], kind, name)
                fails = cell["verdict"] not in ("safe", "not finished")
                self.assertEqual(fails, cell["schedule"] is not None)
                self.assertEqual(fails, cell["preemptions"] is not None)
                self.assertTrue(cell["complete"] or cell["verdict"] != "safe")

    def test_failing_schedules_replay_to_their_verdict(self):
        failing = [cell for cell in self.cells if cell["schedule"] is not None]
        self.assertGreater(len(failing), 0)
        self.assertEqual(self.done.returncode, 1)
        for cell in failing:
            with self.subTest(scenario=cell["scenario"], protocol=cell["protocol"]):
                again = subprocess.run([EXPLORE, "replay", cell["scenario"], "-p", cell["protocol"], "--schedule",
                                        cell["schedule"]], capture_output=True, text=True, check=False, timeout=60)
                self.assertEqual(again.returncode, 1, again.stdout + again.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
