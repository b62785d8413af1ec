"""The experiment that somebody watches: the mail's load on a mount whose page is open, and its protocol switched there."""

import re
import sys
import time

from . import trial as trials
from .bed import Load
from .load import GROWN_FILE
from .report import Column, Result
from .trial import MAIL_RECIPE, Outcome, Trial

SAFE, BAD = "6.8", "5.9"
# Under each protocol, when nobody is there to choose.
SECONDS = 2
COLUMNS = [Column("protocol", "hit under"), Column("seconds", "after s", "{:.1f}"), Column("hits", "hits"),
           Column("fsck", "fsck.fat")]
PROTOCOL_OF_REPORT = re.compile(r"^  protocol +(.+)$", re.MULTILINE)
INVITATION = f"""
The live page: {{page}}

Two threads lengthen {GROWN_FILE} under {SAFE}, with every ordering of the bug: nothing happens. Choose protocol {BAD} on
the page, or in another terminal:

  {{wbfatctl}} {{mountpoint}} protocol set {BAD}

Ctrl-C ends it.
"""
IT_HAPPENED = """
It has happened: {title}
The report is on the page, with what each thread did to that page of the file. Press Enter to unmount.
"""


# On the page itself, for who sees nothing else.
LOAD = (f"Two threads take turns to lengthen {GROWN_FILE} inside a page, each step on the disk before the next, while the "
        f"flusher passes every 10 ms; orderings let a completion wake too late. It was mounted under {SAFE}, which is "
        f"safe: choose protocol {BAD} to see it fail.")
LOAD_ENDED = f"An assertion failed: the two threads that lengthened {GROWN_FILE} are refused from now on."


def somebody_is_there(arguments):
    return sys.stdin.isatty() and sys.stderr.isatty() and not arguments.quick


def tell(words):
    print(words, file=sys.stderr, flush=True)


def watch(lab):
    """The bug of the mail on the live page: choose 5.9 there, and see it happen."""
    result = lab.begin(Result(
        "watch", "What does the mail's bug look like, live?", f"The load and the orderings of `mail` run under {SAFE}.",
        COLUMNS), {})
    bed = lab.make_bed()
    bed.format()
    watched = somebody_is_there(lab.arguments)
    trial = Trial(SAFE, MAIL_RECIPE, settings={"seconds": 3600 if watched else 60})
    options, stats_file = trials.prepare(bed, trial)
    bed.mount(options)
    page = bed.ctl("web")["url"]
    bed.ctl("web", "say", LOAD)
    load = Load(bed, trial.kind, trial.settings)
    outcome = Outcome(SAFE)
    if watched:
        tell(INVITATION.format(page=page, wbfatctl=bed.programs["ctl"], mountpoint=bed.mountpoint))
    else:
        time.sleep(SECONDS)
        bed.ctl("protocol", "set", BAD)
    trials.watch(bed, trial, load, outcome)
    if watched and outcome.first_hit_seconds is not None:
        bed.ctl("web", "say", LOAD_ENDED)
        tell(IT_HAPPENED.format(title=trials.TITLE.search(bed.read_log())[1]))
        sys.stdin.readline()
    trials.finish(bed, load, outcome, stats_file)
    bed.close()
    found = PROTOCOL_OF_REPORT.search(outcome.report)
    under = found[1] if found else "-"
    lab.measured(result, {"protocol": under, "seconds": outcome.first_hit_seconds, "hits": outcome.hits,
                          "fsck": outcome.fsck_words or "clean", "bad": outcome.hits > 0})
    result.report = outcome.report
    result.passed = under not in ("-", SAFE)
    if result.passed:
        result.what += (f" Then the protocol was switched to {under} on the same mount, under the same load, "
                        + ("by who looked on." if watched else "by the lab itself."))
    result.verdict = (f"quiet under {SAFE}; hit under {under}, on the same mount, under the same load" if result.passed
                      else f"{SAFE} was hit" if under == SAFE else "never hit")
    result.closer = ["wbfat-lab mail", f"wbfat-explore run mail --protocol {under if result.passed else BAD}"]
    return result
