"""The state of one operation as it changes, for an event stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from starlette.responses import StreamingResponse

from queue_system.client.flow import run_flow_async
from queue_system.client.lookup import OperationRecord, change_flow
from queue_system.errors import CircuitOpenError, ServerError, UnknownOperationError
from queue_system.manager import QueueManager
from queue_system.validation import check_instance, check_seconds

_HEARTBEAT_S: Final = 15.0
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def operation_events(
    queue: QueueManager, operation_id: str, *, heartbeat: float = _HEARTBEAT_S
) -> AsyncIterator[OperationRecord]:
    """Yield an operation's record at once, after each change, and when it has finished: then the iterator ends.

    Each change wakes it; an outage of the server makes it wait for the end of that.

    Raises:
        UnknownOperationError: there is no such operation.
        ServerError, CircuitOpenError: the server could not be asked at the beginning.
    """
    async for record in _beats(queue, operation_id, heartbeat):
        if record is not None:
            yield record


async def operation_stream(
    queue: QueueManager, operation_id: str, *, heartbeat: float = _HEARTBEAT_S
) -> StreamingResponse:
    """Answer with what `operation_events` yields as server-sent events: each the record as JSON.

    A comment shows life after `heartbeat` s without news. The stream ends with the operation, or with its client.
    Raises what `operation_events` raises, before anything is sent.
    """
    beats = _beats(queue, operation_id, heartbeat)
    return StreamingResponse(_encode(await anext(beats), beats), media_type="text/event-stream", headers=dict(_HEADERS))


def operation_json(record: OperationRecord) -> dict[str, Any]:
    """Return an operation's record as a handler answers it and a stream sends it: with `finished`, and no traceback.

    A traceback reveals code of the server, which is no business of a client.
    """
    members = {**msgspec.to_builtins(record), "finished": record.finished}
    del members["traceback"]
    return members


async def _encode(first: OperationRecord | None, beats: AsyncIterator[OperationRecord | None]) -> AsyncIterator[bytes]:
    yield _event(first)
    async for record in beats:
        yield _event(record)


def _event(record: OperationRecord | None) -> bytes:
    if record is None:
        return b": no news\n\n"
    return b"data: %b\n\n" % msgspec.json.encode(operation_json(record))


async def _beats(queue: QueueManager, operation_id: str, heartbeat: float) -> AsyncIterator[OperationRecord | None]:
    """Yield the record at once and whenever it is another one, else None every `heartbeat` s."""
    config = check_instance("queue", queue, QueueManager).config
    heartbeat = check_seconds("heartbeat", heartbeat, above=True)
    shown = await queue.aget_operation(operation_id)
    if shown is None:
        raise UnknownOperationError(operation_id)
    yield shown
    while not shown.finished:
        try:
            record = await run_flow_async(change_flow(config, operation_id, shown, heartbeat), config.arun)
        except (ServerError, CircuitOpenError):
            await asyncio.sleep(heartbeat)
            record = shown
        if record is None:
            return  # purged, or finished and forgotten meanwhile
        yield None if record == shown else record
        shown = record
