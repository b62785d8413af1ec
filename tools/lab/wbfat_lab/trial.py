"""One protocol under one load on a fresh volume: how often it was hit, what the orderings did, what it cost."""

import json
import os
import re
import time
from dataclasses import dataclass, field

from .bed import Load
from .load import GROWN_FILE

# What a report of the daemon begins with (cache/base/check.h), and what it ends with.
TITLE = re.compile(r"^((?:BUG|WARNING) at \S+ .*)$", re.MULTILINE)
REPORT_END = "---[ end of report ]---"
POLL_SECONDS = 0.005
HANG_SECONDS = 5

# CPU1, 2, 3 of the mail on a synchronous mount (writeback-protocol.md 9.5): the completion of one ftruncate's write is
# late to wake while the flusher writes the page that the next ftruncate has grown, and that ftruncate then waits for
# the flusher's writeback with the page lock held.
MAIL_RECIPE = (
    # The ftruncate whose write is late finds the bit clear and returns.
    "sync_expansion:written@request[file=FILE] after end_writeback:cleared@completion[file=FILE] "
    "since set_writeback:done@sync[file=FILE] give up 100ms",
    # The next one has zeroed; the flusher writes the page before its end is dirtied once more.
    "cont_expand:zeroed@request[file=FILE] after set_writeback:done@flusher[file=FILE] "
    "since sync_expansion:written@request[file=FILE] give up 100ms",
    # The late completion goes on when somebody sleeps on the bit.
    "end_writeback:cleared@completion[file=FILE] after wait:queued@sync[file=FILE;what=writeback] "
    "since cont_expand:zeroed@request[file=FILE] give up 60ms",
    # The flusher's write is in flight until that sleeper was woken.
    "end_writeback:begin@completion[file=FILE] after wait:woken@sync[file=FILE;what=writeback] "
    "since cont_expand:zeroed@request[file=FILE] give up 5ms",
)
FLUSHER_OFTEN = "dirty_writeback_centisecs=1,dirty_expire_centisecs=0"


@dataclass
class Trial:
    """What is to be done."""
    protocol: str
    rules: tuple = ()
    kind: str = "grow"
    settings: dict = field(default_factory=dict)  # of the load
    options: str = "sync,nobarrier"
    stop_at_hit: bool = True


@dataclass
class Outcome:
    """What came of it."""
    protocol: str
    rounds: int = 0
    hits: int = 0
    hung: bool = False
    first_hit_seconds: float | None = None
    seconds: float = 0
    latency_us: dict = field(default_factory=dict)
    bytes: int = 0
    stats: dict = field(default_factory=dict)  # the daemon's counters
    rules: list = field(default_factory=list)  # with met and given_up
    title: str = ""
    report: str = ""
    fsck: int = 0
    fsck_words: str = ""

    @property
    def per_thousand(self):
        return 1000 * self.hits / self.rounds if self.rounds else 0


def mount_options(bed, trial, rules_file, stats_file):
    parts = [trial.options, FLUSHER_OFTEN, f"protocol={trial.protocol}", f"stats={stats_file}"]
    if trial.stop_at_hit:
        parts.append("bug=shutdown")
    else:
        parts.append("bug=continue")
    if bed.loop or bed.device.startswith("/dev/"):
        parts.append("direct_io_device")
    if rules_file:
        parts.append(f"points_file={rules_file}")
    return ",".join(parts)


def prepare(bed, trial):
    """The options to mount with, and the file that the daemon's counters go to."""
    rules_file = None
    if trial.rules:
        rules_file = os.path.join(bed.directory, "rules")
        with open(rules_file, "w", encoding="utf-8") as file:
            file.write("".join(rule.replace("FILE", GROWN_FILE) + "\n" for rule in trial.rules))
    stats_file = os.path.join(bed.directory, "stats.json")
    return mount_options(bed, trial, rules_file, stats_file), stats_file


def run(bed, trial):
    """Formats, mounts, loads, unmounts, checks."""
    bed.format()
    options, stats_file = prepare(bed, trial)
    bed.mount(options)
    load = Load(bed, trial.kind, trial.settings)
    outcome = Outcome(trial.protocol)
    try:
        watch(bed, trial, load, outcome)
    except BaseException:
        load.stop(0)
        raise
    finish(bed, load, outcome, stats_file)
    return outcome


def finish(bed, load, outcome, stats_file):
    """Ends load and mount, and reads what they left."""
    result = load.stop(HANG_SECONDS)
    if result is None:
        outcome.hung = True
        bed.kill_mount()
        load.forget()
    else:
        outcome.rounds, outcome.seconds = result["rounds"], result["seconds"]
        outcome.latency_us, outcome.bytes = result["latency_us"], result["bytes"]
        outcome.hung = not bed.unmount()
    read_results(bed, outcome, stats_file)


def watch(bed, trial, load, outcome):
    """Until the load has ended, a hit is enough, or nothing moves any more."""
    start = time.monotonic()
    limit = trial.settings.get("seconds", 600) + HANG_SECONDS
    while not load.ended() and time.monotonic() - start < limit:
        found = TITLE.search(bed.read_log())
        if found and outcome.first_hit_seconds is None:
            outcome.first_hit_seconds = time.monotonic() - start
            if trial.stop_at_hit:
                return
        time.sleep(POLL_SECONDS)


def read_results(bed, outcome, stats_file):
    log = bed.read_log()
    titles = TITLE.findall(log)
    outcome.hits = len(titles)
    if titles:
        outcome.title = titles[0]
        outcome.report = log[log.index(titles[0]):].partition(REPORT_END)[0]
    try:
        with open(stats_file, encoding="utf-8") as file:
            outcome.stats = json.load(file)
        os.unlink(stats_file)
    except (OSError, ValueError):
        outcome.stats = {}
    outcome.rules = outcome.stats.pop("points", [])
    outcome.fsck, outcome.fsck_words = bed.check()
