"""Counts what a worker settled, once a turn, and writes the log lines of single operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, assert_never

from queue_system.clock import SYSTEM_CLOCK
from queue_system.errors import cut_text
from queue_system.execution.delivery import Delivery
from queue_system.execution.rests import Rests
from queue_system.execution.settlement import Settlement
from queue_system.metrics import LogThrottle, MetricsRecorder, SettlementObserver, StructuredLogger
from queue_system.model.operation import Operation
from queue_system.model.states import Verb
from queue_system.model.verdict import Fail, Reject, Retry
from queue_system.tracebacks import trace


class Reporter:
    """The worker's counters between two turns."""

    def __init__(
        self, metrics: MetricsRecorder, log: StructuredLogger, observers: Sequence[SettlementObserver] = ()
    ) -> None:
        self._metrics = metrics
        self._log = log
        self._observers = observers
        self._drops_logged = LogThrottle(60.0, SYSTEM_CLOCK)

    def new_rests(self) -> Rests:
        """Return what judges which queues a worker leaves alone."""
        return Rests(self._log, self._metrics)

    def settled(self, settlements: Sequence[Settlement]) -> None:
        """Count settlements that the server accepted."""
        processed = 0
        duration_s = 0.0
        complete = Verb.COMPLETE
        for settlement in settlements:
            if settlement.verb is complete and not settlement.delivery.operation.phase:
                processed += 1
                duration_s += settlement.timing.duration_s
            else:
                self._count(settlement)
        if processed:
            self._metrics.add_many("processed", processed)
            self._metrics.add_samples("avg_process_time", duration_s * 1000, processed)
        self._metrics.update_success_rate()
        self._tell(lambda observer: observer.settled(settlements))

    def _count(self, settlement: Settlement) -> None:
        match settlement.verb:
            case Verb.REJECT:
                self._metrics.update("system_errors")
                if settlement.delivery.operation.phase:
                    self._metrics.update("callback_errors")
            case Verb.FAIL:
                self._metrics.update("failed")
            case Verb.RETRY:
                self._metrics.update("retried")
            case Verb.COMPLETE | Verb.RELEASE | Verb.RUNNING:
                pass  # a callback, an operation that runs later, a note
            case other:
                assert_never(other)

    def judged(self, operation_id: str, processor: str, verdict: Retry | Fail | Reject, *, timed_out: bool) -> None:
        """Log what became of an execution that went wrong, and count the error.

        A rejection with a `wait` is reported once the server has said whether it is one.
        """
        if isinstance(verdict, Reject) and verdict.wait:
            return
        told = {} if verdict.trace is None else {"exc_info": verdict.trace}
        error = cut_text(verdict.error)
        error_type = cut_text(verdict.error_type)
        fields: dict[str, Any] = {"operation_id": operation_id, "processor": processor, "error": error}
        self._metrics.update("errors")
        if timed_out:
            self._metrics.update("timeouts")
        match verdict:
            case Retry(delay):
                self._log.warning("operation runs again", **fields, error_type=error_type, delay_s=round(delay, 3))
                if told:
                    self._log.debug("where the attempt failed", **fields, error_type=error_type, **told)
            case Fail():
                self._log.error("operation failed", **fields, error_type=error_type, **told)
            case Reject():
                self._log.error("operation rejected", **fields, error_type=error_type, **told)

    def lost_result(self, operation_id: str, processor: str, problem: str) -> None:
        """Log that an operation succeeded and its result cannot be kept."""
        self._log.warning(
            "a result cannot be kept: the operation succeeded without it",
            operation_id=operation_id, processor=processor, result_error=problem,
        )  # fmt: skip

    def hook_failed(self, delivery: Delivery, hook: str, error: BaseException) -> None:
        """Log and count that middleware went wrong where that changes nothing for its operation."""
        self._metrics.update("middleware_errors")
        self._log.error(
            "a middleware hook failed",
            hook=hook, operation_id=delivery.operation_id, processor=delivery.operation.processor,
            exc_info=trace(error),
        )  # fmt: skip

    def lease_lost(self, operations: int) -> None:
        """Count deliveries whose settlement came too late."""
        self._metrics.add_many("lease_lost", operations)
        self._tell(lambda observer: observer.lease_lost(operations))

    def dead_letters_dropped(self, dead_letters: int) -> None:
        """Count dead letters that pushed out older ones; one line a minute reports them."""
        self._metrics.add_many("dead_letters_dropped", dead_letters)
        if self._drops_logged.ready():
            self._log.warning(
                "dead letters dropped: there are as many as max_dead_letters; retry or drop some", dropped=dead_letters
            )

    def taken_over(self, queue: bytes, operation: Operation) -> None:
        """Report to the observers a dead letter of an operation whose workers died; it has been logged."""
        delivery = Delivery("", 0, queue, b"", operation, 0.0)
        self._tell(lambda observer: observer.settled([Settlement(delivery, Verb.REJECT, b"")]))

    def outage(self) -> None:
        """Count a turn that the server did not answer; an outage has one line a second, which has the error."""
        self._metrics.hold("errors")

    def _tell(self, what: Callable[[SettlementObserver], None]) -> None:
        """Tell all observers; that one of them fails changes nothing for the operations."""
        for observer in self._observers:
            try:
                what(observer)
            except Exception as error:  # noqa: BLE001 - it is a stranger's
                self._log.error("an observer of settlements failed", observer=type(observer).__name__, exc_info=error)

    def flush_counts(self) -> None:
        """Write what was counted and not reported yet."""
        self._metrics.flush()
