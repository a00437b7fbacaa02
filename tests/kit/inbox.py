"""What processors and callbacks of this process receive, for a test to wait for. Never loses or reorders a value."""

from __future__ import annotations

import asyncio
from typing import Any

SOON_S = 5.0


class Inbox:
    """Collects values from any thread, in order; each must come within `within_s` s of being waited for."""

    def __init__(self, within_s: float = SOON_S) -> None:
        self._within_s = within_s
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, value: Any) -> None:
        """Add a value. Thread-safe."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, value)

    async def next(self) -> Any:
        """Wait for the next value; TimeoutError if none comes."""
        return await asyncio.wait_for(self._queue.get(), self._within_s)

    async def take(self, count: int) -> list[Any]:
        """Wait for the next `count` values."""
        return [await self.next() for _ in range(count)]

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be taken."""
        return self._queue.empty()
