"""How late an event loop is, by one timer a second."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref

from queue_system.clock import SYSTEM_CLOCK

_EVERY_S = 1.0


class LoopLag:
    """Watches one event loop. Readable from any thread, also while the loop is blocked."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = SYSTEM_CLOCK.monotonic()
        self._late_s = 0.0
        with contextlib.suppress(RuntimeError):  # it is closed: its lag grows from here on
            loop.call_soon_threadsafe(self._tick)

    @property
    def seconds(self) -> float:
        """How late the last timer came, or how long the next one is overdue already."""
        return max(self._late_s, SYSTEM_CLOCK.monotonic() - self._due)

    def _tick(self) -> None:
        now = SYSTEM_CLOCK.monotonic()
        self._late_s = max(0.0, now - self._due)
        self._due = now + _EVERY_S
        asyncio.get_running_loop().call_later(_EVERY_S, self._tick)


_watched: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopLag] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def lag_of(loop: asyncio.AbstractEventLoop) -> float:
    """Return how late a loop is, in s. The first call for a loop begins to watch it."""
    with _lock:
        watch = _watched.get(loop)
        if watch is None:
            watch = _watched[loop] = LoopLag(loop)
    return watch.seconds
