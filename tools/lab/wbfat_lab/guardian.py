"""Cleans up after the laboratory, however it ends.

The guardian is a process of its own session that reads a pipe. Each line says that something was made or is gone:

    +dir PATH    +loop /dev/loop3    +process PID STARTTIME    +mount PATH    -mount PATH ..

When the pipe ends, because the laboratory is done or was killed, what is left is undone, the last first. A process
is known by its number and its start time, so a number that was used again is left alone.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

GRACE_SECONDS = 10


def start_time(pid):
    """Field 22 of /proc/PID/stat, or None when there is no such process or only its zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


class Guardian:
    """The laboratory's end of the pipe."""

    def __init__(self):
        self._child = subprocess.Popen([sys.executable, "-I", os.path.abspath(__file__)], stdin=subprocess.PIPE,
                                       start_new_session=True, text=True, cwd="/")

    def _tell(self, sign, kind, what):
        self._child.stdin.write(f"{sign}{kind} {what}\n")
        self._child.stdin.flush()

    def made(self, kind, what):
        self._tell("+", kind, what)

    def gone(self, kind, what):
        self._tell("-", kind, what)

    def made_process(self, pid):
        self.made("process", f"{pid} {start_time(pid)}")

    def gone_process(self, pid):
        self.gone("process", pid)

    def finish(self):
        """Ends the guardian; what was not reported gone is undone before this returns."""
        if not self._child.stdin.closed:
            self._child.stdin.close()
        self._child.wait()


def undo_process(what):
    pid, started = (int(word) if word != "None" else None for word in what.split())
    if started is None:
        return
    for sign in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_SECONDS
        if start_time(pid) != started:
            return
        try:
            os.kill(pid, sign)
        except OSError:
            return
        while start_time(pid) == started and time.monotonic() < deadline:
            time.sleep(0.02)


def undo_mount(what):
    for command in (["fusermount3", "-u", what], ["umount", what], ["fusermount3", "-u", "-z", what],
                    ["umount", "-l", what]):
        if not os.path.ismount(what):
            return
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def undo_loop(what):
    # The last user of the device may still be on its way out.
    for _ in range(50):
        if subprocess.run(["losetup", "-d", what], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          check=False).returncode == 0:
            return
        time.sleep(0.1)


UNDO = {"process": undo_process, "mount": undo_mount, "loop": undo_loop,
        "dir": lambda path: shutil.rmtree(path, ignore_errors=True)}


def keep_watch(lines):
    made = []
    for line in lines:
        sign, (kind, what) = line[0], line[1:].rstrip("\n").split(" ", 1)
        if sign == "+":
            made.append((kind, what))
        else:
            made = [(k, w) for k, w in made if not (k == kind and (w == what or w.split()[0] == what))]
    for kind, what in reversed(made):
        try:
            UNDO[kind](what)
        except OSError:
            pass  # gone already; the rest is still to be undone


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    keep_watch(sys.stdin)
