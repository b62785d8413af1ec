#!/usr/bin/env python3
"""Goal: wbfat-explore keeps its word on the command line: verdicts, exit codes, schedules that replay, pictures, refusals.
Method: run it on the mail's scenario and read what it prints."""

import json
import os
import re
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree

EXPLORE = os.environ.get("WBFAT_EXPLORE", "wbfat-explore")
SAFE, VIOLATION, USAGE = 0, 1, 2
RULE = re.compile(r"[a-z_]+:[a-z_]+@(completion|flusher|request|sync|other)(\[hit=\d+\])? after "
                  r"[a-z_]+:[a-z_]+@(completion|flusher|request|sync|other)(\[hit=\d+\])? give up 5ms")


def explore(*arguments):
    return subprocess.run([EXPLORE, *arguments], capture_output=True, text=True, check=False, timeout=120)


class ExploreTest(unittest.TestCase):
    maxDiff = None

    def schedule(self, protocol="5.10"):
        done = explore("run", "mail", "-p", protocol, "--json")
        self.assertEqual(done.returncode, VIOLATION, done.stderr)
        return json.loads(done.stdout)["schedule"]

    def test_list_names_scenarios_and_protocols(self):
        found = json.loads(explore("list", "--json").stdout)
        self.assertIn("mail", [scenario["name"] for scenario in found["scenarios"]])
        self.assertIn("5.10", [protocol["name"] for protocol in found["protocols"]])
        text = explore("list").stdout
        for entry in found["scenarios"] + found["protocols"]:
            self.assertIn(f"  {entry['name']}", text)

    def test_run_breaks_the_if_and_proves_the_while(self):
        broken = explore("run", "mail", "-p", "5.10")
        self.assertEqual(broken.returncode, VIOLATION, broken.stderr)
        self.assertIn("BUG_ON(PageWriteback(page))", broken.stdout)
        self.assertRegex(broken.stdout, r"CPU1 +CPU2 +CPU3")
        self.assertIn("CPU3 sees PG_writeback set, and goes to sleep until it is clear.", broken.stdout)
        proved = explore("run", "mail", "-p", "5.11")
        self.assertEqual(proved.returncode, SAFE, proved.stdout)
        self.assertRegex(proved.stdout, r"safe \(\d+ states\)")

    def test_a_printed_command_repeats_the_verdict(self):
        told = explore("run", "mail", "-p", "5.10").stdout
        command = re.search(r'wbfat-explore (replay .*) --schedule "([^"]+)"', told)
        again = explore(*command[1].split(), "--schedule", command[2])
        self.assertEqual(again.returncode, VIOLATION, again.stderr)
        self.assertIn("BUG_ON(PageWriteback(page))", again.stdout)

    def test_a_size_with_named_values_is_set_and_told_by_name(self):
        done = explore("run", "live-switch", "-p", "wait-to-set", "--set", "to=5.11", "--set", "gated=0")
        self.assertEqual(done.returncode, VIOLATION, done.stderr)
        self.assertIn("--set to=5.11", done.stdout)
        self.assertEqual(explore("run", "live-switch", "--set", "to=4").returncode, USAGE)
        sizes = {scenario["name"]: scenario["sizes"] for scenario in json.loads(explore("list", "--json").stdout)["scenarios"]}
        self.assertIn("wake-clears", sizes["live-switch"][0]["values"])

    def test_the_same_schedule_is_harmless_under_the_cure(self):
        done = explore("replay", "mail", "-p", "5.11", "--schedule", self.schedule())
        self.assertEqual(done.returncode, SAFE, done.stdout + done.stderr)

    def test_minimise_never_adds_preemptions(self):
        schedule = self.schedule()
        done = explore("minimise", "mail", "-p", "5.10", "--schedule", schedule)
        self.assertEqual(done.returncode, VIOLATION, done.stderr)
        least = re.search(r'--schedule "([^"]+)"', done.stdout)[1]
        self.assertLessEqual(len(least.split()), len(schedule.split()))

    def test_pictures_are_well_formed_and_stand_alone(self):
        svg = explore("draw", "mail", "-p", "5.10", "--compare", "5.11")
        root = xml.etree.ElementTree.fromstring(svg.stdout)
        words = "\n".join(text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text"))
        for wanted in ("BUG_ON(PageWriteback(page))", "PG_writeback", "page lock", "every task came to its end",
                       "can it still go well?", "end_page_writeback()"):
            self.assertIn(wanted, words)
        self.assertNotRegex(svg.stdout, r"href|@import|url\((?!#)")
        with tempfile.TemporaryDirectory() as folder:
            page = os.path.join(folder, "mail.html")
            done = explore("draw", "mail", "-p", "5.10", "-f", "html", "-o", page)
            self.assertEqual((done.returncode, done.stdout), (VIOLATION, ""))
            with open(page, encoding="utf-8") as file:
                text = file.read()
        self.assertTrue(text.startswith("<!DOCTYPE html>"))
        self.assertIn("ArrowRight", text)

    def test_perfetto_gets_a_slice_on_a_named_track_for_every_box(self):
        events = json.loads(explore("draw", "mail", "-p", "5.10", "-f", "perfetto").stdout)["traceEvents"]
        tracks = {event["tid"] for event in events if event["name"] == "thread_name"}
        slices = [event for event in events if event["ph"] == "X"]
        self.assertGreater(len(slices), 8)
        self.assertLessEqual({event["tid"] for event in slices}, tracks)

    def test_recipe_prints_rules_of_the_live_mount_and_their_proof(self):
        done = explore("recipe", "mail", "-p", "5.10", "--give-up", "5ms", "--json")
        self.assertEqual(done.returncode, VIOLATION, done.stdout + done.stderr)
        recipe = json.loads(done.stdout)
        self.assertTrue(recipe["forces"] and recipe["complete"])
        self.assertEqual(recipe["failures"], recipe["schedules"])
        self.assertLess(recipe["failures_without"], recipe["schedules_without"])
        # The same orderings that `wbfat-lab mail` forces on a mount.
        self.assertIn("sync_expansion:written@request after end_writeback:cleared@completion give up 5ms", recipe["rules"])
        for rule in recipe["rules"]:
            self.assertRegex(rule, RULE)

    def test_wrong_usage_gets_one_sentence_and_status_2(self):
        for arguments in (["run", "nowhere"], ["run", "mail", "-p", "4.2"], ["run", "mail", "--set", "cpus"],
                          ["run", "mail", "--set", "wheels=4"], ["run", "mail", "-s", "luck"],
                          ["replay", "mail", "--schedule", "Z9"], ["replay", "mail", "--schedule", "not one"],
                          ["recipe", "mail", "-p", "5.11", "--schedule", "A1"], ["matrix", "--scenarios", "nowhere"],
                          ["draw", "mail", "-o", "/nonexistent/picture.svg"]):
            with self.subTest(arguments):
                done = explore(*arguments)
                self.assertEqual(done.returncode, USAGE, done.stdout)
                self.assertEqual(done.stdout, "")
                self.assertRegex(done.stderr, r"\Awbfat-explore: [^\n]+\n\Z")
        for arguments in ([], ["fly"], ["run"], ["run", "mail", "--time", "-1"], ["draw", "mail", "-f", "oil"]):
            with self.subTest(arguments):
                self.assertEqual(explore(*arguments).returncode, USAGE)


if __name__ == "__main__":
    unittest.main(verbosity=2)
