#!/usr/bin/env python3
"""Counts the tests of meson builds from their logs, and ends with `N passed, N failed[, N skipped]`."""

import argparse
import json
import os
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field


NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass
class Count:
    passed: int = 0
    failed: list = field(default_factory=list)
    skipped: list = field(default_factory=list)


def outcome_of(case):
    """passed, failed or skipped, for one GoogleTest case."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    if case.find("skipped") is not None or case.get("status") == "notrun":
        return "skipped"
    return "passed"


def read_build(logs, build, count):
    """Adds one run of meson test: each GoogleTest case, and each other test as one.

    What meson says of a test (testlog.json) is the truth: its JUnit file shows no timeout, and holds the cases of an
    earlier run of a test binary that crashed.
    """
    json_log = next(logs.glob("testlog*.json"), None)
    junit_log = next(logs.glob("testlog*.junit.xml"), None)
    if json_log is None or junit_log is None:
        count.failed.append(f"{build}: left no test log")
        return
    # What a test prints is in there as it is, colours of a compiler too; XML knows no such characters.
    report = NOT_IN_XML.sub("?", junit_log.read_text(encoding="utf-8", errors="replace"))
    suites = list(ElementTree.fromstring(report).iter("testsuite"))
    for line in json_log.read_text(encoding="utf-8").splitlines():
        test = json.loads(line)
        own = [suite for suite in suites if f".{test['name']}." in suite.get("name")]
        cases = [(f"{build}: {suite.get('name')}.{case.get('name')}", outcome_of(case))
                 for suite in own for case in suite.findall("testcase")]
        bad = test["result"] not in ("OK", "EXPECTEDFAIL", "SKIP")
        if not cases:
            cases = [(f"{build}: {test['name']}", "skipped" if test["result"] == "SKIP" else "passed")]
            if bad:
                cases = []
        if bad and not any(outcome == "failed" for _, outcome in cases):
            cases.append((f"{build}: {test['name']}: {test['result']}", "failed"))
        count.passed += sum(outcome == "passed" for _, outcome in cases)
        count.failed += [name for name, outcome in cases if outcome == "failed"]
        count.skipped += [name for name, outcome in cases if outcome == "skipped"]


def read_allowed(path):
    """The (build, pattern) pairs of tests/skips_allowed."""
    if path is None or not os.path.exists(path):
        return []
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    return [line.split(None, 1) for line in lines if line.strip() and not line.startswith("#")]


def is_allowed(name, allowed):
    return any(name.startswith(build + ":") and re.search(pattern, name) for build, pattern in allowed)


def count_builds(builds, allowed, strict):
    """Counts every build; with `strict`, a skip that is not allowed is a failure."""
    count = Count()
    for build in map(pathlib.Path, builds):
        read_build(build / "meson-logs", build.name, count)
    if strict:
        forbidden = [name for name in count.skipped if not is_allowed(name, allowed)]
        count.failed += [name + " (skipped, which is not allowed here)" for name in forbidden]
        count.skipped = [name for name in count.skipped if name not in forbidden]
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("builds", nargs="+", help="meson build directories")
    parser.add_argument("--allowed", help="file of skips that are allowed even with CI=true")
    arguments = parser.parse_args()
    count = count_builds(arguments.builds, read_allowed(arguments.allowed), os.environ.get("CI") == "true")
    for name in count.skipped:
        print("skipped:", name)
    for name in count.failed:
        print("FAILED: ", name)
    verdict = f"{count.passed} passed, {len(count.failed)} failed"
    if count.skipped:
        verdict += f", {len(count.skipped)} skipped"
    print(verdict)
    return 1 if count.failed or count.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
