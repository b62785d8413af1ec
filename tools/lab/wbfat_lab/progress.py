"""How far an experiment has come, and how long the rest of it takes.

An experiment is steps of a few kinds: those of a kind take about as long as each other, so the mean of those that are over
tells of those to come. Of a kind that has not been seen yet nothing is known, and the time left is a lower bound.
"""

import contextlib
import math
import time


class Progress:
    def __init__(self, plan, clock=time.monotonic):
        """`plan`: how many steps of each kind there will be."""
        self._clock = clock
        self.planned = dict(plan)
        self.took = {kind: [] for kind in plan}  # seconds of each that is over

    @contextlib.contextmanager
    def step(self, kind):
        start = self._clock()
        yield
        self.took.setdefault(kind, []).append(self._clock() - start)

    def left(self):
        """Seconds, and whether that is an estimate (else at least so many)."""
        seconds, known = 0, True
        for kind, count in self.planned.items():
            took = self.took[kind]
            to_come = max(0, count - len(took))
            if took:
                seconds += to_come * sum(took) / len(took)
            elif to_come:
                known = False
        return seconds, known

    def words(self):
        """Of the step that begins: "3 of 12, about 40 s left"."""
        number = sum(map(len, self.took.values())) + 1
        total = max(number, sum(self.planned.values()))
        seconds, known = self.left()
        left = f"{'about' if known else 'more than'} {duration(seconds)} left"
        return f"{number} of {total}" + (f", {left}" if seconds else "")


def duration(seconds):
    whole = math.ceil(seconds)
    return f"{whole} s" if whole < 100 else f"{round(whole / 60)} min"
