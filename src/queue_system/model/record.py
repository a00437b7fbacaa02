"""The record of an operation, a projection of its state, and the dead letter. Never talks to Redis.

A record is one string: a line of fields between tabs, of which scripts read the first five, then JSON.
"""

from __future__ import annotations

import base64
import sys
from typing import Any

import msgspec

from queue_system.errors import UndecodableItemError
from queue_system.model.operation import Operation, change_item, decode_item

_encoder = msgspec.json.Encoder()


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


def encode_error(error: str, error_type: str) -> bytes:
    """Encode the body of a record that tells of an error."""
    return _encoder.encode({"error": error, "error_type": error_type})


def encode_letter(
    item: bytes,
    queue: bytes,
    reason: str,
    error_type: str,
    failed_at: float,
    *,
    max_item_bytes: int = sys.maxsize,
    **changes: object,
) -> bytes:
    """Encode a dead letter: the item's members and why it is here; `raw_base64` where they do not give its bytes.

    What is too large for `max_item_bytes` is kept as it came, not decoded.
    """
    why: dict[str, Any] = {
        "failure_reason": reason,
        "error_type": error_type,
        "failed_at": round(failed_at, 3),
        "queue": queue.decode(errors="replace"),
    }
    try:
        decode_item(item, max_item_bytes)
        if change_item(item, {}) != item:
            why["raw_base64"] = base64.b64encode(item).decode()
        return change_item(item, {**changes, **why}, drop=() if "crashes" in changes else ("crashes",))
    except UndecodableItemError:
        return _encoder.encode({"raw_base64": base64.b64encode(item).decode(), **why})
