"""What is still known of an item that cannot be read or trusted: its id, and its callback. Never talks to Redis."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from queue_system.errors import InvalidInputError, UndecodableItemError
from queue_system.model.keys import check_identifier
from queue_system.model.operation import PHASE_FAILURE, Operation
from queue_system.model.signing import Signer

_ID: Final = re.compile(rb'\{"operation_id":"([^"\\]{1,1024})"')
_MOST_BYTES: Final = 8 * 1024 * 1024


class _Teller(msgspec.Struct):
    """The members that lead to the callback; the entity is passed over."""

    operation_id: str
    processor: str
    processor_module: str | None = None
    on_failure: str | None = None
    on_failure_module: str | None = None
    phase: str = ""


_decode = msgspec.json.Decoder(_Teller).decode
_encode = msgspec.json.Encoder().encode


def readable_id(item: bytes) -> str:
    """Return the id with which an item begins, as our clients write it; "" if it does not, or not with a usable one."""
    found = _ID.match(item)
    if found is None:
        return ""
    try:
        return check_identifier(found[1].decode(), "operation_id")
    except (UnicodeDecodeError, InvalidInputError):
        return ""


def failure_callback(
    queue: bytes, item: bytes, error: str, error_type: str, max_item_bytes: int, signer: Signer | None
) -> bytes:
    """Return the item that calls `on_failure` for one that is only too large; its entity is left out.

    b"" for everything else: what is no item names nothing, and what is not verified must not be followed.
    """
    if not max_item_bytes < len(item) <= _MOST_BYTES:
        return b""
    try:
        told = _decode(item if signer is None else signer.verify(queue, item))
        check_identifier(told.operation_id, "operation_id")
    except (UndecodableItemError, ValueError, RecursionError, msgspec.MsgspecError):
        return b""
    if told.on_failure is None or told.phase:
        return b""
    return _encode(
        Operation(
            operation_id=told.operation_id, processor=told.processor, processor_module=told.processor_module,
            on_failure=told.on_failure, on_failure_module=told.on_failure_module, phase=PHASE_FAILURE,
            error=error, error_type=error_type,
        )
    )  # fmt: skip
