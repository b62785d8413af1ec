"""The device, the volume and the mount of an experiment, and all that must not be touched.

A Bed owns a temporary directory, a device in it (a loop device as root, else the image file itself) or the device the
user named, and at most one mount at a time. Everything it makes it tells the guardian.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time

from . import guardian as guarding

IMAGE_MIB = 64
MOUNT_SECONDS = 30
UNMOUNT_SECONDS = 60
PROBE_BYTES = 1 << 20


class LabError(Exception):
    """One sentence for the user."""


def find_program(name, given, build_path):
    """`given`, or NAME of a build in the tree this script lies in, or of the PATH."""
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
    built = [os.path.join(root, build, build_path) for build in ("build", "build-quickstart")]
    installed = os.path.join(root, "libexec", "wbfat", name)
    if given and not os.access(given, os.X_OK):
        raise LabError(f"{given} cannot be run; --program {name}= takes a path")
    for candidate in (given, *built, installed, shutil.which(name)):
        if candidate and os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return os.path.abspath(candidate)
    raise LabError(f"{name} was not found; build it (ninja -C build) or give its path")


def is_empty(path):
    """Whether the first and the last MiB of the device are zeros: no table, no volume, nothing to lose at a glance."""
    with open(path, "rb") as device:
        size = device.seek(0, os.SEEK_END)
        for offset in (0, max(0, size - PROBE_BYTES)):
            device.seek(offset)
            if device.read(PROBE_BYTES).strip(b"\0"):
                return False
    return True


class Bed:
    def __init__(self, programs, device=None, overwrite=False, watch=None):
        """`device`: a block device that may be formatted; it must be empty unless `overwrite`."""
        self.programs = programs
        self.guardian = watch or guarding.Guardian()
        self.directory = tempfile.mkdtemp(prefix="wbfat-lab.")
        self.guardian.made("dir", self.directory)
        self.mountpoint = os.path.join(self.directory, "mnt")
        os.mkdir(self.mountpoint)
        self.loop = None
        self.daemon = None
        self.log = None
        self.device = self._take(device, overwrite) if device else self._make_device()

    def _take(self, device, overwrite):
        try:
            mode = os.stat(device).st_mode
        except OSError as error:
            raise LabError(f"{device}: {error.strerror}") from None
        if not stat.S_ISBLK(mode):
            raise LabError(f"{device} is not a block device; without --device the lab makes one of its own")
        try:
            os.close(os.open(device, os.O_RDWR | os.O_EXCL))
        except OSError as error:
            raise LabError(f"{device} cannot be had for the lab alone: {error.strerror}") from None
        if not overwrite and not is_empty(device):
            raise LabError(f"{device} is not empty; --format would destroy what is on it")
        return device

    def _make_device(self):
        image = os.path.join(self.directory, "disk.img")
        with open(image, "wb") as file:
            file.truncate(IMAGE_MIB << 20)
        made = subprocess.run(["losetup", "--show", "-f", image], capture_output=True, text=True, check=False) \
            if os.geteuid() == 0 and shutil.which("losetup") else None
        if made is None or made.returncode != 0:
            return image
        self.loop = made.stdout.strip()
        self.guardian.made("loop", self.loop)
        subprocess.run(["losetup", "--direct-io=on", self.loop], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=False)
        return self.loop

    def describe(self):
        return f"{self.device} (loop device over {IMAGE_MIB} MiB, O_DIRECT)" if self.loop else self.device

    def format(self):
        subprocess.run([self.programs["mkfs"], self.device], check=True, stdout=subprocess.DEVNULL)

    def mount(self, options):
        """Mounts with the daemon as a child; its messages go to a file."""
        self.log = os.path.join(self.directory, "daemon.log")
        with open(self.log, "wb") as log:
            self.daemon = subprocess.Popen(
                [self.programs["wbfat"], self.device, self.mountpoint, "-f", "-o", options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.guardian.made_process(self.daemon.pid)
        self.guardian.made("mount", self.mountpoint)
        deadline = time.monotonic() + MOUNT_SECONDS
        while not os.path.ismount(self.mountpoint):
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                said = self.read_log().strip().splitlines()
                self.unmount()
                raise LabError(f"the volume could not be mounted: {said[-1] if said else 'wbfat said nothing'}")
            time.sleep(0.01)

    def ctl(self, *words):
        """What wbfatctl answers for the mount."""
        done = subprocess.run([self.programs["ctl"], self.mountpoint, *words, "--json"], capture_output=True, text=True,
                              check=False, timeout=MOUNT_SECONDS)
        if done.returncode != 0:
            raise LabError(done.stderr.strip().removeprefix("wbfatctl: "))
        return json.loads(done.stdout)

    def read_log(self):
        try:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                return log.read()
        except OSError:
            return ""

    def unmount(self):
        """Returns whether the daemon ended by itself; one that hangs is killed."""
        if self.daemon is None:
            return True
        daemon, self.daemon = self.daemon, None
        if daemon.poll() is None:
            subprocess.run(["fusermount3", "-u", self.mountpoint], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=False)
        try:
            daemon.wait(UNMOUNT_SECONDS if not os.path.ismount(self.mountpoint) else 0.1)
            clean = True
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
            clean = False
        guarding.undo_mount(self.mountpoint)
        self.guardian.gone("mount", self.mountpoint)
        self.guardian.gone_process(daemon.pid)
        return clean

    def kill_mount(self):
        """For a mount that stands still: nobody can be asked to unmount."""
        if self.daemon is not None:
            self.daemon.kill()
        self.unmount()

    def check(self):
        """(fsck's exit code, its first complaint). 0: clean."""
        done = subprocess.run(["fsck.fat", "-n", self.device], capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines()[1:]  # the first one is its version
        return done.returncode, lines[0] if lines else done.stderr.strip()

    def close(self):
        """May be called again."""
        if self.daemon is not None and self.daemon.poll() is None and os.path.ismount(self.mountpoint):
            self.unmount()
        self.guardian.finish()


class Load:
    """A load running on the mount."""

    def __init__(self, bed, kind, settings):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "load.py")
        self._bed = bed
        self._process = subprocess.Popen([sys.executable, "-I", script, kind, bed.mountpoint, json.dumps(settings)],
                                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                         start_new_session=True)
        bed.guardian.made_process(self._process.pid)

    def ended(self):
        return self._process.poll() is not None

    def stop(self, patience_seconds=10):
        """Its result, or None when it hangs in a request; then it is killed."""
        if not self.ended():
            self._process.terminate()
        try:
            output, _ = self._process.communicate(timeout=patience_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            output = ""
        self._bed.guardian.gone_process(self._process.pid)
        try:
            return json.loads(output)
        except ValueError:
            return None

    def forget(self):
        """After the mount is gone a killed process can end."""
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            pass
