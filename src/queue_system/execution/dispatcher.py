"""Where slots wait for deliveries, and what wakes slots and engine. Never talks to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque

from queue_system.clock import SYSTEM_CLOCK
from queue_system.execution.delivery import Buffer, Delivery

_SLICE_S = 0.001


class Dispatcher:
    """Lets slots take deliveries while the lease surely holds."""

    def __init__(self, buffer: Buffer) -> None:
        self.valid_until = 0.0
        """Until when, on the monotonic clock, the lease surely holds; past it nothing is started."""
        self.last_beat: float | None = None
        """When, on the monotonic clock, the last beat was sent that the server answered; None: none yet."""
        self.closed = False
        """Whether nothing more is started because the worker stops."""
        self.starved = False
        """Whether a slot has found the buffer empty."""
        self.changed = asyncio.Event()
        """Set when the engine has something to do."""
        self.work_since = math.inf
        """Since when, on the monotonic clock, there has been work here of which nothing was started."""
        self.slice_until = 0.0
        """Until when, on the monotonic clock, slots may go on before they let the event loop serve others."""
        self._buffer = buffer
        self._breathing = False
        """Whether the next time slice has been asked for, by any slot."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._gathering: asyncio.Future[None] | None = None
        """Ends the wait of the engine for a larger turn."""

    @property
    def is_open(self) -> bool:
        """Whether deliveries may be started."""
        return SYSTEM_CLOCK.monotonic() < self.valid_until and not self.closed

    async def take(self) -> Delivery:
        """Return the next delivery, waiting for one if need be."""
        while True:
            if self.is_open and (delivery := self._buffer.take()) is not None:
                return delivery
            self.starved = True
            self.stir()
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            self.changed.set()
            try:
                await future
            except asyncio.CancelledError:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(future)
                raise

    def note_claim(self, found: int, last_start: float) -> None:
        """Note how much a claim brought, and when the last operation was started."""
        if not found:
            self.work_since = math.inf
        elif last_start >= self.work_since or self.work_since == math.inf:
            self.work_since = SYSTEM_CLOCK.monotonic()

    async def breathe(self) -> None:
        """Let the event loop serve others; the next time slice begins when it comes round."""
        if not self._breathing:
            self._breathing = True
            asyncio.get_running_loop().call_soon(self._begin_slice)
        await asyncio.sleep(0)

    def _begin_slice(self) -> None:
        self._breathing = False
        self.slice_until = SYSTEM_CLOCK.monotonic() + _SLICE_S

    def wake(self) -> None:
        """Let slots that wait take what the buffer holds, and the engine take a turn."""
        self.feed()
        self.changed.set()

    def feed(self) -> None:
        """Let slots that wait take what the buffer holds."""
        count = len(self._buffer)
        while count > 0 and self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                count -= 1

    async def wait(self, longest_s: float | None) -> None:
        """Wait until there is something to do, for at most `longest_s`."""
        if not self.changed.is_set():
            try:
                async with asyncio.timeout(longest_s):
                    await self.changed.wait()
            except TimeoutError:
                pass
        self.changed.clear()

    async def gather(self, longest_s: float) -> None:
        """Wait for `longest_s`, or until `stir` is called: a slot has found the buffer empty, or enough is settled."""
        loop = asyncio.get_running_loop()
        self._gathering = loop.create_future()
        timer = loop.call_later(longest_s, self.stir)
        try:
            await self._gathering
        finally:
            timer.cancel()
            self._gathering = None
        self.changed.clear()

    def stir(self) -> None:
        """End a `gather` under way."""
        if self._gathering is not None and not self._gathering.done():
            self._gathering.set_result(None)
