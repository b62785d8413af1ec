"""Runs jobs on FAT images under the kernel's own vfat: boots Debian's user-mode-linux, an ordinary process without any
privilege, with uml_guest.py as its init.

One boot takes about two seconds. It ends by itself, or is killed with all its children after `seconds`."""

import ctypes
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import wbfat_mount

KERNEL = "linux.uml"
# As wbfat's own: names in UTF-8, times in UTC. iocharset does not matter beside utf8, but its table must load.
VFAT_OPTIONS = wbfat_mount.KERNELS_OPTIONS + ",codepage=437,iocharset=iso8859-1"
BOOT_SECONDS = 120
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class GuestError(AssertionError):
    """The boot, or a job in it, failed."""


def step(image, *what, read_only=False, options=VFAT_OPTIONS, seed=0):
    """What to do on the volume in `image`: some of list, space, grow, probe, create, remove, in this order."""
    return {"image": str(image), "do": what, "read_only": read_only, "options": options, "seed": seed}


def _command(directory, job):
    devices = [f"ubd{chr(ord('a') + number)}={step['image']}" for number, step in enumerate(job)]
    return [shutil.which(KERNEL), "mem=128M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", *devices,
            f"uml_dir={directory}/", "umid=guest", "con=null", "con0=null,fd:1", "ssl=null", "PYTHONUTF8=1",
            f"init={os.path.realpath(sys.executable)}", "--",
            str(pathlib.Path(__file__).with_name("uml_guest.py").resolve()), str(directory)]


def _boot(command, log_path, seconds):
    """Returns whether the guest ended in time. Whatever happens, nothing of it is left running."""
    with open(log_path, "wb") as log:
        # A session of its own: the guest's processes are children of the kernel's, and go with the group.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                   preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    try:
        process.wait(timeout=seconds)
        return True
    except subprocess.TimeoutExpired:
        return False
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def run(directory, job, seconds=BOOT_SECONDS):
    """Boots, does the steps of `job`, each on its image. Returns their answers and the kernel's messages."""
    wbfat_mount.need(shutil.which(KERNEL) is not None, "user-mode-linux is not installed")
    directory = pathlib.Path(directory).resolve()
    for name in ("mnt", "out"):
        (directory / name).mkdir(parents=True)
    (directory / "job.json").write_text(json.dumps(job))
    ended = _boot(_command(directory, job), directory / "log", seconds)
    results = directory / "out" / "results.json"
    said = (directory / "log").read_text(errors="replace")
    if not ended or not results.exists():
        raise GuestError(f"User-Mode Linux {'ended without results' if ended else f'took over {seconds} s'}: {said}")
    answer = json.loads(results.read_text())
    for result in answer["results"]:
        if "error" in result:
            raise GuestError(result["error"] + "\n".join(answer["messages"][-10:]))
    return answer["results"], answer["messages"]
