"""Load while primaries are replaced: producers of both kinds, a worker, and what became of what was acknowledged."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

from queue_system import QueueConfig, QueueManager, QueueSystemError, QueueWorker
from queue_system.resilience import in_daemon_thread
from tests.kit.logs import LineLogger
from tests.kit.topologies import OwnSentinel
from tests.kit.waiting import holds_within
from tests.kit.workers import running

PAUSE_S = 0.008
"""Between two calls of one producer: together they enqueue up to 240 a second."""
QUIET_S = 20.0
"""When nothing has run for so long, what has not run is lost: no lease was."""


@dataclass
class Tally:
    """What was acknowledged, how often each ran, and the longest time without an acknowledgement, by producer."""

    acknowledged: list[str] = field(default_factory=list)
    ran: Counter[str] = field(default_factory=Counter)
    stalls_s: dict[str, float] = field(default_factory=lambda: {"sync": 0.0, "asyncio": 0.0})
    errors: list[BaseException] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """How many acknowledged operations did not run."""
        return len(set(self.acknowledged).difference(self.ran))

    @property
    def doubled(self) -> int:
        """How many operations ran more than once."""
        return sum(times > 1 for times in self.ran.values())

    @property
    def stall_s(self) -> float:
        """The longest time without an acknowledgement."""
        return max(self.stalls_s.values())


class Load:
    """Producers and a worker that run inside a `with`; at its end all that was acknowledged has run, or is lost."""

    def __init__(self, url: str, prefix: str, **settings: Any) -> None:
        self.log = LineLogger()
        self.config = QueueConfig(redis_url=url, queue_prefix=prefix, logger=self.log, **settings)
        self.config.register_callback(self._process, "count")
        self.tally = Tally()
        self._manager = QueueManager(self.config)
        self._ready = threading.Barrier(3)
        self._over = threading.Event()
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._produce),
            threading.Thread(target=lambda: asyncio.run(self._run_loop())),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._threads[0].join()
        self._wait_until_run()
        self._done.set()
        self._threads[1].join()
        self.config.close()

    def go_on(self, count: int = 50) -> None:
        """Wait until so many more operations were acknowledged to each producer."""
        wanted = len(self.tally.acknowledged) + 2 * count
        assert holds_within(lambda: len(self.tally.acknowledged) >= wanted, 60.0), self.tally.errors[-3:]

    def _wait_until_run(self) -> None:
        """Wait until all that was acknowledged has run, or nothing more does."""
        while self.tally.lost and self._goes_on(self.tally.ran.total()):
            pass

    def _goes_on(self, ran: int) -> bool:
        """Tell whether more runs than so many operations, or all have."""
        return holds_within(lambda: not self.tally.lost or self.tally.ran.total() > ran, QUIET_S)

    def _process(self, entity: dict[str, Any]) -> None:
        self.tally.ran[entity["id"]] += 1

    def _note(self, kind: str, operation_id: str, last: float) -> float:
        now = time.monotonic()
        self.tally.acknowledged.append(operation_id)
        self.tally.stalls_s[kind] = max(self.tally.stalls_s[kind], now - last)
        return now

    def _produce(self) -> None:
        serial = 0
        self._ready.wait(30)
        last = time.monotonic()
        while not self._over.wait(PAUSE_S):
            serial += 1
            try:
                self._manager.enqueue({"id": f"s{serial}"}, "count", operation_id=f"s{serial}")
            except QueueSystemError as error:
                self.tally.errors.append(error)
            else:
                last = self._note("sync", f"s{serial}", last)

    async def _run_loop(self) -> None:
        async with running(QueueWorker(self.config, max_workers=5)):
            self._ready.wait(30)
            await self._produce_in_loop()
            await in_daemon_thread(self._done.wait)
        await self.config.aclose()

    async def _produce_in_loop(self) -> None:
        serial = 0
        last = time.monotonic()
        while not self._over.is_set():
            serial += 1
            try:
                await self._manager.aenqueue({"id": f"a{serial}"}, "count", operation_id=f"a{serial}")
            except QueueSystemError as error:
                self.tally.errors.append(error)
            else:
                last = self._note("asyncio", f"a{serial}", last)
            await asyncio.sleep(PAUSE_S)


def kill(sentinel: OwnSentinel) -> None:
    """Kill the primary, and wait until another one is named."""
    former = sentinel.primary
    former.kill()
    sentinel.wait_until_switched(former.port)


def freeze(sentinel: OwnSentinel) -> None:
    """Stop the primary with its connections open, and wait until another one is named."""
    former = sentinel.primary
    former.freeze()
    sentinel.wait_until_switched(former.port)


def coordinated(sentinel: OwnSentinel) -> None:
    """Let the servers hand over by themselves; those of Valkey 9 can."""
    sentinel.failover("COORDINATED")


def raw(sentinel: OwnSentinel) -> None:
    """Tell a sentinel to switch, without a pause of writes."""
    sentinel.failover()
