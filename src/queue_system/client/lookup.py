"""What became of an operation: read its record, or wait until it changes."""

from __future__ import annotations

import math
import time
from typing import Any, Final

import msgspec

from queue_system.broker.replies import RecordReply
from queue_system.client.flow import Flow
from queue_system.config import QueueConfig
from queue_system.errors import OperationFailedError, ResultUnavailableError, UnknownOperationError, WaitTimeoutError
from queue_system.model.keys import check_identifier
from queue_system.model.record import decode_record
from queue_system.model.states import OperationState
from queue_system.validation import check_seconds

_FINAL: Final = frozenset(state.public for state in OperationState if state.is_final)
_WATCH_S: Final = 10.0
_SHARE: Final = 0.5  # of the connection's limit: how long one blocking read lasts, so that it does not give up


class OperationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an operation. Times are Unix seconds of the server's clock, None where not known.

    `status` is `"queued"`, `"delayed"`, `"running"`, `"succeeded"`, `"failed"` or `"system_error"`. Running is noted
    once an operation runs for about 100 ms.
    """

    operation_id: str
    status: str
    queue: str
    priority: str
    attempts: int
    """Executions so far, one under way included."""
    crashes: int = 0
    """How often its worker has died while it was in flight, since an execution of it last ended."""
    enqueued_at: float | None = None
    due_at: float | None = None
    """When a delayed operation is due."""
    started_at: float | None = None
    """When the last execution began."""
    finished_at: float | None = None
    updated_at: float | None = None
    """When the rest was last written, None of a delayed operation."""
    result: Any = None
    result_error: str | None = None
    """Why the result could not be kept, if it could not."""
    error: str | None = None
    error_type: str | None = None
    traceback: str | None = None
    """Where the error came from, without passwords; None if that is not known."""
    worker: str | None = None
    """`host:pid` of the worker that wrote this."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will come but callbacks."""
        return self.status in _FINAL

    def result_or_raise(self) -> Any:
        """Return what the processor returned, as JSON gave it back.

        Raises OperationFailedError where the operation failed for good, and ResultUnavailableError where it is not
        finished (wait for it: `wait_for`), or its result could not be kept. A result that was not asked to be kept
        (`result_ttl=0`) is None.
        """
        if not self.finished:
            problem = f"it is {self.status}, not finished; wait_for(operation_id) waits until it is"
            raise ResultUnavailableError(self.operation_id, problem)
        if self.status != OperationState.SUCCEEDED.public:
            raise OperationFailedError(self.operation_id, self.status, self.error_type, self.error)
        if self.result_error is not None:
            raise ResultUnavailableError(self.operation_id, self.result_error)
        return self.result


def operation_flow(config: QueueConfig, operation_id: str) -> Flow[OperationRecord | None]:
    """Return what is known of an operation, or None."""
    reply = yield config.shard.commands.get_record(check_identifier(operation_id, "operation_id"))
    return _record_of(config, operation_id, reply)


def wait_flow(config: QueueConfig, operation_id: str, timeout: float | None) -> Flow[OperationRecord]:
    """Return the record of an operation once it is finished.

    Raises:
        UnknownOperationError: nothing is known of it, or no longer.
        WaitTimeoutError: it has not ended within `timeout` seconds.
    """
    known: OperationRecord | None = None
    longest_s = math.inf if timeout is None else check_seconds("timeout", timeout, way_out="use None for no limit")
    ends = time.monotonic() + longest_s
    while True:
        left = ends - time.monotonic()
        known = yield from change_flow(config, operation_id, known, left)
        if known is None:
            raise UnknownOperationError(operation_id)
        if known.finished:
            return known
        if time.monotonic() >= ends:
            raise WaitTimeoutError(f"operation {operation_id!r} is {known.status} after {timeout} s")


def change_flow(
    config: QueueConfig, operation_id: str, known: OperationRecord | None, timeout: float
) -> Flow[OperationRecord | None]:
    """Return what is known of an operation as soon as it differs from `known`, at the latest after `timeout` s.

    The settlement wakes it; it also looks every few seconds, in case a wake-up is lost.
    """
    check_identifier(operation_id, "operation_id")
    shard = config.shard
    ends = time.monotonic() + timeout
    while True:
        reply = yield shard.commands.get_record(operation_id, int(_WATCH_S * 1000))
        found = _record_of(config, operation_id, reply)
        left = ends - time.monotonic()
        if found is None or found != known or left <= 0:
            return found
        wait_s = min(left, shard.endpoint().read_limit_s * _SHARE, _WATCH_S * _SHARE)
        yield shard.commands.wait_for_change(operation_id, reply.last_change, math.ceil(wait_s * 1000))


def _record_of(config: QueueConfig, operation_id: str, reply: RecordReply) -> OperationRecord | None:
    if not reply.record:
        return None
    record = decode_record(reply.record)
    priority, _, queue = record.queue.partition(":")
    state = record.status
    is_delayed = state is OperationState.DELAYED
    if is_delayed and record.touched_ms <= reply.now_ms:
        state = OperationState.QUEUED
    fresh = not record.queued_ms and not is_delayed  # as `enqueue` wrote it
    result = record.body.get("result")
    return OperationRecord(
        operation_id=operation_id,
        status=state.public,
        queue=queue,
        priority=priority,
        attempts=record.attempts,
        crashes=_count(record.body.get("crashes")),
        enqueued_at=_seconds(record.touched_ms if fresh else record.queued_ms),
        due_at=_seconds(record.touched_ms if is_delayed else 0),
        started_at=_seconds(record.started_ms),
        finished_at=_seconds(record.touched_ms if state.is_final else 0),
        updated_at=_seconds(0 if state is OperationState.DELAYED else record.touched_ms),
        result=result if config.cipher is None else config.cipher.decrypt(result, "result", operation_id),
        result_error=_text(record.body.get("result_error")),
        error=_text(record.body.get("error")),
        error_type=_text(record.body.get("error_type")),
        traceback=_text(record.body.get("traceback")),
        worker=record.worker or None,
    )


def _seconds(milliseconds: int) -> float | None:
    return milliseconds / 1000 if milliseconds else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _text(value: object) -> str | None:
    return None if value is None else str(value)
