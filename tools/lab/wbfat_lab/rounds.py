"""Scenarios on the page cache without a mount: wbfat-lab-rounds, in many rounds with fresh rules."""

import json
import subprocess

from .bed import LabError

RANDOM = ("chaos seed {seed} share 20% short 1us..200us long 1ms..5ms",)


def play(program, scenario, protocol, rounds, how="none", seed=1, hang_seconds=1):
    """`how`: none, random or recipe. Returns the program's JSON object."""
    command = [program, scenario, "--protocol", protocol, "--rounds", str(rounds), "--hang", str(hang_seconds)]
    if how == "recipe":
        command.append("--recipe")
    elif how == "random":
        command += [word for rule in RANDOM for word in ("--point", rule.format(seed=seed))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(done.stderr.strip() or f"{program} ended with code {done.returncode}")
    result = json.loads(done.stdout)
    result["how"] = how
    result["per_thousand"] = 1000 * (result["hits"] + result["hung"] + result["died"]) / max(1, result["rounds"])
    return result


def fight(program, protocol, seconds):
    """Threads want one page lock; the program's JSON object."""
    done = subprocess.run([program, "--fight", str(seconds), "--protocol", protocol], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise LabError(done.stderr.strip() or f"{program} ended with code {done.returncode}")
    return json.loads(done.stdout)
