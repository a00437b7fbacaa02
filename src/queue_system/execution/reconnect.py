"""How a worker deals with a server that does not answer: few log lines, short waits, no end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from queue_system.broker.access import AccessBackoff
from queue_system.broker.aio import AioTransport
from queue_system.broker.protocol import Command
from queue_system.broker.routes import RouteChangedError
from queue_system.clock import SYSTEM_CLOCK
from queue_system.errors import AccessDeniedError, QueueSystemError, WrongKeyTypeError
from queue_system.metrics import LogThrottle, StructuredLogger
from queue_system.resilience import backoff_delay

_SHORTEST_WAIT_S = 0.05
_LONGEST_WAIT_S = 2.0
_MAX_STEPS = 8


class Reconnect:
    """The failures of one connection in a row."""

    def __init__(
        self,
        log: StructuredLogger,
        throttle: LogThrottle,
        flush_counts: Callable[[], None],
        access: AccessBackoff,
        lease_s: float = math.inf,
        longest_wait_s: Callable[[], float] = lambda: _LONGEST_WAIT_S,
    ) -> None:
        self._log = log
        self._lease_s = lease_s
        self._longest_wait_s = longest_wait_s
        self._access = access
        self._failures = 0
        """How many tries have failed in a row."""
        self._lines = 0
        """How many times the log was written to since the server answered last; 0: no failure was logged."""
        self._overwritten_since = math.inf
        """Since when, on the monotonic clock, a foreign type stands in the place of what is held; inf: none does."""
        self._throttle = throttle
        self._flush_counts = flush_counts

    def over(self) -> bool:
        """Note that the server answered; return whether the log says that it had not before."""
        told = self._lines > 0
        failures = self._failures
        if failures:
            self._access.answer()
        self._failures = 0
        self._lines = 0
        self._overwritten_since = math.inf
        if told:  # else a connection that breaks again and again would flood the log with good news
            self._log.info("the server answers again", failures=failures)
        return told

    async def is_overwritten(self, error: Exception, transport: AioTransport, tokens: Command[list[int]]) -> bool:
        """Return whether a foreign type has stood for a lease where a turn found it: in the place of what is held.

        What comes back before that was not lost, and need not run again.
        """
        if not isinstance(error, WrongKeyTypeError):
            return False
        try:
            await transport.run(tokens)
        except WrongKeyTypeError:
            self._overwritten_since = min(self._overwritten_since, SYSTEM_CLOCK.monotonic())
            return SYSTEM_CLOCK.monotonic() - self._overwritten_since >= self._lease_s
        except QueueSystemError:
            return False  # the next turn will show
        self._overwritten_since = math.inf
        return False

    async def wait(self, error: Exception) -> None:
        """Log what the throttle lets through, and wait before the next try; the first comes at once, unless denied."""
        if isinstance(error.__cause__, RouteChangedError):
            return  # which is logged once for the process: nothing has failed
        self._failures += 1
        if self._throttle.ready():
            self._tell(error)
        if isinstance(error, AccessDeniedError):
            self._access.deny()
            for left_s in iter(self._access.wait_s, 0.0):
                await asyncio.sleep(left_s)
        elif self._failures > 1:
            steps = min(self._failures - 2, _MAX_STEPS)
            longest_s = self._longest_wait_s()
            await asyncio.sleep(min(longest_s, backoff_delay(steps, _SHORTEST_WAIT_S, longest_s)))

    def _tell(self, error: Exception) -> None:
        """Write the error and what was counted meanwhile in turn, so that both together are one line a second."""
        self._lines += 1
        if self._lines % 2 == 0:
            self._flush_counts()
            return
        fields = {"error_type": type(error).__name__, "error": str(error), "failures": self._failures}
        if isinstance(error, QueueSystemError):
            self._log.error("server trouble: trying again", **fields)
        else:
            self._log.error("unexpected trouble: trying again", **fields, exc_info=error)
