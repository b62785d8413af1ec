"""wbfat-lab: experiments with the page protocol on a mounted volume.

    experiments.py  the experiments: question, what is done, verdict, how to look closer
    trial.py        one protocol under one load: hits, orderings, latencies
    load.py         what the users of the mount do, in a process of its own
    rounds.py       scenarios on the page cache without a mount (wbfat-lab-rounds)
    bed.py          device, volume, mount; refuses what it should not touch
    guardian.py     cleans up when the laboratory is killed
    progress.py   how far an experiment has come, and the time left
    report.py       table, JSON, HTML page
"""
