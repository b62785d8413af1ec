"""The bed of the tests of mounts: images, loop devices, the daemon as a child process, the checks afterwards.

A test gets a directory of its own and gives everything back when it ends, whatever happened: mounts, loop devices and
processes are known by mount point, path and id. A daemon that stops answering is killed after WATCHDOG_SECONDS, so that
a hang becomes a failure. $WBFAT and $MKFS_WBFAT name the programs.
"""

import ctypes
import errno
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest

WBFAT = os.environ.get("WBFAT", "wbfat")
MKFS_WBFAT = os.environ.get("MKFS_WBFAT", "mkfs.wbfat")
SEARCH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
SKIPPED = 77
DEADLINE_SECONDS = 60
# What a sanitizer build on a busy machine may need for one test.
WATCHDOG_SECONDS = 240
# How the kernel's answers were taken; uid and gid are root's. With cache=writeback it is FUSE that answers some of them
# before it asks: a full volume and the two seconds of mtime show later than with vfat.
KERNELS_OPTIONS = "utf8,fmask=022,dmask=022,tz=UTC"  # that the kernel's vfat knows too
VFAT_OPTIONS = KERNELS_OPTIONS + ",cache=auto"

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
AT_FDCWD = -100
CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4


def program(name):
    """The path of a system program; a skip where it is not installed."""
    path = shutil.which(name, path=SEARCH)
    need(path is not None, f"{name} is not installed")
    return path


def need(condition, reason):
    """Skips the test; where CI=true everything must be there, so there it fails."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        raise AssertionError(f"CI=true, but {reason}")
    raise unittest.SkipTest(reason)


def need_fuse():
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        need(False, f"/dev/fuse cannot be opened: {error.strerror}")


def need_root():
    need(os.geteuid() == 0, "this needs root")


def let_others_use_fuse(directory):
    """Where /dev/fuse is root's alone, this process and its children go on with one that is not.

    It is a node of our own, bound over /dev/fuse in a mount namespace that nobody else sees and that ends with us.
    """
    fuse = os.stat("/dev/fuse")
    if fuse.st_mode & 0o006 == 0o006:
        return
    libc_call("unshare", CLONE_NEWNS)
    mount_call("none", "/", None, MS_REC | MS_PRIVATE)
    place = directory / "dev"
    place.mkdir()
    mount_call("tmpfs", place, "tmpfs", 0)
    os.mknod(place / "fuse", stat.S_IFCHR, fuse.st_rdev)
    os.chmod(place / "fuse", 0o666)
    mount_call(place / "fuse", "/dev/fuse", None, MS_BIND)
    libc_call("umount2", os.fsencode(place), MNT_DETACH)


def run(*command, timeout=DEADLINE_SECONDS, **options):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="replace", check=False,
                          timeout=timeout, **options)


def eventually(condition, what, seconds=DEADLINE_SECONDS):
    """Waits until `condition()` holds; for what is done after a call has returned."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


def is_mounted(directory):
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split()[4] == str(directory) for line in table)


def errno_name(call, *arguments):
    """What a call answers: its result, or the name of its errno."""
    try:
        return call(*arguments)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return "ENOTSUP"
        return errno.errorcode[error.errno]


def libc_call(name, *arguments):
    """A function of libc that answers -1 and errno."""
    ctypes.set_errno(0)
    result = getattr(LIBC, name)(*arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def mount_call(source, target, kind, flags):
    return libc_call("mount", os.fsencode(source), os.fsencode(target), kind and kind.encode(), ctypes.c_ulong(flags), None)


def renameat2(old, new, flags):
    return libc_call("renameat2", AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), ctypes.c_uint(flags))


def fallocate(descriptor, mode, offset, length):
    return libc_call("fallocate", descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length))


def syncfs(descriptor):
    return libc_call("syncfs", descriptor)


