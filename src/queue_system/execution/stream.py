"""The two halves of a worker, what runs operations and what fetches and settles them, and their orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from queue_system.config import QueueConfig
from queue_system.errors import QueueSystemError
from queue_system.execution.executor import Executor
from queue_system.execution.fetcher import Fetcher
from queue_system.execution.forks import guard, release
from queue_system.execution.holdings import Holdings
from queue_system.execution.rests import Rests
from queue_system.execution.settlement import Settler
from queue_system.execution.tally import Tally
from queue_system.resilience import in_daemon_thread

_STOP_WITHIN_S = 2.0
_STEP_S = 0.005
_LEAVE_TRIES = 3


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Stream:
    """An executor and its fetcher."""

    executor: Executor
    fetcher: Fetcher

    @classmethod
    def open(
        cls, config: QueueConfig, slots: int, settler: Settler, tally: Tally, names: Sequence[str], rests: Rests
    ) -> Stream:
        """Put the halves together, for the running event loop."""
        executor = Executor(slots, asyncio.get_running_loop())
        stream = cls(executor, Fetcher(config, executor, Holdings(settler, tally, config.sealing, rests), tally, names))
        guard(stream)
        return stream

    async def wind_down(self, grace_s: float) -> None:
        """Claim no more; let running operations end for `grace_s`, then cancel them; settle all that can be settled."""
        await self.fetcher.stop_claiming()
        await self._until(lambda: not self.executor.running, grace_s)
        for slot in self.executor.slots:
            self.executor.stop_slot(slot)
        await self._until(lambda: not (self.executor.running or self.fetcher.unsettled), _STOP_WITHIN_S)

    async def close(self) -> None:
        """Drop the connections and sign off."""
        release(self)
        self.executor.close()
        await self.fetcher.close()
        await in_daemon_thread(self._sign_off)

    def close_blocking(self) -> None:
        """Do what `close` does when there is no time to await anything."""
        release(self)
        self.executor.close()
        self.fetcher.drop_connections()
        self._sign_off()

    def cut_off(self) -> None:
        """In a forked child: hold and start nothing any more, and end it when the event loop comes round."""
        self.fetcher.drop_connections()
        self.fetcher.holdings.renew()  # whatever this process may still send counts for nothing
        self.fetcher.gate.closed = True
        self.executor.cut_off()

    def _sign_off(self) -> None:
        """Settle and release whatever is still booked on this incarnation, and leave."""
        for _ in range(_LEAVE_TRIES):
            with contextlib.suppress(QueueSystemError):
                if self.fetcher.leave_blocking():
                    break

    async def _until(self, holds: Callable[[], bool], longest_s: float) -> None:
        deadline = time.monotonic() + longest_s
        while not holds() and time.monotonic() < deadline:
            self.fetcher.release_waiting()
            await asyncio.sleep(_STEP_S)
