"""Plays random faults, or one mutant's schedule, and prints what the checker finds. Never writes into the tree.

`python -m tests.nemesis --seconds 600 --seed 1` exits with 1 if a promise was broken, or if a mutant was not caught.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.nemesis import runs
from tests.nemesis.checker import check, summary


def main(arguments: list[str]) -> int:
    """Run and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.nemesis")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults are inflicted")
    parser.add_argument("--seed", type=int, default=1, help="decides producers and faults")
    parser.add_argument("--mutant", choices=sorted(runs.SCHEDULES), default="", help="break the protocol on purpose")
    chosen = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="nemesis-"))
    if chosen.mutant:
        events = runs.SCHEDULES[chosen.mutant](folder, chosen.mutant)
    else:
        events = runs.random_faults(folder, chosen.seconds, chosen.seed)
    violations = check(events)
    told = [str(violation) for violation in violations]
    told += [f"{name}: {value}" for name, value in summary(events).items()]
    told.append(f"{len(violations)} violations; the history and the workers' logs are in {folder}")
    print(*told, sep="\n")  # noqa: T201 - what this command is for
    return int(bool(violations) != bool(chosen.mutant))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
