"""The experiments. Each is a function of a Lab that returns a Result; its docstring is its help.

Protocols by their names in `wbfat -o protocol=`. BAD are those the mail's bug was in; the others must never be hit.
"""

import contextlib
import statistics

from . import live, rounds
from .progress import Progress
from .report import Column, Result, row_line
from .trial import MAIL_RECIPE, Trial
from . import trial as trials

BAD = ("5.9", "5.10")
SAFE_KERNELS = ("5.8", "5.11", "6.8")
SAFE_PROPOSALS = ("recheck-on-wake", "wake-clears", "wait-to-set")
# Of everyday work, for each protocol.
WORK_ROUNDS, WORK_SECONDS = 5, 2
CHAOS = ("chaos seed {seed} share 20% short 1us..200us long 1ms..5ms",)


class Lab:
    """What all experiments need."""

    def __init__(self, arguments, programs, make_bed, say):
        self.arguments = arguments
        self.programs = programs
        self.make_bed = make_bed  # () -> Bed, only for those that mount
        self.say = say            # progress
        self.results = []         # of the experiments that have begun; the last has no verdict while it runs
        self.progress = Progress({})

    def begin(self, result, plan):
        """An experiment, with so many steps of each kind."""
        self.results.append(result)
        self.progress = Progress(plan)
        return result

    @contextlib.contextmanager
    def step(self, kind, words):
        self.say(f"{words} ({self.progress.words()})")
        with self.progress.step(kind):
            yield

    def measured(self, result, row):
        """A row, or what has been added to one."""
        if not any(known is row for known in result.rows):
            result.rows.append(row)
        self.say(f"measured: {row_line(result, row)}")

    @property
    def seed(self):
        return self.arguments.seed

    def trial(self, bed, protocol, how, kind=None, **changes):
        """A Trial of the mail's load, a step of `kind` or `how`; `how`: none, random or recipe."""
        rules = {"none": (), "random": tuple(rule.format(seed=self.seed) for rule in CHAOS),
                 "recipe": MAIL_RECIPE}[how]
        settings = {"threads": 2, "seed": self.seed} | changes.pop("settings", {})
        with self.step(kind or how, f"{protocol}, {how}"):
            return trials.run(bed, Trial(protocol, rules, settings=settings, **changes))


def edges(outcome_rules):
    """"met/given up" of each ordering, in the order of the recipe."""
    return " ".join(f"{rule['met']}/{rule['given_up']}" for rule in outcome_rules if " after " in rule["text"])


def fsck_verdict(outcome):
    return "clean" if outcome.fsck == 0 else outcome.fsck_words or f"exit code {outcome.fsck}"


MAIL_COLUMNS = [
    Column("protocol", "protocol"), Column("how", "injection"), Column("rounds", "ftruncates"),
    Column("hits", "hit"), Column("per_thousand", "per 1000", "{:.2f}", bar=True),
    Column("first", "first hit s", "{:.3f}"), Column("edges", "orderings met/given up"), Column("fsck", "fsck.fat"),
]


def mail_row(outcome, how):
    return {"protocol": outcome.protocol, "how": how, "rounds": outcome.rounds, "hits": outcome.hits,
            "per_thousand": outcome.per_thousand, "first": outcome.first_hit_seconds, "edges": edges(outcome.rules),
            "fsck": fsck_verdict(outcome), "bad": outcome.hits > 0}


UNTIL_HIT = "until a hit"  # a kind of step


