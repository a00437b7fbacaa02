"""Looks at the fleet once a second for all viewers together, and remembers the last minutes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from queue_system.broker.failures import redact
from queue_system.config import QueueConfig
from queue_system.dashboard.stats import Stats, circuits_of, read_stats
from queue_system.errors import QueueSystemError
from queue_system.resilience.threads import in_daemon_thread

INTERVAL_S: Final = 1.0
"""How often the server is asked."""
HISTORY: Final = 120
"""How many samples the sparklines show."""

_PATIENCE_S: Final = 1.5  # how long a page waits for the first stats before it is shown without
_UNWATCHED_S: Final = 600.0  # how long it goes on unwatched, so that a viewer who comes back finds filled sparklines
_INFLIGHT_S: Final = 5.0  # how long after a request for it what each worker holds is read


@dataclass(frozen=True, slots=True)
class Sample:
    """What the sparklines show of one moment; rates are per second."""

    waiting: int
    oldest_age_s: float
    enqueued: float
    processed: float
    failed: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known at one moment. While there is a `problem`, `stats` are those before it, or None."""

    serial: int = 0
    stats: Stats | None = None
    history: Sequence[Sample] = ()
    silence_s: Mapping[str, float] = field(default_factory=dict)
    """For how long each worker has been seen without a new beat."""
    circuits: Mapping[str, str] = field(default_factory=dict)
    """The circuit breakers of this process and their states."""
    problem: str = ""


class Sampler:
    """One background task and one reading of the server for all viewers. It starts when the first one looks."""

    def __init__(self, config: QueueConfig) -> None:
        self._config = config
        self._history: deque[Sample] = deque(maxlen=HISTORY)
        self._beats: dict[str, tuple[int, float]] = {}
        self._task: asyncio.Task[None] | None = None
        self._next: asyncio.Event = asyncio.Event()
        self._asked_at = 0.0
        self._inflight_asked_at = float("-inf")
        self._ended = False
        self.latest = Snapshot()

    async def current(self, *, inflight: bool = False) -> Snapshot:
        """Return the latest snapshot; waits for the first one, but not long. `inflight`: what each worker holds."""
        is_new = inflight and not self._wants_inflight()
        fresh = self._watch(inflight=inflight)
        if is_new or not fresh:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self._next.wait()
            except TimeoutError:
                return self.latest if self.latest.problem else Snapshot(problem="The server has not answered yet.")
        return self.latest

    async def follow(self, *, inflight: bool = False) -> AsyncIterator[Snapshot]:
        """Yield each snapshot to come, until `close`."""
        while not self._ended:
            self._watch(inflight=inflight)
            await self._next.wait()
            yield self.latest

    async def close(self) -> None:
        """End the task and the streams that follow it."""
        self._ended = True
        self._next.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _watch(self, *, inflight: bool) -> bool:
        """Keep the task going; return whether it was running."""
        self._asked_at = time.monotonic()
        if inflight:
            self._inflight_asked_at = self._asked_at
        if self._ended or (self._task is not None and not self._task.done()):
            return self.latest.serial > 0
        self._next = asyncio.Event()
        self._task = asyncio.create_task(self._sample(), name="queue-system-dashboard")
        return False

    def _wants_inflight(self) -> bool:
        return time.monotonic() - self._inflight_asked_at < _INFLIGHT_S

    async def _sample(self) -> None:
        while time.monotonic() - self._asked_at < _UNWATCHED_S:
            began = time.monotonic()
            await self._look()
            told = self._next
            self._next = asyncio.Event()
            told.set()
            await asyncio.sleep(max(0.05, INTERVAL_S - (time.monotonic() - began)))

    async def _look(self) -> None:
        before = self.latest
        try:
            read = partial(read_stats, self._config, inflight=self._wants_inflight())
            stats = await in_daemon_thread(read)
        except Exception as error:  # noqa: BLE001 - viewers would wait for ever for a loop that has ended
            known = isinstance(error, QueueSystemError)
            problem = redact(str(error)) if known else f"The server's answer was not understood: {type(error).__name__}"
            circuits = circuits_of(self._config)
            self.latest = Snapshot(before.serial + 1, before.stats, before.history, circuits=circuits, problem=problem)
            return
        if before.stats is not None and not before.problem:
            self._history.append(_compare(before.stats, stats))
        history = tuple(self._history)
        silence_s = self._silences(stats)
        self.latest = Snapshot(before.serial + 1, stats, history, silence_s, circuits_of(self._config))

    def _silences(self, stats: Stats) -> dict[str, float]:
        now = time.monotonic()
        seen = self._beats
        self._beats = {}
        for worker in stats.workers or ():
            heartbeat, since = seen.get(worker.worker_id, (-1, now))
            self._beats[worker.worker_id] = (worker.heartbeat, since if heartbeat == worker.heartbeat else now)
        return {worker_id: now - since for worker_id, (_, since) in self._beats.items()}


def _compare(before: Stats, after: Stats) -> Sample:
    old = before.fleet
    new = after.fleet
    passed_s = max(new.at - old.at, 0.001)

    def rate(*names: str) -> float:
        grown = sum(new.counters.get(name, 0) - old.counters.get(name, 0) for name in names)
        return max(0.0, grown / passed_s)

    return Sample(
        after.waiting, after.oldest_age_s, rate("enqueued"), rate("processed"), rate("failed", "system_errors")
    )
