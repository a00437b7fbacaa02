"""The runs: random faults, and for each mutant the schedule of faults that shows it. Never judges the history."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.nemesis.arena import Arena
from tests.nemesis.history import Event
from tests.nemesis.producers import Order

WORKERS: Final = 3
PRODUCERS: Final = 3
LEASE_S: Final = 2.0
_DRAINED_WITHIN_S: Final = 40.0
_PATIENCE_S: Final = 20.0


def random_faults(folder: Path, seconds: float, seed: int) -> list[Event]:
    """Let a nemesis loose on producers and workers for so long, then heal and drain."""
    with Arena(folder, lease_s=LEASE_S, seed=seed, progress_s=3 * LEASE_S) as arena:
        for _ in range(WORKERS):
            arena.fleet.start()
        producers = [arena.producer(f"p{i}", seed) for i in range(PRODUCERS)]
        for producer in producers:
            producer.start()
        arena.nemesis.play(seconds)
        arena.nemesis.heal()
        while sum(worker.up for worker in arena.fleet.workers) < WORKERS:
            arena.fleet.start()
        for producer in producers:
            producer.finish()
        return arena.finish(_DRAINED_WITHIN_S)


def beats_behind_a_pause(folder: Path, mutant: str) -> list[Event]:
    """Hold up writes for more than a lease: reclaimers see silence, but the beats were sent before their verdict."""
    with Arena(folder, lease_s=1.0, slots=4, timeout_s=5.0, mutant=mutant) as arena:
        arena.start_workers(2)
        arena.send(_orders(8, seconds=2.5))
        arena.wait(lambda: len(arena.events("run", "invoke")) == 8, _PATIENCE_S)
        arena.nemesis.pause(1.8, writes_only=True)
        return arena.finish(8.0)


def late_settlements(folder: Path, mutant: str) -> list[Event]:
    """Freeze a worker in the middle of its operations until another has run them; then let it settle."""
    lease_s = 0.8
    with Arena(folder, lease_s=lease_s, slots=4, mutant=mutant) as arena:
        arena.start_workers(2)
        victim = arena.fleet.workers[0]
        arena.send(_orders(8, seconds=1.0))
        arena.wait(lambda: set(arena.records().values()) == {"running"}, _PATIENCE_S)
        arena.nemesis.freeze(victim, 2 * lease_s)
        arena.drain(_PATIENCE_S)
        arena.nemesis.pause(1.0)  # so that it sends its settlements before any answer tells it that it is dead
        return arena.finish(5.0)


def long_operations(folder: Path, mutant: str) -> list[Event]:
    """Run operations that take longer than a lease, and inflict nothing."""
    with Arena(folder, lease_s=1.0, slots=4, mutant=mutant) as arena:
        arena.start_workers(2)
        arena.send(_orders(4, seconds=1.6))
        return arena.finish(3.0)


def lost_claim_reply(folder: Path, mutant: str) -> list[Event]:
    """Let the server run a claim and drop the connection instead of its reply; beats are too rare to cure that soon."""
    with Arena(folder, lease_s=24.0, progress_s=4.0, mutant=mutant) as arena:
        arena.start_workers(1)
        with arena.nemesis.cut_long_replies(32_000):
            arena.send(_orders(1, padding=200_000))
            arena.wait(lambda: arena.in_flight() == 1, _PATIENCE_S)
            time.sleep(0.5)  # the fault lasts so long
        return arena.finish(4.5)


SCHEDULES: Final[dict[str, Callable[[Path, str], list[Event]]]] = {
    "ignore-the-counter": beats_behind_a_pause,
    "settle-without-token": late_settlements,
    "lease-by-age": long_operations,
    "claim-anew": lost_claim_reply,
}
"""By the name of a mutant, the schedule under which it errs. Without the mutant the same schedule breaks no promise."""


def _orders(count: int, *, seconds: float = 0.01, padding: int = 0) -> list[Order]:
    return [Order((f"sent-{i}",), seconds=seconds, padding=padding) for i in range(count)]
