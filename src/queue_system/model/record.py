"""The record of an operation, a projection of its state. Never talks to Redis.

A record is one string: a line of fields between tabs, of which scripts read the first five, then JSON.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from queue_system.errors import UndecodableItemError
from queue_system.model.operation import Operation
from queue_system.model.states import OperationState

_encoder = msgspec.json.Encoder()
_LONGEST_NUMBER: Final = 20
_TOMBSTONE_MS: Final = 60_000
_LONGEST_S: Final = 1e9
_STATES: Final = {state.value: state for state in OperationState}


def keeping(result_ttl: float) -> tuple[bool, int]:
    """Whether a record keeps its result, and its lifetime in ms; a foreign item may ask for anything."""
    return result_ttl > 0, int(min(max(result_ttl, 0), _LONGEST_S) * 1000) or _TOMBSTONE_MS


def encode_record(  # noqa: PLR0913, PLR0917 - a record has that many fields
    status: bytes,
    operation: Operation,
    queue: bytes,
    attempts: int,
    times_ms: tuple[int, int, int],
    worker: bytes = b"",
    body: bytes = b"",
) -> bytes:
    """Encode a record. `times_ms` are touched or finished, queued and started, in ms of the server's time."""
    touched, queued, started = times_ms
    nonce = operation.nonce.encode() if operation.nonce else b""
    dedup_key = operation.deduplication_key.encode() if operation.deduplication_key else b""
    return b"%b\t%b\t%d\t%b\t%b\t%d\t%d\t%d\t%b\n%b" % (
        status, nonce, touched, queue, dedup_key, attempts, queued, started, worker, body,
    )  # fmt: skip


class Record(msgspec.Struct, frozen=True):
    """A record as it was read. Times are in ms of the server's time; 0 where the record does not say."""

    status: OperationState
    queue: str
    attempts: int
    touched_ms: int
    queued_ms: int
    started_ms: int
    worker: str
    body: dict[str, Any]


def decode_record(record: bytes) -> Record:
    """Read what `encode_record` or the script `enqueue` wrote; raise UndecodableItemError for anything else."""
    head, _, body = record.partition(b"\n")
    try:
        status, _, touched, queue, _, *rest = head.decode().split("\t")
        attempts, queued, started, worker = rest or ("0", "0", "0", "")
        members = msgspec.json.decode(body, type=dict[str, Any]) if body else {}
        if (state := _STATES.get(status)) is None:
            raise ValueError(f"status {status!r:.40}")
        times = _whole(touched), _whole(queued), _whole(started)
        return Record(state, queue, _whole(attempts), *times, worker, members)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UndecodableItemError(f"not a record: {error}") from error


def _whole(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError("a number has too many digits")
    return int(text)


def encode_error(error: str, error_type: str, traceback: str = "") -> bytes:
    """Encode the body of a record that holds an error."""
    where = {"traceback": traceback} if traceback else {}
    return _encoder.encode({"error": error, "error_type": error_type, **where})


def tell_crashes(body: bytes, crashes: int) -> bytes:
    """Add to a record's body how often the operation's worker died."""
    if not crashes:
        return body
    return b'{"crashes":%d%b' % (crashes, b",%b" % body[1:] if body else b"}")
