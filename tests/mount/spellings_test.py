#!/usr/bin/env python3
"""Goal: one file under many spellings stays one file: what is done through one is seen through all.
Method: warm the kernel's name cache with every spelling (other case, 8.3 alias, trailing dots), change the entry
through one of them, and wait until no spelling shows the past. The daemon tells the kernel after the reply, so the
tests wait with a deadline instead of looking once.
"""

import errno
import os
import random
import threading

import wbfat_mount
from wbfat_mount import RENAME_EXCHANGE, eventually, renameat2

LONG = "A long Name.text"
SPELLINGS = (LONG, "a LONG name.TEXT", "ALONGN~1.TEX", "alongn~1.tex", LONG + ".", LONG.upper() + "...")


class SpellingsTest(wbfat_mount.MountCase):
    def setUp(self):
        super().setUp()
        self.volume = self.mount(self.make_image(64, "-F", "32", "-s", "1"))

    def tearDown(self):
        if self.mounts:
            self.unmount(self.volume)

    def at(self, name):
        return str(self.volume / name)

    def write(self, name, content=b""):
        with open(self.at(name), "wb") as file:
            file.write(content)

    def read(self, name):
        with open(self.at(name), "rb") as file:
            return file.read()

    def warm(self, spellings, directory=""):
        """Every spelling resolved: now the kernel has an entry for each."""
        return {os.stat(self.at(directory + spelling)).st_ino for spelling in spellings}

    def is_gone(self, spelling, directory=""):
        try:
            os.stat(self.at(directory + spelling))
        except FileNotFoundError:
            return True
        return False

    def expect_gone(self, spellings, directory=""):
        for spelling in spellings:
            eventually(lambda name=spelling: self.is_gone(name, directory), f"'{spelling}' is gone", 10)

    def test_every_spelling_is_the_same_inode(self):
        self.write(LONG, b"content")
        self.assertEqual(len(self.warm(SPELLINGS)), 1)
        for spelling in SPELLINGS:
            self.assertEqual(self.read(spelling), b"content")
        self.assertEqual(os.listdir(self.volume.path), [LONG])

    def test_unlink_through_any_spelling(self):
        for spelling in SPELLINGS:
            with self.subTest(spelling=spelling):
                self.write(LONG, b"content")
                self.warm(SPELLINGS)
                os.unlink(self.at(spelling))
                self.expect_gone(SPELLINGS)
                self.assertEqual(os.listdir(self.volume.path), [])

    def test_rmdir_through_any_spelling(self):
        for spelling in SPELLINGS:
            with self.subTest(spelling=spelling):
                os.mkdir(self.at(LONG))
                self.warm(SPELLINGS)
                os.rmdir(self.at(spelling))
                self.expect_gone(SPELLINGS)

    def test_rename_away_through_any_spelling(self):
        for spelling in SPELLINGS:
            with self.subTest(spelling=spelling):
                self.write(LONG, spelling.encode())
                inode = self.warm(SPELLINGS)
                os.rename(self.at(spelling), self.at("Target"))
                self.expect_gone(SPELLINGS)
                self.assertEqual({os.stat(self.at(name)).st_ino for name in ("Target", "TARGET")}, inode)
                self.assertEqual(os.listdir(self.volume.path), ["Target"])
                os.unlink(self.at("Target"))

    def test_rename_over_any_spelling(self):
        for spelling in SPELLINGS:
            with self.subTest(spelling=spelling):
                self.write(LONG, b"old")
                self.warm(SPELLINGS)
                self.write("new", b"new!")
                os.rename(self.at("new"), self.at(spelling))
                for other in SPELLINGS:
                    eventually(lambda name=other: os.stat(self.at(name)).st_size == 4, f"'{other}' is new", 10)
                    self.assertEqual(self.read(other), b"new!")
                self.assertEqual(len(os.listdir(self.volume.path)), 1)
                os.unlink(self.at(LONG))
                self.expect_gone(SPELLINGS)

    def test_exchange_through_other_spellings(self):
        self.write(LONG, b"one")
        self.write("Second", b"second")
        self.warm(SPELLINGS)
        renameat2(self.at(LONG.lower()), self.at("SECOND"), RENAME_EXCHANGE)
        for spelling in SPELLINGS:
            eventually(lambda name=spelling: os.stat(self.at(name)).st_size == 6, f"'{spelling}' is exchanged", 10)
            self.assertEqual(self.read(spelling), b"second")
        eventually(lambda: os.stat(self.at("Second")).st_size == 3, "'Second' is exchanged", 10)
        self.assertEqual(self.read("second"), b"one")
        self.assertEqual(sorted(os.listdir(self.volume.path)), [LONG, "Second"])
        os.unlink(self.at(LONG))
        os.unlink(self.at("Second"))
        self.expect_gone((*SPELLINGS, "Second", "SECOND", "second"))

    def test_rename_to_a_name_that_is_stored_otherwise(self):
        self.write("source", b"x")
        os.rename(self.at("source"), self.at("Target..."))
        self.assertEqual(os.listdir(self.volume.path), ["Target"])
        os.unlink(self.at("Target"))
        self.expect_gone(("Target", "Target...", "TARGET"))

    def test_a_name_missed_under_one_spelling_is_found_once_made_under_another(self):
        for missed, made in (("FOO", "Foo"), ("foo", "FOO"), ("Foo.", "foo"), ("ALONGN~1.TEX", LONG)):
            for make in (self.write, lambda name: os.mkdir(self.at(name)), self.rename_here):
                with self.subTest(missed=missed, made=made):
                    self.assertTrue(self.is_gone(missed))
                    make(made)
                    self.assertEqual(os.stat(self.at(missed)).st_ino, os.stat(self.at(made)).st_ino)
                    (os.rmdir if os.path.isdir(self.at(made)) else os.unlink)(self.at(made))
                    self.expect_gone((missed, made))

    def rename_here(self, name):
        self.write("elsewhere")
        os.rename(self.at("elsewhere"), self.at(name))

    def test_opening_another_spelling_for_creation_opens_the_same_file(self):
        self.write("CaseTest.txt", b"1")
        with open(self.at("casetest.TXT"), "ab") as file:
            file.write(b"2")
        self.assertEqual(self.read("CaseTest.txt"), b"12")
        self.assertEqual(os.listdir(self.volume.path), ["CaseTest.txt"])
        with self.assertRaises(FileExistsError):
            os.mkdir(self.at("CASETEST.txt"))

    def test_open_files_see_one_content(self):
        self.write("Shared", b"0000")
        with open(self.at("Shared"), "r+b", buffering=0) as one, open(self.at("SHARED"), "r+b", buffering=0) as two:
            one.write(b"1")
            self.assertEqual(two.read(), b"1000")
            os.ftruncate(two.fileno(), 2)
            self.assertEqual(os.fstat(one.fileno()).st_size, 2)
            self.assertEqual(os.stat(self.at("shared")).st_size, 2)

    def test_a_name_listed_is_the_name_made(self):
        for made, listed in (("dots...", "dots"), ("lower.txt", "lower.txt"), ("UPPER", "UPPER"), ("MiXeD", "MiXeD")):
            self.write(made)
            self.assertEqual(os.listdir(self.volume.path), [listed])
            os.unlink(self.at(made))
            self.expect_gone((made, listed))

    def test_changing_case_by_way_of_another_name(self):
        self.write("casetest.txt", b"1")
        self.warm(("casetest.txt", "CASETEST.TXT"))
        os.rename(self.at("casetest.txt"), self.at("between"))
        os.rename(self.at("between"), self.at("CaseTest.txt"))
        self.assertEqual(os.listdir(self.volume.path), ["CaseTest.txt"])
        self.assertEqual(self.read("casetest.TXT"), b"1")

    def test_paths_through_directories_of_another_case(self):
        os.makedirs(self.at("Outer/Inner"))
        self.write("Outer/Inner/file", b"x")
        for path in ("OUTER/inner/FILE", "outer/INNER/File", "Outer/Inner/file"):
            self.assertEqual(self.read(path), b"x")
        before = os.getcwd()
        os.chdir(self.at("outer/INNER"))
        try:
            os.rename(self.at("OUTER"), self.at("Moved"))
            self.assertEqual(os.listdir("."), ["file"])
            self.assertEqual(os.path.basename(os.path.dirname(os.getcwd())), "Moved")
            self.expect_gone(("Outer", "OUTER", "outer"))
            self.assertEqual(self.read("moved/inner/file"), b"x")
            with self.assertRaises(OSError) as caught:
                os.rename(self.at("MOVED"), self.at("moved/Inner/below"))
            self.assertEqual(caught.exception.errno, errno.EINVAL)
        finally:
            os.chdir(before)

    def test_many_threads_many_spellings(self):
        """Whoever wins: names vanish and come back under other spellings, and the volume stays whole."""
        surprises = []

        def play(seed):
            chance = random.Random(seed)
            for _ in range(400):
                name = f"{chance.choice(('Some Name', 'SOME NAME', 'some name.', 'SOMENA~1'))}"
                try:
                    chance.choice((self.write, self.read, lambda n: os.unlink(self.at(n)),
                                   lambda n: os.rename(self.at(n), self.at("Other")),
                                   lambda n: os.rename(self.at("OTHER"), self.at(n))))(name)
                except (FileNotFoundError, FileExistsError):
                    pass
                except OSError as error:
                    surprises.append(error)

        threads = [threading.Thread(target=play, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(surprises, [])
        for name in os.listdir(self.volume.path):
            os.unlink(self.at(name))
        self.expect_gone(("Some Name", "SOME NAME", "some name.", "SOMENA~1", "Other", "OTHER"))

    def test_a_spelling_that_comes_to_mean_another_file(self):
        """The alias of a removed name goes to the next long name: the old entry must not answer for it."""
        for number in range(20):
            self.write(f"A long name {number}", str(number).encode())
            self.assertEqual(self.read("ALONGN~1"), str(number).encode())
            os.unlink(self.at(f"A long name {number}"))
            self.expect_gone(("ALONGN~1",))


if __name__ == "__main__":
    wbfat_mount.main()
