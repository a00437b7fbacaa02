"""How long one attempt may take, and whose limit that is."""

from __future__ import annotations

from queue_system.clock import SYSTEM_CLOCK
from queue_system.metrics import LogThrottle, StructuredLogger
from queue_system.model.operation import Operation

WORKER_LIMIT = "work_timeout of the worker"
_OWN_LIMIT = "timeout of the operation"


class DefaultLimit(float):
    """A default that can be distinguished from the same number given by a caller."""


class AttemptLimits:
    """The limits of a worker's attempts."""

    def __init__(self, work_timeout: float, log: StructuredLogger) -> None:
        self.work_timeout = work_timeout
        """In s. A `DefaultLimit` holds only where an operation has no `timeout` of its own."""
        self._log = log
        self._conflicts = LogThrottle(60.0, SYSTEM_CLOCK)

    def of(self, operation: Operation, started_ms: int) -> tuple[float, str]:
        """Return the limit of this attempt in s, and whose it is: its own, the worker's, or that of all attempts."""
        limit = self.work_timeout
        name = WORKER_LIMIT
        own = operation.timeout
        if own is not None:
            if own <= limit or isinstance(limit, DefaultLimit):
                limit = own
                name = _OWN_LIMIT
            else:
                name = f"{WORKER_LIMIT}, below the operation's own timeout of {own:g} s"
                self._log_conflict(operation)
        if operation.retry_timeout is not None:
            first = operation.first_attempt_time
            left = operation.retry_timeout - (0.0 if first is None else started_ms / 1000 - first)
            if left < limit:
                limit = left
                name = f"what was left of the total timeout of {operation.retry_timeout:g} s"
        return max(limit, 0.0), name

    def _log_conflict(self, operation: Operation) -> None:
        if self._conflicts.ready():
            self._log.warning(
                "an operation's timeout is longer than the work_timeout of this worker, which applies",
                operation_id=operation.operation_id, processor=operation.processor, timeout_s=operation.timeout,
                work_timeout_s=self.work_timeout,
            )  # fmt: skip
