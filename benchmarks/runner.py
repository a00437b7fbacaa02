"""Measures contestants one after another, each on a fresh server, and files what they reached. Never formats it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import environments, measures, small_turns
from benchmarks.measures import Bench, Figures, attempt
from benchmarks.results import Results
from benchmarks.roster import FLOOR, OURS, OURS_OBSERVED, REGIMES, Contestant
from benchmarks.servers import fresh_server, server_name

IN_TURN = "queue_system, in turn with the floor"
_LARGEST_DRAIN = 2_000_000


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: runs of each measure, and seconds that a drain, an enqueueing, idling and jitter take."""

    runs: int = 3
    drain_s: float = 6.0
    enqueue_s: float = 2.0
    idle_s: float = 10.0
    jitter_s: float = 5.0
    limits: tuple[float, float] = (120.0, 60.0)
    quick: bool = False


QUICK = Effort(runs=1, drain_s=0.0, enqueue_s=0.2, idle_s=1.0, jitter_s=1.0, limits=(20.0, 15.0), quick=True)


def run_suite(suite: str, contestants: Sequence[Contestant], server: str, effort: Effort, results: Results) -> None:
    """Measure these contestants and save the results after each."""
    for contestant in contestants:
        started = time.monotonic()
        tell(f"{contestant.name}:")
        environments.prepare(contestant)
        with fresh_server(server) as own:
            with closing(own.client()) as client:
                entries = results.open_suite(suite, server=server_name(client), runs=effort.runs)
            entries[contestant.name] = measure_contestant(Bench(contestant, own, *effort.limits), effort)
        results.save()
        tell(f"  {time.monotonic() - started:.0f} s")


def run_ratios(suite: str, server: str, effort: Effort, results: Results) -> None:
    """Measure this queue in turn with the floor, three times as often as the rest, and save the results."""
    tell(f"{IN_TURN}:")
    record = Record(OURS, 3 * effort.runs)
    with fresh_server(server) as own:
        ours, bare, wake, observed = (
            Bench(contestant, own, *effort.limits) for contestant in (OURS, FLOOR[0], FLOOR[-1], OURS_OBSERVED)
        )
        record.take("ratios", lambda: measures.in_turn(ours, bare, wake, observed, effort.enqueue_s / 2))
    results.data["suites"][suite]["contestants"][IN_TURN] = record.entry
    results.save()


def measure_contestant(bench: Bench, effort: Effort) -> dict[str, Any]:
    """Take every measure that the contestant does not lack."""
    record = Record(bench.contestant, effort.runs)
    for sync, name in ((False, "drain"), (True, "drain_sync")):
        if not record.lacks(name):
            _drain(bench, record, name, effort, sync=sync)
    record.take("enqueue", lambda: measures.enqueue(bench, "send", effort.enqueue_s))
    record.take("batch", lambda: measures.enqueue(bench, "batch", effort.enqueue_s))
    record.take("latency", lambda: measures.latency(bench))
    record.take("idle", lambda: measures.idle(bench, effort.idle_s))
    record.take("rest", lambda: small_turns.rest(bench, effort.idle_s))
    for regime in REGIMES:
        record.take(regime, partial(small_turns.jitter, bench, regime, effort.jitter_s))
    record.take("trickle", lambda: small_turns.trickle(bench, effort.jitter_s))
    record.take("recovery", lambda: measures.recovery(bench))
    return record.entry


def _drain(bench: Bench, record: Record, name: str, effort: Effort, *, sync: bool) -> None:
    count = min(500, bench.contestant.probe)
    if not effort.quick:
        record.take(f"{name}_probe", lambda: measures.probe(bench, sync=sync), runs=1)
        count = bench.contestant.probe
        trial = attempt(lambda: measures.drain(bench, count, sync=sync))
        if isinstance(trial, dict):
            count = max(count, min(_LARGEST_DRAIN, int(trial["rate"] * effort.drain_s)))
    size = count
    record.take(name, lambda: measures.drain(bench, size, sync=sync))


class Record:
    """What one contestant reached, in the form of the results file."""

    def __init__(self, contestant: Contestant, runs: int) -> None:
        self._contestant = contestant
        self._runs = runs
        self.entry: dict[str, Any] = {
            "settings": environments.settings(contestant),
            "versions": environments.versions(contestant),
            "values": {},
            "reasons": dict(contestant.lacks),
        }

    def lacks(self, name: str) -> bool:
        """Tell whether the contestant does not have this measure."""
        return name in self.entry["reasons"]

    def take(self, name: str, measure: Callable[[], Figures | None], *, runs: int | None = None) -> None:
        """Take one measure as often as asked, unless the contestant lacks it; stop when it fails or takes too long."""
        if self.lacks(name):
            return
        values: dict[str, list[float]] = {}
        for _ in range(runs or self._runs):
            figures = attempt(measure)
            if not isinstance(figures, dict):
                self.entry["reasons"][name] = figures or "has no such call"
                tell(f"  {name}: {self.entry['reasons'][name]}")
                return
            for figure, value in figures.items():
                values.setdefault(figure, []).append(round(value, 4))
            if figures.get("limit"):
                break  # waiting as long twice more would tell nothing new
        self.entry["values"][name] = values
        tell(f"  {name}: {values}")


def tell(line: str) -> None:
    """Show progress."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
