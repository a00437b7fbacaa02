"""A thread that does one job again and again until stopped."""

from __future__ import annotations

import threading

from queue_system.broker.access import AccessBackoff
from queue_system.broker.shard import Shard
from queue_system.clock import SYSTEM_CLOCK
from queue_system.errors import QueueSystemError
from queue_system.metrics import StructuredLogger


class PeriodicService:
    """Base of the services that tend a shard: `perform` once per `interval_s`, in a daemon thread of its own.

    Nothing is done while access is denied; `access` is what the worker's parts know together of that.
    """

    name = "service"

    def __init__(
        self, log: StructuredLogger, interval_s: float, shard: Shard, access: AccessBackoff | None = None
    ) -> None:
        self.log = log
        self.shard = shard
        self.interval_s = interval_s
        self.first_wait_s = 0.0
        """How long the first round is waited for."""
        self.access = access or AccessBackoff()
        self.stopped = threading.Event()
        self.round_began = SYSTEM_CLOCK.monotonic()
        """When, on the monotonic clock, the present or last round began, or was waited for."""
        self._thread: threading.Thread | None = None
        self._throttle = shard.maintenance_outage

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin. A second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"queue-system-{self.name}", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it does so before its next round."""
        self.stopped.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def perform(self) -> float:
        """Do one round and return how many s to wait before the next."""
        raise NotImplementedError

    def failed(self, error: QueueSystemError) -> float:
        """Note that the server failed a round; return how many s to wait before the next."""
        if self._throttle.ready():
            self.log.error(
                "maintenance task failed and is tried again",
                task=self.name,
                error_type=type(error).__name__,
                error=str(error),
            )
        return self.interval_s

    def hold_s(self) -> float:
        """Return how many s to hold a round back; by default, until another part of the worker has access again."""
        return self.interval_s if self.access.denied else 0.0

    def _work(self) -> None:
        wait_s = self.first_wait_s
        while not self.stopped.wait(wait_s):
            self.round_began = SYSTEM_CLOCK.monotonic()
            try:
                wait_s = self.hold_s() or self.perform()
            except QueueSystemError as error:
                wait_s = self.failed(error)
            except BaseException as error:  # an exit, too: it was not meant for this thread
                wait_s = self.interval_s
                self.log.error("maintenance task failed unexpectedly", task=self.name, exc_info=error)
