#!/usr/bin/env python3
"""The price of the protocol's switches: page_lock_bench with them as data against page_lock_bench_fixed without them.

    protocol_cost.py BUILD_DIR [ROUNDS]

Both take turns, so that a busy machine slows them alike; the fastest round of each counts. Exits with 1 when the switches
cost more than 5 %.
"""

import json
import pathlib
import subprocess
import sys

LIMIT_PERCENT = 5.0


def measure(program):
    """Nanoseconds of CPU by benchmark."""
    done = subprocess.run([program, "--benchmark_format=json", "--benchmark_min_time=0.1"], check=True, capture_output=True,
                          text=True)
    return {b["name"]: b["cpu_time"] for b in json.loads(done.stdout)["benchmarks"]}


def main():
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    bench = pathlib.Path(sys.argv[1]) / "tools/bench"
    programs = {"switches": bench / "page_lock_bench", "fixed": bench / "page_lock_bench_fixed"}
    best = {name: {} for name in programs}
    for _ in range(int(sys.argv[2]) if len(sys.argv) == 3 else 15):
        for name, program in programs.items():
            for what, ns in measure(program).items():
                best[name][what] = min(ns, best[name].get(what, ns))
    worst = 0.0
    for what, fixed in best["fixed"].items():
        percent = 100.0 * (best["switches"][what] / fixed - 1.0)
        worst = max(worst, percent)
        print(f"{what:18} fixed {fixed:7.2f} ns   switches {best['switches'][what]:7.2f} ns   {percent:+5.1f} %")
    sys.exit(1 if worst > LIMIT_PERCENT else 0)


if __name__ == "__main__":
    main()
