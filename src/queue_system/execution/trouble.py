"""How a worker bears a server that does not answer: few log lines, short waits. Never gives up."""

from __future__ import annotations

import asyncio

from queue_system.clock import SYSTEM_CLOCK
from queue_system.errors import QueueSystemError
from queue_system.metrics import LogThrottle, StructuredLogger
from queue_system.resilience import backoff_delay

_SHORTEST_WAIT_S = 0.05
_LONGEST_WAIT_S = 2.0
_MAX_STEPS = 8


class Trouble:
    """The failures of one connection in a row."""

    def __init__(self, log: StructuredLogger) -> None:
        self._log = log
        self._failures = 0
        self._throttle = LogThrottle(1.0, SYSTEM_CLOCK)

    def over(self) -> None:
        """Learn that the server answered."""
        if self._failures:
            self._log.info("server answers again", failures=self._failures)
            self._failures = 0

    async def wait(self, error: QueueSystemError) -> None:
        """Log the error, at most once a second, and wait before the next try; the first try comes at once."""
        self._failures += 1
        if self._throttle.ready():
            kind = type(error).__name__
            self._log.error("server trouble: trying again", error_type=kind, error=str(error), failures=self._failures)
        if self._failures > 1:
            steps = min(self._failures - 2, _MAX_STEPS)
            await asyncio.sleep(min(_LONGEST_WAIT_S, backoff_delay(steps, _SHORTEST_WAIT_S, _LONGEST_WAIT_S)))
