"""Whether the server lets a worker in, and when one of its parts may try again. Never talks to Redis."""

from __future__ import annotations

import threading
from typing import Final

from queue_system.clock import SYSTEM_CLOCK, Clock

_PAUSE_S: Final = 1.0


class AccessBackoff:
    """What the parts of one worker know together, so that a server that denies access is tried once a second.

    Thread-safe.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._next_try: float | None = None

    @property
    def denied(self) -> bool:
        """Whether the last try was denied."""
        return self._next_try is not None

    def deny(self) -> None:
        """Note that access was denied."""
        with self._lock:
            if self._next_try is None:
                self._next_try = self._clock.monotonic() + _PAUSE_S

    def answer(self) -> None:
        """Note that the server answered."""
        self._next_try = None

    def wait_s(self) -> float:
        """Return for how many seconds to wait; 0.0 is the permission to try, which one part has at a time."""
        with self._lock:
            if self._next_try is None:
                return 0.0
            now = self._clock.monotonic()
            if now < self._next_try:
                return self._next_try - now
            self._next_try = now + _PAUSE_S
            return 0.0
