#!/usr/bin/env python3
"""What it costs a mount that its live page is watched.

One file of --gib is written all over, at random, and the same load runs in slices: watched, not watched, not watched,
watched, and so on, so that what the machine does to one it does to the other. A viewer takes every update off its
WebSocket and throws it away: a browser's own work, drawing, is not the mount's. Printed are the updates a second, the
megabytes written a second, and the processor's time of the whole daemon for each gigabyte, which other work on the machine
disturbs less; medians, and the ratio of neighbours with the range in which its median lies with 95 % by bootstrap. The
image lies in --directory; take one in memory, or the device is measured.

    tools/bench/live_page_cost.py --build build

Everything mounted is unmounted, and the image removed.
"""

import argparse
import base64
import json
import os
import pathlib
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse

BLOCK = 64 << 10
GIB = 1 << 30
FILE_MOST = (4 << 30) - BLOCK  # FAT has no larger file
SETTLE_SECONDS = 0.3  # the first update of a viewer tells everything


class Viewer:
    """A process of its own, so that it shares no interpreter with the load."""

    def __init__(self, url):
        self.process = subprocess.Popen([sys.executable, __file__, "--view", url], stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def stop(self):
        """Returns its updates, their bytes and its time."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate()
        return json.loads(output)


def read_exactly(stream, length):
    data = stream.read(length)
    if len(data) < length:
        raise SystemExit("the page has ended")
    return data


def view(url):
    """The viewer's process: counts frames until SIGTERM."""
    parts = urllib.parse.urlsplit(url)
    client = socket.create_connection((parts.hostname, parts.port))
    key = base64.b64encode(os.urandom(16)).decode()
    client.sendall((f"GET {parts.path}live HTTP/1.1\r\nHost: {parts.netloc}\r\nOrigin: http://{parts.netloc}\r\n"
                    f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    f"Sec-WebSocket-Key: {key}\r\n\r\n").encode())
    stream = client.makefile("rb", buffering=1 << 20)
    if b" 101 " not in stream.readline():
        raise SystemExit("the page lets nobody watch")
    while stream.readline() != b"\r\n":
        pass
    seen = {"updates": 0, "bytes": 0}
    start = time.monotonic()

    def finish(*_):
        print(json.dumps({**seen, "seconds": time.monotonic() - start}), flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, finish)
    print("watching", flush=True)
    while True:
        first, length = read_exactly(stream, 2)
        length &= 0x7F
        if length >= 126:
            length = int.from_bytes(read_exactly(stream, 2 if length == 126 else 8), "big")
        read_exactly(stream, length)
        seen["updates"] += first >> 7  # the last frame of a message
        seen["bytes"] += length


def fill(file, size):
    block = os.urandom(16 * BLOCK)
    for offset in range(0, size, len(block)):
        os.pwrite(file, block[:size - offset], offset)
    os.fsync(file)


def slice_of_load(file, size, seconds, choose):
    """Megabytes a second."""
    block = os.urandom(BLOCK)
    written = 0
    start = time.monotonic()
    while (took := time.monotonic() - start) < seconds:
        os.pwrite(file, block, choose.randrange(size // BLOCK) * BLOCK)
        written += BLOCK
    return written / took / 1e6


def interval(values, choose):
    """Of the median, 95 %, by bootstrap."""
    medians = sorted(statistics.median(choose.choices(values, k=len(values))) for _ in range(2000))
    return medians[50], medians[-51]


def web_seconds(daemon):
    """What the server of the page has used of a processor."""
    total = 0
    for task in pathlib.Path(f"/proc/{daemon}/task").iterdir():
        if (task / "comm").read_text(encoding="utf-8").strip() == "wbfat-web":
            total += int((task / "schedstat").read_text(encoding="utf-8").split()[0]) / 1e9
    return total


def daemon_seconds(daemon):
    """What all its threads have, those that have ended too."""
    fields = pathlib.Path(f"/proc/{daemon}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report_ratio(name, pairs, choose):
    ratios = [watched / alone for watched, alone in pairs]
    low, high = interval(ratios, choose)
    medians = [statistics.median(column) for column in zip(*pairs)]
    print(f"{name:<12} {medians[0]:8.1f} watched, {medians[1]:8.1f} alone, ratio {statistics.median(ratios):.3f} "
          f"({low:.3f} to {high:.3f})")


def measure(arguments, file, size, daemon, url):
    choose = random.Random(1)
    slice_of_load(file, size, 2 * arguments.seconds, choose)
    rates, costs = [], []
    total = {"updates": 0, "bytes": 0, "seconds": 0}
    web_used = web_seconds(daemon)
    for pair in range(arguments.pairs):
        rate, cost = {}, {}
        for is_watched in ((True, False), (False, True))[pair % 2]:
            viewer = Viewer(url) if is_watched else None
            slice_of_load(file, size, SETTLE_SECONDS, choose)
            used = daemon_seconds(daemon)
            rate[is_watched] = slice_of_load(file, size, arguments.seconds, choose)
            cost[is_watched] = (daemon_seconds(daemon) - used) * 1000 / (rate[is_watched] * arguments.seconds / 1000)
            if viewer:
                for name, value in viewer.stop().items():
                    total[name] += value
        rates.append((rate[True], rate[False]))
        costs.append((cost[True], cost[False]))
    web_used = web_seconds(daemon) - web_used
    seconds = total["seconds"]
    print(f"updates      {total['updates'] / seconds:.1f}/s, {total['bytes'] / seconds / 1024:.0f} KiB/s, "
          f"{100 * web_used / seconds:.1f} % of a processor")
    report_ratio("MB/s", rates, choose)
    report_ratio("CPU ms/GB", costs, choose)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build", help="the build tree")
    parser.add_argument("--directory", default="/dev/shm", help="where the image is made")
    parser.add_argument("--options", default="cache=auto", help="of the mount")
    parser.add_argument("--gib", type=float, default=4, help="size of the file")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=2, help="of a slice")
    parser.add_argument("--view", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.view:
        view(arguments.view)
    wbfat, ctl, mkfs = (os.path.join(arguments.build, path)
                        for path in ("src/wbfat", "tools/ctl/wbfatctl", "tools/mkfs/mkfs.wbfat"))
    size = min(int(arguments.gib * GIB), FILE_MOST)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        image, point = os.path.join(directory, "disk.img"), os.path.join(directory, "mnt")
        os.mkdir(point)
        subprocess.run([mkfs, "-F", "32", "-C", image, str((size + GIB // 4) >> 10)], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([wbfat, image, point, "-o", arguments.options], check=True)
        try:
            url = subprocess.run([ctl, point, "web"], check=True, capture_output=True, text=True).stdout.strip()
            daemon = json.loads(subprocess.run([ctl, point, "status", "--json"], check=True, capture_output=True).stdout)["pid"]
            file = os.open(os.path.join(point, "file"), os.O_RDWR | os.O_CREAT)
            try:
                fill(file, size)
                print(f"load         {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; {size / GIB:.1f} GiB")
                measure(arguments, file, size, daemon, url)
            finally:
                os.close(file)
        finally:
            subprocess.run(["umount", point], check=True)
            # The daemon writes what is left after umount has returned.
            while os.path.exists(f"/proc/{daemon}"):
                time.sleep(0.1)


if __name__ == "__main__":
    main()
