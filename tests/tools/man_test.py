#!/usr/bin/env python3
"""Goal: the man pages tell what the programs take: no option is missing, none is made up, and they format without a warning.
Method: compare each page with the program's own --help."""

import os
import pathlib
import re
import shutil
import subprocess
import unittest

MAN = pathlib.Path(__file__).resolve().parents[2] / "man"
PROGRAMS = {
    "wbfat.8": [os.environ.get("WBFAT", "wbfat"), "--help"],
    "mkfs.wbfat.8": [os.environ.get("MKFS_WBFAT", "mkfs.wbfat"), "--help"],
    "wbfatctl.1": [os.environ.get("WBFATCTL", "wbfatctl"), "--help-all"],
    "wbfat-stress.1": [os.environ.get("WBFAT_STRESS", "wbfat-stress"), "truncate", "--help"],
    "wbfat-lab.1": [str(MAN.parent / "tools/lab/wbfat-lab"), "--help"],
    "wbfat-explore.1": [os.environ.get("WBFAT_EXPLORE", "wbfat-explore"), "--help-all"],
}
MOUNT_OPTION = re.compile(r"^    ([a-z][a-z0-9_]*)(?=[=\[ ]|$)", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])(--?[A-Za-z][\w-]*)")


def help_of(page):
    done = subprocess.run(PROGRAMS[page], capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def text_of(page):
    """The page without its markup: roff requests, fonts and escapes."""
    text = (MAN / page).read_text(encoding="utf-8").replace("\\-", "-").replace("\\&", "")
    text = re.sub(r"\\f.", "", text)
    return re.sub(r'^\.[A-Z]+ ?|"', "", text, flags=re.MULTILINE)


def flags_at_line_starts(text):
    """The flags that a usage or a page defines, not those it mentions: -f, --foreground."""
    found = set()
    for line in text.splitlines():
        if re.match(r"\s*-", line):
            found.update(FLAG.findall(re.split(r"\s{2,}", line.strip())[0]))
    return found


class ManTest(unittest.TestCase):
    maxDiff = None

    def test_pages_define_the_flags_of_the_programs(self):
        for page in PROGRAMS:
            with self.subTest(page):
                taken = flags_at_line_starts(help_of(page))
                self.assertGreater(len(taken), 3, "no usage to compare with")
                told = set(FLAG.findall(text_of(page)))
                self.assertEqual(sorted(taken - told), [], "missing from the page")
                defined = set()
                for block in re.findall(r"^\.TP\n(.*)", (MAN / page).read_text(encoding="utf-8"), re.MULTILINE):
                    plain = block.replace("\\-", "-")
                    if re.match(r'\.B[A-Z]* "?-', plain):
                        defined.update(FLAG.findall(plain))
                self.assertEqual(sorted(defined - taken), [], "only on the page")

    def test_the_page_tells_every_mount_option(self):
        options = set(MOUNT_OPTION.findall(help_of("wbfat.8").split("Mount options", 1)[1]))
        self.assertGreater(len(options), 40)
        bold = re.findall(r"^\.B.*", (MAN / "wbfat.8").read_text(encoding="utf-8").split("MOUNT OPTIONS", 1)[1], re.MULTILINE)
        words = set(re.findall(r"[a-z][a-z0-9_]*", "\n".join(bold)))
        self.assertEqual(sorted(options - words), [])

    def test_pages_format_without_a_warning(self):
        if shutil.which("groff") is None:
            self.assertNotEqual(os.environ.get("CI"), "true", "CI=true, but groff is not installed")
            self.skipTest("groff is not installed")
        for page in PROGRAMS:
            with self.subTest(page):
                done = subprocess.run(["groff", "-man", "-ww", "-Tutf8", "-z", MAN / page], capture_output=True, text=True,
                                      check=False, timeout=60)
                self.assertEqual(done.stderr, "")


if __name__ == "__main__":
    unittest.main(verbosity=2)