def mail_repeated(lab, bed, protocol, result):
    """Fresh mounts with the recipe until each was hit or had its time; returns how many were hit."""
    hit, ftruncates, first, worst = 0, 0, [], None
    row = {"protocol": protocol}
    for mounts in range(1, lab.arguments.mounts + 1):
        outcome = lab.trial(bed, protocol, "recipe", UNTIL_HIT, settings={"seconds": lab.arguments.seconds})
        ftruncates += outcome.rounds
        if outcome.hits:
            hit += 1
            first.append(outcome.first_hit_seconds)
            result.report = result.report or outcome.report
        worst = outcome if worst is None or outcome.fsck else worst
        row |= {"how": f"recipe, {mounts} mounts of {lab.arguments.seconds:g} s",
                "rounds": ftruncates, "hits": hit, "per_thousand": 1000 * hit / max(1, ftruncates),
                "first": sorted(first)[len(first) // 2] if first else None,
                "edges": edges(outcome.rules), "fsck": fsck_verdict(worst), "bad": hit > 0}
        lab.measured(result, row)
    return hit


def mail(lab):
    """The bug of the mail of 4 January 2021, from an ordinary ftruncate on a mounted volume."""
    quick = lab.arguments.quick
    bad, hows = BAD[:1] if quick else BAD, () if quick else ("none", "random")
    safe = ("5.11", "6.8") if quick else SAFE_KERNELS + SAFE_PROPOSALS
    result = lab.begin(Result(
        "mail", "Can ftruncate on a synchronous FAT volume hit BUG_ON(PageWriteback(page)), and in which kernels?",
        "Two threads take turns to grow one file inside a page while the flusher passes every 10 ms. Four orderings "
        "hold the completion of one write between clearing PG_writeback and waking, until the next ftruncate sleeps "
        "on the flusher's write of the same page. A protocol with `if` around the wait believes the late wake-up. "
        "The same load runs without injection, with random delays, and under the protocols before and after.",
        MAIL_COLUMNS), {UNTIL_HIT: len(bad) * lab.arguments.mounts, **{how: len(bad) for how in hows}, "recipe": len(safe)})
    bed = lab.make_bed()
    wrong = []
    for protocol in bad:
        hit = mail_repeated(lab, bed, protocol, result)
        if hit < 0.9 * lab.arguments.mounts:
            wrong.append(f"{protocol} was hit in {hit} of {lab.arguments.mounts} mounts only")
        for how in hows:
            outcome = lab.trial(bed, protocol, how, settings={"rounds": lab.arguments.rounds})
            lab.measured(result, mail_row(outcome, how))
    for protocol in safe:
        outcome = lab.trial(bed, protocol, "recipe", settings={"rounds": lab.arguments.rounds})
        lab.measured(result, mail_row(outcome, "recipe"))
        if outcome.hits or outcome.hung:
            wrong.append(f"{protocol} {'hung' if outcome.hung else 'was hit'}")
    bed.close()
    dirty = sorted({row["protocol"] for row in result.rows if row["fsck"] != "clean" and row["protocol"] not in BAD})
    wrong += [f"fsck.fat complains under {protocol}" for protocol in dirty]
    result.passed = not wrong
    result.verdict = "; ".join(wrong) if wrong else (
        f"{' and '.join(bad)}: yes, at will. The loop of 5.11 and every safe way around the "
        f"stale wake-up: not once, under the same load and the same orderings.")
    result.closer = ["wbfat-lab mail --html mail.html", "wbfat-explore run mail --protocol 5.9",
                     "wbfat DEVICE MOUNTPOINT -f -o sync,protocol=5.9,points_file=RULES   # wbfat-lab recipe mail"]
    return result


ROUND_COLUMNS = [
    Column("protocol", "protocol"), Column("how", "injection"), Column("rounds", "rounds"), Column("hits", "assertion"),
    Column("hung", "hung"), Column("per_thousand", "per 1000", "{:.2f}", bar=True), Column("edges", "met/given up"),
    Column("title", "first failure"),
]


def play(lab, result, kind, protocol, how, count=None):
    """A row of the scenario that `result` is about, a step of `kind`."""
    count = count or lab.arguments.rounds
    with lab.step(kind, f"{result.name}: {protocol}, {how}"):
        played = rounds.play(lab.programs["rounds"], result.name, protocol, count, how, lab.seed)
    row = {"protocol": protocol, "how": how, "edges": edges(played["rules"]), "bad": played["per_thousand"] > 0}
    row |= {key: played[key] for key in ("rounds", "hits", "hung", "per_thousand", "title")}
    row["hung"] += played["died"]
    lab.measured(result, row)
    return row


def scenario(lab, name, question, what, bad, safe, verdicts, bad_rounds=100):
    """A scenario of wbfat-lab-rounds: `bad` must fail with the recipe, `safe` must not.

    `bad_rounds` bounds what takes long: each round that hangs costs a second.
    """
    hows = () if lab.arguments.quick else ("none", "random")
    result = lab.begin(Result(name, question, what, ROUND_COLUMNS),
                       {"bad": len(bad), **{how: len(bad) for how in hows}, "safe": len(safe)})
    wrong = []
    for protocol in bad:
        if play(lab, result, "bad", protocol, "recipe", min(lab.arguments.rounds, bad_rounds))["per_thousand"] == 0:
            wrong.append(f"{protocol} was not hit")
        for how in hows:
            play(lab, result, how, protocol, how, None if bad_rounds >= 100 else bad_rounds)
    for protocol in safe:
        if play(lab, result, "safe", protocol, "recipe")["per_thousand"] > 0:
            wrong.append(f"{protocol} was hit")
    result.passed = not wrong
    result.verdict = "; ".join(wrong) if wrong else verdicts
    result.closer = [f"wbfat-lab-rounds {name} --protocol {bad[0]} --recipe --show-report",
                     f"wbfat-explore run {name} --protocol {bad[0]}"]
    return result


def reuse(lab):
    """The page that is another's by the time its late completion wakes (November 2020)."""
    return scenario(
        lab, "reuse", "May end_page_writeback touch a page it holds no reference to?",
        "A completion has cleared PG_writeback; before it wakes, the page is truncated away and its frame goes to "
        "another file.", ("5.8", "5.9"), ("5.10", "5.11", "6.8"),
        "No: until 5.9 the late completion touches somebody else's page. The reference of 5.10 cures that, and only "
        "that.")


def two_waiters(lab):
    """Why one atomic clear-and-look is not enough."""
    return scenario(
        lab, "two-waiters", "Is it enough to clear the bit and look for waiters in one atomic step, as 6.8 does?",
        "A second thread waits for the first writeback without the page lock, so PG_waiters is set when the bit is "
        "cleared, and the late walk of the queue meets the integrity walk of the next writeback.",
        ("5.9,end=xor", "6.8,wait=if"), ("6.8", "recheck-on-wake", "wake-clears"),
        "No. With a second waiter the stale wake-up is back; the `while` around the wait is what makes 6.8 safe.")


def lock_in_end(lab):
    """The proposal that deadlocks."""
    return scenario(
        lab, "lock-in-end", "Could end_page_writeback simply take the page lock?",
        "An integrity walk holds the page lock and waits for the writeback whose end now wants that lock.",
        ("lock-in-end",), ("6.8",),
        "No: the walk waits for the end and the end waits for the walk. And completions may not sleep at all.",
        bad_rounds=3 if lab.arguments.quick else 20)


STARVATION_COLUMNS = [
    Column("protocol", "protocol"), Column("locks", "locks"), Column("per_second", "locks/s", "{:.0f}", bar=True),
    Column("hog_share", "hog's share %", "{:.1f}"), Column("p50", "wait p50 us", "{:.0f}"),
    Column("p99", "wait p99 us", "{:.0f}"), Column("max", "wait max us", "{:.0f}", bar=True),
    Column("jain", "fairness", "{:.3f}"),
]


def starvation(lab):
    """Who gets the page lock, and after how long, by version."""
    protocols = ("5.8", "5.9-rc", "5.9", "6.8", "6.8,handoff=never")
    result = lab.begin(Result(
        "starvation", "Does the page lock go round, and what does fairness cost?",
        "One thread takes the page lock again as soon as it has let go, others take it and sleep for it. Until 5.8 a "
        "woken sleeper may lose for ever; 5.9-rc hands the lock over every time; since 5.9 after five losses.",
        STARVATION_COLUMNS), {"fight": len(protocols)})
    for protocol in protocols:
        with lab.step("fight", protocol):
            row = rounds.fight(lab.programs["rounds"], protocol, 0.3 if lab.arguments.quick else 3)
        lab.measured(result, row | {"protocol": protocol})
    worst = max(result.rows, key=lambda row: row["max"])
    fairest = max(result.rows, key=lambda row: row["jain"])
    fastest = max(result.rows, key=lambda row: row["per_second"])
    result.verdict = (f"Longest wait {worst['max']:.0f} us under {worst['protocol']}; fairest {fairest['protocol']} "
                      f"({fairest['jain']:.2f}); most locks a second {fastest['protocol']} "
                      f"({fastest['per_second']:.0f}).")
    result.closer = ["wbfat-lab-rounds --fight 10 --protocol 5.8"]
    return result


PROPOSAL_COLUMNS = [
    Column("protocol", "protocol"), Column("verdict", "explorer"),
    Column("mail", "mail, hit per 1000", "{:.0f}", bar=True), Column("two_waiters", "two waiters", "{:.0f}"),
    Column("reuse", "reuse", "{:.0f}"), Column("ops", "ops/s", "{:.0f}", bar=True),
    Column("mib", "MiB/s", "{:.1f}"), Column("p50", "p50 us", "{:.0f}"), Column("p99", "p99 us", "{:.0f}", bar=True),
    Column("p999", "p99.9 us", "{:.0f}"), Column("waits", "waits per 1000 ops", "{:.0f}"),
    Column("fsck", "fsck.fat"),
]


def proposals(lab):
    """Every way out that the mail weighs, side by side."""
    quick = lab.arguments.quick
    names = ("5.9", "6.8", "wait-to-set") if quick else \
        ("5.8", "5.9", "5.10", "5.11", "6.8") + SAFE_PROPOSALS + ("lock-in-end",)
    working = [name for name in names if name != "lock-in-end"]
    repeats = 1 if quick else WORK_ROUNDS
    scenarios = (("mail", "mail"), ("two_waiters", "two-waiters"), ("reuse", "reuse"))
    result = lab.begin(Result(
        "proposals", "Which way out of the mail's bug is right, and what does each cost?",
        "Each protocol meets the mail's interleaving, the one with two waiters and the one of the reused page, forced "
        "by orderings; then everyday work on a synchronous mount, all threads on the same volume, without injection, the "
        "protocols in turn: medians.",
        PROPOSAL_COLUMNS), {**{name: len(names) for _, name in scenarios}, "work": repeats * len(working)})
    forced = 20 if quick else min(lab.arguments.rounds, 200)
    bed = lab.make_bed()
    for protocol in names:
        row = {"protocol": protocol, "verdict": lab.explorer_verdict(protocol, "mail")}
        for key, name in scenarios:
            with lab.step(name, f"{protocol}: {name}"):
                row[key] = rounds.play(lab.programs["rounds"], name, protocol,
                                       5 if protocol == "lock-in-end" else forced, "recipe", lab.seed)["per_thousand"]
        row["bad"] = row["mail"] + row["two_waiters"] + row["reuse"] > 0
        lab.measured(result, row)
    costs = {protocol: [] for protocol in working}
    for _ in range(repeats):  # in turn: what the machine does to one it does to all
        for row in result.rows:
            if row["protocol"] in costs:
                figures = costs[row["protocol"]]
                figures.append(cost_of(work(lab, bed, row["protocol"])))
                row |= medians(figures)
                lab.measured(result, row)
    bed.close()
    judge(result)
    return result


def medians(costs):
    return {key: statistics.median(cost[key] for cost in costs) for key in costs[0] if key != "fsck"} | {
        "fsck": next((cost["fsck"] for cost in costs if cost["fsck"] != "clean"), "clean")}


def cost_of(outcome):
    seconds = outcome.seconds or 1
    waits = outcome.stats.get("lock_waits", 0) + outcome.stats.get("writeback_waits", 0)
    return {"ops": outcome.rounds / seconds, "mib": outcome.bytes / seconds / (1 << 20),
            "waits": 1000 * waits / max(1, outcome.rounds), "fsck": fsck_verdict(outcome),
            **{key: outcome.latency_us.get(key, 0) for key in ("p50", "p99", "p999")}}


def work(lab, bed, protocol):
    with lab.step("work", f"{protocol}: everyday work"):
        return trials.run(bed, Trial(protocol, kind="mixed", stop_at_hit=False,
                                     settings={"threads": 4, "seed": lab.seed,
                                               "seconds": 0.5 if lab.arguments.quick else WORK_SECONDS}))


def judge(result):
    right = [row for row in result.rows if not row["bad"]]
    wrong = [row["protocol"] for row in result.rows if row["bad"]]
    fastest = max((row["ops"] for row in right if row.get("ops")), default=0)
    costs = ", ".join(f"{row['protocol']} {100 * row['ops'] / fastest:.0f} %" for row in right if row.get("ops"))
    result.passed = bool(right) and not {"6.8", "5.11", "wait-to-set"} & set(wrong)
    result.verdict = (f"Hit: {', '.join(wrong)}. Right: {', '.join(row['protocol'] for row in right)}. "
                      f"Speed of the right ones, of the fastest: {costs}.")
    result.closer = ["wbfat-explore matrix", "wbfat-lab compare 6.8 wait-to-set"]


COMPARE_COLUMNS = [
    Column("what", "what"), Column("a", "A", "{:g}"), Column("b", "B", "{:g}"), Column("ratio", "B / A", "{:.2f}"),
]


def compare(lab):
    """Two protocols, same seed, same load."""
    first, second = lab.arguments.a, lab.arguments.b
    result = lab.begin(Result(
        "compare", f"What is the difference between {first} (A) and {second} (B)?",
        "The mail's load with its orderings, then everyday work without injection: same seed, fresh volume each.",
        COMPARE_COLUMNS), {"recipe": 2, "work": 2})
    bed = lab.make_bed()
    pairs = []
    for protocol in (first, second):
        forced = lab.trial(bed, protocol, "recipe", stop_at_hit=True, settings={"rounds": lab.arguments.rounds})
        pairs.append((forced, work(lab, bed, protocol)))
    bed.close()
    (forced_a, work_a), (forced_b, work_b) = pairs
    values = [("ftruncates until a hit or the end", forced_a.rounds, forced_b.rounds),
              ("hits", forced_a.hits, forced_b.hits),
              ("operations a second", work_a.rounds / (work_a.seconds or 1), work_b.rounds / (work_b.seconds or 1))]
    for key in ("p50", "p99", "p999", "max"):
        values.append((f"latency {key} us", work_a.latency_us.get(key, 0), work_b.latency_us.get(key, 0)))
    for key in ("lock_waits", "writeback_waits", "pages_written", "bios_written"):
        values.append((key, work_a.stats.get(key, 0), work_b.stats.get(key, 0)))
    for what, a, b in values:
        lab.measured(result, {"what": what, "a": round(a, 1), "b": round(b, 1), "ratio": b / a if a else None})
    result.report = forced_a.report or forced_b.report
    hit = [name for name, forced in ((first, forced_a), (second, forced_b)) if forced.hits]
    result.verdict = f"hit: {' and '.join(hit)}" if hit else "neither was hit"
    result.closer = [f"wbfat-explore run mail --protocol {first}", f"wbfat-explore run mail --protocol {second}"]
    return result


EXPERIMENTS = {"mail": mail, "reuse": reuse, "two-waiters": two_waiters, "lock-in-end": lock_in_end,
               "starvation": starvation, "proposals": proposals, "compare": compare, "watch": live.watch}
# What `all` leaves out: one needs names, the other somebody who looks on.
BY_NAME_ONLY = ("compare", "watch")
