"""Two checkouts in turn: `python -m benchmarks compare PATH`. Never files what it measures.

Each round takes each measure of both, one right after the other and in changing order: what else the machine does slows
both.
Both are driven by this checkout's contestant, in its environment; only the source of the queue differs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import environments, measures, small_turns
from benchmarks.environments import ROOT
from benchmarks.measures import Bench, Figures
from benchmarks.roster import OURS, REGIMES
from benchmarks.servers import fresh_server, server_name

_WORDS = {
    "drain": "drained per second",
    "server_us": "server time per operation drained",
    "send": "enqueued per second",
    "batch": "enqueued per second in batches",
    "p50_ms": "ms from the enqueue to the start, p50",
    **{regime: f"server time per operation, {regime}" for regime in (*REGIMES, "trickle")},
}
_ENQUEUE_S = 1.0
_JITTER_S = 2.0


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
            print(f"{count:,} on {server_name(client)}, this checkout : {other}")  # noqa: T201 - the output
        benches = [Bench(OURS, own, source=checkout / "src") for checkout in (ROOT, other)]
        for number in range(rounds + 1):
            here, there = _measure_both(benches, count, number)
            if number == 0:
                continue  # what is loaded from disk for the first time
            for name, values in ratios.items():
                values.append(here[name] / there[name])
            told = ", ".join(f"{name} {here[name]:,.2f} : {there[name]:,.2f}" for name in _WORDS)
            print(f"{number}: {told}", flush=True)  # noqa: T201 - the output
    for name, words in _WORDS.items():
        low, middle, high = min(ratios[name]), statistics.median(ratios[name]), max(ratios[name])
        print(f"{words}: {middle:.3f} ({low:.3f} to {high:.3f} in {rounds} rounds)")  # noqa: T201 - the output


def _measure_both(benches: list[Bench], count: int, number: int) -> list[Figures]:
    """Take each measure of both before the next one; which one comes first changes with the number."""
    order = (0, 1) if number % 2 else (1, 0)
    figures: list[Figures] = [{}, {}]
    all_measures: list[Callable[[Bench], Figures]] = [
        partial(_drain, count=count), partial(_enqueue, "send"), partial(_enqueue, "batch"), _latency,
        *(partial(_jitter, regime) for regime in REGIMES), _trickle,
    ]  # fmt: skip
    for measure in all_measures:
        for i in order:
            figures[i] |= measure(benches[i])
    return figures


def _drain(bench: Bench, count: int) -> Figures:
    drained = measures.drain(bench, count, sync=False)
    return {"drain": drained["rate"], "server_us": drained["server_us"]}


def _enqueue(role: str, bench: Bench) -> Figures:
    enqueued = measures.enqueue(bench, role, _ENQUEUE_S)
    if enqueued is None:
        raise ValueError(f"{bench.contestant.name}: expected a contestant that can {role}")
    return {role: enqueued["rate"]}


def _jitter(regime: str, bench: Bench) -> Figures:
    return {regime: small_turns.jitter(bench, regime, _JITTER_S)["server_us"]}


def _trickle(bench: Bench) -> Figures:
    return {"trickle": small_turns.trickle(bench, _JITTER_S)["server_us"]}


def _latency(bench: Bench) -> Figures:
    return {"p50_ms": measures.latency(bench)["p50_ms"]}
