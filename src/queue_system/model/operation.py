"""The operation: its members, and the item that carries it through Redis. Never talks to Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from queue_system.errors import InvalidInputError, UndecodableItemError
from queue_system.model.keys import check_identifier
from queue_system.model.retry import QueueRetryConfig

_USUAL_ID: Final = 64
_LONGEST_S: Final = 1e11
PHASE_SUCCESS: Final = "on_success"
PHASE_FAILURE: Final = "on_failure"


class Operation(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One unit of work, as its item carries it. Times are Unix seconds; an absent member means its default."""

    operation_id: str = ""
    entity: Any = None
    processor: str
    processor_module: str | None = None
    timestamp: float = 0.0
    attempts: int = 0
    max_attempts: int = 5
    delays: list[float] | None = None
    timeout: float | None = None
    retry_timeout: float | None = None
    first_attempt_time: float | None = None
    on_success: str | None = None
    on_success_module: str | None = None
    on_failure: str | None = None
    on_failure_module: str | None = None
    deduplication_key: str = ""
    nonce: str = ""
    crashes: int = 0
    phase: str = ""
    result: Any = None
    result_error: str | None = None
    error: str | None = None
    error_type: str | None = None

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


def decode_item(item: bytes) -> Operation:
    """Decode an item.

    Raises:
        UndecodableItemError: it is no JSON object, or a member has the wrong type.
    """
    try:
        operation = _decoder.decode(item)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UndecodableItemError(f"not an item: {error}") from error
    if not item.isascii():
        _check_text(item)
    if not _is_plain_id(operation.operation_id) or operation.deduplication_key or operation.nonce:
        _check_identifiers(operation)
    if not -_LONGEST_S < operation.timestamp < _LONGEST_S:
        raise UndecodableItemError(f"timestamp: {operation.timestamp} is no time")
    return operation


def _is_plain_id(operation_id: str) -> bool:
    return len(operation_id) <= _USUAL_ID and operation_id.isalnum()


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
