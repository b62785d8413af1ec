"""What the users of the mount do, in a process of its own: a request that never returns is killed with it.

    load.py KIND DIR SETTINGS-AS-JSON

Prints one JSON object when it has done its rounds, ran out of time, or got SIGTERM.
"""

import json
import os
import random
import signal
import sys
import threading
import time

PAGE = 4096
BLOCK = 512
GROWN_FILE = "grow.dat"


class Clock:
    """Counts operations and how long each took."""

    def __init__(self):
        self._lock = threading.Lock()
        self.latencies = []
        self.errors = {}
        self.bytes = 0

    def time(self, call, *args):
        start = time.perf_counter_ns()
        try:
            call(*args)
        except OSError as error:
            with self._lock:
                name = os.strerror(error.errno)
                self.errors[name] = self.errors.get(name, 0) + 1
            return False
        took = time.perf_counter_ns() - start
        with self._lock:
            self.latencies.append(took)
        return True

    def count_bytes(self, number):
        with self._lock:
            self.bytes += number

    def result(self, seconds):
        ordered = sorted(self.latencies)

        def quantile(share):
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1000 if ordered else 0

        return {"rounds": len(ordered), "seconds": seconds, "bytes": self.bytes, "errors": self.errors,
                "latency_us": {name: round(quantile(share), 1) for name, share in
                               (("p50", .5), ("p90", .9), ("p99", .99), ("p999", .999), ("max", 1))}}


class Load:
    """Threads that act until there is nothing left to do."""

    def __init__(self, directory, settings):
        self.directory = directory
        self.rounds = settings.get("rounds", 1 << 60)
        self.threads = settings.get("threads", 2)
        self.seed = settings.get("seed", 1)
        self.deadline = time.monotonic() + settings.get("seconds", 3600)
        self.stop = threading.Event()
        self.clock = Clock()
        self._lock = threading.Lock()
        self._begun = 0

    def next_round(self):
        """The number of the next round, or None."""
        with self._lock:
            if self._begun >= self.rounds or self.stop.is_set() or time.monotonic() > self.deadline:
                return None
            self._begun += 1
            return self._begun - 1

    def path(self, name):
        return os.path.join(self.directory, name)

    def run(self):
        self.prepare()
        start = time.monotonic()
        workers = [threading.Thread(target=self.work, args=(number,)) for number in range(self.threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return self.clock.result(time.monotonic() - start)


class Grow(Load):
    """The mail's users: several threads take turns to ftruncate one file a little longer, mostly inside a page.

    Sizes are odd, so the block with the new end is dirtied twice (writeback-protocol.md 11.3); nothing is ever cut.
    """

    def prepare(self):
        self.file = os.open(self.path(GROWN_FILE), os.O_RDWR | os.O_CREAT)
        self.size = os.fstat(self.file).st_size
        self.random = random.Random(self.seed)
        self.turn = threading.Lock()

    def work(self, _number):
        while self.next_round() is not None:
            with self.turn:
                self.size += self.random.randrange(BLOCK + 1, 2 * BLOCK, 2)
                self.size += 1 - self.size % 2
                if not self.clock.time(os.ftruncate, self.file, self.size):
                    self.stop.set()


class Mixed(Load):
    """Everyday work: each thread on a file of its own grows, writes, syncs and now and then starts again."""

    def prepare(self):
        self.block = os.urandom(64 << 10)

    def work(self, number):
        choose = random.Random(self.seed * 1000 + number)
        file = os.open(self.path(f"mixed{number}.dat"), os.O_RDWR | os.O_CREAT)
        size = 0
        while self.next_round() is not None and not self.stop.is_set():
            if size > 1 << 20:
                self.clock.time(os.ftruncate, file, 0)
                size = 0
            length = choose.choice((100, 700, 5000, 40000))
            what = choose.random()
            if what < .4:
                size += length
                done = self.clock.time(os.ftruncate, file, size)
            elif what < .9:
                offset = choose.randrange(size + 1)
                done = self.clock.time(os.pwrite, file, self.block[:length], offset)
                size = max(size, offset + length)
                self.clock.count_bytes(length)
            else:
                done = self.clock.time(os.fsync, file)
            if not done:
                self.stop.set()
        os.close(file)


KINDS = {"grow": Grow, "mixed": Mixed}


def main(kind, directory, settings):
    load = KINDS[kind](directory, json.loads(settings))
    signal.signal(signal.SIGTERM, lambda *_: load.stop.set())
    print(json.dumps(load.run()))


if __name__ == "__main__":
    main(*sys.argv[1:])
