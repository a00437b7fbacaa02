"""The drain of two checkouts in turn: `python -m benchmarks compare PATH`. Never files what it measures.

Each round drains both, one right after the other and in changing order, so that what else the machine does slows both.
Both are driven by this checkout's contestant, in its environment; only the source of the queue differs.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks import environments, measures
from benchmarks.environments import ROOT
from benchmarks.measures import Bench, Figures
from benchmarks.roster import OURS
from benchmarks.servers import fresh_server, server_name

_WORDS = {"rate": "operations per second", "server_us": "server time per operation"}


def run_comparison(other: Path, server: str, rounds: int, count: int) -> None:
    """Print this checkout's figures over those of `other`: the median of all rounds, and the spread.

    Raises:
        FileNotFoundError: there is no checkout at `other`.
    """
    if not (other / "src" / "queue_system").is_dir():
        raise FileNotFoundError(f"{other}: expected a checkout, with src/queue_system in it")
    environments.prepare(OURS)
    ratios: dict[str, list[float]] = {name: [] for name in _WORDS}
    with fresh_server(server) as own:
        with own.client() as client:
            print(f"drains of {count:,} on {server_name(client)}, this checkout : {other}")  # noqa: T201 - the output
        benches = [Bench(OURS, own, source=checkout / "src") for checkout in (ROOT, other)]
        for number in range(rounds + 1):
            here, there = _drain_both(benches, count, number)
            if number == 0:
                continue  # what is loaded from disk for the first time
            for name, values in ratios.items():
                values.append(here[name] / there[name])
            told = ", ".join(f"{name} {here[name]:,.1f} : {there[name]:,.1f}" for name in _WORDS)
            print(f"{number}: {told}", flush=True)  # noqa: T201 - the output
    for name, words in _WORDS.items():
        low, middle, high = min(ratios[name]), statistics.median(ratios[name]), max(ratios[name])
        print(f"{words}: {middle:.3f} ({low:.3f} to {high:.3f} in {rounds} rounds)")  # noqa: T201 - the output


def _drain_both(benches: list[Bench], count: int, number: int) -> list[Figures]:
    """Drain both; which one comes first changes with the number."""
    order = (0, 1) if number % 2 else (1, 0)
    figures = {i: measures.drain(benches[i], count, sync=False) for i in order}
    return [figures[0], figures[1]]
