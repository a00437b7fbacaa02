"""The targets, and what was reached of each. Never measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.figures import Suite, divide
from benchmarks.roster import NODE, OURS, PEERS
from benchmarks.runner import IN_TURN

GROWTH = "queue_system, growth"
_US = OURS.name
_SMALL_TURNS: tuple[tuple[str, str, float, tuple[str, ...]], ...] = (
    ("jitter 1x5", "5 slots, 5 to 35 ms", 80, ("dramatiq",)),
    ("jitter 1x50", "50 slots, 5 to 35 ms", 18, ("repid", "taskiq, stream")),
    ("trickle", "trickle with its enqueue", 200, ()),
)


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table: what, the bound as a number and in words, and the value reached (None: not measured)."""

    what: str
    words: str
    reached: float | None
    met: Callable[[float], bool]
    digits: int = 2

    def row(self) -> tuple[str, str, str, str]:
        """Return the cells of the line."""
        if self.reached is None:
            return self.what, self.words, "not measured", ""
        return self.what, self.words, f"{self.reached:,.{self.digits}f}", "yes" if self.met(self.reached) else "**no**"


def at_least(bound: float) -> Callable[[float], bool]:
    """Return the test for a lower bound."""
    return lambda value: value >= bound


def at_most(bound: float) -> Callable[[float], bool]:
    """Return the test for an upper bound."""
    return lambda value: value <= bound


def targets(ours: Suite, peers: Suite) -> Iterator[Target]:
    """Yield every target with what was reached."""
    yield from _speed(ours, peers)
    yield from _cost(ours)
    yield from _small_turns(ours, peers)
    yield from _growth(ours)


def _speed(ours: Suite, peers: Suite) -> Iterator[Target]:
    drain = ours.middle(_US, "drain", "rate")
    yield Target("drain, async no-op, one worker, per s", "≥ 100,000", drain, at_least(100_000), 0)
    yield Target("drain against the bare loop", "≥ 1/3", ours.ratio(_US, "floor", "drain", "rate"), at_least(1 / 3))
    fastest = max((peers.middle(p.name, "drain", "rate") or 0.0 for p in PEERS if p.environment != NODE), default=0.0)
    here = peers.middle(_US, "drain", "rate")
    yield Target("drain against the fastest Python peer", "≥ 8", divide(here, fastest), at_least(8), 1)
    bullmq = peers.middle("BullMQ (Node)", "drain", "rate")
    yield Target("drain against BullMQ", "≥ 4", divide(here, bullmq), at_least(4), 1)
    drain_sync = ours.middle(_US, "drain_sync", "rate")
    yield Target("drain, sync no-op, per s", "≥ 25,000", drain_sync, at_least(25_000), 0)
    single = ours.middle(IN_TURN, "ratios", "send")
    yield Target("`enqueue` against the bare `LPUSH` loop", "≥ 0.9", single, at_least(0.9))
    batch = ours.middle(_US, "batch", "rate")
    yield Target("`enqueue_batch`, per s", "≥ 170,000", batch, at_least(170_000), 0)
    variadic = ours.middle(IN_TURN, "ratios", "batch")
    yield Target("`enqueue_batch` against the variadic push", "≥ 0.15", variadic, at_least(0.15))
    observed = ours.middle(IN_TURN, "ratios", "observed")
    yield Target("drain with metrics and JSON logs on, against off", "≥ 0.95", observed, at_least(0.95))
    for part, bound in (("p50", 1.5), ("p99", 3.0)):
        value = ours.middle(IN_TURN, "ratios", part)
        yield Target(
            f"latency when idle, {part}, against the p50 of a bare `BLPOP` wake",
            f"≤ {bound}",
            value,
            at_most(bound),
        )


def _cost(ours: Suite) -> Iterator[Target]:
    sent = ours.middle(_US, "drain_probe", "sent_per_job")
    yield Target("commands sent per operation, busy", "≤ 0.1", sent, at_most(0.1), 3)
    server_us = ours.middle(_US, "drain", "server_us")
    yield Target("server CPU per operation, claim and settlement, in µs", "≤ 8", server_us, at_most(8), 1)
    yield Target("commands per s of an idle worker", "≤ 2", ours.middle(_US, "idle", "commands_per_s"), at_most(2))
    executed = ours.middle(_US, "rest", "commands")
    yield Target("the same, with commands in scripts", "≤ 2", executed, at_most(2))
    yield Target("worker RSS, in MB", "≤ 40", ours.middle(_US, "drain", "rss_mb"), at_most(40), 1)
    early, end = ours.middle(GROWTH, "memory", "early_mb"), ours.middle(GROWTH, "memory", "end_mb")
    yield Target(
        "its growth over the last 900,000 of 1,000,000 operations", "≤ 1.02", divide(end, early), at_most(1.02)
    )


def _small_turns(ours: Suite, peers: Suite) -> Iterator[Target]:
    for regime, words, most, rivals in _SMALL_TURNS:
        what = f"server CPU per operation, {words}"
        here = ours.middle(_US, regime, "server_us")
        yield Target(f"{what}, in µs", f"≤ {most}", here, at_most(most), 0)
        for rival in rivals:
            share = peers.ratio(_US, rival, regime, "server_us")
            yield Target(f"{what}, against {rival}", "≤ 1", share, at_most(1))
    commands = ours.middle(_US, "trickle", "commands")
    yield Target("commands per operation, trickle with its enqueue", "≤ 25", commands, at_most(25), 1)


def _growth(ours: Suite) -> Iterator[Target]:
    for part, words in (("drain_server_us", "claim and settlement"), ("enqueue_server_us", "enqueue")):
        base = ours.middle(GROWTH, "ready 0", part)
        for measure in ours.measures(GROWTH):
            if measure.startswith(("ready ", "queues ", "delayed ")) and measure not in {"ready 0", "ready at once"}:
                cost = divide(ours.middle(GROWTH, measure, part), base)
                yield Target(f"server CPU, {words}, {measure}, against empty", "≤ 1.1", cost, at_most(1.1))
    longest = ours.middle(GROWTH, "due at once", "longest_script_ms")
    yield Target("1,000,000 due at once: longest script, in ms", "≤ 5", longest, at_most(5))
    rate, full = ours.middle(GROWTH, "due at once", "rate"), ours.middle(GROWTH, "ready at once", "rate")
    yield Target("1,000,000 due at once: drain against as many ready", "≥ 0.8", divide(rate, full), at_least(0.8))
