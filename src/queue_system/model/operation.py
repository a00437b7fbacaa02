"""The operation: its members, and the item that carries it through Redis. Never talks to Redis."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

from queue_system.errors import InvalidInputError, UndecodableItemError
from queue_system.model.keys import check_identifier
from queue_system.model.nesting import MAX_DEPTH, SHALLOW_BYTES, has_many_parts, nesting
from queue_system.model.pause import collections_paused
from queue_system.model.retry import MAX_ATTEMPTS_LIMIT, QueueRetryConfig
from queue_system.validation import LONGEST_S

_USUAL_ID: Final = 64
_LATEST: Final = 1e11
_COUNTS_BYTES: Final = 256
_ERROR_BYTES: Final = 65_536
_CALLBACK: Final = b'"phase":"on_'
PHASE_SUCCESS: Final = "on_success"
PHASE_FAILURE: Final = "on_failure"

Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
Executions = Annotated[int, msgspec.Meta(ge=1, le=MAX_ATTEMPTS_LIMIT)]
Moment = Annotated[float, msgspec.Meta(ge=0, lt=_LATEST)]
Wait = Annotated[float, msgspec.Meta(ge=0, le=LONGEST_S)]
Waits = Annotated[list[Wait], msgspec.Meta(min_length=1, max_length=MAX_ATTEMPTS_LIMIT)]
Limit = Annotated[float, msgspec.Meta(gt=0, le=LONGEST_S)]


class Operation(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One unit of work, as its item carries it. Times are Unix seconds; an absent member means its default.

    The decoder refuses a number out of its range: anybody may have written the item.
    """

    operation_id: str = ""
    entity: Any = None
    processor: str
    processor_module: str | None = None
    timestamp: Moment = 0.0
    attempts: Count = 0
    max_attempts: Executions = 5
    delays: Waits | None = None
    timeout: Limit | None = None
    retry_timeout: Limit | None = None
    result_ttl: Wait | None = None
    first_attempt_time: Moment | None = None
    due: Moment | None = None
    on_success: str | None = None
    on_success_module: str | None = None
    on_failure: str | None = None
    on_failure_module: str | None = None
    deduplication_key: str = ""
    nonce: str = ""
    crashes: Count = 0
    phase: str = ""
    result: Any = None
    result_error: str | None = None
    error: str | None = None
    error_type: str | None = None
    error_traceback: str | None = None
    traceparent: Any = None  # of any type: an operation runs whatever its trace context says
    tracestate: Any = None
    baggage: Any = None

    @property
    def retry_config(self) -> QueueRetryConfig:
        """The retry behaviour; raises InvalidInputError when a foreign item carries values that make no sense."""
        return QueueRetryConfig(self.max_attempts, self.delays, self.retry_timeout)


_decoder = msgspec.json.Decoder(Operation)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()


def encode_tail(operation: Operation) -> bytes:
    """Encode all but id and entity, once for a batch; `encode_item` puts the rest in front of it."""
    return _encoder.encode(operation)[1:]


def encode_item(operation_id: str, entity: bytes, tail: bytes) -> bytes:
    """Put an item together from an id that `check_identifier` passed, an encoded entity and a tail of `encode_tail`."""
    return b'{"operation_id":"%b","entity":%b,%b' % (operation_id.encode(), entity, tail)


def decode_item(item: bytes, max_item_bytes: int = sys.maxsize) -> Operation:
    """Decode an item, unless it is too large for `max_item_bytes` as `check_size` has it.

    Raises:
        UndecodableItemError: it is no JSON object, nested too deep, or a member has the wrong type or makes no sense.
    """
    size = len(item)
    if size > max_item_bytes:
        check_size(item, max_item_bytes)
    has_many = size > SHALLOW_BYTES and has_many_parts(item)
    if has_many and nesting(item) > MAX_DEPTH:
        raise UndecodableItemError(f"not an item: it is nested deeper than {MAX_DEPTH} levels")
    try:
        operation = _decode_many(item) if has_many else _decoder.decode(item)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UndecodableItemError(f"not an item: {error}") from error
    if not item.isascii():
        _check_text(item)
    operation_id = operation.operation_id
    is_plain = operation_id.isalnum() and len(operation_id) <= _USUAL_ID
    if not is_plain or operation.deduplication_key or operation.nonce:
        _check_identifiers(operation)
    return operation


def largest_item(max_item_bytes: int) -> int:
    """Return the size beyond which no item can have begun within `max_item_bytes`, whatever a worker added."""
    return 2 * max_item_bytes + _COUNTS_BYTES + _ERROR_BYTES


def check_size(item: bytes, max_item_bytes: int) -> None:
    """Raise UndecodableItemError for an item larger than any that began within `max_item_bytes`; decode nothing.

    What a worker adds may take an item beyond that limit: counts, and for a callback the result or the error.
    """
    size = len(item)
    grown = max_item_bytes + _COUNTS_BYTES
    if size <= grown or (size <= largest_item(max_item_bytes) and _CALLBACK in item):
        return
    raise UndecodableItemError(f"not an item: it has {size} bytes, more than max_item_bytes = {max_item_bytes}")


def _decode_many(item: bytes) -> Operation:
    """Decode many arrays and objects without collections of garbage, which would walk them again and again."""
    with collections_paused():
        return _decoder.decode(item)


def _check_text(item: bytes) -> None:
    try:
        item.decode()  # the decoder passes over the names of members that it does not know
    except UnicodeDecodeError as error:
        raise UndecodableItemError(f"not an item: {error}") from error


def _check_identifiers(operation: Operation) -> None:
    try:
        for field in ("operation_id", "deduplication_key", "nonce"):
            if value := getattr(operation, field):
                check_identifier(value, field)
    except InvalidInputError as error:
        raise UndecodableItemError(str(error)) from error


def change_item(item: bytes, changes: dict[str, object], *, drop: Sequence[str] = ()) -> bytes:
    """Change members of an item; all others, unknown ones included, keep their very bytes. The id comes first."""
    members: dict[str, object] = dict(_members.decode(item))
    for name in drop:
        members.pop(name, None)
    changed = {"operation_id": members.pop("operation_id", ""), **members, **changes}
    return _encoder.encode(changed)
