"""The server's time, as far as a worker knows it."""

from __future__ import annotations

from queue_system.clock import SYSTEM_CLOCK


class ServerClock:
    """Turns moments of the monotonic clock into the server's time; until a claim was answered, into this host's."""

    __slots__ = ("_offset_ms",)

    def __init__(self) -> None:
        self._offset_ms = (SYSTEM_CLOCK.time() - SYSTEM_CLOCK.monotonic()) * 1000

    def learn(self, now_ms: int) -> None:
        """Note what time it is there now, in ms."""
        self._offset_ms = now_ms - SYSTEM_CLOCK.monotonic() * 1000

    def at(self, monotonic: float) -> int:
        """Return the server's time in ms at a moment of the monotonic clock."""
        return int(self._offset_ms + monotonic * 1000)

    def now_ms(self) -> int:
        """Return the server's time now, in ms."""
        return self.at(SYSTEM_CLOCK.monotonic())
