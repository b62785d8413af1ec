#!/usr/bin/env python3
"""Goal: wbfatctl finds the daemon of a mount from any path, shows it, changes it, and does no harm when misused.
Method: a real mount with files being written, each command as its users type it; sockets abused by hand.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import unittest

import wbfat_mount
from wbfat_mount import eventually, need_root, pattern, run

WBFATCTL = os.environ.get("WBFATCTL", "wbfatctl")
NOBODY = 65534
OK, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
# Writes reach the daemon at once.
VFAT_OPTIONS = wbfat_mount.VFAT_OPTIONS + ",cache=auto"


def as_nobody():
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


class CtlCase(wbfat_mount.MountCase):
    def controlled(self, options=VFAT_OPTIONS, **further):
        """A mount whose socket is there."""
        mount = self.mount(self.make_image(32, name=f"disk{len(self.mounts)}.img"), options, **further)
        eventually(lambda: run(WBFATCTL, mount, "status").returncode == OK, "a control socket")
        return mount

    def ctl(self, mount, *words, **options):
        """Runs a command that must succeed; returns what it printed."""
        done = run(WBFATCTL, mount, *words, **options)
        self.assertEqual((done.returncode, done.stderr), (OK, ""), words)
        return done.stdout

    def result(self, mount, *words):
        return json.loads(self.ctl(mount, *words, "--json"))

    def expect_failure(self, code, words, *arguments, **options):
        """One sentence on standard error, nothing on standard output, and the exit code."""
        done = run(WBFATCTL, *arguments, **options)
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        self.assertRegex(done.stderr, r"\Awbfatctl: [^\n]+\n\Z")
        for word in words:
            self.assertIn(word, done.stderr)

    def socket_of(self, mount):
        """Where the daemon listens: found as /proc tells, not as wbfatctl looks."""
        device = os.stat(mount.path).st_dev
        name = f"{os.major(device)}:{os.minor(device)}.sock"
        with open("/proc/net/unix", encoding="utf-8") as table:
            paths = {line.split()[7] for line in table if len(line.split()) > 7}  # connections have it too
        found = [path for path in paths if f"/{name}" in path]
        self.assertEqual(len(found), 1, found)
        # The kernel remembers the name it was bound to; it was renamed since.
        return pathlib.Path(found[0].removesuffix(f".{mount.process.pid}"))


class FindingTest(CtlCase):
    def test_any_spelling_of_any_path_on_the_mount(self):
        mount = self.controlled()
        os.mkdir(mount / "Directory")
        link = self.directory / "link"
        link.symlink_to(mount.path)
        for path, cwd in ((mount.path, None), (f"{mount.path}/", None), (mount.path.name, mount.path.parent), (".", mount.path),
                          (link, None), (mount / "Directory", None), ("..", mount / "Directory")):
            with self.subTest(path=str(path)):
                self.assertIn(str(mount.path), self.ctl(path, "status", cwd=cwd))

    def test_two_mounts_are_told_apart(self):
        first, second = self.controlled(), self.controlled()
        for mount in (first, second):
            self.assertEqual(self.result(mount, "status")["pid"], mount.process.pid)

    def test_a_background_mount_can_be_asked_when_wbfat_returns(self):
        image, point = self.make_image(16), self.make_mountpoint()
        self.assertEqual(run(wbfat_mount.WBFAT, image, point).returncode, 0)
        self.addCleanup(run, "umount", "-l", point)
        pid = self.result(point, "status")["pid"]
        self.assertEqual(run("umount", point).returncode, 0)
        eventually(lambda: not pathlib.Path(f"/proc/{pid}").exists(), "the end of the daemon")
        self.fsck(image)

    def test_the_environment_does_not_matter(self):
        mount = self.controlled()
        with tempfile.TemporaryDirectory() as empty:
            self.ctl(mount, "status", env={"XDG_RUNTIME_DIR": empty})
        self.ctl(mount, "status", env={})

    def test_a_socket_where_the_option_says(self):
        path = self.directory / "door"
        mount = self.mount(self.make_image(16), f"{VFAT_OPTIONS},control={path}")
        eventually(path.exists, "the socket")
        self.assertEqual(self.result(mount, "--socket", path, "status")["pid"], mount.process.pid)
        self.expect_failure(UNREACHABLE, ["--socket"], mount, "status")
        self.unmount(mount)
        self.assertFalse(path.exists())

    def test_no_socket_when_none_is_wanted(self):
        mount = self.mount(self.make_image(16), f"{VFAT_OPTIONS},control=none")
        os.listdir(mount.path)
        self.expect_failure(UNREACHABLE, ["no control socket"], mount, "status")
        self.unmount(mount)

    def test_what_is_no_mount_of_wbfat(self):
        self.expect_failure(UNREACHABLE, ["/proc", "not on a mount of wbfat"], "/proc", "status")
        self.expect_failure(UNREACHABLE, ["/no/such", "No such file"], "/no/such", "status")

    def test_a_mount_of_another_user(self):
        need_root()
        os.chmod(self.directory, 0o755)
        wbfat_mount.let_others_use_fuse(self.directory)
        image, point = self.make_image(16), self.make_mountpoint()
        os.chown(image, NOBODY, NOBODY)
        os.chown(point, NOBODY, NOBODY)
        daemon = subprocess.Popen([wbfat_mount.WBFAT, image, point, "-f"], preexec_fn=as_nobody, env={"PATH": os.environ["PATH"]})
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.terminate)
        # Root may not even look at the mount, but may control it.
        eventually(lambda: run(WBFATCTL, point, "status").returncode == OK, "an answer to root")
        self.assertEqual(self.result(point, "status")["pid"], daemon.pid)
        self.assertIn(str(point), self.ctl(point, "status", preexec_fn=as_nobody))

    def test_roots_mount_is_not_for_others(self):
        need_root()
        os.chmod(self.directory, 0o755)
        mount = self.controlled(f"{VFAT_OPTIONS},allow_other")
        self.expect_failure(UNREACHABLE, ["only root"], mount, "status", preexec_fn=as_nobody)


class CommandsTest(CtlCase):
    def test_status(self):
        mount = self.controlled()
        (mount / "file").write_bytes(pattern(40_000))
        text = self.ctl(mount, "status")
        for word in ("volume", "FAT", "cache", "pages", "dirty", "waits", "flusher", "protocol", "assertions"):
            self.assertIn(word, text)
        self.assertLess(len(text.splitlines()), 24, "more than a screen")
        status = self.result(mount, "status")
        self.assertGreaterEqual(status["counters"]["pages_dirtied"], 10)
        self.assertEqual(status["volume"]["device"], mount.device)
        self.unmount(mount)

    def test_status_again_and_again(self):
        mount = self.controlled()
        looks = self.ctl(mount, "status", "--watch", "--count", "3", "--interval", "0.05", "--json").splitlines()
        times = [json.loads(look)["seconds_mounted"] for look in looks]
        self.assertEqual(len(times), 3)
        self.assertEqual(times, sorted(times))

    def test_sync_puts_everything_on_the_disk(self):
        mount = self.controlled(f"{wbfat_mount.VFAT_OPTIONS},cache=writeback,dirty_writeback_centisecs=0")
        (mount / "file").write_bytes(pattern(40_000))
        self.assertEqual(self.ctl(mount, "sync"), "")
        self.assertEqual(self.result(mount, "status")["pages"]["dirty"], 0)
        copy = self.directory / "copy.img"
        shutil.copyfile(mount.device, copy)
        self.unmount(mount)
        after = self.mount(copy)
        self.assertEqual((after / "file").read_bytes(), pattern(40_000))
        self.unmount(after, fsck=False)

    def test_drop_caches(self):
        mount = self.controlled()
        (mount / "file").write_bytes(pattern(400_000))
        self.ctl(mount, "sync")
        before = self.result(mount, "status")["pages"]["clean"]
        self.assertGreaterEqual(before, 98)
        self.assertRegex(self.ctl(mount, "drop-caches"), r"^\d+ pages dropped")
        self.assertLessEqual(self.result(mount, "status")["pages"]["clean"], before - 98)
        self.assertEqual((mount / "file").read_bytes(), pattern(400_000))
        self.unmount(mount)

    def test_a_paused_flusher_writes_nothing_and_a_resumed_one_everything(self):
        mount = self.controlled(f"{VFAT_OPTIONS},commit=0,dirty_expire_centisecs=1")
        self.ctl(mount, "flusher", "interval", "0.02")
        self.assertIn("paused", self.ctl(mount, "flusher", "pause"))
        (mount / "file").write_bytes(pattern(40_000))
        dirty = self.result(mount, "status")["pages"]["dirty"]
        self.assertGreaterEqual(dirty, 10)
        self.ctl(mount, "flusher", "kick")
        self.assertEqual(self.result(mount, "status")["pages"]["dirty"], dirty)
        self.assertNotIn("paused", self.ctl(mount, "flusher", "resume"))
        eventually(lambda: self.result(mount, "status")["pages"]["dirty"] < dirty, "the flusher's work")
        self.unmount(mount)

    def test_an_unmount_does_not_mind_a_paused_flusher(self):
        mount = self.controlled()
        self.ctl(mount, "flusher", "pause")
        (mount / "file").write_bytes(pattern(40_000))
        self.unmount(mount)

    def test_assertions(self):
        mount = self.controlled()
        self.assertIn("bug_on_writeback", self.ctl(mount, "assert"))
        self.ctl(mount, "assert", "set", "all:bug", "late_touch:off")
        states = {one["name"]: one["state"] for one in self.result(mount, "assert", "list")["assertions"]}
        self.assertEqual(states.pop("late_touch"), "off")
        self.assertEqual(set(states.values()), {"bug"})
        (mount / "file").write_bytes(pattern(400_000))
        self.ctl(mount, "sync")
        self.expect_failure(REFUSED, ["no_such"], mount, "assert", "set", "no_such:warn")
        self.unmount(mount)

    def test_protocol(self):
        mount = self.controlled()
        self.assertIn("6.8", self.ctl(mount, "protocol"))
        self.assertEqual(self.result(mount, "protocol", "get")["protocol"], "6.8")
        self.assertIn("recheck-on-wake", self.ctl(mount, "protocol", "list"))
        self.expect_failure(REFUSED, ["5.7", "recheck-on-wake"], mount, "protocol", "set", "5.7")
        self.unmount(mount)

    def test_protocol_is_set_under_load(self):
        mount = self.controlled(f"{VFAT_OPTIONS},dirty_background_ratio=1,cache_size=4M")
        stop = threading.Event()
        failures = []

        def write(name):
            try:
                for turn in range(10_000):
                    content = pattern(100_000 + 4096 * (turn % 7), turn)
                    (mount / name).write_bytes(content)
                    if (mount / name).read_bytes() != content:
                        failures.append(f"{name} in turn {turn} is not what was written")
                    if stop.is_set():
                        return
            except OSError as error:
                failures.append(str(error))

        writers = [threading.Thread(target=write, args=(f"file{n}",)) for n in range(3)]
        for writer in writers:
            writer.start()
        for version in ("5.11", "5.8", "wait-to-set", "6.8,handoff=never", "recheck-on-wake", "6.8"):
            self.assertEqual(self.result(mount, "protocol", "set", version)["protocol"], version)
            self.assertIn(version, self.ctl(mount, "status"))
        stop.set()
        for writer in writers:
            writer.join()
        self.assertEqual(failures, [])
        self.unmount(mount)

    def test_trace(self):
        mount = self.controlled()
        self.assertEqual(self.ctl(mount, "trace", "off").split(), ["trace", "off"])
        self.assertEqual(self.ctl(mount, "trace", "on").split(), ["trace", "on"])
        (mount / "file").write_bytes(pattern(40_000))
        saved = self.directory / "trace.json"
        self.assertIn("events saved", self.ctl(mount, "trace", "save", saved))
        self.assertGreater(len(json.loads(saved.read_text(encoding="utf-8"))["traceEvents"]), 10)
        self.expect_failure(REFUSED, ["cannot be written"], mount, "trace", "save", self.directory / "no" / "such")
        self.unmount(mount)

    def test_points(self):
        mount = self.controlled()
        self.assertEqual(self.ctl(mount, "point"), "there are no rules for points\n")
        # A name with a blank; the other file's pages do not count.
        self.ctl(mount, "point", "set", "set_writeback:done[file=a b.dat]=count", "set_writeback:done[file=A B]=count")
        (mount / "other").write_bytes(pattern(40_000))
        (mount / "a b.dat").write_bytes(pattern(40_000))
        self.ctl(mount, "sync")
        counted = {rule["text"]: rule["hits"] for rule in self.result(mount, "point", "list")["points"]}
        self.assertEqual(counted, {"set_writeback:done[file=a b.dat]=count": 10, "set_writeback:done[file=A B]=count": 0})
        # It goes by another name from then on.
        os.rename(mount / "a b.dat", mount / "A B")
        (mount / "A B").write_bytes(pattern(8_000))
        self.ctl(mount, "sync")
        self.assertRegex(self.ctl(mount, "point"), r"\n +2 +2 +0 +0  set_writeback:done\[file=A B\]=count\n")
        self.expect_failure(REFUSED, ["explode", "sleep(TIME)"], mount, "point", "set", "a:b=explode")
        self.assertEqual(self.ctl(mount, "point", "clear"), "there are no rules for points\n")
        self.unmount(mount)

    def test_an_ordering_is_met_or_given_up(self):
        mount = self.controlled()
        self.ctl(mount, "point", "set", "end_writeback:begin@completion after no:where give up 1ms")
        (mount / "file").write_bytes(pattern(4096))
        self.ctl(mount, "sync")
        rule, = self.result(mount, "point")["points"]
        self.assertGreaterEqual(rule["given_up"], 1)
        self.assertEqual((rule["met"], rule["given_up"]), (0, rule["acted"]))
        # The unmount waits for none.
        self.ctl(mount, "point", "set", "set_writeback:done after no:where give up 1h")
        (mount / "file").write_bytes(pattern(4096))
        self.unmount(mount)

    def test_an_unmount_does_not_mind_a_rule_that_holds_a_command(self):
        mount = self.controlled()
        (mount / "file").write_bytes(pattern(40_000))
        self.ctl(mount, "point", "set", "set_writeback:done=pause")
        held = subprocess.Popen([WBFATCTL, mount.path, "sync"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(held.communicate)
        eventually(lambda: self.result(mount, "point")["points"][0]["acted"] > 0, "a thread that is held")
        mount.process.terminate()
        mount.process.wait(wbfat_mount.DEADLINE_SECONDS)
        held.communicate()
        self.fsck(mount.device)

    def test_oops(self):
        mount = self.controlled()
        self.assertEqual(self.ctl(mount, "oops"), "no assertion has failed\n")
        self.assertEqual(self.result(mount, "oops", "list"), {"reports": []})
        self.expect_failure(REFUSED, ["no report '7'"], mount, "oops", "show", "7")
        self.unmount(mount)

    def test_what_is_typed_wrong(self):
        mount = self.controlled()
        self.expect_failure(USAGE, ["no command is given", "status, sync, drop-caches", "--help"], mount)
        self.expect_failure(USAGE, ["'nonsense' is no command", "status, sync, drop-caches", "--help"], mount, "nonsense")
        self.expect_failure(USAGE, ["'nonsense' is no command"], mount, "--json", "nonsense", "further words")
        self.expect_failure(USAGE, ["'--nonsense' is no option"], mount, "--nonsense")
        self.expect_failure(USAGE, ["MOUNTPOINT", "--help"])
        self.expect_failure(USAGE, ["--help"], mount, "status", "--no-such-flag")
        self.expect_failure(REFUSED, ["usage: flusher"], mount, "flusher", "no-such-word")
        self.expect_failure(REFUSED, ["seconds from 0 to 3600"], mount, "flusher", "interval", "-1")


class MisuseTest(CtlCase):
    def connect(self, path):
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.connect(str(path))
        client.settimeout(wbfat_mount.DEADLINE_SECONDS)
        return client

    def test_a_dead_daemon_is_named_and_its_socket_goes_with_the_next_mount(self):
        mount = self.controlled()
        path = self.socket_of(mount)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        mount.process.send_signal(signal.SIGKILL)
        mount.process.wait()
        self.assertTrue(path.exists())
        self.expect_failure(UNREACHABLE, ["gone", "fusermount3 -u"], mount, "status")
        following = self.controlled()
        self.assertNotEqual(self.socket_of(following), path)
        self.assertFalse(path.exists(), "what the dead daemon left")
        self.unmount(following)

    def test_the_socket_goes_with_the_mount(self):
        mount = self.controlled()
        path = self.socket_of(mount)
        self.unmount(mount)
        self.assertFalse(path.exists())

    def test_idle_and_half_open_connections_under_load(self):
        mount = self.controlled()
        path = self.socket_of(mount)
        stop = threading.Event()

        def write():
            while not stop.is_set():
                (mount / "load").write_bytes(pattern(200_000))

        writer = threading.Thread(target=write)
        writer.start()
        self.addCleanup(writer.join)
        self.addCleanup(stop.set)
        silent = [self.connect(path) for _ in range(400)]
        for client in silent[::2]:
            # Those that were turned away already cannot be written to.
            try:
                client.send(b'{"command": "sta')
            except OSError:
                pass
        self.assertEqual(self.result(mount, "status")["pid"], mount.process.pid)
        stop.set()
        writer.join()
        self.unmount(mount)

    def test_garbage(self):
        mount = self.controlled()
        client = self.connect(self.socket_of(mount))
        lines = client.makefile("rb")
        for garbage in (b"\0\xff\xfe\n", b"{}\n", b"[" * 5000 + b"\n", b'{"command": "sync", "words": {}}\n'):
            client.sendall(garbage)
            reply = json.loads(lines.readline())
            self.assertFalse(reply["ok"])
            self.assertTrue(reply["error"])
        client.sendall(b"x" * 20_000)
        self.assertIn("at most", json.loads(lines.readline())["error"])
        # The end, with a word about what was not read or without.
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(lines.readline(), b"")
        self.ctl(mount, "status")
        self.unmount(mount)


if __name__ == "__main__":
    wbfat_mount.main()