def pattern(length, seed=0):
    """Bytes that are a function of the offset: pages cannot be exchanged unnoticed."""
    words = b"".join((seed * 2654435761 + n * 40503 & 0xFFFFFFFF).to_bytes(4, "little") for n in range(length // 4 + 1))
    return words[:length]


def _die_with_the_test():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Mount:
    """A daemon in the foreground and where it is mounted."""

    def __init__(self, case, device, options, mountpoint, arguments=(), wrap=()):
        self.case = case
        self.device = str(device)
        self.path = pathlib.Path(mountpoint)
        self.log_path = case.directory / f"log{len(case.mounts)}"
        command = [*wrap, WBFAT, self.device, str(self.path), "-f", *arguments]
        if options:
            command += ["-o", options]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=_die_with_the_test)
        self.watchdog = threading.Timer(WATCHDOG_SECONDS, self.process.kill)
        self.watchdog.daemon = True
        self.watchdog.start()

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait_until_mounted(self):
        def mounted_or_dead():
            return is_mounted(self.path) or self.process.poll() is not None
        eventually(mounted_or_dead, f"a mount of {self.device}")
        if self.process.poll() is not None:
            raise AssertionError(f"wbfat ended with {self.process.returncode}: {self.log()}")
        return self

    def wait_for_exit(self):
        code = self.process.wait(timeout=WATCHDOG_SECONDS)
        self.watchdog.cancel()
        return code

    def unmount(self):
        """Unmounts and returns what the daemon ended with."""
        command = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
        eventually(lambda: run(*command, self.path).returncode == 0, f"umount of {self.path}")
        return self.wait_for_exit()

    def dispose(self):
        """Whatever the state is."""
        self.watchdog.cancel()
        if self.process.poll() is None and is_mounted(self.path):
            run("umount", "-l", self.path)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if is_mounted(self.path):
            run("umount", "-l", self.path)

    def __truediv__(self, name):
        return self.path / name

    def __str__(self):
        return str(self.path)


class MountCase(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        need_fuse()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="wbfat-mount-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.mounts = []

    def make_image(self, mib=64, *mkfs, name="volume.img", maker="mkfs.fat"):
        """A formatted, sparse file. mkfs: further arguments, as -F 32."""
        path = self.directory / name
        with open(path, "wb") as file:
            file.truncate(int(mib * 1024 * 1024))
        maker = MKFS_WBFAT if maker == "mkfs.wbfat" else program(maker)
        made = run(maker, *mkfs, path)
        self.assertEqual(made.returncode, 0, made.stdout + made.stderr)
        return path

    def make_mountpoint(self, name=None):
        path = self.directory / (name or f"mnt{len(self.mounts)}")
        path.mkdir(exist_ok=True)
        return path

    def start(self, device, options=VFAT_OPTIONS, mountpoint=None, **further):
        """Starts a daemon and does not wait for it."""
        mount = Mount(self, device, options, mountpoint or self.make_mountpoint(), **further)
        self.mounts.append(mount)
        self.addCleanup(mount.dispose)
        return mount

    def mount(self, device, options=VFAT_OPTIONS, mountpoint=None, **further):
        return self.start(device, options, mountpoint, **further).wait_until_mounted()

    def unmount(self, mount, fsck=True):
        """Unmounts; the daemon must be content, and so must fsck.fat."""
        self.assertEqual(mount.unmount(), 0, mount.log())
        if fsck:
            self.fsck(mount.device)

    def fsck(self, device):
        """fsck.fat -n finds nothing. Returns what it said."""
        checked = run(program("fsck.fat"), "-n", device)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        return checked.stdout

    def loop(self, image, *options):
        """A loop device over `image`, detached at the end."""
        need_root()
        losetup = program("losetup")
        made = run(losetup, "-f", "--show", *options, image)
        need(made.returncode == 0, f"no loop device: {made.stderr.strip()}")
        device = made.stdout.strip()
        self.addCleanup(run, losetup, "-d", device)
        return device

    def expect_refused(self, code, words, *arguments, wrap=()):
        """wbfat ends with `code`, one sentence of its own on stderr that says `words`, and no mount left."""
        result = run(*wrap, WBFAT, *arguments)
        said = result.stdout + result.stderr
        for argument in arguments:
            if is_mounted(argument):
                run("umount", "-l", argument)
                self.fail(f"wbfat has mounted on {argument}")
        self.assertEqual(result.returncode, code, said)
        lines = [line for line in result.stderr.splitlines() if line.startswith("wbfat: ")]
        self.assertEqual(len(lines), 1, said)
        for word in words:
            self.assertIn(word, lines[0])
        return result


def main():
    """unittest.main with meson's exit code for a file whose every test was skipped."""
    program_run = unittest.main(module="__main__", exit=False, verbosity=2)
    result = program_run.result
    if not result.wasSuccessful():
        sys.exit(1)
    if result.testsRun > 0 and len(result.skipped) >= result.testsRun:
        sys.exit(SKIPPED)
